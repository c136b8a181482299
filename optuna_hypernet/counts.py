"""Counts that a user passes: refused, with advice, where they are none."""

from __future__ import annotations

from numbers import Integral


def check_count(name: str, value: object, least: int, advice: str = "") -> int:
    """The value as Python's int, numpy's too.

    Raises:
        TypeError: If it is no int.
        ValueError: If it is less than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} is {value!r}, but it must be an int. {advice}".rstrip())
    if value < least:
        raise ValueError(f"{name} is {value}, but it must be at least {least}. {advice}".rstrip())
    return int(value)
