"""Aims on a Pareto front: where they lie, which trials are nearest, and what they amount to."""

from __future__ import annotations

import math

import numpy as np
import pytest
from differences import Array

from optuna_hypernet.surrogate.front import Aims
from optuna_hypernet.surrogate.front import draw_aims
from optuna_hypernet.surrogate.outcomes import Outcomes


def outcomes_of(values: Array, violation: Array | None = None) -> list[Outcomes]:
    """Of complete trials ``(n, m)`` without reports."""
    n = len(values)
    violation = np.zeros(n) if violation is None else violation
    rest = violation, np.empty((n, 0)), np.full(n, -1)
    return [Outcomes(column, np.zeros(n, dtype=bool), *rest) for column in values.T]


def drawn(outcomes: list[Outcomes], seed: int = 0) -> tuple[Aims, Array]:
    """Aims, and the values ``(n, m)`` among which they lie."""
    aims = draw_aims(outcomes, np.random.default_rng(seed))
    assert aims is not None
    assert sorted(aims.places) == list(range(len(outcomes[0])))
    return aims, np.stack([each.settled for each in outcomes], axis=1)


def dominates(values: Array, point: Array) -> Array:
    """Which rows ``(n,)`` are at least as low in every objective."""
    return np.array([all(v <= p for v, p in zip(row, point, strict=True)) for row in values])


@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("seed", range(10))
def test_aims_lie_on_the_front(m: int, seed: int) -> None:
    """A little higher in all objectives each is dominated, a little lower it is not."""
    aims, values = drawn(outcomes_of(np.random.default_rng(seed).normal(size=(15, m))), seed)
    assert aims.targets.shape == (m, 4)
    for target in aims.targets.T:
        assert dominates(values, target + 1e-9).any()
        assert not dominates(values, target - 1e-9).any()


@pytest.mark.parametrize("m", [2, 3])
def test_the_first_trials_are_those_that_dominate_a_target(m: int) -> None:
    aims, values = drawn(outcomes_of(np.random.default_rng(0).normal(size=(15, m))))
    first = [dominates(values, target + 1e-9) for target in aims.targets.T]
    some = np.any(first, axis=0)
    assert 1 < some.sum() < 15
    assert set(aims.places[some]) == set(range(some.sum()))


def test_how_far_the_front_reaches_is_its_hypervolume() -> None:
    """In two objectives: π / 4 times the mean square of the reach (Zhang & Golovin 2020, lemma 5).

    The front's ends are 0 and 1, so the reference point lies at 2.
    """
    outcomes = outcomes_of(np.array([[0.0, 1.0], [0.2, 0.6], [0.5, 0.3], [1.0, 0.0]]))
    (scale,) = {each.settled.max() for each in outcomes}  # by which all is settled
    targets = [drawn(outcomes, seed)[0].targets / scale for seed in range(8000)]
    reach = np.linalg.norm(2 - np.hstack(targets), axis=0)
    strips = [(0.2, 1.0), (0.3, 1.4), (0.5, 1.7), (1.0, 2.0)]  # widths and heights between them
    volume = sum(width * height for width, height in strips)
    assert math.pi / 4 * np.mean(reach**2) == pytest.approx(volume, rel=0.005)


def test_units_do_not_matter() -> None:
    values = np.random.default_rng(0).normal(size=(10, 2))
    plain, _ = drawn(outcomes_of(values))
    scaled, _ = drawn(outcomes_of(values * [1e6, 1e-6] + [5, 0]))
    np.testing.assert_array_equal(plain.places, scaled.places)


def test_one_trial_is_a_front() -> None:
    """Neither objective has a width yet; what is below it in both is an improvement."""
    aims, values = drawn(outcomes_of(np.array([[3.0, -2.0]])))
    apart = aims.targets.T - values[0]
    assert (apart > -1e-12).all()
    np.testing.assert_allclose(apart.min(1), 0, atol=1e-12)


def test_an_objective_that_never_changes() -> None:
    aims, _ = drawn(outcomes_of(np.array([[3.0, 1.0], [2.0, 1.0], [4.0, 1.0]])))
    assert np.isfinite(aims.targets).all()
    assert aims.places.tolist() == [1, 0, 2]


@pytest.mark.parametrize("odd", [math.inf, -math.inf, 1e300])
def test_odd_values_are_survived(odd: float) -> None:
    aims, _ = drawn(outcomes_of(np.array([[odd, 1.0], [2.0, odd], [3.0, 0.0]])))
    assert np.isfinite(aims.targets).all()


def test_only_feasible_trials_are_a_front() -> None:
    """The others come after them, the one that violates least first."""
    values = np.array([[0.0, 0.0], [2.0, 1.0], [1.0, 2.0], [0.0, 0.1]])
    aims, settled = drawn(outcomes_of(values, np.array([0.5, 0.0, 0.0, 0.2])))
    for target in aims.targets.T:
        assert dominates(settled[1:3], target + 1e-9).any()
        assert not dominates(settled[1:3], target - 1e-9).any()
    assert aims.places[[3, 0]].tolist() == [2, 3]


def test_without_a_feasible_trial_there_are_no_aims() -> None:
    assert draw_aims(outcomes_of(np.ones((3, 2)), np.ones(3)), np.random.default_rng(0)) is None


def test_one_objective_has_no_front() -> None:
    assert draw_aims(outcomes_of(np.ones((3, 1))), np.random.default_rng(0)) is None
