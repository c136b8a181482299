"""The risk of earning nothing: against plain formulas, differences, and in studies."""

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

import optuna_hypernet.risk as module
from optuna_hypernet import HypernetSampler
from optuna_hypernet.risk import Risk
from optuna_hypernet.risk import Risks
from optuna_hypernet.space import SearchSpace
from optuna_hypernet.surrogate.ensemble import fit_members


SPACE = SearchSpace(
    {
        "a": CategoricalDistribution(["x", "y", "z"]),
        "b": FloatDistribution(0, 1),
        "c": FloatDistribution(0, 1),
    }
)


def rows_of(n: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((n, 3))


def risk(rows: Array, failed: Array | None = None, *constraints: Array) -> Risk:
    """What trials say that failed, or of which constraints had those values."""
    failed = np.zeros(len(rows), dtype=bool) if failed is None else failed
    table = np.array(constraints).reshape(len(constraints), len(rows)).T
    embedding = SPACE.embed(rows, np.ones(rows.shape, dtype=bool))
    found = Risks().condition(SPACE, embedding, failed, table, embedding[:0])
    assert found is not None
    return found


def chance(risk: Risk, rows: Array) -> Array:
    """Of neither failing nor violating."""
    return np.exp(-risk.value(rows, np.ones(rows.shape, dtype=bool)))


def test_value_equals_the_chance_of_less_than_half_a_failure() -> None:
    rows = rows_of(20)
    found = risk(rows, rows[:, 1] > 0.6)
    asked, active = rows_of(50, 1), np.ones((50, 3), dtype=bool)
    mean, std = found.beliefs[0].posterior.predict(SPACE.embed(asked, active))

    got = found.value(asked, active)
    np.testing.assert_allclose(got, -norm(mean[0], std[0]).logcdf(1.0), rtol=1e-9)


def test_value_of_several_is_the_chance_that_all_hold() -> None:
    """Each one's is a mixture of what its members say, in the units of their warps."""
    rows = rows_of(25)
    found = risk(rows, rows[:, 1] > 0.8, rows[:, 2] - 0.5, (rows[:, 1] - 0.3) ** 3)
    asked, active = rows_of(50, 1), np.ones((50, 3), dtype=bool)
    expected = np.ones(50)
    for posterior, log_weights, targets in found.beliefs:
        mean, std = posterior.predict(SPACE.embed(asked, active))
        expected *= np.exp(log_weights) @ norm(mean, std).cdf(targets)

    assert len(found.beliefs) == 3
    np.testing.assert_allclose(chance(found, asked), expected, rtol=1e-9)


def test_derivative_equals_finite_differences() -> None:
    rows = rows_of(20)
    found = risk(rows, rows[:, 1] > 0.6, rows[:, 2] - 0.3)
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


SIGNED = "signed", lambda held: held
CUBED = "cubed", lambda held: 1e9 * held**3
HINGE = "hinge", lambda held: np.maximum(held, 0.0)
INDICATOR = "indicator", lambda held: (held > 0).astype(float)


@pytest.mark.parametrize("n", [12, 40, 400])
@pytest.mark.parametrize(("name", "form"), [SIGNED, CUBED, HINGE, INDICATOR])
def test_where_trials_violate_others_are_expected_to(
    name: str, form: Callable[[Array], Array], n: int
) -> None:
    """Whatever the scale, and where all that is said of those that hold is 0."""
    rows, asked = rows_of(n), rows_of(200, 1)
    found = chance(risk(rows, None, form(rows[:, 1] - 0.6)), asked)

    assert found[asked[:, 1] > 0.8].max() < 0.5
    assert found[asked[:, 1] < 0.4].min() > 0.5


def test_the_edge_is_where_a_constraint_is_0() -> None:
    """Not halfway between the trials, .55 and .9, since values say how far it is from each."""
    rows, asked = rows_of(30), rows_of(200, 1)
    rows = rows[(rows[:, 1] < 0.55) | (rows[:, 1] > 0.9)]
    found = chance(risk(rows, None, rows[:, 1] - 0.6), asked)

    assert found[asked[:, 1] < 0.58].min() > 0.5
    assert found[asked[:, 1] > 0.66].max() < 0.5


@pytest.mark.parametrize("held", [[1.0], [-1.0, 1.0], [2.0, 1.0, 3.0], [0.0, 1.0]])
def test_few_trials_are_enough_to_say_something_of_a_constraint(held: list[float]) -> None:
    rows, values = rows_of(len(held)), np.array(held)
    found = risk(rows, None, values)

    assert np.isfinite(chance(found, rows_of(200, 1))).all()
    assert chance(found, rows)[values > 0].max() < 0.5


def test_many_constraints_are_fitted_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []
    monkeypatch.setattr(
        module, "fit_members", lambda *given: fitted.append(1) or fit_members(*given)
    )
    rows = rows_of(6)
    embedding = SPACE.embed(rows, np.ones(rows.shape, dtype=bool))
    held = rows[:, :1] - np.linspace(0.1, 0.9, 12)
    risks = Risks()
    for _ in range(2):
        found = risks.condition(SPACE, embedding, np.zeros(6, bool), held, embedding[:0])

    assert found is not None
    assert len(fitted) == len(found.beliefs) > 8


def test_constraints_that_nobody_violated_say_nothing() -> None:
    rows = rows_of(20)
    nothing, ones = np.full(20, math.nan), np.ones(rows.shape, dtype=bool)
    held = np.stack([rows[:, 1] - 2, np.zeros(20), nothing], 1)
    embedding = SPACE.embed(rows, ones)
    failed = np.zeros(20, dtype=bool)

    assert Risks().condition(SPACE, embedding, failed, held, embedding[:0]) is None


def test_a_constraint_is_learnt_from_those_that_speak_of_it() -> None:
    rows = rows_of(40)
    held = rows[:, 1] - 0.6
    silent = np.arange(40) % 2 == 0
    told = risk(rows, None, np.where(silent, math.nan, held))
    alone = risk(rows[~silent], None, held[~silent])

    np.testing.assert_array_equal(chance(told, rows), chance(alone, rows))


def test_infinities_and_huge_numbers_can_be_computed_with() -> None:
    rows = rows_of(20)
    for huge in (math.inf, 1e308, 5e-324):
        held = np.where(rows[:, 1] > 0.6, huge, -huge)
        found = chance(risk(rows, None, held), rows)

        assert (found[held < 0] > 0.5).all()
        assert (found[held > 0] < 0.5).all()


def failing(fails: Callable[[float, float], bool], how: str = "raise") -> Callable[[Trial], float]:
    """Lowest where x is 1 and y a half, but it may fail there."""

    def objective(trial: Trial) -> float:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        if fails(x, y):
            if how == "raise":
                raise MemoryError
            return float(how)
        return (1 - x) + (y - 0.5) ** 2

    return objective


def study_of(objective: Callable[[Trial], float], n: int, seed: int = 0) -> optuna.Study:
    study = optuna.create_study(sampler=HypernetSampler(seed=seed))
    study.optimize(objective, n_trials=n, catch=MemoryError)
    return study


def n_failed(study: optuna.Study) -> int:
    return sum(trial.state == TrialState.FAIL for trial in study.trials)


@pytest.mark.parametrize(("how", "seed"), [("raise", 0), ("nan", 1), ("inf", 1), ("1e9", 2)])
def test_the_edge_of_a_region_of_failures_is_found(how: str, seed: int) -> None:
    """Where the best there is lies; without anything learnt 36 of 40 fail, and .46 is reached."""
    study = study_of(failing(lambda x, y: x > 0.7, how), 40, seed)

    assert study.best_value < 0.32


@pytest.mark.parametrize("how", ["raise", "inf"])
def test_where_nearly_all_fail_one_that_did_not_is_enough(how: str) -> None:
    """One configuration in forty does not."""
    x = [f"x{i}" for i in range(4)]

    def objective(trial: Trial) -> float:
        values = [trial.suggest_float(name, 0, 1) for name in x]
        if max(values) >= 0.4:
            if how == "raise":
                raise MemoryError
            return float(how)
        return sum((value - 0.15) ** 2 for value in values)

    for seed in range(3):
        study = optuna.create_study(sampler=HypernetSampler(seed=seed))
        study.enqueue_trial(dict.fromkeys(x, 0.38))
        study.optimize(objective, n_trials=40, catch=MemoryError)

        assert study.best_value < 0.01


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


constrained = pytest.mark.skipif(
    not hasattr(Trial, "set_constraint"), reason="Optuna 5 has constraints"
)


@constrained
@pytest.mark.parametrize(("name", "form"), [SIGNED, CUBED, HINGE, INDICATOR])
def test_the_edge_of_what_is_allowed_is_found(name: str, form: Callable[[Array], Array]) -> None:
    """Where the best there is lies, at .3; it is far better beyond."""

    def objective(trial: Trial) -> float:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        trial.set_constraint("x", float(form(np.array(x - 0.7))))
        return (1 - x) + (y - 0.5) ** 2

    assert study_of(objective, 30).best_value < 0.32


@constrained
def test_a_study_that_began_without_a_feasible_trial_finds_one() -> None:
    def objective(trial: Trial) -> float:
        x = [trial.suggest_float(name, 0, 1) for name in "abcd"]
        trial.set_constraint("near", sum((one - 0.2) ** 2 for one in x) - 0.04)
        return -sum(x)

    study = study_of(objective, 40)

    assert all(max(trial.constraints.values()) > 0 for trial in study.trials[:5])
    assert study.best_value < -1.1  # -1.2 is the lowest


@constrained
def test_running_trials_may_be_feasible_or_not() -> None:
    """Four at a time: none is where another one of them is."""

    def objective(trial: Trial) -> float:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        trial.set_constraint("x", x - 0.7)
        return (1 - x) + (y - 0.5) ** 2

    study = optuna.create_study(sampler=HypernetSampler(seed=0))
    for _ in range(8):
        together = [study.ask() for _ in range(4)]
        values = [objective(trial) for trial in together]
        at = np.array([list(trial.params.values()) for trial in together])
        apart = np.abs(at[:, None] - at).max(2) + np.eye(4)
        assert apart.min() > 1e-5
        for trial, value in zip(together, values, strict=True):
            study.tell(trial, value)

    assert study.best_value < 0.32
