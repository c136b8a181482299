"""Where a suggestion may lie, and points of there to begin with."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.stats import qmc

from optuna_hypernet.conditions import Conditions
from optuna_hypernet.space import Array
from optuna_hypernet.space import Mask
from optuna_hypernet.space import SearchSpace


_MOST_FLIPPED = 16  # a numeric parameter with more values than this also climbs
_LARGE_GRID = 2**20


class Domain:
    """The box, its grids and conditions, and what is fixed already.

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

    def asked(self, row: Array) -> Array:
        """The row ``(d,)`` with NaN for what would not be asked for."""
        return np.where(self.conditions.active(row[None])[0], row, np.nan)

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

    def uniform(self, n: int, rng: np.random.Generator) -> Array:
        """Sobol points ``(n, d)``, shifted around the torus (Cranley & Patterson 1976)."""
        return (_sobol(self.space.d, n) + rng.random(self.space.d)) % 1.0

    def perturbed(self, incumbents: Array, n: int, rng: np.random.Generator) -> Array:
        """Copies ``(n, d)`` of the best trials ``(k, d)``, moved at scales of .003 to .3.

        One or a few parameters of each; choices are drawn anew.
        """
        rows = incumbents[np.arange(n) % len(incumbents)]
        move = rng.random(rows.shape) < max(1.5 / rows.shape[1], 0.2)
        scale = 10.0 ** rng.uniform(-2.5, -0.5, size=rows.shape)
        stepped = np.clip(rows + rng.normal(size=rows.shape) * scale, 0.0, 1.0)
        redrawn = rng.random(rows.shape)
        moved = np.where(self.space.categorical, redrawn, stepped)
        return np.where(move, moved, rows)

    def neighbours(self, rows: Array, j: int) -> Array:
        """Copies ``(n, f, d)`` of ``rows (n, d)`` with other values of a discrete one, ``j``."""
        count = int(self.space.cardinality[j])
        if self.space.categorical[j] or count <= _MOST_FLIPPED:
            levels = np.tile(np.arange(count), (len(rows), 1))
        else:
            steps = np.array([-3, -2, -1, 1, 2, 3])
            levels = np.clip(self.space.levels(rows)[:, j, None] + steps, 0, count - 1)
        copies = np.repeat(rows[:, None], levels.shape[1], axis=1)
        copies[:, :, j] = self.space.centres(j, levels)
        return copies


@lru_cache(maxsize=8)
def _sobol(d: int, n: int) -> Array:
    return np.asarray(qmc.Sobol(d, scramble=False).random(n))
