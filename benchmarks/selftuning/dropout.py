"""The problem of the figures: dropout rates of a small network, tuned while it trains.

1,000 images of MNIST to learn from, 1,000 to validate and 5,000 for the test; 784-200-200-10 with
dropout on the input and after both hidden layers, in batches of 100.

Whatever does not tune itself is a *schedule* of rates, a row per epoch, along which the network is
trained by `HyperTraining.replay`. So all keep the epoch of the lowest validation loss, evaluate as
often, and take the same path through the same code.
"""

import math
import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from optuna.distributions import FloatDistribution
from torch import Tensor
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.hypertraining import data
from optuna_hypernet import HyperTraining
from optuna_hypernet.bilevel.tuned import Point
from optuna_hypernet.bilevel.tuned import Tuned


RATE = FloatDistribution(0.0, 0.9)
INPUT, FIRST, LAST = RATES = ("0.p", "3.p", "6.p")
NAMES = {INPUT: "input", FIRST: "first hidden", LAST: "last hidden"}
BATCH, EPOCHS = 100, 120


def train_loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1], reduction="none")


def valid_loss(model: nn.Module, batch: Any) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


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
    def rates(self) -> np.ndarray:
        """``(epochs, rates)`` as they were after each."""
        return np.stack(list(self.tuned.schedule.values()), 1)

    @property
    def losses(self) -> np.ndarray:
        """``(epochs,)`` validation losses."""
        return np.array([point.predicted_loss for point in self.tuned.path])


class Dropout:
    """The problem of one seed, which picks images, first weights and everything drawn.

    Args:
        split: The images.
        seed: Of the first weights, too.
        hidden: Units of each hidden layer.
        tuned: Which rates; the others stay 0.
    """

    def __init__(
        self, split: data.Split, seed: int, hidden: int = 200, tuned: Sequence[str] = RATES
    ) -> None:
        self.split = split
        self.seed = seed
        self.tuned = tuple(tuned)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = nn.Sequential(
                nn.Dropout(0.0),
                nn.Linear(split.train[0].shape[1], hidden),
                nn.ReLU(),
                nn.Dropout(0.0),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Dropout(0.0),
                nn.Linear(hidden, 10),
            )

    def training(self, start: float | None = None, response: Any = "structured") -> HyperTraining:
        """As a user would call it; all rates start alike."""
        return HyperTraining(
            self.model,
            dict.fromkeys(self.tuned, RATE),
            train_loss,
            valid_loss,
            data.batches(self.split.train, BATCH),
            data.batches(self.split.valid, BATCH),
            response=response,
            seed=self.seed,
            start=None if start is None else dict.fromkeys(self.tuned, start),
        )

    def tune(self, start: float, epochs: int, response: Any = "structured") -> Run:
        """Self-tuned, all epochs of it."""
        training, since = self.training(start, response), time.perf_counter()
        return self.run(training.fit(epochs=epochs, patience=epochs), since)

    def replay(self, tuned: Tuned) -> Run:
        """Ordinary training along a schedule that was found."""
        training, since = self.training(), time.perf_counter()
        return self.run(training.replay(tuned), since)

    def follow(self, schedule: np.ndarray) -> Run:
        """The same along any other, ``(epochs, rates)``."""
        return self.replay(self.as_tuned(schedule))

    def hold(self, params: Mapping[str, float], epochs: int) -> Run:
        """Ordinary training at constant rates."""
        return self.follow(np.tile([params[name] for name in self.tuned], (epochs, 1)))

    def as_tuned(self, schedule: np.ndarray) -> Tuned:
        """A schedule that nobody found, as `replay` takes it."""
        batches = math.ceil(len(self.split.train[0]) / BATCH)
        rows = schedule.clip(RATE.low, RATE.high).tolist()

        def point(steps: int, row: Sequence[float]) -> Point:
            return Point(steps, steps, dict(zip(self.tuned, row, strict=True)), math.nan)

        path = [point(epoch * batches, row) for epoch, row in enumerate(rows, 1)]
        return Tuned(path[-1].params, self.model, math.nan, math.nan, path, False, [])

    def run(self, tuned: Tuned, since: float) -> Run:
        """Of what a run returned just now; the clock stops before the test."""
        seconds = time.perf_counter() - since
        with torch.no_grad():
            test = float(valid_loss(tuned.model.eval(), self.split.test))
        return Run(tuned, test, seconds)


def mnist(seed: int, tuned: Sequence[str] = RATES) -> Dropout:
    """Other images of MNIST's training images for every seed; the first 5,000 of its test."""
    split = data.mnist(1000, 1000, seed)
    x, y = split.test
    return Dropout(split._replace(test=(x[:5000], y[:5000])), seed, tuned=tuned)
