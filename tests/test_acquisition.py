"""Log expected improvement: against quadrature, finite differences, and a plain mixture."""

from __future__ import annotations

import math

import numpy as np
import pytest
from differences import Array
from differences import finite_differences
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.special import ndtr

from optuna_hypernet.acquisition import ExpectedImprovement
from optuna_hypernet.acquisition import log_expected_improvement
from optuna_hypernet.acquisition import log_h
from optuna_hypernet.acquisition import mixture
from optuna_hypernet.space import SearchSpace
from optuna_hypernet.surrogate.ensemble import Belief
from optuna_hypernet.surrogate.hypernetwork import N_SHARED
from optuna_hypernet.surrogate.hypernetwork import Columns
from optuna_hypernet.surrogate.hypernetwork import Hypernetwork
from optuna_hypernet.surrogate.posterior import Posterior
from optuna_hypernet.trust import TrustRegion


def log_h_by_quadrature(u: float) -> float:
    """Log of the integral of t φ(u - t) over t > 0, which is φ(u) + u Φ(u).

    For negative u, with s = -u t, it is φ(u) / u^2 times the integral of s exp(-s - s^2 / 2 u^2),
    where nothing cancels however far u goes.
    """
    if u < -1:
        integral = quad(lambda s: s * math.exp(-s - 0.5 * (s / u) ** 2), 0, 60, epsabs=0)[0]
        return -0.5 * u * u - 0.5 * math.log(2 * math.pi) - 2 * math.log(-u) + math.log(integral)
    density = 1 / math.sqrt(2 * math.pi)
    top = max(u, 0)
    return math.log(
        quad(lambda t: t * density * math.exp(-0.5 * (u - t) ** 2), 0, top + 40, points=[top])[0]
    )


FAR = [-1e6, -3e5, -1e5, -1.0001e4, -1e4, -9.999e3, -1e3, -300.0, -100.0, -37.5, -12.0]
NEAR = [-5.0, -2.0, -1.0001, -1.0, -0.9999, -0.5, -1e-9, 0.0, 1e-9, 0.3, 1.0, 5.0, 12.0, 50.0]


@pytest.mark.parametrize("u", FAR + NEAR)
def test_log_h_equals_quadrature(u: float) -> None:
    assert log_h(np.array(u)) == pytest.approx(log_h_by_quadrature(u), rel=1e-13, abs=1e-7)


def test_log_h_rises_everywhere() -> None:
    """Across the seams of its three forms, too."""
    for u in (np.linspace(-1.1e4, -0.9e4, 2001), np.linspace(-3, 3, 2001)):
        assert (np.diff(log_h(u)) > 0).all()


def test_log_h_is_finite_wherever_its_argument_can_be_squared() -> None:
    assert np.isfinite(log_h(np.array([-1e150, -1e100, 1e100, 1e150]))).all()


@pytest.mark.parametrize(("mean", "std"), [(0.3, 0.5), (-2.0, 0.1), (1.0, 1e-3), (4.0, 2.0)])
def test_log_expected_improvement_equals_its_definition(mean: float, std: float) -> None:
    """The expected size of the improvement upon ``best``, drawn value by value."""
    best = 0.5
    got = log_expected_improvement(np.array(mean), np.array(std), np.array(best))[0]

    def gain(z: float) -> float:
        density = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        return max(best - mean - std * z, 0) * density

    kink = (best - mean) / std
    if abs(kink) < 38:
        expected = quad(gain, -40, 40, points=[kink, 0.0], epsabs=0, limit=200)[0]
        assert got == pytest.approx(math.log(expected), rel=1e-6)
    else:
        assert got == pytest.approx(math.log(std) + log_h_by_quadrature(kink), rel=1e-12)


@pytest.mark.parametrize("u", [-1e5, -1e3, -30.0, -1.5, -1.0, -0.5, 0.0, 2.0, 30.0])
def test_derivatives_equal_finite_differences(u: float) -> None:
    std, best = 0.7, 0.2
    at = np.array([best - u * std, std])

    def value(position: Array) -> float:
        return float(log_expected_improvement(position[:1], position[1:], np.array([best]))[0][0])

    _, by_mean, by_std = log_expected_improvement(at[:1], at[1:], np.array([best]))
    expected = finite_differences(value, at, step=1e-5 * max(1.0, abs(u)) ** 0.25)

    np.testing.assert_allclose([by_mean[0], by_std[0]], expected, rtol=2e-4, atol=1e-9)


def test_mixture_equals_plain_sum() -> None:
    rng = np.random.default_rng(0)
    values, weights = 50 * rng.normal(size=(3, 6)), np.log([0.2, 0.5, 0.3])
    got, shares = mixture(values, weights)

    np.testing.assert_allclose(got, logsumexp(values + weights[:, None], axis=0), rtol=1e-13)
    np.testing.assert_allclose(shares.sum(0), 1)
    for m in range(3):
        gradient = finite_differences(lambda at: float(mixture(at, weights)[0].sum()), values)
        np.testing.assert_allclose(shares[m], gradient[m], atol=1e-7)


def test_mixture_of_values_beyond_exp() -> None:
    values = np.array([[-1e12, 5e3], [-2e12, -5e3]])

    assert mixture(values, np.zeros(2))[0].tolist() == [-1e12, 5e3]


# As a function of rows.

SPACE = SearchSpace(
    {
        "choice": CategoricalDistribution("abc"),
        "gone": FloatDistribution(0, 1),
        "k": IntDistribution(0, 100),
        "x": FloatDistribution(-1, 1),
    }
)
COLUMNS = Columns(SPACE.owner, SPACE.ranged, SPACE.tilt)


@pytest.fixture
def belief() -> Belief:
    rng = np.random.default_rng(0)
    rows = SPACE.snap(rng.random((12, 4)))
    theta = rng.normal(0, 0.3, (2, SPACE.d + N_SHARED))
    theta[:, -1] = -5
    embedding = SPACE.embed(rows, np.ones((12, 4), dtype=bool))
    posterior = Posterior(
        Hypernetwork(theta, COLUMNS),
        embedding,
        rng.normal(size=(2, 12)),
    )
    return Belief(posterior, np.log([0.7, 0.3]), posterior.fitted.min(1, keepdims=True))


@pytest.fixture
def acquisition(belief: Belief) -> ExpectedImprovement:
    return ExpectedImprovement(SPACE, [belief])


def test_value_equals_plain_sum_over_members() -> None:
    rng = np.random.default_rng(0)
    rows, active = rng.random((12, 4)), np.ones((12, 4), dtype=bool)
    theta = np.zeros((2, SPACE.d + N_SHARED))
    theta[:, -1] = [-5, -2]
    network = Hypernetwork(theta, COLUMNS)
    posterior = Posterior(network, SPACE.embed(rows, active), rng.normal(size=(2, 12)))
    asked = rng.random((5, 4))
    mean, std = posterior.predict(SPACE.embed(asked, active[:5]))
    gain = log_expected_improvement(mean, std, posterior.fitted.min(1)[:, None])[0]
    expected = np.log(0.7 * np.exp(gain[0]) + 0.3 * np.exp(gain[1]))

    belief = Belief(posterior, np.log([0.7, 0.3]), posterior.fitted.min(1, keepdims=True))
    got = ExpectedImprovement(SPACE, [belief]).value(asked, active[:5])
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_gradient_by_rows_equals_finite_differences(acquisition: ExpectedImprovement) -> None:
    rows = np.random.default_rng(1).uniform(0.1, 0.9, (6, 4))
    active = np.ones((6, 4), dtype=bool)
    active[:3, 1] = False
    value, gradient = acquisition.value_and_gradient(rows, active)
    expected = finite_differences(lambda at: float(acquisition.value(at, active).sum()), rows)

    np.testing.assert_allclose(value, acquisition.value(rows, active), rtol=1e-9)
    np.testing.assert_allclose(gradient[:, 1:], expected[:, 1:], rtol=1e-5, atol=1e-6)
    assert not gradient[:, 0].any()  # a choice
    assert not gradient[:3, 1].any()  # inactive


def test_outside_of_a_trust_region_it_is_less(
    belief: Belief, acquisition: ExpectedImprovement
) -> None:
    """Value, gradient and what members are relative to."""
    rng = np.random.default_rng(3)
    region = TrustRegion(rng.random((3, 4)), np.array([2, 3]), 0.05)
    within = ExpectedImprovement(SPACE, [belief], [region])
    rows, active = rng.uniform(0.1, 0.9, (6, 4)), np.ones((6, 4), dtype=bool)
    penalty = region.value(rows, active)
    value, gradient = within.value_and_gradient(rows, active)
    expected = finite_differences(lambda at: float(within.value(at, active).sum()), rows)

    assert penalty.any()
    np.testing.assert_allclose(value, acquisition.value(rows, active) - penalty, rtol=1e-9)
    np.testing.assert_allclose(within.value(rows, active), value, rtol=1e-9)
    np.testing.assert_allclose(gradient[:, 1:], expected[:, 1:], rtol=1e-5, atol=1e-6)
    assert math.log(0.3) - 1e-9 <= within.calibrated(rows, active)[1].max() <= 1e-9


def test_calibration_makes_members_comparable(acquisition: ExpectedImprovement) -> None:
    """Each member's largest improvement on the screen counts as 1, whatever its warp's units."""
    rows = np.random.default_rng(1).random((50, 4))
    active = np.ones((50, 4), dtype=bool)
    before = acquisition.value(rows, active)
    scaled, got = acquisition.calibrated(rows, active)

    np.testing.assert_array_equal(acquisition.value(rows, active), before)  # a new one is made
    np.testing.assert_allclose(got, scaled.value(rows, active), rtol=1e-12)
    assert math.log(0.7) - 1e-9 <= got.max() <= 1e-9


def test_a_member_without_hope_has_little_say(belief: Belief) -> None:
    """Its chance of an improvement upon a target far below all there is, beside another's."""
    rows = np.random.default_rng(1).random((50, 4))
    active = np.ones((50, 4), dtype=bool)
    mean, std = belief.posterior.predict(SPACE.embed(rows, active))
    far = belief._replace(targets=belief.targets - np.array([[0.0], [6.0]]))
    chances = [
        ndtr(((far.targets[m] - mean[m]) / std[m])[gain.argmax()])
        for m in range(2)
        for gain in [log_expected_improvement(mean[m], std[m], far.targets[m])[0]]
    ]
    assert chances[1] < 1e-4 < chances[0]
    acquisition, _ = ExpectedImprovement(SPACE, [far]).calibrated(rows, active)
    gains = log_expected_improvement(mean, std, far.targets)[0]
    say = np.array([0.7, 0.3 * math.exp(3) * chances[1] / chances[0]])
    expected = np.log(say @ np.exp(gains - gains.max(1, keepdims=True)))
    np.testing.assert_allclose(acquisition.value(rows, active), expected, rtol=1e-9)


def test_of_two_objectives_it_is_the_volume_below_both_targets(belief: Belief) -> None:
    """Against draws from independent responses; of several points, the sum over them."""
    rng = np.random.default_rng(4)
    targets = [rng.uniform(-1, 1, (2, 3)) for _ in range(2)]  # of two members, at three points
    beliefs = [belief._replace(targets=each) for each in targets]
    rows, active = rng.random((4, 4)), np.ones((4, 4), dtype=bool)
    mean, std = belief.posterior.predict(SPACE.embed(rows, active))
    below = []
    for each in targets:
        member = rng.choice(2, p=[0.7, 0.3], size=(200_000, 1))
        response = rng.normal(mean[member, range(4)], std[member, range(4)])  # (draws, rows)
        below.append(np.maximum(each[member[:, 0]][:, :, None] - response[:, None], 0))
    expected = (below[0] * below[1]).mean(0).sum(0)

    got = np.exp(ExpectedImprovement(SPACE, beliefs).value(rows, active))
    np.testing.assert_allclose(got, expected, rtol=0.03)


def test_gradient_of_two_objectives_equals_finite_differences(belief: Belief) -> None:
    """Calibrated, and with a penalty, which each of them has."""
    rng = np.random.default_rng(5)
    region = TrustRegion(rng.random((3, 4)), np.array([2, 3]), 0.05)
    beliefs = [belief._replace(targets=rng.uniform(-2, 0, (2, 3))) for _ in range(2)]
    acquisition = ExpectedImprovement(SPACE, beliefs, [region])
    rows, active = rng.uniform(0.1, 0.9, (6, 4)), np.ones((6, 4), dtype=bool)
    without = ExpectedImprovement(SPACE, beliefs).value(rows, active)
    penalty = region.value(rows, active)
    assert penalty.any()
    np.testing.assert_allclose(acquisition.value(rows, active), without - 2 * penalty, rtol=1e-9)
    acquisition, scores = acquisition.calibrated(rows, active)
    value, gradient = acquisition.value_and_gradient(rows, active)
    expected = finite_differences(lambda at: float(acquisition.value(at, active).sum()), rows)

    np.testing.assert_allclose(value, acquisition.value(rows, active), rtol=1e-9)
    np.testing.assert_allclose(value, scores, rtol=1e-9)
    np.testing.assert_allclose(gradient[:, 1:], expected[:, 1:], rtol=1e-5, atol=1e-6)
