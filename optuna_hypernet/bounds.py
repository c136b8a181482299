"""Ranges that depend on another parameter, as in ``suggest_int("leaf", 1, depth)``.

A study never says on what an end of a range depends. Where it rises, or falls, with another
parameter's value in all trials, it is taken for a function of that: between trials it lies on a
line, beyond them it stays. What lies outside cannot be had, and the objective would ask for
something else instead. So nothing is to be hoped for there; else one impossible corner, of which
no trial ever says anything, would be proposed again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optuna_hypernet.space import Array
from optuna_hypernet.space import Mask
from optuna_hypernet.surrogate.ensemble import rank_correlation
from optuna_hypernet.trust import STEEPNESS


_FEWEST_FORMS = 4  # of a range before it is taken to depend on something
_FEWEST_TRIALS = 6  # with fewer, some parameter rises with it by chance
_LEAST_CORRELATION = 0.95
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Bound:
    """One end of a parameter's range as a function of another parameter.

    Attributes:
        child: Index of the parameter with that range.
        parent: Index of the one that it depends on.
        sign: 1 for the upper end, -1 for the lower.
        at: ``(m,)`` positions of the parent, ascending.
        ends: ``(m,)`` the end at each of these.
    """

    child: int
    parent: int
    sign: int
    at: Array
    ends: Array

    def outside(self, rows: Array) -> tuple[Array, Array]:
        """How far ``rows (n, d)`` lie outside ``(n,)``, and the end's slope there ``(n,)``."""
        parent = rows[:, self.parent]
        end = np.interp(parent, self.at, self.ends)
        apart = np.maximum(self.sign * (rows[:, self.child] - end) - _ROUNDING, 0.0)
        slopes = np.concatenate([[0.0], np.diff(self.ends) / np.diff(self.at), [0.0]])
        return apart, slopes[np.searchsorted(self.at, parent)]


@dataclass(frozen=True)
class Bounds:
    """What can be had; log EI falls steeply outside of it.

    Attributes:
        bounds: One for each end of a range that depends on another parameter.
    """

    bounds: Sequence[Bound]

    def value(self, rows: Array, active: Mask) -> Array:
        """What log EI loses at ``rows (n, d)``: ``(n,)``."""
        return self.value_and_gradient(rows, active)[0]

    def value_and_gradient(self, rows: Array, active: Mask) -> tuple[Array, Array]:
        """The same, and its gradient ``(n, d)``, zero for inactive entries."""
        loss, gradient = np.zeros(len(rows)), np.zeros_like(rows)
        for bound in self.bounds:
            both = active[:, bound.child] & active[:, bound.parent]
            apart, slope = bound.outside(rows)
            loss += STEEPNESS * apart * both
            steepness = np.where(both & (apart > 0), bound.sign * STEEPNESS, 0.0)
            gradient[:, bound.child] += steepness
            gradient[:, bound.parent] -= steepness * slope
        return loss, gradient


def dependent_bounds(
    rows: Array, active: Mask, lows: Array, highs: Array, numeric: NDArray[np.int64]
) -> Bounds | None:
    """Those that trials show; None without any.

    Args:
        rows: ``(n, d)`` of the trials.
        active: ``(n, d)`` what each asked for.
        lows: ``(n, d)`` where the range of each began, in the same units.
        highs: ``(n, d)`` where it ended.
        numeric: Indices of the parameters whose range may depend on one another.
    """
    found = []
    for child in numeric.tolist():
        here = active[:, child]
        for sign, ends in ((-1, lows[here, child]), (1, highs[here, child])):
            if len(ends) < _FEWEST_TRIALS or len(np.unique(ends)) < _FEWEST_FORMS:
                continue
            parents = [j for j in numeric.tolist() if j != child and active[here, j].all()]
            if not parents:
                continue
            strength = [abs(rank_correlation(rows[here, j], ends)) for j in parents]
            best = int(np.argmax(strength))
            if strength[best] >= _LEAST_CORRELATION:
                found.append(_bound(child, parents[best], sign, rows[here, parents[best]], ends))
    return Bounds(found) if found else None


def _bound(child: int, parent: int, sign: int, at: Array, ends: Array) -> Bound:
    """Where trials disagree, the end is the furthest of theirs."""
    places, which = np.unique(at, return_inverse=True)
    furthest = np.full(len(places), -np.inf)
    np.maximum.at(furthest, which, sign * ends)
    return Bound(child, parent, sign, places, sign * furthest)
