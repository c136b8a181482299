"""Members: when they are fitted, on what, how they are weighed, and what they then predict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from differences import Array
from problems import silent
from scipy.stats import spearmanr

import optuna_hypernet.surrogate.ensemble as module
from optuna_hypernet.acquisition import log_expected_improvement
from optuna_hypernet.space import Mask
from optuna_hypernet.surrogate import warp
from optuna_hypernet.surrogate.ensemble import Belief
from optuna_hypernet.surrogate.ensemble import Ensemble
from optuna_hypernet.surrogate.ensemble import checkpoint
from optuna_hypernet.surrogate.ensemble import fit_members
from optuna_hypernet.surrogate.ensemble import rank_correlation
from optuna_hypernet.surrogate.ensemble import thinned
from optuna_hypernet.surrogate.front import draw_directions
from optuna_hypernet.surrogate.hypernetwork import Columns
from optuna_hypernet.surrogate.outcomes import Outcomes


OWNER = np.arange(3)
COLUMNS = Columns(OWNER, np.ones(3, dtype=bool), np.zeros(len(OWNER)))
NOTHING, NONE = np.empty((0, 3)), np.empty(0, dtype=bool)


def smooth(embedding: Array) -> Array:
    return np.asarray((embedding[:, 0] - 0.3) ** 2 + 0.5 * np.sin(2 * embedding[:, 1]))


def trials(n: int, seed: int = 0) -> tuple[Array, Array]:
    embedding = np.random.default_rng(seed).uniform(-1, 1, (n, 3))
    return embedding, smooth(embedding)


def outcomes_of(values: Array, pruned: Mask, violation: Array | None = None) -> Outcomes:
    """Of trials without reports."""
    n = len(values)
    violation = np.zeros(n) if violation is None else violation
    return Outcomes(values, pruned, violation, np.empty((n, 0)), np.full(n, -1))


def believed(
    ensemble: Ensemble, embedding: Array, outcomes: Outcomes, pending: Array, likely: Mask
) -> Belief:
    """Of one objective."""
    (belief,) = ensemble.condition(
        COLUMNS, embedding, [outcomes], outcomes.places, silent(pending, likely)
    )
    return belief


def conditioned(ensemble: Ensemble, embedding: Array, values: Array) -> Belief:
    pruned = np.zeros(len(values), dtype=bool)
    return believed(ensemble, embedding, outcomes_of(values, pruned), NOTHING, NONE)


# When.


def test_checkpoints() -> None:
    """Every trial up to 20, then a tenth more each time."""
    expected, last = [], 0
    for n in range(1, 200):
        if n <= 20 or n == last + last // 10:
            last = n
        expected.append(last)

    assert [checkpoint(n) for n in range(1, 200)] == expected
    assert [checkpoint(n) for n in (20, 21, 22, 23, 24)] == [20, 20, 22, 22, 24]


def test_between_checkpoints_nothing_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = module.fit_members
    monkeypatch.setattr(
        module, "fit_members", lambda *given: sizes.append(len(given[2])) or real(*given)
    )
    embedding, values = trials(33)
    ensemble = Ensemble()
    for n in range(18, 34):
        conditioned(ensemble, embedding[:n], values[:n])
        conditioned(ensemble, embedding[:n], values[:n])

    assert sizes == [18, 19, 20, 22, 24, 26, 28, 30, 33]


def test_used_ensemble_says_what_a_new_one_says() -> None:
    """Nothing that it remembers shows, whatever it was asked before."""
    embedding, values = trials(26)
    used = Ensemble()
    for n in (1, 7, 20, 26, 3):
        conditioned(used, embedding[:n], -values[:n])
    for n in (5, 23, 26, 24):
        one = conditioned(used, embedding[:n], values[:n])
        other = conditioned(Ensemble(), embedding[:n], values[:n])

        np.testing.assert_array_equal(
            one.posterior.predict(embedding), other.posterior.predict(embedding)
        )
        np.testing.assert_array_equal(one.log_weights, other.log_weights)
        np.testing.assert_array_equal(one.targets, other.targets)


def test_memory_is_bounded() -> None:
    ensemble = Ensemble()
    for n in range(1, 15):
        conditioned(ensemble, *trials(n))

    assert len(ensemble._fits[0]._kept) <= 8


# On what.


@pytest.mark.parametrize(("n", "most"), [(10, 20), (20, 20), (21, 20), (50, 20), (1000, 64)])
def test_thinned_ones_are_the_better_ones_and_the_ends(n: int, most: int) -> None:
    values = np.random.default_rng(0).permutation(n).astype(float)
    kept = thinned(values, most)
    ranks = np.sort(values[kept])

    assert len(kept) == min(n, most)
    assert (np.diff(kept) > 0).all()
    assert ranks[: min(n, most) // 2].tolist() == list(range(min(n, most) // 2))
    assert ranks[-1] == n - 1
    if n > most:
        gaps = np.diff(ranks[most // 2 :])
        assert gaps.max() - gaps.min() <= 1


def test_hundreds_of_trials_cost_no_more_than_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_TRIALS", 30)
    monkeypatch.setattr(module, "_MOST_FITTED", 20)
    embedding, values = trials(90)
    posterior = conditioned(Ensemble(), embedding, values).posterior

    assert posterior.fitted.shape[1] == 30
    asked, truth = trials(200, seed=1)
    assert spearmanr(posterior.predict(asked)[0][0], truth).statistic > 0.8


# How they are weighed.


@pytest.mark.parametrize("seed", range(3))
def test_rank_correlation_equals_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = rng.integers(0, 6, 15).astype(float)
    other = one + rng.normal(size=15)

    assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert rank_correlation(one, one) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)


def test_rank_correlation_with_a_constant_is_zero() -> None:
    assert rank_correlation(np.ones(5), np.arange(5.0)) == 0
    assert rank_correlation(np.ones(1), np.ones(1)) == 0


def test_weights_sum_to_one_and_light_members_are_dropped() -> None:
    for n in (1, 2, 8, 30):
        members = fit_members(COLUMNS, *trials(n))
        weights = np.exp(members.log_weights)

        assert weights.sum() == pytest.approx(1)
        assert (weights >= 0.1 * weights.max() - 1e-12).all()
        assert len(members.warps) == len(members.theta) == len(weights)
        assert set(members.warps) <= set(warp.NAMES)


def test_ranks_win_on_values_that_span_decades() -> None:
    """And the raw scale does not: its member goes with the scatter of the worst."""
    embedding, values = trials(30)
    decades = np.exp(20 * values)
    members = fit_members(COLUMNS, embedding, warp.settle(decades, np.zeros(30, dtype=bool)))
    weights = np.exp(members.log_weights)
    share = {name: weights[np.array(members.warps) == name].sum() for name in warp.NAMES}

    assert share["rank"] > share["identity"]


# What they predict.


@pytest.mark.parametrize("transform", [np.asarray, np.exp, lambda y: np.exp(8 * y)])
def test_order_of_unseen_configurations_is_predicted(transform: Any) -> None:
    embedding, values = trials(30)
    asked, truth = trials(300, seed=1)
    posterior, log_weights, _ = conditioned(Ensemble(), embedding, transform(values))
    mean = np.exp(log_weights) @ posterior.predict(asked)[0]

    assert spearmanr(mean, truth).statistic > 0.9


@pytest.mark.parametrize(
    "values",
    [[1.0], [1.0, 1.0], [np.inf], [np.inf, -np.inf, 1.0], [0.0, 1e300, -1e300], [1, 1 + 1e-12, 1]],
)
def test_odd_values_are_survived(values: list[float]) -> None:
    embedding, _ = trials(len(values))
    posterior, log_weights, targets = conditioned(Ensemble(), embedding, np.array(values))
    mean, std = posterior.predict(trials(5, seed=1)[0])

    assert np.isfinite(mean).all()
    assert np.isfinite(targets).all()
    assert (std > 0).all()
    assert np.exp(log_weights).sum() == pytest.approx(1)


def test_what_ties_is_not_improved_upon_by_less_than_a_step() -> None:
    """Error rates in steps of a hundredth, against the same ones with the ties broken."""
    embedding, values = trials(25)
    errors = np.maximum(np.round(values - values.min(), 2), 0.1)
    broken = errors + 1e-6 * np.random.default_rng(0).random(25)

    for_sure = conditioned(Ensemble(), embedding, errors)
    assert (for_sure.targets[:, 0] < for_sure.posterior.fitted.min(1) - 0.01).all()
    by_little = conditioned(Ensemble(), embedding, broken)
    np.testing.assert_array_equal(by_little.targets[:, 0], by_little.posterior.fitted.min(1))


def test_pruned_trials_do_not_attract() -> None:
    """A report that none can be compared with is no better than the median, however low."""
    embedding, values = trials(21)
    worst = int(values.argmax())
    pruned = np.zeros(21, dtype=bool)
    pruned[worst] = True
    values[worst] = -100.0
    outcomes = outcomes_of(values, pruned)
    posterior = believed(Ensemble(), embedding, outcomes, NOTHING, NONE).posterior

    assert (posterior.fitted.argmin(1) != worst).all()


def test_pending_trials_narrow_the_spread() -> None:
    embedding, values = trials(12)
    pending, _ = trials(2, seed=1)
    outcomes = outcomes_of(values, np.zeros(12, dtype=bool))
    without = believed(Ensemble(), embedding, outcomes, NOTHING, NONE).posterior
    likely = np.ones(2, dtype=bool)
    beside = believed(Ensemble(), embedding, outcomes, pending, likely).posterior

    assert (beside.predict(pending)[1] < 0.1 * without.predict(pending)[1]).all()


def test_what_is_to_be_improved_upon_is_feasible() -> None:
    """The best feasible trial, or what a running one that may be feasible is expected to be."""
    embedding, values = trials(30)
    best = int(values.argmin())
    values[best] -= 0.3
    violation = np.zeros(30)
    violation[best] = 1.0
    outcomes = outcomes_of(values, np.zeros(30, dtype=bool), violation)

    def target(pending: Array, likely: bool) -> tuple[Array, Belief]:
        mask = np.full(len(pending), likely)
        belief = believed(Ensemble(), embedding, outcomes, pending, mask)
        return belief.targets[:, 0], belief

    alone, belief = target(NOTHING, likely=True)
    np.testing.assert_array_equal(alone, belief.posterior.fitted[:, violation == 0].min(1))
    assert (alone > belief.posterior.fitted.min(1) + 0.1).sum() >= 3
    there = embedding[best : best + 1] + 0.01
    np.testing.assert_array_equal(target(there, likely=False)[0], alone)
    expected = belief.posterior.predict(there)[0][:, 0]
    np.testing.assert_allclose(target(there, likely=True)[0], np.minimum(alone, expected))


def test_until_a_trial_is_feasible_any_place_is_as_much_of_an_improvement() -> None:
    embedding, values = trials(12)
    outcomes = outcomes_of(values, np.zeros(12, dtype=bool), np.arange(1.0, 13.0))
    belief = believed(Ensemble(), embedding, outcomes, NOTHING, NONE)
    mean, std = belief.posterior.predict(trials(200, 1)[0])
    log_gain = log_expected_improvement(mean, std, belief.targets)[0]

    assert np.ptp(log_gain, axis=1).max() < 0.01


def test_of_many_trials_feasible_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever they are worth."""
    given: list[Array] = []
    real = module.Posterior
    monkeypatch.setattr(module, "Posterior", lambda *all_: given.append(all_[1]) or real(*all_))
    embedding, values = trials(600)
    feasible = embedding[:, 0] < -0.9
    outcomes = outcomes_of(values, np.zeros(600, dtype=bool), np.where(feasible, 0.0, 1.0))
    believed(Ensemble(), embedding, outcomes, NOTHING, NONE)

    assert 20 < feasible.sum() < 60
    assert len(given[-1]) == 160
    kept = {row.tobytes() for row in given[-1]}
    assert {row.tobytes() for row in embedding[feasible]} <= kept


# Several objectives.


def both(n: int, seed: int = 0) -> tuple[Array, list[Outcomes]]:
    """The nearer to one place, the further from another."""
    embedding, _ = trials(n, seed)
    values = [((embedding - centre) ** 2).sum(1) for centre in (-0.5, 0.5)]
    return embedding, [outcomes_of(each, np.zeros(n, dtype=bool)) for each in values]


def front_of(
    embedding: Array, outcomes: list[Outcomes], pending: Array = NOTHING, likely: bool = True
) -> list[Belief]:
    directions = draw_directions(outcomes, np.random.default_rng(0))
    assert directions is not None
    mask = np.full(len(pending), likely)
    places = directions.places(outcomes)
    running = silent(pending, mask)
    return Ensemble().condition(COLUMNS, embedding, outcomes, places, running, directions)


def test_each_objective_has_members_of_its_own() -> None:
    embedding, outcomes = both(25)
    for belief, alone in zip(front_of(embedding, outcomes), outcomes, strict=True):
        expected = believed(Ensemble(), embedding, alone, NOTHING, NONE)
        np.testing.assert_array_equal(belief.log_weights, expected.log_weights)
        np.testing.assert_array_equal(belief.posterior.fitted, expected.posterior.fitted)
        assert belief.targets.shape == (len(belief.log_weights), 4)


def test_targets_lie_on_the_front() -> None:
    """Whatever the warp."""
    embedding, outcomes = both(25)
    directions = draw_directions(outcomes, np.random.default_rng(0))
    assert directions is not None
    settled = np.stack([each.settled for each in outcomes], axis=1)
    expected = directions.targets(settled)
    for belief, values, points in zip(
        front_of(embedding, outcomes), settled.T, expected.T, strict=True
    ):
        names = fit_members(COLUMNS, embedding, values).warps
        for targets, name in zip(belief.targets, names, strict=True):
            got = warp.carry(targets, warp.warp(values, name), values)
            np.testing.assert_allclose(got, points, atol=1e-9)


def test_running_trials_are_part_of_the_front() -> None:
    """If they may be feasible; else it stays where it was."""
    embedding, outcomes = both(25)
    there = np.full((1, 3), 0.0)
    alone = front_of(embedding, outcomes)
    unlikely, likely = (front_of(embedding, outcomes, there, likely) for likely in (False, True))
    for k in range(2):
        np.testing.assert_array_equal(unlikely[k].targets, alone[k].targets)
        assert (likely[k].targets <= alone[k].targets + 1e-9).all()
        assert (likely[k].targets < alone[k].targets - 0.01).any()
