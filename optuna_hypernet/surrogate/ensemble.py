"""The surrogate: a few members by output warp and gates, fitted at checkpoints and weighed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Sequence
from typing import Generic
from typing import NamedTuple
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from optuna_hypernet.surrogate import warp
from optuna_hypernet.surrogate.evidence import even_gates
from optuna_hypernet.surrogate.evidence import fit
from optuna_hypernet.surrogate.evidence import free_gates
from optuna_hypernet.surrogate.front import Directions
from optuna_hypernet.surrogate.hypernetwork import Columns
from optuna_hypernet.surrogate.hypernetwork import Hypernetwork
from optuna_hypernet.surrogate.outcomes import Outcomes
from optuna_hypernet.surrogate.outcomes import Places
from optuna_hypernet.surrogate.outcomes import Progress
from optuna_hypernet.surrogate.posterior import Posterior


Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Fit = TypeVar("Fit")

# Of more trials than these, half as many that are best are kept, and as many of the others.
_MOST_TRIALS = 160  # in the posterior
_MOST_FITTED = 128
# A member whose left-out rank correlation is 0.05 lower than another's weighs e times less.
_TEMPERATURE = 0.05
_LEAST_WEIGHT = 0.1  # beside the heaviest one's 1
_FEW_TRIALS = 40  # below which gates are averaged with even ones
_KEPT_FITS = 8
_FAR = 1e3  # standard deviations of the responses


class Members(NamedTuple):
    """``M`` members that one fit has kept.

    Attributes:
        warps: The output warp of each.
        theta: ``(M, d + 6)`` their gates, amplitudes and noise.
        log_weights: ``(M,)``, normalised.
    """

    warps: list[str]
    theta: Array
    log_weights: Array


class Belief(NamedTuple):
    """What the members make of the trials.

    Attributes:
        posterior: Of ``M`` members.
        log_weights: ``(M,)``, normalised as the ensemble gives them.
        targets: ``(M, t)`` warped values below which a response is an improvement. Of several
            objectives, it has to be below the same one in all.
    """

    posterior: Posterior
    log_weights: Array
    targets: Array


class Running(NamedTuple):
    """``p`` trials that have not ended.

    Attributes:
        embedding: ``(p, D)``.
        likely: ``(p,)`` which of them are expected to be feasible.
        progress: What they have reported.
    """

    embedding: Array
    likely: Mask
    progress: Progress


class Fits(Generic[Fit]):
    """What a function makes of trials, kept for the last few sets of them.

    Args:
        function: Of the columns of an embedding, the embedding ``(n, D)`` and values ``(n,)``.
    """

    def __init__(self, function: Callable[[Columns, Array, Array], Fit]) -> None:
        self._function = function
        self._kept: dict[tuple[bytes, ...], Fit] = {}

    def __call__(self, columns: Columns, embedding: Array, values: Array) -> Fit:
        """Of these trials."""
        key = (*(column.tobytes() for column in columns), embedding.tobytes(), values.tobytes())
        if key not in self._kept:
            while len(self._kept) >= _KEPT_FITS:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = self._function(columns, embedding, values)
        return self._kept[key]


class Ensemble:
    """Posteriors over the response in each objective, learnt from trials alone.

    Members are fitted when the number of trials reaches 1, 2, ..., 20, 22, 24, ... (by a tenth
    each time), on the trials there were at that point. So between two checkpoints a suggestion
    costs no fit, and still depends on nothing but the trials: a resumed study goes on unchanged.
    """

    def __init__(self) -> None:
        self._fits: defaultdict[int, Fits[Members]] = defaultdict(lambda: Fits(fit_members))

    def condition(
        self,
        columns: Columns,
        embedding: Array,
        outcomes: Sequence[Outcomes],
        places: Places,
        running: Running,
        directions: Directions | None = None,
    ) -> list[Belief]:
        """The members' posterior for each objective, and what it would be an improvement upon.

        That is the lowest or, in some directions, the front of trials, finished or running, as far
        as they are feasible.

        Args:
            columns: Of the embedding.
            embedding: ``(n, D)`` of the trials in the order in which they finished.
            outcomes: Of the same ``n``, in each objective.
            places: ``(n,)`` of each among them, 0 for the best.
            running: The trials that have not ended.
            directions: In which the front is to be improved upon, if there is one.

        Raises:
            numpy.linalg.LinAlgError: If a covariance is not positive definite.
        """
        kept = thinned(places, _MOST_TRIALS)
        known = [
            _Known(
                self._members(k, columns, embedding, each),
                columns,
                embedding[kept],
                each[kept],
                each.settled[kept],
                running,
            )
            for k, each in enumerate(outcomes)
        ]
        feasible = outcomes[0].feasible[kept]
        if directions is None:
            targets = [
                each.lowest(feasible, running.likely, whole.returned[kept])[:, None]
                for each, whole in zip(known, outcomes, strict=True)
            ]
        else:
            expected = np.stack([each.expected() for each in known], axis=1)
            points = directions.targets(expected[np.concatenate([feasible, running.likely])])
            targets = [each.warped(column) for each, column in zip(known, points.T, strict=True)]
        return [
            Belief(each.posterior, each.log_weights, below)
            for each, below in zip(known, targets, strict=True)
        ]

    def _members(self, k: int, columns: Columns, embedding: Array, outcomes: Outcomes) -> Members:
        """Of objective ``k``, fitted at the last checkpoint."""
        early = checkpoint(len(outcomes))
        then = outcomes[:early]
        fitted = thinned(then.places, _MOST_FITTED)
        return self._fits[k](columns, embedding[:early][fitted], then.settled[fitted])


class _Known:
    """What members make of one objective's values.

    Args:
        members: ``M`` of them.
        columns: Of the embedding.
        embedding: ``(n, D)`` of the trials.
        outcomes: Of the same ``n``.
        values: ``(n,)``, settled.
        running: The trials that have not ended.
    """

    def __init__(
        self,
        members: Members,
        columns: Columns,
        embedding: Array,
        outcomes: Outcomes,
        values: Array,
        running: Running,
    ) -> None:
        self._warps = members.warps
        self._values = values
        self._warped = np.stack([warp.warp(values, name) for name in members.warps])
        self.log_weights = members.log_weights
        network = Hypernetwork(members.theta, columns)
        forecast = outcomes.forecast(running.progress, self._warped)
        self.posterior = Posterior(network, embedding, self._warped, running.embedding, forecast)

    def lowest(self, feasible: Mask, likely: Mask, returned: Mask) -> Array:
        """The lowest mean ``(M,)`` at any trial that is feasible, less the least gain.

        Until one is, far above all: any place is then as much of an improvement as another, and
        what is left to choose by is the chance that it is feasible.
        """
        means = np.hstack([self.posterior.fitted[:, feasible], self.posterior.expected[:, likely]])
        best = means.min(1) if means.shape[1] else self.posterior.fitted.max(1) + _FAR
        counted = returned & feasible
        gains = [warp.least_gain(self._values, counted, name) for name in self._warps]
        return np.asarray(best - np.array(gains))

    def expected(self) -> Array:
        """The values, and what is expected of what is running ``(n + p,)``."""
        pairs = zip(self.posterior.expected, self._warped, strict=True)
        running = np.stack([warp.carry(mean, row, self._values) for mean, row in pairs])
        return np.append(self._values, np.exp(self.log_weights) @ running)

    def warped(self, targets: Array) -> Array:
        """Settled ``targets (t,)``, warped as the values are by each member: ``(M, t)``."""
        return np.stack([warp.carry(targets, self._values, row) for row in self._warped])


def fit_members(columns: Columns, embedding: Array, values: Array) -> Members:
    """Members for every output warp, weighed by how well they predict the order of the left out.

    The order, because it means the same under every warp. While trials are few, gates that fit
    them best need not be the right ones: each warp then has a second member whose gates are even.
    Members of little weight are dropped: they would cost as much as the others.

    Args:
        columns: Of the embedding.
        embedding: ``(n, D)`` of the trials.
        values: ``(n,)`` settled objective values.
    """
    warps = list(warp.NAMES)
    targets = np.stack([warp.warp(values, name) for name in warps])
    theta = fit(columns, embedding, targets, free_gates(columns.d))
    if len(values) < _FEW_TRIALS:
        theta = np.concatenate([theta, fit(columns, embedding, targets, even_gates(columns.d))])
        targets, warps = np.concatenate([targets, targets]), warps + warps
    left_out = Posterior(Hypernetwork(theta, columns), embedding, targets).left_out
    score = np.array([rank_correlation(mean, values) for mean in left_out])
    log_weights = (score - score.max()) / _TEMPERATURE
    kept = np.flatnonzero(log_weights >= math.log(_LEAST_WEIGHT))
    log_weights = log_weights[kept] - np.logaddexp.reduce(log_weights[kept])
    return Members([warps[k] for k in kept], theta[kept], log_weights)


def checkpoint(n: int) -> int:
    """The largest member of 1, 2, ..., 20, 22, 24, ... (by a tenth each) not above ``n``."""
    count = min(n, 20)
    while count + count // 10 <= n and count >= 20:
        count += count // 10
    return count


def thinned(values: Array | Places, most: int) -> NDArray[np.int64]:
    """Indices, ascending, of at most ``most`` trials: half the lowest, half of the others."""
    if len(values) <= most:
        return np.arange(len(values))
    order = np.argsort(values, kind="stable")
    rest = np.linspace(most // 2, len(values) - 1, most - most // 2).astype(np.int64)
    return np.sort(order[np.concatenate([np.arange(most // 2), rest])])


def rank_correlation(one: Array, other: Array) -> float:
    """Spearman's rank correlation of two ``(n,)``; 0 where either is constant."""
    ranks = [rankdata(x) - (len(x) + 1) / 2 for x in (one, other)]
    norm = np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1]))
    return float(ranks[0] @ ranks[1] / norm) if norm > 0 else 0.0
