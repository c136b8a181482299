"""Ranges that depend on another parameter: against a plain loop, and what a study sees of them."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import optuna
import pytest
from differences import Array
from differences import finite_differences
from optuna.trial import Trial

from optuna_hypernet import HypernetSampler
from optuna_hypernet.bounds import Bounds
from optuna_hypernet.bounds import dependent_bounds
from optuna_hypernet.space import Mask


NUMERIC = np.array([0, 1, 2])
ROWS = np.random.default_rng(0).random((12, 4))


def everything(rows: Array) -> Mask:
    return np.ones(rows.shape, dtype=bool)


def ends_of(rows: Array) -> tuple[Array, Array]:
    """Column 1 begins at half of what column 0 is, and ends at 1 - column 2 squared."""
    lows, highs = np.zeros_like(rows), np.ones_like(rows)
    lows[:, 1] = rows[:, 0] / 2
    highs[:, 1] = 1 - rows[:, 2] ** 2
    return lows, highs


@pytest.fixture
def bounds() -> Bounds:
    found = dependent_bounds(ROWS, everything(ROWS), *ends_of(ROWS), NUMERIC)
    assert found is not None
    return found


def on_the_line(at: float, points: list[tuple[float, float]]) -> float:
    """Between neighbours a line, beyond all of them the last."""
    points = sorted(points)
    if at <= points[0][0]:
        return points[0][1]
    for (x, y), (u, v) in itertools.pairwise(points):
        if at <= u:
            return y + (v - y) * (at - x) / (u - x)
    return points[-1][1]


def by_loop(row: Array) -> float:
    """50 times how far column 1 lies outside of what trials say of its range there."""
    lows, highs = ends_of(ROWS)
    low = on_the_line(row[0], list(zip(ROWS[:, 0], lows[:, 1], strict=True)))
    high = on_the_line(row[2], list(zip(ROWS[:, 2], highs[:, 1], strict=True)))
    return 50 * (max(low - row[1], 0.0) + max(row[1] - high, 0.0))


def test_it_is_found_what_each_end_depends_on(bounds: Bounds) -> None:
    found = [(bound.child, bound.parent, bound.sign) for bound in bounds.bounds]

    assert found == [(1, 0, -1), (1, 2, 1)]


def test_penalty_equals_plain_loop(bounds: Bounds) -> None:
    rows = np.random.default_rng(1).random((60, 4))
    expected = np.array([by_loop(row) for row in rows])

    assert (expected > 0).any()
    assert (expected == 0).any()
    np.testing.assert_allclose(bounds.value(rows, everything(rows)), expected, atol=1e-6)


def test_derivative_equals_finite_differences(bounds: Bounds) -> None:
    rows = np.random.default_rng(2).random((60, 4))
    got = bounds.value_and_gradient(rows, everything(rows))[1]
    expected = finite_differences(lambda at: float(bounds.value(at, everything(at)).sum()), rows)

    assert got[:, [0, 1, 2]].any(0).all()
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_what_is_not_asked_for_has_no_bounds(bounds: Bounds) -> None:
    rows = np.random.default_rng(2).random((60, 4))
    active = everything(rows)
    active[:, 1] = False
    value, gradient = bounds.value_and_gradient(rows, active)

    assert not value.any()
    assert not gradient.any()


def test_nothing_is_lost_at_the_trials_and_their_ends(bounds: Bounds) -> None:
    lows, highs = ends_of(ROWS)
    for ends in (lows, highs):
        rows = ROWS.copy()
        rows[:, 1] = ends[:, 1]
        rows = rows[(rows[:, 1] >= lows[:, 1]) & (rows[:, 1] <= highs[:, 1])]

        assert len(rows) > 3
        assert not bounds.value(rows, everything(rows)).any()


@pytest.mark.parametrize(
    "why", ["fixed", "few forms", "few trials", "at random", "of a choice", "not with it"]
)
def test_where_nothing_says_on_what_it_depends_there_are_none(why: str) -> None:
    lows, highs = ends_of(ROWS)
    active, numeric, n = everything(ROWS), NUMERIC, len(ROWS)
    if why == "fixed":
        lows, highs = np.zeros_like(ROWS), np.ones_like(ROWS)
    elif why == "few forms":  # as if somebody had moved the range now and then
        lows, highs = np.zeros_like(ROWS), np.round(2 * highs) / 2 + 0.5
    elif why == "few trials":
        n = 5
    elif why == "at random":
        lows[:, 1], highs[:, 1] = np.random.default_rng(5).random((2, len(ROWS)))
    elif why == "of a choice":
        numeric = np.array([1])
    else:
        active[3, [0, 2]] = False

    assert dependent_bounds(ROWS[:n], active[:n], lows[:n], highs[:n], numeric) is None


def test_where_trials_disagree_the_furthest_counts() -> None:
    """What one of them had can be had."""
    rows = np.repeat(ROWS, 2, axis=0)
    lows, highs = ends_of(rows)
    lows[::2, 1] -= 0.01
    found = dependent_bounds(rows, everything(rows), lows, highs, NUMERIC)

    assert found is not None
    at_end = ROWS.copy()
    at_end[:, 1] = lows[::2, 1]
    at_end = at_end[at_end[:, 1] <= ends_of(at_end)[1][:, 1]]
    assert not found.value(at_end, everything(at_end)).any()


# In studies.


def between(trial: Trial) -> float:
    low = trial.suggest_float("low", 0, 1)
    return (low - 0.2) ** 2 + (trial.suggest_float("high", low, 1) - 0.6) ** 2


def below(trial: Trial) -> float:
    a = trial.suggest_int("a", 1, 10)
    b = trial.suggest_int("b", 1, a)
    return abs(a - 7) + abs(b - 4) + 0.01 * ((a * 7 + b * 3) % 5)


def chain(trial: Trial) -> float:
    n = trial.suggest_int("n", 1, 64, log=True)
    a = trial.suggest_int("a", 1, n)
    b = trial.suggest_int("b", 1, a)
    off = abs(np.log2(n) - 5) + abs(np.log2(a) - 3) / 2 + abs(np.log2(b) - 1) / 2
    return float(off) + (trial.suggest_float("x", 0, 1) - 0.3) ** 2


@pytest.mark.parametrize(
    ("objective", "n_trials", "reached", "repeated"),
    [(between, 35, 1e-4, 1), (below, 35, 0.0101, 6), (chain, 60, 1e-3, 2)],
)
@pytest.mark.parametrize("seed", range(2))
def test_impossible_corners_cost_nothing(
    objective: object, n_trials: int, reached: float, repeated: int, seed: int
) -> None:
    """Before, every second late trial of the first ended at (1, 1): .8."""
    study = optuna.create_study(sampler=HypernetSampler(seed=seed))
    study.optimize(objective, n_trials=n_trials)  # type: ignore[arg-type]
    most = Counter(repr(trial.params) for trial in study.trials).most_common(1)[0][1]

    assert study.best_value <= reached
    assert most <= repeated
