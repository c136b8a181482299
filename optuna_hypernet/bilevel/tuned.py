"""What hyper-training found."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import numpy as np
from torch import nn


@dataclass(frozen=True)
class Point:
    """One point of the path of λ̂.

    Attributes:
        tick: Position in the run.
        steps: Train steps so far.
        params: λ̂ in natural units.
        predicted_loss: L_V(w_φ(λ̂)) over all validation data.
        spread: By name, in standard deviations of the search space, how far from λ̂ train steps
            drew λ, if that adapts; else nothing.
    """

    tick: int
    steps: int
    params: Mapping[str, Any]
    predicted_loss: float
    spread: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tuned:
    """What hyper-training found.

    Attributes:
        params: The reached hyperparameters in natural units.
        model: A plain model of the user's class, trained at ``params``.
        predicted_loss: Validation loss of the response's weights at ``params``, at the evaluation
            that was kept.
        true_loss: Validation loss of ``model``, whose training was finished at ``params``. It
            has been optimised over, so report a test loss beside it.
        path: λ̂ at every evaluation, in order; of cross-validation, its candidates.
        stopped: Whether the run ended early, for lack of progress.
        at_bound: Names of hyperparameters that sit at an end of their range: widen it.
        flat: Names of those whose spread, which adapts where the response is structured, went up
            to its ceiling: the validation loss hardly depends on them, or ``entropy`` is too
            large.
        planned: Train steps that there were to be, over which step sizes decay, had it not
            ended early.
    """

    params: Mapping[str, Any]
    model: nn.Module
    predicted_loss: float
    true_loss: float
    path: Sequence[Point]
    stopped: bool
    at_bound: Sequence[str]
    flat: Sequence[str] = ()
    planned: int = 0

    @property
    def schedule(self) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        """The path by name, as arrays ``(evaluations, *shape)``; ``steps`` has its times."""
        names = self.path[0].params
        return {name: np.array([point.params[name] for point in self.path]) for name in names}

    @property
    def steps(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Train steps before each evaluation."""
        return np.array([point.steps for point in self.path], dtype=np.int64)
