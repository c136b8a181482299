"""Ways to tune one decay per weight in a single run; generators that a clock can drive.

All follow one plan from the same weights and decays: as many steps of λ after the same warm-up,
with one schedule. They differ in where the gradient of λ comes from, and the hypernetwork has the
optimizer of λ that is its default. With it the others' test losses are no lower.

* hypernetwork: HyperTraining's bilevel loop with the diagonal response.
* unrolled: reverse mode through the last ten steps of training, which have to be differentiable:
  momentum, where the others have Adam (truncated; Maclaurin et al. 2015, Franceschi et al. 2017).
  Its step size is one for all nets, not tuned to each: on deep ones it lags for that reason too.
* implicit: five Neumann terms of the inverse Hessian (Lorraine, Vicol & Duvenaud 2020).

A generator yields, after every tick of the plan, a function that gives the model as it is then.
"""

import copy
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch import nn
from torch.func import functional_call

from benchmarks.hypertraining.data import Part
from optuna_hypernet.bilevel.batches import Batches
from optuna_hypernet.bilevel.loop import Bilevel
from optuna_hypernet.bilevel.loop import run
from optuna_hypernet.bilevel.optimizers import BlockAdam
from optuna_hypernet.bilevel.optimizers import MakeOptimizer
from optuna_hypernet.bilevel.plans import Plan
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.response.hypernetworks import Diagonal
from optuna_hypernet.response.losses import TrainLoss
from optuna_hypernet.response.losses import ValidLoss
from optuna_hypernet.response.weights import Weights


UNROLLED, MOMENTUM = 10, 0.9
TERMS = 5
STEP = 0.02  # of momentum in the unrolled method, and of the Neumann series

CPU = torch.device("cpu")

Model = Callable[[], nn.Module]


@dataclass(frozen=True)
class Setting:
    """What contenders share: search space, losses, data, optimizers, seed.

    The hypernetwork has an optimizer of λ of its own.
    """

    coordinates: Coordinates
    train_loss: TrainLoss
    valid_loss: ValidLoss
    train_data: list[Part]
    valid_data: list[Part]
    optimizer: MakeOptimizer
    hyper_optimizer: MakeOptimizer
    seed: int

    def batches(self) -> tuple[Batches, Batches]:
        """Of training and of validation, from the start."""
        return (
            Batches("train_data", self.train_data, CPU, self.seed),
            Batches("valid_data", self.valid_data, CPU, self.seed + 1),
        )

    def weights(self, model: nn.Module) -> Weights:
        """A response without a hypernetwork yet."""
        return Weights(model, self.train_loss, self.valid_loss, CPU)

    def bilevel(self, response: Weights, z: Tensor) -> Bilevel:
        """The loop of a response, from coordinates (D,) on, which moves λ in its own way."""
        optimizers = self.optimizer, partial(BlockAdam, blocks=self.coordinates.blocks)
        return Bilevel(response, self.coordinates, *self.batches(), *optimizers, z, self.seed)


def hypernetwork(setting: Setting, model: nn.Module, z: Tensor, plan: Plan) -> Iterator[Model]:
    """w_φ(λ̂) by joint training."""
    response = setting.weights(model)
    owners = response.owners(setting.coordinates.shapes)
    response.hypernetwork = Diagonal(owners, setting.coordinates.blocks)
    bilevel = setting.bilevel(response, z)
    for _ in run(bilevel, plan):
        yield lambda: response.export(bilevel.z.detach())


class Losses(nn.Module):
    """Both losses of a setting as functions of one weight vector ``(P,)``, on the next batch."""

    def __init__(self, setting: Setting, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._setting = setting
        self._batches = setting.batches()
        self._shapes = {f"model.{name}": w.shape for name, w in model.named_parameters()}
        self.initial = nn.utils.parameters_to_vector(model.parameters()).detach()

    def forward(self, loss: Callable[..., Tensor], *arguments: Any) -> Tensor:
        return loss(self.model, *arguments)

    def train_loss(self, w: Tensor, z: Tensor) -> Tensor:
        hp = self._setting.coordinates.natural(z)
        return self._take(w, self._setting.train_loss, self._batches[0].next(), hp)

    def valid_loss(self, w: Tensor) -> Tensor:
        return self._take(w, self._setting.valid_loss, self._batches[1].next())

    def export(self, w: Tensor) -> nn.Module:
        model = copy.deepcopy(self.model)
        nn.utils.vector_to_parameters(w.detach(), model.parameters())
        return model

    def _take(self, w: Tensor, *arguments: Any) -> Tensor:
        parts = w.split([shape.numel() for shape in self._shapes.values()])
        named = zip(self._shapes.items(), parts, strict=True)
        loss: Tensor = functional_call(self, {n: p.view(s) for (n, s), p in named}, arguments)
        return loss


def unrolled(setting: Setting, model: nn.Module, z: Tensor, plan: Plan) -> Iterator[Model]:
    """dL_V/dλ by reverse mode through the last steps of training."""
    losses = Losses(setting, model)
    z = nn.Parameter(z.clone())
    hyper_optimizer = setting.hyper_optimizer([z])
    w, velocity = losses.initial, torch.zeros_like(losses.initial)
    for number in range(plan.ticks):
        moves = plan.tick(number)[1] > 0
        w, velocity = w.detach().requires_grad_(), velocity.detach()
        for _ in range(UNROLLED if moves else 1):
            slope = torch.autograd.grad(losses.train_loss(w, z), w, create_graph=moves)[0]
            velocity = MOMENTUM * velocity + slope
            w = w - STEP * plan.decay(number)[0] * velocity
        if moves:
            hypergradient = torch.autograd.grad(losses.valid_loss(w), z)[0]
            step(hyper_optimizer, z, hypergradient, plan.decay(number)[1])
        yield partial(losses.export, w)


def implicit(setting: Setting, model: nn.Module, z: Tensor, plan: Plan) -> Iterator[Model]:
    """dL_V/dλ by the implicit function theorem: -∂L_V/∂w H⁻¹ ∂²L_T/∂w∂λ, H⁻¹ as a series."""
    losses = Losses(setting, model)
    z, w = nn.Parameter(z.clone()), nn.Parameter(losses.initial)
    optimizer, hyper_optimizer = setting.optimizer([w]), setting.hyper_optimizer([z])
    for number in range(plan.ticks):
        (train, valid), rates = plan.tick(number), plan.decay(number)
        for _ in range(train):
            slope = torch.autograd.grad(losses.train_loss(w, z.detach()), w)[0]
            step(optimizer, w, slope, rates[0])
        if valid:
            step(hyper_optimizer, z, neumann(losses, w, z), rates[1])
        yield partial(losses.export, w)


def neumann(losses: Losses, w: Tensor, z: Tensor) -> Tensor:
    """-∂L_V/∂w α Σ_j (1 - α H)^j ∂²L_T/∂w∂λ, on one batch of each kind; ``(D,)``."""
    term = torch.autograd.grad(losses.valid_loss(w), w)[0]
    slope = torch.autograd.grad(losses.train_loss(w, z), w, create_graph=True)[0]
    total = term
    for _ in range(TERMS):
        term = term - STEP * torch.autograd.grad(slope, w, term, retain_graph=True)[0]
        total = total + term
    return -torch.autograd.grad(slope, z, STEP * total)[0]


def step(
    optimizer: torch.optim.Optimizer, parameter: Tensor, gradient: Tensor, rate: float
) -> None:
    """One step of `optimizer` with that gradient, `rate` times as long as it is."""
    (group,) = optimizer.param_groups
    size, parameter.grad = group["lr"], gradient
    group["lr"] = size * rate
    optimizer.step()
    group["lr"], parameter.grad = size, None


CONTENDERS = {"hypernetwork": hypernetwork, "unrolled": unrolled, "implicit": implicit}
