"""The risk that a trial earns nothing: that it fails, or violates a constraint.

An objective fails where a model does not fit into memory or its loss is not a number, and now and
then for no reason. So the hypernetwork of the responses is conditioned on labels, too: 0 for a
trial that came to its end, 2 for one that failed (classification by least squares: Rasmussen &
Williams 2006, section 6.5). Its gates are its own, since what decides about memory may not matter
for the loss, and so is its noise: failures without a place are taken for that.

A constraint is a response like the objective, of which it only matters on which side of its bound
it lies: members by warp and gates, weighed by the order of what they left out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from optuna_hypernet.acquisition import log_density
from optuna_hypernet.acquisition import mixture
from optuna_hypernet.space import Array
from optuna_hypernet.space import Embedding
from optuna_hypernet.space import Mask
from optuna_hypernet.surrogate import warp
from optuna_hypernet.surrogate.ensemble import Belief
from optuna_hypernet.surrogate.ensemble import Fits
from optuna_hypernet.surrogate.ensemble import Members
from optuna_hypernet.surrogate.ensemble import checkpoint
from optuna_hypernet.surrogate.ensemble import fit_members
from optuna_hypernet.surrogate.ensemble import thinned
from optuna_hypernet.surrogate.evidence import fit
from optuna_hypernet.surrogate.evidence import free_gates
from optuna_hypernet.surrogate.hypernetwork import Columns
from optuna_hypernet.surrogate.hypernetwork import Hypernetwork
from optuna_hypernet.surrogate.posterior import Posterior


_FAILED = 2.0  # the label; what is expected to be beyond half of it fails
_MOST_TRIALS = 128
_LOG_2 = math.log(2)


class Risks:
    """What failed and violating trials say of others; fitted when the ensemble's members are."""

    def __init__(self) -> None:
        self._failures = Fits(_fitted)
        self._constraints: defaultdict[int, Fits[Members]] = defaultdict(lambda: Fits(fit_members))

    def condition(
        self,
        inputs: Embedding,
        embedding: Array,
        failed: Mask,
        constraints: Array,
        pending: Array,
    ) -> Risk | None:
        """The risk of earning nothing; None if no trial has failed or violated.

        Args:
            inputs: Embeds rows.
            embedding: ``(n, D)`` of the trials in the order in which they finished.
            failed: ``(n,)`` which of them failed.
            constraints: ``(n, c)``; one is violated where it is above 0, NaN for nothing said.
            pending: ``(p, D)`` of those that are running.

        Raises:
            numpy.linalg.LinAlgError: If a covariance is not positive definite.
        """
        columns = Columns(inputs.owner, inputs.ranged, np.zeros_like(inputs.tilt))
        beliefs = []
        if failed.any():
            beliefs.append(_failing(self._failures, columns, embedding, failed))
        for k in np.flatnonzero((constraints > 0).any(0)).tolist():
            said = ~np.isnan(constraints[:, k])
            fits, held = self._constraints[k], constraints[said, k]
            beliefs.append(_violating(fits, columns, embedding[said], held, pending))
        return Risk(inputs, beliefs) if beliefs else None


class Risk:
    """What log EI loses where a trial may fail or violate: minus the log of the chance of neither.

    Expected improvement is then that of such a trial, which improves nothing if it does
    (Schonlau, Welch & Jones 1998, "Global versus local search in constrained optimization of
    computer models").

    Args:
        inputs: Embeds rows.
        beliefs: In responses that have to stay below their one target, all of them.
    """

    def __init__(self, inputs: Embedding, beliefs: Sequence[Belief]) -> None:
        self._inputs = inputs
        self.beliefs = beliefs

    def passes(self, embedding: Array) -> Mask:
        """Which rows of an embedding ``(n, D)`` are more likely than not to earn something."""
        return self._of(embedding) < _LOG_2

    def value(self, rows: Array, active: Mask) -> Array:
        """What log EI loses at ``rows (n, d)``: ``(n,)``."""
        return self._of(self._inputs.embed(rows, active))

    def _of(self, embedding: Array) -> Array:
        loss = np.zeros(len(embedding))
        for posterior, log_weights, targets in self.beliefs:
            mean, std = posterior.predict(embedding)
            loss -= mixture(log_ndtr((targets - mean) / std), log_weights)[0]
        return loss

    def value_and_gradient(self, rows: Array, active: Mask) -> tuple[Array, Array]:
        """The same, and its gradient ``(n, d)``, zero for choices and inactive entries."""
        embedding = self._inputs.embed(rows, active)
        loss, by_embedding = np.zeros(len(rows)), np.zeros_like(embedding)
        for posterior, log_weights, targets in self.beliefs:
            mean, std, pull = posterior.predict_and_pull(embedding)
            u = (targets - mean) / std
            log_chances = log_ndtr(u)
            log_chance, shares = mixture(log_chances, log_weights)
            by_mean = shares * np.exp(log_density(u) - log_chances) / std
            loss -= log_chance
            by_embedding += pull(by_mean, by_mean * u)
        return loss, self._inputs.pull(by_embedding, rows, active)


def _failing(fits: Fits[Array], columns: Columns, embedding: Array, failed: Mask) -> Belief:
    """Of labels ``(n,)``, in which those that fail lie beyond the target."""
    labels = np.where(failed, _FAILED, 0.0)
    early = checkpoint(len(labels))
    # Failed ones first: they are fewer.
    kept = thinned(-labels[:early], _MOST_TRIALS)
    theta = fits(columns, embedding[:early][kept], labels[:early][kept])
    kept = thinned(-labels, _MOST_TRIALS)
    posterior = Posterior(Hypernetwork(theta, columns), embedding[kept], labels[kept][None])
    return Belief(posterior, np.zeros(1), np.array([[_FAILED / 2]]))


def _fitted(columns: Columns, embedding: Array, labels: Array) -> Array:
    """``theta (1, d + 6)``."""
    return fit(columns, embedding, labels[None], free_gates(columns.d))


def _violating(
    fits: Fits[Members], columns: Columns, embedding: Array, held: Array, pending: Array
) -> Belief:
    """Of a constraint ``held (n,)``, which is violated beyond the target."""
    early = checkpoint(len(held))
    kept, values, _ = _nearest(held[:early])
    members = fits(columns, embedding[:early][kept], values)
    kept, values, bound = _nearest(held)
    warped = np.stack([warp.warp(np.append(values, bound), name) for name in members.warps])
    network = Hypernetwork(members.theta, columns)
    posterior = Posterior(network, embedding[kept], warped[:, :-1], pending)
    return Belief(posterior, members.log_weights, warped[:, -1:])


def _nearest(held: Array) -> tuple[NDArray[np.int64], Array, float]:
    """Of a constraint ``held (n,)``: which trials are kept, what they say, and what its bound is.

    Kept are not more than a posterior can hold, half of them those nearest the bound. That is 0;
    but some constraints are 0 wherever they hold. Then it lies between that and the least
    violation: at 0 itself, whatever repeats it would be as likely as not to violate.
    """
    values = warp.settle(held, np.zeros(len(held), dtype=bool))
    violated = values[values > 0]
    bound = float(violated.min() / 2) if (values == 0).any() and len(violated) else 0.0
    kept = thinned(np.abs(values - bound), _MOST_TRIALS)
    return kept, values[kept], bound
