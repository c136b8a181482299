"""Failed trials: the chance that another one would fail, too.

An objective fails where a model does not fit into memory or its loss is not a number, and now and
then for no reason. So the hypernetwork of the responses is conditioned on labels, too: 0 for a
trial that came to its end, 2 for one that failed (classification by least squares: Rasmussen &
Williams 2006, section 6.5). Its gates are its own, since what decides about memory may not matter
for the loss, and so is its noise: failures without a place are taken for that.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import log_ndtr

from optuna_hypernet.space import Array
from optuna_hypernet.space import Embedding
from optuna_hypernet.space import Mask
from optuna_hypernet.surrogate.ensemble import Fits
from optuna_hypernet.surrogate.ensemble import checkpoint
from optuna_hypernet.surrogate.ensemble import thinned
from optuna_hypernet.surrogate.evidence import fit
from optuna_hypernet.surrogate.evidence import free_gates
from optuna_hypernet.surrogate.hypernetwork import Columns
from optuna_hypernet.surrogate.hypernetwork import Hypernetwork
from optuna_hypernet.surrogate.posterior import Posterior


_FAILED = 2.0  # the label; what is expected to be beyond half of it fails
_MOST_TRIALS = 128
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Failures:
    """What failed trials say of others; fitted when the ensemble's members are."""

    def __init__(self) -> None:
        self._fits = Fits(_fitted)

    def condition(self, inputs: Embedding, rows: Array, active: Mask, failed: Mask) -> Risk | None:
        """The risk of failing; None if no trial has.

        Args:
            inputs: Embeds rows.
            rows: ``(n, d)`` of the trials in the order in which they finished.
            active: ``(n, d)`` what each asked for.
            failed: ``(n,)`` which of them failed.

        Raises:
            numpy.linalg.LinAlgError: If a covariance is not positive definite.
        """
        if not failed.any():
            return None
        embedding = inputs.embed(rows, active)
        columns = Columns(inputs.owner, inputs.ranged, np.zeros_like(inputs.tilt))
        labels = np.where(failed, _FAILED, 0.0)
        early = checkpoint(len(labels))
        theta = self._fits(columns, *_thinned(embedding[:early], labels[:early]))
        embedding, labels = _thinned(embedding, labels)
        return Risk(inputs, Posterior(Hypernetwork(theta, columns), embedding, labels[None]))


class Risk:
    """What log EI loses where trials may fail: minus the log of the chance that one does not.

    Expected improvement is then that of a trial which may fail, if a failure improves nothing
    (Schonlau, Welch & Jones 1998, "Global versus local search in constrained optimization of
    computer models").

    Args:
        inputs: Embeds rows.
        posterior: Of one member, over labels.
    """

    def __init__(self, inputs: Embedding, posterior: Posterior) -> None:
        self._inputs = inputs
        self.posterior = posterior

    def value(self, rows: Array, active: Mask) -> Array:
        """What log EI loses at ``rows (n, d)``: ``(n,)``."""
        mean, std = self.posterior.predict(self._inputs.embed(rows, active))
        return np.asarray(-log_ndtr((_FAILED / 2 - mean) / std)[0])

    def value_and_gradient(self, rows: Array, active: Mask) -> tuple[Array, Array]:
        """The same, and its gradient ``(n, d)``, zero for choices and inactive entries."""
        mean, std, pull = self.posterior.predict_and_pull(self._inputs.embed(rows, active))
        u = (_FAILED / 2 - mean) / std
        log_chance = log_ndtr(u)
        by_mean = np.exp(-0.5 * u * u - _LOG_SQRT_2PI - log_chance) / std
        by_embedding = pull(by_mean, by_mean * u)
        return -log_chance[0], self._inputs.pull(by_embedding, rows, active)


def _fitted(columns: Columns, embedding: Array, labels: Array) -> Array:
    """``theta (1, d + 6)``."""
    return fit(columns, embedding, labels[None], free_gates(int(columns.owner[-1]) + 1))


def _thinned(embedding: Array, labels: Array) -> tuple[Array, Array]:
    """Not more than a posterior can hold, failed ones first: they are fewer."""
    kept = thinned(-labels, _MOST_TRIALS)
    return embedding[kept], labels[kept]
