"""The choices of a categorical parameter: which there are, and what the hypernetwork reads of one.

Choices that are numbers are often a range in another guise (32, 64, 128 units), but may be mere
names (a seed, the number of a version). They are read as both, and gates tell: the place of the
number in their order, and, as any other choices, one-hot.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution


Array = NDArray[np.float64]

# How far apart two numbers are as choices, beside others. As far, and an order would hardly count;
# at 0, numbers that are mere names could not be told apart.
_APART = 0.2

_FEWEST = 3  # numbers that have an order which says something


class Choices:
    """Those of one parameter.

    Args:
        kind: Its distribution.

    Attributes:
        recorded: Index, among all, of each of the ``c`` choices that can be told apart.
        widths: How many columns each input has: ``(c,)``, or ``(1, c)`` if there are numbers.
        ranged: ``(sum(widths),)`` true for the column of the numbers.
    """

    def __init__(self, kind: CategoricalDistribution) -> None:
        self.recorded = _recorded(kind)
        grades = _grades([kind.choices[k] for k in self.recorded])
        numbers = np.isfinite(grades)
        count = len(numbers)
        self.widths = (1, count) if numbers.any() else (count,)
        self.ranged = np.arange(sum(self.widths)) < sum(self.widths) - count
        self._grades = np.nan_to_num(grades)
        self._heights = math.sqrt(2) * np.where(numbers, _APART, 1.0)

    def embed(self, out: Array, at: NDArray[np.int64], levels: NDArray[np.int64]) -> None:
        """Writes choices ``levels (m,)`` into rows ``at (m,)`` of zeros ``(n, sum(widths))``."""
        if len(self.widths) > 1:
            out[at, 0] = self._grades[levels]
        out[at, levels - len(self._grades)] = self._heights[levels]


def _recorded(kind: CategoricalDistribution) -> Sequence[int]:
    """Indices of the choices that a trial can be recorded with: of equal ones only the first.

    0 and False are equal, say: Optuna cannot tell them apart, so a later one would never be seen.
    """
    choices = kind.choices
    with contextlib.suppress(TypeError):  # of what cannot be hashed
        if len(set(choices)) == len(choices):
            return range(len(choices))
    return [k for k, one in enumerate(choices) if kind.to_internal_repr(one) == k]


def _grades(choices: Sequence[Any]) -> Array:
    """Where each number is, from -1 to 1 as in an integer range: ``(c,)``, NaN for what is none.

    By its place in the order, since people choose numbers that they find equally far apart.
    """
    numbers = [k for k, one in enumerate(choices) if _is_number(one)]
    grades = np.full(len(choices), math.nan)
    if len(numbers) >= _FEWEST:
        ascending = sorted(numbers, key=lambda k: choices[k])
        grades[ascending] = (2 * np.arange(len(numbers)) + 1) / len(numbers) - 1
    return grades


def _is_number(value: Any) -> bool:
    """Whether it has a place in an order; True and NaN have none."""
    return isinstance(value, Real) and not isinstance(value, bool) and value == value
