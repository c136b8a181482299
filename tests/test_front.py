"""Directions towards a Pareto front: where they leave it, and which trials are nearest."""

from __future__ import annotations

import math

import numpy as np
import pytest
from differences import Array

from optuna_hypernet.surrogate.front import Directions
from optuna_hypernet.surrogate.front import draw_directions
from optuna_hypernet.surrogate.outcomes import Outcomes
from optuna_hypernet.surrogate.outcomes import Places


def outcomes_of(values: Array, violation: Array | None = None) -> list[Outcomes]:
    """Of complete trials ``(n, m)`` without reports."""
    n = len(values)
    violation = np.zeros(n) if violation is None else violation
    rest = violation, np.empty((n, 0)), np.full(n, -1)
    return [Outcomes(column, np.zeros(n, dtype=bool), *rest) for column in values.T]


def drawn(m: int, seed: int = 0) -> Directions:
    directions = draw_directions(outcomes_of(np.zeros((1, m))), np.random.default_rng(seed))
    assert directions is not None
    assert directions.steps.shape == (4, m)
    assert (directions.steps > 0).all()
    return directions


def dominates(values: Array, point: Array) -> Array:
    """Which rows ``(n,)`` are at least as low in every objective."""
    return np.array([all(v <= p for v, p in zip(row, point, strict=True)) for row in values])


def places_of(
    directions: Directions, values: Array, violation: Array | None = None
) -> tuple[Places, Array]:
    """Places, and as what the values are settled."""
    outcomes = outcomes_of(values, violation)
    places = directions.places(outcomes)
    assert sorted(places) == list(range(len(values)))
    return places, np.stack([each.settled for each in outcomes], axis=1)


@pytest.mark.parametrize(("m", "feasible"), [(1, True), (2, False)])
def test_without_a_front_there_are_no_directions(m: int, feasible: bool) -> None:
    outcomes = outcomes_of(np.zeros((3, m)), np.zeros(3) if feasible else np.ones(3))
    assert draw_directions(outcomes, np.random.default_rng(0)) is None


# Targets.


@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("seed", range(10))
def test_targets_lie_on_the_front(m: int, seed: int) -> None:
    """A little higher in all objectives each is dominated, a little lower it is not."""
    values = np.random.default_rng(seed).normal(size=(15, m))
    for target in drawn(m, seed).targets(values):
        assert dominates(values, target + 1e-9).any()
        assert not dominates(values, target - 1e-9).any()


def test_how_far_the_front_reaches_is_its_hypervolume() -> None:
    """In two objectives: π / 4 times the mean square of the reach (Zhang & Golovin 2020, lemma 5).

    The front's ends are 0 and 1, so the reference point lies at 1.4.
    """
    front = np.array([[0.0, 1.0], [0.2, 0.6], [0.5, 0.3], [1.0, 0.0]])
    targets = np.concatenate([drawn(2, seed).targets(front) for seed in range(5000)])
    reach = np.linalg.norm(1.4 - targets, axis=1)
    strips = [(0.2, 0.4), (0.3, 0.8), (0.5, 1.1), (0.4, 1.4)]  # widths and heights between them
    volume = sum(width * height for width, height in strips)
    assert math.pi / 4 * np.mean(reach**2) == pytest.approx(volume, rel=0.01)


def test_units_do_not_matter() -> None:
    values, units = np.random.default_rng(0).normal(size=(10, 2)), np.array([1e6, 1e-6])
    plain, scaled = drawn(2).targets(values), drawn(2).targets(values * units + [5, 0])
    np.testing.assert_allclose((scaled - [5, 0]) / units, plain, rtol=1e-6)


def test_one_trial_is_a_front() -> None:
    """Neither objective has a width yet; what is below it in both is an improvement."""
    apart = drawn(2).targets(np.array([[3.0, -2.0]])) - [3.0, -2.0]
    assert (apart > -1e-12).all()
    np.testing.assert_allclose(apart.min(1), 0, atol=1e-12)


def test_an_objective_that_never_changes() -> None:
    values = np.array([[3.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    for target in drawn(2).targets(values):
        assert dominates(values[1:2], target + 1e-9).any()
        assert not dominates(values, target - 1e-9).any()


# Places.


@pytest.mark.parametrize("m", [2, 3])
def test_the_first_trials_are_those_that_dominate_a_target(m: int) -> None:
    """Of the directions, in the order of these."""
    directions = drawn(m)
    places, values = places_of(directions, np.random.default_rng(3).normal(size=(15, m)))
    first = [
        int(dominates(values, target + 1e-9).argmax()) for target in directions.targets(values)
    ]
    assert 1 < len(set(first)) < 15
    assert np.argsort(places)[: len(set(first))].tolist() == list(dict.fromkeys(first))


@pytest.mark.parametrize("odd", [math.inf, -math.inf, 1e300])
def test_odd_values_are_survived(odd: float) -> None:
    _, values = places_of(drawn(2), np.array([[odd, 1.0], [2.0, odd], [3.0, 0.0]]))
    assert np.isfinite(drawn(2).targets(values)).all()


def test_feasible_trials_come_first() -> None:
    """Then the others, the one that violates least first."""
    values = np.array([[0.0, 0.0], [2.0, 1.0], [1.0, 2.0], [0.0, 0.1]])
    places, _ = places_of(drawn(2), values, np.array([0.5, 0.0, 0.0, 0.2]))
    assert places[[3, 0]].tolist() == [2, 3]
