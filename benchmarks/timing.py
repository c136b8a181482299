"""Seconds of things that are done turn about, so that a busy machine slows all of them alike."""

import time
from collections.abc import Callable
from collections.abc import Mapping

import numpy as np


def turn_about(parts: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each part; the first tenth of the rounds is a warm-up."""
    spent = np.empty((rounds, len(parts)))
    for row in spent:
        for i, part in enumerate(parts.values()):
            since = time.perf_counter()
            part()
            row[i] = time.perf_counter() - since
    return dict(zip(parts, np.median(spent[rounds // 10 :], axis=0).tolist(), strict=True))
