"""The posterior over responses: against dense solves, really leaving out, finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from differences import Array
from differences import finite_differences

from optuna_hypernet.surrogate.hypernetwork import JITTER
from optuna_hypernet.surrogate.hypernetwork import N_SHARED
from optuna_hypernet.surrogate.hypernetwork import Columns
from optuna_hypernet.surrogate.hypernetwork import Hypernetwork
from optuna_hypernet.surrogate.outcomes import Forecast
from optuna_hypernet.surrogate.posterior import Posterior


OWNER = np.array([0, 1, 1, 2])
COLUMNS = Columns(OWNER, np.array([True, False, False, True]), np.zeros(len(OWNER)))
D = 3
MEMBERS = 2
N = 9


@pytest.fixture
def network() -> Hypernetwork:
    theta = np.random.default_rng(0).normal(0, 0.5, (MEMBERS, D + N_SHARED))
    theta[:, -1] = [-4.0, -1.0]  # little noise, much noise
    theta[:, D + 3] = -6.0  # smooth for the most part
    return Hypernetwork(theta, COLUMNS)


def rows(n: int, seed: int) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (n, len(OWNER)))


EMBEDDING, ASKED, PENDING = rows(N, 1), rows(5, 2), rows(3, 3)
VALUES = np.random.default_rng(4).normal(size=(MEMBERS, N))


def covariance(network: Hypernetwork, a: Array, b: Array) -> Array:
    return network.covariance(network.gate(a), network.gate(b)).value


def bowl(embedding: Array) -> Array:
    """The prior mean, a row at a time, over the columns that are numbers: the first and last."""
    return np.array([0.3 / 3**0.5 * (e[0] ** 2 + e[3] ** 2 - 2 / 3) for e in embedding])


def naive(
    network: Hypernetwork,
    embedding: Array,
    values: Array,
    asked: Array,
    exact: int = 0,
    more: Array | float = 0.0,
) -> tuple[Array, Array]:
    """Mean and standard deviation by the textbook; the last ``exact`` rows have no noise.

    The others have as much ``more``, of members and rows.
    """
    means, stds = [], []
    more = np.broadcast_to(more, values.shape)
    for m in range(MEMBERS):
        noise = network.noise[m] + more[m]
        noise[len(embedding) - exact :] = JITTER
        inverse = np.linalg.inv(covariance(network, embedding, embedding)[m] + np.diag(noise))
        cross = covariance(network, asked, embedding)[m]
        prior = np.diag(covariance(network, asked, asked)[m])
        means.append(bowl(asked) + cross @ inverse @ (values[m] - bowl(embedding)))
        stds.append(np.sqrt(prior - np.einsum("ij,jk,ik->i", cross, inverse, cross)))
    return np.array(means), np.array(stds)


def test_prediction_equals_dense_solve(network: Hypernetwork) -> None:
    mean, std = Posterior(network, EMBEDDING, VALUES).predict(ASKED)
    expected_mean, expected_std = naive(network, EMBEDDING, VALUES, ASKED)

    np.testing.assert_allclose(mean, expected_mean, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(std, expected_std, rtol=1e-7)


def test_joint_equals_dense_solve(network: Hypernetwork) -> None:
    posterior = Posterior(network, EMBEDDING, VALUES)
    means, _ = posterior.predict(ASKED)
    for m in range(MEMBERS):
        mean, joint = posterior.joint(m, ASKED)
        trials = covariance(network, EMBEDDING, EMBEDDING)[m] + network.noise[m] * np.eye(N)
        cross = covariance(network, ASKED, EMBEDDING)[m]
        expected = covariance(network, ASKED, ASKED)[m] - cross @ np.linalg.solve(trials, cross.T)

        np.testing.assert_allclose(mean, means[m], rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(joint, expected, rtol=1e-7, atol=1e-9)


def test_many_rows_are_as_one_by_one(network: Hypernetwork) -> None:
    """Rows may be taken in pieces: the seams must not show."""
    posterior, many = Posterior(network, EMBEDDING, VALUES), rows(3000, 7)
    mean, std = posterior.predict(many)
    for k in (0, 1, 700, 711, 712, 1421, 2999):
        alone = posterior.predict(many[k : k + 1])

        np.testing.assert_allclose(mean[:, k], alone[0][:, 0], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(std[:, k], alone[1][:, 0], rtol=1e-8)
    assert mean.shape == std.shape == (MEMBERS, 3000)


def test_fitted_is_the_prediction_at_the_trials(network: Hypernetwork) -> None:
    posterior = Posterior(network, EMBEDDING, VALUES)

    np.testing.assert_allclose(
        posterior.fitted, posterior.predict(EMBEDDING)[0], rtol=1e-9, atol=1e-10
    )
    assert posterior.expected.shape == (MEMBERS, 0)


def test_of_no_rows_nothing_is_predicted(network: Hypernetwork) -> None:
    mean, std = Posterior(network, EMBEDDING, VALUES).predict(EMBEDDING[:0])

    assert mean.shape == std.shape == (MEMBERS, 0)


def test_left_out_equals_leaving_out(network: Hypernetwork) -> None:
    left_out = Posterior(network, EMBEDDING, VALUES).left_out
    for k in range(N):
        others = np.arange(N) != k
        posterior = Posterior(network, EMBEDDING[others], VALUES[:, others])

        np.testing.assert_allclose(
            left_out[:, k], posterior.predict(EMBEDDING[k : k + 1])[0][:, 0], rtol=1e-8, atol=1e-9
        )


def test_pending_leaves_the_mean_and_narrows_the_spread(network: Hypernetwork) -> None:
    before = Posterior(network, EMBEDDING, VALUES).predict(ASKED)
    after = Posterior(network, EMBEDDING, VALUES, PENDING).predict(ASKED)

    np.testing.assert_allclose(after[0], before[0], rtol=1e-6, atol=1e-8)
    assert (after[1] < before[1]).all()


def test_pending_equals_dense_solve(network: Hypernetwork) -> None:
    """As if each had returned, without noise, what was expected of it."""
    posterior = Posterior(network, EMBEDDING, VALUES, PENDING)
    expected = naive(network, EMBEDDING, VALUES, PENDING)[0]
    embedding, values = np.vstack([EMBEDDING, PENDING]), np.hstack([VALUES, expected])
    mean, std = naive(network, embedding, values, ASKED, exact=len(PENDING))

    np.testing.assert_allclose(posterior.predict(ASKED)[0], mean, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(posterior.predict(ASKED)[1], std, rtol=1e-5)


def test_nothing_is_left_to_learn_at_a_pending_row(network: Hypernetwork) -> None:
    before = Posterior(network, EMBEDDING, VALUES).predict(PENDING)[1]
    after = Posterior(network, EMBEDDING, VALUES, PENDING).predict(PENDING)[1]

    assert (after < 0.02 * before).all()


def test_pending_does_not_change_what_is_said_of_the_finished(network: Hypernetwork) -> None:
    before = Posterior(network, EMBEDDING, VALUES)
    after = Posterior(network, EMBEDDING, VALUES, PENDING)
    nothing = Posterior(network, EMBEDDING, VALUES, PENDING[:0])

    np.testing.assert_array_equal(after.fitted, before.fitted)
    np.testing.assert_array_equal(after.left_out, before.left_out)
    np.testing.assert_array_equal(nothing.predict(ASKED), before.predict(ASKED))


def test_expected_of_the_pending_is_what_the_finished_say(network: Hypernetwork) -> None:
    before, after = (Posterior(network, EMBEDDING, VALUES, each) for each in (None, PENDING))

    np.testing.assert_array_equal(after.expected, before.predict(PENDING)[0])


def test_a_forecast_is_an_observation_with_its_own_variance(network: Hypernetwork) -> None:
    """Of the last two; what is expected of all is what those and the finished say together."""
    rng = np.random.default_rng(6)
    mean, variance = rng.normal(size=(MEMBERS, 3)), rng.uniform(0.1, 2.0, (MEMBERS, 3))
    mean[:, 0] = variance[:, 0] = np.nan
    posterior = Posterior(network, EMBEDDING, VALUES, PENDING, Forecast(mean, variance))

    told, values = np.vstack([EMBEDDING, PENDING[1:]]), np.hstack([VALUES, mean[:, 1:]])
    more = np.hstack([np.zeros((MEMBERS, N)), variance[:, 1:]])
    expected = naive(network, told, values, PENDING, more=more)[0]
    np.testing.assert_allclose(posterior.expected, expected, rtol=1e-8)

    embedding, values = np.vstack([EMBEDDING, PENDING]), np.hstack([VALUES, expected])
    found = posterior.predict(ASKED)
    wanted = naive(network, embedding, values, ASKED, exact=len(PENDING))
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-5)


def test_a_forecast_that_says_nothing_changes_nothing(network: Hypernetwork) -> None:
    nothing = Forecast(*np.full((2, MEMBERS, 3), np.nan))
    one = Posterior(network, EMBEDDING, VALUES, PENDING, nothing).predict(ASKED)
    other = Posterior(network, EMBEDDING, VALUES, PENDING).predict(ASKED)

    np.testing.assert_array_equal(one, other)


def test_order_of_trials_does_not_matter(network: Hypernetwork) -> None:
    shuffled = np.random.default_rng(0).permutation(N)
    one = Posterior(network, EMBEDDING, VALUES).predict(ASKED)
    other = Posterior(network, EMBEDDING[shuffled], VALUES[:, shuffled]).predict(ASKED)

    np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)


def test_trials_without_noise_are_met_exactly() -> None:
    theta = np.zeros((1, D + N_SHARED))
    theta[0, -1] = -14.0
    posterior = Posterior(Hypernetwork(theta, COLUMNS), EMBEDDING, VALUES[:1])
    mean, std = posterior.predict(EMBEDDING)

    np.testing.assert_allclose(mean, VALUES[:1], atol=1e-3)
    assert (std < 3e-3).all()


@pytest.mark.parametrize("pending", [None, PENDING])
def test_pull_equals_finite_differences(network: Hypernetwork, pending: Array | None) -> None:
    posterior = Posterior(network, EMBEDDING, VALUES, pending)
    rng = np.random.default_rng(5)
    by_mean, by_std = rng.normal(size=(2, MEMBERS, len(ASKED)))

    def total(at: Array) -> float:
        mean, std = posterior.predict(at)
        return float((by_mean * mean + by_std * std).sum())

    mean, std, pull = posterior.predict_and_pull(ASKED)

    np.testing.assert_allclose([mean, std], posterior.predict(ASKED), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        pull(by_mean, by_std), finite_differences(total, ASKED), rtol=1e-5, atol=1e-6
    )


def test_duplicates_and_spread_that_rounds_to_nothing() -> None:
    """The variance is a difference of equal numbers there: never negative, slope never NaN."""
    theta = np.zeros((1, D + N_SHARED))
    theta[0, -1] = -14.0
    embedding = np.repeat(EMBEDDING, 4, axis=0)
    values = np.repeat(VALUES[:1], 4, axis=1)
    posterior = Posterior(Hypernetwork(theta, COLUMNS), embedding, values, embedding[:3])
    mean, std, pull = posterior.predict_and_pull(embedding)

    assert (std > 0).all()
    assert np.isfinite(mean).all()
    assert np.isfinite(pull(np.ones_like(mean), np.ones_like(std))).all()


def test_hopeless_covariance_is_told() -> None:
    theta = np.full((1, D + N_SHARED), np.nan)

    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        Posterior(Hypernetwork(theta, COLUMNS), EMBEDDING, VALUES[:1])
