"""The log evidence, its gradient, and what is fitted by it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from differences import Array
from differences import finite_differences
from scipy.stats import multivariate_normal
from scipy.stats import norm

from optuna_hypernet.surrogate.evidence import cholesky
from optuna_hypernet.surrogate.evidence import even_gates
from optuna_hypernet.surrogate.evidence import fit
from optuna_hypernet.surrogate.evidence import free_gates
from optuna_hypernet.surrogate.evidence import hyperprior
from optuna_hypernet.surrogate.evidence import log_evidence
from optuna_hypernet.surrogate.hypernetwork import N_SHARED
from optuna_hypernet.surrogate.hypernetwork import Columns
from optuna_hypernet.surrogate.hypernetwork import Hypernetwork


OWNER = np.array([0, 1, 1, 2])
COLUMNS = Columns(OWNER, np.array([True, False, False, True]), np.zeros(len(OWNER)))
D = 3
FREE = free_gates(D)


def trials(n: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (n, len(OWNER))), rng.normal(size=n)


def drawn(seed: int) -> Array:
    """A theta drawn from the hyperprior."""
    mean, scale = hyperprior(D)
    return np.random.default_rng(seed).normal(mean, scale)


@pytest.mark.parametrize("seed", range(5))
def test_value_is_the_gaussian_log_density(seed: int) -> None:
    """Plus the hyperprior's, both without their constants."""
    embedding, values = trials(12)
    theta = drawn(seed)
    network = Hypernetwork(theta[None], COLUMNS)
    gated = network.gate(embedding)
    covariance = network.covariance(gated, gated).value[0] + network.noise[0] * np.eye(12)
    mean, scale = hyperprior(D)
    expected = multivariate_normal(network.mean(embedding), covariance).logpdf(values)
    expected += norm(mean, scale).logpdf(theta).sum() + np.log(scale).sum()
    constants = 0.5 * (12 + D + N_SHARED) * math.log(2 * math.pi)

    assert log_evidence(theta, COLUMNS, embedding, values)[0] == pytest.approx(
        expected + constants
    )


@pytest.mark.parametrize("seed", range(5))
def test_gradient_equals_finite_differences(seed: int) -> None:
    embedding, values = trials(10)
    theta = drawn(seed)
    expected = finite_differences(
        lambda at: log_evidence(at, COLUMNS, embedding, values)[0], theta, step=1e-4
    )

    np.testing.assert_allclose(
        log_evidence(theta, COLUMNS, embedding, values)[1], expected, rtol=1e-4, atol=1e-5
    )


def test_order_of_trials_does_not_matter() -> None:
    embedding, values = trials(12)
    shuffled = np.random.default_rng(0).permutation(12)
    one = log_evidence(drawn(0), COLUMNS, embedding, values)
    other = log_evidence(drawn(0), COLUMNS, embedding[shuffled], values[shuffled])

    assert one[0] == pytest.approx(other[0])
    np.testing.assert_allclose(one[1], other[1], rtol=1e-8, atol=1e-10)


def test_fit_beats_the_start_and_draws_from_the_hyperprior() -> None:
    embedding, _ = trials(25)
    values = np.sin(2 * embedding[:, 0]) + embedding[:, 3] ** 2
    values = (values - values.mean()) / values.std()
    theta = fit(COLUMNS, embedding, values[None], FREE)[0]
    best = log_evidence(theta, COLUMNS, embedding, values)[0]
    others = [hyperprior(D)[0]] + [drawn(seed) for seed in range(200)]

    assert best > max(log_evidence(each, COLUMNS, embedding, values)[0] for each in others)


def test_fit_ends_where_the_gradient_is_small() -> None:
    embedding, _ = trials(25)
    values = np.sin(2 * embedding[:, 0]) + embedding[:, 3] ** 2
    values = (values - values.mean()) / values.std()
    theta = fit(COLUMNS, embedding, values[None], FREE)[0]
    start = log_evidence(hyperprior(D)[0], COLUMNS, embedding, values)[1]
    end = log_evidence(theta, COLUMNS, embedding, values)[1]

    assert np.linalg.norm(end) < 0.05 * np.linalg.norm(start)


def test_even_gates_stay_where_the_hyperprior_has_them() -> None:
    embedding, _ = trials(25)
    values = np.sin(3 * embedding[:, 0])
    theta = fit(COLUMNS, embedding, values[None] / values.std(), even_gates(D))[0]

    np.testing.assert_array_equal(theta[:D], hyperprior(D)[0][:D])
    assert not np.allclose(theta[D:], hyperprior(D)[0][D:])


def test_gates_tell_which_parameters_matter() -> None:
    embedding, _ = trials(40)
    values = np.sin(3 * embedding[:, 0])
    gates = fit(COLUMNS, embedding, values[None] / values.std(), FREE)[0, :D]

    assert gates[0] > gates[1] + 0.5
    assert gates[0] > gates[2] + 0.5


def test_noise_is_told_from_structure() -> None:
    """Every configuration is tried twice, so that the noise shows."""
    embedding, noise = np.tile(trials(30)[0], (2, 1)), trials(60, seed=1)[1]
    smooth, noisy = embedding[:, 0], embedding[:, 0] + 0.5 * noise
    thetas = fit(COLUMNS, embedding, np.stack([smooth / smooth.std(), noisy / noisy.std()]), FREE)
    share = Hypernetwork(thetas, COLUMNS).noise
    truth = (0.5 * noise).var() / noisy.var()

    assert share[0] < 0.01
    assert 0.5 * truth < share[1] < 2 * truth


def test_members_are_fitted_apart_and_always_alike() -> None:
    embedding, values = trials(15)
    targets = np.stack([values, np.sort(values), -values])
    together = fit(COLUMNS, embedding, targets, FREE)

    np.testing.assert_array_equal(together, fit(COLUMNS, embedding, targets, FREE))
    for member, target in zip(together, targets, strict=True):
        np.testing.assert_array_equal(fit(COLUMNS, embedding, target[None], FREE)[0], member)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_fit_of_next_to_nothing(n: int, level: float) -> None:
    theta = fit(COLUMNS, np.zeros((n, len(OWNER))), np.full((2, n), level), FREE)

    assert theta.shape == (2, D + N_SHARED)
    assert np.isfinite(theta).all()


def test_fit_of_contradicting_duplicates() -> None:
    theta = fit(COLUMNS, np.zeros((6, len(OWNER))), np.array([[-1.0, 1.0] * 3]), FREE)

    assert Hypernetwork(theta, COLUMNS).noise[0] > 0.3


def test_cholesky_factor() -> None:
    root = np.random.default_rng(0).normal(size=(6, 6))
    matrix = root @ root.T + np.eye(6)
    factor = cholesky(matrix)

    np.testing.assert_allclose(factor @ factor.T, matrix, rtol=1e-12)
    np.testing.assert_array_equal(factor, np.tril(factor))


@pytest.mark.parametrize(
    "matrix", [-np.eye(3), np.zeros((3, 3)), np.full((3, 3), math.nan), np.diag([1, 1, math.inf])]
)
def test_cholesky_of_what_has_none(matrix: Array) -> None:
    with pytest.raises(np.linalg.LinAlgError, match="3 trials not positive definite"):
        cholesky(matrix)
