"""What stays fixed while φ and λ̂ move: search space, data, optimizers, device, seed."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import nn

from optuna_hypernet.bilevel.batches import Batches
from optuna_hypernet.bilevel.densities import Around
from optuna_hypernet.bilevel.densities import At
from optuna_hypernet.bilevel.loop import Bilevel
from optuna_hypernet.bilevel.loop import Response
from optuna_hypernet.bilevel.loop import run
from optuna_hypernet.bilevel.optimizers import MakeOptimizer
from optuna_hypernet.bilevel.optimizers import MakeScheduler
from optuna_hypernet.bilevel.plans import Plan
from optuna_hypernet.bilevel.runs import Record
from optuna_hypernet.bilevel.tuned import Point
from optuna_hypernet.bilevel.tuned import Tuned
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.randomness import derive


@dataclass(frozen=True)
class Problem:
    """What stays fixed; the arguments of ``HyperTraining``.

    Attributes:
        ordinary: Makes a response from a model that does not depend on λ: ordinary training.
    """

    coordinates: Coordinates
    train_data: Iterable[Any]
    valid_data: Iterable[Any]
    optimizer: MakeOptimizer
    hyper_optimizer: MakeOptimizer
    device: torch.device
    seed: int
    ordinary: Callable[[nn.Module], Response]
    clip: float | None = None
    scheduler: MakeScheduler | None = None

    def train_batches(self) -> Batches:
        """Training data, from the start."""
        return Batches("train_data", self.train_data, self.device, derive(self.seed, 2))

    def valid_batches(self) -> Batches:
        """Validation data, from the start."""
        return Batches("valid_data", self.valid_data, self.device, derive(self.seed, 3))

    def bilevel(self, response: Response, z: Tensor) -> Bilevel:
        """The loop of a response, with λ̂ at coordinates ``(D,)``."""
        return Bilevel(
            response,
            self.coordinates,
            self.train_batches(),
            self.valid_batches(),
            self.optimizer,
            self.hyper_optimizer,
            z,
            self.seed,
            self.clip,
            self.scheduler,
        )

    def train(self, model: nn.Module, z: Tensor, steps: int) -> Tuned:
        """Ordinary training of a copy of ``model`` at fixed coordinates ``(D,)``.

        It is the loop without valid steps, with a response that does not depend on λ.
        """
        response, bilevel, plan = self._ordinarily(model, z, steps)
        for _ in run(bilevel, plan):
            pass
        loss, params = bilevel.evaluate(z), self.coordinates.decode(z)
        return Tuned(
            params=params,
            model=response.export(z),
            predicted_loss=loss,
            true_loss=loss,
            path=[Point(steps, steps, params, loss)],
            stopped=False,
            at_bound=self.coordinates.at_bound(z),
        )

    def replay(
        self, model: nn.Module, path: Sequence[tuple[int, Tensor]], planned: int = 0
    ) -> Tuned:
        """Ordinary training of a copy of ``model`` while λ follows a path, and λ alone.

        Args:
            model: Where it starts.
            path: Train steps, in order, and ``(2, D)`` coordinates of λ̂ over σ, with which λ is
                drawn around it; lines lead from one to the next.
            planned: Train steps over which step sizes decay, if the path is shorter than those.
        """
        steps = [done for done, _ in path]
        planned = max(planned, steps[-1])
        response, bilevel, plan = self._ordinarily(model, path[0][1][0], planned)
        bilevel.reset_scale(path[0][1][1])
        record = Record()
        for done in range(1, steps[-1] + 1):
            bilevel.resize(*plan.decay(done - 1))
            bilevel.train_step(Around(bilevel.scale), plan.samples)
            z, scale = _between(path, done)
            bilevel.move(z)
            bilevel.reset_scale(scale)
            if done in steps:
                record.add(done, bilevel, response, counts=True)
        z, space = record.kept_z, self.coordinates
        return Tuned(
            params=space.decode(z),
            model=record.kept(response),
            predicted_loss=record.best,
            true_loss=record.best,
            path=[
                Point(n, n, space.decode(at), loss, space.by_name(scale))
                for n, at, scale, loss in record.path
            ],
            stopped=False,
            at_bound=space.at_bound(z),
            planned=planned,
        )

    def _ordinarily(
        self, model: nn.Module, z: Tensor, steps: int
    ) -> tuple[Response, Bilevel, Plan]:
        response = self.ordinary(model)
        samples = None if response.per_example else 1
        plan = Plan(At(), samples, warm_up=steps, cycles=0, ratio=0)
        return response, self.bilevel(response, z), plan


def _between(path: Sequence[tuple[int, Tensor]], done: int) -> Tensor:
    """Coordinates over σ ``(2, D)`` of a path after that many train steps."""
    steps = [each for each, _ in path]
    after = bisect.bisect_right(steps, done)
    if after in (0, len(path)):
        return path[min(after, len(path) - 1)][1]
    (first, start), (last, end) = path[after - 1], path[after]
    return torch.lerp(start, end, (done - first) / (last - first))
