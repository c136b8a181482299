"""What came of trials: objective values, and what reports say of those that have none.

A pruned trial ends with a report at some step, and losses fall as training goes on: beside the
values of complete trials that report says nothing. But complete trials have reported at that step,
too. So what is expected of the pruned one in the end is the value that has the place among theirs
which its report has among their reports: a map from quantiles to quantiles, for every step. It
forecasts a running trial's value from its last report, too, and how far it has missed the complete
ones' says how much the forecast is worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optuna_hypernet.surrogate import warp


Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

_FEWEST = 2  # complete trials that say how reports and values go together


class Progress(NamedTuple):
    """How far ``p`` running trials have come.

    Attributes:
        reports: ``(p,)`` the last one of each, smaller is better, NaN for none.
        reached: ``(p,)`` the column of its step in :attr:`Outcomes.reports`, -1 for none.
    """

    reports: Array
    reached: NDArray[np.int64]


class Forecast(NamedTuple):
    """What ``p`` running trials may come to, NaN for those of which nothing can be said.

    Attributes:
        mean: ``(M, p)`` on ``M`` scales.
        variance: ``(M, p)``.
    """

    mean: Array
    variance: Array


@dataclass(frozen=True)
class Outcomes:
    """What came of ``n`` trials, smaller is better.

    Attributes:
        values: ``(n,)`` objective values; of a pruned trial its last report.
        pruned: ``(n,)`` which of them were.
        violation: ``(n,)`` by how much constraints are violated, in all; 0 if a trial is feasible.
        reports: ``(n, s)`` what they reported at ``s`` steps, NaN for nothing.
        ended: ``(n,)`` the column of the step after which a trial was pruned; -1 if it was not,
            or before any report.
    """

    values: Array
    pruned: Mask
    violation: Array
    reports: Array
    ended: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, which: slice | Mask | Places) -> Outcomes:
        """Those trials."""
        return Outcomes(
            self.values[which],
            self.pruned[which],
            self.violation[which],
            self.reports[which],
            self.ended[which],
        )

    @property
    def feasible(self) -> Mask:
        """Which of them ``(n,)`` violate no constraint."""
        return np.asarray(self.violation == 0)

    @property
    def returned(self) -> Mask:
        """Which values ``(n,)`` are finite and those of a complete trial."""
        return np.asarray(np.isfinite(self.values) & ~self.pruned)

    @cached_property
    def places(self) -> Places:
        """The place ``(n,)`` of each among them, 0 for the best.

        Any infeasible trial is worse than any feasible one, and of two the one that violates more
        (Deb 2000, "An efficient constraint handling method for genetic algorithms", section 3).
        """
        places = np.empty(len(self), dtype=np.int64)
        places[np.lexsort([self.settled, self.violation])] = np.arange(len(self))
        return places

    @cached_property
    def settled(self) -> Array:
        """Values ``(n,)`` that can be computed with: :func:`warp.settle` of :meth:`expected`."""
        return warp.settle(self.expected(), self.pruned & np.isnan(self._carried))

    def expected(self) -> Array:
        """Values ``(n,)``; of pruned trials, what they would have come to."""
        return np.where(np.isnan(self._carried), self.values, self._carried)

    @cached_property
    def _carried(self) -> Array:
        """What pruned trials would have come to ``(n,)``; NaN where that cannot be said."""
        carried = np.full(len(self), np.nan)
        for at, known, reports in self._by_step(Progress(self.values, self.ended)):
            carried[at] = _carried_on(self.values[at], reports, self.values[known])
        return carried

    def forecast(self, progress: Progress, warped: Array) -> Forecast:
        """What ``p`` trials would come to, on the ``M`` scales of ``warped (M, n)`` values.

        The variance is the mean square of what the map misses of known values, and of one more
        that it misses by 1: these are standardised, and two in order prove nothing.
        """
        mean, variance = np.full((2, len(warped), len(progress.reports)), np.nan)
        for at, known, reports in self._by_step(progress):
            early, order = progress.reports[at], np.argsort(reports, kind="stable")
            for m, values in enumerate(warped[:, known]):
                mean[m, at] = _carried_on(early, reports, values)
                missed = np.sort(values) - values[order]
                variance[m, at] = (missed @ missed + 1) / (len(missed) + 1)
        return Forecast(mean, variance)

    def _by_step(self, progress: Progress) -> Iterator[tuple[Mask, Mask, Array]]:
        """For each step that ``p`` trials have come to, and of which complete ones tell enough.

        Yields:
            Which ``(p,)`` have come to it, which ``(n,)`` tell of it, and what they reported.
        """
        for step in np.unique(progress.reached[progress.reached >= 0]):
            known = self.returned & np.isfinite(self.reports[:, step])
            if np.count_nonzero(known) >= _FEWEST:
                at = (progress.reached == step) & np.isfinite(progress.reports)
                yield at, known, self.reports[known, step]


def _carried_on(early: Array, reports: Array, values: Array) -> Array:
    """``early (m,)`` reports as values, given ``reports (k,)`` and ``values (k,)`` of others.

    A report beyond theirs lies as far beyond the values, but by no more than these lie apart.
    """
    # Of quarters no difference or sum overflows; of quotients and the result infinity will do.
    early, reports, values = early / 4, np.sort(reports) / 4, np.sort(values) / 4
    with np.errstate(over="ignore"):
        inside = np.clip(np.interp(early, reports, values), values[0], values[-1])
        apart = max(reports[-1] - reports[0], np.finfo(float).tiny)
        beyond = np.clip((early - reports[-1]) / apart, 0.0, 1.0)
        return np.asarray(4 * (inside + beyond * (values[-1] - values[0])))
