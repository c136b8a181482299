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
# A parameter is gone once its absence from the latest trials is less likely than this, had it been
# asked for as often as before.
_SURPRISE = 1e-4


@dataclass(frozen=True)
class _Rule:
    child: int
    parent: int
    allowed: Mask  # (cardinality of the parent,)


class Conditions:
    """Rules "the child is asked for exactly when its parent is, and has one of these values".

    Optuna's define-by-run objectives never say on what a parameter depends. A rule is believed
    when no trial so far contradicts it; values of the parent that no trial had are allowed. A
    parameter that is not always asked for, and that no rule explains, is taken as active, until so
    many of the latest trials lack it that the objective must have lost it. And a row that agrees
    with a complete trial in all that this one asked for would ask for no more, if all parameters
    were known by then (an objective may have got new ones since, and a trial that was added may
    say little) and none outside of the space can be the reason.

    A trial that ended before its time has asked for what it asked, but may not have come to the
    rest. So it says of a parameter that it is not asked for only where no complete trial was, and
    with another that says the same: a branch that always fails is not to be tried again and again.

    Args:
        space: The search space.
        rows: ``(n, d)`` of the trials, in the order in which they finished.
        active: ``(n, d)`` what each trial asked for.
        complete: ``(n,)`` those that came to their end.
        elsewhere: ``(n,)`` those that may depend on a parameter outside of the space; or none.
        surely: ``(d,)`` what is being asked for, whatever the trials say; or none.
    """

    def __init__(
        self,
        space: SearchSpace,
        rows: Array,
        active: Mask,
        complete: Mask,
        elsewhere: Mask | bool = False,
        surely: Mask | bool = False,
    ) -> None:
        self._space = space
        self._surely = np.logical_or(surely, np.zeros(space.d, dtype=bool))
        levels = space.levels(rows)
        order = np.argsort(-active.sum(0), kind="stable")  # parents before children
        rules = {
            int(child): self._rule(int(child), order[:position], levels, active, complete)
            for position, child in enumerate(order)
            if not active[:, child].all()
        }
        telling = complete & np.logical_not(elsewhere)
        gone = [j for j, rule in rules.items() if rule is None and _gone(active[telling, j])]
        self._gone = np.isin(np.arange(space.d), gone)
        self._rules = [rule for rule in rules.values() if rule is not None]
        met = np.logical_or.accumulate(active, axis=0) | ~active.any(0)
        known = met.all(1) & np.logical_not(elsewhere)
        current, votes = self.current(active), np.where(complete, 2, 1) * known
        self._seen = self._unexplained(rows[current], active[current], votes[current])

    def active(self, rows: Array) -> Mask:
        """Active mask ``(n, d)`` of rows of configurations."""
        mask = self._ruled(rows)
        for asked, keys in self._seen:
            mask[np.isin(self._space.keys(rows, asked), keys)] = asked
        return np.asarray(mask | self._surely)

    def current(self, active: Mask) -> Mask:
        """Which trials ``(n,)`` asked for nothing that is gone, of ``active (n, d)``."""
        return np.asarray(~active[:, self._gone].any(1))

    def _ruled(self, rows: Array) -> Mask:
        mask = np.tile(~self._gone, (len(rows), 1))
        if self._rules:
            levels = self._space.levels(rows)
            for rule in self._rules:
                allowed = rule.allowed[levels[:, rule.parent]]
                mask[:, rule.child] = mask[:, rule.parent] & allowed
        return mask

    def _unexplained(
        self, rows: Array, active: Mask, votes: NDArray[np.int64]
    ) -> list[tuple[Mask, Array]]:
        """What trials asked for where rules say otherwise, and the keys of rows with two votes."""
        odd = (votes > 0) & (self._ruled(rows) != active).any(1)
        found = []
        for asked in np.unique(active[odd], axis=0):
            keys, same = self._space.keys(rows, asked), (active == asked).all(1)
            places, at = np.unique(keys[same], return_inverse=True)
            certain = places[np.bincount(at, votes[same]) >= 2]
            more = (active & ~asked).any(1)  # by chance, say
            if len(certain := np.setdiff1d(certain, keys[more])):
                found.append((asked, certain))
        return found

    def _rule(
        self,
        child: int,
        parents: NDArray[np.int64],
        levels: NDArray[np.int64],
        active: Mask,
        complete: Mask,
    ) -> _Rule | None:
        """The one that explains most of the trials that ended early; of equals the first."""
        best, most = None, -1
        for parent in parents:
            count = self._space.cardinality[parent]
            if not 1 < count <= _MOST_LEVELS or (active[:, child] & ~active[:, parent]).any():
                continue

            def seen(which: Mask, times: int = 1, parent: int = parent, n: int = count) -> Mask:
                return np.asarray(np.bincount(levels[which, parent], minlength=n) >= times)

            without = active[:, parent] & ~active[:, child]
            with_child, without_child = seen(active[:, child]), seen(without & complete)
            if (with_child & without_child).any():
                continue
            unknown = ~seen(active[:, parent] & complete) & ~with_child
            disallowed = without_child | (unknown & seen(without & ~complete, 2))
            explained = int(np.count_nonzero(disallowed[levels[without & ~complete, parent]]))
            if explained > most:
                best, most = _Rule(child, int(parent), ~disallowed), explained
        return best


def _gone(active: Mask) -> bool:
    """Whether a parameter that those trials ``(n,)`` asked for will not be asked for again.

    How often it was asked for, from the first trial on that had it to the last one, is estimated
    by the rule of succession.
    """
    had = np.flatnonzero(active)
    if not len(had):
        return False
    often = (len(had) + 1) / (had[-1] - had[0] + 3)
    return bool((1 - often) ** (len(active) - 1 - had[-1]) < _SURPRISE)
