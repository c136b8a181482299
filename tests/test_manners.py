"""How the sampler behaves on real input: odd values, odd trials, odd studies, odd arguments.

Warnings are errors here, so every test also says that nothing was warned of.
"""

from __future__ import annotations

import copy
import math
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.samplers import PartialFixedSampler
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import Trial
from optuna.trial import TrialState
from optuna.trial import create_trial
from problems import assert_in_range
from problems import every_kind
from problems import is_valid
from problems import optimized
from problems import params_of
from problems import quadratic

from optuna_hypernet import HypernetSampler
from optuna_hypernet.surrogate.posterior import Posterior
from optuna_hypernet.threads import one_blas_thread


def hypernet(**arguments: Any) -> HypernetSampler:
    return HypernetSampler(**{"seed": 0, "n_startup_trials": 1, **arguments})


# Values.


@pytest.mark.parametrize(
    "value",
    [
        lambda n: 1.0,
        lambda n: 0.0,
        lambda n: math.inf,
        lambda n: -math.inf,
        lambda n: math.inf if n % 2 else float(n),
        lambda n: [math.inf, -math.inf, 1.0][n % 3],
        lambda n: 1e300 * (n - 3),
        lambda n: 1.7e308 * (-1) ** n,
        lambda n: 1e-300 * (n - 3),
        lambda n: 5e-324 * n,
        lambda n: 1 + 1e-12 * n,
        lambda n: 10.0 ** (60 * n - 300),
        lambda n: 7.0 if n else 8.0,
    ],
)
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_odd_values(value: Callable[[int], float], direction: str) -> None:
    def objective(trial: Trial) -> float:
        every_kind(trial)
        return value(trial.number)

    study = optimized(hypernet(), objective, 10, direction=direction)

    assert_in_range(study.trials)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert len({repr(params) for params in params_of(study)}) == 10


def test_nan_fails_the_trial_and_the_study_goes_on() -> None:
    def objective(trial: Trial) -> float:
        return math.nan if trial.number % 3 == 0 else quadratic(trial)

    study = optimized(hypernet(), objective, 12)

    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"] * 4
    assert_in_range(study.trials)


def test_nothing_but_nan() -> None:
    def objective(trial: Trial) -> float:
        return math.nan * quadratic(trial)

    study = optimized(hypernet(n_startup_trials=0), objective, 10)

    assert len({repr(params) for params in params_of(study)}) == 10


def test_one_trial() -> None:
    study = optimized(hypernet(n_startup_trials=0), quadratic, 2)

    assert study.trials[0].params != study.trials[1].params


def test_duplicates() -> None:
    study = optuna.create_study(sampler=hypernet())
    for _ in range(10):
        study.enqueue_trial({"x": 0.5, "y": 0.5})
    study.optimize(quadratic, n_trials=14)

    assert [params for params in params_of(study)[:10] if params != {"x": 0.5, "y": 0.5}] == []
    assert len({repr(params) for params in params_of(study)[10:]}) == 4


def test_duplicates_with_contradicting_values() -> None:
    study = optuna.create_study(sampler=hypernet())
    for _ in range(10):
        study.enqueue_trial({"x": 0.5, "y": 0.5})
    study.optimize(lambda trial: quadratic(trial) + trial.number, n_trials=14)

    assert_in_range(study.trials)


# Spaces.


def test_200_categories() -> None:
    def objective(trial: Trial) -> float:
        word = trial.suggest_categorical("word", [f"w{k}" for k in range(200)])
        return float(word[1:]) + trial.suggest_float("x", 0, 1)

    study = optimized(hypernet(), objective, 12)

    assert_in_range(study.trials)
    assert len({params["word"] for params in params_of(study)}) > 3


def test_100_floats() -> None:
    def objective(trial: Trial) -> float:
        return sum(trial.suggest_float(f"x{k}", -1, 1) ** 2 for k in range(100))

    study = optimized(hypernet(), objective, 8)

    assert_in_range(study.trials)
    assert len({repr(params) for params in params_of(study)}) == 8


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (lambda n: 0, lambda n: 1 + n),  # growing
        (lambda n: 0, lambda n: 20 - n),  # shrinking
        (lambda n: 10 * n, lambda n: 10 * n + 5),  # disjoint
        (lambda n: 10 * n, lambda n: 10 * n + 10),  # touching
        (lambda n: 0, lambda n: n % 2),  # single-valued half of the time
    ],
)
def test_dynamic_ranges(low: Callable[[int], int], high: Callable[[int], int]) -> None:
    def objective(trial: Trial) -> float:
        n = trial.number
        x = trial.suggest_float("x", low(n), high(n))
        y = trial.suggest_int("y", low(n), high(n))
        z = trial.suggest_float("z", low(n) + 1, high(n) + 1, log=True)
        return x + y + z

    study = optimized(hypernet(warn_independent_sampling=False), objective, 12)

    assert_in_range(study.trials)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}


def test_growing_range_is_searched_together_not_at_random() -> None:
    def objective(trial: Trial) -> float:
        return trial.suggest_float("x", 0, 10 + trial.number)

    study = optimized(hypernet(n_startup_trials=3), objective, 12)

    assert min(params["x"] for params in params_of(study)) < 0.1


@pytest.mark.parametrize("n_before", [10, 20])
@pytest.mark.parametrize("better", [0, 3])
def test_a_parameter_that_the_objective_loses_is_forgotten(n_before: int, better: int) -> None:
    """Before, one configuration was repeated to the end, and what was known was not used."""

    def rest(trial: Trial) -> float:
        a, b = trial.suggest_int("a", 1, 8), trial.suggest_int("b", 1, 8)
        return abs(a - 5) + abs(b - 3)

    def whole(trial: Trial) -> float:
        return rest(trial) + (trial.suggest_categorical("k", ["u", "v"]) == "u")

    for seed in range(3):
        study = optuna.create_study(sampler=HypernetSampler(seed=seed))
        study.optimize(whole, n_trials=n_before)
        study.optimize(lambda trial: rest(trial) - better, n_trials=15)
        after = params_of(study)[n_before:]

        assert {"a": 5, "b": 3} in after[:10]
        assert len({repr(params) for params in after}) >= 12


def test_what_a_rule_says_is_idle_is_searched_once_it_is_asked_for() -> None:
    """The objective asks for it all the same from then on: its value is no default."""
    also = [False]

    def objective(trial: Trial) -> float:
        model = trial.suggest_categorical("model", ["tree", "line"])
        bent = model == "tree"
        depth = trial.suggest_float("depth", 0, 1) if bent or also[0] else 0.9
        return (depth - 0.9) ** 2 + 0.5 * bent

    study = optuna.create_study(sampler=HypernetSampler(seed=0))
    for model, depth in (("tree", 0.1), ("line", None), ("tree", 0.85), ("line", None)):
        study.enqueue_trial({"model": model, **({} if depth is None else {"depth": depth})})
    study.optimize(objective, n_trials=14)
    also[0] = True
    study.enqueue_trial({"model": "line"})
    study.optimize(objective, n_trials=1)

    assert abs(study.trials[-1].params["depth"] - 0.9) < 0.2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "suggest",
    [
        lambda trial: trial.suggest_float("rate", 1e-6, 1) * 1e4,
        lambda trial: trial.suggest_int("n", 1, 10_000) / 5,
    ],
)
def test_what_is_good_near_the_low_end_is_found_without_log(
    suggest: Callable[[Trial], float], seed: int
) -> None:
    def objective(trial: Trial) -> float:
        return abs(math.log10(suggest(trial))) + (trial.suggest_float("x", 0, 1) - 0.3) ** 2

    study = optuna.create_study(sampler=HypernetSampler(seed=seed))
    study.optimize(objective, n_trials=25)

    assert study.best_value < 0.05


def test_kind_of_parameter_changes() -> None:
    """Only added trials can do that: Optuna refuses it of an objective."""
    study = optuna.create_study(sampler=hypernet(warn_independent_sampling=False))
    for kind, value in (
        (IntDistribution(1, 5), 1),
        (FloatDistribution(1, 5, log=True), 1.0),
        (CategoricalDistribution(["a", "b"]), "a"),
    ):
        study.add_trial(create_trial(params={"x": value}, distributions={"x": kind}, value=0.0))
    study.optimize(quadratic, n_trials=6)

    assert_in_range(study.trials)


def test_objective_without_parameters() -> None:
    assert len(optimized(hypernet(), lambda trial: 1.0, 4).trials) == 4


def test_only_single_valued_parameters() -> None:
    def objective(trial: Trial) -> float:
        trial.suggest_categorical("choice", ["only"])
        return trial.suggest_float("x", 1.0, 1.0) + trial.suggest_int("k", 3, 3)

    study = optimized(hypernet(), objective, 4)

    assert params_of(study) == [{"choice": "only", "x": 1.0, "k": 3}] * 4


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [
        (1e10, 1e10 + 2e-6, True),  # logarithms that float64 cannot tell apart
        (0.0, 5e-324, False),
        (5e-324, 1e-300, True),
        (-1e-320, 1e-320, False),
        (1e300, 1.7976931348623157e308, True),
        (-8e307, 8e307, False),
        (1e-315, 1e-308, False),
        (2.3e-308, 1e-292, False),
        (1e-150, 1e308, False),
    ],
)
def test_ranges_at_the_limits_of_floats(low: float, high: float, log: bool) -> None:
    def objective(trial: Trial) -> float:
        trial.suggest_float("x", low, high, log=log)
        return trial.suggest_float("y", 0, 1)

    assert_in_range(optimized(hypernet(), objective, 6).trials)


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [
        (2**60, 2**60 + 5, False),
        (2**60, 2**60 + 5, True),
        (10**15, 10**15 + 10, True),
        (-(2**62), 2**62, False),
        (1, 2**62, True),
        (1, 2**62, False),
    ],
)
def test_ranges_at_the_limits_of_ints(low: int, high: int, log: bool) -> None:
    def objective(trial: Trial) -> float:
        trial.suggest_int("x", low, high, log=log)
        return trial.suggest_float("y", 0, 1)

    assert_in_range(optimized(hypernet(), objective, 6).trials)


class _Optimizer:
    """A choice that equals nothing but itself, not even its copy."""


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_choices_of_any_type() -> None:
    choices = (_Optimizer(), _Optimizer, math.nan, (1, 2), None, True, "word", len)

    def objective(trial: Trial) -> float:
        choice = trial.suggest_categorical("choice", choices)
        return float([choice is one for one in choices].index(True))

    study = optimized(hypernet(), objective, 12)

    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}


def test_a_parameter_with_a_range_of_its_own_in_each_branch_is_learnt(
    optuna_log: pytest.LogCaptureFixture,
) -> None:
    """What is suggested for one branch lies outside of what the other asks for."""

    def objective(trial: Trial) -> float:
        if trial.suggest_categorical("method", ["a", "b"]) == "a":
            return abs(math.log10(trial.suggest_float("rate", 1e-5, 1e-3, log=True)) + 4)
        return abs(math.log10(trial.suggest_float("rate", 1e-2, 1, log=True)) + 1) + 1

    studies = [optimized(hypernet(seed=seed), objective, 30) for seed in range(3)]

    assert all(study.best_value < 0.03 for study in studies)
    assert optuna_log.records == []


# Trials.


def test_failed_trials_are_not_repeated() -> None:
    def objective(trial: Trial) -> float:
        k = trial.suggest_int("k", 0, 9)
        if k < 8:
            raise RuntimeError
        return float(k)

    study = optuna.create_study(sampler=hypernet(n_startup_trials=0))
    study.optimize(objective, n_trials=10, catch=RuntimeError)

    assert sorted(params["k"] for params in params_of(study)) == list(range(10))


def test_pruned_with_and_without_reports() -> None:
    def objective(trial: Trial) -> float:
        value = every_kind(trial)
        if trial.number % 3 == 0:
            raise optuna.TrialPruned
        trial.report([value, math.nan, math.inf, -math.inf][trial.number % 4], step=1)
        if trial.number % 3 == 1:
            raise optuna.TrialPruned
        return value

    study = optimized(hypernet(), objective, 16)

    assert_in_range(study.trials)


@pytest.mark.parametrize("report", [None, math.nan])
def test_a_region_that_is_pruned_without_a_report_is_left(report: float | None) -> None:
    """As is done where a configuration is not valid, or has diverged."""

    def objective(trial: Trial) -> float:
        rate, width = trial.suggest_float("rate", 0, 1), trial.suggest_float("width", 0, 1)
        if rate > 0.5:
            if report is not None:
                trial.report(report, 0)
            raise optuna.TrialPruned
        return (1 - rate) + (width - 0.5) ** 2

    trials = optimized(hypernet(), objective, 30).trials
    assert sum(trial.state == TrialState.PRUNED for trial in trials[10:]) < 10


def test_a_region_of_infinities_is_left() -> None:
    """One finite value alone, too, is better than none."""

    def objective(trial: Trial) -> float:
        x = [trial.suggest_float(f"x{i}", 0, 1) for i in range(4)]
        return sum((one - 0.15) ** 2 for one in x) if max(x) < 0.4 else math.inf

    study = optuna.create_study(sampler=HypernetSampler(seed=0))
    study.enqueue_trial({f"x{i}": 0.38 for i in range(4)})
    study.optimize(objective, 30)
    assert sum(trial.value < math.inf for trial in study.trials) > 5


def test_two_parameters_that_decide_together_cause_no_repeats() -> None:
    """There are eight configurations: the third parameter is asked for at one of four."""

    def objective(trial: Trial) -> float:
        a, b = trial.suggest_int("a", 0, 1), trial.suggest_int("b", 0, 1)
        return a + b - (trial.suggest_int("c", 0, 4) / 10 if a and b else 0)

    assert len({str(params) for params in params_of(optimized(hypernet(), objective, 8))}) == 8


def together(trial: Trial) -> float:
    """Two of nine pairs ask for more."""
    a, b = (trial.suggest_categorical(name, [0, 1, 2]) for name in "ab")
    more = trial.suggest_int("c", 0, 9) / 10 if (a, b) in [(2, 2), (1, 0)] else 0.0
    return float(a**2 + (b - 1) ** 2 + more)


def often(trials: list[optuna.trial.FrozenTrial]) -> int:
    """How often the most frequent configuration of those three was tried."""
    rows = [tuple(trial.params.get(name) for name in "abc") for trial in trials]
    return max(map(rows.count, rows))


@pytest.mark.parametrize("beside", ["nothing", "failures", "a moving value", "a killed worker"])
def test_nor_does_what_happens_beside_them(beside: str) -> None:
    def objective(trial: Trial) -> float:
        if beside == "a moving value":
            trial.suggest_int("fidelity", trial.number, trial.number)
        if beside == "failures" and trial.number in (6, 9, 12):
            trial.suggest_categorical("a", [0, 1, 2])
            raise RuntimeError
        return together(trial)

    study = optuna.create_study(sampler=HypernetSampler(seed=1))
    if beside == "a killed worker":
        study.ask().suggest_float("rare", 0, 1)
    for pair in ({"a": 2, "b": 2, "c": 5}, {"a": 1, "b": 0, "c": 3}):
        study.enqueue_trial(pair)
    study.optimize(objective, n_trials=27, catch=RuntimeError)
    assert often(study.get_trials(states=[TrialState.COMPLETE])) <= 3


def test_nor_does_a_parameter_that_is_fixed_by_now() -> None:
    def objective(trial: Trial) -> float:
        return (trial.suggest_categorical("m", ["x", "y"]) == "x") + together(trial)

    study = optuna.create_study(sampler=HypernetSampler(seed=1))
    for pair in ({"a": 2, "b": 2, "c": 5}, {"a": 1, "b": 0, "c": 3}):
        study.enqueue_trial(pair)
    study.optimize(objective, n_trials=10)
    study.sampler = PartialFixedSampler({"m": "x"}, HypernetSampler(seed=1))
    study.optimize(objective, n_trials=20)
    assert often(study.trials[10:]) <= 3


def test_a_trial_that_is_interrupted_does_not_undo_what_was_learnt() -> None:
    def objective(trial: Trial) -> float:
        model = trial.suggest_categorical("model", ["a", "b", "c"])
        if trial.number == 5:
            raise RuntimeError
        x = trial.suggest_int("x", 0, 20)
        if model == "c":
            return abs(x - 15) / 5
        own = sum(trial.suggest_float(f"{model}{i}", 0, 1) for i in range(2))
        return abs(x - (4 if model == "a" else 9)) / 5 + own + 0.5

    study = optuna.create_study(sampler=HypernetSampler(seed=0))
    study.optimize(objective, 40, catch=RuntimeError)
    assert len({str(trial.params) for trial in study.trials}) == 40


def test_nothing_but_pruned() -> None:
    def objective(trial: Trial) -> float:
        trial.report(quadratic(trial), step=3)
        raise optuna.TrialPruned

    study = optimized(hypernet(), objective, 12)

    assert len({repr(params) for params in params_of(study)}) == 12


def test_running_and_waiting_trials() -> None:
    study = optuna.create_study(sampler=hypernet())
    study.optimize(every_kind, n_trials=4)
    study.enqueue_trial({"float": 0.0}, user_attrs={"waits": True})
    for _ in range(8):
        study.ask()  # takes the enqueued one first, and asks for nothing
    study.enqueue_trial({"float": 1.0})
    for _ in range(4):
        every_kind(study.ask())  # left running
    study.optimize(every_kind, n_trials=4)

    assert_in_range(study.trials)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_running_trials_keep_a_batch_apart(seed: int) -> None:
    study = optimized(hypernet(seed=seed), quadratic, 6)
    batch = [study.ask() for _ in range(6)]
    for trial in batch:
        quadratic(trial)
    points = np.array([[trial.params["x"], trial.params["y"]] for trial in batch])
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)

    assert distance[np.triu_indices(6, 1)].min() > 1e-3


def test_batch_of_a_discrete_space_has_no_repeats() -> None:
    """Nor does it repeat what is finished, until all twelve are taken."""

    def objective(trial: Trial) -> float:
        return trial.suggest_int("k", 0, 3) * trial.suggest_categorical("c", [-1, 1, 2])

    study = optimized(hypernet(), objective, 3)
    for _ in range(9):
        objective(study.ask())

    assert len({repr(sorted(params.items())) for params in params_of(study)}) == 12


def test_added_trials_are_learnt_from() -> None:
    kinds = {"x": FloatDistribution(-1, 1), "y": FloatDistribution(-1, 1)}
    study = optuna.create_study(sampler=hypernet(n_startup_trials=6))
    for x in np.linspace(-1, 1, 7):
        for y in np.linspace(-1, 1, 3):
            params = {"x": float(x), "y": float(y)}
            value = (x - 0.3) ** 2 + (y + 0.4) ** 2
            study.add_trial(create_trial(params=params, distributions=kinds, value=value))
    study.optimize(quadratic, n_trials=5)

    assert study.best_value < 1e-3


def test_added_trial_in_every_state() -> None:
    kinds = {"x": FloatDistribution(-1, 1)}
    study = optimized(hypernet(), quadratic, 3)
    study.add_trial(create_trial(state=TrialState.FAIL, params={"x": 0.1}, distributions=kinds))
    study.add_trial(create_trial(state=TrialState.PRUNED, params={"x": 0.2}, distributions=kinds))
    study.add_trial(create_trial(state=TrialState.RUNNING, params={"x": 0.3}, distributions=kinds))
    study.add_trial(create_trial(state=TrialState.WAITING))
    study.add_trial(create_trial(value=1.0))
    study.add_trial(create_trial(value=-math.inf, params={"x": 0.4}, distributions=kinds))
    study.optimize(quadratic, n_trials=4)

    assert_in_range(study.trials)


def test_added_trials_outside_of_the_range() -> None:
    kinds = {"x": FloatDistribution(-1e6, 1e6), "y": FloatDistribution(-1e6, 1e6)}
    study = optuna.create_study(sampler=hypernet())
    for x in (-1e6, -3.0, 0.0, 3.0, 1e6):
        study.add_trial(create_trial(params={"x": x, "y": -x}, distributions=kinds, value=x))
    study.optimize(quadratic, n_trials=6)

    assert_in_range(study.trials)


@pytest.mark.parametrize(
    "enqueued",
    [
        {"float": 0.25},
        {"choice": "adam"},
        {"choice": "adam", "beta": 0.125},
        {"log_int": 17, "step": 0.3, "int_step": 48},
        {"beta": 0.75},  # without the choice that asks for it
        {"unknown": 5},
        {"float": -1.0, "log": 1e-1, "int": 4},  # at the bounds
    ],
)
def test_enqueued_values_are_kept(enqueued: dict[str, Any]) -> None:
    study = optimized(hypernet(), every_kind, 8)
    study.enqueue_trial(enqueued)
    study.optimize(every_kind, n_trials=1)
    got = study.trials[-1].params

    assert {name: got[name] for name in enqueued if name in got} == {
        name: value for name, value in enqueued.items() if name in got
    }
    assert "beta" not in enqueued or "choice" not in enqueued or got["beta"] == 0.125
    assert_in_range(study.trials)


@pytest.mark.parametrize("names", ["xy", "yx"])
def test_enqueued_trial_is_completed_with_the_model(names: str) -> None:
    """The rest suits what was enqueued, whether that is asked for before it or after it."""

    def objective(trial: Trial) -> float:
        asked: dict[str, Any] = {}
        for name in names:
            if name == "x":
                asked["x"] = trial.suggest_categorical("x", ["low", "high"])
            else:
                asked["y"] = trial.suggest_float("y", 0, 1)
        return float((asked["y"] - (0.9 if asked["x"] == "high" else 0.1)) ** 2)

    study = optimized(hypernet(n_startup_trials=4), objective, 20)
    for x in ("high", "low", "low", "high"):
        study.enqueue_trial({"x": x})
    study.optimize(objective, n_trials=4)
    completed = params_of(study)[-4:]

    assert [params["x"] for params in completed] == ["high", "low", "low", "high"]
    assert all((params["y"] > 0.5) == (params["x"] == "high") for params in completed)


@pytest.mark.filterwarnings("ignore:Fixed parameter")
@pytest.mark.parametrize("odd", [9.0, -math.inf, math.inf, "word", None])
def test_odd_enqueued_value(odd: Any) -> None:
    """What Optuna then does with the trial is its affair: the same as with RandomSampler."""
    outcomes = []
    for sampler in (hypernet(), RandomSampler(seed=0)):
        study = optimized(sampler, quadratic, 5)
        study.enqueue_trial({"y": odd})
        study.optimize(quadratic, n_trials=1, catch=(ValueError, TypeError))
        study.optimize(quadratic, n_trials=1)
        outcomes.append([trial.state for trial in study.trials])

    assert outcomes[0] == outcomes[1]


# Studies.


def test_hyperband() -> None:
    def objective(trial: Trial) -> float:
        value = every_kind(trial)
        for step in range(9):
            trial.report(value + 1 / (step + 1), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9, reduction_factor=3)
    study = optimized(hypernet(), objective, 20, pruner=pruner)

    assert_in_range(study.trials)


def test_one_sampler_for_two_studies_in_turn() -> None:
    sampler = hypernet()
    for _ in range(2):
        optimized(sampler, quadratic, 6)
        assert_in_range(optimized(sampler, every_kind, 6).trials)


def test_one_sampler_for_two_studies_trial_by_trial() -> None:
    """Each goes as it would have gone alone, though numbers and names are the same in both."""

    def upside_down(trial: Trial) -> float:
        return -quadratic(trial)

    def started(sampler: HypernetSampler) -> Study:
        study = optuna.create_study(sampler=sampler)
        study.enqueue_trial({"x": 0.0, "y": 0.0})  # not left to the independent sampler
        return study

    sampler = hypernet()
    objectives = (quadratic, upside_down)
    together = [started(sampler) for _ in objectives]
    for _ in range(9):
        for study, objective in zip(together, objectives, strict=True):
            study.optimize(objective, n_trials=1)
    for study, objective in zip(together, objectives, strict=True):
        alone = started(hypernet())
        alone.optimize(objective, n_trials=9)

        assert params_of(study) == params_of(alone)


@pytest.mark.parametrize(
    "choices",
    [([1], object(), object()), ({"f": print}, {"f": len}), ({(1, 2): 3}, [np.int64(3)])],
)
@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_nested_choices_that_no_storage_on_disk_could_hold(choices: tuple[Any, ...]) -> None:
    def objective(trial: Trial) -> float:
        found = trial.suggest_categorical("what", choices)
        return float(found is not choices[-1]) + trial.suggest_float("x", 0, 1)

    study = optimized(hypernet(), objective, 8)

    assert study.best_value < 1  # the objective was given its own


@pytest.mark.parametrize("choices", [((64,), (64, 64), (128,)), ([64], [64, 64], {"units": 1})])
@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_choices_that_a_storage_returns_as_lists(choices: tuple[Any, ...]) -> None:
    """The objective gets its own, also of a sampler that has not seen it ask."""
    given = []

    def objective(trial: Trial) -> float:
        given.append(trial.suggest_categorical("layers", choices))
        return len(given[-1]) + trial.suggest_float("x", -1, 1) ** 2

    study = optimized(hypernet(), objective, 8, storage="sqlite:///:memory:")
    study.sampler = hypernet()
    study.optimize(objective, n_trials=8)

    assert all(any(one is choice for choice in choices) for one in given)
    assert [len(one) for one in given].count(2) < 8
    assert study.best_value < 1.01


@pytest.mark.skipif(not hasattr(Trial, "set_constraint"), reason="Optuna 5 has constraints")
def test_constraints_are_kept() -> None:
    """The best place is where one ends: close to that as many trials violate it as do not."""

    def objective(trial: Trial) -> float:
        x, y = trial.suggest_float("x", -5, 5), trial.suggest_float("y", -5, 5)
        trial.set_constraint("at least two", 2 - x)
        return x * x + y * y

    study = optimized(HypernetSampler(seed=0), objective, 40)

    assert sum(trial.params["x"] >= 1.9 for trial in study.trials) > 20
    assert 4 <= study.best_value < 4.01


@pytest.mark.parametrize("storages", ["memory", "sqlite"])
def test_two_studies_of_the_same_name_in_two_storages(storages: str, tmp_path: Any) -> None:
    """The second one is noticed though all its ids, numbers and names are those of the first."""
    sampler = hypernet()
    for k, sign in enumerate((1, -1)):
        url = f"sqlite:///{tmp_path}/{k}.db" if storages == "sqlite" else None
        study = optuna.create_study(sampler=sampler, storage=url, study_name="same")
        for x in np.linspace(-1, 1, 9):
            study.add_trial(
                create_trial(
                    params={"x": float(x)},
                    distributions={"x": FloatDistribution(-1, 1)},
                    value=sign * float(x),
                )
            )
        study.optimize(lambda trial: sign * trial.suggest_float("x", -1, 1), n_trials=2)  # noqa: B023

        assert [sign * params["x"] for params in params_of(study)[-2:]] < [-0.5, -0.5]


def test_callbacks_and_stop() -> None:
    seen = []

    def callback(study: Study, trial: Any) -> None:
        seen.append(trial.number)
        if trial.number == 6:
            study.stop()

    study = optuna.create_study(sampler=hypernet())
    study.optimize(quadratic, n_trials=50, callbacks=[callback])

    assert seen == list(range(7))


def test_stop_from_the_objective() -> None:
    study = optuna.create_study(sampler=hypernet())

    def objective(trial: Trial) -> float:
        if trial.number == 6:
            study.stop()
        return quadratic(trial)

    study.optimize(objective, n_trials=50)

    assert len(study.trials) == 7


@pytest.mark.parametrize(
    "fixed",
    [{"float": 0.5}, {"choice": None}, {"choice": "adam", "int": 2}, {"single": 0.5}, {"new": 1}],
)
def test_partial_fixed_sampler(fixed: dict[str, Any]) -> None:
    study = optimized(PartialFixedSampler(fixed, hypernet()), every_kind, 10)

    for params in params_of(study):
        assert {name: params[name] for name in fixed if name in params} == {
            name: value for name, value in fixed.items() if name in params
        }
    assert_in_range(study.trials)


def test_partial_fixed_sampler_with_everything_fixed() -> None:
    fixed = {"x": 0.5, "y": -0.5}

    assert (
        params_of(optimized(PartialFixedSampler(fixed, hypernet()), quadratic, 5)) == [fixed] * 5
    )


def test_ask_with_fixed_distributions() -> None:
    kinds = {"x": FloatDistribution(0, 1), "k": IntDistribution(1, 8, log=True)}
    study = optuna.create_study(sampler=hypernet())
    for _ in range(10):
        trial = study.ask(kinds)
        study.tell(trial, trial.params["x"] + trial.params["k"])

    assert_in_range(study.trials)


# Several objectives.


def schaffer(trial: Trial) -> tuple[float, float]:
    """The nearer to one of two points, the further from the other. Best: f2 = (1 - √f1)²."""
    x, y = trial.suggest_float("x", -2, 3), trial.suggest_float("y", -2, 3)
    return x**2 + (y - 0.3) ** 2, (x - 1) ** 2 + (y - 0.3) ** 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("signs", [(1, 1), (-1, 1)])
def test_a_front_is_found(seed: int, signs: tuple[int, int]) -> None:
    """The whole of it dominates 5/6 of the unit square."""
    study = optuna.create_study(
        sampler=hypernet(seed=seed),
        directions=["minimize" if s > 0 else "maximize" for s in signs],
    )
    study.optimize(lambda trial: np.multiply(schaffer(trial), signs).tolist(), n_trials=25)
    found = np.array([np.multiply(trial.values, signs) for trial in study.best_trials])
    x, y = np.minimum(found[np.argsort(found[:, 0])], 1).T

    assert np.diff(x, append=1) @ (1 - np.minimum.accumulate(y)) > 0.75  # random points: < 0.55


def test_three_objectives_with_every_kind_of_parameter(
    optuna_log: pytest.LogCaptureFixture,
) -> None:
    def objective(trial: Trial) -> tuple[float, float, float]:
        loss = every_kind(trial)
        return loss, trial.params["int"], -trial.params["float"]

    study = optuna.create_study(
        sampler=hypernet(), directions=["minimize", "maximize", "minimize"]
    )
    study.optimize(objective, n_trials=12)

    assert_in_range(study.trials)
    assert [record.getMessage() for record in optuna_log.records] == []


@pytest.mark.skipif(not hasattr(Trial, "set_constraint"), reason="Optuna 5 has constraints")
def test_of_several_objectives_feasible_trials_are_sought() -> None:
    """One part of the front violates a constraint, and one part of the box fails."""

    def objective(trial: Trial) -> tuple[float, float]:
        values = schaffer(trial)
        trial.set_constraint("c", trial.params["x"] - 0.5)
        return (math.nan, math.nan) if trial.params["y"] < -0.5 else values

    study = optuna.create_study(sampler=hypernet(), directions=["minimize"] * 2)
    study.optimize(objective, n_trials=30)
    late = study.trials[15:]

    assert sum(trial.state == TrialState.FAIL for trial in late) <= 1
    near = [trial for trial in late if abs(trial.params["y"] - 0.3) < 0.1]
    assert sum(0 <= trial.params["x"] <= 0.51 for trial in near) >= 10


def test_several_objectives_that_never_change() -> None:
    study = optuna.create_study(sampler=hypernet(), directions=["minimize"] * 2)
    study.optimize(lambda trial: (every_kind(trial) * 0, 1.0), n_trials=8)

    assert_in_range(study.trials)
    assert len({repr(params) for params in params_of(study)}) == 8


def test_one_sampler_for_one_objective_and_for_two() -> None:
    sampler = hypernet()
    for directions in (["minimize"] * 2, ["minimize"], ["maximize"] * 2):
        study = optuna.create_study(sampler=sampler, directions=directions)
        study.optimize(lambda trial: schaffer(trial)[: len(study.directions)], n_trials=7)  # noqa: B023

        fresh = optuna.create_study(sampler=hypernet(), directions=directions)
        fresh.add_trials(study.trials[:1])  # the first is the independent sampler's
        fresh.optimize(lambda trial: schaffer(trial)[: len(fresh.directions)], n_trials=6)  # noqa: B023
        assert params_of(fresh) == params_of(study)


# Numerical trouble.


def test_numerical_trouble_is_told_once(
    monkeypatch: pytest.MonkeyPatch, optuna_log: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise np.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr(Posterior, "_condition", broken)
    study = optimized(hypernet(), every_kind, 12)

    assert_in_range(study.trials)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert len({repr(params) for params in params_of(study)}) == 12
    messages = [record.getMessage() for record in optuna_log.records]
    assert len([message for message in messages if "not positive definite" in message]) == 1


@pytest.mark.parametrize(
    "error", [ZeroDivisionError, FloatingPointError, ValueError, OverflowError]
)
def test_any_arithmetic_error_is_survived(
    monkeypatch: pytest.MonkeyPatch, optuna_log: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    def broken(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Posterior, "predict", broken)

    assert_in_range(optimized(hypernet(), every_kind, 6).trials)
    assert any("could not model" in record.getMessage() for record in optuna_log.records)


def test_model_comes_back_after_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise np.linalg.LinAlgError

    study = optuna.create_study(sampler=hypernet())
    with monkeypatch.context() as patch:
        patch.setattr(Posterior, "_condition", broken)
        study.optimize(quadratic, n_trials=8)
    study.optimize(quadratic, n_trials=12)

    assert study.best_value < 1e-2


# The process around it.


def _suggest_in_all_ways() -> None:
    optimized(HypernetSampler(seed=0, n_startup_trials=2), every_kind, 6)
    optimized(HypernetSampler(n_startup_trials=2), lambda trial: math.inf, 3)


def test_random_states_of_others_are_left_alone() -> None:
    np.random.seed(3)  # noqa: NPY002
    import random

    random.seed(3)
    before = [np.random.get_state()[1].tolist(), random.getstate()]  # noqa: NPY002
    _suggest_in_all_ways()

    assert [np.random.get_state()[1].tolist(), random.getstate()] == before  # noqa: NPY002


def test_numpy_settings_are_left_alone() -> None:
    with np.errstate(divide="call", over="raise", under="print", invalid="log"):
        before = np.geterr(), np.get_printoptions()
        _suggest_in_all_ways()

        assert (np.geterr(), np.get_printoptions()) == before


@pytest.mark.parametrize("exponent", [1.0, 60.0])
def test_every_numpy_error_raised_by_the_user_is_survived(exponent: float) -> None:
    """A user who debugs with ``np.seterr(all="raise")`` gets the same suggestions."""

    def objective(trial: Trial) -> float:
        return 10 ** min(exponent * (every_kind(trial) - 4), 300)

    usual = optimized(hypernet(), objective, 10)
    with np.errstate(all="raise"):
        strict = optimized(hypernet(), objective, 10)

    assert params_of(strict) == params_of(usual)


def test_filters_loggers_and_threads_are_left_alone() -> None:
    import logging

    names = [None, "optuna", "optuna_hypernet", "numpy"]
    loggers = [logging.getLogger(name) for name in names]

    def state() -> Any:
        levels = [(one.level, list(one.handlers), one.propagate, one.disabled) for one in loggers]
        return list(warnings.filters), levels, threading.active_count(), dict(os.environ)

    before = state()
    _suggest_in_all_ways()

    assert state() == before


def test_blas_threads_are_left_alone() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = threadpoolctl.threadpool_info()
        _suggest_in_all_ways()

        assert threadpoolctl.threadpool_info() == before


def test_blas_threads_are_left_alone_by_two_samplers_at_once() -> None:
    """The second comes while the first is there, and leaves after it."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    entered, leave = threading.Event(), threading.Event()

    def second() -> None:
        with one_blas_thread():
            entered.set()
            leave.wait(10)

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = threadpoolctl.threadpool_info()
        thread = threading.Thread(target=second)
        with one_blas_thread():
            thread.start()
            entered.wait(0.2)
        leave.set()
        thread.join(10)

        assert threadpoolctl.threadpool_info() == before


def test_suggestions_take_one_blas_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    inside = set()
    real = Posterior.predict

    def watched(self: Posterior, *arguments: Any) -> Any:
        inside.update(each["num_threads"] for each in threadpoolctl.threadpool_info())
        return real(self, *arguments)

    monkeypatch.setattr(Posterior, "predict", watched)
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        optimized(hypernet(), quadratic, 3)

    assert inside == {1}


def test_warnings_reset_by_the_user() -> None:
    """Nothing is warned of under ``simplefilter("error")``, not even what we ignore in tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_in_range(optimized(hypernet(), every_kind, 8).trials)


def test_import_and_suggestions_leave_torch_alone() -> None:
    code = (
        "import sys, optuna, optuna_hypernet\n"
        "optuna.logging.set_verbosity(optuna.logging.WARNING)\n"
        "study = optuna.create_study(sampler=optuna_hypernet.HypernetSampler(seed=0))\n"
        "study.optimize(lambda t: t.suggest_float('x', 0, 1), n_trials=9)\n"
        "sys.exit('torch' in sys.modules)"
    )

    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)


# Arguments.


@pytest.mark.parametrize("name", ["seed", "n_startup_trials"])
@pytest.mark.parametrize("wrong", [1.5, "1", True, [1]])
def test_counts_of_wrong_type(name: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=rf"{name} is .*, but it must be an int\. \w+ .*\."):
        HypernetSampler(**{name: wrong})


@pytest.mark.parametrize("name", ["seed", "n_startup_trials"])
def test_negative_counts(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} is -1, but it must be at least 0\. \w+ .*\."):
        HypernetSampler(**{name: -1})


def test_n_startup_trials_is_not_optional() -> None:
    with pytest.raises(TypeError, match="n_startup_trials is None, but it must be an int"):
        HypernetSampler(n_startup_trials=None)


@pytest.mark.parametrize("wrong", ["random", RandomSampler, 3])
def test_wrong_independent_sampler(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"independent_sampler must be a sampler .*Pass, for "):
        HypernetSampler(independent_sampler=wrong)


@pytest.mark.parametrize("wrong", [0, None, "no"])
def test_wrong_switch(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"warn_independent_sampling must be a bool.*Pass True or"):
        HypernetSampler(warn_independent_sampling=wrong)


def test_arguments_are_keywords() -> None:
    with pytest.raises(TypeError, match="positional"):
        HypernetSampler(0)


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**40, np.int64(5), np.uint8(5)])
def test_any_integer_is_a_seed(seed: Any) -> None:
    """Also one of more than the 32 bits that numpy's old generators take."""
    assert_in_range(optimized(HypernetSampler(seed=seed, n_startup_trials=1), quadratic, 4).trials)


# Independent sampling.


def _new_parameter_after_startup(trial: Trial) -> float:
    value = trial.suggest_float("x", 0, 1)
    return value + (trial.suggest_float("late", 0, 1) if trial.number == 6 else 0)


def test_independent_sampling_is_warned_of(optuna_log: pytest.LogCaptureFixture) -> None:
    optimized(hypernet(n_startup_trials=2), _new_parameter_after_startup, 8)

    messages = [record.getMessage() for record in optuna_log.records]
    assert len(messages) == 1
    assert "'late'" in messages[0]
    assert "trial 6" in messages[0]
    assert "RandomSampler" in messages[0]
    assert "warn_independent_sampling=False" in messages[0]


def test_independent_sampling_warning_is_switched_off(
    optuna_log: pytest.LogCaptureFixture,
) -> None:
    sampler = hypernet(n_startup_trials=2, warn_independent_sampling=False)
    optimized(sampler, _new_parameter_after_startup, 8)

    assert optuna_log.records == []


def test_independent_sampling_in_startup_is_not_warned_of(
    optuna_log: pytest.LogCaptureFixture,
) -> None:
    optimized(hypernet(n_startup_trials=20), _new_parameter_after_startup, 8)

    assert optuna_log.records == []


class _Recorder(RandomSampler):
    def __init__(self) -> None:
        super().__init__(seed=0)
        self.calls: list[str] = []

    def before_trial(self, *arguments: Any) -> None:
        self.calls.append("before")

    def after_trial(self, *arguments: Any) -> None:
        self.calls.append("after")

    def sample_independent(self, *arguments: Any) -> Any:
        self.calls.append(arguments[2])
        return super().sample_independent(*arguments)

    def reseed_rng(self) -> None:
        self.calls.append("reseed")
        super().reseed_rng()


def test_independent_sampler_gets_all_hooks() -> None:
    recorder = _Recorder()
    sampler = hypernet(independent_sampler=recorder)
    optimized(sampler, lambda trial: trial.suggest_float("x", 0, 1), 2)
    sampler.reseed_rng()

    assert recorder.calls == ["before", "x", "after", "before", "after", "reseed"]


# Copies.


def test_deepcopy_and_pickle_of_a_study_in_use() -> None:
    study = optimized(hypernet(), every_kind, 6)
    for twin in (copy.deepcopy(study), pickle.loads(pickle.dumps(study))):
        twin.optimize(every_kind, n_trials=2)
        assert_in_range(twin.trials)

    assert len(study.trials) == 6


def test_deepcopy_from_within_a_trial() -> None:
    study = optuna.create_study(sampler=hypernet())

    def objective(trial: Trial) -> float:
        copy.deepcopy(study.sampler)
        pickle.dumps(study.sampler)
        return quadratic(trial)

    study.optimize(objective, n_trials=4)


def test_pickle_is_small() -> None:
    """No trial, fit or lock travels with the sampler: all is read again from the study."""
    fresh = len(pickle.dumps(hypernet()))

    assert len(pickle.dumps(optimized(hypernet(), every_kind, 12).sampler)) < fresh + 500


def test_sklearn_clone() -> None:
    base = pytest.importorskip("sklearn.base")

    class Search(base.BaseEstimator):
        def __init__(self, study: Study) -> None:
            self.study = study

    study = optimized(hypernet(), quadratic, 4)
    twin = base.clone(Search(study))
    twin.study.optimize(quadratic, n_trials=2)

    assert len(study.trials) == 4
    assert len(twin.study.trials) == 6


def test_values_are_plain_python() -> None:
    study = optimized(hypernet(), every_kind, 8)
    space = study.sampler.infer_relative_search_space(study, study.trials[0])
    trial = study.ask()
    params = study.sampler.sample_relative(study, study.trials[trial.number], space)

    assert sorted(params) == sorted(space)
    for name, value in params.items():
        assert is_valid(value, space[name])
        assert type(value).__module__ == "builtins"
