"""A user's data: batches without end, repeatable, and the same again after a resume."""

from __future__ import annotations

import operator
from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from optuna_hypernet.randomness import derive
from optuna_hypernet.randomness import private_randomness
from optuna_hypernet.response.batch import cloned
from optuna_hypernet.response.batch import cut
from optuna_hypernet.response.batch import n_rows
from optuna_hypernet.response.batch import to_device


_LONG = 2000  # examples of a batch, of which the first may do


class Batches:
    """Batches of an iterable, pass after pass.

    What torch's global generator gives inside the loader (shuffling, augmentation) follows from
    the seed, the pass and the batch's place in it; a loader or sampler with a ``generator`` of its
    own keeps that one, and its state is part of a checkpoint. Randomness of other libraries is not
    covered, except in a loader's workers, which torch seeds.

    Args:
        name: What errors call it.
        data: Yields batches; to be iterated over many times.
        device: Where the tensors of a batch are moved to.
        seed: Of the loader's randomness.

    Raises:
        TypeError: If ``data`` cannot be iterated over, or only once.
        ValueError: If it has a length, and that is zero, or if all iterations over it are one.
    """

    def __init__(self, name: str, data: Iterable[Any], device: torch.device, seed: int) -> None:
        advice = "Pass a torch DataLoader, or a list of batches; [(x, y)] is one full batch."
        if not isinstance(data, Iterable):
            raise TypeError(f"{name} is {data!r}, which cannot be iterated over. {advice}")
        if isinstance(data, Iterator):
            raise TypeError(
                f"{name} is a {type(data).__name__}, which can be iterated over only once, but "
                f"training takes many passes. {advice}"
            )
        if operator.length_hint(data, 1) == 0:
            raise ValueError(f"{name} is empty: it has no batch. {advice}")
        if getattr(data, "persistent_workers", False):
            raise ValueError(
                f"{name} is a loader with persistent_workers, of which a second iteration ends "
                "the first; but validation data are evaluated in between, and training data "
                "counted. Make it with persistent_workers=False."
            )
        self._name = name
        self._data = data
        self._device = device
        self._seed = seed
        self._own = _generators(data)
        self._passes = 0
        self._index = 0  # batches taken from the present pass
        self._iterator: Iterator[Any] | None = None
        self._own_at_start: list[Tensor] = []
        self._first: tuple[int, list[Any]] = (0, [])

    def next(self) -> Any:
        """The next batch, on the device; a new pass starts where one ends."""
        while True:
            if self._iterator is None:
                self._start()
            try:
                return self._take()
            except StopIteration:
                if self._index == 0:
                    raise ValueError(
                        f"{self._name} gave no batch in pass {self._passes}. It must yield at "
                        "least one batch each time it is iterated over."
                    ) from None
                self._iterator, self._index = None, 0
                self._passes += 1

    def all(self) -> Generator[Any]:
        """One pass over everything, which leaves :meth:`next` where it is."""
        before = self._own_states()
        empty = True
        with private_randomness(derive(self._seed), self._device):
            iterator = iter(self._data)
        try:
            while True:
                with private_randomness(derive(self._seed), self._device):
                    batch = next(iterator)
                empty = False
                yield to_device(batch, self._device)
        except StopIteration:
            pass
        finally:
            self._set_own(before)
        if empty:
            raise ValueError(f"{self._name} is empty: iterating over it gave no batch.")

    def first(self, examples: int) -> Iterator[Any]:
        """The first batches that hold so many examples; of one of thousands the first of it.

        Starting a loader costs, so what it gave is kept, and copied: a loss may change a batch.
        """
        if isinstance(self._data, Sequence):
            yield from _enough(self.all(), examples)
            return
        if self._first[0] != examples:
            self._first = examples, list(_enough(self.all(), examples))
        for batch in self._first[1]:
            yield cloned(batch)

    def __len__(self) -> int:
        """How many batches one pass has; without a length of the data, they are counted."""
        length = operator.length_hint(self._data, -1)
        return length if length >= 0 else sum(1 for _ in self.all())

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands."""
        return {
            "passes": self._passes,
            "index": self._index,
            "own": self._own_states(),
            "own_at_start": self._own_at_start,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to a state: the present pass is begun again, and what was taken is skipped.

        Raises:
            ValueError: If it is the state of other data, as far as can be told.
        """
        index = state["index"]
        self._passes, self._index, self._iterator = state["passes"], 0, None
        if index:
            self._set_own(state["own_at_start"])
            self._start()
            try:
                for _ in range(index):
                    self._take()
            except StopIteration:
                raise ValueError(
                    f"{index} batches of {self._name} had been taken from a pass, but now one has "
                    f"{self._index}. To go on, pass the data that the run began with."
                ) from None
        self._set_own(state["own"])

    def _own_states(self) -> list[Tensor]:
        return [own.get_state() for own in self._own]

    def _set_own(self, states: list[Tensor]) -> None:
        if len(states) != len(self._own):
            raise ValueError(
                f"{self._name} had {len(states)} generators of its own, but now has "
                f"{len(self._own)}. To go on, pass the data that the run began with."
            )
        for own, state in zip(self._own, states, strict=True):
            own.set_state(state)

    def _start(self) -> None:
        self._own_at_start = self._own_states()
        with private_randomness(derive(self._seed, self._passes), self._device):
            self._iterator = iter(self._data)

    def _take(self) -> Any:
        assert self._iterator is not None
        seed = derive(self._seed, self._passes, self._index)
        with private_randomness(seed, self._device):
            batch = next(self._iterator)
        self._index += 1
        return to_device(batch, self._device)


def _generators(data: Any) -> list[torch.Generator]:
    """Those that a loader and its samplers draw from, each once."""
    samplers = [getattr(data, name, None) for name in ("sampler", "batch_sampler")]
    drawing = [data, *samplers, *(getattr(one, "sampler", None) for one in samplers)]
    found = [getattr(one, "generator", None) for one in drawing]
    return list(dict.fromkeys(one for one in found if isinstance(one, torch.Generator)))


def _enough(batches: Iterable[Any], examples: int) -> Iterator[Any]:
    count = 0
    for batch in batches:
        long = n_rows(batch) > max(_LONG, 4 * examples)
        count += n_rows(batch)
        yield cut(batch, examples) if long else batch
        if count >= examples:
            return
