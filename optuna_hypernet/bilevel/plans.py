"""Plans of the bilevel loop: which steps in which order, and from which density they draw λ.

An algorithm of Lorraine & Duvenaud (2018) is a plan: a density p(λ) or p(λ | λ̂), from which train
steps draw ``k`` rows of coordinates ``(k, D)`` given those of λ̂ ``(D,)``, and the numbers of train
and valid steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from optuna_hypernet.bilevel.densities import Around
from optuna_hypernet.bilevel.densities import At
from optuna_hypernet.bilevel.densities import Density
from optuna_hypernet.counts import check_count


@dataclass(frozen=True)
class Plan:
    """First ``warm_up`` train steps; then ``cycles`` times ``ratio`` train steps and a valid one.

    Attributes:
        density: Of λ in train steps.
        samples: How many λ a train step draws; None is one for every example.
        entropy: τ, what valid steps weigh the entropy of the density with, to adapt its scale;
            with None the scale stays, and valid steps are at λ̂ itself.
    """

    density: Density
    samples: int | None
    warm_up: int
    cycles: int
    ratio: int
    entropy: float | None = None

    @property
    def train_steps(self) -> int:
        """Train steps in all."""
        return self.steps(self.ticks)

    @property
    def ticks(self) -> int:
        """Length of the plan: a train step of the warm-up is a tick, and so is a cycle."""
        return self.warm_up + self.cycles

    def steps(self, ticks: int) -> int:
        """Train steps in the first ``ticks``."""
        return min(ticks, self.warm_up) + self.ratio * max(ticks - self.warm_up, 0)

    def evenly(self, count: int) -> list[int]:
        """About ``count`` ticks on the way, the ends of the warm-up and of the plan among them."""
        every = max(self.ticks // count, 1)
        return sorted({*range(every, self.ticks, every), self.warm_up, self.ticks} - {0})

    def by_epochs(self, batches: int) -> list[int]:
        """The ticks with which another pass over that many batches is over; the last is one."""
        passes = [self.steps(ticks) // batches for ticks in range(self.ticks)]
        return [*(i for i in range(1, self.ticks) if passes[i] > passes[i - 1]), self.ticks]

    def tick(self, number: int) -> tuple[int, int]:
        """How many train and valid steps that tick has."""
        return (1, 0) if number < self.warm_up else (self.ratio, 1)

    def decay(self, number: int) -> tuple[float, float]:
        """Factors of the two step sizes in that tick.

        Both stay at 1 for half of their steps, and then go down to 0 along a cosine, together:
        a response that no longer learns could not follow a λ that still moves.
        """
        cycles = max(number - self.warm_up, 0)
        done = self.steps(number) / max(self.train_steps, 1)
        return _cosine(done), _cosine(cycles / max(self.cycles, 1))


def _cosine(progress: float) -> float:
    return 0.5 + 0.5 * math.cos(math.pi * max(2 * progress - 1, 0.0))


def joint(
    density: Around | At,
    *,
    samples: int | None,
    steps: int,
    ratio: int,
    warm_up: int,
    entropy: float | None = None,
) -> Plan:
    """The plan of Algorithms 3 and 4: ``steps`` train steps in all.

    Raises:
        TypeError: If a number is not an int.
        ValueError: If a number is too small, or nothing is left after the warm-up.
    """
    steps, ratio = check_count("steps", steps, 1), check_count("ratio", ratio, 1)
    warm_up = check_count("warm_up", warm_up, 0)
    samples = None if samples is None else check_count("samples", samples, 1)
    scale = float(density.scale) if isinstance(density, Around) else None
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise ValueError(
            f"scale is {scale}, but it must be positive and finite. Use fit_simplified for none."
        )
    if entropy is not None and not (math.isfinite(entropy) and entropy >= 0):
        raise ValueError(f"entropy is {entropy}, but it must be finite and not negative.")
    if steps - warm_up < ratio:
        raise ValueError(
            f"steps is {steps}, of which warm_up takes {warm_up}: that leaves none of {ratio} "
            "train steps and a valid one. Raise steps, or lower warm_up or ratio."
        )
    return Plan(density, samples, warm_up, (steps - warm_up) // ratio, ratio, entropy)
