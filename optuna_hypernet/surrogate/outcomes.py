"""What came of trials: objective values, and what may be expected of those that were pruned.

A pruned trial ends with a report at some step, and losses fall as training goes on: beside the
values of complete trials that report says nothing. But complete trials have reported at that step,
too. So what is expected of the pruned one in the end is the value that has the place among theirs
which its report has among their reports: a map from quantiles to quantiles, for every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from optuna_hypernet.surrogate import warp


Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

_FEWEST = 2  # complete trials that say how reports and values go together


@dataclass(frozen=True)
class Outcomes:
    """What came of ``n`` trials, smaller is better.

    Attributes:
        values: ``(n,)`` objective values; of a pruned trial its last report.
        pruned: ``(n,)`` which of them count as no better than the median of the others.
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

    def __getitem__(self, which: slice | Mask) -> Outcomes:
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
        return warp.settle(self.expected(), self.pruned)

    def expected(self) -> Array:
        """Values ``(n,)``; of pruned trials, what they would have come to."""
        values = self.values.copy()
        for step in np.unique(self.ended[self.ended >= 0]):
            report = self.reports[:, step]
            known = self.returned & np.isfinite(report)
            early = (self.ended == step) & np.isfinite(report)
            if np.count_nonzero(known) >= _FEWEST:
                values[early] = _carried_on(report[early], report[known], self.values[known])
        return values


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
