"""Figure 3: one weight, one hyperparameter; a best response, its tangent, and both losses.

The paper draws a best response w*(λ) = sin(λ + π) and its tangent -λ at λ̂ = 0. Here the training
loss is (w - w*(λ))², the validation loss (w - 0.4)², and the tangent is learnt: a linear
hypernetwork around λ̂ = 0, which is held there by a hyper-optimizer of step size zero.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from optuna.distributions import FloatDistribution
from torch import Tensor
from torch import nn

from benchmarks import figures
from optuna_hypernet import HyperTraining


TARGET = 0.4
RANGE = 2.0
STEPS = 2000


class Weight(nn.Module):
    """A single weight."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))


def train_loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    return (model.w - torch.sin(hp["x"] + math.pi)).square()


def valid_loss(model: nn.Module, batch: Any) -> Tensor:
    return (model.w - TARGET).square()


@dataclass(frozen=True)
class Tangent:
    """What a linear hypernetwork has learnt around λ̂ = 0."""

    grid: np.ndarray  # λ (n,)
    response: np.ndarray  # w_φ(λ) (n,)

    @property
    def slope(self) -> float:
        """At λ̂ = 0, where the tangent's is -1."""
        return float(np.gradient(self.response, self.grid)[len(self.grid) // 2])

    @property
    def lowest(self) -> float:
        """λ of the lowest predicted validation loss."""
        return float(self.grid[((self.response - TARGET) ** 2).argmin()])


def learn(seed: int, steps: int, scale: float) -> Tangent:
    """The response of a linear hypernetwork that has seen λ around 0, over the whole range."""
    training = HyperTraining(
        Weight(),
        {"x": FloatDistribution(-RANGE, RANGE)},
        train_loss,
        valid_loss,
        [0],
        [0],
        response="linear",
        hyper_optimizer=lambda z: torch.optim.SGD(z, lr=0.0),
        seed=seed,
    )
    training.fit(steps, scale=scale, patience=steps, finish=0)
    grid = np.linspace(-1, 1, 201)
    return Tangent(grid, np.array([training.best_response({"x": x}).w.item() for x in grid]))


def toy(seeds: int) -> str:
    """Figure 3."""
    truth = -math.asin(TARGET)
    print("Figure 3: L_T = (w - sin(λ + π))², L_V = (w - 0.4)²; a tangent learnt around λ̂ = 0")
    print(f"slope of the true tangent -1, its optimum {-TARGET:.3f}, the true optimum {truth:.3f}")
    print("\nseed   scale    slope   λ of the lowest predicted loss")
    found = []
    for seed in range(seeds):
        for scale in (0.03, 0.1, 0.3):
            one = learn(seed, STEPS, scale)
            print(f"{seed:4} {scale:7} {one.slope:8.3f} {one.lowest:12.3f}", flush=True)
            found.append(one)
    return plot(found[1])


def plot(one: Tangent) -> str:
    """Both losses over (λ, w), with the best response and its tangent."""
    x, w = np.meshgrid(np.linspace(-RANGE, RANGE, 81), np.linspace(-1.5, 1.5, 61))
    surfaces = {"training loss": (w + np.sin(x)) ** 2, "validation loss": (w - TARGET) ** 2}

    def draw(grid: np.ndarray) -> None:
        for axes, (title, values) in zip(grid[0], surfaces.items(), strict=True):
            axes.contour(x, w, values, levels=12, cmap="Greys", linewidths=0.8)
            axes.plot(x[0], -np.sin(x[0]), color="#3c4043", label="best response")
            axes.plot(one.grid, one.response, color="#d81b60", label="learnt tangent")
            axes.plot(-math.asin(TARGET), TARGET, "o", color="#3c4043")
            axes.plot(one.lowest, TARGET, "o", color="#d81b60")
            axes.set(xlabel="λ", title=title)
        grid[0, 0].set_ylabel("w")
        grid[0, 0].legend()

    return figures.svg(draw, (8.4, 3.8), columns=2)
