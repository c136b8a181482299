"""What came of trials: objective values, and what may be expected of those that were pruned.

A pruned trial ends with a report at some step, and losses fall as training goes on: beside the
values of complete trials that report says nothing. But complete trials have reported at that step,
too. So what is expected of the pruned one in the end is the value that has the place among theirs
which its report has among their reports: a map from quantiles to quantiles, for every step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optuna_hypernet.surrogate import warp


Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_FEWEST = 2  # complete trials that say how reports and values go together


@dataclass(frozen=True)
class Outcomes:
    """What came of ``n`` trials, smaller is better.

    Attributes:
        values: ``(n,)`` objective values; of a pruned trial its last report.
        censored: ``(n,)`` which of them count as no better than the median of the others: pruned
            trials, and those that violate constraints.
        reports: ``(n, s)`` what they reported at ``s`` steps, NaN for nothing.
        ended: ``(n,)`` the column of the step after which a trial was pruned; -1 if it was not,
            or before any report.
    """

    values: Array
    censored: Mask
    reports: Array
    ended: NDArray[np.int64]

    @staticmethod
    def of(values: Array, censored: Mask) -> Outcomes:
        """Of trials without reports."""
        return Outcomes(values, censored, np.empty((len(values), 0)), np.full(len(values), -1))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, which: slice | Mask) -> Outcomes:
        """Those trials."""
        return Outcomes(
            self.values[which], self.censored[which], self.reports[which], self.ended[which]
        )

    def settled(self) -> Array:
        """Values ``(n,)`` that can be computed with: :func:`warp.settle` of :meth:`expected`."""
        return warp.settle(self.expected(), self.censored)

    def expected(self) -> Array:
        """Values ``(n,)``; of pruned trials, what they would have come to."""
        values = self.values.copy()
        whole = ~self.censored & np.isfinite(self.values)
        for step in np.unique(self.ended[self.ended >= 0]):
            report = self.reports[:, step]
            known = whole & np.isfinite(report)
            early = (self.ended == step) & np.isfinite(report)
            if np.count_nonzero(known) >= _FEWEST:
                values[early] = _carried_on(report[early], report[known], self.values[known])
        return values


def _carried_on(early: Array, reports: Array, values: Array) -> Array:
    """``early (m,)`` reports as values, given ``reports (k,)`` and ``values (k,)`` of others.

    A report beyond theirs lies as far beyond the values, but by no more than these lie apart.
    """
    reports, values = np.sort(reports), np.sort(values)
    low, high = reports[0] / 2, reports[-1] / 2  # halves: their difference cannot overflow
    beyond = np.clip((early / 2 - high) / max(high - low, np.finfo(float).tiny), 0.0, 1.0)
    with np.errstate(over="ignore"):  # infinity will do
        spread = values[-1] - values[0]
    inside = np.interp(early, reports, values)
    return np.where(beyond > 0, inside + beyond * min(spread, np.finfo(float).max), inside)
