"""One run of a plan: evaluations on the way, early stop, checkpoints."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor
from torch import nn
from tqdm import tqdm

from optuna_hypernet.bilevel.loop import Bilevel
from optuna_hypernet.bilevel.loop import Response
from optuna_hypernet.bilevel.loop import run
from optuna_hypernet.bilevel.plans import Plan
from optuna_hypernet.bilevel.tuned import Point
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.counts import check_count
from optuna_hypernet.response.models import load_state


# Losses this close count as equal, and of equals the last is kept: its response has learnt most,
# while λ̂ that passes by with a loss a hair lower would be an accident.
_TIE = 0.005


@dataclass(frozen=True)
class Options:
    """How a plan is carried out, whatever it is; see ``HyperTraining.fit``.

    Attributes:
        evaluations: The ticks after which λ̂ is evaluated.
        arguments: What the run is made with, in words by name: a checkpoint with others is
            refused. It may lack some.
        watch: Is shown the record after each, and one that is resumed, and whether it is; what it
            raises ends the run, with nothing lost.

    Raises:
        TypeError: If ``patience`` is not an int.
        ValueError: If it is not positive.
    """

    patience: int
    checkpoint: str | os.PathLike[str] | None
    progress: bool
    evaluations: Collection[int]
    watch: Callable[[Record, bool], None] = lambda record, resumed: None
    arguments: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_count("patience", self.patience, 1)


@dataclass
class Record:
    """What a run has seen so far.

    Attributes:
        done: Ticks of the plan carried out.
        path: Ticks, coordinates and scale ``(D,)``, predicted validation loss; an evaluation each.
        lowest: The lowest predicted validation loss since the warm-up.
        waited: Evaluations since then.
        best: The predicted loss of what is kept: the last one about as low.
        best_z: Its coordinates ``(D,)``.
        best_model: The state of the model there.
        stopped: Whether the run was ended early.
    """

    done: int = 0
    path: list[tuple[int, Tensor, Tensor, float]] = field(default_factory=list)
    lowest: float = math.inf
    waited: int = 0
    best: float = math.inf
    best_z: Tensor | None = None
    best_model: dict[str, Any] | None = None
    stopped: bool = False

    def add(self, done: int, bilevel: Bilevel, response: Response, counts: bool) -> None:
        """Evaluates λ̂, and keeps it if it is as good as any; the warm-up does not count."""
        z = bilevel.z.detach().clone()
        loss = bilevel.evaluate(z)
        self.done = done
        self.path.append((done, z, bilevel.scale, loss))
        self.waited += counts
        if counts and loss < self.lowest:
            self.lowest, self.waited = loss, 0
        if counts and loss <= self.lowest + _TIE * abs(self.lowest):
            self.best, self.best_z = loss, z
            self.best_model = response.export(z).state_dict()

    def points(self, plan: Plan, coordinates: Coordinates) -> list[Point]:
        """The path in natural units."""
        return [
            Point(
                done,
                plan.steps(done),
                coordinates.decode(z),
                loss,
                {} if plan.entropy is None else coordinates.by_name(scale),
            )
            for done, z, scale, loss in self.path
        ]

    @property
    def kept_z(self) -> Tensor:
        """Coordinates ``(D,)`` of what is kept.

        Raises:
            FloatingPointError: If nothing is, for want of a finite loss.
        """
        if self.best_z is None:
            raise FloatingPointError(
                f"No evaluation gave a finite validation loss; the last was {self.path[-1][-1]}. "
                "Look at the validation data and at what valid_loss does with them."
            )
        return self.best_z

    def kept(self, response: Response) -> nn.Module:
        """The model that is kept."""
        model = response.export(self.kept_z)
        assert self.best_model is not None
        # Not strictly: a pass may have filled a buffer since.
        load_state(model, self.best_model, self.kept_z.device, strict=False)
        return model


def carry_out(bilevel: Bilevel, response: Response, plan: Plan, options: Options) -> Record:
    """Carries out a plan, from its checkpoint on if there is one.

    Raises:
        ValueError: If the checkpoint is of another plan or of other arguments, or cannot be read,
            or has no folder.
        FloatingPointError: If a training loss, or the loss of a valid step, is not finite.
    """
    path = None if options.checkpoint is None else Path(options.checkpoint)
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"The checkpoint is {path}, but there is no folder {path.parent}.")
    record = Record()
    if path is not None and path.exists():
        record, state = _load(path, plan, options.arguments, bilevel.z.device)
        bilevel.load_state_dict(state)
        record.stopped = bool(record.waited >= options.patience)
        options.watch(record, True)
    if record.stopped:
        return record
    with tqdm(total=plan.ticks, initial=record.done, disable=not options.progress) as bar:
        for done in run(bilevel, plan, record.done):
            bar.update()
            if done not in options.evaluations:
                continue
            record.add(done, bilevel, response, counts=done >= plan.warm_up)
            bar.set_postfix(predicted=record.path[-1][-1])
            record.stopped = bool(record.waited >= options.patience)
            if path is not None:
                _save(path, plan, options.arguments, record, bilevel.state_dict())
            options.watch(record, False)
            if record.stopped:
                break
    return record


def _save(
    path: Path, plan: Plan, arguments: Mapping[str, str], record: Record, state: dict[str, Any]
) -> None:
    """Writes a checkpoint; an interruption meanwhile leaves the one before."""
    partial = path.with_name(path.name + ".partial")
    content = {"plan": repr(plan), "arguments": dict(arguments)}
    torch.save({**content, "record": vars(record), "state": state}, partial)
    os.replace(partial, path)


def _load(
    path: Path, plan: Plan, arguments: Mapping[str, str], device: torch.device
) -> tuple[Record, dict[str, Any]]:
    # Generators' states are on the CPU whatever the device; the rest is copied to its place.
    if not is_zipfile(path):
        raise ValueError(f"{path} is no checkpoint, or a broken one. Use another file.")
    content = torch.load(path, map_location="cpu", weights_only=True)
    content = content if isinstance(content, dict) else {}
    its = {"plan": str(content.get("plan")), **content.get("arguments", {})}
    here = {"plan": repr(plan), **arguments}
    for name in here:
        if name in its and its[name] != here[name]:  # an older checkpoint says less
            one, other = _apart(its[name], here[name])
            raise ValueError(
                f"The checkpoint {path} is of another run: it has the {name} {one}, but this run "
                f"has {other}. Use the same arguments to resume it, or another file."
            )
    record = Record(**content["record"])
    record.path = [
        (done, z.to(device), scale.to(device), loss) for done, z, scale, loss in record.path
    ]
    record.best_z = None if record.best_z is None else record.best_z.to(device)
    return record, content["state"]


def _apart(one: str, other: str) -> tuple[str, str]:
    """The first lines in which two texts differ."""
    lines = itertools.zip_longest(one.splitlines(), other.splitlines(), fillvalue="nothing")
    return next((a.strip().rstrip("("), b.strip().rstrip("(")) for a, b in lines if a != b)
