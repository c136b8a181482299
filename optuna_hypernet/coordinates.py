"""Hyperparameters as unconstrained, standardised coordinates, and back to natural units.

Notation, here and in the bilevel loop:

* ``D`` numbers in all; a tensor-valued hyperparameter of shape ``s`` counts ``prod(s)`` times.
* ``z``: ``(..., D)`` coordinates. A standard normal ``z`` is a (log-)uniform hyperparameter:
  with u = Φ(z), the hyperparameter lies at the share u of its (logarithmic) range. So the
  uniform p(λ) over the search space is N(0, I), and one unit of ``z`` is one standard deviation.
* ``hp``: natural units by name, what a training loss reads; ``(..., *s)`` each.
* ``params``: natural units as plain Python numbers, or numpy arrays of shape ``s``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from torch import Tensor


# Coordinates stay within ±LIMIT, which are the very ends of a range. Beyond it the range is so
# flat in z that gradients vanish; what is cut off is 6e-5 of it.
LIMIT = 4.0
_TAIL = 0.5 * math.erfc(LIMIT / math.sqrt(2))
_NEARLY = 2.33  # beyond it lies the last hundredth of a range

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Blocks:
    """Which coordinates belong to one hyperparameter: these sizes, E of them, in their order."""

    sizes: tuple[int, ...]

    def sums(self, x: Tensor) -> Tensor:
        """``(..., D)`` → ``(..., E)``."""
        return torch.stack([part.sum(-1) for part in torch.split(x, list(self.sizes), -1)], -1)

    def means(self, x: Tensor) -> Tensor:
        """``(..., D)`` → ``(..., E)``."""
        return self.sums(x) / x.new_tensor(self.sizes)

    def apart(self, x: Tensor) -> Tensor:
        """``(..., D)`` less the means: ``(..., D)``."""
        return x - self.spread(self.means(x))

    def spread(self, values: Tensor) -> Tensor:
        """``(..., E)`` → ``(..., D)``, the same for all of a block."""
        parts = zip(torch.split(values, 1, -1), self.sizes, strict=True)
        return torch.cat([part.expand(*values.shape[:-1], size) for part, size in parts], -1)


@dataclass(frozen=True)
class Shaped:
    """A tensor-valued hyperparameter: one number per weight, layer, class or feature.

    Attributes:
        distribution: Of every single number; all have the same range.
        shape: Of the tensor that the training loss gets, for example ``(10, 784)``; an int is the
            length of a vector.

    Raises:
        ValueError: If the shape holds anything but positive ints.
    """

    distribution: BaseDistribution
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = (self.shape,) if isinstance(self.shape, Integral) else tuple(self.shape)
        shape = tuple(int(one) if isinstance(one, Integral) else one for one in sizes)
        object.__setattr__(self, "shape", shape)
        if not all(isinstance(size, int) and size > 0 for size in self.shape):
            raise ValueError(
                f"The shape of a Shaped hyperparameter is {self.shape!r}, but it must be a tuple "
                "of positive ints. Write, for example, Shaped(FloatDistribution(0, 1), (10, 784))."
            )


@dataclass(frozen=True)
class _Axes:
    """Constants of all axes, ``(D,)`` each, in one dtype on one device."""

    low: Tensor  # natural units
    high: Tensor
    step: Tensor  # 0: continuous
    start: Tensor  # of the axis: natural units, or logarithms; half a step before low
    width: Tensor
    log: Tensor  # bool
    every_log: bool
    some_step: bool

    @staticmethod
    def of(table: Tensor) -> _Axes:
        """Those of which ``(D, 6)`` holds the constants."""
        low, high, step, start, width, log = table.unbind(1)
        every_log, some_step = bool((log > 0).all()), bool((step > 0).any())
        return _Axes(low, high, step, start, width, log > 0, every_log, some_step)

    def to(self, dtype: torch.dtype, device: torch.device | str) -> _Axes:
        numbers = ("low", "high", "step", "start", "width")
        moved = {name: getattr(self, name).to(device, dtype) for name in numbers}
        return replace(self, **moved, log=self.log.to(device))

    def natural(self, z: Tensor) -> Tensor:
        """Natural units ``(..., D)`` of coordinates ``(..., D)``, on the grids."""
        share = (torch.special.ndtr(z.clamp(-LIMIT, LIMIT)) - _TAIL) / (1 - 2 * _TAIL)
        position = self.start + share * self.width
        value = position.exp() if self.every_log else self._exp_of_some(position)
        if self.some_step:
            value = self._snapped(value)
        return torch.minimum(torch.maximum(value, self.low), self.high)

    def _exp_of_some(self, position: Tensor) -> Tensor:
        # Not exp of a linear axis, which may overflow: its gradient would be NaN in both branches.
        return torch.where(self.log, torch.where(self.log, position, 0.0).exp(), position)

    def _snapped(self, value: Tensor) -> Tensor:
        step = torch.where(self.step > 0, self.step, 1.0)
        snapped = self.low + torch.round((value - self.low) / step) * step
        return torch.where(self.step > 0, snapped, value)

    def coordinates(self, natural: Tensor) -> Tensor:
        """Coordinates of natural units, of any leading shape: the inverse of ``natural``."""
        position = torch.where(self.log, natural.clamp_min(1e-300).log(), natural)
        share = ((position - self.start) / self.width).clamp(0, 1)
        z: Tensor = torch.special.ndtri(_TAIL + share * (1 - 2 * _TAIL))
        return z.clamp(-LIMIT, LIMIT)


class Coordinates:
    """A search space by name, and the maps between params, coordinates and natural units.

    Args:
        search_space: Optuna's float and int distributions by name, or :class:`Shaped` ones.
        dtype: Of the coordinates and of ``hp``.
        device: Likewise.

    Attributes:
        names: In the order given.
        shapes: By name, in that order.
        blocks: Which coordinates are those of a name, in that order.
        D: How many numbers there are in all.

    Raises:
        TypeError: If it is no mapping, or an entry is not a distribution.
        ValueError: If there is no entry, or one is categorical or single-valued.
    """

    def __init__(
        self,
        search_space: Mapping[str, BaseDistribution | Shaped],
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if not isinstance(search_space, Mapping):
            raise TypeError(
                f"The search space is {search_space!r}, but it must be a dict of distributions by "
                "name, for example {'weight_decay': FloatDistribution(1e-6, 1e-1, log=True)}."
            )
        if not search_space:
            raise ValueError(
                "The search space is empty. Name at least one hyperparameter, for example "
                "{'weight_decay': FloatDistribution(1e-6, 1e-1, log=True)}."
            )
        self._shaped = {name: _checked(name, entry) for name, entry in search_space.items()}
        self.names = list(self._shaped)
        self.shapes = {name: entry.shape for name, entry in self._shaped.items()}
        self.blocks = Blocks(tuple(math.prod(shape) for shape in self.shapes.values()))
        self.D = sum(self.blocks.sizes)
        columns = [_axis(entry.distribution) for entry in self._shaped.values()]
        table = torch.tensor(columns, dtype=torch.float64)  # (names, 6)
        table = table.repeat_interleave(torch.tensor(self.blocks.sizes), 0)
        self._exact = _Axes.of(table)
        self._axes = self._exact.to(dtype, device)

    def described(self) -> str:
        """All entries in one line."""
        return ", ".join(
            f"{name} {entry.shape or ''} {entry.distribution}"
            for name, entry in self._shaped.items()
        )

    def natural(self, z: Tensor) -> dict[str, Tensor]:
        """``hp`` of coordinates ``(..., D)``: tensors ``(..., *shape)`` by name."""
        return self._by_name(self._axes.natural(z))

    def encode(self, params: Params) -> Tensor:
        """Coordinates ``(D,)`` of params.

        Raises:
            ValueError: If a name is missing or unknown, a shape is wrong, or a value is not a
                number inside its range.
        """
        unknown, missing = set(params) - set(self.names), set(self.names) - set(params)
        if unknown or missing:
            raise ValueError(
                f"The params name {sorted(params)}, but the search space has "
                f"{sorted(self.names)}. Unknown: {sorted(unknown)}; missing: {sorted(missing)}."
            )
        values = [self._value(name, params[name]) for name in self.names]
        z = self._exact.coordinates(torch.from_numpy(np.concatenate(values)))
        return z.to(self._axes.low)

    def decode(self, z: Tensor) -> dict[str, Any]:
        """Params of coordinates ``(D,)``: numbers, or arrays of the entry's shape."""
        exact = self._by_name(self._exact.natural(z.detach().to("cpu", torch.float64)))
        return {name: self._plain(name, value) for name, value in exact.items()}

    def by_name(self, values: Tensor) -> dict[str, Any]:
        """What is ``(D,)`` by name: numbers, or arrays of the entry's shape."""
        parts = self._by_name(values.detach().to("cpu", torch.float64))
        return {name: part.numpy() if part.ndim else part.item() for name, part in parts.items()}

    def by_column(self, values: Params) -> Tensor:
        """The inverse, ``(D,)``; 0 for names that are missing.

        Raises:
            ValueError: If a name is unknown, or a shape is wrong.
        """
        if unknown := sorted(set(values) - set(self.names)):
            raise ValueError(f"{unknown} are not in the search space, which has {self.names}.")
        parts = [
            np.broadcast_to(np.asarray(values.get(name, 0.0), dtype=np.float64), shape)
            for name, shape in self.shapes.items()
        ]
        flat = np.concatenate([part.reshape(-1) for part in parts])
        return torch.from_numpy(flat).to(self._axes.low)

    def at_bound(self, z: Tensor) -> list[str]:
        """Names of hyperparameters of which a number is at, or within 1 % of, a range's end."""
        exact = z.detach().to("cpu", torch.float64)
        value, axes = self._exact.natural(exact), self._exact
        ends = (exact.abs() > _NEARLY) | (value <= axes.low) | (value >= axes.high)
        return self.names_where(ends)

    def names_where(self, which: Tensor) -> list[str]:
        """Names of the hyperparameters of which a number is marked in ``which (D,)``."""
        return [name for name, marked in self._by_name(which).items() if bool(marked.any())]

    def is_log(self, name: str) -> bool:
        """Whether the range of that hyperparameter is logarithmic."""
        kind = self._shaped[name].distribution
        return isinstance(kind, FloatDistribution | IntDistribution) and kind.log

    def _by_name(self, values: Tensor) -> dict[str, Tensor]:
        parts = torch.split(values, list(self.blocks.sizes), -1)
        return {
            name: part.reshape((*values.shape[:-1], *entry.shape))
            for (name, entry), part in zip(self._shaped.items(), parts, strict=True)
        }

    def _value(self, name: str, value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        entry = self._shaped[name]
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Hyperparameter {name!r} got {value!r}, which is no number."
            ) from error
        if array.shape != entry.shape:
            raise ValueError(
                f"Hyperparameter {name!r} got a value of shape {array.shape}, but the search "
                f"space says {entry.shape}. Pass one number per entry of that shape."
            )
        kind = entry.distribution
        assert isinstance(kind, FloatDistribution | IntDistribution)
        ends = np.array([kind.low, kind.high], dtype=np.float64)
        # What single precision leaves of an end: of a logarithmic range, a part of that end.
        low, high = ends + np.array([-1e-6, 1e-6]) * (ends if kind.log else np.abs(ends).max())
        if not ((array >= low) & (array <= high)).all():
            raise ValueError(
                f"Hyperparameter {name!r} got {value!r}, which is not inside [{kind.low}, "
                f"{kind.high}]. Pass a value of that range, or widen it in the search space."
            )
        return array.reshape(-1)

    def _plain(self, name: str, value: Tensor) -> Any:
        entry = self._shaped[name]
        integer = isinstance(entry.distribution, IntDistribution)
        if entry.shape:
            return value.round().long().numpy() if integer else value.numpy()
        return round(value.item()) if integer else value.item()


def _checked(name: str, entry: BaseDistribution | Shaped) -> Shaped:
    """The entry with a shape, () for a single number; an error if it cannot be descended on."""
    shaped = entry if isinstance(entry, Shaped) else Shaped(entry, ())
    kind = shaped.distribution
    if isinstance(kind, CategoricalDistribution):
        raise ValueError(
            f"Hyperparameter {name!r} is categorical: between choices there is nothing to "
            "descend along. Leave it out here and let the outer study search it: "
            f"trial.suggest_categorical({name!r}, ...) and one HyperTraining per trial."
        )
    if not isinstance(kind, FloatDistribution | IntDistribution):
        raise TypeError(
            f"Hyperparameter {name!r} is {kind!r}, but a search space holds FloatDistribution, "
            "IntDistribution, or Shaped(one of them, shape)."
        )
    if kind.single():
        raise ValueError(
            f"Hyperparameter {name!r} has a single value: {kind}. Write that value into the "
            "training loss and leave it out of the search space."
        )
    return shaped


def _axis(kind: BaseDistribution) -> tuple[float, float, float, float, float, bool]:
    """Low, high, step, start, width and log of one axis.

    As in :class:`~optuna_hypernet.space.SearchSpace`, the end values of a grid own as much of
    the axis as the others: it is half a step longer on either side.
    """
    assert isinstance(kind, FloatDistribution | IntDistribution)
    step = float(kind.step or 0)
    start, end = kind.low - step / 2, kind.high + step / 2
    if kind.log:
        start, end = math.log(start), math.log(end)
    return float(kind.low), float(kind.high), step, start, end - start, kind.log
