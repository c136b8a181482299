"""Log evidence of the trials with the head integrated out, its gradient, and members fitted by it.

Gates, amplitudes and noise are chosen by the evidence and never by the squared error: at a few
dozen trials a trunk fitted by squared error does not learn which parameters matter.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.optimize import minimize

from optuna_hypernet.surrogate.hypernetwork import N_SHARED
from optuna_hypernet.surrogate.hypernetwork import Columns
from optuna_hypernet.surrogate.hypernetwork import Hypernetwork


Array = NDArray[np.float64]
Bounds = list[tuple[float, float]]

# Hyperprior of theta: independent Gaussians. Gates start near (d / 4)^(-1/4), so that distances
# in the box neither vanish nor saturate as the number of parameters d grows.
_SHARED_MEAN = (0.0, 0.0, 0.0, -6.0, -0.5, -6.0)
_SHARED_SCALE = (1.0, 1.0, 1.0, 2.0, 1.0, 2.0)
_GATE_BOUNDS = (-6.0, 6.0)
_SHARED_BOUNDS = ((-8.0, 6.0),) * 3 + ((-14.0, 1.0), (-8.0, 6.0), (-14.0, 1.0))
_ITERATIONS = 30


def hyperprior(d: int) -> tuple[Array, Array]:
    """Mean and scale ``(d + 6,)`` of the Gaussian hyperprior of ``theta``."""
    mean = np.concatenate([np.full(d, -0.25 * math.log(d / 4)), _SHARED_MEAN])
    return mean, np.concatenate([np.ones(d), _SHARED_SCALE])


def log_evidence(
    theta: Array, columns: Columns, embedding: Array, values: Array
) -> tuple[float, Array]:
    """Log evidence of one member plus the log hyperprior, and the gradient.

    Rasmussen & Williams (2006), eqs. 5.8 and 5.9, up to a constant.

    Args:
        theta: ``(d + 6,)``, see :class:`Hypernetwork`.
        columns: Of the embedding.
        embedding: ``(n, D)`` of the trials.
        values: ``(n,)`` warped objective values.

    Raises:
        numpy.linalg.LinAlgError: If the covariance is not positive definite.
    """
    network = Hypernetwork(theta[None], columns)
    gated = network.gate(embedding)
    covariance = network.covariance(gated, gated)
    factor = cholesky(covariance.value[0] + network.noise[0] * np.eye(len(values)))
    inverse = lapack.dpotri(factor, lower=1)[0]
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    values = values - network.mean(embedding)
    solution = inverse @ values
    mean, scale = hyperprior(network.d)
    deviation = (theta - mean) / scale
    value = -0.5 * values @ solution - np.log(np.diag(factor)).sum() - 0.5 * deviation @ deviation
    weight = 0.5 * (np.outer(solution, solution) - inverse)
    return float(value), network.pull_theta(weight[None], covariance)[0] - deviation / scale


def free_gates(d: int) -> Bounds:
    """Bounds of ``theta`` within which every gate is fitted."""
    return [_GATE_BOUNDS] * d + list(_SHARED_BOUNDS)


def even_gates(d: int) -> Bounds:
    """Bounds that hold every gate at its hyperprior's mean: all parameters matter alike."""
    gates = hyperprior(d)[0][:d]
    return list(zip(gates, gates, strict=True)) + list(_SHARED_BOUNDS)


def fit(columns: Columns, embedding: Array, values: Array, bounds: Bounds) -> Array:
    """Members' ``theta (M, d + 6)`` that maximise the evidence of ``values (M, n)``.

    A pure function of its arguments: it never starts from an earlier fit, so a study that is
    resumed, or continued by another worker, goes on as if nothing had happened.
    """
    start = hyperprior(len(bounds) - N_SHARED)[0]

    def loss(theta: Array, targets: Array) -> tuple[float, Array]:
        try:
            value, gradient = log_evidence(theta, columns, embedding, targets)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        return -value, -gradient

    members = [
        minimize(
            loss,
            start,
            args=(targets,),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": _ITERATIONS},
        ).x
        for targets in values
    ]
    return np.array(members)


def cholesky(matrix: Array) -> Array:
    """Lower Cholesky factor ``(n, n)`` of a symmetric matrix.

    Raises:
        numpy.linalg.LinAlgError: If it is not positive definite, or not finite.
    """
    factor, info = lapack.dpotrf(matrix, lower=1, clean=1)
    if info != 0 or not np.isfinite(factor[-1, -1]):
        raise np.linalg.LinAlgError(f"covariance of {len(matrix)} trials not positive definite")
    return np.asarray(factor)
