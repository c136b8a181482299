"""A problem: what a sampler may choose, what it costs, and what would be perfect."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from typing import Literal

import numpy as np
import optuna


MOST_SOURCES = 3
Params = dict[str, Any]
Direction = Literal["minimize", "maximize"]
Value = float | tuple[float, float]


@dataclass(frozen=True)
class Reference:
    """The two values that normalise a regret to 0 (perfect) and 1 (as a random one)."""

    optimum: float  # exact, or the best value known
    median: float  # of random configurations


@dataclass(frozen=True)
class Problem:
    """One tuning task. Suggesting and evaluating are apart, so that a suggestion can be timed."""

    name: str
    about: str  # one markdown paragraph: task, source, unit of the value
    direction: Direction
    suggest: Callable[[optuna.Trial], Params]
    evaluate: Callable[[Params, np.random.Generator], Value]  # the generator is the only noise
    reference: Callable[[], Reference]
    score: Callable[[Params], float] | None = None  # noise-free value, where `evaluate` is noisy
    constraints: Callable[[Params], dict[str, float]] | None = None  # violated where above 0
    objectives: int = 1  # of two, what counts is how much of the unit square is dominated
    sources: tuple["Problem", ...] = ()  # those that were tuned before
    at_once: int = 1  # how many trials run at a time


class Prefixed:
    """A trial whose parameter names begin with the model that owns them."""

    def __init__(self, trial: optuna.Trial, prefix: str) -> None:
        self._trial, self._prefix = trial, prefix

    def __getattr__(self, method: str) -> Callable[..., Any]:
        suggest = getattr(self._trial, method)
        return lambda name, *args, **kwargs: suggest(f"{self._prefix}_{name}", *args, **kwargs)


class Linear:
    """A trial without `log=True`."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def __getattr__(self, method: str) -> Callable[..., Any]:
        suggest = getattr(self._trial, method)

        def linear(*args: Any, log: bool = False, **kwargs: Any) -> Any:
            return suggest(*args, **kwargs)

        return linear
