"""Plans of the bilevel loop: which steps in which order, and from which density they draw λ.

An algorithm of Lorraine & Duvenaud (2018) is a plan: a density p(λ) or p(λ | λ̂), from which train
steps draw ``k`` rows of coordinates ``(k, D)`` given those of λ̂ ``(D,)``, and the numbers of train
and valid steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from optuna_hypernet.coordinates import LIMIT


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
    """p(λ | λ̂) = N(λ̂, scale² I) in coordinates."""

    scale: float

    def __call__(self, z: Tensor, k: int, seed: torch.Generator) -> Tensor:
        """``(k, D)``, in pairs on opposite sides of λ̂, so that their mean is λ̂ for even k."""
        n_pairs = (k + 1) // 2
        half = torch.randn(n_pairs, len(z), generator=seed, dtype=torch.float64, device="cpu")
        noise = torch.cat([half, -half])[:k].to(z)
        return (z + self.scale * noise).clamp(-LIMIT, LIMIT)


@dataclass(frozen=True)
class At:
    """All of p at λ̂ itself."""

    def __call__(self, z: Tensor, k: int, seed: torch.Generator) -> Tensor:
        """``(1, D)``."""
        return z[None]


@dataclass(frozen=True)
class Plan:
    """First ``warm_up`` train steps; then ``cycles`` times ``ratio`` train steps and a valid one.

    Attributes:
        density: Of λ in train steps.
        samples: How many λ a train step draws.
    """

    density: Density
    samples: int
    warm_up: int
    cycles: int
    ratio: int

    @property
    def train_steps(self) -> int:
        """Train steps in all."""
        return self.warm_up + self.ratio * self.cycles

    @property
    def ticks(self) -> int:
        """Length of the plan: a train step of the warm-up is a tick, and so is a cycle."""
        return self.warm_up + self.cycles

    def tick(self, number: int) -> tuple[int, int]:
        """How many train and valid steps that tick has."""
        return (1, 0) if number < self.warm_up else (self.ratio, 1)

    def decay(self, number: int) -> tuple[float, float]:
        """Factors of the two step sizes in that tick.

        Both stay at 1 for half of their steps, and then go down to 0 along a cosine, together:
        a response that no longer learns could not follow a λ that still moves.
        """
        cycles = max(number - self.warm_up, 0)
        steps = min(number, self.warm_up) + self.ratio * cycles
        return _cosine(steps / max(self.train_steps, 1)), _cosine(cycles / max(self.cycles, 1))


def _cosine(progress: float) -> float:
    return 0.5 + 0.5 * math.cos(math.pi * max(2 * progress - 1, 0.0))


def joint(density: Around | At, samples: int, steps: int, ratio: int, warm_up: int | None) -> Plan:
    """The plan of Algorithms 3 and 4: ``steps`` train steps in all, a third of them to warm up.

    Raises:
        TypeError: If a number is not an int.
        ValueError: If a number is too small, or nothing is left after the warm-up.
    """
    for name, value in (("steps", steps), ("samples", samples), ("ratio", ratio)):
        check_count(name, value, 1)
    warm_up = steps // 3 if warm_up is None else warm_up
    check_count("warm_up", warm_up, 0)
    if steps - warm_up < ratio:
        raise ValueError(
            f"steps is {steps}, of which warm_up takes {warm_up}: that leaves none of {ratio} "
            "train steps and a valid one. Raise steps, or lower warm_up or ratio."
        )
    return Plan(density, samples, warm_up, cycles=(steps - warm_up) // ratio, ratio=ratio)


def check_scale(scale: float) -> None:
    """Refuses what is no spread."""
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(
            f"scale is {scale}, but it must be positive and finite. Use fit_simplified for none."
        )


def check_count(name: str, value: int, least: int) -> None:
    """Refuses what is not an int, or is less than ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}, but it must be an int.")
    if value < least:
        raise ValueError(f"{name} is {value}, but it must be at least {least}.")
