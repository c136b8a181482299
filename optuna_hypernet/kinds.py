"""Kinds of response: what each makes of a user's model, and what is done with it by default."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any
from typing import Literal
from typing import Protocol

import torch
from torch import nn

from optuna_hypernet.bilevel.densities import Around
from optuna_hypernet.bilevel.densities import Together
from optuna_hypernet.bilevel.loop import Response
from optuna_hypernet.bilevel.optimizers import BlockAdam
from optuna_hypernet.bilevel.optimizers import MakeOptimizer
from optuna_hypernet.bilevel.optimizers import hyper_adam
from optuna_hypernet.bilevel.optimizers import hyper_adam_each
from optuna_hypernet.bilevel.plans import Plan
from optuna_hypernet.bilevel.plans import joint
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.randomness import generator
from optuna_hypernet.response.delta import Delta
from optuna_hypernet.response.hypernetworks import Constant
from optuna_hypernet.response.hypernetworks import Diagonal
from optuna_hypernet.response.hypernetworks import Name
from optuna_hypernet.response.hypernetworks import hypernetwork
from optuna_hypernet.response.losses import Augment
from optuna_hypernet.response.losses import TrainLoss
from optuna_hypernet.response.losses import ValidLoss
from optuna_hypernet.response.losses import augmented
from optuna_hypernet.response.structured import EVERYTHING
from optuna_hypernet.response.structured import Structured
from optuna_hypernet.response.weights import Weights


@dataclass(frozen=True)
class Defaults:
    """What joint training does by default; see ``HyperTraining.fit``.

    Attributes:
        hyper_optimizer: Makes the optimizer of λ̂.
        samples: λ's per train step; None is one for every example.
        scale: Spread of those around λ̂.
        entropy: τ; None is a scale that stays.
        warm_up: Share of the train steps.
        finish: Likewise.
        density: Makes the density of those λ's from a scale.
    """

    hyper_optimizer: MakeOptimizer
    samples: int | None
    scale: float
    entropy: float | None
    warm_up: Fraction
    finish: Fraction
    density: Callable[[float], Around] = Around

    def plan(
        self,
        *,
        steps: int,
        samples: int | None,
        scale: float | None,
        entropy: float | None,
        ratio: int,
        warm_up: int | None,
    ) -> Plan:
        """The plan of joint training; what is None is done by default.

        Raises:
            TypeError: If a number is not an int.
            ValueError: If a number is out of its range, or means nothing for this response.
        """
        if self.entropy is None:
            _only_structured(entropy=entropy)
        if self.samples is None and samples is not None:
            raise ValueError(
                f"samples is {samples}, but a structured response draws one λ for every example "
                "of a batch. Leave it out."
            )
        return joint(
            self.density(self.scale if scale is None else float(scale)),
            samples=self.samples if samples is None else samples,
            steps=steps,
            ratio=ratio,
            warm_up=int(steps * self.warm_up) if warm_up is None else warm_up,
            entropy=self.entropy if entropy is None else float(entropy),
        )


_WEIGHTS = Defaults(hyper_adam, 2, 0.1, None, Fraction(1, 3), Fraction(1, 5))
# Of less entropy the spread dies before a slope is learnt; and near the ends of a range, where a
# small spread changes nothing, λ̂ then stays.
_STRUCTURED = Defaults(hyper_adam_each, None, 0.5, 1e-2, Fraction(1, 10), Fraction(0))


@dataclass(frozen=True)
class Setting:
    """What all responses to a user's hyperparameters have in common."""

    train_loss: TrainLoss
    valid_loss: ValidLoss
    coordinates: Coordinates
    device: torch.device
    seed: int


class Kind(Protocol):
    """What a user's ``response=`` stands for; :class:`OfWeights` and :class:`OfLayers` are two."""

    @property
    def defaults(self) -> Defaults:
        """What is done by default."""

    def response(self, model: nn.Module) -> Response:
        """A response that starts at the model, which is copied."""

    def ordinary(self, model: nn.Module) -> Response:
        """The same, but it does not depend on λ: ordinary training."""


@dataclass(frozen=True)
class OfWeights:
    """All weights at once, as a hypernetwork gives them."""

    network: Name | nn.Module
    setting: Setting

    @property
    def defaults(self) -> Defaults:
        """Where each weight has a coordinate of its own, what they have in common is apart."""
        if self.network != "diagonal":
            return _WEIGHTS
        blocks = self.setting.coordinates.blocks
        return replace(
            _WEIGHTS,
            hyper_optimizer=partial(BlockAdam, blocks=blocks),
            density=partial(Together, blocks=blocks),
        )

    def response(self, model: nn.Module) -> Weights:
        """With the hypernetwork of that name, or a copy of the user's own."""
        made, coordinates = self._without_network(model), self.setting.coordinates
        if self.network == "diagonal":
            owners = made.owners(coordinates.shapes)
            return self._with(made, Diagonal(owners, coordinates.blocks))
        seed = generator(self.setting.seed)
        return self._with(made, hypernetwork(self.network, coordinates.D, made.n_weights, seed))

    def ordinary(self, model: nn.Module) -> Weights:
        """With weights that are constant in λ."""
        made = self._without_network(model)
        return self._with(made, Constant(made.n_weights))

    def _without_network(self, model: nn.Module) -> Weights:
        its = self.setting
        return Weights(model, its.train_loss, its.valid_loss, its.device)

    def _with(self, made: Weights, network: nn.Module) -> Weights:
        made.hypernetwork = network.to(self.setting.device, made.dtype)
        return made


@dataclass(frozen=True)
class OfLayers:
    """The model's own layers with gates; the class says how those learn."""

    structured: type[Structured]
    elementary: Sequence[str]
    setting: Setting

    @property
    def defaults(self) -> Defaults:
        """One λ per example, and a spread that adapts."""
        return _STRUCTURED

    def response(self, model: nn.Module) -> Structured:
        """All layers respond but the elementary ones."""
        return self._made(self.structured, model, self.elementary)

    def ordinary(self, model: nn.Module) -> Structured:
        """No layer responds."""
        return self._made(Structured, model, EVERYTHING)

    def _made(
        self, structured: type[Structured], model: nn.Module, elementary: Sequence[str]
    ) -> Structured:
        its = self.setting
        losses = (its.train_loss, its.valid_loss)
        return structured(model, *losses, its.coordinates, its.device, its.seed, elementary)


_LAYERS: dict[Any, type[Structured]] = {"structured": Structured, "structured-delta": Delta}


def kind_of(
    response: Name | Literal["structured", "structured-delta"] | nn.Module,
    setting: Setting,
    elementary: Sequence[str],
    augment: Augment | None,
) -> Kind:
    """The kind of that name, or of the user's own hypernetwork.

    Raises:
        ValueError: If ``elementary`` or ``augment`` mean nothing for it.
    """
    if response == "structured" or response == "structured-delta":
        if augment is not None:
            loss = augmented(setting.train_loss, augment, setting.device)
            setting = replace(setting, train_loss=loss)
        return OfLayers(_LAYERS[response], elementary, setting)
    _only_structured(elementary=elementary, augment=augment)
    return OfWeights(response, setting)


def _only_structured(**arguments: Any) -> None:
    """Refuses arguments that mean nothing for other responses."""
    for name, value in arguments.items():
        if value not in (None, (), []):
            raise ValueError(
                f"{name} is {value!r}, but it is for structured responses alone. Leave it out."
            )
