"""Results of long computations, on disk: what was interrupted goes on where it was."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from typing import TypeVar


T = TypeVar("T")


class Keep(Protocol):
    """Computes what has that name, or knows it from before."""

    def __call__(self, name: str, compute: Callable[[], T]) -> T:
        """What ``compute`` returns, or once returned."""


def afresh(name: str, compute: Callable[[], T]) -> T:
    """What nobody has kept."""
    return compute()


@dataclass(frozen=True)
class Folder:
    """A file for each result. To compute one again, delete its file."""

    path: Path

    def kept(self, name: str, compute: Callable[[], T]) -> T:
        """What ``compute`` returned, now or when it first ran to its end."""
        file = self.path / f"{name}.pickle"
        if file.exists():
            print(f"{name}: as in {file}", flush=True)
            kept: T = pickle.loads(file.read_bytes())
            return kept
        made = compute()
        self.path.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_bytes(pickle.dumps(made))
        partial.replace(file)
        return made
