"""Descent over mixed spaces: screen, flip, climb, polish.

The acquisition is a smooth function of the numeric parameters and an arbitrary one of the
choices. So its best point is sought from many starts at once: a screen over the whole box and
around the best trials, then in turn the best change of one discrete parameter (all changes of all
starts in one batch) and a projected gradient climb of the numeric ones, and L-BFGS-B at the end.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from optuna_hypernet.acquisition import ExpectedImprovement
from optuna_hypernet.domain import Domain
from optuna_hypernet.space import Array


_N_SOBOL = 512
_N_LOCAL = 256  # perturbations of the best trials
_N_STARTS = 8
_ROUNDS = 2
_FLIPS = 3
_CLIMB = np.geomspace(0.04, 0.004, 12)  # step lengths, in units of the box
_POLISH = 20
_SMALL_GRID = 1024


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
        screen = [domain.uniform(_N_SOBOL, rng), domain.perturbed(incumbents, _N_LOCAL, rng)]
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


def _flip(
    acquisition: ExpectedImprovement, domain: Domain, starts: Array, scores: Array, known: Array
) -> tuple[Array, Array]:
    """Moves each start to its best neighbour that differs in one discrete parameter."""
    for _ in range(_FLIPS if len(domain.flipping) else 0):
        blocks = [domain.neighbours(starts, j) for j in domain.flipping.tolist()]
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
