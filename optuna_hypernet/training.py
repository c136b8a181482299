"""What hyper-training predicts: the validation loss of a best response, around its λ̂.

A suggestion asks for thousands of predictions, and for their gradients. Each one is a pass of the
user's model over validation data, and may take as long as some train steps. So the prediction is
taken once, at a few hundred configurations around λ̂, which is where φ has learnt how the model
responds, and interpolated in between by the surrogate's own posterior.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Protocol
from typing import runtime_checkable

import numpy as np
from scipy.special import ndtr
from scipy.special import ndtri
from scipy.stats import qmc

from optuna_hypernet.prediction import Interpolation
from optuna_hypernet.prediction import half_log
from optuna_hypernet.space import Array
from optuna_hypernet.space import Mask
from optuna_hypernet.space import SearchSpace
from optuna_hypernet.surrogate.outcomes import Outcomes


SCALE = 0.2  # of a fit, standard deviations of p(λ); a smaller one teaches less of what is around
_EXAMPLES = 500  # of the validation data
_N_CLOUD = 512  # configurations around λ̂ at which the prediction is taken, at
_NEAR, _FAR = 0.2, 1.2  # and between so many standard deviations of p(λ)
_EDGE = 0.02  # of a range, at either end, which λ hardly ever comes from


@runtime_checkable
class Training(Protocol):
    """What is asked of a :class:`~optuna_hypernet.HyperTraining`, without a word of torch."""

    @property
    def search_space(self) -> Mapping[str, Any]:
        """Distributions by name."""

    @property
    def params(self) -> Mapping[str, Any]:
        """λ̂."""

    @property
    def trained(self) -> int:
        """Number of train steps so far."""

    def fit(self, *, scale: float, finish: int) -> Any:
        """Learns φ around λ̂, which descends, and keeps both."""

    def state_dict(self) -> dict[str, Any]:
        """φ and λ̂, and all that is needed to go on; a copy."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state."""

    def predict(self, params: Mapping[str, Any], *, examples: int | None) -> float:
        """L_V(w_φ(λ)), over so many examples."""


class Trained:
    """The predicted validation loss of one φ around its λ̂, as a smooth function of configurations.

    It is half-logarithmic, see :func:`half_log`, and interpolated. It depends on φ and λ̂ alone.

    Args:
        training: Holds both; its search space must have plain distributions only.

    Attributes:
        space: The search space of ``training``.
        centre: ``(d,)`` the row of λ̂.
        tilt: Prior standard deviations of the response per unit of the prediction.

    Raises:
        ArithmeticError: If hardly a prediction is finite, or they cannot be interpolated.
        numpy.linalg.LinAlgError: The same.
    """

    tilt = 0.7

    def __init__(self, training: Training) -> None:
        self.space = SearchSpace(training.search_space)
        self.centre: Array = self._row(training.params)
        rows = np.concatenate([self.centre[None], self._cloud()])
        levels = half_log(self._take(training, rows))
        self._level = Interpolation(self.space, rows, np.ones(rows.shape, dtype=bool), levels)

    def value(self, rows: Array, active: Mask) -> Array:
        """The prediction ``(n,)`` at ``rows (n, d)``; zero where a parameter is inactive."""
        return self._level.value(rows, active) * active.all(1)

    def gradient(self, rows: Array, active: Mask) -> Array:
        """Its gradient ``(n, d)`` there."""
        return self._level.gradient(rows, active) * active.all(1, keepdims=True)

    def judged(self, rows: Array, active: Mask, outcomes: Sequence[Outcomes]) -> Trained:
        """The same: it is of this very model."""
        return self

    def _row(self, params: Mapping[str, Any]) -> Array:
        kinds = self.space.distributions
        internal = [kind.to_internal_repr(params[name]) for name, kind in kinds.items()]
        return np.asarray(self.space.encode(np.array([internal]))[0][0])

    def _cloud(self) -> Array:
        """Rows ``(n, d)`` around λ̂, Gaussian where uniform rows would be standard normal.

        How far they spread is log-uniform: near λ̂ little differs, and far away φ knows little.
        """
        draws = qmc.Sobol(self.space.d + 1, scramble=True, seed=0).random(_N_CLOUD)
        spread = _NEAR * (_FAR / _NEAR) ** draws[:, :1]
        centre = ndtri(np.clip(self.centre, _EDGE, 1 - _EDGE))
        return self.space.snap(ndtr(centre + spread * ndtri(draws[:, 1:])))

    def _take(self, training: Training, rows: Array) -> Array:
        """Predicted losses ``(n,)``; that of an end is taken a little inside of the range.

        In the coordinates that the response reads the ends lie four standard deviations out,
        where it has never been.
        """
        inside = self.space.snap(np.clip(rows, _EDGE, 1 - _EDGE))
        params = [self.space.decode(row) for row in inside]
        return np.array([training.predict(one, examples=_EXAMPLES) for one in params])
