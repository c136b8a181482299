"""Densities of λ that train steps draw from: all over the search space, or around λ̂."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from optuna_hypernet.coordinates import LIMIT
from optuna_hypernet.coordinates import Blocks


Density = Callable[[Tensor, int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Everywhere:
    """p(λ) = N(0, I) in coordinates: (log-)uniform over the search space."""

    def __call__(self, z: Tensor, k: int, seed: torch.Generator) -> Tensor:
        """``(k, D)``, one row in each k-th of every range (a Latin hypercube)."""
        uniform = torch.rand(2, k, len(z), generator=seed, dtype=torch.float64, device="cpu")
        shares = (uniform[0].argsort(0) + uniform[1]) / k
        rows: Tensor = torch.special.ndtri(shares)
        return rows.clamp(-LIMIT, LIMIT).to(z)


@dataclass(frozen=True)
class Around:
    """p(λ | λ̂) = N(λ̂, diag scale²) in coordinates; the scale is a number, or ``(D,)``."""

    scale: float | Tensor

    def __call__(self, z: Tensor, k: int, seed: torch.Generator) -> Tensor:
        """``(k, D)``, in pairs on opposite sides of λ̂, so that their mean is λ̂ for even k."""
        n_pairs = (k + 1) // 2
        half = torch.randn(n_pairs, len(z), generator=seed, dtype=torch.float64, device="cpu")
        noise = half if k == 1 else torch.cat([half, -half])[:k]
        return (z + self.scale * noise.to(z)).clamp(-LIMIT, LIMIT)


@dataclass(frozen=True)
class Together(Around):
    """The same, and as much again that all coordinates of a hyperparameter have in common.

    Of thousands that are drawn apart from each other the mean hardly moves, and what the weights
    do when all of them rise is never seen.
    """

    blocks: Blocks

    def __call__(self, z: Tensor, k: int, seed: torch.Generator) -> Tensor:
        """``(k, D)``, in pairs as above."""
        of_means = Around(self.scale)(z.new_zeros(len(self.blocks.sizes)), k, seed)  # (k, E)
        common = self.blocks.spread(of_means)
        return (super().__call__(z, k, seed) + common).clamp(-LIMIT, LIMIT)


@dataclass(frozen=True)
class At:
    """All of p at λ̂ itself."""

    def __call__(self, z: Tensor, k: int, seed: torch.Generator) -> Tensor:
        """``(k, D)``, all rows equal."""
        return z.expand(k, -1)
