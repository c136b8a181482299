"""The search space: Optuna's distributions by name, and params as rows of [0, 1]^d.

Notation, here and wherever rows are handled:

* ``d`` parameters in the order of their sorted names; ``n`` rows; ``D`` embedding columns.
* ``rows``: ``(n, d)`` floats, one column per parameter in [0, 1], but for trials of a range that
  has moved: up to a width outside. A discrete parameter sits at the centre of its cell, a
  categorical one too (cell ``k`` of ``c`` is choice ``k``). A range over decades that is not
  logarithmic has half of its axis for values as they are, and half for their logarithms.
* ``active``: ``(n, d)`` bools, false where a trial never asked for the parameter. Inactive
  entries of ``rows`` hold the cell that contains 0.5, so that equal params are equal rows.
* ``embedding``: ``(n, D)``, what the hypernetwork reads: numbers from -1 to 1 over their range,
  choices one-hot times sqrt(2), zeros where inactive. Choices among numbers are both.
* ``inputs``: the groups of its columns that have a gate of their own: one for every parameter, two
  for a choice among numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.distributions import distribution_to_json
from optuna.distributions import json_to_distribution
from scipy.special import wrightomega

from optuna_hypernet.choices import Choices


Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Above this many values a discrete axis is handled as continuous: float64 cannot tell them apart.
_MOST_CELLS = 2**44

# A log axis narrower than this, relative to its values, is as good as linear; its logarithms are
# too close to each other to be told apart.
_NARROW = 1e-6

# A linear range whose end is so many times its beginning may well have wanted `log=True`. But not
# where numbers, their quotients or some of their digits may be lost.
_DECADES = 100.0
_SAFE = 1e200

# Trials may lie outside the latest range of a parameter whose range moves. They keep informing
# the surrogate, up to one range's width away on either side.
_OUTSIDE = 1.0


class Embedding(Protocol):
    """What the surrogate reads of a row, and the way back of a gradient."""

    owner: NDArray[np.int64]
    ranged: Mask
    tilt: Array

    def embed(self, rows: Array, active: Mask) -> Array:
        """``(n, D)`` of ``rows (n, d)``."""

    def pull(self, gradient: Array, rows: Array, active: Mask) -> Array:
        """Gradient by ``rows (n, d)`` from one by the embedding ``(n, D)``."""


class SearchSpace:
    """Distributions by name, and the maps between params, rows and embeddings.

    Args:
        distributions:
            Optuna distributions by name; single-valued ones belong to nobody and are refused.

    Attributes:
        names: The ``d`` names, sorted, so that nothing depends on the order of a dict.
        distributions: By name, in that order.
        cardinality: ``(d,)`` number of values of each discrete parameter, 0 if continuous.
        categorical: ``(d,)`` true for unordered parameters.
        owner: ``(D,)`` the input that each embedding column belongs to, ascending.
        ranged: ``(D,)`` true for a number that goes from -1 to 1 over its range.
        tilt: ``(D,)`` zeros: no direction is known to be worse.
        idle: ``(d,)`` what a row has for parameters that are not asked for: the middle.

    Raises:
        ValueError: If a distribution has a single value or is of an unknown kind.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self.names = sorted(distributions)
        self.distributions = {name: distributions[name] for name in self.names}
        self._choices = {
            j: Choices(kind)
            for j, kind in enumerate(self.distributions.values())
            if isinstance(kind, CategoricalDistribution)
        }
        # Of those whose cells are not just the indices of their choices.
        self._recorded = {
            j: choices.recorded
            for j, choices in self._choices.items()
            if choices.recorded[-1] >= len(choices.recorded)
        }
        of_each = [self._choices.get(j) for j in range(self.d)]
        kinds = zip(self.names, self.distributions.values(), of_each, strict=True)
        axes = [_axis(*each) for each in kinds]
        self.categorical: Mask = np.array([axis.kind == "choice" for axis in axes], dtype=bool)
        self.cardinality = np.array([axis.cells for axis in axes], dtype=np.int64)
        self._low = np.array([axis.low for axis in axes], dtype=float)
        # Half the width: the width itself may overflow, and may be lost to rounding.
        half = np.array([axis.high / 2 - axis.low / 2 for axis in axes], dtype=float)
        self._half = np.maximum(half, np.finfo(float).tiny)
        self._log: Mask = np.array([axis.kind == "log" for axis in axes], dtype=bool)
        self._slope = np.array([axis.slope for axis in axes], dtype=float)
        self._linear_cells = np.flatnonzero((self.cardinality > 0) & ~self._log)
        self._log_cells = np.flatnonzero((self.cardinality > 0) & self._log)
        inputs = [(1,) if choices is None else choices.widths for choices in of_each]
        widths = np.array([width for each in inputs for width in each], dtype=np.int64)
        ranged = [[True] if choices is None else choices.ranged for choices in of_each]
        self.owner = np.repeat(np.arange(len(widths)), widths)
        self.ranged: Mask = np.concatenate([np.empty(0, dtype=bool), *ranged])
        self.tilt: Array = np.zeros(len(self.owner))
        self._numeric = np.flatnonzero(~self.categorical)
        self._first = np.cumsum([0, *map(len, ranged)])[:-1]
        self._hash = np.random.default_rng(0).random(self.d)
        self.idle: Array = self.snap(np.full((1, self.d), 0.5))[0]

    @property
    def d(self) -> int:
        """Number of parameters."""
        return len(self.names)

    def encode(self, internal: Array) -> tuple[Array, Mask]:
        """Rows and active mask of params in Optuna's internal representation.

        Args:
            internal: ``(n, d)`` numbers, or the index of a choice; NaN where not asked for.

        Returns:
            ``rows (n, d)`` and ``active (n, d)``.
        """
        active = np.isfinite(internal)
        values = np.where(active, internal, np.where(self._log, 1.0, self._low))
        for j, recorded in self._recorded.items():
            values[:, j] = np.searchsorted(recorded, values[:, j])
        positive = np.maximum(values[:, self._log], np.finfo(float).tiny)
        values[:, self._log] = self._scaled(positive, self._log)
        with np.errstate(over="ignore"):  # far outside of a tiny range
            rows = (values / 2 - self._low / 2) / self._half
        rows = self.snap(np.clip(rows, -_OUTSIDE, 1 + _OUTSIDE))
        return np.where(active, rows, self.idle), active

    def decode(self, row: Array) -> dict[str, Any]:
        """Params of one row ``(d,)`` in [0, 1]: plain Python values, on the steps, in bounds.

        Without those where the row has NaN.
        """
        asked = ~np.isnan(row)
        row = np.where(asked, row, self.idle)
        levels = self.levels(row[None])[0]
        for j, recorded in self._recorded.items():
            levels[j] = recorded[levels[j]]
        positions = self._positions(row, slice(None))
        positions[self._log] = self._unscaled(positions[self._log], self._log)
        return {
            name: _value(distribution, positions[j], levels[j] if self.cardinality[j] else None)
            for j, (name, distribution) in enumerate(self.distributions.items())
            if asked[j]
        }

    def levels(self, rows: Array) -> NDArray[np.int64]:
        """Index of the cell that each discrete entry lies in, ``(n, d)``; 0 if continuous."""
        cells = np.zeros(rows.shape)
        j = self._linear_cells
        cells[:, j] = np.floor(rows[:, j] * self.cardinality[j])
        j = self._log_cells
        values = self._unscaled(np.minimum(self._positions(rows[:, j], j), 700.0), j)
        cells[:, j] = np.round(values) - self._smallest(j)
        return np.clip(cells, 0, np.maximum(self.cardinality - 1, 0)).astype(np.int64)

    def centres(self, j: int, levels: NDArray[np.int64]) -> Array:
        """Position in [0, 1] of the cells ``levels`` of the discrete parameter ``j``."""
        if not self._log[j]:
            return np.asarray((levels + 0.5) / self.cardinality[j])
        positions = self._scaled(self._smallest(j) + levels, j)
        return np.asarray((positions - self._low[j]) / 2 / self._half[j])

    def snap(self, rows: Array) -> Array:
        """Rows with every discrete entry inside [0, 1] moved to the centre of its cell."""
        rows = rows.copy()
        levels = self.levels(rows)
        j = self._linear_cells
        centred = (levels[:, j] + 0.5) / self.cardinality[j]
        inside = (rows[:, j] >= 0) & (rows[:, j] <= 1)
        rows[:, j] = np.where(inside | self.categorical[j], centred, rows[:, j])
        for k in self._log_cells.tolist():
            inside = (rows[:, k] >= 0) & (rows[:, k] <= 1)
            rows[:, k] = np.where(inside, self.centres(k, levels[:, k]), rows[:, k])
        return rows

    def keys(self, rows: Array, which: Mask | slice = slice(None)) -> Array:
        """One number ``(n,)`` per row: equal rows, and in practice no others, share it.

        Args:
            rows: ``(n, d)``.
            which: ``(d,)`` the entries that count; by default all.
        """
        return np.asarray(np.ascontiguousarray(rows[:, which] * self._hash[which]).sum(1))

    def embed(self, rows: Array, active: Mask) -> Array:
        """Embedding ``(n, D)`` of rows.

        Two choices of one parameter are 2 apart, as the ends of a range are, unless both are
        numbers.
        """
        out = np.zeros((len(rows), len(self.owner)))
        j = self._numeric
        out[:, self._first[j]] = (2 * rows[:, j] - 1) * active[:, j]
        levels = self.levels(rows)
        for k, choices in self._choices.items():
            at = np.flatnonzero(active[:, k])
            columns = slice(self._first[k], self._first[k] + len(choices.ranged))
            choices.embed(out[:, columns], at, levels[at, k])
        return out

    def pull(self, gradient: Array, rows: Array, active: Mask) -> Array:
        """Gradient by ``rows (n, d)`` from one by the embedding ``(n, D)``; 0 for choices.

        The embedding is linear in the rows, so it does not matter which they are.
        """
        out = np.zeros(active.shape)
        j = self._numeric
        out[:, j] = 2 * gradient[:, self._first[j]] * active[:, j]
        return out

    def _positions(self, rows: Array, j: Any) -> Array:
        """Values, or their scaled ones on log axes, of entries in [0, 1] on the axes ``j``."""
        return np.asarray(self._low[j] + rows * self._half[j] + rows * self._half[j])

    def _scaled(self, values: Array, j: Any) -> Array:
        """Positions on the log axes ``j``: log v + slope v."""
        return np.asarray(np.log(values) + self._slope[j] * values)

    def _unscaled(self, positions: Array, j: Any) -> Array:
        """The way back: slope v is the Wright omega function of the position plus log slope.

        Corless & Jeffrey (2002), "The Wright omega function": ω + log ω = z.
        """
        slope = self._slope[j]
        if not slope.any():
            return np.asarray(np.exp(positions))
        curved = slope > 0
        omega = wrightomega(positions + np.log(np.where(curved, slope, 1.0)))
        return np.asarray(np.exp(positions - np.where(curved, omega, 0.0)))

    def _smallest(self, j: Any) -> Any:
        """Smallest values of the log-int parameters ``j``, whose axes start half a unit lower."""
        return np.round(self._unscaled(self._low[j], j) + 0.5)


def internal_row(
    names: Sequence[str], params: Mapping[str, Any], kinds: Mapping[str, BaseDistribution]
) -> list[float]:
    """One trial's params in Optuna's internal representation, NaN where a name is missing.

    Args:
        names: The columns.
        params: Values by name, as the objective saw them.
        kinds: The trial's own distributions: a choice is looked up in the very tuple it came
            from, because copies of arbitrary objects need not compare equal.
    """
    return [
        kinds[name].to_internal_repr(params[name]) if name in params else math.nan
        for name in names
    ]


def stored(kind: BaseDistribution) -> BaseDistribution:
    """As a storage returns it: tuples among choices become lists."""
    try:
        return json_to_distribution(distribution_to_json(kind))
    except TypeError:  # only one in memory takes what JSON cannot hold, and returns it as it is
        return kind


class _Axis(NamedTuple):
    """One parameter's axis.

    The ends are half a step wider than the range, so that the end values of a grid own as much
    of [0, 1] as the others. Those of a log axis are positions, which are log v + slope v of a
    value v: with a slope other than 0 the axis belongs to a linear range over decades, and the
    two terms have the same share of its length.
    """

    kind: str
    cells: int  # one for each value, 0 if continuous
    low: float
    high: float
    slope: float = 0.0


def _axis(name: str, distribution: BaseDistribution, choices: Choices | None) -> _Axis:
    if distribution.single():
        raise ValueError(
            f"Parameter {name!r} has a single value: {distribution}. Single-valued parameters "
            "are never searched; leave it out of the search space."
        )
    if choices is not None:
        count = len(choices.recorded)
        return _Axis("choice", count, -0.5, count - 0.5)
    if isinstance(distribution, IntDistribution | FloatDistribution):
        return _number(distribution)
    raise ValueError(
        f"Parameter {name!r} has a {type(distribution).__name__}, which is not known here. "
        "Use FloatDistribution, IntDistribution or CategoricalDistribution."
    )


def _number(distribution: IntDistribution | FloatDistribution) -> _Axis:
    low, high, step = distribution.low, distribution.high, distribution.step or 0
    cells = round(high / step - low / step) + 1 if step else 0
    cells = cells if cells <= _MOST_CELLS else 0
    log = distribution.log and high > low * (1 + _NARROW)
    over_decades = low > 0 and high >= low * _DECADES * (1 - _NARROW)
    safe = low > 1 / _SAFE and high < _SAFE
    # On a log axis a grid has the whole numbers.
    whole = step == (1 if isinstance(distribution, IntDistribution) else 0)
    mixed = over_decades and safe and whole
    low, high = low - step / 2, high + step / 2
    if not log and not mixed:
        return _Axis("linear", cells, low, high)
    slope = 0.0 if log else (math.log(high) - math.log(low)) / (high - low)
    return _Axis("log", cells, math.log(low) + slope * low, math.log(high) + slope * high, slope)


def _value(distribution: BaseDistribution, position: float, level: int | None) -> Any:
    """The value of cell ``level``, or the one at ``position`` if there are no cells."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[level or 0]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    value = float(position)
    if level is not None and step is not None:
        value = low + int(level) * step
    elif step is not None:  # of more cells than are told apart
        value = low + round((value - low) / step) * step
    value = min(max(value, low), high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)
