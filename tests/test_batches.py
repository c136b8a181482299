"""How many examples a batch has, and where its tensors go."""

from __future__ import annotations

from collections import OrderedDict
from collections import UserDict
from collections import defaultdict
from dataclasses import InitVar
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import numpy as np
import pytest
import torch

from optuna_hypernet.response.batch import cloned
from optuna_hypernet.response.batch import cut
from optuna_hypernet.response.batch import n_rows
from optuna_hypernet.response.batch import to_device


@dataclass
class Pair:
    name: str
    x: Any


ROWS = torch.zeros(5, 3)


@pytest.mark.parametrize(
    "batch",
    [
        ROWS,
        (ROWS, torch.zeros(7)),
        {"id": ["a", "b"], "x": ROWS},
        [["a", "b"], {"x": ROWS}],
        (torch.tensor(1.0), ROWS),
        UserDict(id="a", x=ROWS),
        Pair("a", ROWS),
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_the_first_tensor_counts_the_examples(batch: Any) -> None:
    assert n_rows(batch) == 5


def test_a_batch_without_tensors_counts_as_one() -> None:
    assert n_rows(["a", "b"]) == 1


class Named(dict[str, Any]):
    """Has its entries as attributes, and another one."""

    def __init__(self, kind: str, **entries: Any) -> None:
        super().__init__(entries)
        self.kind = kind

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@pytest.mark.parametrize(
    "batch",
    [
        {"x": ROWS},
        OrderedDict(x=ROWS),
        defaultdict(list, x=ROWS),
        UserDict(x=ROWS),
        Named("a", x=ROWS),
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_a_mapping_stays_of_its_class(batch: Any) -> None:
    moved = to_device(batch, torch.device("meta"))
    assert type(moved) is type(batch)
    assert moved["x"].is_meta
    assert batch["x"] is ROWS
    if isinstance(batch, Named):
        assert moved.kind == "a"
        assert moved.x.is_meta


def test_tensors_of_a_dataclass_are_moved() -> None:
    moved = to_device(Pair("a", [ROWS]), torch.device("meta"))
    assert moved.name == "a"
    assert moved.x[0].is_meta


@dataclass
class Scaled:
    """Does something to its fields when it is made, and asks for what it does not keep."""

    x: torch.Tensor
    scale: InitVar[float]
    rows: int = field(init=False)
    also: torch.Tensor = field(init=False)

    def __post_init__(self, scale: float) -> None:
        self.x = self.x / scale
        self.rows = len(self.x)
        self.also = self.x + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    x: torch.Tensor


def test_a_dataclass_is_not_made_anew() -> None:
    batch = Scaled(torch.full((5, 3), 16.0), 16.0)
    moved = to_device(batch, torch.device("meta"))

    assert type(moved) is Scaled
    assert moved.x.is_meta
    assert moved.also.is_meta
    assert moved.rows == 5
    assert not batch.x.is_meta
    assert torch.equal(cloned(batch).x, torch.ones(5, 3))


def test_nor_is_a_frozen_one() -> None:
    batch = Frozen(x=ROWS)
    copied = cloned(batch)

    assert copied.x is not ROWS
    assert torch.equal(copied.x, ROWS)
    assert to_device(batch, torch.device("meta")).x.is_meta


class Own:
    """A batch as some libraries have it: no container, but it can go to a device."""

    def __init__(self, x: torch.Tensor, name: str) -> None:
        self.name = name
        self.x = x

    def to(self, device: torch.device) -> Own:
        return Own(self.x.to(device), self.name)


def test_a_class_of_ones_own_is_looked_into() -> None:
    assert n_rows(Own(ROWS, "a")) == 5
    assert to_device(Own(ROWS, "a"), torch.device("meta")).x.is_meta


def test_a_batch_is_cut_where_all_its_tensors_are_as_long() -> None:
    batch = {"x": ROWS, "y": (torch.arange(5), "name")}
    first = cut(batch, 2)

    assert torch.equal(first["x"], ROWS[:2])
    assert first["y"][0].tolist() == [0, 1]
    assert first["y"][1] == "name"
    lengths = (ROWS, torch.zeros(7)), (ROWS, torch.tensor(1.0))
    others = {"x": ROWS, "id": list("abcde")}, (ROWS, np.arange(5)), Own(ROWS, "a"), ["a"]
    for whole in (*lengths, *others):
        assert cut(whole, 2) is whole
