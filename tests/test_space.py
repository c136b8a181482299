"""The search space: params to rows and back, grids, embeddings, and values out of range."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis.strategies import DataObject
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from problems import is_valid
from strategies import distributions
from strategies import values_of

from optuna_hypernet.space import Array
from optuna_hypernet.space import SearchSpace
from optuna_hypernet.space import internal_row


pytestmark = pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")

EPS = np.finfo(float).eps

searched = distributions(single=False)
unit = st.floats(0, 1)
spaces = st.dictionaries(st.sampled_from("abcdefgh"), searched, min_size=1, max_size=6)


def encoded(space: SearchSpace, *params: dict[str, Any]) -> tuple[Array, Array]:
    """Rows and active mask of params, as the history reads them."""
    table = [internal_row(space.names, each, space.distributions) for each in params]
    return space.encode(np.array(table, dtype=float))


def close(value: Any, expected: Any, kind: BaseDistribution, discrete: bool) -> bool:
    """Equal, or for a continuous parameter within the rounding of the way to [0, 1] and back.

    On the way a position is rounded some eight times, each time relative to the axis' largest
    position. A position is the value itself, or its logarithm: then the error of the position is
    a relative error of the value. Over decades it is the logarithm and as much again.
    """
    if discrete:
        return value is expected or bool(value == expected)
    assert isinstance(kind, IntDistribution | FloatDistribution)
    largest = max(abs(kind.low), abs(kind.high))
    tolerance = 8 * EPS * largest
    safe = kind.low > 1e-200 and kind.high < 1e200
    decades = math.log(kind.high) - math.log(kind.low) if safe else 0.0
    if kind.log or decades > math.log(99):
        logarithm = max(abs(math.log(kind.low)), abs(math.log(kind.high)), 1.0)
        logarithm += 0.0 if kind.log else 2 * decades
        tolerance = 8 * EPS * logarithm * expected + 4 * EPS * expected
    return abs(value - expected) <= tolerance + (type(value) is int)


# Params to rows and back.


@settings(max_examples=600)
@given(st.data())
def test_round_trip_of_every_kind(data: DataObject) -> None:
    kind = data.draw(searched)
    value = data.draw(values_of(kind))
    space = SearchSpace({"x": kind})
    rows, active = encoded(space, {"x": value})
    back = space.decode(rows[0])["x"]

    assert active.all()
    assert close(back, value, kind, bool(space.cardinality[0])), (back, value)
    assert is_valid(back, kind)


@settings(max_examples=150)
@given(st.data())
def test_round_trip_of_many_together(data: DataObject) -> None:
    space = SearchSpace(data.draw(spaces))
    params = {name: data.draw(values_of(kind)) for name, kind in space.distributions.items()}
    rows, active = encoded(space, params)
    back = space.decode(rows[0])

    assert active.all()
    assert list(back) == space.names
    for j, (name, kind) in enumerate(space.distributions.items()):
        assert close(back[name], params[name], kind, bool(space.cardinality[j]))


@settings(max_examples=300)
@given(searched, unit)
def test_any_row_decodes_to_a_valid_value(kind: BaseDistribution, position: float) -> None:
    value = SearchSpace({"x": kind}).decode(np.array([position]))["x"]

    assert is_valid(value, kind)
    assert type(value).__module__ != "numpy"


@settings(max_examples=200)
@given(searched)
def test_ends_of_a_row_are_the_ends_of_the_range(kind: BaseDistribution) -> None:
    space = SearchSpace({"x": kind})
    low, high = (space.decode(np.array([end]))["x"] for end in (0.0, 1.0))
    first, last = (
        (kind.choices[0], kind.choices[-1])
        if isinstance(kind, CategoricalDistribution)
        else (kind.low, kind.high)
    )

    if isinstance(kind, FloatDistribution) and kind.step is not None:
        # The grid is low + k * step, whose last value may miss the end by its rounding.
        last = min(kind.low + (int(space.cardinality[0]) - 1) * kind.step, kind.high)
        assert last == pytest.approx(kind.high, rel=1e-12, abs=1e-9 * kind.step)

    assert close(low, first, kind, bool(space.cardinality[0]))
    assert close(high, last, kind, bool(space.cardinality[0]))


@settings(max_examples=200)
@given(searched, unit, unit)
def test_order_is_kept(kind: BaseDistribution, one: float, other: float) -> None:
    space = SearchSpace({"x": kind})
    values = [space.decode(np.array([at]))["x"] for at in sorted((one, other))]
    ranks = [kind.to_internal_repr(value) for value in values]

    assert ranks[0] <= ranks[1]


def test_known_positions() -> None:
    space = SearchSpace(
        {
            "choice": CategoricalDistribution(["a", "b"]),
            "float": FloatDistribution(-1, 3),
            "int": IntDistribution(1, 4),
            "log": FloatDistribution(1e-4, 1, log=True),
            "log_int": IntDistribution(1, 2, log=True),
            "step": FloatDistribution(0, 1, step=0.25),
        }
    )
    params = {"choice": "b", "float": 0.0, "int": 1, "log": 0.1, "log_int": 2, "step": 0.75}
    rows, _ = encoded(space, params)
    log_int = math.log(2 / 0.5) / math.log(2.5 / 0.5)

    np.testing.assert_allclose(rows[0], [0.75, 0.25, 0.125, 0.75, log_int, 0.7], rtol=1e-14)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (FloatDistribution(0.01, 1), 0.1),
        (FloatDistribution(1e-5, 1e-1), 3e-4),
        (IntDistribution(1, 100), 10),
        (IntDistribution(2, 2000), 2),
    ],
)
def test_half_of_an_axis_over_decades_is_logarithmic(kind: BaseDistribution, value: float) -> None:
    assert isinstance(kind, IntDistribution | FloatDistribution)
    margin = (kind.step or 0) / 2
    low, high = kind.low - margin, kind.high + margin
    linear = (value - low) / (high - low)
    logarithmic = math.log(value / low) / math.log(high / low)
    rows, _ = encoded(SearchSpace({"x": kind}), {"x": value})

    np.testing.assert_allclose(rows, (linear + logarithmic) / 2, rtol=1e-12)


@pytest.mark.parametrize(
    "kind",
    [
        FloatDistribution(0.011, 1),
        FloatDistribution(0, 1),
        FloatDistribution(-1, 1000),
        FloatDistribution(0.01, 10, step=0.01),
        IntDistribution(16, 2048, step=16),
    ],
)
def test_other_axes_are_linear(kind: BaseDistribution) -> None:
    assert isinstance(kind, IntDistribution | FloatDistribution)
    space, count = SearchSpace({"x": kind}), 5
    values = [kind.low + round(k * (kind.high - kind.low) / count, 9) for k in range(count)]
    if kind.step:
        values = [kind.low + 8 * k * kind.step for k in range(count)]
    rows, _ = encoded(space, *({"x": value} for value in values))

    np.testing.assert_allclose(np.diff(rows[:, 0], n=2), 0, atol=1e-9)


def test_names_are_sorted_whatever_the_order() -> None:
    kinds = {
        "b": FloatDistribution(0, 1),
        "a": IntDistribution(0, 5),
        "B": FloatDistribution(0, 1),
    }
    forwards, backwards = SearchSpace(kinds), SearchSpace(dict(reversed(kinds.items())))

    assert forwards.names == backwards.names == ["B", "a", "b"]
    assert forwards.d == 3
    assert forwards.cardinality.tolist() == [0, 6, 0]


# Grids.


@settings(max_examples=300)
@given(searched, st.lists(unit, min_size=1, max_size=8))
def test_snap_is_idempotent_and_what_encode_gives(
    kind: BaseDistribution, positions: list[float]
) -> None:
    space = SearchSpace({"x": kind})
    rows = np.array(positions)[:, None]
    snapped = space.snap(rows)

    np.testing.assert_array_equal(space.snap(snapped), snapped)
    if space.cardinality[0]:
        again, _ = encoded(space, *(space.decode(row) for row in rows))
        np.testing.assert_array_equal(again, snapped)
    else:
        np.testing.assert_array_equal(snapped, rows)


@settings(max_examples=300)
@given(searched, st.data())
def test_levels_and_centres_are_inverse(kind: BaseDistribution, data: DataObject) -> None:
    space = SearchSpace({"x": kind})
    count = int(space.cardinality[0])
    if not count:
        return
    some = st.lists(st.integers(0, count - 1), min_size=1, max_size=50)
    levels = np.array([0, count - 1, *data.draw(some)])
    centres = space.centres(0, levels)

    np.testing.assert_array_equal(space.levels(centres[:, None])[:, 0], levels)
    assert ((centres > 0) & (centres < 1)).all()
    assert (np.diff(centres[np.argsort(levels, kind="stable")]) >= 0).all()


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        (FloatDistribution(0, 1), 0),
        (FloatDistribution(1, 2, log=True), 0),
        (FloatDistribution(0, 1, step=0.1), 11),
        (FloatDistribution(-3, -1, step=0.5), 5),
        (IntDistribution(-2, 5), 8),
        (IntDistribution(16, 128, step=16), 8),
        (IntDistribution(1, 300, log=True), 300),
        (CategoricalDistribution([None, True]), 2),
        (CategoricalDistribution(range(200)), 200),
    ],
)
def test_cardinality(kind: BaseDistribution, count: int) -> None:
    space = SearchSpace({"x": kind})

    assert space.cardinality.tolist() == [count]
    if count:
        centres = space.centres(0, np.arange(count))
        values = [space.decode(np.array([centre]))["x"] for centre in centres]
        assert len(set(map(repr, values))) == count


def test_cells_of_a_linear_grid_own_equal_shares() -> None:
    space = SearchSpace({"x": IntDistribution(0, 4)})
    levels = space.levels((np.arange(1000) + 0.5)[:, None] / 1000)[:, 0]

    assert np.bincount(levels).tolist() == [200] * 5


@settings(max_examples=100)
@given(st.data())
def test_equal_params_are_equal_rows_bit_by_bit(data: DataObject) -> None:
    """Alone or in a batch: rows are compared by equality to find repeats."""
    space = SearchSpace(data.draw(spaces))
    params = [
        {
            name: data.draw(values_of(kind))
            for name, kind in space.distributions.items()
            if data.draw(st.booleans())
        }
        for _ in range(3)
    ]
    batch, _ = encoded(space, *params, *params)
    alone = np.concatenate([encoded(space, each)[0] for each in params])

    np.testing.assert_array_equal(batch[:3], batch[3:])
    np.testing.assert_array_equal(batch[:3], alone)


# Inactive entries and values out of range.


@settings(max_examples=100)
@given(st.data())
def test_inactive_entries(data: DataObject) -> None:
    space = SearchSpace(data.draw(spaces))
    name = data.draw(st.sampled_from(space.names))
    j = space.names.index(name)
    params = {
        other: data.draw(values_of(kind))
        for other, kind in space.distributions.items()
        if other != name
    }
    rows, active = encoded(space, params, {})

    assert active[0].tolist() == [other != name for other in space.names]
    assert not active[1].any()
    assert rows[0, j] == rows[1, j]
    assert rows[0, j] == space.snap(np.full((1, space.d), 0.5))[0, j]
    widths = [len(SearchSpace({one: kind}).owner) for one, kind in space.distributions.items()]
    first = sum(widths[:j])
    assert not space.embed(rows, active)[:, first : first + widths[j]].any()


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (FloatDistribution(0, 10), [-5.0, 15.0, 20.0], [-0.5, 1.5, 2.0]),
        (FloatDistribution(0, 10), [-1e300, 1e300], [-1.0, 2.0]),
        (FloatDistribution(1, 10, log=True), [0.1, 100.0, 1e9], [-1.0, 2.0, 2.0]),
        (FloatDistribution(1, 10, log=True), [-3.0, 0.0], [-1.0, -1.0]),
        (IntDistribution(0, 4), [-3, 7], [-0.5, 1.5]),
        (IntDistribution(0, 4), [0, 4], [0.1, 0.9]),
        (FloatDistribution(0, 1, step=0.5), [-1.0, 1.5], [-0.5, 7 / 6]),
    ],
)
def test_values_out_of_the_latest_range(
    kind: BaseDistribution, values: list[float], expected: list[float]
) -> None:
    """They keep their place outside of [0, 1], up to one width away, and off the grid."""
    rows, active = SearchSpace({"x": kind}).encode(np.array(values, dtype=float)[:, None])

    assert active.all()
    np.testing.assert_allclose(rows[:, 0], expected, atol=1e-12)


@settings(max_examples=100)
@given(searched, st.floats(allow_nan=False))
def test_any_number_is_encoded(kind: BaseDistribution, number: float) -> None:
    if isinstance(kind, CategoricalDistribution):
        return
    space = SearchSpace({"x": kind})
    rows, active = space.encode(np.array([[number]]))

    assert active[0, 0] == math.isfinite(number)
    assert -1 <= rows[0, 0] <= 2
    assert is_valid(space.decode(np.clip(rows[0], 0, 1))["x"], kind)


# Embedding.


def _is_number(choice: Any) -> bool:
    return type(choice) in {int, float} and not math.isnan(choice)


def slow_embedding(space: SearchSpace, params: dict[str, Any]) -> list[float]:
    """The embedding of valid params, one number after the other."""
    out = []
    for name, kind in space.distributions.items():
        if isinstance(kind, CategoricalDistribution):
            chosen = int(kind.to_internal_repr(params[name])) if name in params else -1
            numbers = sorted(one for one in kind.choices if _is_number(one))
            numbers *= len(numbers) > 2
            if numbers:
                of_it = [2 * (k + 0.5) / len(numbers) - 1 for k in range(len(numbers))]
                places = dict(zip(numbers, of_it, strict=True))
                choice = params.get(name)
                out += [places[choice] if _is_number(choice) else 0.0]
            for k, choice in enumerate(kind.choices):
                size = 0.2 if numbers and _is_number(choice) else 1.0
                out += [size * math.sqrt(2) if k == chosen else 0.0]
        elif name in params:
            rows, _ = encoded(SearchSpace({name: kind}), {name: params[name]})
            out += [2 * rows[0, 0] - 1]
        else:
            out += [0.0]
    return out


@settings(max_examples=100)
@given(st.data())
def test_embedding_equals_slow_twin(data: DataObject) -> None:
    space = SearchSpace(data.draw(spaces))
    params = {
        name: data.draw(values_of(kind))
        for name, kind in space.distributions.items()
        if data.draw(st.booleans())
    }

    np.testing.assert_array_equal(
        space.embed(*encoded(space, params))[0], slow_embedding(space, params)
    )


def test_two_choices_are_as_far_apart_as_the_ends_of_a_range() -> None:
    space = SearchSpace({"c": CategoricalDistribution("abc"), "x": FloatDistribution(0, 1)})
    rows, active = encoded(space, {"c": "a", "x": 0.0}, {"c": "b", "x": 0.0}, {"c": "a", "x": 1.0})
    embedding = space.embed(rows, active)

    assert space.owner.tolist() == [0, 0, 0, 1]
    assert np.linalg.norm(embedding[0] - embedding[1]) == pytest.approx(2)
    assert np.linalg.norm(embedding[0] - embedding[2]) == pytest.approx(2)


def test_numbers_among_choices_are_in_their_order() -> None:
    space = SearchSpace({"units": CategoricalDistribution([128, None, 32, 64, 256])})
    units = [32, 64, 128, 256, None]
    embedding = space.embed(*encoded(space, *({"units": one} for one in units)))
    apart = np.linalg.norm(embedding[:, None] - embedding, axis=2)

    assert space.owner.tolist() == [0, 1, 1, 1, 1, 1]
    assert space.ranged.tolist() == [True, False, False, False, False, False]
    assert embedding[:, 0].tolist() == [-0.75, -0.25, 0.25, 0.75, 0.0]
    assert (np.diff(apart[0, :4]) > 0.2).all()
    assert (apart[4, :4] > 1.4).all()


@pytest.mark.parametrize(
    "choices",
    [
        ("32", "64", "128"),
        (32, 64),
        (None, 32, 64),
        (False, True, 2, 3),
        (math.nan, 1.0, 2.0),
        (1 + 0j, 2j, 3j),
    ],
)
def test_choices_without_an_order(choices: tuple[Any, ...]) -> None:
    space = SearchSpace({"c": CategoricalDistribution(choices)})
    embedding = space.embed(*encoded(space, *({"c": one} for one in choices)))

    np.testing.assert_allclose(embedding, math.sqrt(2) * np.eye(len(choices)))


@pytest.mark.parametrize("number", [10**400, Fraction(7, 2), np.float64(3.5), math.inf])
def test_any_real_number_has_a_place(number: Any) -> None:
    space = SearchSpace({"c": CategoricalDistribution([number, 2, 3])})

    assert space.embed(*encoded(space, {"c": number}))[0, 0] == pytest.approx(2 / 3)


@settings(max_examples=50)
@given(spaces, st.integers(0, 1000))
def test_pull_equals_finite_differences(
    distributions: dict[str, BaseDistribution], seed: int
) -> None:
    """Of a random linear function of the embedding; discrete numbers move off their grid."""
    space, rng = SearchSpace(distributions), np.random.default_rng(seed)
    rows = rng.uniform(0.1, 0.9, (4, space.d))
    active = rng.random((4, space.d)) < 0.7
    weight = rng.normal(size=(4, len(space.owner)))
    gradient = space.pull(weight, rows, active)
    for j in range(space.d):
        step = np.zeros(space.d)
        step[j] = 0.01 * (not space.categorical[j])
        difference = space.embed(rows + step, active) - space.embed(rows - step, active)
        expected = (difference * weight).sum(1) / 0.02

        np.testing.assert_allclose(gradient[:, j], expected, atol=1e-9)


@pytest.mark.parametrize(
    ("choices", "recorded"),
    [
        ((0, False, "auto"), [0, 2]),
        ((1, 1.0, True, 2), [0, 3]),
        (("a", "b", "b"), [0, 1]),
        (([1], [1], [2]), [0, 2]),
        ((None, math.nan, "x"), [0, 1, 2]),
    ],
)
def test_choices_that_cannot_be_told_apart_are_one(
    choices: tuple[Any, ...], recorded: list[int]
) -> None:
    kind = CategoricalDistribution(choices)
    space = SearchSpace({"c": kind, "x": FloatDistribution(0, 1)})
    rows, active = space.encode(np.array([[k, 0.5] for k in recorded], dtype=float))

    assert space.cardinality.tolist() == [len(recorded), 0]
    assert space.levels(rows)[:, 0].tolist() == list(range(len(recorded)))
    found = [kind.to_internal_repr(space.decode(row)["c"]) for row in rows]
    assert found == recorded
    assert (space.embed(rows, active)[:, :-1] > 0).sum() == len(recorded)


# Keys of rows.


@pytest.mark.parametrize("d", [1, 3, 9, 17, 40])
def test_equal_rows_share_a_key_alone_and_in_a_batch(d: int) -> None:
    """Sums are rounded: in another order they would differ, and a repeat would not be noticed."""
    space = SearchSpace({f"k{j}": IntDistribution(0, 7) for j in range(d)})
    table = np.random.default_rng(0).integers(0, 8, (50, d)).astype(float)
    rows, _ = space.encode(table)
    keys = space.keys(rows)
    columns = np.column_stack([table, table])[:, list(range(d))]  # as the history hands them out
    which = np.arange(d) % 2 == 0

    np.testing.assert_array_equal(space.keys(space.encode(columns)[0]), keys)
    np.testing.assert_array_equal(space.keys(rows[::-1])[::-1], keys)
    np.testing.assert_array_equal(space.keys(np.repeat(rows, 2, axis=0)[::2]), keys)
    np.testing.assert_array_equal([space.keys(row[None])[0] for row in rows], keys)
    np.testing.assert_array_equal(
        space.keys(np.where(which, rows, 0.5), which), space.keys(rows, which)
    )


def test_different_rows_have_different_keys() -> None:
    space = SearchSpace({"a": IntDistribution(0, 99), "b": IntDistribution(0, 99)})
    values = np.stack(np.meshgrid(np.arange(100.0), np.arange(100.0)), -1).reshape(-1, 2)
    rows, _ = space.encode(values)

    assert len(np.unique(space.keys(rows))) == 10**4
    assert len(np.unique(space.keys(rows, np.array([True, False])))) == 100


# Errors.


class _Strange(BaseDistribution):
    def single(self) -> bool:
        return False

    def to_internal_repr(self, param_value_in_external_repr: Any) -> float:
        return 0.0

    def _contains(self, param_value_in_internal_repr: float) -> bool:
        return True


@pytest.mark.parametrize(
    "kind",
    [
        FloatDistribution(1, 1),
        FloatDistribution(2, 2, log=True),
        IntDistribution(3, 3),
        IntDistribution(3, 3, log=True),
        CategoricalDistribution(["only"]),
    ],
)
def test_single_valued_parameters_are_refused(kind: BaseDistribution) -> None:
    with pytest.raises(ValueError, match=r"'x' has a single value: .*leave it out"):
        SearchSpace({"x": kind})


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'x' has a _Strange, .*Use FloatDistribution, Int"):
        SearchSpace({"x": _Strange()})
