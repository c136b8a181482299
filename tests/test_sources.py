"""Earlier studies: what they are worth, what they may differ in, and what they cost if wrong."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from differences import finite_differences
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.samplers import RandomSampler
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import Trial
from optuna.trial import TrialState
from optuna.trial import create_trial
from problems import assert_in_range
from problems import every_kind
from problems import optimized
from problems import params_of
from scipy.stats import spearmanr

from optuna_hypernet import HypernetSampler
from optuna_hypernet.history import History
from optuna_hypernet.prediction import Informed
from optuna_hypernet.sources import Source
from optuna_hypernet.sources import Sources
from optuna_hypernet.space import SearchSpace
from optuna_hypernet.surrogate.outcomes import Outcomes


SEEDS = range(6)


def shifted(by: float) -> Callable[[Trial], float]:
    """A bowl in four dimensions, one of them a choice, that each data set moves a little."""

    def objective(trial: Trial) -> float:
        rate = trial.suggest_float("rate", 1e-5, 1.0, log=True)
        width = trial.suggest_int("width", 4, 256, log=True)
        drop = trial.suggest_float("drop", 0.0, 0.9)
        kind = trial.suggest_categorical("kind", ["adam", None, "sgd"])
        loss = (math.log10(rate) + 3 + by) ** 2 + (math.log2(width) - 6 - by) ** 2 / 4
        return loss + 4 * (drop - 0.3 - by / 5) ** 2 + (kind is not None)

    return objective


def study_of(objective: Any, seed: int = 0, n_trials: int = 40, **arguments: Any) -> Study:
    return optimized(TPESampler(seed=seed), objective, n_trials, **arguments)


@pytest.fixture(scope="module")
def earlier() -> list[Study]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return [study_of(shifted(by), seed) for seed, by in enumerate([-0.5, 0.4, 0.8])]


def told(seed: int, sources: list[Study], **arguments: Any) -> HypernetSampler:
    return HypernetSampler(seed=seed, source_studies=sources, **arguments)


def source_of(study: Study) -> Source:
    history = History()
    return Source(history.read(study, -1), history.distributions(study))


def lowest(seed: int, sources: list[Study], n_trials: int) -> np.ndarray:
    """Of each trial and those before it ``(n_trials,)``, of an objective that no source had."""
    study = optimized(told(seed, sources), shifted(0.1), n_trials)
    return np.minimum.accumulate([trial.value for trial in study.trials])


# --- what they are worth


@pytest.fixture(scope="module")
def alone() -> np.ndarray:
    """``(seeds, trials)``."""
    return np.array([lowest(seed, [], 20) for seed in SEEDS])


def test_earlier_studies_are_worth_many_trials(earlier: list[Study], alone: np.ndarray) -> None:
    """Five trials after them end lower than ten without, and ten lower than fifteen."""
    after = np.array([lowest(seed, earlier, 10) for seed in SEEDS])

    for few, many in ((5, 10), (10, 15)):
        assert np.log(after[:, few - 1]).mean() < np.log(alone[:, many - 1]).mean()
        assert (after[:, few - 1] < alone[:, many - 1]).sum() > len(SEEDS) / 2


def test_studies_that_mislead_cost_little(alone: np.ndarray) -> None:
    """Five trials, if what is worst here was best there."""
    opposite = [study_of(lambda trial: -shifted(0.0)(trial), seed) for seed in range(2)]
    after = np.array([lowest(seed, opposite, 20) for seed in SEEDS])

    assert np.log(after[:, 19]).mean() < np.log(alone[:, 14]).mean()


def test_of_two_the_one_like_this_study_comes_to_count_most() -> None:
    """The slow twin: the order of trials, predicted by each source alone."""
    alike, opposite = study_of(shifted(0.2), 1), study_of(lambda t: -shifted(0.0)(t), 2)
    new = optimized(RandomSampler(seed=3), shifted(0.1), 12)
    space = SearchSpace(new.trials[0].distributions)
    history = History()
    trials = history.read(new, -1)
    rows, active = space.encode(trials.columns(space.names, trials.finished))
    both, *single = (
        Sources([source_of(one) for one in some]).prediction(space)
        for some in ([alike, opposite], [alike], [opposite])
    )

    levels = [one.value(rows, active) for one in single]
    scores = np.array([spearmanr(level, trials.values[:, 0]).statistic for level in levels])
    weights = np.exp(scores / 0.5) / np.exp(scores / 0.5).sum()
    judged = both.judged(rows, active, trials.outcomes)

    assert scores[0] > 0 > scores[1]
    np.testing.assert_allclose(both.value(rows, active), np.mean(levels, axis=0))
    np.testing.assert_allclose(judged.value(rows, active), weights @ levels)


def test_neither_the_scale_nor_the_direction_of_a_source_matters(earlier: list[Study]) -> None:
    turned = optuna.create_study(direction="maximize")
    for trial in earlier[0].trials:
        kinds = trial.distributions
        turned.add_trial(
            create_trial(params=trial.params, distributions=kinds, value=-1024 * trial.value)
        )

    one, other = (optimized(told(0, [source]), shifted(0.1), 8) for source in (earlier[0], turned))
    assert params_of(one) == params_of(other)


# --- where a study begins


def test_the_first_trial_is_the_best_configuration_of_one(earlier: list[Study]) -> None:
    study = optimized(told(0, earlier), shifted(0.1), 1)
    first = study.trials[0].params

    known = [trial for one in earlier for trial in one.trials if trial.params["kind"] is None]
    near = [trial for trial in known if trial.params["width"] == first["width"]]
    apart = [abs(math.log(trial.params["rate"] / first["rate"])) for trial in near]
    assert min(apart) < 1e-9
    assert near[int(np.argmin(apart))].value < 0.3


def test_an_enqueued_trial_comes_before(earlier: list[Study]) -> None:
    study = optuna.create_study(sampler=told(0, earlier))
    mine = {"rate": 0.5, "width": 8, "drop": 0.8, "kind": "sgd"}
    study.enqueue_trial(mine)
    study.optimize(shifted(0.1), n_trials=2)
    begun = optimized(told(0, earlier), shifted(0.1), 1)

    assert study.trials[0].params == mine
    assert study.trials[1].params == pytest.approx(begun.trials[0].params)


def test_four_that_are_asked_for_at_once_are_four(earlier: list[Study]) -> None:
    study = optuna.create_study(sampler=told(0, earlier))
    trials = [study.ask() for _ in range(4)]
    for trial in trials:
        shifted(0.1)(trial)

    assert len({tuple(trial.params.values()) for trial in trials}) == 4


def test_whatever_a_source_cannot_say_is_left_to_the_independent_sampler() -> None:
    def another(trial: Trial) -> float:
        """Other ranges, another kind, other choices, one that is new and one that is missing."""
        rate = trial.suggest_float("rate", 0.5, 2.0)
        width = trial.suggest_categorical("width", ["narrow", "wide"])
        kind = trial.suggest_categorical("kind", ["lion", "sgd"])
        new = trial.suggest_float("new", 0.0, 1.0)
        return rate + (width == "wide") + (kind == "sgd") + (new - 0.3) ** 2

    independent = Counting()
    study = optimized(
        told(0, [study_of(shifted(0.0))], independent_sampler=independent), another, 12
    )

    assert study.trials[0].params["rate"] == 0.5  # the nearest to .001
    assert sorted(independent.asked) == ["kind", "new", "width"]
    assert_in_range(study.trials)
    assert study.best_value < 1.2


def test_a_choice_says_nothing_of_a_number_of_the_same_name() -> None:
    def choices(trial: Trial) -> float:
        return trial.suggest_categorical("batch", [16, 64]) + trial.suggest_float("y", 0, 1)

    def numbers(trial: Trial) -> float:
        return trial.suggest_float("batch", 0, 1) + trial.suggest_float("y", 0, 1)

    independent = Counting()
    source = study_of(choices, n_trials=12)
    study = optimized(told(0, [source], independent_sampler=independent), numbers, 1)

    assert independent.asked == ["batch"]
    assert study.trials[0].params["y"] == pytest.approx(source.best_params["y"])


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("kind", ["int", "float"])
def test_a_last_trial_with_one_value_does_not_hide_what_others_had(kind: str, log: bool) -> None:
    """Somebody tried a single depth in the end; or its range depends on another parameter."""

    def among(low: int, high: int) -> Callable[[Trial], float]:
        def objective(trial: Trial) -> float:
            suggest = trial.suggest_int if kind == "int" else trial.suggest_float
            depth = suggest("depth", low, high, log=log)
            return float(depth - 17) ** 2 + trial.suggest_float("x", 0, 1)

        return objective

    source = study_of(among(1, 20), n_trials=30)
    best = source.best_params["depth"]
    source.optimize(among(5, 5), n_trials=1)

    assert set(source_of(source).kinds) == {"depth", "x"}
    first = optimized(told(0, [source]), among(1, 30), 1).trials[0]
    assert first.params["depth"] == pytest.approx(best)


class Counting(RandomSampler):
    """Remembers the names that it was asked for."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.asked: list[str] = []

    def sample_independent(self, study: Any, trial: Any, name: str, kind: Any) -> Any:
        self.asked.append(name)
        return super().sample_independent(study, trial, name, kind)


def test_conditional_parameters_begin_in_the_best_branch() -> None:
    study = study_of(every_kind, n_trials=60)
    begun = optimized(told(0, [study]), every_kind, 10)

    best = [trial for trial in study.trials if trial.values[0] < 3 * study.best_value]
    assert begun.trials[0].params["choice"] in [trial.params["choice"] for trial in best]
    assert begun.best_value < np.median([trial.value for trial in study.trials]) / 3
    assert_in_range(begun.trials)


def test_nothing_in_common_is_said_once_and_changes_nothing(
    earlier: list[Study], optuna_log: pytest.LogCaptureFixture
) -> None:
    def other(trial: Trial) -> float:
        return (trial.suggest_float("x", 0, 1) - 0.3) ** 2 + trial.suggest_int("y", 1, 9)

    study = optimized(told(0, earlier), other, 8)

    said = [record for record in optuna_log.records if "source studies" in record.message]
    assert [record.levelname for record in said] == ["WARNING"]
    assert "['x', 'y']" in said[0].message
    assert params_of(study) == params_of(optimized(HypernetSampler(seed=0), other, 8))


# --- repeatability


def test_seed_repeats_and_pickle_goes_on(earlier: list[Study]) -> None:
    whole = optimized(told(3, earlier), shifted(0.1), 8)
    study = optimized(told(3, earlier), shifted(0.1), 5)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    study.optimize(shifted(0.1), n_trials=3)

    assert params_of(study) == params_of(whole)


def test_a_resumed_study_goes_on(earlier: list[Study]) -> None:
    whole = optimized(told(3, earlier), shifted(0.1), 8)
    study = optuna.create_study(sampler=told(3, earlier))
    study.add_trials(whole.trials[:5])
    study.optimize(shifted(0.1), n_trials=3)

    assert params_of(study) == params_of(whole)


def test_what_happens_to_a_source_later_does_not_matter() -> None:
    source = study_of(shifted(0.2), n_trials=20)
    sampler = told(0, [source])
    expected = params_of(optimized(told(0, [source]), shifted(0.1), 5))
    source.optimize(lambda trial: -100 * shifted(2.0)(trial), n_trials=5)

    assert params_of(optimized(sampler, shifted(0.1), 5)) == expected


def test_several_objectives_may_follow_one(earlier: list[Study]) -> None:
    def both(trial: Trial) -> tuple[float, float]:
        loss = shifted(0.1)(trial)
        return loss, math.log2(trial.params["width"])

    study = optimized(told(0, earlier), both, 15, directions=["minimize"] * 2)
    values = np.array([trial.values for trial in study.trials])

    assert values[:, 0].min() < 0.5
    assert values[:, 1].min() < values[0, 1] - 1


# --- the bridge


def test_gradient_equals_finite_differences(earlier: list[Study]) -> None:
    """With sources that weigh differently, a parameter that none had, and one not asked for."""
    space = SearchSpace({**earlier[0].trials[0].distributions, "new": FloatDistribution(0, 1)})
    rng = np.random.default_rng(0)
    rows = rng.random((5, space.d))
    rows[:, space.names.index("width")] = 0.37  # steps have no slope
    active = np.ones(rows.shape, dtype=bool)
    active[4, space.names.index("drop")] = False
    sources = Sources([source_of(one) for one in earlier])
    values = rng.random(20)
    seen = rng.random((20, space.d)), np.ones((20, space.d), dtype=bool)
    informed = Informed(space, sources.prediction(space)).judged(*seen, [outcomes(values)])
    weight = rng.normal(size=(5, len(informed.owner)))

    def total(flat: np.ndarray) -> float:
        return float((weight * informed.embed(flat.reshape(rows.shape), active)).sum())

    expected = finite_differences(total, rows.ravel(), 1e-6).reshape(rows.shape)
    np.testing.assert_allclose(informed.pull(weight, rows, active), expected, rtol=1e-4, atol=1e-5)


def outcomes(values: np.ndarray) -> Outcomes:
    n = len(values)
    nothing = np.zeros(n, dtype=bool)
    return Outcomes(values, nothing, np.zeros(n), np.empty((n, 0)), np.full(n, -1))


@pytest.mark.parametrize(
    ("kind", "others"),
    [
        (CategoricalDistribution(["sgd", None, "lion", "adam"]), True),
        (CategoricalDistribution(["sgd", None]), False),
        (IntDistribution(0, 9), None),
    ],
    ids=["all of them, elsewhere", "two of three", "none"],
)
def test_choices_are_looked_up_by_what_they_are(
    kind: BaseDistribution, others: bool | None
) -> None:
    """The slow twin: each trial's own params, in the new space."""
    study = study_of(shifted(0.0))
    space = SearchSpace({"kind": kind, "rate": FloatDistribution(1e-3, 1e-1, log=True)})
    rows, active, levels = source_of(study).told(space)

    expected, asked = [], []
    for trial in study.trials:
        choice = trial.params["kind"]
        if others is None:
            internal = [math.nan, trial.params["rate"]]
        elif isinstance(kind, CategoricalDistribution) and choice in kind.choices:
            internal = [kind.to_internal_repr(choice), trial.params["rate"]]
        else:
            continue
        row, known = space.encode(np.array([internal]))
        expected.append(row[0])
        asked.append(known[0])
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(active, asked)
    assert len(levels) == len(rows) > 0
    assert (len(rows) < len(study.trials)) == (others is False)


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_tuples_that_a_storage_made_lists_are_the_same_choices() -> None:
    choices = [(8, 8), (16,), (4, 4, 4)]

    def objective(trial: Trial) -> float:
        return float(len(trial.suggest_categorical("layers", choices)))

    sampler = RandomSampler(seed=0)  # others cannot resume such a study
    stored = optuna.create_study(storage="sqlite:///:memory:", sampler=sampler)
    stored.optimize(objective, n_trials=12)
    study = optimized(told(0, [stored]), objective, 3)

    assert study.trials[0].params == {"layers": (16,)}


def test_failed_infeasible_and_surplus_trials_do_not_count() -> None:
    kinds = {"x": FloatDistribution(0, 1)}
    study = optuna.create_study()
    for number in range(300):
        at = {"params": {"x": number / 300}, "distributions": kinds}
        study.add_trial(create_trial(value=float(number), **at))
    study.add_trial(create_trial(state=TrialState.FAIL, params={"x": 0.5}, distributions=kinds))
    rows, _, levels = source_of(study).told(SearchSpace(kinds))

    assert len(rows) == 160
    np.testing.assert_array_equal(rows[:80, 0], np.arange(80) / 300)
    assert (np.diff(levels) > 0).all()


# --- mistakes


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: 3, TypeError, "must be a list of studies"),
        (optuna.create_study, TypeError, "must be a list of studies"),
        (lambda: ["my-study"], TypeError, "optuna.load_study"),
        (lambda: [optuna.create_study(study_name="new")], ValueError, "'new', has no finished"),
        (
            lambda: [
                study_of(shifted(0.0), n_trials=1),
                optuna.create_study(directions=["minimize"] * 2),
            ],
            ValueError,
            r"source_studies\[1\].* has 2 objectives",
        ),
        (lambda: [study_of(lambda trial: 1.0, n_trials=2)], ValueError, "nothing can be learnt"),
    ],
    ids=["number", "one study", "names", "new", "two objectives", "no parameters"],
)
def test_what_is_no_source_is_refused(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        HypernetSampler(source_studies=make())
