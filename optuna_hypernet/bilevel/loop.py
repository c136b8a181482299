"""The bilevel loop: train steps move φ, valid steps move λ.

Notation (Lorraine & Duvenaud 2018): φ are the parameters of the response, λ̂ the current
hyperparameters with coordinates ``z (D,)``, p(λ) or p(λ | λ̂) the *density* from which a train
step draws ``k`` rows of coordinates.

* train step: φ -= α ∇_φ E_{λ ~ p} L_T(w_φ(λ), λ)
* valid step: λ̂ -= β ∇_λ̂ L_V(w_φ(λ̂)), through w_φ alone: L_V has no λ of its own

An algorithm is a ``Plan`` (see ``plans``): a density, and how many steps of which kind in which
order. All four of the paper are plans of this one loop.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Protocol

import torch
from torch import Tensor
from torch import nn
from torch.optim import Optimizer

from optuna_hypernet.bilevel.batches import Batches
from optuna_hypernet.bilevel.batches import n_rows
from optuna_hypernet.bilevel.plans import Around
from optuna_hypernet.bilevel.plans import Density
from optuna_hypernet.bilevel.plans import Plan
from optuna_hypernet.coordinates import LIMIT
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.randomness import derive
from optuna_hypernet.randomness import generator
from optuna_hypernet.randomness import private_randomness


# Streams of randomness: what a train step draws, and what user code draws in each kind of step.
_LAMBDA, _TRAIN, _VALID, _EVALUATE = range(4)

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


class Response(Protocol):
    """What the loop asks of a best response; :class:`~.response.weights.Weights` is one."""

    @property
    def hypernetwork(self) -> nn.Module:
        """Holds φ."""

    def recentre(self, z: Tensor) -> None:
        """Is told, before λ is drawn around coordinates ``(D,)``, where that is."""

    def train_losses(self, z: Tensor, hp: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Training losses ``(k,)`` at coordinates ``(k, D)``."""

    def valid_loss(self, z: Tensor, batch: Any) -> Tensor:
        """Validation loss, a scalar, at coordinates ``(D,)``."""


class Bilevel:
    """The state of the loop, and its two steps.

    Args:
        response: w_φ(λ) and its losses.
        coordinates: The search space.
        train: Training data.
        valid: Validation data.
        optimizer: Makes the optimizer of φ.
        hyper_optimizer: Makes the optimizer of λ̂.
        z: ``(D,)`` where λ̂ starts.
        seed: Of everything that is drawn.

    Attributes:
        z: ``(D,)`` the coordinates of λ̂; a leaf that only valid steps move.
        trained: Number of train steps so far.
        validated: Number of valid steps so far.
    """

    def __init__(
        self,
        response: Response,
        coordinates: Coordinates,
        train: Batches,
        valid: Batches,
        optimizer: MakeOptimizer,
        hyper_optimizer: MakeOptimizer,
        z: Tensor,
        seed: int,
    ) -> None:
        self._response = response
        self._coordinates = coordinates
        self._train = train
        self._valid = valid
        self._seed = seed
        self.z = nn.Parameter(z.detach().clone())
        self._phi = [p for p in response.hypernetwork.parameters() if p.requires_grad]
        self._optimizer = optimizer(self._phi)
        self._hyper_optimizer = hyper_optimizer([self.z])
        self._sizes = [
            [group["lr"] for group in one.param_groups]
            for one in (self._optimizer, self._hyper_optimizer)
        ]
        self.trained = 0
        self.validated = 0

    def train_step(self, density: Density, samples: int) -> float:
        """Moves φ only; returns the mean training loss over the drawn λ.

        Raises:
            FloatingPointError: If a loss is not finite; nothing has moved then.
        """
        if isinstance(density, Around):
            self._response.recentre(self.z.detach())
        draws = generator(self._seed, _LAMBDA, self.trained)
        z = density(self.z.detach(), samples, draws)  # (k, D)
        batch = self._train.next()
        with private_randomness(derive(self._seed, _TRAIN, self.trained), z.device):
            losses = self._response.train_losses(z, self._coordinates.natural(z), batch)  # (k,)
        _check_finite("training", losses.detach(), z, self._coordinates, self.trained)
        _step(self._optimizer, self._phi, _gradients("train", losses.mean(), self._phi))
        self.trained += 1
        return float(losses.detach().mean())

    def valid_step(self) -> float:
        """Moves λ̂ only; returns the validation loss on one batch.

        Raises:
            FloatingPointError: If the loss is not finite; nothing has moved then.
        """
        batch = self._valid.next()
        with private_randomness(derive(self._seed, _VALID, self.validated), self.z.device):
            loss = self._response.valid_loss(self.z, batch)
        z = self.z.detach()
        _check_finite("validation", loss.detach()[None], z[None], self._coordinates, self.trained)
        _step(self._hyper_optimizer, [self.z], _gradients("valid", loss, [self.z]))
        with torch.no_grad():
            self.z.clamp_(-LIMIT, LIMIT)
        self.validated += 1
        return float(loss.detach())

    def evaluate(self, z: Tensor, examples: int | None = None) -> float:
        """Mean validation loss at ``(D,)``, batches weighed by size.

        Over all validation data, or over the first batches that hold so many examples.
        """
        total, count = 0.0, 0
        with torch.no_grad():
            for batch in self._valid.all():
                with private_randomness(derive(self._seed, _EVALUATE), z.device):
                    loss = float(self._response.valid_loss(z, batch))
                total += loss * n_rows(batch)
                count += n_rows(batch)
                if examples is not None and count >= examples:
                    break
        return total / count

    def resize(self, train: float, valid: float) -> None:
        """Multiplies the step sizes that the optimizers came with."""
        optimizers = (self._optimizer, self._hyper_optimizer)
        for one, sizes, factor in zip(optimizers, self._sizes, (train, valid), strict=True):
            for group, size in zip(one.param_groups, sizes, strict=True):
                group["lr"] = size * factor

    def state_dict(self) -> dict[str, Any]:
        """Everything from which the loop goes on bit by bit; tensors are not copied."""
        return {
            "phi": self._response.hypernetwork.state_dict(),
            "z": self.z.detach(),
            "optimizer": self._optimizer.state_dict(),
            "hyper_optimizer": self._hyper_optimizer.state_dict(),
            "train": self._train.state_dict(),
            "valid": self._valid.state_dict(),
            "trained": self.trained,
            "validated": self.validated,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state."""
        self._response.hypernetwork.load_state_dict(state["phi"])
        with torch.no_grad():
            self.z.copy_(state["z"])
        # Copied: an optimizer keeps the very tensors it is given, and changes them.
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._hyper_optimizer.load_state_dict(copy.deepcopy(state["hyper_optimizer"]))
        self._train.load_state_dict(state["train"])
        self._valid.load_state_dict(state["valid"])
        self.trained, self.validated = state["trained"], state["validated"]


def run(bilevel: Bilevel, plan: Plan, done: int = 0) -> Iterator[int]:
    """Carries out a plan from tick ``done`` on; yields the number of ticks done after each."""
    for number in range(done, plan.ticks):
        bilevel.resize(*plan.decay(number))
        train, valid = plan.tick(number)
        for _ in range(train):
            bilevel.train_step(plan.density, plan.samples)
        for _ in range(valid):
            bilevel.valid_step()
        yield number + 1


def _gradients(
    kind: str, loss: Tensor, parameters: list[nn.Parameter]
) -> tuple[Tensor | None, ...]:
    if not loss.requires_grad:
        raise ValueError(
            f"The {kind}_loss does not depend on the model's weights, so there is no gradient. "
            "Compute it from model(...), without detach(), item() or torch.no_grad()."
        )
    return torch.autograd.grad(loss, parameters, allow_unused=True)


def _step(
    optimizer: Optimizer, parameters: list[nn.Parameter], gradients: Iterable[Tensor | None]
) -> None:
    """One step with these gradients; none is left behind for another optimizer to find."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _check_finite(
    kind: str, losses: Tensor, z: Tensor, coordinates: Coordinates, trained: int
) -> None:
    finite = losses.isfinite()
    if bool(finite.all()):
        return
    worst = int((~finite).nonzero()[0])
    raise FloatingPointError(
        f"The {kind} loss is {float(losses[worst])} after {trained} train steps, at "
        f"{_short(coordinates.decode(z[worst]))}. Nothing was moved by that step, and a "
        "checkpoint is kept. Try smaller step sizes (optimizer=, hyper_optimizer=), a smaller "
        "scale, or a range without that λ."
    )


def _short(params: Mapping[str, Any]) -> str:
    """Params in one line; of an array only its range."""
    parts = [
        f"{name} from {value.min():.4g} to {value.max():.4g}"
        if hasattr(value, "shape")
        else f"{name} = {value:.4g}"
        for name, value in params.items()
    ]
    return ", ".join(parts)
