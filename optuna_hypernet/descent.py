"""Descent over mixed spaces: screen, flip, climb, polish.

The acquisition is a smooth function of the numeric parameters and an arbitrary one of the
choices. So its best point is sought from many starts at once: a screen over the whole box and
around the best trials, then in turn the best change of one discrete parameter (all changes of all
starts in one batch) and a projected gradient climb of the numeric ones, and L-BFGS-B at the end.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.optimize import minimize
from scipy.stats import qmc

from optuna_hypernet.acquisition import ExpectedImprovement
from optuna_hypernet.conditions import Conditions
from optuna_hypernet.space import Array
from optuna_hypernet.space import Mask
from optuna_hypernet.space import SearchSpace


_N_SOBOL = 512
_N_LOCAL = 256  # perturbations of the best trials
_N_STARTS = 8
_ROUNDS = 2
_FLIPS = 3
_CLIMB = np.geomspace(0.04, 0.004, 12)  # step lengths, in units of the box
_POLISH = 20
_MOST_FLIPPED = 16  # a numeric parameter with more values than this also climbs
_SMALL_GRID = 1024
_LARGE_GRID = 2**20


class Domain:
    """Where a suggestion may lie: the box, its grids and conditions, and what is fixed already.

    Args:
        space: The search space.
        conditions: Which parameters are active where.
        fixed: ``(d,)`` the row's entries that the trial has already, NaN elsewhere.
    """

    def __init__(self, space: SearchSpace, conditions: Conditions, fixed: Array) -> None:
        self.space = space
        self.conditions = conditions
        self.fixed = fixed
        free = np.isnan(fixed)
        climbs = (space.cardinality == 0) | (
            ~space.categorical & (space.cardinality > _MOST_FLIPPED)
        )
        self.climbing = np.flatnonzero(free & climbs)
        self.flipping = np.flatnonzero(free & (space.cardinality > 0))
        self.discrete = not (free & (space.cardinality == 0)).any()

    def project(self, rows: Array) -> tuple[Array, Mask]:
        """The nearest rows of the domain ``(n, d)``, and their active mask."""
        rows = self.space.snap(np.clip(rows, 0.0, 1.0))
        rows = np.where(np.isnan(self.fixed), rows, self.fixed)
        active = self.conditions.active(rows)
        return np.where(active, rows, self.space.idle), active

    def untried(self, rows: Array, tried: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Those of ``rows (n, d)`` that are not among ``tried``, and the keys of these.

        If that leaves none, and the domain is discrete: one that was not tried, drawn from all
        there are. Once all were, all of ``rows`` are open again, and there are no such keys.
        """
        known = self.space.keys(tried)
        fresh = rows[~np.isin(self.space.keys(rows), known)]
        if len(fresh):
            return fresh, known
        grid = self.grid(_LARGE_GRID)
        left = rows[:0] if grid is None else grid[~np.isin(self.space.keys(grid), known)]
        return (rng.choice(left)[None], known) if len(left) else (rows, known[:0])

    def grid(self, most: int) -> Array | None:
        """Every row, if the free parameters have at most ``most`` combinations."""
        free = [j for j in range(self.space.d) if np.isnan(self.fixed[j])]
        if not self.discrete or np.prod(self.space.cardinality[free].astype(float)) > most:
            return None
        axes = [self.space.centres(j, np.arange(self.space.cardinality[j])) for j in free]
        rows = np.tile(self.fixed, (int(np.prod([len(axis) for axis in axes])), 1))
        if free:
            rows[:, free] = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(free))
        return self.project(rows)[0]


def propose(
    acquisition: ExpectedImprovement,
    domain: Domain,
    incumbents: Array,
    tried: Array,
    rng: np.random.Generator,
) -> Array:
    """The row ``(d,)`` where the acquisition is largest, as far as it was found.

    Args:
        acquisition: What to maximise.
        domain: Where.
        incumbents: ``(k, d)`` rows of the best trials, best first.
        tried: ``(n, d)`` rows never to be proposed again, unless nothing else is left. Then all
            of them may be: if the objective is noisy, the acquisition knows which are worth it.
        rng: Draws the screen.
    """
    rows = domain.grid(_SMALL_GRID)
    if rows is None:
        screen = [uniform(domain, _N_SOBOL, rng), perturbed(domain, incumbents, rng)]
        rows = domain.project(np.concatenate(screen))[0]
    rows, known = domain.untried(rows, tried, rng)
    acquisition, scores = acquisition.calibrated(rows, domain.conditions.active(rows))
    top = np.argsort(-scores, kind="stable")[:_N_STARTS]
    starts, scores = rows[top], scores[top]
    for _ in range(_ROUNDS):
        starts, scores = _flip(acquisition, domain, starts, scores, known)
        starts, scores = _climb(acquisition, domain, starts, scores)
    best = int(np.argmax(scores))
    starts[best] = _polish(acquisition, domain, starts[best], scores[best])
    order = [best, *np.argsort(-scores, kind="stable")]
    fresh = ~np.isin(domain.space.keys(starts), known)
    return next((starts[k] for k in order if fresh[k]), rows[top[0]])


def uniform(domain: Domain, n: int, rng: np.random.Generator) -> Array:
    """Sobol points ``(n, d)``, shifted at random around the torus (Cranley & Patterson 1976)."""
    return (_sobol(domain.space.d, n) + rng.random(domain.space.d)) % 1.0


@lru_cache(maxsize=8)
def _sobol(d: int, n: int) -> Array:
    return np.asarray(qmc.Sobol(d, scramble=False).random(n))


def perturbed(domain: Domain, incumbents: Array, rng: np.random.Generator) -> Array:
    """Copies of the best trials with one or a few parameters moved, at scales .003 to .3."""
    rows = incumbents[np.arange(_N_LOCAL) % len(incumbents)]
    move = rng.random(rows.shape) < max(1.5 / rows.shape[1], 0.2)
    scale = 10.0 ** rng.uniform(-2.5, -0.5, size=rows.shape)
    stepped = np.clip(rows + rng.normal(size=rows.shape) * scale, 0.0, 1.0)
    redrawn = rng.random(rows.shape)
    moved = np.where(domain.space.categorical, redrawn, stepped)
    return np.where(move, moved, rows)


def _flip(
    acquisition: ExpectedImprovement, domain: Domain, starts: Array, scores: Array, known: Array
) -> tuple[Array, Array]:
    """Moves each start to its best neighbour that differs in one discrete parameter."""
    for _ in range(_FLIPS if len(domain.flipping) else 0):
        blocks = [_neighbours(domain, starts, j) for j in domain.flipping.tolist()]
        rows = np.concatenate(blocks, 1)  # (s, f, d)
        flat, active = domain.project(rows.reshape(-1, rows.shape[2]))
        values = acquisition.value(flat, active)
        if domain.discrete:
            values[np.isin(domain.space.keys(flat), known)] = -np.inf
        values = values.reshape(rows.shape[:2])
        choice = values.argmax(1)
        each = np.arange(len(starts))
        better = values[each, choice] > scores + 1e-6
        starts = np.where(better[:, None], flat.reshape(rows.shape)[each, choice], starts)
        scores = np.where(better, values[each, choice], scores)
        if not better.any():
            break
    return starts, scores


def _neighbours(domain: Domain, starts: Array, j: int) -> Array:
    """Copies ``(s, f, d)`` of the starts with other values of the discrete parameter ``j``."""
    count = int(domain.space.cardinality[j])
    if domain.space.categorical[j] or count <= _MOST_FLIPPED:
        levels = np.tile(np.arange(count), (len(starts), 1))
    else:
        steps = np.array([-3, -2, -1, 1, 2, 3])
        levels = np.clip(domain.space.levels(starts)[:, j, None] + steps, 0, count - 1)
    rows = np.repeat(starts[:, None], levels.shape[1], axis=1)
    rows[:, :, j] = domain.space.centres(j, levels)
    return rows


def _climb(
    acquisition: ExpectedImprovement, domain: Domain, starts: Array, scores: Array
) -> tuple[Array, Array]:
    """Projected gradient ascent of all starts at once, with steps normalised per start."""
    j = domain.climbing
    if not len(j):
        return starts, scores
    active = domain.conditions.active(starts)
    rows, best, best_scores = starts.copy(), starts.copy(), scores.copy()
    for step in _CLIMB:
        values, gradient = acquisition.value_and_gradient(rows, active)
        better = values > best_scores
        best[better], best_scores[better] = rows[better], values[better]
        slope = gradient[:, j]
        at_bound = ((rows[:, j] <= 0) & (slope < 0)) | ((rows[:, j] >= 1) & (slope > 0))
        slope = np.where(at_bound, 0.0, slope)
        length = np.linalg.norm(slope, axis=1, keepdims=True)
        rows[:, j] = np.clip(rows[:, j] + step * slope / np.maximum(length, 1e-300), 0.0, 1.0)
    snapped, active = domain.project(best)
    values = acquisition.value(snapped, active)
    better = values > scores
    return np.where(better[:, None], snapped, starts), np.where(better, values, scores)


def _polish(acquisition: ExpectedImprovement, domain: Domain, start: Array, score: float) -> Array:
    """L-BFGS-B from one start; the start itself if that did not help."""
    j = domain.climbing
    if not len(j):
        return start
    active = domain.conditions.active(start[None])

    def loss(position: Array) -> tuple[float, Array]:
        row = start[None].copy()
        row[0, j] = position
        value, gradient = acquisition.value_and_gradient(row, active)
        return -float(value[0]), -gradient[0, j]

    options = {"maxiter": _POLISH, "maxfun": 2 * _POLISH}
    found = minimize(
        loss, start[j], jac=True, method="L-BFGS-B", bounds=[(0, 1)] * len(j), options=options
    )
    row = start[None].copy()
    row[0, j] = found.x
    row, active = domain.project(row)
    return row[0] if acquisition.value(row, active)[0] >= score else start
