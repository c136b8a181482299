"""The two losses that a user writes: what they are, what they are passed, what they return."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import starmap
from typing import Any

import torch
from torch import Tensor
from torch import nn


_RECOMPUTED = (
    "The backward pass of train_loss reads weights of the model when those of the λ that the loss "
    "was taken at are no longer there, so the gradient would be another one. If parts of the "
    "model run again in it, by activation checkpointing (torch.utils.checkpoint), turn that off, "
    "and call them directly. If the model keeps parameters in a list of its own, use a "
    "ParameterList."
)

_CUT_OFF = (
    "The {} does not depend on the model's weights, so there is no gradient. Compute it from the "
    "model that it is given, model(...), and from no other; without detach(), item() or "
    "torch.no_grad()."
)

TrainLoss = Callable[[nn.Module, Any, Mapping[str, Tensor]], Tensor]
ValidLoss = Callable[[nn.Module, Any], Tensor]
Augment = Callable[[Any, Mapping[str, Tensor], torch.Generator], Any]


class Recorded(Mapping[str, Tensor]):
    """A mapping that remembers which of its names were read."""

    def __init__(self, values: Mapping[str, Tensor], read: set[str]) -> None:
        self._values = values
        self._read = read

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._values:
            raise KeyError(f"{name!r} is not in the search space, which has {list(self._values)}")
        self._read.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def augmented(loss: TrainLoss, augment: Augment, device: torch.device) -> TrainLoss:
    """The training loss of augmented batches.

    The generator that ``augment`` gets follows from torch's global one, which is private in a
    train step.
    """

    def of_augmented(model: nn.Module, batch: Any, hp: Mapping[str, Tensor]) -> Tensor:
        seed = int(torch.randint(2**31, (), device="cpu"))
        return loss(model, augment(batch, hp, torch.Generator(device).manual_seed(seed)), hp)

    return of_augmented


def check_losses(train_loss: TrainLoss, valid_loss: ValidLoss) -> None:
    """Refuses what cannot be called."""
    for name, loss in (("train_loss", train_loss), ("valid_loss", valid_loss)):
        if not callable(loss):
            raise TypeError(f"{name} is {loss!r}, but it must be a function of the model.")


class NoEffectError(ValueError):
    """Hyperparameters do nothing to the training loss of a batch; they may to that of another."""


def check_effect(
    names: Collection[str], read: set[str], ends: Sequence[Sequence[Tensor | None]]
) -> None:
    """Refuses hyperparameters that do nothing, by a :class:`NoEffectError`.

    Args:
        names: All of them.
        read: Those that were used when training losses were taken.
        ends: Slopes of the losses at the two ends of all hyperparameters, all else equal. A loss
            may change where they do not: by a penalty on weights that nobody trains.
    """
    unread = [name for name in names if name not in read]
    if paths := [name for name in unread if "." in name]:
        raise NoEffectError(
            f"train_loss never reads {paths} from hp, and there are no dropout layers that draw "
            "masks with those rates. To tune the rate of the layer at 'path', as 'path.p', pass "
            'response="structured", and let the model call that layer in training mode.'
        )
    if unread:
        raise NoEffectError(
            f"train_loss never reads {unread} from hp, so nothing can be learnt about it. A "
            "setting of the optimizer, such as a learning rate, does not change where "
            "training ends: let the outer study search it, and leave it out here."
        )
    if all(starmap(_same, zip(*ends, strict=True))):
        raise NoEffectError(
            "train_loss has the same gradient at both ends of all hyperparameters, so they do not "
            "change what is learnt. Use hp in what depends on the model that train_loss is given, "
            "on its parameters() and no others; every entry is a tensor in natural units."
        )


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return not bool((one - other).abs().sum())  # unlike equal() for sparse ones, too


def slopes(name: str, loss: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Gradient of a loss in each of the parameters; None for those that it does not depend on.

    Raises:
        ValueError: If it depends on none of them, or ``torch.utils.checkpoint`` refuses.
    """
    found = slopes_if_any(name, loss, parameters)
    if all(one is None for one in found):
        raise ValueError(_CUT_OFF.format(name))
    return found


def slopes_if_any(
    name: str, loss: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """The same of a loss that may depend on none of them, if it depends on something else."""
    if not loss.requires_grad:
        raise ValueError(_CUT_OFF.format(name))
    try:
        found: tuple[Tensor | None, ...]
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
    except RuntimeError as error:
        if "torch.utils.checkpoint" not in str(error):
            raise
        raise ValueError(_RECOMPUTED) from error
    return found


def looked_at(
    name: str,
    take: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    spoilt: AbstractContextManager[None],
) -> tuple[Tensor | None, ...]:
    """A loss's :func:`slopes`, if they do not depend on what a backward pass finds.

    Args:
        name: Of the loss.
        take: Gives the loss, the same each time.
        parameters: See :func:`slopes`.
        spoilt: Context in which the model has no weights that are any good.

    Raises:
        ValueError: If they do, or depend on no parameter.
    """
    loss = take()
    with spoilt:
        found = slopes(name, loss, parameters)
    if not finite(found) and finite(slopes(name, take(), parameters)):
        raise ValueError(_RECOMPUTED)
    return found


def finite(found: Iterable[Tensor | None]) -> bool:
    """Whether all numbers of all slopes are finite."""
    there = [one for one in found if one is not None]
    # A finite sum has finite terms alone; but terms that are finite may have a sum that is not.
    total = torch.stack([one.sum() for one in there]).sum()
    return bool(total.isfinite()) or all(bool(one.isfinite().all()) for one in there)


def scalar(name: str, value: Any) -> Tensor:
    """The loss that the function of that name returned, if it is a scalar.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(value, Tensor) or value.shape != ():
        raise ValueError(
            f"{name} returned {came(value)}, but it must return a scalar tensor. Take the mean "
            "over the batch: loss.mean()."
        )
    return value


def came(value: Any) -> str:
    """How an error names what a loss returned."""
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
