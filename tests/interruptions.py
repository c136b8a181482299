"""Runs that are cut short, and whether two states are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


class Interrupted(Exception):
    """Ctrl-C, a power cut, a time limit."""


def interrupting(function: Callable[..., Any], at: int) -> Callable[..., Any]:
    """The function, but its call of that number, counted from one, is never answered."""
    calls = 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Interrupted
        return function(*arguments)

    return interrupted


def moved(before: Any, after: Any) -> bool:
    """Whether anything in two nested states differs by a bit."""
    if isinstance(before, Tensor):
        return not before.equal(after)
    if isinstance(before, dict):
        return before.keys() != after.keys() or any(moved(before[k], after[k]) for k in before)
    if isinstance(before, list | tuple):
        return len(before) != len(after) or any(map(moved, before, after))
    return bool(before != after)
