"""Hypothesis strategies: Optuna distributions of every kind."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
from hypothesis.strategies import DrawFn
from hypothesis.strategies import SearchStrategy
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution


class Opaque:
    """A choice that equals nothing but itself."""

    def __repr__(self) -> str:
        return "Opaque()"


#: No two of them are equal: Optuna itself cannot tell True from 1.
CHOICES: list[Any] = [
    None,
    True,
    False,
    "word",
    "",
    2,
    -7,
    2.5,
    math.inf,
    math.nan,
    (1, 2),
    (),
    Opaque(),
    Opaque,
    len,
]

#: Beyond this the gap between neighbouring floats exceeds 1, and Optuna's own arithmetic fails.
LARGEST_INT = 2**53


@st.composite
def floats(draw: DrawFn) -> BaseDistribution:
    """Any range whose width float64 can hold: around 0, far from 0, tiny and huge."""
    magnitude = 10.0 ** draw(st.integers(-300, 300))
    ends = st.floats(-1, 1, allow_nan=False)
    low, high = sorted(draw(st.tuples(ends, ends)))
    return FloatDistribution(low * magnitude, high * magnitude)


@st.composite
def offset_floats(draw: DrawFn) -> BaseDistribution:
    """A range that is narrow beside its distance from 0."""
    low = draw(st.sampled_from([-1e9, -1.0, 1.0, 1e9]))
    return FloatDistribution(low, low + 10.0 ** draw(st.integers(-6, 6)))


@st.composite
def log_floats(draw: DrawFn) -> BaseDistribution:
    low = 10.0 ** draw(st.floats(-300, 300))
    return FloatDistribution(low, min(low * 10.0 ** draw(st.floats(0, 300)), 1e308), log=True)


@st.composite
def wide_floats(draw: DrawFn) -> BaseDistribution:
    """A linear range over decades."""
    low = 10.0 ** draw(st.floats(-250, 250))
    return FloatDistribution(low, min(low * 10.0 ** draw(st.floats(1, 300)), 1e308))


@st.composite
def stepped_floats(draw: DrawFn) -> BaseDistribution:
    """Ends are multiples of the step in decimal, as they are in what people write."""
    step = Decimal(draw(st.sampled_from(["0.001", "0.1", "0.25", "1", "3", "1e-7", "1e5"])))
    low = step * draw(st.integers(-1000, 1000))
    high = low + step * draw(st.integers(0, 10**4))
    return FloatDistribution(float(low), float(high), step=float(step))


@st.composite
def ints(draw: DrawFn) -> BaseDistribution:
    step = draw(st.sampled_from([1, 1, 1, 2, 3, 16, 1000]))
    low = draw(st.integers(-1000, 1000) | st.integers(-LARGEST_INT, LARGEST_INT // 2))
    count = draw(st.integers(0, 5) | st.integers(0, 10**5) | st.integers(0, LARGEST_INT))
    return IntDistribution(low, low + min(count, (LARGEST_INT - low) // step) * step, step=step)


@st.composite
def wide_ints(draw: DrawFn) -> BaseDistribution:
    """The same of whole numbers."""
    low = draw(st.integers(1, 10) | st.integers(1, 10**6))
    return IntDistribution(low, draw(st.integers(50 * low, 1000 * low) | st.integers(low, 2**45)))


@st.composite
def log_ints(draw: DrawFn) -> BaseDistribution:
    low = draw(st.integers(1, 10) | st.integers(1, 10**6))
    high = draw(st.integers(low, low + 10) | st.integers(low, 10**9))
    return IntDistribution(low, high, log=True)


def categories() -> SearchStrategy[BaseDistribution]:
    some = st.lists(st.sampled_from(range(len(CHOICES))), min_size=1, unique=True)
    many = st.integers(2, 300).map(range)
    return some.map(lambda at: CategoricalDistribution([CHOICES[k] for k in at])) | many.map(
        CategoricalDistribution
    )


def distributions(single: bool = True) -> SearchStrategy[BaseDistribution]:
    """Every kind; without single-valued ones if asked so."""
    numbers = [floats(), offset_floats(), log_floats(), wide_floats(), stepped_floats()]
    any_kind = st.one_of(*numbers, ints(), log_ints(), wide_ints(), categories())
    return any_kind if single else any_kind.filter(lambda kind: not kind.single())


@st.composite
def values_of(draw: DrawFn, kind: BaseDistribution) -> Any:
    """A value that ``kind`` allows, its ends more often than not."""
    if isinstance(kind, CategoricalDistribution):
        return draw(st.sampled_from(kind.choices))
    assert isinstance(kind, IntDistribution | FloatDistribution)
    if isinstance(kind, IntDistribution) or kind.step is not None:
        last = round((kind.high - kind.low) / kind.step)
        steps = draw(st.sampled_from([0, last]) | st.integers(0, last))
        return min(kind.low + steps * kind.step, kind.high)
    return draw(st.sampled_from([kind.low, kind.high]) | st.floats(kind.low, kind.high))
