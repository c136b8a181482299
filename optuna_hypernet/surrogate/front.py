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
_BEYOND = 1.0


@dataclass(frozen=True)
class Aims:
    """What the next trial is to improve upon.

    Attributes:
        targets: ``(m, t)`` settled values in each of ``m`` objectives. To be below the same one
            in all of them is an improvement.
        places: ``(n,)`` of each trial among them: first those that dominate a target, then those
            that come second in some direction, and so on.
    """

    targets: Array
    places: Places


def draw_aims(outcomes: Sequence[Outcomes], rng: np.random.Generator) -> Aims | None:
    """Aims on the front of the feasible trials; None without these, or for one objective.

    Args:
        outcomes: Of ``n`` trials in each objective.
        rng: Draws the directions.
    """
    feasible = outcomes[0].feasible
    if len(outcomes) == 1 or not feasible.any():
        return None
    values = np.stack([each.settled for each in outcomes], axis=1)  # (n, m)
    lowest, width = _extent(values[feasible])
    reference = lowest + (1 + _BEYOND) * width
    directions = np.abs(rng.standard_normal((_N_DIRECTIONS, len(outcomes)))) * width  # (t, m)
    reach = ((reference - values)[:, None] / directions).min(2)  # (n, t)
    reach[~feasible] = -np.inf
    targets = reference - reach.max(0)[:, None] * directions
    ranks = rankdata(-reach, axis=0, method="min")
    places = np.empty(len(values), dtype=np.int64)
    order = np.lexsort([ranks.argmin(1), ranks.min(1), outcomes[0].violation])
    places[order] = np.arange(len(values))
    return Aims(targets.T, places)


def _extent(values: Array) -> tuple[Array, Array]:
    """The lowest of values ``(n, m)``, and how wide their front is: ``(m,)`` each.

    The front ends at the trials that are best in one objective. Where these agree in another, that
    one is as wide as all trials are.
    """
    lowest = values.min(0)
    scaled = (values - lowest) / np.maximum(np.ptp(values, axis=0), np.finfo(float).tiny)
    ends = [np.lexsort([scaled.sum(1), column])[0] for column in values.T]
    width = values[ends].max(0) - lowest
    for each in (np.ptp(values, axis=0), 1.0):
        width = np.where(width > 0, width, each)
    return lowest, width
