"""What stays fixed while φ and λ̂ move: losses, data, search space, optimizers, device, seed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import nn

from optuna_hypernet.bilevel.batches import Batches
from optuna_hypernet.bilevel.loop import Bilevel
from optuna_hypernet.bilevel.loop import MakeOptimizer
from optuna_hypernet.bilevel.loop import Response
from optuna_hypernet.bilevel.loop import run
from optuna_hypernet.bilevel.plans import At
from optuna_hypernet.bilevel.plans import Plan
from optuna_hypernet.bilevel.tuned import Point
from optuna_hypernet.bilevel.tuned import Tuned
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.randomness import derive
from optuna_hypernet.randomness import generator
from optuna_hypernet.response.hypernetworks import Constant
from optuna_hypernet.response.weights import TrainLoss
from optuna_hypernet.response.weights import ValidLoss
from optuna_hypernet.response.weights import Weights


@dataclass(frozen=True)
class Problem:
    """What stays fixed; the arguments of ``HyperTraining``."""

    coordinates: Coordinates
    train_loss: TrainLoss
    valid_loss: ValidLoss
    train_data: Iterable[Any]
    valid_data: Iterable[Any]
    optimizer: MakeOptimizer
    hyper_optimizer: MakeOptimizer
    device: torch.device
    seed: int

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
        )

    def train(self, model: nn.Module, z: Tensor, steps: int) -> Tuned:
        """Ordinary training of a copy of ``model`` at fixed coordinates ``(D,)``.

        It is the loop without valid steps, with a response that does not depend on λ.
        """
        response = Weights(model, self.train_loss, self.valid_loss, self.device)
        response.hypernetwork = Constant(self.coordinates.D, response.n_weights, generator(0))
        response.hypernetwork.to(self.device, response.dtype)
        bilevel = self.bilevel(response, z)
        for _ in run(bilevel, Plan(At(), samples=1, warm_up=steps, cycles=0, ratio=0)):
            pass
        loss, params = bilevel.evaluate(z), self.coordinates.decode(z)
        return Tuned(
            params=params,
            model=response.export(z),
            predicted_loss=loss,
            true_loss=loss,
            path=[Point(steps, params, loss)],
            stopped=False,
            at_bound=self.coordinates.at_bound(z),
        )


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The default optimizer of φ."""
    return torch.optim.Adam(parameters, lr=5e-3, fused=True)


def hyper_adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The default optimizer of λ̂, whose step has a length of about 0.03 standard deviations.

    The length is that of all coordinates together: along no direction may λ̂ leave, in one step,
    the neighbourhood in which the response was learnt.
    """
    parameters = list(parameters)
    size = sum(parameter.numel() for parameter in parameters)
    return torch.optim.Adam(parameters, lr=0.03 / size**0.5)


def hyper_adam_each(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """That of λ̂ if each coordinate acts on weights of its own: a step of 0.003 along every one.

    In a thousand valid steps that still is a whole range. Longer ones over-fit the validation data
    where there are thousands of coordinates.
    """
    return torch.optim.Adam(parameters, lr=0.003)
