"""How many examples a batch has, and where its tensors go."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from optuna_hypernet.bilevel.batches import to_device
from optuna_hypernet.response.losses import n_rows


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


def test_tensors_of_a_dataclass_are_moved() -> None:
    moved = to_device(Pair("a", [ROWS]), torch.device("meta"))
    assert moved.name == "a"
    assert moved.x[0].is_meta
