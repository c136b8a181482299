"""A user's batch: the tensors in it, wherever they are in tuples, lists, mappings, dataclasses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import MutableMapping
from dataclasses import fields
from dataclasses import is_dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor


def n_rows(batch: Any) -> int:
    """How many examples a batch holds: the length of its first tensor; 1 if there is none.

    An object of a class of the user's own is looked into, too.
    """
    inside = tensors(vars(batch)) if hasattr(batch, "__dict__") else iter(())
    return next((len(one) for one in chain(tensors(batch), inside) if one.ndim), 1)


def tensors(batch: Any) -> Iterator[Tensor]:
    """Those in the batch, in order."""
    return (one for one in _parts(batch) if isinstance(one, Tensor))


def _parts(batch: Any) -> Iterator[Any]:
    """The batch, and all that is in it, in order."""
    yield batch
    if isinstance(batch, Mapping):
        for part in batch.values():
            yield from _parts(part)
    elif isinstance(batch, tuple | list):
        for part in batch:
            yield from _parts(part)
    elif is_dataclass(batch) and not isinstance(batch, type):
        for field in fields(batch):
            yield from _parts(getattr(batch, field.name))


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch on ``device``, with all tensors in it."""
    return _mapped(batch, lambda one: one.to(device))


def cloned(batch: Any) -> Any:
    """The batch with copies of all that it holds."""
    return _mapped(batch, _clone)


def cut(batch: Any, n: int) -> Any:
    """The first ``n`` examples of a batch.

    All of it if its tensors differ in length, or if it holds arrays, or a list as long as they
    are: of names, say, which belong to the examples.
    """
    rows, parts = n_rows(batch), list(_parts(batch))
    lengths = {len(one) if one.ndim else 0 for one in parts if isinstance(one, Tensor)}
    listed = any(isinstance(one, tuple | list) and len(one) == rows for one in parts)
    if lengths != {rows} or listed or any(isinstance(one, np.ndarray) for one in parts):
        return batch
    return _mapped(batch, lambda one: one[:n] if isinstance(one, Tensor) else one)


def _clone(one: Any) -> Any:
    return one.detach().clone() if isinstance(one, Tensor) else copy.copy(one)


def _mapped(batch: Any, change: Callable[[Any], Any]) -> Any:
    """The batch with whatever can go to a device changed, wherever it is in there."""
    if callable(getattr(batch, "to", None)):  # a tensor, a packed sequence, a tokenizer's batch
        return change(batch)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):  # a named tuple
        return type(batch)(*(_mapped(part, change) for part in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(_mapped(part, change) for part in batch)
    if isinstance(batch, MutableMapping):
        changed = copy.copy(batch)  # of the same class, with all else that it has
        for key, part in batch.items():
            changed[key] = _mapped(part, change)
        return changed
    if is_dataclass(batch) and not isinstance(batch, type):
        same: Any = copy.copy(batch)  # not made anew, which may do something to its fields
        for name in (one.name for one in fields(batch) if hasattr(batch, one.name)):
            object.__setattr__(same, name, _mapped(getattr(batch, name), change))  # frozen, too
        return same
    return batch
