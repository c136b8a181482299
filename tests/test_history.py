"""Reading a study's trials: which, in which order, and the same whether at once or bit by bit."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from optuna.trial import create_trial

from optuna_hypernet.history import History
from optuna_hypernet.history import Trials


X = FloatDistribution(0, 1)
NOBODY = -1


def told(study: optuna.Study, x: float, value: float | None = None, **arguments: Any) -> None:
    """Adds a finished trial with one parameter."""
    kind = arguments.pop("kind", X)
    study.add_trial(
        create_trial(params={"x": x}, distributions={"x": kind}, value=value, **arguments)
    )


def assert_same(one: Trials, other: Trials) -> None:
    assert sorted(one.names) == sorted(other.names)
    for table in ("finished", "pending", "lows", "highs"):
        np.testing.assert_array_equal(
            one.columns(one.names, getattr(one, table)),
            other.columns(one.names, getattr(other, table)),
        )
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.pruned, other.pruned)
    for mine, its in zip(one.outcomes, other.outcomes, strict=True):
        np.testing.assert_array_equal(mine.expected(), its.expected())
        np.testing.assert_array_equal(
            mine.forecast(one.progress, mine.values[None]),
            its.forecast(other.progress, its.values[None]),
        )


def test_empty_study() -> None:
    trials = History().read(optuna.create_study(), NOBODY)

    assert (trials.names, len(trials.finished), len(trials.values)) == ([], 0, 0)
    assert trials.columns(["x", "y"], trials.finished).shape == (0, 2)
    assert trials.columns(["x", "y"], trials.pending).shape == (0, 2)


def test_order_is_that_of_completion() -> None:
    study = optuna.create_study()
    asked = [study.ask({"x": X}) for _ in range(4)]
    for k in (2, 0, 3, 1):
        study.tell(asked[k], float(k))
    trials = History().read(study, NOBODY)

    assert trials.values[:, 0].tolist() == [2, 0, 3, 1]
    expected = [[asked[k].params["x"]] for k in (2, 0, 3, 1)]
    assert trials.columns(["x"], trials.finished).tolist() == expected


def test_every_state() -> None:
    study = optuna.create_study()
    told(study, 0.1, 5.0)
    told(study, 0.2, state=TrialState.FAIL)
    told(study, 0.3, state=TrialState.PRUNED)
    told(study, 0.4, state=TrialState.PRUNED, intermediate_values={1: 9.0, 7: 2.0, 3: 8.0})
    told(study, 0.5, state=TrialState.PRUNED, intermediate_values={0: math.nan})
    told(study, 0.6, math.inf)
    told(study, 0.7, state=TrialState.RUNNING)
    study.enqueue_trial({"x": 0.8})
    trials = History().read(study, NOBODY)

    assert trials.columns(["x"], trials.finished)[:, 0].tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    values = [5, math.nan, math.inf, 2, math.inf, math.nan]
    np.testing.assert_array_equal(trials.values[:, 0], values)
    assert trials.pruned.tolist() == [False, False, True, True, True, False]
    assert trials.failed.tolist() == [False, True, False, False, False, True]
    assert trials.columns(["x"], trials.pending).tolist() == [[0.7]]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_reports_are_those_at_steps_where_trials_were_pruned(direction: str) -> None:
    sign = 1 if direction == "minimize" else -1
    study, history = optuna.create_study(direction=direction), History()
    told(study, 0.1, 5.0, intermediate_values={0: 9.0, 1: 8.0, 2: 5.0})
    told(study, 0.2, state=TrialState.PRUNED, intermediate_values={0: 7.0, 2: 6.0})
    before = history.read(study, NOBODY)
    told(study, 0.3, state=TrialState.PRUNED, intermediate_values={0: 4.0})
    told(study, 0.4, state=TrialState.PRUNED)
    trials = history.read(study, NOBODY)

    assert (sign * before.reports).tolist() == [[5.0], [6.0]]
    np.testing.assert_array_equal(
        sign * trials.reports, [[5, 9], [6, 7], [math.nan, 4], [math.nan, math.nan]]
    )
    assert trials.ended.tolist() == [-1, 0, 1, -1]
    assert_same(trials, History().read(study, NOBODY))


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_last_reports_of_running_trials_beside_what_was_reported_then(direction: str) -> None:
    """Also of a trial that had no parameter yet, which is left out, and of a silent one."""
    sign = 1 if direction == "minimize" else -1
    study, history = optuna.create_study(direction=direction), History()
    told(study, 0.1, 5.0, intermediate_values={0: 9.0, 1: 8.0, 2: 5.0})
    running = [study.ask({"x": X}) for _ in range(3)]
    study.ask().report(1.0, 0)
    running[0].report(6.0, 0)
    running[0].report(7.0, 2)
    running[1].report(4.0, 1)
    trials = history.read(study, NOBODY)

    reports, reached = trials.progress
    np.testing.assert_array_equal(sign * reports, [7.0, 4.0, math.nan])
    assert [(sign * trials.reports)[0, k] for k in reached[:2]] == [5.0, 8.0]
    assert reached[2] == -1
    assert_same(trials, History().read(study, NOBODY))

    running[1].report(3.0, 2)
    study.tell(running[0], 7.0)
    trials = history.read(study, NOBODY)
    np.testing.assert_array_equal(sign * trials.progress.reports, [3.0, math.nan])
    assert (sign * trials.reports)[:, trials.progress.reached[0]].tolist() == [5.0, 7.0]


def test_trial_that_asks_is_not_pending() -> None:
    study = optuna.create_study()
    told(study, 0.1, 1.0)
    asked = [study.ask({"x": X}) for _ in range(3)]
    pending = [History().read(study, trial.number).pending.tolist() for trial in asked]

    values = [trial.params["x"] for trial in asked]
    assert pending == [
        [[values[1]], [values[2]]],
        [[values[0]], [values[2]]],
        [[values[0]], [values[1]]],
    ]


def test_a_trial_that_a_dead_worker_left_running_is_given_up() -> None:
    study = optuna.create_study()
    left = study.ask({"x": X})
    counted = []
    for _ in range(12):
        told(study, 0.1, 1.0)
        counted.append(len(History().read(study, NOBODY).pending))

    assert counted == [1] * 10 + [0, 0]  # ten that began later may be finished
    study.tell(left, 2.0)
    assert History().read(study, NOBODY).values[:, 0].tolist() == [1.0] * 12 + [
        2.0
    ]  # back after all


def test_a_slow_trial_is_waited_for_where_others_were_as_slow() -> None:
    study = optuna.create_study()
    one = study.ask({"x": X})
    for _ in range(5):
        told(study, 0.1, 1.0)
    study.tell(one, 1.0)
    failed = study.ask({"x": X})
    for _ in range(8):
        told(study, 0.1, 1.0)
    study.tell(failed, state=TrialState.FAIL)  # by a heartbeat, after whatever time
    study.ask({"x": X})
    counted = []
    history = History()
    for _ in range(27):
        told(study, 0.1, 1.0)
        counted.append(len(history.read(study, NOBODY).pending))
        assert len(History().read(study, NOBODY).pending) == counted[-1]

    assert counted == [1] * (10 + 3 * 5) + [0, 0]


def test_constraints_are_read_by_name_and_violation_adds_up() -> None:
    study = optuna.create_study()
    history = History()
    told(study, 0.1, 5.0)
    told(study, 0.2, 0.0, system_attrs={"constraints": (3.0, -9.0)})
    told(study, 0.3, 1.0, system_attrs={"constraints": (-1.0, 0.0)})
    before = history.read(study, NOBODY)
    told(study, 0.4, 2.0, system_attrs={"constraints:a": 2.0, "constraints:b": 2.0})
    told(study, 0.5, state=TrialState.FAIL, system_attrs={"constraints:a": 1.0})
    told(study, 0.6, state=TrialState.PRUNED, intermediate_values={0: 9.0})
    told(study, 0.7, -math.inf, system_attrs={"constraints:b": math.inf})
    trials = history.read(study, NOBODY)

    nan = math.nan
    np.testing.assert_array_equal(before.constraints, [[nan, nan], [3, -9], [-1, 0]])
    np.testing.assert_array_equal(trials.constraints[3:, :2], np.full((4, 2), nan))
    np.testing.assert_array_equal(
        trials.constraints[3:, 2:], [[2, 2], [1, nan], [nan, nan], [nan, math.inf]]
    )
    assert trials.values[[0, 1, 2, 3, 5, 6], 0].tolist() == [5, 0, 1, 2, 9, -math.inf]
    assert trials.outcomes[0].violation.tolist() == [0, 3, 0, 4, 1, 0, math.inf]
    assert_same(trials, History().read(study, NOBODY))


def test_running_trials_that_asked_for_nothing_known_are_left_out() -> None:
    study = optuna.create_study()
    told(study, 0.1, 1.0)
    study.ask()
    study.ask().suggest_float("unheard of", 0, 1)

    assert History().read(study, NOBODY).pending.shape == (0, 1)


def test_missing_parameters_are_nan() -> None:
    study = optuna.create_study()
    told(study, 0.5, 1.0)
    study.add_trial(
        create_trial(params={"y": 3}, distributions={"y": IntDistribution(0, 9)}, value=2.0)
    )
    study.add_trial(create_trial(value=3.0))
    trials = History().read(study, NOBODY)

    np.testing.assert_array_equal(
        trials.columns(["y", "nobody", "x"], trials.finished),
        [[math.nan, math.nan, 0.5], [3, math.nan, math.nan], [math.nan] * 3],
    )


def test_ranges_are_those_of_each_trial() -> None:
    """Of numbers; a choice has none, nor what was not asked for."""
    study = optuna.create_study()
    told(study, 0.5, 1.0)
    told(study, 0.7, 1.0, kind=FloatDistribution(-1, 0.75))
    study.add_trial(
        create_trial(
            params={"k": 3, "c": "a"},
            distributions={"k": IntDistribution(1, 8), "c": CategoricalDistribution("ab")},
            value=1.0,
        )
    )
    trials = History().read(study, NOBODY)
    lows, highs = (trials.columns(["x", "k", "c"], each) for each in (trials.lows, trials.highs))

    nan = math.nan
    np.testing.assert_array_equal(lows, [[0, nan, nan], [-1, nan, nan], [nan, 1, nan]])
    np.testing.assert_array_equal(highs, [[1, nan, nan], [0.75, nan, nan], [nan, 8, nan]])


def test_choices_are_read_as_indices() -> None:
    study = optuna.create_study()
    kind = CategoricalDistribution(["b", None, "a"])
    for choice in ("a", None, "b"):
        study.add_trial(create_trial(params={"c": choice}, distributions={"c": kind}, value=0.0))
    trials = History().read(study, NOBODY)

    assert trials.columns(["c"], trials.finished)[:, 0].tolist() == [2, 1, 0]


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
def test_smaller_is_better_in_both_directions(direction: str, sign: int) -> None:
    study = optuna.create_study(direction=direction)
    told(study, 0.1, 1.0)
    told(study, 0.2, math.inf)
    told(study, 0.3, state=TrialState.PRUNED, intermediate_values={0: -2.0})

    np.testing.assert_array_equal(
        History().read(study, NOBODY).values[:, 0],
        [sign, math.nan if sign > 0 else -math.inf, -2 * sign],
    )


@pytest.mark.parametrize(
    ("values", "failed"),
    [
        ([1e9, 0.3, 1e9, 0.2, 1e9], [True, False, True, False, True]),
        ([1.7e308, -1.7e308, 1.7e308, -1.6e308, 1.7e308], [True, False, True, False, True]),
        ([1e9, 0.3, 1e9, 0.2], [False] * 4),  # twice may be chance
        ([1e9, 1e9, 1e9, 0.2], [False] * 4),  # so may be one that is better
        ([0.9, 0.9, 0.9, 0.1, 0.6], [False] * 5),  # a plateau next to others
        ([0.9, 0.9, 0.9, -math.inf, 0.6, 0.5], [True, True, True, False, False, False]),
        ([0.3, 0.3, 0.3], [False] * 3),
        ([], []),
    ],
)
@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
def test_numbers_that_stand_for_failures(
    values: list[float], failed: list[bool], direction: str, sign: int
) -> None:
    study = optuna.create_study(direction=direction)
    for value in values:
        told(study, 0.5, sign * value)

    assert History().read(study, NOBODY).failed.tolist() == failed


def test_neither_reports_nor_one_of_several_objectives_stand_for_failures() -> None:
    pruned = optuna.create_study()
    for value in (1e9, 1e9, 1e9):
        told(pruned, 0.5, state=TrialState.PRUNED, intermediate_values={0: value})
    both = optuna.create_study(directions=["minimize", "minimize"])
    for accuracy, memory in ((0.1, 9e9), (0.2, 9e9), (0.3, 9e9), (0.5, 1.0), (0.6, 2.0)):
        both.add_trial(create_trial(values=[accuracy, memory]))
    for value in (0.3, 0.2):
        told(pruned, 0.5, value)

    assert not History().read(pruned, NOBODY).failed.any()
    assert not History().read(both, NOBODY).failed.any()


# Distributions.


def latest(*kinds: BaseDistribution, running: BaseDistribution | None = None) -> Any:
    study = optuna.create_study()
    for kind in kinds:
        value = kind.choices[0] if isinstance(kind, CategoricalDistribution) else kind.low
        told(study, value, 0.0, kind=kind)
    if running is not None:
        told(study, running.low, state=TrialState.RUNNING, kind=running)
    return History().distributions(study).get("x")


def test_latest_range_is_the_one_of_the_last_trial() -> None:
    assert latest(X, FloatDistribution(0, 5), FloatDistribution(2, 3)) == FloatDistribution(2, 3)
    assert latest(X, FloatDistribution(0, 5), X) == X


def test_range_of_a_running_trial_counts() -> None:
    assert latest(X, running=FloatDistribution(0, 7)) == FloatDistribution(0, 7)


def test_latest_means_the_number_not_the_completion() -> None:
    study = optuna.create_study()
    first, second = study.ask({"x": X}), study.ask({"x": FloatDistribution(0, 2)})
    study.tell(second, 0.0)
    study.tell(first, 0.0)

    assert History().distributions(study) == {"x": FloatDistribution(0, 2)}


@pytest.mark.parametrize(
    "other",
    [
        IntDistribution(0, 1),
        FloatDistribution(0.5, 1, log=True),
        CategoricalDistribution([0.0, 1.0]),
    ],
)
def test_parameters_whose_kind_changes_are_dropped(other: BaseDistribution) -> None:
    assert latest(X, other) is None
    assert latest(other, X) is None
    assert latest(X, other, X, X) is None


def test_changed_choices_are_dropped() -> None:
    assert latest(CategoricalDistribution("ab"), CategoricalDistribution("abc")) is None


def test_names_come_sorted_and_from_trials_in_every_state() -> None:
    study = optuna.create_study()
    for name, state in (
        ("c", TrialState.RUNNING),
        ("b", TrialState.FAIL),
        ("d", TrialState.PRUNED),
        ("a", TrialState.COMPLETE),
    ):
        value = 0.0 if state == TrialState.COMPLETE else None
        study.add_trial(
            create_trial(state=state, params={name: 0.5}, distributions={name: X}, value=value)
        )

    assert list(History().distributions(study)) == ["a", "b", "c", "d"]


def test_a_running_trial_leaves_no_trace_once_it_is_gone() -> None:
    """What a running trial says is read anew each time: it may still change."""
    history, study = History(), optuna.create_study()
    told(study, 0.1, 1.0)
    trial = study.ask({"x": FloatDistribution(0, 3), "y": X})
    assert set(history.distributions(study)) == {"x", "y"}
    assert len(history.read(study, NOBODY).pending) == 1

    study.tell(trial, 2.0)
    trials = history.read(study, NOBODY)

    assert len(trials.pending) == 0
    assert trials.values[:, 0].tolist() == [1, 2]


# At once or bit by bit.


def make_study(kind: str, tmp_path: Path) -> optuna.Study:
    if kind == "sqlite":
        return optuna.create_study(storage=f"sqlite:///{tmp_path}/study.sqlite3")
    if kind == "journal":
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
        )
    return optuna.create_study()


@pytest.mark.parametrize("kind", ["memory", "sqlite", "journal"])
def test_bit_by_bit_equals_at_once(kind: str, tmp_path: Path) -> None:
    study, history = make_study(kind, tmp_path), History()
    running = []
    for n in range(12):
        trial = study.ask()
        trial.suggest_float("x", 0, n + 1)
        for step in range(1 + n % 3):
            trial.report(float(7 * n % 5), step)
        if n % 3 == 0:
            trial.suggest_categorical("c", ["a", None, 3])
        if n % 4 == 1:
            running.append(trial)
        elif n % 4 == 2:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, float(n))
        if n % 5 == 4:
            study.tell(running.pop(0), -float(n))
        fresh = History()

        assert history.distributions(study) == fresh.distributions(study)
        assert_same(history.read(study, NOBODY), fresh.read(study, NOBODY))


def test_trials_that_turn_up_late_are_put_in_their_place() -> None:
    """Of another worker, or added from another study: they finished before those read already."""
    past = datetime.datetime(2020, 1, 1)
    study, history = optuna.create_study(), History()
    for n in range(4):
        told(study, 0.1 * n, float(n))
        history.read(study, NOBODY)
    old = create_trial(params={"x": 0.9}, distributions={"x": X}, value=9.0)
    old.datetime_start, old.datetime_complete = past, past
    study.add_trial(old)

    assert history.read(study, NOBODY).values[:, 0].tolist() == [9, 0, 1, 2, 3]
    assert_same(history.read(study, NOBODY), History().read(study, NOBODY))


def test_another_study_is_noticed() -> None:
    """Though its trials have the same numbers, ids and names."""
    history = History()
    studies = [optuna.create_study(study_name="same") for _ in range(2)]
    for k, study in enumerate(studies):
        for n in range(3):
            told(study, 0.1 * n, float(n + 10 * k))
    for k in (0, 1, 1, 0):
        assert history.read(studies[k], NOBODY).values[:, 0].tolist() == [
            10 * k,
            10 * k + 1,
            10 * k + 2,
        ]


def test_a_shorter_or_longer_other_study_is_noticed() -> None:
    history = History()
    long, short, empty = (optuna.create_study() for _ in range(3))
    for n in range(5):
        told(long, 0.1 * n, float(n), kind=FloatDistribution(0, 9))
    told(short, 0.3, 7.0)

    for study in (long, short, long, empty, short):
        assert_same(history.read(study, NOBODY), History().read(study, NOBODY))
        assert history.distributions(study) == History().distributions(study)
        assert history.finished == len(study.trials)


def test_trials_of_all_brackets_of_hyperband_are_read() -> None:
    """A sampler is shown a study of one bracket, whose own method gives a part of them."""
    shown, read = [], []

    class Watcher(optuna.samplers.RandomSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            shown.append(len(study.get_trials()) - 1)
            read.append(len(History().read(study, trial.number).values))
            return {}

    def objective(trial: optuna.Trial) -> float:
        for step in range(9):
            trial.report(trial.suggest_float("x", 0, 1), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return 1.0

    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9, reduction_factor=3)
    name = "brackets"  # of which, and of their numbers, trials' brackets are made
    study = optuna.create_study(study_name=name, sampler=Watcher(seed=0), pruner=pruner)
    study.optimize(objective, n_trials=20)

    assert read == list(range(20))
    assert max(shown) < 15


def test_what_was_returned_does_not_change_later() -> None:
    history, study = History(), optuna.create_study()
    told(study, 0.1, 1.0)
    before = history.read(study, NOBODY)
    names, table = list(before.names), before.finished.copy()
    study.add_trial(create_trial(params={"y": 0.5}, distributions={"y": X}, value=2.0))
    history.read(study, NOBODY)

    assert before.names == names
    np.testing.assert_array_equal(before.finished, table)


def test_finished_trials_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """At thousands of trials, reading them all again would take longer than the rest."""
    import optuna_hypernet.history as module

    rows = []
    real = module.internal_row
    monkeypatch.setattr(
        module, "internal_row", lambda *arguments: rows.append(1) or real(*arguments)
    )
    history, study = History(), optuna.create_study()
    for n in range(10):
        told(study, 0.1 * n, float(n))
        history.read(study, NOBODY)
        history.distributions(study)

    assert len(rows) == 10
