"""The prior over responses: against plain loops, a wide network, and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from differences import Array
from differences import finite_differences
from scipy.special import erf

from optuna_hypernet.surrogate.hypernetwork import JITTER
from optuna_hypernet.surrogate.hypernetwork import N_SHARED
from optuna_hypernet.surrogate.hypernetwork import Columns
from optuna_hypernet.surrogate.hypernetwork import Hypernetwork


OWNER = np.array([0, 1, 1, 1, 2, 3])
COLUMNS = Columns(OWNER, np.array([True, False, False, False, True, True]), np.zeros(len(OWNER)))
D = 4
MEMBERS = 3


def network(seed: int = 0, members: int = MEMBERS) -> Hypernetwork:
    theta = np.random.default_rng(seed).normal(0, 0.5, (members, D + N_SHARED))
    return Hypernetwork(theta, COLUMNS)


def rows(n: int, seed: int = 1) -> Array:
    """Random gated embeddings of all members."""
    return np.random.default_rng(seed).normal(size=(MEMBERS, n, len(OWNER)))


def slow_covariance(theta: Array, a: Array, b: Array) -> float:
    """The formula at the head of the module, for one member and two rows."""
    linear, arcsine, matern, rough, bias = np.exp(theta[D : D + 5])
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    aa, bb = sum(x * x for x in a), sum(y * y for y in b)
    r = math.sqrt(5 * sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    wide = math.sqrt((1 + 2 * (bias + aa)) * (1 + 2 * (bias + bb)))
    return float(
        linear / D * dot
        + arcsine * 2 / math.pi * math.asin(2 * (bias + dot) / wide)
        + matern * (1 + r + r * r / 3) * math.exp(-r)
        + rough * (1 + 8 * r + 64 * r * r / 3) * math.exp(-8 * r)
    )


def test_covariance_equals_plain_loops() -> None:
    net, a, b = network(), rows(5), rows(4, seed=2)
    expected = [
        [[slow_covariance(net.theta[m], x, y) for y in b[m]] for x in a[m]] for m in range(MEMBERS)
    ]

    np.testing.assert_allclose(net.covariance(a, b).value, expected, rtol=1e-12)


def test_variance_is_the_diagonal_of_the_covariance() -> None:
    net, a = network(), rows(6)
    value, _ = net.variance(a)

    np.testing.assert_allclose(value, np.einsum("mii->mi", net.covariance(a, a).value), rtol=1e-7)


def test_slope_of_the_variance() -> None:
    """It is by |a|^2, so along a it is half the directional derivative over |a|^2."""
    net, a = network(), rows(3)
    _, slope = net.variance(a)
    gradient = finite_differences(lambda at: float(net.variance(at)[0].sum()), a)

    np.testing.assert_allclose(gradient, 2 * slope[:, :, None] * a, rtol=1e-6, atol=1e-9)


def test_gates_scale_the_columns_of_their_owner() -> None:
    net = network()
    embedding = np.random.default_rng(3).normal(size=(5, len(OWNER)))
    expected = [
        [
            [math.exp(net.theta[m, OWNER[k]]) * row[k] for k in range(len(OWNER))]
            for row in embedding
        ]
        for m in range(MEMBERS)
    ]

    np.testing.assert_allclose(net.gate(embedding), expected, rtol=1e-12)


def test_prior_mean_rises_from_the_middle_of_ranges_to_their_ends() -> None:
    net, embedding = network(), np.zeros((3, len(OWNER)))
    embedding[1, 0], embedding[1, 5] = 1, -1  # two numbers at ends of their ranges
    embedding[2, 1] = math.sqrt(2)  # a choice
    middle, ends, choice = net.mean(embedding)

    assert ends - middle == pytest.approx(2 * 0.3 / math.sqrt(D))
    assert choice == middle


def test_prior_mean_tilts_as_it_is_told() -> None:
    tilt = np.array([0.0, 0, 0, 0, 0, 0.4])
    tilted = Hypernetwork(network().theta, COLUMNS._replace(tilt=tilt))
    embedding = np.random.default_rng(3).normal(size=(5, len(OWNER)))

    expected = network().mean(embedding) + 0.4 * embedding[:, 5]
    np.testing.assert_allclose(tilted.mean(embedding), expected)
    np.testing.assert_allclose(
        tilted.mean_slope(embedding) - network().mean_slope(embedding), np.tile(tilt, (5, 1))
    )


def test_prior_mean_is_zero_on_average() -> None:
    grid = np.linspace(-1, 1, 20_001)
    embedding = np.zeros((len(grid), len(OWNER)))
    embedding[:, [0, 4, 5]] = grid[:, None]

    assert network().mean(embedding).mean() == pytest.approx(0, abs=1e-4)


def test_slope_of_the_prior_mean() -> None:
    net = network()
    embedding = np.random.default_rng(3).normal(size=(5, len(OWNER)))
    gradient = finite_differences(lambda at: float(net.mean(at).sum()), embedding)

    np.testing.assert_allclose(net.mean_slope(embedding), gradient, rtol=1e-6, atol=1e-9)


def test_ungate_is_the_transpose_of_gate() -> None:
    net, weight = network(), rows(5)
    embedding = np.random.default_rng(3).normal(size=(5, len(OWNER)))

    assert (net.gate(embedding) * weight).sum() == pytest.approx(
        (embedding * net.ungate(weight)).sum()
    )


def test_arcsine_part_is_a_wide_network_of_error_functions() -> None:
    """A hundred thousand hidden units with Gaussian weights, within four standard errors."""
    bias, units = 0.6, 100_000
    theta = np.full((1, D + N_SHARED), -700.0)  # nothing but the arcsine part
    theta[0, :D], theta[0, D + 1], theta[0, D + 4] = 0.0, 0.0, math.log(bias)
    a = np.random.default_rng(0).normal(size=(1, 4, len(OWNER)))
    rng = np.random.default_rng(1)
    hidden = erf(
        a[0] @ rng.normal(size=(len(OWNER), units)) + math.sqrt(bias) * rng.normal(size=units)
    )
    covariance = Hypernetwork(theta, COLUMNS).covariance(a, a).value[0]
    for i, j in np.ndindex(4, 4):
        products = hidden[i] * hidden[j]
        error = products.std() / math.sqrt(units)

        assert abs(products.mean() - covariance[i, j]) < 4 * error
        assert error < 0.003


def test_linear_part_is_a_linear_model() -> None:
    theta = np.full((1, D + N_SHARED), -700.0)
    theta[0, D] = math.log(3.0)
    a = np.random.default_rng(0).normal(size=(1, 4, len(OWNER)))

    np.testing.assert_allclose(
        Hypernetwork(theta, COLUMNS).covariance(a, a).value[0], 3 / D * a[0] @ a[0].T, rtol=1e-12
    )


def test_positive_definite_with_noise() -> None:
    net, a = network(), rows(40)
    covariance = net.covariance(a, a).value
    covariance += net.noise[:, None, None] * np.eye(40)

    np.testing.assert_allclose(covariance, covariance.transpose(0, 2, 1), rtol=1e-12)
    assert np.linalg.eigvalsh(covariance).min() > 0


def test_members_do_not_mix() -> None:
    net, a, b = network(), rows(5), rows(4, seed=2)
    together = net.covariance(a, b).value
    for m in range(MEMBERS):
        alone = Hypernetwork(net.theta[m : m + 1], COLUMNS)

        np.testing.assert_allclose(
            alone.covariance(a[m : m + 1], b[m : m + 1]).value[0], together[m], rtol=1e-12
        )
        assert alone.noise[0] == net.noise[m]


def test_noise_is_never_below_the_jitter() -> None:
    theta = np.full((1, D + N_SHARED), -700.0)

    assert Hypernetwork(theta, COLUMNS).noise.tolist() == [JITTER]


@pytest.mark.parametrize("scale", [0.0, 1e-200, 1e3, 1e6])
def test_finite_at_any_scale_of_the_gated_rows(scale: float) -> None:
    """Equal rows too, where the cosine comes closest to 1."""
    net, a = network(), scale * rows(3)
    at = net.covariance(a, a)
    weight = np.ones_like(at.value)

    for result in (at.value, net.pull(weight, at), net.pull_theta(weight, at), *net.variance(a)):
        assert np.isfinite(result).all()


def test_pull_equals_finite_differences() -> None:
    net, a, b = network(), rows(4), rows(5, seed=2)
    weight = np.random.default_rng(4).normal(size=(MEMBERS, 4, 5))
    expected = finite_differences(
        lambda at: float((weight * net.covariance(at, b).value).sum()), a
    )

    np.testing.assert_allclose(net.pull(weight, net.covariance(a, b)), expected, atol=1e-7)


def test_pull_theta_equals_finite_differences() -> None:
    """Through the gates, the amplitudes, the bias and the noise of all members."""
    net = network()
    embedding = np.random.default_rng(3).normal(size=(5, len(OWNER)))
    weight = np.random.default_rng(4).normal(size=(MEMBERS, 5, 5))
    weight += weight.transpose(0, 2, 1)

    def total(theta: Array) -> float:
        other = Hypernetwork(theta, COLUMNS)
        gated = other.gate(embedding)
        covariance = other.covariance(gated, gated).value
        return float((weight * (covariance + other.noise[:, None, None] * np.eye(5))).sum())

    gated = net.gate(embedding)

    np.testing.assert_allclose(
        net.pull_theta(weight, net.covariance(gated, gated)),
        finite_differences(total, net.theta),
        atol=1e-6,
    )
