"""What is expected of pruned trials: by hand, by a slow twin, and in studies with a pruner."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import Trial
from problems import optimized

from optuna_hypernet import HypernetSampler
from optuna_hypernet.surrogate.outcomes import Array
from optuna_hypernet.surrogate.outcomes import Mask
from optuna_hypernet.surrogate.outcomes import Outcomes
from optuna_hypernet.surrogate.outcomes import Places
from optuna_hypernet.surrogate.outcomes import Progress


def whole(values: Array, pruned: Mask, reports: Array, ended: Places) -> Outcomes:
    """Of trials that violate nothing."""
    return Outcomes(values, pruned, np.zeros(len(values)), reports, ended)


def beside(complete: list[tuple[float, float]], reports: list[float]) -> Outcomes:
    """Complete trials with reports and values, then pruned ones, all at one step."""
    values = [value for _, value in complete] + reports
    table = [[report] for report, _ in complete] + [[report] for report in reports]
    pruned = np.arange(len(values)) >= len(complete)
    return whole(np.array(values), pruned, np.array(table), np.where(pruned, 0, -1))


COMPLETE = [(4.0, 0.2), (2.0, 0.1), (6.0, 0.5)]


@pytest.mark.parametrize(
    ("report", "value"),
    [(2.0, 0.1), (3.0, 0.15), (5.0, 0.35), (6.0, 0.5), (8.0, 0.7), (10.0, 0.9), (1e9, 0.9)],
)
def test_a_report_has_the_place_among_values_that_it_has_among_reports(
    report: float, value: float
) -> None:
    """Beyond them it goes on, but no further than the values are apart."""
    assert beside(COMPLETE, [report]).expected()[-1] == pytest.approx(value)


def test_lower_than_all_reports_is_as_good_as_the_best() -> None:
    outcomes = beside(COMPLETE, [1.0])

    assert outcomes.expected()[-1] == 0.1
    assert outcomes.settled[-1] == outcomes.settled[1]


def test_where_no_report_can_be_compared_pruned_is_no_better_than_the_median() -> None:
    outcomes = beside([*COMPLETE, (math.nan, 0.4)], [1.0, 0.01, 0.02])
    outcomes.ended[-2:] = -1

    assert outcomes.expected()[-3:].tolist() == [0.1, 0.01, 0.02]
    complete_and_compared = np.sort(outcomes.settled[:-2])
    assert (outcomes.settled[-2:] == complete_and_compared[2]).all()


def test_values_of_complete_trials_stay() -> None:
    outcomes = beside(COMPLETE, [3.0, 7.0])

    assert outcomes.expected()[:3].tolist() == [0.2, 0.1, 0.5]
    assert outcomes.values.tolist() == [0.2, 0.1, 0.5, 3.0, 7.0]


def test_without_complete_trials_to_compare_with_the_report_stays() -> None:
    assert beside(COMPLETE[:1], [3.0]).expected().tolist() == [0.2, 3.0]

    apart = beside(COMPLETE, [3.0])
    apart.reports[:3] = math.nan  # they never reported at that step
    assert apart.expected()[-1] == 3.0


def forecast(complete: list[tuple[float, float]], *reports: float, step: int = 0) -> list[Array]:
    """Means and variances for running trials at that step; the complete ones told of step 0."""
    outcomes = beside(complete, [])
    progress = Progress(np.array(reports), np.full(len(reports), step))
    return [each[0] for each in outcomes.forecast(progress, outcomes.values[None])]


def test_what_a_running_trial_promises_is_what_is_expected_of_a_pruned_one() -> None:
    reports = [1.0, 2.0, 3.0, 5.0, 8.0, 1e9]

    assert (
        forecast(COMPLETE, *reports)[0].tolist()
        == beside(COMPLETE, reports).expected()[3:].tolist()
    )


def test_variance_is_what_the_order_of_reports_missed_and_one_more() -> None:
    in_order = [(2.0, 0.1), (4.0, 0.2), (6.0, 0.5)]
    exchanged = [(2.0, 0.1), (4.0, 0.5), (6.0, 0.2)]  # 4 has come to .5, where .2 is expected

    assert forecast(in_order, 3.0)[1] == pytest.approx(1 / 4)
    assert forecast(exchanged, 3.0)[1] == pytest.approx((0.3**2 + 0.3**2 + 1) / 4)
    assert forecast(in_order * 33, 3.0)[1] == pytest.approx(1 / 100)


def test_nothing_is_promised_where_nothing_can_be_compared() -> None:
    """Too few complete trials, no report, none that is a number, or none at all by then."""
    for found in (
        forecast(COMPLETE[:1], 3.0),
        forecast(COMPLETE, math.nan),
        forecast(COMPLETE, math.inf),
        forecast(COMPLETE, 3.0, step=-1),
    ):
        assert np.isnan(found).all()

    apart = beside(COMPLETE, [3.0])
    apart.reports[:3] = math.nan
    progress = Progress(np.array([3.0]), np.array([0]))
    assert np.isnan(apart.forecast(progress, apart.values[None])).all()
    assert np.shape(forecast(COMPLETE)) == (2, 0)


def test_pruned_without_a_report_stays_infinitely_bad() -> None:
    outcomes = beside(COMPLETE, [math.inf])
    outcomes.ended[-1] = -1

    assert outcomes.expected()[-1] == math.inf


@pytest.mark.parametrize("seed", range(5))
def test_slow_twin(seed: int) -> None:
    """Trials that end at several steps, one after another by the definition."""
    rng = np.random.default_rng(seed)
    finals = rng.random(30)
    curves = finals[:, None] + rng.gamma(2.0, size=30)[:, None] / np.arange(1, 6)
    ended = np.where(rng.random(30) < 0.6, rng.integers(0, 5, 30), -1)
    for i in np.flatnonzero(ended >= 0):
        curves[i, ended[i] + 1 :] = math.nan
    pruned = ended >= 0
    values = np.where(pruned, curves[np.arange(30), ended], finals)

    def slow(i: int) -> float:
        if not pruned[i]:
            return float(values[i])
        at, final = np.sort(curves[~pruned, ended[i]]), np.sort(values[~pruned])
        for k in range(1, len(at)):
            if values[i] <= at[k]:
                share = max(0.0, (values[i] - at[k - 1]) / (at[k] - at[k - 1]))
                return float(final[k - 1] + share * (final[k] - final[k - 1]))
        share = min(1.0, (values[i] - at[-1]) / (at[-1] - at[0]))
        return float(final[-1] + share * (final[-1] - final[0]))

    found = whole(values, pruned, curves, ended).expected()
    np.testing.assert_allclose(found, [slow(i) for i in range(30)])


@pytest.mark.parametrize("huge", [1e308, -1e308])
def test_huge_numbers_can_be_computed_with(huge: float) -> None:
    outcomes = beside([(0.0, huge), (-huge, 0.0), (huge, -huge)], [huge, 0.5 * huge, 3.0])

    assert not np.isnan(outcomes.expected()).any()
    assert np.isfinite(outcomes.settled).all()


@pytest.mark.parametrize(
    "complete",
    [[(0.0, -1e308), (1.0, 1e308)], [(1.0, 0.1), (1.0, 0.2)], [(0.0, 0.1), (5e-324, 1)]],
)
def test_nothing_overflows_with_a_warning(complete: list[tuple[float, float]]) -> None:
    low, high = (sorted(value for _, value in complete)[k] for k in (0, -1))
    found = beside(complete, [0.5, 1e300, 1e308]).expected()[2:]

    assert (found >= low).all()
    assert (found[1:] >= high).all()


def test_equal_reports_and_equal_values() -> None:
    assert beside([(1.0, 0.1), (1.0, 0.2)], [2.0]).expected()[-1] == pytest.approx(0.3)
    assert beside([(1.0, 0.1), (2.0, 0.1)], [9.0]).expected()[-1] == 0.1


def test_feasible_trials_come_first_and_then_those_that_violate_less() -> None:
    """Whatever they are worth."""
    values = np.array([5.0, 0.0, 1.0, 2.0, 9.0, -math.inf])
    violation = np.array([0.0, 3.0, 0.0, 2.0, 0.0, math.inf])
    nothing = np.empty((6, 0))
    outcomes = Outcomes(values, np.zeros(6, dtype=bool), violation, nothing, np.full(6, -1))

    assert outcomes.feasible.tolist() == [True, False, True, False, True, False]
    assert outcomes.places.tolist() == [1, 4, 0, 3, 2, 5]
    assert outcomes[1:4].places.tolist() == [2, 0, 1]


def best_value(pruner: optuna.pruners.BasePruner, seed: int) -> float:
    """Of a study of which bad trials end early, and losses fall by five; 0 is the optimum."""

    def objective(trial: Trial) -> float:
        x = [trial.suggest_float(name, 0, 1) for name in "abc"]
        loss = sum((one - 0.7) ** 2 for one in x)
        for step in range(10):
            trial.report(loss + 5 * math.exp(-step), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    return optimized(HypernetSampler(seed=seed), objective, 40, pruner=pruner).best_value


def asked_while(report: float | None, seed: int) -> float:
    """Where the next trial lies, of [0, 1], while one at .9 runs and has reported that.

    All others lie below .5, and all curves are parallel.
    """
    study = optuna.create_study(sampler=HypernetSampler(seed=seed))
    space = {"x": FloatDistribution(0, 1)}
    for x in (0.05, 0.15, 0.25, 0.35, 0.45):
        study.enqueue_trial({"x": x})
        trial = study.ask(space)
        loss = 1 + 0.05 * math.sin(40 * x)
        for step in range(3):
            trial.report(loss + 5 * math.exp(-step), step)
        study.tell(trial, loss)
    study.enqueue_trial({"x": 0.9})
    running = study.ask(space)
    if report is not None:
        running.report(report, 0)
    return float(study.ask(space).params["x"])


def test_a_running_trial_that_reports_well_is_followed_and_one_that_does_badly_avoided() -> None:
    """Of eight studies each; nothing else differs."""
    good, silent, bad = (
        np.mean([abs(asked_while(report, seed) - 0.9) for seed in range(8)])
        for report in (5.9, None, 6.1)
    )
    assert good < silent < bad


def test_pruned_trials_teach() -> None:
    """As last reports, far above all values, they hid what the complete ones had to say."""
    best = [best_value(optuna.pruners.MedianPruner(), seed) for seed in range(4)]

    assert np.median(best) < 4e-7
