"""Central finite differences, the slow twin of every gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


Array = NDArray[np.float64]


def finite_differences(function: Callable[[Array], float], at: Array, step: float = 1e-5) -> Array:
    """Gradient of a scalar function of an array of any shape."""
    out = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        high, low = at.copy(), at.copy()
        high[index] += step
        low[index] -= step
        out[index] = (function(high) - function(low)) / (2 * step)
    return out
