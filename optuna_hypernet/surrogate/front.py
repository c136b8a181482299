"""The Pareto front of several objectives, and where the next trial might move it.

How good a front is says its hypervolume: how much of the values' space it dominates. That is, up
to a constant, the mean over all directions from a reference point of a power of how far the front
reaches in each (Zhang & Golovin 2020, "Random hypervolume scalarizations for provable
multi-objective black box optimization", lemma 5). So directions are drawn, and where they leave
the front are the places that are to be improved upon, each in all objectives at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from optuna_hypernet.surrogate.outcomes import Outcomes
from optuna_hypernet.surrogate.outcomes import Places


Array = NDArray[np.float64]

_N_DIRECTIONS = 4
# How far beyond the worst values of the front the reference point lies, in widths of the front:
# the further it is, the more its ends count beside its middle.
_BEYOND = 0.4


@dataclass(frozen=True)
class Directions:
    """From a reference point towards the front.

    Attributes:
        steps: ``(t, m)`` positive, for each of ``m`` objectives in widths of the front.
    """

    steps: Array

    def targets(self, values: Array) -> Array:
        """Where they leave the front of ``values (n, m)``: ``(t, m)``.

        To be below the same one of these in all objectives is an improvement.
        """
        reference, width = _extent(values)
        reach = self._reach(values, reference, width)
        return np.asarray(reference - reach.max(0)[:, None] * self.steps * width)

    def places(self, outcomes: Sequence[Outcomes]) -> Places:
        """The place ``(n,)`` of each trial among them, 0 for the best.

        First those that reach furthest in some direction, then those that come second, and so on;
        any that is not feasible after all that are. At least one has to be.

        Args:
            outcomes: Of ``n`` trials in each objective.
        """
        values = np.stack([each.settled for each in outcomes], axis=1)  # (n, m)
        feasible, violation = outcomes[0].feasible, outcomes[0].violation
        reach = self._reach(values, *_extent(values[feasible]))
        reach[~feasible] = -np.inf
        ranks = rankdata(-reach, axis=0, method="min")
        places = np.empty(len(values), dtype=np.int64)
        places[np.lexsort([ranks.argmin(1), ranks.min(1), violation])] = np.arange(len(values))
        return places

    def _reach(self, values: Array, reference: Array, width: Array) -> Array:
        """How many steps in each direction dominated by ``values (n, m)``: ``(n, t)``."""
        return np.asarray((((reference - values) / width)[:, None] / self.steps).min(2))


def draw_directions(outcomes: Sequence[Outcomes], rng: np.random.Generator) -> Directions | None:
    """A few, uniformly from all that are positive.

    None without a front: for one objective, or if no trial is feasible.

    Args:
        outcomes: Of ``n`` trials in each objective.
        rng: Draws them.
    """
    if len(outcomes) == 1 or not outcomes[0].feasible.any():
        return None
    return Directions(np.abs(rng.standard_normal((_N_DIRECTIONS, len(outcomes)))))


def _extent(values: Array) -> tuple[Array, Array]:
    """The reference point of values ``(n, m)``, and how wide their front is: ``(m,)`` each.

    The front ends at the trials that are best in one objective. Where these agree in another, that
    one is as wide as all trials are.
    """
    lowest, spread = values.min(0), np.ptp(values, axis=0)
    scaled = (values - lowest) / np.maximum(spread, np.finfo(float).tiny)
    ends = [np.lexsort([scaled.sum(1), column])[0] for column in values.T]
    width = values[ends].max(0) - lowest
    for each in (spread, 1.0):
        width = np.where(width > 0, width, each)
    return lowest + (1 + _BEYOND) * width, width
