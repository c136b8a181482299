"""What earlier studies predict: those of the same pipeline on other data, say.

The trials of each say what is good there. How their values are scaled tells nothing here. How
alike the studies are is not known at first, so each counts as much as the others; then more, the
better it predicts the order of this one's trials. (To weigh earlier studies by how they rank the
new trials is from Feurer, Letham, Hutter & Bakshy 2018, arXiv 1802.02219, where it is posteriors
that are weighed; here it is the parts of one input.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from scipy.special import softmax

from optuna_hypernet.history import Trials
from optuna_hypernet.prediction import Interpolation
from optuna_hypernet.prediction import half_log
from optuna_hypernet.space import Array
from optuna_hypernet.space import Mask
from optuna_hypernet.space import SearchSpace
from optuna_hypernet.space import stored
from optuna_hypernet.surrogate.ensemble import checkpoint
from optuna_hypernet.surrogate.ensemble import rank_correlation
from optuna_hypernet.surrogate.ensemble import thinned
from optuna_hypernet.surrogate.outcomes import Outcomes


_MOST_TRIALS = 160  # of a study, half of them its best
# A study whose rank correlation with this one's trials is 0.5 lower than another's counts e times
# less.
_TEMPERATURE = 0.5
_FEWEST = 3  # trials that have an order


class Source:
    """The trials of an earlier study that have parameters and a value, and violate no constraint.

    Args:
        trials: Of a study with one objective.
        kinds: The latest distribution of each parameter.

    Attributes:
        kinds: Those of several values; where the latest range has one, whatever trials had.
    """

    def __init__(self, trials: Trials, kinds: Mapping[str, BaseDistribution]) -> None:
        wide = {name: _widened(name, kind, trials) for name, kind in kinds.items()}
        self.kinds = {name: kind for name, kind in wide.items() if not kind.single()}
        table = trials.columns(list(self.kinds), trials.finished)
        outcomes = trials.outcomes[0]
        usable = np.isfinite(table).any(1) & ~trials.failed & outcomes.feasible
        self._internal, self._levels = table[:0], np.empty(0)
        if usable.any():
            settled = outcomes[usable].settled
            kept = thinned(settled, _MOST_TRIALS)
            self._internal, self._levels = table[usable][kept], half_log(settled)[kept]

    def __len__(self) -> int:
        return len(self._levels)

    def told(self, space: SearchSpace) -> tuple[Array, Mask, Array]:
        """Rows and active mask ``(n, d)`` of a space, and levels ``(n,)``.

        Without trials that have a choice which the space has not.
        """
        internal = np.full((len(self), space.d), math.nan)
        for j, (name, kind) in enumerate(space.distributions.items()):
            if name in self.kinds and _akin(self.kinds[name], kind):
                column = self._internal[:, list(self.kinds).index(name)]
                internal[:, j] = _translated(column, self.kinds[name], kind)
        there = ~np.isinf(internal).any(1)
        rows, active = space.encode(internal[there])
        return rows, active, self._levels[there]


def _widened(name: str, kind: BaseDistribution, trials: Trials) -> BaseDistribution:
    """The distribution, or if it has a single value, one of the same kind over all ranges."""
    if not kind.single() or not isinstance(kind, FloatDistribution | IntDistribution):
        return kind
    low, high = (trials.columns([name], ends)[:, 0] for ends in (trials.lows, trials.highs))
    asked = np.isfinite(low)
    if not asked.any():
        return kind
    ends = low[asked].min(), high[asked].max()
    if isinstance(kind, IntDistribution):
        return IntDistribution(int(ends[0]), int(ends[1]), log=kind.log)
    return FloatDistribution(float(ends[0]), float(ends[1]), log=kind.log)


def _akin(one: BaseDistribution, other: BaseDistribution) -> bool:
    """Whether both are numbers, or both choices."""
    return isinstance(one, CategoricalDistribution) == isinstance(other, CategoricalDistribution)


def _translated(column: Array, kind: BaseDistribution, other: BaseDistribution) -> Array:
    """Internal representation ``(n,)`` in another distribution; infinite for another choice."""
    if not isinstance(kind, CategoricalDistribution) or stored(kind) == stored(other):
        return column
    places = np.array([_place(choice, other) for choice in kind.choices])
    known = np.isfinite(column)
    out = column.copy()
    out[known] = places[column[known].astype(np.int64)]
    return out


def _place(value: Any, kind: BaseDistribution) -> float:
    """The value's internal representation; infinite if it has none."""
    try:
        return kind.to_internal_repr(value)
    except (ValueError, TypeError):
        return math.inf


class Voice:
    """What one source predicts of a space.

    Of a parameter that it has never had, it does not matter what a configuration has.

    Args:
        space: Of a study.
        rows: ``(n, d)`` of the source.
        active: ``(n, d)``.
        levels: ``(n,)``.

    Attributes:
        best: Row and active mask ``(1, d)`` of the configuration with the lowest level, as fitted.

    Raises:
        numpy.linalg.LinAlgError: On numerical trouble.
    """

    def __init__(self, space: SearchSpace, rows: Array, active: Mask, levels: Array) -> None:
        self._known: Mask = np.asarray(active.any(0))
        self._level = Interpolation(space, rows, active, levels)
        best = self._level.fitted.argmin()
        self.best = rows[best : best + 1], active[best : best + 1]

    def value(self, rows: Array, active: Mask) -> Array:
        """The level ``(n,)`` at ``rows (n, d)``."""
        return self._level.value(rows, active & self._known)

    def gradient(self, rows: Array, active: Mask) -> Array:
        """Its gradient ``(n, d)`` there."""
        return self._level.gradient(rows, active & self._known)


class Remembered:
    """What sources predict of a space: the mean of what each does.

    Args:
        space: The study's.
        voices: Of ``s`` sources.
        centre: ``(d,)`` a row where it should begin; NaN for what is open.
        weights: ``(s,)``, normalised; by default they are even.

    Attributes:
        tilt: Prior standard deviations of the response per unit of the level. With more the
            sources keep a study of other data from its own optimum for longer.
    """

    tilt = 0.2

    def __init__(
        self,
        space: SearchSpace,
        voices: Sequence[Voice],
        centre: Array,
        weights: Array | None = None,
    ) -> None:
        self.space = space
        self.centre = centre
        self._voices = voices
        self._weights = np.full(len(voices), 1 / len(voices)) if weights is None else weights

    def value(self, rows: Array, active: Mask) -> Array:
        """The level ``(n,)`` at ``rows (n, d)``."""
        return np.asarray(self._weights @ self._each(rows, active))

    def gradient(self, rows: Array, active: Mask) -> Array:
        """Its gradient ``(n, d)`` there."""
        each = np.array([voice.gradient(rows, active) for voice in self._voices])
        return np.asarray(np.einsum("s,snd->nd", self._weights, each))

    def judged(self, rows: Array, active: Mask, outcomes: Sequence[Outcomes]) -> Remembered:
        """The same, with sources weighed by how well they predict the order of trials.

        Like gates, weights are learnt anew when a checkpoint is reached. Of several objectives it
        is not known which one the sources had.
        """
        early = checkpoint(len(rows))
        if early < _FEWEST or len(outcomes) > 1 or len(self._voices) == 1:
            return self
        values = outcomes[0][:early].settled
        levels = self._each(rows[:early], active[:early])
        scores = [rank_correlation(level, values) for level in levels]
        weights = softmax(np.array(scores) / _TEMPERATURE)
        return Remembered(self.space, self._voices, self.centre, weights)

    def _each(self, rows: Array, active: Mask) -> Array:
        """Of every source ``(s, n)``."""
        return np.array([voice.value(rows, active) for voice in self._voices])


class Sources:
    """Earlier studies, and what they predict of the space that was asked for last.

    Args:
        sources: At least one.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._kinds = {name: kind for one in sources for name, kind in one.kinds.items()}
        self._last: Remembered | None = None

    @cached_property
    def start(self) -> dict[str, Any]:
        """Of the best configurations of each source, the one that all together hold to be best.

        Params, where it has them.
        """
        space = SearchSpace(self._kinds)
        voices = self._voices(space)
        rows, active = map(np.concatenate, zip(*(v.best for v in voices), strict=True))
        first = Remembered(space, voices, space.idle).value(rows, active).argmin()
        params = space.decode(np.clip(rows[first], 0, 1))
        return {name: params[name] for name in np.array(space.names)[active[first]]}

    def first(self, name: str, kind: BaseDistribution) -> dict[str, Any]:
        """What a study's first trial should have of a parameter, by name; empty if it is open."""
        alone = SearchSpace({name: kind})
        row = self._row(alone)
        return {} if np.isnan(row).any() else alone.decode(row)

    def prediction(self, space: SearchSpace) -> Remembered:
        """What they predict of a space.

        Raises:
            ValueError: If it is nothing.
            numpy.linalg.LinAlgError: On numerical trouble.
        """
        if self._last is None or self._last.space.distributions != space.distributions:
            self._last = Remembered(space, self._voices(space), self._row(space))
        return self._last

    def _voices(self, space: SearchSpace) -> list[Voice]:
        told = [source.told(space) for source in self._sources]
        voices = [Voice(space, *each) for each in told if each[1].any()]
        if not voices:
            raise ValueError("they have no parameters, or no choices, in common")
        return voices

    def _row(self, space: SearchSpace) -> Array:
        """The row ``(d,)`` of where to start, as near as the space comes to it; NaN elsewhere."""
        internal = [
            _place(self.start[name], kind)
            if name in self.start and _akin(self._kinds[name], kind)
            else math.nan
            for name, kind in space.distributions.items()
        ]
        rows, active = space.encode(np.array([internal]))
        return np.asarray(np.where(active, space.snap(np.clip(rows, 0, 1)), math.nan)[0])
