"""What is predicted without a trial, as one more thing that the surrogate reads about a row.

A prediction, of a hyper-training or of earlier studies, is one more column of the embedding, with
a gate of its own. The prior mean of the response rises with it; the head's linear part gives it
whatever slope the trials ask for; the other parts bend it, and hold what it cannot explain. All
but the first is weighed by evidence: a prediction that tells nothing about the trials loses its
gate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from optuna_hypernet.space import Array
from optuna_hypernet.space import Mask
from optuna_hypernet.space import SearchSpace
from optuna_hypernet.surrogate.ensemble import thinned
from optuna_hypernet.surrogate.evidence import fit
from optuna_hypernet.surrogate.evidence import free_gates
from optuna_hypernet.surrogate.hypernetwork import Columns
from optuna_hypernet.surrogate.hypernetwork import Hypernetwork
from optuna_hypernet.surrogate.outcomes import Outcomes
from optuna_hypernet.surrogate.posterior import Posterior
from optuna_hypernet.threads import one_blas_thread


_N_FITTED = 256
_SAME = 1e-6  # of a range: what rounding leaves of a configuration that went through a trial


class Prediction(Protocol):
    """A level of the response for every configuration, smooth, and low where it is good.

    Attributes:
        space: Of the parameters that it reads.
        centre: ``(d,)`` a row of that space where a study should begin; NaN for what is open.
        tilt: Prior standard deviations of the response per unit of the level.
    """

    space: SearchSpace
    centre: Array
    tilt: float

    def value(self, rows: Array, active: Mask) -> Array:
        """The level ``(n,)`` at ``rows (n, d)`` of its space."""

    def gradient(self, rows: Array, active: Mask) -> Array:
        """Its gradient ``(n, d)`` there."""

    def judged(self, rows: Array, active: Mask, outcomes: Sequence[Outcomes]) -> Prediction:
        """The same in the light of trials at ``rows (n, d)``, with ``n`` outcomes an objective."""


class Interpolation:
    """Levels of some configurations as a smooth function of all.

    It is the posterior mean of one member of the surrogate, with gates by evidence.

    Args:
        space: Of the rows.
        rows: ``(n, d)``.
        active: ``(n, d)``.
        levels: ``(n,)`` of about unit size.

    Attributes:
        fitted: ``(n,)`` what it has for the levels themselves.

    Raises:
        numpy.linalg.LinAlgError: If they cannot be interpolated.
    """

    def __init__(self, space: SearchSpace, rows: Array, active: Mask, levels: Array) -> None:
        self._space = space
        embedding = space.embed(rows, active)
        columns = Columns(space.owner, space.ranged, space.tilt)
        kept = thinned(levels, _N_FITTED)
        with one_blas_thread(), np.errstate(all="ignore"):
            theta = fit(columns, embedding[kept], levels[None, kept], free_gates(columns.d))
            self._posterior = Posterior(Hypernetwork(theta, columns), embedding, levels[None])
        self.fitted: Array = self._posterior.fitted[0]

    def value(self, rows: Array, active: Mask) -> Array:
        """The level ``(n,)`` at ``rows (n, d)``."""
        if not len(rows):
            return np.empty(0)
        return np.asarray(self._posterior.predict(self._space.embed(rows, active))[0][0])

    def gradient(self, rows: Array, active: Mask) -> Array:
        """Its gradient ``(n, d)`` there; zero for choices and inactive entries."""
        mean, std, pull = self._posterior.predict_and_pull(self._space.embed(rows, active))
        by_embedding = pull(np.ones_like(mean), np.zeros_like(std))
        return self._space.pull(by_embedding, rows, active)


class Informed:
    """The embedding of a study's rows, with the prediction as one more column.

    It has the face of a :class:`~optuna_hypernet.space.SearchSpace` as far as an embedding goes.

    Args:
        space: The study's.
        prediction: Of parameters that are all in ``space``, with the same distributions.

    Attributes:
        owner: ``(D + 1,)`` the input of each column; the prediction is the last.
        ranged: ``(D + 1,)`` true for numbers over their range; false for the prediction.
        tilt: ``(D + 1,)`` the prior mean's: it rises with the prediction, and with nothing else.
    """

    def __init__(self, space: SearchSpace, prediction: Prediction) -> None:
        self._space = space
        self._prediction = prediction
        self._columns = np.array([space.names.index(name) for name in prediction.space.names])
        self._scale = math.sqrt(space.d)  # it weighs as much as all parameters together
        self.owner = np.append(space.owner, space.owner[-1] + 1)
        self.ranged: Mask = np.append(space.ranged, False)
        self.tilt: Array = np.append(space.tilt, prediction.tilt / self._scale)

    def embed(self, rows: Array, active: Mask) -> Array:
        """Embedding ``(n, D + 1)`` of ``rows (n, d)``."""
        level = self._prediction.value(rows[:, self._columns], active[:, self._columns])
        return np.column_stack([self._space.embed(rows, active), self._scale * level])

    def pull(self, gradient: Array, rows: Array, active: Mask) -> Array:
        """Gradient by ``rows (n, d)`` from one by the embedding ``(n, D + 1)``."""
        out = self._space.pull(gradient[:, :-1], rows, active)
        slope = self._prediction.gradient(rows[:, self._columns], active[:, self._columns])
        out[:, self._columns] += self._scale * gradient[:, -1:] * slope
        return out

    def judged(self, rows: Array, active: Mask, outcomes: Sequence[Outcomes]) -> Informed:
        """With the prediction in the light of trials at ``rows (n, d)``."""
        its = rows[:, self._columns], active[:, self._columns]
        return Informed(self._space, self._prediction.judged(*its, outcomes))

    def settle(self, rows: Array) -> Array:
        """``rows (n, d)`` moved to the prediction's centre, as far as it has one."""
        rows, centre = rows.copy(), self._prediction.centre
        rows[:, self._columns] = np.where(np.isnan(centre), rows[:, self._columns], centre)
        return rows

    def settled(self, rows: Array, active: Mask) -> Mask:
        """Which of ``rows (n, d)`` are at the centre with what they have of it: ``(n,)``."""
        asked = active[:, self._columns] & ~np.isnan(self._prediction.centre)
        apart = np.abs(rows[:, self._columns] - self._prediction.centre) > _SAME
        return np.asarray(asked.any(1) & ~(asked & apart).any(1))


def half_log(losses: Array) -> Array:
    """Losses ``(n,)`` with the median at 0, and above it on a logarithmic scale.

    Bad losses lie decades apart, and how bad they are does not matter. The unit is what lies
    between the median and the best tenth; or the best, if that many share the median. Losses that
    are not finite count as the worst.

    Raises:
        FloatingPointError: If hardly any loss is finite.
    """
    finite = losses[np.isfinite(losses)]
    if 2 * len(finite) < len(losses):
        raise FloatingPointError("most predicted validation losses are not finite")
    losses = np.where(np.isfinite(losses), losses, finite.max())
    best, tenth, median = np.quantile(finite, [0.0, 0.1, 0.5])
    unit = (median - tenth) or (median - best) or np.finfo(float).tiny
    away = (losses - median) / unit
    return np.asarray(np.where(away < 0, away, np.log1p(np.maximum(away, 0))))
