"""Output warps: monotone maps of objective values, so that a Gaussian head can model them.

Objective values of real tuning problems span decades, pile up at a plateau or diverge. No single
warp serves all studies: ranks win on tuning tables and stall on smooth functions, where the raw
scale wins. So the surrogate keeps members for each warp and weighs them by how well each predicts
the order of trials left out (:func:`optuna_hypernet.surrogate.ensemble.fit_members`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata


Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

NAMES = ("rank", "half-rank", "identity")


def settle(values: Array, pruned: Mask) -> Array:
    """Values ``(n,)`` that can be computed with, smaller is better.

    * All is scaled by a power of two to within [-1, 1]: no digit is lost, 1e300 can be squared.
    * Infinities lie beyond the finite values, by as much as these lie apart.
    * Those of which nothing is known but that they were ``pruned (n,)`` count as no better than
      the median of the others.
    """
    ok = np.isfinite(values)
    if not ok.any():
        return np.sign(values)
    beyond = 0 if ok.all() else 2  # binary digits that leave room for them
    values = np.ldexp(values, -int(np.frexp(np.abs(values[ok]).max())[1]) - beyond)
    low, high = values[ok].min(), values[ok].max()
    apart = (high - low) or 0.25
    values = np.clip(values, low - apart, high + apart)
    if not pruned.all():
        values = np.where(pruned, np.maximum(values, np.median(values[~pruned])), values)
    return values


def warp(values: Array, name: str) -> Array:
    """Values ``(n,)``, smaller is better, warped and standardised (mean 0, variance 1).

    Args:
        values: Finite values; constant ones become zeros.
        name:
            ``"identity"``; ``"rank"``: Gaussian quantiles of the ranks; ``"half-rank"``: the
            better half keeps its scale, the worse half is ranked (after Vizier's half-rank
            warp, arXiv 2408.11527).
    """
    if values.max() == values.min():
        return np.zeros_like(values)
    if name == "identity":
        return _standard(values)
    ranks = ndtri((rankdata(values) - 0.5) / len(values))
    if name == "rank":
        return _standard(ranks)
    median = np.median(values)
    better = values <= median
    scale = np.sqrt(np.mean((values[better] - median) ** 2))
    if scale == 0:
        return _standard(ranks)
    return _standard(np.where(better, (values - median) / scale, ranks))


def carry(at: Array, ones: Array, others: Array) -> Array:
    """Takes ``at`` from the scale of ``ones (n,)`` to that of ``others (n,)``, any shape.

    The same ``n`` on two scales, in one order. Between them it is interpolated; beyond, both
    scales go on as they do on average.
    """
    ones, others = np.sort(ones), np.sort(others)
    slope = np.ptp(others) / max(np.ptp(ones), np.finfo(float).tiny)
    beyond = at - np.clip(at, ones[0], ones[-1])
    return np.asarray(np.interp(at, ones, others) + slope * beyond)


def least_gain(values: Array, counted: Mask, name: str) -> float:
    """How much lower than the lowest of ``values (n,)`` a lower one would be, once warped.

    Where several share the lowest value, values lie on a lattice: error rates are counts. Whatever
    improves upon them does so by a step, at least the smallest one there is between two of them.
    Without a tie, an improvement can be as small as it likes: 0.

    Args:
        values: Finite values.
        counted: ``(n,)`` true where a value is one that the objective has returned.
        name: As of :func:`warp`.
    """
    levels, counts = np.unique(values[counted], return_counts=True)
    if len(levels) < 2 or counts[0] < 2:
        return 0.0
    warped = warp(np.append(values, levels[0] - np.diff(levels).min()), name)
    return float(warped[:-1].min() - warped[-1])


def _standard(values: Array) -> Array:
    centred = values - values.mean()
    # Again: the first mean is rounded, which matters where values all but agree.
    centred -= centred.mean()
    scale = np.abs(centred).max()
    return np.asarray(centred / scale / np.sqrt(np.mean((centred / scale) ** 2)))
