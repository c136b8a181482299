"""The risk of failing: against plain formulas, finite differences, and what a study sees of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from differences import Array
from differences import finite_differences
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.trial import Trial
from optuna.trial import TrialState
from scipy.stats import norm

from optuna_hypernet import HypernetSampler
from optuna_hypernet.failure import Failures
from optuna_hypernet.failure import Risk
from optuna_hypernet.space import SearchSpace


SPACE = SearchSpace(
    {
        "a": CategoricalDistribution(["x", "y", "z"]),
        "b": FloatDistribution(0, 1),
        "c": FloatDistribution(0, 1),
    }
)


def rows_of(n: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((n, 3))


def risk(rows: Array, failed: Array) -> Risk:
    found = Failures().condition(SPACE, rows, np.ones(rows.shape, dtype=bool), failed)
    assert found is not None
    return found


def chance(risk: Risk, rows: Array) -> Array:
    """Of not failing."""
    return np.exp(-risk.value(rows, np.ones(rows.shape, dtype=bool)))


def test_value_equals_the_chance_of_less_than_half_a_failure() -> None:
    rows = rows_of(20)
    found = risk(rows, rows[:, 1] > 0.6)
    asked, active = rows_of(50, 1), np.ones((50, 3), dtype=bool)
    mean, std = found.posterior.predict(SPACE.embed(asked, active))

    got = found.value(asked, active)
    np.testing.assert_allclose(got, -norm(mean[0], std[0]).logcdf(1.0), rtol=1e-9)


def test_derivative_equals_finite_differences() -> None:
    rows = rows_of(20)
    found = risk(rows, rows[:, 1] > 0.6)
    asked, active = 0.1 + 0.8 * rows_of(30, 1), np.ones((30, 3), dtype=bool)
    active[:10, 2] = False
    value, got = found.value_and_gradient(asked, active)
    expected = finite_differences(lambda at: float(found.value(at, active).sum()), asked)

    np.testing.assert_allclose(value, found.value(asked, active), rtol=1e-9)
    np.testing.assert_allclose(got[:, 1:], expected[:, 1:], rtol=1e-5, atol=1e-6)
    assert not got[:, 0].any()  # a choice
    assert not got[:10, 2].any()  # inactive


@pytest.mark.parametrize("n", [10, 30, 300])
def test_where_trials_fail_others_are_expected_to(n: int) -> None:
    rows = rows_of(n)
    found = risk(rows, rows[:, 1] > 0.6)
    asked = rows_of(200, 1)

    assert chance(found, asked[asked[:, 1] > 0.8]).max() < 0.4
    assert chance(found, asked[asked[:, 1] < 0.4]).min() > 0.6


@pytest.mark.parametrize("seed", range(5))
def test_failures_without_a_place_cost_little(seed: int) -> None:
    rows = rows_of(60, seed)
    found = risk(rows, np.random.default_rng(seed + 100).random(60) < 0.15)

    assert np.median(chance(found, rows_of(200, seed + 200))) > 0.75


@pytest.mark.parametrize("failed", [[True], [False, True], [True, True, True]])
def test_few_trials_are_enough_to_say_something(failed: list[bool]) -> None:
    rows = rows_of(len(failed))
    got = chance(risk(rows, np.array(failed)), rows_of(200, 1))

    assert np.isfinite(got).all()
    assert chance(risk(rows, np.array(failed)), rows)[failed].max() < 0.2


def test_of_many_trials_those_that_failed_are_kept() -> None:
    rows = rows_of(1000)
    failed = rows[:, 1] > 0.98

    assert 10 < failed.sum() < 30
    assert chance(risk(rows, failed), rows[failed]).max() < 0.5


def failing(fails: Callable[[float, float], bool], how: str = "raise") -> Callable[[Trial], float]:
    """Lowest where x is 1 and y a half, but it may fail there."""

    def objective(trial: Trial) -> float:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        if fails(x, y):
            if how == "raise":
                raise MemoryError
            return math.nan
        return (1 - x) + (y - 0.5) ** 2

    return objective


def study_of(objective: Callable[[Trial], float], n: int, seed: int = 0) -> optuna.Study:
    study = optuna.create_study(sampler=HypernetSampler(seed=seed))
    study.optimize(objective, n_trials=n, catch=MemoryError)
    return study


def n_failed(study: optuna.Study) -> int:
    return sum(trial.state == TrialState.FAIL for trial in study.trials)


@pytest.mark.parametrize(("how", "seed"), [("raise", 0), ("nan", 1)])
def test_the_edge_of_a_region_of_failures_is_found(how: str, seed: int) -> None:
    """Where the best there is lies; without anything learnt 36 of 40 fail, and .46 is reached."""
    study = study_of(failing(lambda x, y: x > 0.7, how), 40, seed)

    assert study.best_value < 0.32


@pytest.mark.parametrize("seed", range(3))
def test_choices_that_fail_are_left(seed: int) -> None:
    """Nothing is known of what they would be worth, so all would be tried there."""

    def objective(trial: Trial) -> float:
        solver = trial.suggest_categorical("solver", ["a", "b", "c", "d"])
        x = trial.suggest_float("x", 0, 1)
        if solver in ("c", "d"):
            raise MemoryError
        return (x - 0.3) ** 2

    assert n_failed(study_of(objective, 24, seed)) < 10


def test_a_study_goes_on_the_same_with_a_new_sampler() -> None:
    objective = failing(lambda x, y: x > 0.7)
    whole = study_of(objective, 16)
    parted = study_of(objective, 10)
    parted.sampler = HypernetSampler(seed=0)
    parted.optimize(objective, n_trials=6, catch=MemoryError)

    assert [trial.params for trial in parted.trials] == [trial.params for trial in whole.trials]
