"""The posterior over responses: the hypernetwork's prior, conditioned on trials."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from optuna_hypernet.surrogate.evidence import cholesky
from optuna_hypernet.surrogate.hypernetwork import JITTER
from optuna_hypernet.surrogate.hypernetwork import Covariance
from optuna_hypernet.surrogate.hypernetwork import Hypernetwork
from optuna_hypernet.surrogate.outcomes import Forecast


Array = NDArray[np.float64]

_SMALLEST_VARIANCE = 1e-14
# Rows are taken in pieces of so many covariances each, which stay in the processor's cache.
_PIECE = 6400


class Posterior:
    """Exact posterior of ``M`` members over the response at any configuration.

    Rasmussen & Williams (2006), eqs. 2.25 and 2.26.

    Args:
        network: The prior of the members.
        embedding: ``(n, D)`` of the trials.
        values: ``(M, n)`` warped objective values, one warp per member.
        pending: ``(p, D)`` of configurations that are running. They narrow the spread: they are
            conditioned on as if they returned what is expected of them.
        forecast: ``(M, p)`` what their reports say of that, to be weighed against what trials say.
            Without one they leave the mean alone.

    Attributes:
        fitted: ``(M, n)`` posterior mean at the trials themselves.
        expected: ``(M, p)`` the same at what is running.
        left_out: ``(M, n)`` mean at each trial as predicted from all the others (eq. 5.12).

    Raises:
        numpy.linalg.LinAlgError: If a covariance is not positive definite.
    """

    def __init__(
        self,
        network: Hypernetwork,
        embedding: Array,
        values: Array,
        pending: Array | None = None,
        forecast: Forecast | None = None,
    ) -> None:
        self._network = network
        noise = np.tile(network.noise[:, None], len(embedding))
        self._condition(embedding, values, noise)
        self.fitted: Array = values - noise * self._solution
        self.expected: Array = np.empty((len(values), 0))
        precision = np.einsum("mij,mij->mj", self._whiten, self._whiten)
        self.left_out: Array = values - self._solution / precision
        if pending is not None and len(pending):
            if forecast is not None and (said := ~np.isnan(forecast.mean).any(0)).any():
                self._condition(
                    np.concatenate([embedding, pending[said]]),
                    np.hstack([values, forecast.mean[:, said]]),
                    np.hstack([noise, network.noise[:, None] + forecast.variance[:, said]]),
                )
            self.expected, _ = self.predict(pending)
            # Exact, whatever the noise: else a batch would crowd where noise leaves room.
            exact = np.full((len(noise), len(pending)), JITTER)
            self._condition(
                np.concatenate([embedding, pending]),
                np.hstack([values, self.expected]),
                np.hstack([noise, exact]),
            )

    def _condition(self, embedding: Array, values: Array, noise: Array) -> None:
        network = self._network
        self._gated = network.gate(embedding)
        covariance = network.covariance(self._gated, self._gated).value
        covariance += noise[:, :, None] * np.eye(len(embedding))
        # The inverse factors: whitening is then one matrix product for any number of rows.
        self._whiten = np.stack([lapack.dtrtri(cholesky(k), lower=1)[0] for k in covariance])
        white = self._whiten @ (values - network.mean(embedding))[:, :, None]
        self._solution: Array = (self._whiten.transpose(0, 2, 1) @ white)[:, :, 0]

    def predict(self, embedding: Array) -> tuple[Array, Array]:
        """Mean and standard deviation ``(M, n)`` of the response, without noise."""
        step = max(32, _PIECE // self._gated.shape[1])
        pieces = [embedding[i : i + step] for i in range(0, max(len(embedding), 1), step)]
        parts = [self._predict(piece)[:2] for piece in pieces]
        mean, variance = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return mean, np.sqrt(np.maximum(variance, _SMALLEST_VARIANCE))

    def predict_and_pull(
        self, embedding: Array
    ) -> tuple[Array, Array, Callable[[Array, Array], Array]]:
        """Mean and standard deviation ``(M, n)``, and the way back.

        The third is a function from gradients by mean and by standard deviation, ``(M, n)`` each,
        to the gradient by the embedding ``(n, D)``, summed over members.
        """
        network = self._network
        mean, variance, white, slope, covariance = self._predict(embedding)
        std = np.sqrt(np.maximum(variance, _SMALLEST_VARIANCE))

        def pull(by_mean: Array, by_std: Array) -> Array:
            by_variance = np.where(variance > _SMALLEST_VARIANCE, by_std / (2 * std), 0.0)
            weight = by_mean[:, :, None] * self._solution[:, None, :]
            weight -= 2 * by_variance[:, :, None] * (white @ self._whiten)
            by_gated = network.pull(weight, covariance)
            by_gated += 2 * (by_variance * slope)[:, :, None] * covariance.a
            by_prior = by_mean.sum(0)[:, None] * network.mean_slope(embedding)
            return np.asarray(network.ungate(by_gated).sum(0) + by_prior)

        return mean, std, pull

    def joint(self, member: int, embedding: Array) -> tuple[Array, Array]:
        """Mean ``(n,)`` and covariance ``(n, n)`` of the responses at ``embedding (n, D)``.

        Of one member, without noise.
        """
        network, trials = self._network.only(member), self._gated[member : member + 1]
        gated = network.gate(embedding)
        across = network.covariance(gated, trials).value[0]
        white = across @ self._whiten[member].T
        prior = network.covariance(gated, gated).value[0]
        mean = across @ self._solution[member] + network.mean(embedding)
        return np.asarray(mean), np.asarray(prior - white @ white.T)

    def _predict(self, embedding: Array) -> tuple[Array, Array, Array, Array, Covariance]:
        """Mean and variance ``(M, n)``, and what their gradients need."""
        gated = self._network.gate(embedding)
        covariance = self._network.covariance(gated, self._gated)
        mean = np.einsum("mij,mj->mi", covariance.value, self._solution)
        mean += self._network.mean(embedding)
        white = covariance.value @ self._whiten.transpose(0, 2, 1)
        prior, slope = self._network.variance(gated)
        return mean, prior - np.einsum("mij,mij->mi", white, white), white, slope, covariance
