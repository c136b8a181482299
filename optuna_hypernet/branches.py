"""Branches of a conditional space: in which one the next trial lies.

A branch is all that asks for the same parameters: a choice of model and that model's own ones,
say. Expected improvement looks one trial ahead. Once a branch is well tuned, no single trial of
another one is likely to beat it, however good that would be after some tuning of its own; so
the study would stay where its first trials happened to be good. What a branch may come to is
another question: how low its lowest response lies. So the branch is drawn by Thompson sampling
(Thompson 1933): one response function is drawn from the posterior, and the branch that holds its
lowest point is searched, by expected improvement as ever.

Branches that share half of their parameters, as the kernels of a support vector machine do, need
none of this: what is learnt of one holds for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from optuna_hypernet.domain import Domain
from optuna_hypernet.risk import Risk
from optuna_hypernet.space import Array
from optuna_hypernet.space import Embedding
from optuna_hypernet.space import Mask
from optuna_hypernet.surrogate.ensemble import Belief
from optuna_hypernet.surrogate.evidence import cholesky
from optuna_hypernet.surrogate.hypernetwork import JITTER
from optuna_hypernet.surrogate.outcomes import Places


# With more branches than these, choices are like other parameters, and left to the acquisition.
_MOST_BRANCHES = 12
# Trials with a value before which a branch that began badly is not gone back to: the one that
# began best is to be tuned first.
_YOUNG = 40
# For each parameter that only some branches ask for, and one more: after so many trials a branch
# is known as well as the posterior says. As for the trust region.
_TRIALS_EACH = 5
_N_SCREEN = 512
_N_POINTS = 288  # of all branches together, a third of them near the branch's best trials
_N_BEST = 4
_N_NEAR = 256  # around these, of which those in the branch are left
_OUTSIDE = 1e4  # of log EI: more than what any two places differ by


@dataclass(frozen=True)
class Branch:
    """One branch; log EI has no place outside of it.

    Attributes:
        asked: ``(d,)`` the parameters that it asks for.
    """

    asked: Mask

    def holds(self, active: Mask) -> Mask:
        """Which rows ``(n,)`` of an active mask ``(n, d)`` lie in it."""
        return np.asarray((active == self.asked).all(1))

    def akin(self, asked: Mask) -> bool:
        """Whether at least half of what it asks for is among ``asked (d,)``."""
        return bool((self.asked & asked).sum() >= (self.asked & ~asked).sum())

    def value(self, rows: Array, active: Mask) -> Array:
        """What log EI loses at ``rows (n, d)``: ``(n,)``."""
        return np.where(self.holds(active), 0.0, _OUTSIDE)

    def value_and_gradient(self, rows: Array, active: Mask) -> tuple[Array, Array]:
        """The same, and its gradient ``(n, d)``, which is zero."""
        return self.value(rows, active), np.zeros_like(rows)


class Seen(NamedTuple):
    """``n`` trials with a value.

    Attributes:
        rows: ``(n, d)``.
        active: ``(n, d)`` what each asked for.
        places: ``(n,)`` of each among them, 0 for the best.
    """

    rows: Array
    active: Mask
    places: Places

    def of(self, branch: Branch | None) -> Seen:
        """Those of a branch; all of them without one, or if it has none."""
        if branch is None or not (inside := branch.holds(self.active)).any():
            return self
        return Seen(self.rows[inside], self.active[inside], self.places[inside])

    def best(self, most: int) -> Array:
        """Rows ``(k, d)`` of at most so many, best first."""
        return self.rows[np.argsort(self.places)[:most]]


def draw_branch(
    domain: Domain,
    inputs: Embedding,
    beliefs: Sequence[Belief],
    risk: Risk | None,
    seen: Seen,
    rng: np.random.Generator,
) -> Branch | None:
    """The branch that is searched next; None if that is left to the acquisition.

    Which it is where all branches are akin to that of the best trial, or there are too many of
    them; where trials are too few to tell; and where all branches are about to fail.

    Args:
        domain: Where a suggestion may lie.
        inputs: Embeds rows.
        beliefs: What is believed of them in each objective.
        risk: Of failing; a place counts with the chance that it does not.
        seen: The trials.
        rng: Draws.

    Raises:
        numpy.linalg.LinAlgError: If a covariance is not positive definite.
    """
    if seen.active.all() or len(seen.places) < _YOUNG:
        return None
    screen, asked = domain.project(domain.uniform(_N_SCREEN, rng))
    branches = [Branch(mask) for mask in np.unique(asked, axis=0)]
    best = seen.active[seen.places.argmin()]
    if not 1 < len(branches) <= _MOST_BRANCHES or all(branch.akin(best) for branch in branches):
        return None
    size = _N_POINTS // len(branches)
    pieces = []
    for branch in branches:
        near = _near_best(branch, domain, seen, rng)[: size // 3]
        pieces.append(np.concatenate([near, screen[branch.holds(asked)]])[:size])
    owner = np.repeat(np.arange(len(branches)), [len(piece) for piece in pieces])
    points = np.concatenate(pieces)
    active = domain.conditions.active(points)
    embedding, doubt = inputs.embed(points, active), _doubt(branches, seen.active)[owner]
    above = np.max([_above(belief, embedding, doubt, rng) for belief in beliefs], axis=0)
    drawn = above.min(0)
    if risk is not None:
        fails = np.exp(-risk.value(points, active)) < rng.random()
        if fails.all():
            return None
        drawn = np.where(fails, np.inf, drawn)
    return branches[int(owner[drawn.argmin()])]


def _doubt(branches: list[Branch], active: Mask) -> Array:
    """How many times further from its mean a response may lie than the posterior says, ``(b,)``.

    Gates and warps are those of the branch that most trials are in, and make the others look too
    certain: 2 without any trial, 1 where trials are enough.
    """
    shared = np.all([branch.asked for branch in branches], axis=0)
    own = np.array([np.count_nonzero(branch.asked & ~shared) for branch in branches])
    trials = np.array([np.count_nonzero(branch.holds(active)) for branch in branches])
    return np.asarray(1 + np.maximum(1 - trials / (_TRIALS_EACH * (own + 1)), 0.0))


def _near_best(branch: Branch, domain: Domain, seen: Seen, rng: np.random.Generator) -> Array:
    """The best trials of a branch and rows around them, ``(n, d)``; none without a trial."""
    if not branch.holds(seen.active).any():
        return seen.rows[:0]
    best = seen.of(branch).best(_N_BEST)
    moved = domain.perturbed(best, _N_NEAR, rng)
    near, asked = domain.project(np.concatenate([best, moved]))
    return near[branch.holds(asked)]


def _above(belief: Belief, embedding: Array, doubt: Array, rng: np.random.Generator) -> Array:
    """How far a response lies above targets ``(t, n)``, drawn from a member drawn by weight."""
    member = int(rng.choice(len(belief.log_weights), p=np.exp(belief.log_weights)))
    mean, covariance = belief.posterior.joint(member, embedding)
    factor = cholesky(covariance + JITTER * np.eye(len(mean)))
    deviation = factor @ rng.standard_normal(len(mean))
    return np.asarray(mean + doubt * deviation - belief.targets[member][:, None])
