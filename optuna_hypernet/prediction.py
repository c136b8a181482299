"""What hyper-training predicts, as one more thing that the surrogate reads about a row.

The predicted validation loss of a configuration is one more column of its embedding, with a gate
of its own. The prior mean of the response rises with it; the head's linear part gives it whatever
slope the trials ask for; the other parts bend it, and hold what it cannot explain. All but the
first is weighed by evidence: a prediction that tells nothing about the trials loses its gate.

A suggestion asks for thousands of predictions, and for their gradients. Each one is a pass of the
user's model over validation data, and may take as long as some train steps. So the prediction is
taken once, at a few hundred configurations around λ̂, which is where φ has learnt how the model
responds, and interpolated in between by the surrogate's own posterior.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from typing import Protocol
from typing import runtime_checkable

import numpy as np
from scipy.special import ndtr
from scipy.special import ndtri
from scipy.stats import qmc

from optuna_hypernet.space import Array
from optuna_hypernet.space import Mask
from optuna_hypernet.space import SearchSpace
from optuna_hypernet.surrogate.ensemble import thinned
from optuna_hypernet.surrogate.evidence import fit
from optuna_hypernet.surrogate.evidence import free_gates
from optuna_hypernet.surrogate.hypernetwork import Columns
from optuna_hypernet.surrogate.hypernetwork import Hypernetwork
from optuna_hypernet.surrogate.posterior import Posterior
from optuna_hypernet.threads import one_blas_thread


SCALE = 0.2  # of a fit, standard deviations of p(λ); a smaller one teaches less of what is around
_EXAMPLES = 500  # of the validation data
_N_CLOUD = 512  # configurations around λ̂ at which the prediction is taken, at
_NEAR, _FAR = 0.2, 1.2  # and between so many standard deviations of p(λ)
_N_FITTED = 256
_SAME = 1e-6  # of a range: what rounding leaves of a configuration that went through a trial
_EDGE = 0.02  # of a range, at either end, which λ hardly ever comes from
_TILT = 0.7  # prior standard deviations of the response per unit of the prediction


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


class Prediction:
    """The predicted validation loss of one φ around its λ̂, as a smooth function of configurations.

    It is half-logarithmic, see :func:`half_log`, and interpolated. It depends on φ and λ̂ alone.

    Args:
        training: Holds both; its search space must have plain distributions only.

    Attributes:
        space: The search space of ``training``.
        centre: ``(d,)`` the row of λ̂.

    Raises:
        ArithmeticError: If hardly a prediction is finite, or they cannot be interpolated.
        numpy.linalg.LinAlgError: The same.
    """

    def __init__(self, training: Training) -> None:
        self.space = SearchSpace(training.search_space)
        self.centre: Array = self._row(training.params)
        rows = np.concatenate([self.centre[None], self._cloud()])
        self._interpolate(rows, half_log(self._take(training, rows)))

    def value(self, rows: Array) -> Array:
        """The prediction ``(n,)`` at ``rows (n, d)``."""
        if not len(rows):
            return np.empty(0)
        return np.asarray(self._posterior.predict(self._embed(rows))[0][0])

    def gradient(self, rows: Array) -> Array:
        """Its gradient ``(n, d)`` there."""
        mean, std, pull = self._posterior.predict_and_pull(self._embed(rows))
        by_embedding = pull(np.ones_like(mean), np.zeros_like(std))
        return self.space.pull(by_embedding, rows, np.ones(rows.shape, dtype=bool))

    def _row(self, params: Mapping[str, Any]) -> Array:
        kinds = self.space.distributions
        internal = [kind.to_internal_repr(params[name]) for name, kind in kinds.items()]
        return np.asarray(self.space.encode(np.array([internal]))[0][0])

    def _cloud(self) -> Array:
        """Rows ``(n, d)`` around λ̂, Gaussian in the coordinates in which p(λ) is standard normal.

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

    def _interpolate(self, rows: Array, levels: Array) -> None:
        """As a member of the surrogate: gates by evidence, and its posterior mean."""
        embedding, space = self._embed(rows), self.space
        columns = Columns(space.owner, space.ranged, space.tilt)
        kept = thinned(levels, _N_FITTED)
        with one_blas_thread(), np.errstate(all="ignore"):
            theta = fit(columns, embedding[kept], levels[None, kept], free_gates(space.d))
            self._posterior = Posterior(Hypernetwork(theta, columns), embedding, levels[None])

    def _embed(self, rows: Array) -> Array:
        return self.space.embed(rows, np.ones(rows.shape, dtype=bool))


class Informed:
    """The embedding of a study's rows, with the prediction as one more column.

    It has the face of a :class:`~optuna_hypernet.space.SearchSpace` as far as an embedding goes.
    The column is zero where a parameter of the prediction is inactive.

    Args:
        space: The study's.
        prediction: Of parameters that are all in ``space``, with the same distributions.

    Attributes:
        owner: ``(D + 1,)`` the parameter of each column; ``d`` for the prediction.
        ranged: ``(D + 1,)`` true for numbers over their range; false for the prediction.
        tilt: ``(D + 1,)`` the prior mean's: it rises with the prediction, and with nothing else.
    """

    def __init__(self, space: SearchSpace, prediction: Prediction) -> None:
        self._space = space
        self._prediction = prediction
        self._columns = np.array([space.names.index(name) for name in prediction.space.names])
        self._scale = math.sqrt(space.d)  # it weighs as much as all parameters together
        self.owner = np.append(space.owner, space.d)
        self.ranged: Mask = np.append(space.ranged, False)
        self.tilt: Array = np.append(space.tilt, _TILT / self._scale)

    def embed(self, rows: Array, active: Mask) -> Array:
        """Embedding ``(n, D + 1)`` of ``rows (n, d)``."""
        column = self._scale * self.level(rows, active)
        return np.column_stack([self._space.embed(rows, active), column])

    def pull(self, gradient: Array, rows: Array, active: Mask) -> Array:
        """Gradient by ``rows (n, d)`` from one by the embedding ``(n, D + 1)``."""
        by_column = self._scale * gradient[:, -1:]
        by_rows = self._space.pull(gradient[:, :-1], rows, active)
        return by_rows + by_column * self.slope(rows, active)

    def settle(self, rows: Array) -> Array:
        """``rows (n, d)`` moved to λ̂, as far as the prediction knows them."""
        rows = rows.copy()
        rows[:, self._columns] = self._prediction.centre
        return rows

    def settled(self, rows: Array, active: Mask) -> Mask:
        """Which of ``rows (n, d)`` are at λ̂ with what they have of its parameters: ``(n,)``."""
        asked = active[:, self._columns]
        apart = np.abs(rows[:, self._columns] - self._prediction.centre) > _SAME
        return np.asarray(asked.any(1) & ~(asked & apart).any(1))

    def level(self, rows: Array, active: Mask) -> Array:
        """The prediction ``(n,)``."""
        return self._prediction.value(rows[:, self._columns]) * self._asked(active)

    def slope(self, rows: Array, active: Mask) -> Array:
        """Its gradient ``(n, d)``; zero for parameters that it does not know."""
        out = np.zeros(rows.shape)
        out[:, self._columns] = self._prediction.gradient(rows[:, self._columns])
        return out * self._asked(active)[:, None]

    def _asked(self, active: Mask) -> Mask:
        return np.asarray(active[:, self._columns].all(1))


def half_log(losses: Array) -> Array:
    """Losses ``(n,)`` with the median at 0, and above it on a logarithmic scale.

    Bad losses lie decades apart, and how bad they are does not matter. The unit is what lies
    between the median and the best tenth. Losses that are not finite count as the worst.

    Raises:
        FloatingPointError: If hardly any loss is finite.
    """
    finite = losses[np.isfinite(losses)]
    if 2 * len(finite) < len(losses):
        raise FloatingPointError("most predicted validation losses are not finite")
    losses = np.where(np.isfinite(losses), losses, finite.max())
    tenth, median = np.quantile(finite, [0.1, 0.5])
    away = (losses - median) / max(median - tenth, np.finfo(float).tiny)
    return np.asarray(np.where(away < 0, away, np.log1p(np.maximum(away, 0))))
