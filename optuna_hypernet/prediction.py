"""What hyper-training predicts, as one more thing that the surrogate reads about a row.

The predicted validation loss of a configuration is one more column of its embedding, with a gate
of its own. The prior mean of the response rises with it; the head's linear part gives it whatever
slope the trials ask for; the other parts bend it, and hold what it cannot explain. All but the
first is weighed by evidence: a prediction that tells nothing about the trials loses its gate.

A suggestion asks for thousands of predictions, and for their gradients. Each one is a pass of the
user's model over validation data, and may take as long as some train steps. So the prediction is
taken at a few hundred configurations whenever the hypernetwork has learnt on, all over the search
space and where it is lowest, and interpolated in between by the surrogate's own posterior.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from typing import Protocol
from typing import runtime_checkable

import numpy as np
from scipy.stats import qmc

from optuna_hypernet.space import Array
from optuna_hypernet.space import Mask
from optuna_hypernet.space import SearchSpace
from optuna_hypernet.surrogate.ensemble import checkpoint
from optuna_hypernet.surrogate.ensemble import spread
from optuna_hypernet.surrogate.evidence import fit
from optuna_hypernet.surrogate.evidence import free_gates
from optuna_hypernet.surrogate.hypernetwork import Columns
from optuna_hypernet.surrogate.hypernetwork import Hypernetwork
from optuna_hypernet.surrogate.posterior import Posterior
from optuna_hypernet.threads import one_blas_thread


_WARM_UP = 2000  # train steps before the first suggestion
_STEPS = 100  # and per finished trial after that
_EXAMPLES = 500  # of the validation data
_N_CLOUD = 256  # configurations all over the search space at which the prediction is taken
_ROUNDS = 6  # of a search for the lowest prediction, each with
_N_PARENTS = 8  # lowest ones so far,
_N_COPIES = 256  # so many changed copies of each,
_N_CHILDREN = 32  # and predictions at so many of them
_EDGE = 0.02  # of a range, at either end, which λ hardly ever comes from
_N_FITTED = 128
_TILT = 0.7  # prior standard deviations of the response per unit of the prediction


@runtime_checkable
class Training(Protocol):
    """What is asked of a :class:`~optuna_hypernet.HyperTraining`, without a word of torch."""

    @property
    def search_space(self) -> Mapping[str, Any]:
        """Distributions by name."""

    @property
    def trained(self) -> int:
        """Number of train steps so far."""

    def advance(self, steps: int) -> None:
        """Makes so many train steps, with λ from all over the search space."""

    def predict(self, params: Mapping[str, Any], *, examples: int | None) -> float:
        """L_V(w_φ(λ)), over so many examples."""


def advance(training: Training, finished: int) -> None:
    """Trains until φ has seen the train steps that are due after ``finished`` trials.

    How many are due depends on nothing but that number, and they come in the same pieces. So a
    new training in a resumed study arrives at the φ that the old one had. Steps that ``training``
    has made before count: one that was trained for longer waits until the study has caught up.

    Raises:
        FloatingPointError: If a loss is not finite.
    """
    if training.trained < _WARM_UP:
        training.advance(_WARM_UP - training.trained)
    while training.trained < steps_due(finished):
        training.advance(_STEPS)


def steps_due(finished: int) -> int:
    """Train steps that are due after so many finished trials."""
    return _WARM_UP + _STEPS * checkpoint(finished)


class Prediction:
    """The predicted validation loss of one φ, as a smooth function of configurations.

    It is half-logarithmic, see :func:`half_log`, and interpolated. It depends on φ alone.

    Args:
        training: Holds φ; its search space must have plain distributions only.

    Attributes:
        space: The search space of ``training``.
        lowest: ``(d,)`` the row with the lowest prediction that was found.

    Raises:
        ArithmeticError: If no prediction is finite, or they cannot be interpolated.
        numpy.linalg.LinAlgError: The same.
    """

    def __init__(self, training: Training) -> None:
        self.space = SearchSpace(training.search_space)
        rng = np.random.default_rng(0)
        rows = self.space.snap(qmc.Sobol(self.space.d, scramble=True, seed=0).random(_N_CLOUD))
        losses = everywhere = self._take(training, rows)
        for _ in range(_ROUNDS):
            self._interpolate(rows, half_log(losses, everywhere))
            children = self._children(rows[np.argsort(losses, kind="stable")[:_N_PARENTS]], rng)
            rows = np.concatenate([rows, children])
            losses = np.concatenate([losses, self._take(training, children)])
        self._interpolate(rows, half_log(losses, everywhere))
        self.lowest: Array = rows[np.argmin(np.nan_to_num(losses, nan=np.inf))]

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

    def _take(self, training: Training, rows: Array) -> Array:
        """Predicted losses ``(n,)``; that of an end is taken a little inside of the range.

        In the coordinates that the response reads, where p(λ) is Gaussian, the ends lie four
        standard deviations out, where it has never been.
        """
        inside = self.space.snap(np.clip(rows, _EDGE, 1 - _EDGE))
        params = [self.space.decode(row) for row in inside]
        return np.array([training.predict(one, examples=_EXAMPLES) for one in params])

    def _children(self, parents: Array, rng: np.random.Generator) -> Array:
        """Changed copies of ``parents``, those with the lowest interpolated predictions.

        The lowest prediction often lies in a corner, where hardly a row of the cloud is near.
        """
        rows = np.repeat(parents, _N_COPIES, axis=0)
        step = rng.normal(size=rows.shape) * 10.0 ** rng.uniform(-1.5, 0.0, size=(len(rows), 1))
        step *= rng.random(rows.shape) < max(0.3, 1.5 / self.space.d)
        rows = np.unique(self.space.snap(np.clip(rows + step, 0.0, 1.0)), axis=0)
        return rows[np.argsort(self.value(rows), kind="stable")[:_N_CHILDREN]]

    def _interpolate(self, rows: Array, levels: Array) -> None:
        """As a member of the surrogate: gates by evidence, and its posterior mean."""
        embedding, space = self._embed(rows), self.space
        columns = Columns(space.owner, space.ranged, space.tilt)
        kept = spread(levels, _N_FITTED)
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
        """``rows (n, d)`` moved to where the prediction is lowest, as far as it knows them."""
        rows = rows.copy()
        rows[:, self._columns] = self._prediction.lowest
        return rows

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


def half_log(losses: Array, everywhere: Array) -> Array:
    """Losses ``(n,)`` with the median at 0, and above it on a logarithmic scale.

    Bad losses lie decades apart, and how bad they are does not matter. The unit is what lies
    between the median and the best tenth. Losses that are not finite count as the worst.

    Args:
        losses: To be mapped.
        everywhere: ``(m,)`` of configurations all over the search space.

    Raises:
        FloatingPointError: If hardly any loss ``everywhere`` is finite.
    """
    finite = everywhere[np.isfinite(everywhere)]
    if 2 * len(finite) < len(everywhere):
        raise FloatingPointError("most predicted validation losses are not finite")
    losses = np.where(np.isfinite(losses), losses, finite.max())
    tenth, median = np.quantile(finite, [0.1, 0.5])
    away = (losses - median) / max(median - tenth, np.finfo(float).tiny)
    return np.asarray(np.where(away < 0, away, np.log1p(np.maximum(away, 0))))
