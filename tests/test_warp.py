"""Output warps: monotone, standardised, and finite for whatever an objective returns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np
import pytest
from differences import Array
from hypothesis import given
from hypothesis import settings
from scipy.stats import norm
from scipy.stats import rankdata

from optuna_hypernet.surrogate.warp import NAMES
from optuna_hypernet.surrogate.warp import carry
from optuna_hypernet.surrogate.warp import least_gain
from optuna_hypernet.surrogate.warp import settle
from optuna_hypernet.surrogate.warp import warp


finite = st.floats(allow_nan=False, allow_infinity=False)
anything = st.floats(allow_nan=False)
near = st.integers(0, 9).map(lambda k: 1 + 1e-12 * k)
tied = st.sampled_from([-1.0, 0.0, 0.5, 3.0])


def samples(kind: st.SearchStrategy[float]) -> st.SearchStrategy[list[float]]:
    return st.lists(kind, min_size=1, max_size=20)


ANY = samples(anything) | samples(near) | samples(tied) | samples(finite)


def gain(values: Sequence[float] | Array, name: str) -> float:
    return least_gain(np.asarray(values), np.ones(len(values), dtype=bool), name)


def settled(values: list[float]) -> Array:
    return settle(np.array(values), np.zeros(len(values), dtype=bool))


def assert_monotone(before: Array, after: Array) -> None:
    order = np.argsort(before, kind="stable")

    assert (np.diff(after[order]) >= 0).all()


# Settling.


@settings(max_examples=300)
@given(ANY)
def test_settled_values_can_be_computed_with(values: list[float]) -> None:
    out = settled(values)

    assert np.isfinite(out).all()
    assert np.abs(out).max() <= 1
    assert_monotone(np.array(values), out)


@settings(max_examples=200)
@given(samples(near) | samples(tied) | samples(st.floats(-1e300, 1e300, allow_subnormal=False)))
def test_settling_loses_no_digit(values: list[float]) -> None:
    """Of values whose magnitudes a float can hold together, all are scaled by one power of 2."""
    out, top = settled(values), max(map(abs, values))
    for value, scaled in zip(values, out, strict=True):
        if value and abs(value) > top * 1e-300:
            mantissas = math.frexp(value)[0], math.frexp(scaled)[0]
            assert mantissas[0] == mantissas[1]


def test_infinities_lie_beyond_the_ends_by_as_much_as_these_lie_apart() -> None:
    out = settled([1.0, math.inf, -4.0, -math.inf])
    assert (32 * out).tolist() == [1, 6, -4, -9]
    assert (settled([3.0, math.inf, 3.0]) * 16).tolist() == [3, 7, 3]


def test_nothing_but_infinities() -> None:
    assert settled([math.inf, -math.inf, math.inf]).tolist() == [1, -1, 1]


def test_pruned_count_as_no_better_than_the_median_of_the_complete() -> None:
    values = np.array([4.0, 1.0, 2.0, -9.0, 3.0, 8.0])
    pruned = np.array([False, False, False, True, True, True])

    assert (8 * 2 * settle(values, pruned)).tolist() == [4, 1, 2, 2, 3, 8]


def test_nothing_but_pruned() -> None:
    values = np.array([2.0, 1.0, 0.5])

    assert (settle(values, np.ones(3, dtype=bool)) * 4).tolist() == [2, 1, 0.5]


def test_diverged_trial_does_not_make_the_pruned_bad() -> None:
    """The median of the complete ones is taken after infinities moved."""
    values = np.array([math.inf, 1.0, math.inf, 0.0])
    pruned = np.array([False, False, False, True])
    out = settle(values, pruned)

    assert out[3] == out[2] == out[0] > out[1]


# Warping.


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=200)
@given(ANY)
def test_warps_are_monotone_and_standard(name: str, values: list[float]) -> None:
    before = settled(values)
    after = warp(before, name)

    assert_monotone(before, after)
    if before.max() == before.min():
        assert not after.any()
    else:
        assert abs(after.mean()) < 1e-9
        assert after.std() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100)
@given(ANY)
def test_equal_values_stay_equal(name: str, values: list[float]) -> None:
    before = settled(values * 2)
    after = warp(before, name)

    np.testing.assert_array_equal(after[: len(values)], after[len(values) :])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 1.0, -3e300, 5e-324])
def test_constant_values_become_zeros(name: str, value: float) -> None:
    assert warp(np.full(5, value), name).tolist() == [0.0] * 5
    assert warp(np.array([value]), name).tolist() == [0.0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gap", [1e-12, 2.5e-16])
def test_the_smallest_differences_are_seen(name: str, gap: float) -> None:
    after = warp(settled([1.0, 1.0 + gap, 1.0, 1.0 + 2 * gap]), name)

    assert after[0] == after[2] < after[1] < after[3]


def standard(values: Array) -> Array:
    return (values - values.mean()) / values.std()


VALUES = np.random.default_rng(0).normal(size=15) ** 3


def test_identity_is_linear() -> None:
    np.testing.assert_allclose(warp(VALUES, "identity"), standard(VALUES), rtol=1e-12)


@pytest.mark.parametrize("values", [VALUES, np.array([3.0, 1.0, 1.0, 2.0, 1.0, 3.0])])
def test_rank_gives_normal_quantiles(values: Array) -> None:
    """Ties share their mean rank, as scipy's do."""
    quantiles = norm.ppf((rankdata(values) - 0.5) / len(values))

    np.testing.assert_allclose(warp(values, "rank"), standard(quantiles), rtol=1e-10, atol=1e-12)


def test_half_rank_is_linear_below_the_median_and_ranked_above() -> None:
    after = warp(VALUES, "half-rank")
    better = np.median(VALUES) >= VALUES
    quantiles = norm.ppf((rankdata(VALUES) - 0.5) / len(VALUES))

    for half, model in ((better, VALUES), (~better, quantiles)):
        slope = np.diff(after[half]) / np.diff(model[half])
        np.testing.assert_allclose(slope, slope[0], rtol=1e-8)


def test_half_rank_with_a_constant_better_half() -> None:
    values = np.array([1.0, 1.0, 1.0, 2.0, 9.0])

    np.testing.assert_array_equal(warp(values, "half-rank"), warp(values, "rank"))


# The least gain.


@pytest.mark.parametrize("name", NAMES)
def test_without_a_tie_of_the_lowest_any_gain_counts(name: str) -> None:
    assert gain([0.1, 0.2, 0.2, 0.5], name) == 0
    assert gain([0.3], name) == 0
    assert gain([0.3, 0.3], name) == 0


def test_ties_that_the_objective_has_not_returned_are_no_lattice() -> None:
    """Pruned trials are moved to the median of the complete ones."""
    settled = settle(np.array([1.0, 0.5, 2.0]), np.array([False, True, True]))
    assert settled[0] == settled[1]
    assert least_gain(settled, np.array([True, False, False]), "rank") == 0


def test_least_gain_of_a_lattice_is_its_step() -> None:
    """0.1, by the smallest step seen: 0.05, in standard deviations of all five and the next."""
    values = np.array([0.1, 0.1, 0.15, 0.3, 0.5])
    scale = np.append(values, 0.05).std()

    assert gain(values, "identity") == pytest.approx(0.05 / scale)


def test_least_gain_of_ranks_grows_with_the_ties() -> None:
    """Ranked, a single better value is the further from the best, the more share that one."""
    two, five = (gain(np.r_[np.zeros(k), np.arange(1.0, 21 - k)], "rank") for k in (2, 5))

    assert five > two > 0


@pytest.mark.parametrize("name", NAMES)
@given(values=samples(tied) | samples(anything))
def test_least_gain_is_finite_and_not_negative(name: str, values: list[float]) -> None:
    assert 0 <= gain(settled(values), name) < np.inf


# From one scale to another.


@pytest.mark.parametrize("name", NAMES)
def test_carried_there_and_back(name: str) -> None:
    """Also beyond the values, and in their own order."""
    values = np.random.default_rng(0).normal(size=20) ** 3
    warped = warp(values, name)
    at = np.linspace(values.min() - 3, values.max() + 3, 101)
    there = carry(at, values, warped)

    assert (np.diff(there) > 0).all()
    np.testing.assert_allclose(carry(values, values, warped), warped, atol=1e-12)
    np.testing.assert_allclose(carry(there, warped, values), at, atol=1e-9)


def test_carried_from_a_constant() -> None:
    values, warped = np.full(3, 0.5), np.zeros(3)
    assert carry(np.array([0.2, 0.5]), values, warped).tolist() == [0, 0]
    assert carry(np.array([-1.0, 0.0]), warped, values).tolist() == [0.5, 0.5]
