"""A problem of the tables: hyperparameters of a network, tuned while it trains.

Whatever does not tune itself is a *schedule* of hyperparameters, a row per epoch, along which the
network is trained by `HyperTraining.replay`. So all keep the epoch of the lowest validation loss,
evaluate as often, and take the same path through the same code.

Starts, grids and noise are *levels*, which are the same for all hyperparameters: the level of a
dropout rate, from 0 to 0.9, is that rate; any other number at the share s of its range (of its
logarithm's, if logarithmic) has the level 0.9 s.
"""

import math
import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import numpy as np
import torch
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from torch import Tensor
from torch import nn

from optuna_hypernet import HyperTraining
from optuna_hypernet.bilevel.tuned import Point
from optuna_hypernet.bilevel.tuned import Tuned
from optuna_hypernet.response.batch import to_device
from optuna_hypernet.response.losses import TrainLoss
from optuna_hypernet.response.losses import ValidLoss


HIGHEST = 0.9  # dropout rate, and level
RATE = FloatDistribution(0.0, HIGHEST)

Batch = tuple[Tensor, Tensor]  # inputs and targets, a row per example


@dataclass(frozen=True)
class Run:
    """What one run came to.

    Attributes:
        tuned: Its schedule, and the model of the epoch with the lowest validation loss.
        test: The test loss of that model.
        seconds: All that it took, but for the test.
    """

    tuned: Tuned
    test: float
    seconds: float

    @property
    def valid(self) -> float:
        """The lowest validation loss."""
        return self.tuned.true_loss

    @property
    def epochs(self) -> np.ndarray:
        """``(epochs,)`` 1, 2, ..."""
        return np.arange(1, len(self.tuned.path) + 1)

    @property
    def values(self) -> np.ndarray:
        """``(epochs, hyperparameters)`` as they were after each."""
        return np.stack(list(self.tuned.schedule.values()), 1)

    @property
    def losses(self) -> np.ndarray:
        """``(epochs,)`` validation losses."""
        return np.array([point.predicted_loss for point in self.tuned.path])


@dataclass(frozen=True)
class Problem:
    """The problem of one seed, which picks data, first weights and everything drawn.

    Attributes:
        title: What is tuned, of which network, on which data.
        space: The search space, in the order of rows.
        names: What to call the hyperparameters, in the same order.
        start: Where a self-tuned run begins, unless said otherwise.
        grid: The numbers of a grid search, each of which is the level of all those named.
        test: Batches of which nobody has seen one before.
        options: Of HyperTraining, beyond what is here.
        fit: Of its `fit`, likewise.
    """

    title: str
    seed: int
    epochs: int
    model: nn.Module
    space: Mapping[str, FloatDistribution | IntDistribution]
    names: Sequence[str]
    start: Mapping[str, float]
    grid: Mapping[str, Sequence[str]]
    train_loss: TrainLoss
    valid_loss: ValidLoss
    train: Sequence[Batch]
    valid: Sequence[Batch]
    test: Sequence[Batch]
    options: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)

    def training(
        self, start: Mapping[str, float] | None = None, response: Any = "structured"
    ) -> HyperTraining:
        """As a user would call it."""
        return HyperTraining(
            self.model,
            self.space,
            self.train_loss,
            self.valid_loss,
            self.train,
            self.valid,
            response=response,
            seed=self.seed,
            start=start,
            **self.options,
        )

    def tune(self, start: Mapping[str, float], epochs: int, response: Any = "structured") -> Run:
        """Self-tuned, all epochs of it."""
        training, since = self.training(start, response), time.perf_counter()
        return self.run(training.fit(epochs=epochs, patience=epochs, **self.fit), since)

    def replay(self, tuned: Tuned) -> Run:
        """Ordinary training along a schedule that was found."""
        training, since = self.training(), time.perf_counter()
        return self.run(training.replay(tuned), since)

    def follow(self, levels: np.ndarray, spread: Mapping[str, float] | None = None) -> Run:
        """The same along any other, ``(epochs, hyperparameters)``, with a spread that stays."""
        return self.replay(self.as_tuned(self.values(levels.clip(0, HIGHEST)), spread or {}))

    def hold(self, params: Mapping[str, float], epochs: int) -> Run:
        """Ordinary training at constant hyperparameters."""
        return self.replay(
            self.as_tuned(np.tile([params[name] for name in self.space], (epochs, 1)), {})
        )

    def grouped(self, levels: Mapping[str, float]) -> dict[str, float]:
        """Hyperparameters at the levels of the grid's groups."""
        of = {name: levels[group] for group, names in self.grid.items() for name in names}
        values = self.values(np.array([of[name] for name in self.space])).tolist()
        return dict(zip(self.space, values, strict=True))

    def alike(self, level: float) -> dict[str, float]:
        """Hyperparameters that all have the same level."""
        return self.grouped(dict.fromkeys(self.grid, level))

    def values(self, levels: np.ndarray) -> np.ndarray:
        """``(..., hyperparameters)`` in natural units; those of ints are in between, too."""
        low, width, log = self.axes()
        ends = low + levels / HIGHEST * width
        return np.asarray(np.where(log, np.exp(ends), ends))

    def levels(self, values: np.ndarray) -> np.ndarray:
        """The inverse."""
        low, width, log = self.axes()
        ends = np.where(log, np.log(np.where(log, values, 1)), values)
        return np.asarray((ends - low) / width * HIGHEST)

    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Low ends, widths, and which are logarithmic, ``(hyperparameters,)`` each."""
        kinds = list(self.space.values())
        low, high = (np.array([float(getattr(k, end)) for k in kinds]) for end in ("low", "high"))
        log = np.array([kind.log for kind in kinds])
        low, high = (np.where(log, np.log(np.where(log, end, 1)), end) for end in (low, high))
        return low, high - low, log

    def as_tuned(self, schedule: np.ndarray, spread: Mapping[str, float]) -> Tuned:
        """A schedule that nobody found, in natural units, as `replay` takes it."""

        def point(steps: int, row: Sequence[float]) -> Point:
            params = dict(zip(self.space, row, strict=True))
            return Point(steps, steps, params, math.nan, spread)

        rows = enumerate(schedule.tolist(), 1)
        path = [point(epoch * len(self.train), row) for epoch, row in rows]
        return Tuned(path[-1].params, self.model, math.nan, math.nan, path, False, [])

    def run(self, tuned: Tuned, since: float) -> Run:
        """Of what a run returned just now; the clock stops before the test."""
        seconds = time.perf_counter() - since
        device = next(tuned.model.parameters()).device
        with torch.no_grad():
            tuned.model.eval()
            losses = [float(self.valid_loss(tuned.model, to_device(x, device))) for x in self.test]
        test = np.average(losses, weights=[len(batch[0]) for batch in self.test])
        return Run(tuned, float(test), seconds)


def among(groups: Mapping[str, Sequence[str]], tuned: Sequence[str]) -> dict[str, list[str]]:
    """Groups of those that are tuned, without empty ones."""
    some = {group: [name for name in names if name in tuned] for group, names in groups.items()}
    return {group: names for group, names in some.items() if names}


def best_device() -> str:
    """Of the sizes that need one: a GPU, where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def train_loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    """Of images, by example."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def valid_loss(model: nn.Module, batch: Any) -> Tensor:
    """Of images."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])
