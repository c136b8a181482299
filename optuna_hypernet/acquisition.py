"""Log expected improvement of a mixture of members, as a function of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy.special import erfcx
from scipy.special import log_ndtr
from scipy.special import ndtr

from optuna_hypernet.space import Array
from optuna_hypernet.space import Embedding
from optuna_hypernet.space import Mask
from optuna_hypernet.surrogate.ensemble import Belief


_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
# A member whose chance of an improvement is e^3 times less than another's loses say, by what is
# beyond that.
_TOLERANCE = 3.0


def log_density(u: Array) -> Array:
    """Log φ(u) of a standard normal, for any shape."""
    return np.asarray(-0.5 * u * u - _LOG_SQRT_2PI)


def log_h(u: Array) -> Array:
    """log(φ(u) + u Φ(u)) without cancellation, for any shape.

    Ament et al. (2023), "Unexpected improvements to expected improvement", eq. 9: below -1 the
    sum is φ(u) (1 - |u| Φ(u) / φ(u)), and Φ / φ is a scaled complementary error function. Where
    even that cancels, 1 - |u| Φ(u) / φ(u) → u^-2.
    """
    near = np.maximum(u, -1.0)
    far = np.minimum(u, -1.0)
    sum_near = np.log(np.exp(log_density(near)) + near * ndtr(near))
    ratio = -far * erfcx(-far / math.sqrt(2)) * math.sqrt(math.pi / 2)
    rest = np.where(far > -1e4, np.log1p(-np.minimum(ratio, 1 - 1e-9)), -2 * np.log(-far))
    return np.where(u > -1.0, sum_near, log_density(far) + rest)


def log_expected_improvement(mean: Array, std: Array, best: Array) -> tuple[Array, Array, Array]:
    """Log EI below ``best``, with its derivatives by mean and by standard deviation.

    Args:
        mean: Any shape.
        std: The same shape, positive.
        best: Broadcasts against both; what is to be improved upon (smaller is better).
    """
    u = (best - mean) / std
    log_improvement = log_h(u)
    by_mean = -np.exp(log_ndtr(u) - log_improvement) / std
    by_std = np.exp(log_density(u) - log_improvement) / std
    return log_improvement + np.log(std), by_mean, by_std


def mixture(log_values: Array, log_weights: Array) -> tuple[Array, Array]:
    """Log of the weighted sum of members ``(M, ...)`` → ``(...)``, and each one's share of it."""
    terms = log_values + log_weights.reshape(-1, *[1] * (log_values.ndim - 1))
    top = terms.max(0)
    shares = np.exp(terms - top)
    total = shares.sum(0)
    return top + np.log(total), shares / total


class Penalty(Protocol):
    """What log EI loses: outside of a ``TrustRegion`` or ``Branch``, and by a ``Risk``."""

    def value(self, rows: Array, active: Mask) -> Array:
        """How much ``(n,)`` at ``rows (n, d)``."""

    def value_and_gradient(self, rows: Array, active: Mask) -> tuple[Array, Array]:
        """The same, and its gradient ``(n, d)``."""


class ExpectedImprovement:
    """Log EI of a mixture of members, as a function of rows.

    Each member measures improvement upon its own target, in the units of its own warp. To add
    them up, each one's EI is taken relative to the largest it has anywhere on the screen. What is
    lost with its size is whether a member hopes for anything at all: late on a plateau one may
    find the least hopeless place to be the far end of a bad range. So a member counts less, too,
    if its chance of an improvement where its EI is largest is far less than another one's.

    Of several objectives it is the product: they are independent a posteriori, so that is what to
    expect of the volume between a response and the point of their targets. Of several such points
    it is the sum. And each objective has the losses once, as if it were the only one: a volume
    far from all trials is so much larger than one at the front that little else would count.

    Args:
        inputs: Embeds the rows.
        beliefs: What is believed of them, for each objective.
        penalties: What it loses besides.
    """

    def __init__(
        self, inputs: Embedding, beliefs: Sequence[Belief], penalties: Sequence[Penalty] = ()
    ) -> None:
        self._inputs = inputs
        self._beliefs = beliefs
        self._penalties = penalties

    def calibrated(self, rows: Array, active: Mask) -> tuple[ExpectedImprovement, Array]:
        """The same with each member's EI relative to its largest one at ``rows (n, d)``.

        Returns:
            That, and its log EI ``(n,)`` at these rows.
        """
        predictions, members = self._members(rows, active)
        gains = _gains(members, self._beliefs)
        beliefs = []
        for k, (belief, (mean, std)) in enumerate(zip(self._beliefs, predictions, strict=True)):
            reached = members[k] + sum(gains[:k] + gains[k + 1 :])
            u = (belief.targets[:, :, None] - mean) / std
            reached, u = (each.reshape(len(each), -1) for each in (reached, u))
            best = reached.argmax(1)[:, None]
            hope = log_ndtr(np.take_along_axis(u, best, 1)[:, 0])
            log_weights = belief.log_weights - reached.max(1)
            log_weights += np.minimum(hope - hope.max() + _TOLERANCE, 0.0)
            beliefs.append(Belief(belief.posterior, log_weights, belief.targets))
        scaled = ExpectedImprovement(self._inputs, beliefs, self._penalties)
        return scaled, _either(_gains(members, beliefs))[0]

    def value(self, rows: Array, active: Mask) -> Array:
        """Log EI ``(n,)`` at ``rows (n, d)``."""
        _, members = self._members(rows, active)
        return _either(_gains(members, self._beliefs))[0]

    def value_and_gradient(self, rows: Array, active: Mask) -> tuple[Array, Array]:
        """Log EI ``(n,)`` and its gradient ``(n, d)``, zero for choices and inactive entries."""
        embedding = self._inputs.embed(rows, active)
        gains, slopes = [], []
        for belief in self._beliefs:
            mean, std, pull = belief.posterior.predict_and_pull(embedding)
            members, *by = log_expected_improvement(
                mean[:, None], std[:, None], belief.targets[:, :, None]
            )
            gain, shares = mixture(members, belief.log_weights)
            gains.append(gain)
            slopes.append((pull, [shares * each for each in by]))
        value, shares = _either(gains)
        by_embedding = np.zeros_like(embedding)
        for pull, by in slopes:
            by_embedding += pull(*[(shares * each).sum(1) for each in by])
        gradient = self._inputs.pull(by_embedding, rows, active)
        m = len(self._beliefs)
        for penalty in self._penalties:
            loss, slope = penalty.value_and_gradient(rows, active)
            value, gradient = value - m * loss, gradient - m * slope
        return value, gradient

    def _members(self, rows: Array, active: Mask) -> tuple[list[tuple[Array, Array]], list[Array]]:
        """Mean and standard deviation ``(M, 1, n)``, and log EI ``(M, t, n)``, of each objective.

        The first one's log EI has the losses of all.
        """
        embedding = self._inputs.embed(rows, active)
        predictions, members = [], []
        for belief in self._beliefs:
            mean, std = (each[:, None] for each in belief.posterior.predict(embedding))
            predictions.append((mean, std))
            members.append(log_expected_improvement(mean, std, belief.targets[:, :, None])[0])
        for penalty in self._penalties:
            members[0] = members[0] - len(self._beliefs) * penalty.value(rows, active)
        return predictions, members


def _gains(members: Sequence[Array], beliefs: Sequence[Belief]) -> list[Array]:
    """Log EI ``(t, n)`` of every objective, of members ``(M, t, n)`` each."""
    pairs = zip(members, beliefs, strict=True)
    return [mixture(each, belief.log_weights)[0] for each, belief in pairs]


def _either(gains: Sequence[Array]) -> tuple[Array, Array]:
    """Log of the sum over targets of the product over objectives; each target's share ``(t, n)``.

    Of ``gains (t, n)`` in each objective.
    """
    product = np.sum(gains, axis=0)
    return mixture(product, np.zeros(len(product)))
