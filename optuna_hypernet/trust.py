"""The trust region: while trials are few, the next one stays near some trial.

The surrogate knows nothing of places far from all trials, so that is where its spread, and with it
EI, is largest; in a young study of many parameters that is one corner of the box after another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from optuna_hypernet.space import Array
from optuna_hypernet.space import Mask


# Of the radius, in widths of the box: without trials, and where trust is complete, which takes
# five trials for every parameter and one more (Song et al. 2024, arXiv 2408.11527).
_SMALLEST, _LARGEST = 0.2, 0.5
_TRIALS_EACH = 5
STEEPNESS = 50.0  # of log EI, per width of the box


@dataclass(frozen=True)
class TrustRegion:
    """Cubes around the trials; log EI falls steeply outside of them.

    Attributes:
        trials: ``(n, d)`` rows.
        columns: Indices of those parameters that count, at least one.
        radius: Half the width of a cube.
    """

    trials: Array
    columns: NDArray[np.int64]
    radius: float

    def value(self, rows: Array, active: Mask) -> Array:
        """What log EI loses at ``rows (m, d)``: ``(m,)``."""
        return self.value_and_gradient(rows, active)[0]

    def value_and_gradient(self, rows: Array, active: Mask) -> tuple[Array, Array]:
        """The same, and its gradient ``(m, d)``, zero for inactive entries."""
        here, trials = rows[:, self.columns], self.trials[:, self.columns]  # (m, c), (n, c)
        distance = cdist(here, trials, "chebyshev")
        each, nearest = np.arange(len(rows)), distance.argmin(1)
        outside = np.maximum(distance[each, nearest] - self.radius, 0.0)
        apart = here - trials[nearest]
        widest = np.abs(apart).argmax(1)
        slope = np.zeros_like(rows)
        steepness = np.where(outside > 0, STEEPNESS, 0.0)
        slope[each, self.columns[widest]] = steepness * np.sign(apart[each, widest])
        return STEEPNESS * outside, slope * active


def trust_region(trials: Array, columns: NDArray[np.int64]) -> TrustRegion | None:
    """Cubes of radius .2 + .3 n / (5 (d + 1)) around the trials; None beyond a radius of .5.

    Args:
        trials: ``(n, d)`` rows.
        columns: Indices of the parameters that count; without any there is no region.
    """
    n, d = trials.shape
    radius = _SMALLEST + (_LARGEST - _SMALLEST) * n / (_TRIALS_EACH * (d + 1))
    if radius > _LARGEST or not len(columns):
        return None
    # Where a range has moved, trials of the old one may lie outside: they count as at its end.
    return TrustRegion(np.clip(trials, 0, 1), columns, radius)
