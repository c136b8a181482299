"""The bilevel loop: train steps move φ, valid steps move λ.

Notation (Lorraine & Duvenaud 2018): φ are the parameters of the response, λ̂ the current
hyperparameters with coordinates ``z (D,)``, p(λ) or p(λ | λ̂) the *density* from which a train
step draws ``k`` rows of coordinates.

* train step: φ -= α ∇_φ E_{λ ~ p} L_T(w_φ(λ), λ)
* valid step: λ̂ -= β ∇_λ̂ L_V(w_φ(λ̂)), through w_φ alone: L_V has no λ of its own
* adaptive valid step (MacKay et al. 2019): with the density N(λ̂, diag σ²), both λ̂ and σ go down
  E L_V(w_φ(λ)) - τ H(σ), where H is the entropy, the sum of log σ and a constant

An algorithm is a ``Plan`` (see ``plans``): a density, and how many steps of which kind in which
order. All four of Lorraine & Duvenaud are plans of this one loop, and so are Self-Tuning Networks.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from typing import Protocol

import torch
from torch import Tensor
from torch import nn

from optuna_hypernet.bilevel.batches import Batches
from optuna_hypernet.bilevel.densities import Around
from optuna_hypernet.bilevel.densities import Density
from optuna_hypernet.bilevel.optimizers import Group
from optuna_hypernet.bilevel.optimizers import MakeOptimizer
from optuna_hypernet.bilevel.optimizers import MakeScheduler
from optuna_hypernet.bilevel.plans import Plan
from optuna_hypernet.coordinates import LIMIT
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.randomness import derive
from optuna_hypernet.randomness import generator
from optuna_hypernet.randomness import private_randomness
from optuna_hypernet.response.batch import n_rows
from optuna_hypernet.response.losses import finite
from optuna_hypernet.response.losses import slopes
from optuna_hypernet.response.losses import slopes_if_any


# Streams of randomness: what a train step draws, what user code draws in each kind of step, and
# what an adaptive valid step draws.
_LAMBDA, _TRAIN, _VALID, _EVALUATE, _AROUND = range(5)

# The scale in standard deviations of the search space: with less no slope is learnt, and more is
# further than an affine response can be true.
_FLOOR, _CEILING = 0.05, 2.0

_ADVICE = (
    "Try smaller step sizes (optimizer=, hyper_optimizer=), a smaller scale, or a range without "
    "that λ."
)


class Response(Protocol):
    """What the loop asks of a best response, and those who use it.

    :class:`~.response.weights.Weights` and :class:`~.response.structured.Structured` are two.
    """

    @property
    def per_example(self) -> bool:
        """Whether train steps give every example of a batch its own λ, or all of them each λ."""

    @property
    def groups(self) -> list[list[nn.Parameter]]:
        """φ in groups that have an optimizer, and a gradient's norm, each."""

    @property
    def telling(self) -> list[nn.Parameter]:
        """Those of φ that have finite gradients only if all of φ has."""

    def original(self) -> nn.Module:
        """The model as it was passed in; not a copy."""

    def trying(self) -> AbstractContextManager[None]:
        """Context after which the response is as before."""

    def probe(self, hps: Sequence[Mapping[str, Tensor]], batch: Any, seed: int) -> None:
        """Refuses hyperparameters that a batch's training loss does not depend on, and more."""

    def recentre(self, z: Tensor) -> None:
        """Is told, before λ is drawn around coordinates ``(D,)``, where that is."""

    def train_losses(self, z: Tensor, hp: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Training losses ``(k,)`` at coordinates ``(k, D)``, or their mean ``(1,)``."""

    def valid_loss(self, z: Tensor, batch: Any) -> Tensor:
        """Validation loss, a scalar, at coordinates ``(D,)``; or ``(B, D)`` if per example."""

    def export(self, z: Tensor) -> nn.Module:
        """A plain model with the weights at coordinates ``(D,)``."""

    def state_dict(self) -> dict[str, Any]:
        """``"phi"``, and all else of which the weights are made; not copies."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state, of which it reads its own part."""


class Bilevel:
    """The state of the loop, and its two steps.

    Args:
        response: w_φ(λ) and its losses.
        coordinates: The search space.
        train: Training data.
        valid: Validation data.
        optimizer: Makes an optimizer of each group of φ.
        hyper_optimizer: Makes the optimizer of λ̂, and another one of the scale.
        z: ``(D,)`` where λ̂ starts.
        seed: Of everything that is drawn.
        clip: The largest norm of a group's gradient; longer ones are shortened.
        scheduler: Makes what sets the step sizes of a group of φ, if its decay shall not.

    Attributes:
        z: ``(D,)`` the coordinates of λ̂; a leaf that only valid steps move.
        log_scale: ``(D,)`` log σ; a leaf that only adaptive valid steps move.
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
        clip: float | None = None,
        scheduler: MakeScheduler | None = None,
    ) -> None:
        self._response = response
        self._coordinates = coordinates
        self._train = train
        self._valid = valid
        self._seed = seed
        self.z = nn.Parameter(z.detach().clone())
        self.log_scale = nn.Parameter(torch.zeros_like(z))
        self._groups = [Group(each, optimizer, scheduler, clip) for each in response.groups]
        self._telling = set(response.telling)
        self._hyper_groups = [Group([one], hyper_optimizer) for one in (self.z, self.log_scale)]
        self.trained = 0
        self.validated = 0

    @property
    def scale(self) -> Tensor:
        """``(D,)`` σ, the spread that adaptive valid steps have found."""
        return self.log_scale.detach().exp()

    def move(self, z: Tensor) -> None:
        """Puts λ̂ at coordinates ``(D,)``."""
        with torch.no_grad():
            self.z.copy_(z)

    def reset_scale(self, scale: float | Tensor) -> None:
        """Sets σ, the same for all or ``(D,)``."""
        with torch.no_grad():
            self.log_scale.copy_(torch.as_tensor(scale, dtype=self.log_scale.dtype).log())

    def at_floor(self) -> list[str]:
        """Names of hyperparameters of which a scale is as small as it may be."""
        return self._coordinates.names_where(self.scale <= _FLOOR * 1.001)

    def at_ceiling(self) -> list[str]:
        """Names of hyperparameters of which a scale is as large as it may be."""
        return self._coordinates.names_where(self.scale >= _CEILING * 0.999)

    def train_step(self, density: Density, samples: int | None) -> None:
        """Moves φ only, along the mean training loss over the drawn λ.

        Args:
            density: Of λ.
            samples: How many λ to draw; None is one for every example of the batch.

        Raises:
            FloatingPointError: If a loss, or its gradient, is not finite; nothing has moved then.
            ValueError: If it depends on no weight of the model.
        """
        if isinstance(density, Around):
            self._response.recentre(self.z.detach())
        batch = self._train.next()
        draws = generator(self._seed, _LAMBDA, self.trained)
        z = density(self.z.detach(), samples or n_rows(batch), draws)  # (k, D)
        with private_randomness(derive(self._seed, _TRAIN, self.trained), z.device):
            losses = self._response.train_losses(z, self._coordinates.natural(z), batch)
        self._check_losses("training", losses.detach(), z)
        phi = [parameter for group in self._groups for parameter in group.parameters]
        gradients = slopes("train_loss", losses.mean(), phi)
        told = [one for p, one in zip(phi, gradients, strict=True) if p in self._telling]
        self._check_slopes("training", told, z)
        left = iter(gradients)
        for group in self._groups:
            group.step([next(left) for _ in group.parameters])
        self.trained += 1

    def valid_step(self) -> None:
        """Moves λ̂ only, along the validation loss on one batch.

        Raises:
            FloatingPointError: If the loss, or its gradient, is not; nothing has moved then.
            ValueError: If it does not depend on λ̂.
        """
        batch = self._valid.next()
        loss = self._valid_loss(self.z, batch)
        gradients = slopes("valid_loss", loss, [self.z])
        self._check_slopes("validation", gradients, self.z.detach()[None])
        self._hyper_groups[0].step(gradients)
        self._count_valid_step()

    def adaptive_valid_step(self, entropy: float) -> None:
        """Moves λ̂ and σ; every example has its own λ, drawn around λ̂.

        Args:
            entropy: τ. With 0 the scale shrinks, with 1 the density is a posterior.

        Raises:
            FloatingPointError: If the loss, or its gradient, is not; nothing has moved then.
        """
        batch = self._valid.next()
        draws = generator(self._seed, _AROUND, self.validated)
        noise = Around(1.0)(torch.zeros_like(self.z), n_rows(batch), draws)  # (B, D)
        loss = self._valid_loss(self.z + self.log_scale.exp() * noise, batch)
        # A batch on which λ does not act leaves λ̂ alone, but the entropy is there in any.
        penalised = loss - entropy * self.log_scale.sum()
        gradients = slopes("valid_loss", penalised, [self.z, self.log_scale])
        self._check_slopes("validation", gradients, self.z.detach()[None])
        for group, gradient in zip(self._hyper_groups, gradients, strict=True):
            group.step([gradient])
        with torch.no_grad():
            self.log_scale.clamp_(math.log(_FLOOR), math.log(_CEILING))
        self._count_valid_step()

    def try_valid_loss(self) -> bool:
        """Takes the validation loss of all data; returns whether λ̂ moves that of any batch.

        Raises:
            ValueError: If it depends neither on λ̂ nor on φ.
        """
        self.evaluate(self.z.detach())
        with contextlib.closing(self._valid.all()) as batches:
            return any(map(self._moves, batches))

    def _moves(self, batch: Any) -> bool:
        """Whether λ̂ moves a batch's loss, of which no more is asked than in a valid step.

        An LSTM of cuDNN has no gradient in eval mode, but may be there where none is needed.
        """
        z = self.z.expand(n_rows(batch), -1) if self._response.per_example else self.z
        with private_randomness(derive(self._seed, _EVALUATE), z.device):
            loss = self._response.valid_loss(z, batch)
        moves = slopes_if_any("valid_loss", loss, [self.z])[0] is not None
        if not moves:
            slopes("valid_loss", loss, [p for group in self._groups for p in group.parameters])
        return moves

    def _valid_loss(self, z: Tensor, batch: Any) -> Tensor:
        with private_randomness(derive(self._seed, _VALID, self.validated), z.device):
            loss = self._response.valid_loss(z, batch)
        self._check_losses("validation", loss.detach()[None], self.z.detach()[None])
        return loss

    def _check_losses(self, kind: str, losses: Tensor, z: Tensor) -> None:
        """Refuses losses at ``z (k, D)``, or their mean, that are not finite."""
        good = losses.isfinite()
        if bool(good.all()):
            return
        worst = int((~good).nonzero()[0])
        z = z[worst] if len(z) == len(losses) else z.mean(0)
        raise FloatingPointError(
            f"The {kind} loss is {float(losses[worst])} {self._where(z)} {_ADVICE}"
        )

    def _check_slopes(self, kind: str, gradients: Sequence[Tensor | None], z: Tensor) -> None:
        """Refuses gradients of a finite loss, taken around ``z (k, D)``, that are not."""
        if not finite(gradients):
            raise FloatingPointError(
                f"The gradient of the {kind} loss is not finite, though the loss is, "
                f"{self._where(z.mean(0))} A root or a norm has none where it is zero: add a "
                f"small number under it. {_ADVICE}"
            )

    def _where(self, z: Tensor) -> str:
        return (
            f"after {self.trained} train steps, at {_short(self._coordinates.decode(z))}. Nothing "
            "was moved by that step, and what a checkpoint holds is kept."
        )

    def _count_valid_step(self) -> None:
        with torch.no_grad():
            self.z.clamp_(-LIMIT, LIMIT)
        self.validated += 1

    def evaluate(self, z: Tensor, examples: int | None = None) -> float:
        """Mean validation loss at ``(D,)``, batches weighed by size.

        Over all validation data, or over the first batches that hold so many examples.
        """
        total, count = 0.0, 0
        batches = self._valid.all() if examples is None else self._valid.first(examples)
        with torch.no_grad():
            for batch in batches:
                with private_randomness(derive(self._seed, _EVALUATE), z.device):
                    loss = float(self._response.valid_loss(z, batch))
                total += loss * n_rows(batch)
                count += n_rows(batch)
        return total / count

    def resize(self, train: float, valid: float) -> None:
        """Multiplies the step sizes that the optimizers came with; a scheduler's are its own."""
        for group in self._groups:
            group.resize(train)
        for group in self._hyper_groups:
            group.resize(valid)

    def described(self) -> dict[str, str]:
        """In words what moves φ and λ̂, by name."""
        movers = {"optimizer": self._groups[0], "hyper_optimizer": self._hyper_groups[0]}
        return {
            f"{mover}'s {name}": value
            for mover, group in movers.items()
            for name, value in group.described().items()
        }

    def restart(self, steps: int) -> None:
        """Begins schedulers anew, for so many train steps.

        Raises:
            ValueError: If one ends before them.
        """
        for group in self._groups:
            group.restart(steps)

    def check_length(self, steps: int) -> None:
        """Refuses schedulers that end before so many train steps, by a ValueError."""
        for group in self._groups:
            group.check_length(steps)

    def state_dict(self) -> dict[str, Any]:
        """Everything from which the loop goes on bit by bit; tensors are not copied."""
        return {
            **self._response.state_dict(),
            "search_space": self._coordinates.described(),
            "z": self.z.detach(),
            "log_scale": self.log_scale.detach(),
            "optimizers": [group.state_dict() for group in self._groups],
            "hyper_optimizers": [group.state_dict() for group in self._hyper_groups],
            "train": self._train.state_dict(),
            "valid": self._valid.state_dict(),
            "trained": self.trained,
            "validated": self.validated,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state; if it is none of this loop, all stays as it is.

        Raises:
            ValueError: If it is no state, or of another search space, or was saved with a
                scheduler and here is none, or the reverse.
            RuntimeError: If it is of another model.
        """
        described = self._coordinates.described()
        if not isinstance(state, Mapping) or not {"phi", "search_space"} <= state.keys():
            entries = f" with {list(state)[:5]}" if isinstance(state, Mapping) else ""
            raise ValueError(
                f"The state is a {type(state).__name__}{entries}, and none of a HyperTraining. "
                "Pass what its state_dict() returned; weights of a model are for the model, and "
                "the file of a checkpoint is for checkpoint=."
            )
        if state["search_space"] != described:
            raise ValueError(
                f"The state is of the search space {state['search_space']}, but this one is "
                f"{described}. Load it into a HyperTraining made from the same arguments."
            )
        before = copy.deepcopy(self.state_dict())
        try:
            self._load(state)
        except Exception:
            self._load(before)
            raise

    def _load(self, state: Mapping[str, Any]) -> None:
        self._response.load_state_dict(state)
        with torch.no_grad():
            self.z.copy_(state["z"])
            self.log_scale.copy_(state["log_scale"])
        groups = [*self._groups, *self._hyper_groups]
        states = [*state["optimizers"], *state["hyper_optimizers"]]
        for group, its in zip(groups, states, strict=True):
            group.load_state_dict(its)
        self._train.load_state_dict(state["train"])
        self._valid.load_state_dict(state["valid"])
        self.trained, self.validated = state["trained"], state["validated"]


def run(bilevel: Bilevel, plan: Plan, done: int = 0) -> Iterator[int]:
    """Carries out a plan from tick ``done`` on; yields the number of ticks done after each."""
    if done == 0:
        bilevel.restart(plan.train_steps)
        if isinstance(plan.density, Around):
            bilevel.reset_scale(plan.density.scale)
    for number in range(done, plan.ticks):
        bilevel.resize(*plan.decay(number))
        train, valid = plan.tick(number)
        for _ in range(train):
            density = plan.density if plan.entropy is None else Around(bilevel.scale)
            bilevel.train_step(density, plan.samples)
        for _ in range(valid):
            if plan.entropy is None:
                bilevel.valid_step()
            else:
                bilevel.adaptive_valid_step(plan.entropy)
        yield number + 1


def _short(params: Mapping[str, Any]) -> str:
    """Params in one line; of an array only its range."""
    parts = [
        f"{name} from {value.min():.4g} to {value.max():.4g}"
        if hasattr(value, "shape")
        else f"{name} = {value:.4g}"
        for name, value in params.items()
    ]
    return ", ".join(parts)
