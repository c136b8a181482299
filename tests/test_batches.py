"""How many examples a batch has, and where its tensors go."""

from __future__ import annotations

from collections import OrderedDict
from collections import UserDict
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pytest
import torch

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
