"""Finding the largest value of an acquisition: against brute force, and without repeats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from differences import Array
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from problems import every_kind
from problems import optimized
from problems import params_of

from optuna_hypernet import HypernetSampler
from optuna_hypernet.conditions import Conditions
from optuna_hypernet.descent import propose
from optuna_hypernet.domain import Domain
from optuna_hypernet.space import Mask
from optuna_hypernet.space import SearchSpace


X = FloatDistribution(0, 1)


class Toy:
    """An acquisition whose largest value is known, with the face of ExpectedImprovement."""

    def __init__(self, function: Callable[[Array], Array], space: SearchSpace) -> None:
        self._function = function
        self._numeric = ~space.categorical

    def calibrated(self, rows: Array, active: Mask) -> tuple[Toy, Array]:
        return self, self.value(rows, active)

    def value(self, rows: Array, active: Mask) -> Array:
        return np.asarray(self._function(rows), dtype=float)

    def value_and_gradient(self, rows: Array, active: Mask) -> tuple[Array, Array]:
        gradient = np.zeros_like(rows)
        for j in np.flatnonzero(self._numeric):
            step = np.zeros(rows.shape[1])
            step[j] = 1e-6
            high, low = self._function(rows + step), self._function(rows - step)
            gradient[:, j] = (high - low) / 2e-6
        return self.value(rows, active), gradient * active


def domain_of(space: SearchSpace, fixed: dict[str, float] | None = None) -> Domain:
    """Without conditions; ``fixed`` positions in [0, 1] by name."""
    row = np.array([(fixed or {}).get(name, np.nan) for name in space.names])
    return Domain(space, Conditions(space, *empty(space), np.empty(0, dtype=bool)), row)


def empty(space: SearchSpace) -> tuple[Array, Mask]:
    return np.empty((0, space.d)), np.empty((0, space.d), dtype=bool)


def found(
    function: Callable[[Array], Array],
    space: SearchSpace,
    domain: Domain | None = None,
    tried: Array | None = None,
    seed: int = 0,
) -> Array:
    """What is proposed, from one trial in the middle of nowhere."""
    domain = domain or domain_of(space)
    incumbents = domain.project(np.full((1, space.d), 0.9))[0]
    tried = incumbents if tried is None else tried
    rng = np.random.default_rng(seed)
    return propose(Toy(function, space), domain, incumbents, tried, rng)


# The largest value is found.


@pytest.mark.parametrize("d", [1, 2, 5, 10])
def test_top_of_a_hill(d: int) -> None:
    space = SearchSpace({f"x{k}": X for k in range(d)})
    top = np.random.default_rng(d).uniform(0.05, 0.95, space.d)
    row = found(lambda rows: -((rows - top) ** 2).sum(1), space)

    np.testing.assert_allclose(row, top, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_top_of_a_narrow_skewed_hill(seed: int) -> None:
    space = SearchSpace({"x": X, "y": X, "z": X})
    rng = np.random.default_rng(seed)
    top, root = rng.uniform(0.2, 0.8, 3), rng.normal(size=(3, 3))
    hill = root @ root.T + 0.05 * np.eye(3)
    row = found(lambda rows: -10 * np.einsum("ni,ij,nj->n", rows - top, hill, rows - top), space)

    np.testing.assert_allclose(row, top, atol=5e-3)


def test_top_at_a_corner() -> None:
    space = SearchSpace({"x": X, "y": X, "z": X})
    row = found(lambda rows: rows @ np.array([1.0, -2.0, 0.5]), space)

    assert row.tolist() == [1, 0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_highest_of_many_hills(seed: int) -> None:
    """As high as a grid of 100 x 100 can tell."""
    space = SearchSpace({"x": X, "y": X})
    rng = np.random.default_rng(seed)
    tops, heights = rng.random((12, 2)), rng.uniform(0.5, 1.0, 12)

    def hills(rows: Array) -> Array:
        distance = ((rows[:, None] - tops) ** 2).sum(2)
        return np.asarray((heights * np.exp(-distance / 0.005)).max(1))

    axis = np.linspace(0, 1, 100)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)

    assert hills(found(hills, space)[None])[0] >= hills(grid).max() - 1e-3


MIXED = {
    "choice": CategoricalDistribution("abcde"),
    "k": IntDistribution(0, 6),
    "log": IntDistribution(1, 40, log=True),
    "s": FloatDistribution(0, 1, step=0.25),
}


@pytest.mark.parametrize("seed", range(8))
def test_brute_force_on_a_grid(seed: int) -> None:
    """7,000 configurations with values that follow no pattern but a slope."""
    space = SearchSpace(MIXED)
    rng = np.random.default_rng(seed)
    bonus, slope = rng.normal(size=5), rng.normal(size=4)
    domain = domain_of(space)
    everything = domain.grid(10**4)
    assert everything is not None

    def value(rows: Array) -> Array:
        return np.asarray(
            bonus[space.levels(rows)[:, 0]] + rows @ slope - 3 * (rows[:, 1] - 0.4) ** 2
        )

    assert len(everything) == 5 * 7 * 40 * 5
    assert value(found(value, space)[None])[0] == pytest.approx(value(everything).max(), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_small_grid_is_searched_completely(seed: int) -> None:
    """Up to a thousand configurations nothing is left to luck, not even a needle."""
    space = SearchSpace({"c": CategoricalDistribution(range(30)), "k": IntDistribution(0, 29)})
    levels = np.random.default_rng(seed).permutation(900).reshape(30, 30)

    def needle(rows: Array) -> Array:
        at = space.levels(rows)
        return np.asarray(levels[at[:, 0], at[:, 1]] == 77, dtype=float)

    assert needle(found(needle, space)[None])[0] == 1


@pytest.mark.parametrize("seed", range(4))
def test_mixed_space(seed: int) -> None:
    """Each choice has its own hill."""
    space = SearchSpace({**MIXED, "x": X, "y": X})
    rng = np.random.default_rng(seed)
    tops, heights = rng.uniform(0.1, 0.9, (5, 2)), rng.normal(size=5)

    def value(rows: Array) -> Array:
        choice = space.levels(rows)[:, 0]
        hill = ((rows[:, 4:] - tops[choice]) ** 2).sum(1)
        return np.asarray(heights[choice] - 2 * hill - (rows[:, 1] - 0.5) ** 2 - rows[:, 2])

    best = int(np.argmax(heights))
    params = space.decode(found(value, space))

    assert params["choice"] == "abcde"[best]
    assert (params["k"], params["log"]) == (3, 1)
    np.testing.assert_allclose([params["x"], params["y"]], tops[best], atol=1e-3)


def test_incumbents_lead_up_a_hill_that_the_screen_misses() -> None:
    """All is flat but the surroundings of the best trial."""
    space = SearchSpace({f"x{k}": X for k in range(6)})
    top = np.full(6, 0.37)

    def value(rows: Array) -> Array:
        return np.maximum(0, 1 - np.linalg.norm(rows - top, axis=1) / 0.06)

    incumbent = (top + 0.02)[None]
    row = propose(
        Toy(value, space),
        domain_of(space),
        incumbents=incumbent,
        tried=incumbent,
        rng=np.random.default_rng(0),
    )

    assert value(np.random.default_rng(0).random((10**4, 6))).max() == 0
    assert value(row[None])[0] > 0.5 > value(incumbent)[0]


@pytest.mark.parametrize("value", [0.0, -1e300, np.nan, -np.inf])
def test_flat_and_broken_acquisitions_still_give_a_row(value: float) -> None:
    space = SearchSpace({**MIXED, "x": X})
    with np.errstate(invalid="ignore"):
        row = found(lambda rows: np.full(len(rows), value), space)

    assert ((row >= 0) & (row <= 1)).all()


# Always inside of the domain.


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_on_the_grid_and_in_the_box(seed: int) -> None:
    space = SearchSpace({**MIXED, "x": X})
    weight = np.random.default_rng(seed).normal(size=5)
    row = found(lambda rows: np.sin(9 * rows @ weight), space, seed=seed)

    np.testing.assert_array_equal(space.snap(row[None])[0], row)
    assert ((row >= 0) & (row <= 1)).all()


@pytest.mark.parametrize(
    "fixed", [{"x": 0.123}, {"choice": 0.3}, {"k": 0.5, "s": 0.1}, {"x": 0.0, "log": 0.5}]
)
def test_fixed_entries_stay(fixed: dict[str, float]) -> None:
    space = SearchSpace({**MIXED, "x": X, "y": X})
    at = space.snap(np.array([[fixed.get(name, 0.5) for name in space.names]]))[0]
    kept = {name: at[space.names.index(name)] for name in fixed}
    row = found(lambda rows: -((rows - 0.77) ** 2).sum(1), space, domain_of(space, kept))

    for name, j in ((name, space.names.index(name)) for name in space.names):
        if name in fixed:
            assert row[j] == kept[name]
    assert row[space.names.index("y")] == pytest.approx(0.77, abs=1e-3)


def test_everything_fixed() -> None:
    space = SearchSpace({"k": IntDistribution(0, 6), "x": X})
    domain = domain_of(space, {"k": 0.5, "x": 0.3})

    assert found(lambda rows: rows.sum(1), space, domain).tolist() == [0.5, 0.3]


def conditional() -> tuple[SearchSpace, Domain]:
    """``x`` exists for choice "a" only, ``k`` for "b" only."""
    space = SearchSpace({"c": CategoricalDistribution("ab"), "k": IntDistribution(0, 9), "x": X})
    active = np.array([[True, False, True], [True, True, False]])
    rows = np.array([[0.25, 0.5, 0.5], [0.75, 0.5, 0.5]])
    return space, Domain(
        space, Conditions(space, rows, active, np.ones(len(rows), dtype=bool)), np.full(3, np.nan)
    )


def test_conditions_are_honoured() -> None:
    """What is not asked for stays in mid-range, whatever it would bring."""
    space, domain = conditional()
    idle = space.snap(np.full((1, 3), 0.5))[0]
    for choice in (0.25, 0.75):
        row = found(
            lambda rows: rows[:, 1] + rows[:, 2] - 10 * (rows[:, 0] != choice),  # noqa: B023
            space,
            domain,
            tried=np.empty((0, 3)),
        )
        expected = [0.25, idle[1], 1.0] if choice == 0.25 else [0.75, 0.95, idle[2]]

        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_project_is_idempotent() -> None:
    _, domain = conditional()
    rows, active = domain.project(np.random.default_rng(0).uniform(-1, 2, (50, 3)))
    again, active_again = domain.project(rows)

    np.testing.assert_array_equal(again, rows)
    np.testing.assert_array_equal(active_again, active)


# No repeats.

DISCRETE: dict[str, dict[str, BaseDistribution]] = {
    "grid": {"c": CategoricalDistribution("abc"), "k": IntDistribution(0, 4)},
    "one": {"k": IntDistribution(1, 12, log=True)},
    "many": {f"b{k}": CategoricalDistribution([False, True]) for k in range(5)},
    "steps": {"s": FloatDistribution(0, 1, step=0.25), "t": FloatDistribution(-1, 0, step=0.5)},
}


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("shape", ["flat", "hill"])
def test_no_repeats_until_exhausted(name: str, shape: str) -> None:
    """Under an acquisition that always wants the same; then one of those that were tried."""
    space = SearchSpace(DISCRETE[name])
    size = int(space.cardinality.prod())

    def value(rows: Array) -> Array:
        return np.zeros(len(rows)) if shape == "flat" else -((rows - 0.3) ** 2).sum(1)

    tried = np.empty((0, space.d))
    for seed in range(size):
        tried = np.vstack([tried, found(value, space, tried=tried, seed=seed)])
    decoded = {repr(space.decode(row)) for row in tried}

    assert len(decoded) == size
    assert repr(space.decode(found(value, space, tried=tried))) in decoded


def test_best_of_those_left_is_proposed() -> None:
    space = SearchSpace(DISCRETE["grid"])
    domain = domain_of(space)
    everything = domain.grid(100)
    assert everything is not None
    worth = dict(zip(space.keys(everything), np.random.default_rng(0).random(15), strict=True))

    def value(rows: Array) -> Array:
        return np.array([worth[key] for key in space.keys(rows)])

    tried = np.empty((0, space.d))
    for _ in range(15):
        tried = np.vstack([tried, found(value, space, tried=tried)])

    assert value(tried).tolist() == sorted(worth.values(), reverse=True)


def test_last_one_left_of_a_large_grid() -> None:
    """Beyond what is screened at once."""
    space = SearchSpace({name: IntDistribution(0, 59) for name in "abc"})
    everything = domain_of(space).grid(10**6)
    assert everything is not None
    row = found(lambda rows: rows.sum(1), space, tried=np.delete(everything, 12345, axis=0))

    np.testing.assert_array_equal(row, everything[12345])


def test_conditional_space_is_exhausted_by_what_differs() -> None:
    """Rows that differ only in what is not asked for are the same trial."""
    space = SearchSpace({"c": CategoricalDistribution("ab"), "k": IntDistribution(0, 3)})
    active = np.array([[True, False], [True, True]])
    rows = np.array([[0.25, 0.625], [0.75, 0.625]])
    domain = Domain(
        space, Conditions(space, rows, active, np.ones(len(rows), dtype=bool)), np.full(2, np.nan)
    )
    tried = np.empty((0, 2))
    for seed in range(5):
        row = found(lambda rows: np.zeros(len(rows)), space, domain, tried, seed)
        tried = np.vstack([tried, row])

    assert sorted(map(tuple, tried.tolist())) == [
        (0.25, 0.625),
        (0.75, 0.125),
        (0.75, 0.375),
        (0.75, 0.625),
        (0.75, 0.875),
    ]


# Randomness.


def test_uniform_points_fill_the_box_evenly() -> None:
    domain = domain_of(SearchSpace({"x": X, "y": X}))
    points = domain.uniform(256, np.random.default_rng(0))
    counts = np.histogram2d(points[:, 0], points[:, 1], bins=4, range=[[0, 1], [0, 1]])[0]

    assert counts.min() >= 13
    assert counts.max() <= 19


def test_same_generator_same_row() -> None:
    space = SearchSpace({**MIXED, "x": X})

    def value(rows: Array) -> Array:
        return np.asarray(np.sin(20 * rows).sum(1))

    np.testing.assert_array_equal(found(value, space, seed=3), found(value, space, seed=3))


# Together, through Optuna.


def test_small_discrete_study_tries_everything_once() -> None:
    def objective(trial: Any) -> float:
        k = trial.suggest_int("k", 0, 3)
        return k * {"a": 1, "b": -1, None: 0.5}[trial.suggest_categorical("c", ["a", "b", None])]

    study = optimized(HypernetSampler(seed=0, n_startup_trials=3), objective, 13)
    seen = [(params["k"], params["c"]) for params in params_of(study)]

    assert len(set(seen[:12])) == 12
    assert seen[12] in seen[:12]


def test_noisy_study_of_few_configurations_goes_on_with_the_good_ones() -> None:
    """Once all sixteen were tried, what is worth another look is for the acquisition to say."""
    truth = np.random.default_rng(0).random(16)
    noise = np.random.default_rng(1).normal(scale=0.3, size=48)

    def objective(trial: Any) -> float:
        k, c = trial.suggest_int("k", 0, 3), trial.suggest_categorical("c", "abcd")
        return float(truth[4 * k + "abcd".index(c)] + noise[trial.number])

    study = optimized(HypernetSampler(seed=0), objective, 48)
    known = [truth[4 * p["k"] + "abcd".index(p["c"])] for p in params_of(study)]

    assert np.mean(known[16:]) < np.quantile(truth, 0.25)  # at random it would be their mean


def test_better_than_random_on_every_kind_of_parameter() -> None:
    from optuna.samplers import RandomSampler

    ours = [optimized(HypernetSampler(seed=k), every_kind, 30).best_value for k in range(3)]
    random = [optimized(RandomSampler(seed=k), every_kind, 90).best_value for k in range(3)]

    assert np.mean(ours) < np.mean(random)
