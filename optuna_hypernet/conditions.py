"""Conditional parameters: which ones a trial asks for, read off the trials so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optuna_hypernet.space import Array
from optuna_hypernet.space import Mask
from optuna_hypernet.space import SearchSpace


# A parent with more values than this is taken for a coincidence.
_MOST_LEVELS = 64


@dataclass(frozen=True)
class _Rule:
    child: int
    parent: int
    allowed: Mask  # (cardinality of the parent,)


class Conditions:
    """Rules "the child is asked for exactly when its parent is, and has one of these values".

    Optuna's define-by-run objectives never say on what a parameter depends. A rule is believed
    when no trial so far contradicts it; values of the parent that no trial had are allowed. A
    parameter that is not always asked for, and that no rule explains, is taken as active.

    Args:
        space: The search space.
        rows: ``(n, d)`` of the trials.
        active: ``(n, d)`` what each trial asked for.
    """

    def __init__(self, space: SearchSpace, rows: Array, active: Mask) -> None:
        self._space = space
        levels = space.levels(rows)
        order = np.argsort(-active.sum(0), kind="stable")  # parents before children
        rules = [
            self._rule(child, order[:position], levels, active)
            for position, child in enumerate(order)
            if not active[:, child].all()
        ]
        self._rules = [rule for rule in rules if rule is not None]

    def active(self, rows: Array) -> Mask:
        """Active mask ``(n, d)`` of rows of configurations."""
        mask = np.ones(rows.shape, dtype=bool)
        if self._rules:
            levels = self._space.levels(rows)
            for rule in self._rules:
                allowed = rule.allowed[levels[:, rule.parent]]
                mask[:, rule.child] = mask[:, rule.parent] & allowed
        return mask

    def _rule(
        self, child: int, parents: NDArray[np.int64], levels: NDArray[np.int64], active: Mask
    ) -> _Rule | None:
        for parent in parents:
            count = self._space.cardinality[parent]
            if not 1 < count <= _MOST_LEVELS or (active[:, child] & ~active[:, parent]).any():
                continue
            with_child = np.bincount(levels[active[:, child], parent], minlength=count) > 0
            without = active[:, parent] & ~active[:, child]
            without_child = np.bincount(levels[without, parent], minlength=count) > 0
            if not (with_child & without_child).any():
                return _Rule(child, int(parent), ~without_child)
        return None
