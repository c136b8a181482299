"""Rules on which parameters a trial asks for, recovered from what earlier trials asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_hypernet.conditions import Conditions
from optuna_hypernet.space import Mask
from optuna_hypernet.space import SearchSpace
from optuna_hypernet.space import internal_row


X = FloatDistribution(0, 1)
MODEL = CategoricalDistribution(["svm", "forest", "net"])
SOLVER = CategoricalDistribution(["adam", "sgd"])
BOTH = CategoricalDistribution([0, 1])
TOGETHER = SearchSpace({"a": BOTH, "b": BOTH, "c": IntDistribution(0, 4)})
SPACE = SearchSpace(
    {"a_model": MODEL, "c": X, "depth": IntDistribution(1, 9), "momentum": X, "solver": SOLVER}
)


def asked(model: str, solver: str = "adam") -> dict[str, Any]:
    """What a nested conditional objective asks for."""
    if model == "svm":
        return {"a_model": model, "c": 0.3}
    if model == "forest":
        return {"a_model": model, "depth": 4}
    momentum = {"momentum": 0.9} if solver == "sgd" else {}
    return {"a_model": model, "solver": solver, **momentum}


def encoded(space: SearchSpace, trials: list[dict[str, Any]]) -> tuple[Any, Mask]:
    table = [internal_row(space.names, params, space.distributions) for params in trials]
    return space.encode(np.array(table, dtype=float).reshape(len(trials), space.d))


def learnt(
    space: SearchSpace,
    trials: list[dict[str, Any]],
    ended_early: Sequence[int] = (),
    depend_elsewhere: Sequence[int] = (),
) -> Conditions:
    rows, mask = encoded(space, trials)
    numbers = np.arange(len(rows))
    complete, elsewhere = ~np.isin(numbers, ended_early), np.isin(numbers, depend_elsewhere)
    return Conditions(space, rows, mask, complete, elsewhere)


def active(conditions: Conditions, space: SearchSpace, **params: Any) -> set[str]:
    """Names that are active at a row with these params; the others are in mid-range."""
    rows, _ = encoded(space, [params])
    return {name for name, on in zip(space.names, conditions.active(rows)[0], strict=True) if on}


def test_nested_conditions_are_recovered() -> None:
    combinations = [("svm", "adam"), ("forest", "adam"), ("net", "adam"), ("net", "sgd")]
    conditions = learnt(SPACE, [asked(*each) for each in combinations])

    for model, solver in combinations:
        # The solver of a model that has none is whatever a row holds: it must not matter.
        got = active(conditions, SPACE, a_model=model, solver=solver)
        assert got == set(asked(model, solver))
    assert active(conditions, SPACE, a_model="svm", solver="sgd") == {"a_model", "c"}


def test_recovered_from_many_trials_in_any_order() -> None:
    rng = np.random.default_rng(0)
    trials = [
        asked(str(rng.choice(MODEL.choices)), str(rng.choice(SOLVER.choices))) for _ in range(40)
    ]
    conditions = learnt(SPACE, trials)
    rows, mask = encoded(SPACE, trials)

    np.testing.assert_array_equal(conditions.active(rows), mask)


def test_a_trial_that_ended_early_contradicts_no_rule() -> None:
    combinations = [("svm", "adam"), ("forest", "adam"), ("net", "adam"), ("net", "sgd")]
    trials = [*(asked(*each) for each in combinations), {"a_model": "svm"}, {"a_model": "net"}]
    conditions = learnt(SPACE, trials, ended_early=[4, 5])

    assert active(conditions, SPACE, a_model="svm") == {"a_model", "c"}
    assert active(conditions, SPACE, a_model="net", solver="sgd") == set(asked("net", "sgd"))


@pytest.mark.parametrize(("times", "known"), [(1, False), (2, True)])
def test_a_branch_that_fails_again_and_again_asks_for_nothing(times: int, known: bool) -> None:
    """Once may be an accident; and of complete trials no other model is known to lack it."""
    space = SearchSpace({"a_model": MODEL, "c": X})
    trials = [{"a_model": "svm", "c": 0.3}, {"a_model": "forest", "c": 0.4}]
    trials += times * [{"a_model": "net"}]
    conditions = learnt(space, trials, ended_early=range(2, 2 + times))

    assert active(conditions, space, a_model="svm", c=0.1) == {"a_model", "c"}
    assert (active(conditions, space, a_model="net", c=0.1) == {"a_model"}) == known


def test_what_a_trial_did_not_ask_for_where_no_rule_says_so_is_inactive_there() -> None:
    """Both choices together decide, which no rule about one of them can say."""
    trials = [{"a": 1, "b": 1, "c": 2}, {"a": 0, "b": 0}, {"a": 0, "b": 1}, {"a": 1, "b": 0}]
    conditions = learnt(TOGETHER, trials)

    assert active(conditions, TOGETHER, a=0, b=1, c=3) == {"a", "b"}
    assert active(conditions, TOGETHER, a=1, b=1, c=3) == {"a", "b", "c"}


def test_nor_is_what_two_trials_that_ended_early_did_not_come_to() -> None:
    """Pairs that cannot be trained, say, and end before anything else is asked for."""
    trials = [{"a": 1, "b": 1, "c": 2}, {"a": 0, "b": 0, "c": 2}]
    trials += [{"a": 0, "b": 1}, {"a": 0, "b": 1}, {"a": 1, "b": 0}, {"a": 1, "b": 1}]
    trials += [{"a": 1, "b": 1}]
    conditions = learnt(TOGETHER, trials, ended_early=range(2, 7))

    assert active(conditions, TOGETHER, a=0, b=1) == {"a", "b"}
    assert active(conditions, TOGETHER, a=1, b=0) == {"a", "b", "c"}  # once may be an accident
    assert active(conditions, TOGETHER, a=1, b=1) == {"a", "b", "c"}  # another asked for more


def test_a_trial_that_ended_before_that_does_not_undo_it() -> None:
    """It asked for less, not for something else; what it did not come to is idle, not tried."""
    trials = [{"a": 1, "b": 1, "c": 2}, {"a": 0, "b": 0}, {"a": 0, "b": 1}, {"a": 1, "b": 0}]
    conditions = learnt(TOGETHER, [*trials, {"a": 0}], ended_early=[4])

    assert active(conditions, TOGETHER, a=0, b=1, c=3) == {"a", "b"}


def test_a_parameter_that_only_a_running_trial_has_is_not_waited_for() -> None:
    space = SearchSpace({**TOGETHER.distributions, "x": X})
    trials = [{"a": 1, "b": 1, "c": 2}, {"a": 0, "b": 0}, {"a": 0, "b": 1}, {"a": 1, "b": 0}]

    assert active(learnt(space, trials), space, a=0, b=1) == {"a", "b"}


def test_a_parameter_that_the_objective_got_later_is_asked_for_everywhere() -> None:
    grid = [{"a": a, "b": b} for a in (0, 1) for b in (0, 1)]
    conditions = learnt(TOGETHER, [*grid, {"a": 1, "b": 0, "c": 2}, {"a": 0, "b": 1, "c": 3}])

    for params in grid:
        assert active(conditions, TOGETHER, **params) == {"a", "b", "c"}


def test_what_may_be_due_to_a_parameter_outside_of_the_space_says_nothing() -> None:
    trials = [
        {"a": 1, "b": 1, "c": 2},
        {"a": 0, "b": 0, "c": 2},
        {"a": 0, "b": 1},
        {"a": 1, "b": 0},
    ]
    conditions = learnt(TOGETHER, trials, depend_elsewhere=[2])

    assert active(conditions, TOGETHER, a=0, b=1) == {"a", "b", "c"}
    assert active(conditions, TOGETHER, a=1, b=0) == {"a", "b"}


def test_a_known_row_is_recognised_alone_as_among_others() -> None:
    """Whatever the order of its sum."""
    rng = np.random.default_rng(0)
    names = [f"x{i}" for i in range(12)]
    space = SearchSpace(dict.fromkeys(names, X))
    trials = [dict(zip(names, rng.random(12), strict=True)) for _ in range(21)]
    for trial in trials[1:]:
        del trial[str(rng.choice(names))]
    rows, mask = encoded(space, trials)
    conditions = learnt(space, trials)

    assert not mask[1:].all(1).any()
    for row, asked_for in zip(rows, mask, strict=True):
        np.testing.assert_array_equal(conditions.active(row[None])[0], asked_for)


def test_whatever_was_asked_for_is_active_there() -> None:
    """No rule may contradict a trial, even where no rule explains it all."""
    rng = np.random.default_rng(0)
    space = SearchSpace({**SPACE.distributions, "random": X, "by float": X})
    for _ in range(20):
        trials = [
            {
                **asked(str(rng.choice(MODEL.choices)), str(rng.choice(SOLVER.choices))),
                **({"random": 0.5} if rng.random() < 0.5 else {}),
                **({"by float": 0.5} if rng.random() < 0.5 else {}),
            }
            for _ in range(12)
        ]
        rows, mask = encoded(space, trials)

        assert learnt(space, trials).active(rows)[mask].all()


def test_always_asked_for_is_always_active() -> None:
    conditions = learnt(SPACE, [asked("svm"), asked("forest")])

    for model in MODEL.choices:
        assert "a_model" in active(conditions, SPACE, a_model=model)


def test_unseen_value_of_the_parent_is_allowed() -> None:
    conditions = learnt(SPACE, [asked("svm"), asked("forest")])

    assert active(conditions, SPACE, a_model="net") >= {"a_model", "c", "depth"}


def test_integer_parent() -> None:
    space = SearchSpace({"layers": IntDistribution(1, 4), "units 2": X, "units 3": X})
    trials = [
        {"layers": n, **{f"units {k}": 0.5 for k in range(2, n + 1) if k < 4}} for n in range(1, 5)
    ]
    conditions = learnt(space, trials)

    assert active(conditions, space, layers=1) == {"layers"}
    assert active(conditions, space, layers=2) == {"layers", "units 2"}
    assert active(conditions, space, layers=4) == {"layers", "units 2", "units 3"}


def test_unexplained_is_active() -> None:
    """Asked for at random, or by a continuous parent: nothing discrete explains it."""
    space = SearchSpace({"x": X, "y": X, "c": SOLVER})
    trials: list[dict[str, Any]] = [
        {"x": 0.9, "c": "adam", "y": 0.5},
        {"x": 0.1, "c": "adam"},
        {"x": 0.2, "c": "sgd"},
        {"x": 0.8, "c": "sgd", "y": 0.5},
    ]

    assert active(learnt(space, trials), space, x=0.15, c="adam") == {"x", "y", "c"}
    assert active(learnt(space, trials), space, x=0.1, c="adam") == {"x", "c"}  # as it was


def test_no_trials() -> None:
    assert active(learnt(SPACE, []), SPACE) == set(SPACE.names)


def test_rule_goes_when_contradicted() -> None:
    trials = [asked("svm"), asked("forest")]
    assert "c" not in active(learnt(SPACE, trials), SPACE, a_model="forest")

    trials.append({"a_model": "forest", "depth": 3, "c": 0.5})
    assert "c" in active(learnt(SPACE, trials), SPACE, a_model="forest")


@pytest.mark.parametrize(("before", "until_gone"), [(4, 6), (10, 4), (20, 3)])
def test_what_the_objective_has_lost_is_gone(before: int, until_gone: int) -> None:
    """The longer it was asked for every time, the fewer trials without it say so."""
    space = SearchSpace({"a": IntDistribution(1, 9), "k": SOLVER})
    rng = np.random.default_rng(0)
    with_it = [{"a": int(rng.integers(1, 10)), "k": "sgd"} for _ in range(before)]
    without = [{"a": n % 9 + 1} for n in range(until_gone)]
    free = next(a for a in range(1, 10) if {"a": a} not in without)

    almost = learnt(space, [*with_it, *without[:-1]])
    assert active(almost, space, a=free) == {"a", "k"}
    conditions = learnt(space, [*with_it, *without])
    assert active(conditions, space, a=free) == {"a"}
    for trial in with_it:  # those trials were of another objective
        assert active(conditions, space, **trial) == {"a"}
    _, mask = encoded(space, [*with_it, *without])
    assert conditions.current(mask).tolist() == [False] * before + [True] * until_gone

    again = learnt(space, [*with_it, *without, {"a": free, "k": "sgd"}])
    assert active(again, space, a=free) == {"a", "k"}


def test_what_hangs_on_it_is_gone_with_it() -> None:
    """A choice and the momentum of one of its solvers; what a rule explains does not go itself."""
    space = SearchSpace({"a": IntDistribution(1, 9), "k": SOLVER, "momentum": X})
    solvers = ["adam", "sgd"] * 6
    trials: list[dict[str, Any]] = [
        {"a": n % 9 + 1, "k": k, **({"momentum": 0.9} if k == "sgd" else {})}
        for n, k in enumerate(solvers)
    ]
    trials += [{"a": n % 9 + 1, "k": "adam"} for n in range(30)]
    assert active(learnt(space, trials), space, a=5, k="sgd") == {"a", "k", "momentum"}

    trials += [{"a": n} for n in range(1, 9)]
    assert active(learnt(space, trials), space, a=9, k="sgd", momentum=0.9) == {"a"}


def test_trials_that_end_early_or_depend_elsewhere_do_not_say_that_it_is_gone() -> None:
    space = SearchSpace({"a": IntDistribution(1, 9), "k": SOLVER})
    trials: list[dict[str, Any]] = [{"a": n, "k": "sgd"} for n in range(1, 9)]
    trials += [{"a": n} for n in range(1, 9)]
    late = range(8, 16)

    assert active(learnt(space, trials), space, a=9) == {"a"}
    assert active(learnt(space, trials, ended_early=late), space, a=9) == {"a", "k"}
    assert active(learnt(space, trials, depend_elsewhere=late), space, a=9) == {"a", "k"}


def test_what_is_being_asked_for_is_active_whatever_trials_say() -> None:
    rows, mask = encoded(SPACE, [asked("svm"), asked("forest"), asked("net")])
    surely = np.array([name == "depth" for name in SPACE.names])
    everything = np.ones(len(rows), dtype=bool)
    conditions = Conditions(SPACE, rows, mask, everything, surely=surely)

    assert active(conditions, SPACE, a_model="svm") == {"a_model", "c", "depth"}
