"""The trust region: against a plain loop, and what a study sees of it."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from differences import Array
from differences import finite_differences
from optuna.trial import Trial

from optuna_hypernet import HypernetSampler
from optuna_hypernet.space import Mask
from optuna_hypernet.trust import TrustRegion
from optuna_hypernet.trust import trust_region


COLUMNS = np.array([0, 2, 3])


@pytest.fixture
def region() -> TrustRegion:
    return TrustRegion(np.random.default_rng(0).random((6, 4)), COLUMNS, 0.1)


def everything(rows: Array) -> Mask:
    return np.ones(rows.shape, dtype=bool)


def by_loop(region: TrustRegion, row: Array) -> float:
    """50 times the distance from the nearest cube; column 1 does not count."""
    distances = [max(abs(row[j] - trial[j]) for j in (0, 2, 3)) for trial in region.trials]
    return 50 * max(min(distances) - region.radius, 0.0)


def test_penalty_equals_plain_loop(region: TrustRegion) -> None:
    rows = np.random.default_rng(1).random((40, 4))
    expected = [by_loop(region, row) for row in rows]

    assert any(expected)
    np.testing.assert_allclose(region.value(rows, everything(rows)), expected, rtol=1e-12)


def test_derivative_equals_finite_differences(region: TrustRegion) -> None:
    rows = np.random.default_rng(2).random((40, 4))
    got = region.value_and_gradient(rows, everything(rows))[1]
    expected = finite_differences(lambda at: float(region.value(at, everything(at)).sum()), rows)

    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_nothing_is_lost_within_a_cube(region: TrustRegion) -> None:
    rows = region.trials.copy()
    rows[:, COLUMNS] += 0.0999
    rows[:, 1] = 0.5
    penalty, slope = region.value_and_gradient(rows, everything(rows))

    assert not penalty.any()
    assert not slope.any()


@pytest.mark.parametrize("d", [1, 6, 20])
def test_radius_grows_from_a_fifth_to_a_half_and_then_there_is_none(d: int) -> None:
    most = 5 * (d + 1)
    radii = []
    for n in range(1, most + 1):
        region = trust_region(np.zeros((n, d)), np.arange(d))
        assert region is not None
        radii.append(region.radius)

    np.testing.assert_allclose(np.diff(radii), 0.3 / most)
    assert math.isclose(radii[0], 0.2 + 0.3 / most)
    assert math.isclose(radii[-1], 0.5)
    assert trust_region(np.zeros((most + 1, d)), np.arange(d)) is None


def test_without_a_number_of_many_values_there_is_none() -> None:
    assert trust_region(np.zeros((3, 2)), np.array([], dtype=np.int64)) is None


def test_trials_outside_of_a_range_that_moved_count_as_at_its_end() -> None:
    region = trust_region(np.array([[-0.8, 0.5], [1.5, 1.5]]), np.arange(2))

    assert region is not None
    rows = np.array([[0.1, 0.5], [0.9, 0.9]])
    assert not region.value(rows, everything(rows)).any()


def test_suggestions_of_a_young_study_stay_near_its_trials() -> None:
    """Whatever is best far away. The four of the start may lie anywhere."""
    d, names = 6, [f"x{j}" for j in range(6)]

    def objective(trial: Trial) -> float:
        return -sum(abs(trial.suggest_float(name, 0, 1) - 0.5) for name in names)

    study = optuna.create_study(sampler=HypernetSampler(seed=0))
    study.optimize(objective, n_trials=20)
    rows = np.array([[trial.params[name] for name in names] for trial in study.trials])

    nearest = [np.abs(rows[:n] - rows[n]).max(1).min() for n in range(4, 20)]
    radii = [0.2 + 0.3 * n / (5 * (d + 1)) for n in range(4, 20)]
    assert (np.array(nearest) < np.array(radii) + 0.02).all()
    assert max(nearest) > 0.15  # it is not that it would not want to
