"""What a run tells an Optuna trial: its losses on the way, its schedule, and when to stop."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol
from typing import runtime_checkable

import numpy as np
from optuna.exceptions import TrialPruned

from optuna_hypernet.bilevel.plans import Plan
from optuna_hypernet.bilevel.runs import Record
from optuna_hypernet.bilevel.tuned import Point
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.coordinates import Params


@runtime_checkable
class Trial(Protocol):
    """What is asked of a trial; ``optuna.Trial`` is one."""

    @property
    def number(self) -> int:
        """Of the trial in its study."""

    def report(self, value: float, step: int) -> None:
        """Takes a validation loss, or its negative."""

    def should_prune(self) -> bool:
        """Whether the run is to end."""

    def set_user_attr(self, key: str, value: Any) -> None:
        """Keeps something that can be written as JSON."""


@dataclass(frozen=True)
class Watch:
    """Reports each evaluation of a run to a trial, which may prune the run.

    But not to one of several objectives: there Optuna takes no reports, and prunes nothing.

    Attributes:
        batches: Train steps of an epoch, if evaluations are to be reported as those of epochs.

    Raises:
        TypeError: If ``trial`` is none.
    """

    trial: Trial
    plan: Plan
    coordinates: Coordinates
    batches: int | None

    def __post_init__(self) -> None:
        if not isinstance(self.trial, Trial):
            raise TypeError(
                f"trial is a {type(self.trial).__name__}, but it must be an Optuna trial. Pass "
                "the one that the objective is given, or study.ask()."
            )

    def __call__(self, record: Record, resumed: bool) -> None:
        """Reports the last evaluation; of a resumed run, which is not pruned for those, all.

        Raises:
            optuna.TrialPruned: If the trial says so; the path so far is stored in it.
        """
        if len(self._directions()) > 1:
            return
        if resumed:
            with warnings.catch_warnings():  # if it is the trial that the run began with
                warnings.filterwarnings("ignore", "The reported value is ignored")
                for done, _, _, loss in record.path:
                    self._report(loss, done)
            return
        done, _, _, loss = record.path[-1]
        self._report(loss, done)
        if self.trial.should_prune():
            path = record.points(self.plan, self.coordinates)
            store(self.trial, path[-1].params, path)
            raise TrialPruned(f"The trial was pruned after {path[-1].steps} train steps.")

    def _report(self, loss: float, done: int) -> None:
        """The loss; its negative in a study that maximises, whose pruner ends the lowest."""
        maximises = self._directions() == ["MAXIMIZE"]
        self.trial.report(-loss if maximises else loss, self._step(done))

    def _directions(self) -> list[str]:
        """Of the study; none if it is a kind of trial that has no study."""
        study = getattr(self.trial, "study", None)
        return [] if study is None else [one.name for one in study.directions]

    def _step(self, done: int) -> int:
        """Train steps, or how many epochs are over; the last may be cut short by its cycle."""
        steps = self.plan.steps(done)
        if self.batches is None:
            return steps
        return -(-steps // self.batches) if done == self.plan.ticks else steps // self.batches


def store(trial: Trial, params: Params, path: Sequence[Point]) -> None:
    """Keeps the reached params and the schedule as the trial's user attributes."""
    trial.set_user_attr("params", {name: _plain(value) for name, value in params.items()})
    schedule = {name: [_plain(point.params[name]) for point in path] for name in params}
    trial.set_user_attr("schedule", schedule)
    if path[0].spread:
        spread = {name: [_plain(point.spread[name]) for point in path] for name in params}
        trial.set_user_attr("spread", spread)
    trial.set_user_attr("steps", [point.steps for point in path])


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
