"""Figures 2 and 4: one penalty on ten images, learnt everywhere at once and around λ̂.

A linear model of 7,850 weights learns ten images; 10,000 more validate it. The penalty exp(λ) is
over all weights and biases. The converged best response, and so the true curve, is exact.
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
from benchmarks.hypertraining import data
from benchmarks.hypertraining.norm_penalty import Path
from optuna_hypernet import HyperTraining
from optuna_hypernet.bilevel.tuned import Tuned


Ends = tuple[float, float]

PRECISION = 50.0  # 1 / (2 · 0.1²)
CONSTANT = math.log(0.1 * math.sqrt(2 * math.pi))
EVERYWHERE = (-3.0, 3.0)  # of λ: two standard deviations of the text's p(λ) = N(0, 1.5)
AROUND = (-5.0, 5.0)
AWAY = 3.0  # where λ̂ starts in figure 4, below the optimum
POINTS = 61
STEPS = 3000
GUARD = 1e-9  # exp and log may leave a closed range by a bit
COLOURS = {"converged": "#3c4043", "predicted": "#d81b60"}


def valid_loss(model: nn.Module, batch: Any) -> Tensor:
    """Negative log likelihood of a Gaussian of deviation 0.1 around the one-hot class."""
    return PRECISION * (model(batch[0]) - data.one_hot(batch[1])).square().mean() + CONSTANT


def train_loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    """The same, and exp(λ) |w|."""
    squares = sum(weight.square().sum() for weight in model.parameters())
    return valid_loss(model, batch) + hp["penalty"] * squares.sqrt()


@dataclass(frozen=True)
class OnePenalty:
    """The problem of one seed, which picks the images and the first weights."""

    split: data.Split
    seed: int

    def training(self, ends: Ends, **arguments: Any) -> HyperTraining:
        """With λ between `ends`."""
        low, high = map(math.exp, ends)
        model = nn.Linear(self.split.train[0].shape[1], 10)
        generator = torch.Generator().manual_seed(self.seed)
        for parameter in model.parameters():
            nn.init.normal_(parameter, 0, 0.01, generator)
        return HyperTraining(
            model,
            {"penalty": FloatDistribution(low, high, log=True)},
            train_loss,
            valid_loss,
            [self.split.train],
            data.batches(self.split.valid, 1000),
            seed=self.seed,
            **arguments,
        )

    def converged(self, grid: np.ndarray) -> np.ndarray:
        """Validation loss of the exact best response at every λ of `grid`."""
        x, y = as_least_squares(self.split.train)
        x_valid, y_valid = as_least_squares(self.split.valid)
        path = Path.of(x, y)
        factor = y.size / (2 * PRECISION)  # of exp(λ), when the squared error has factor 1
        x_inside = x_valid @ path.basis
        errors = [x_inside @ path.inside(factor * math.exp(at)) - y_valid for at in grid]
        return np.array([PRECISION * (error**2).mean() + CONSTANT for error in errors])

    def best(self, ends: Ends) -> float:
        """λ of the lowest converged validation loss, to a hundredth."""
        grid = np.arange(ends[0], ends[1], 0.01)
        return float(grid[self.converged(grid).argmin()])


def as_least_squares(part: data.Part) -> tuple[np.ndarray, np.ndarray]:
    """Rows with a one for the bias (n, F + 1), and one-hot targets (n, 10)."""
    x, y = part
    return np.c_[x.double().numpy(), np.ones(len(x))], data.one_hot(y).double().numpy()


def r_squared(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Share of the variance of `truth` that `prediction` explains."""
    return float(1 - ((truth - prediction) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


@dataclass(frozen=True)
class Curve:
    """Predicted against converged validation losses over a grid of λ; `path` is that of λ̂."""

    grid: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    path: np.ndarray
    reached: float

    @property
    def fit(self) -> float:
        """R² over the middle nine tenths of the grid."""
        margin = 0.05 * (self.grid[-1] - self.grid[0])
        kept = (self.grid > self.grid[0] + margin) & (self.grid < self.grid[-1] - margin)
        return r_squared(self.truth[kept], self.prediction[kept])


def curve(problem: OnePenalty, training: HyperTraining, tuned: Tuned, ends: Ends) -> Curve:
    """What a hypernetwork predicts between `ends`."""
    grid = np.linspace(ends[0] + GUARD, ends[1] - GUARD, POINTS)
    prediction = [training.predict({"penalty": math.exp(at)}) for at in grid]
    path = np.log([point.params["penalty"] for point in tuned.path])
    reached = math.log(tuned.params["penalty"])
    return Curve(grid, problem.converged(grid), np.array(prediction), path, reached)


def learn_everywhere(problem: OnePenalty, steps: int) -> Curve:
    """A global hypernetwork."""
    training = problem.training(EVERYWHERE, response="mlp")
    return curve(problem, training, training.fit_globally(steps, finish=0), EVERYWHERE)


def learn_around(problem: OnePenalty, steps: int) -> Curve:
    """A local linear hypernetwork, started `AWAY` below the optimum."""
    start = {"penalty": math.exp(problem.best(AROUND) - AWAY)}
    training = problem.training(AROUND, response="linear", start=start)
    return curve(problem, training, training.fit(steps, finish=0), AROUND)


def mnist(seed: int) -> OnePenalty:
    """Ten images, and 10,000 more."""
    return OnePenalty(data.mnist(10, 10_000, seed), seed)


def everywhere(seeds: int) -> str:
    """Figure 2."""
    print("Figure 2: one penalty exp(λ)|w| (the code's), λ uniform on [-3, 3] (the text's p(λ))")
    print(f"truth: converged, at {POINTS} λ; R² over the middle 90 % of p(λ)")
    print("\nseed     R²   λ* converged   λ* predicted   λ̂ reached")
    curves = []
    for seed in range(seeds):
        one = learn_everywhere(mnist(seed), STEPS)
        best, lowest = one.grid[one.truth.argmin()], one.grid[one.prediction.argmin()]
        print(
            f"{seed:4} {one.fit:6.3f} {best:14.2f} {lowest:14.2f} {one.reached:11.2f}", flush=True
        )
        curves.append(one)
    return plot(curves, "Learnt everywhere, seed")


def around(seeds: int) -> str:
    """Figure 4."""
    print(f"Figure 4: the same penalty, learnt around λ̂, which starts {AWAY:g} below the optimum")
    print("\nseed   λ* converged   λ̂ at start   λ̂ reached   |difference|")
    curves = []
    for seed in range(seeds):
        problem = mnist(seed)
        one, best = learn_around(problem, STEPS), problem.best(AROUND)
        print(f"{seed:4} {best:14.2f} {best - AWAY:12.2f} {one.reached:11.2f}", end="")
        print(f" {abs(one.reached - best):14.2f}", flush=True)
        curves.append(one)
    return plot(curves, "Learnt around λ̂, seed")


def plot(curves: list[Curve], title: str) -> str:
    """One panel per seed: both curves, and where λ̂ was and ended."""

    def draw(grid: np.ndarray) -> None:
        for seed, (axes, one) in enumerate(zip(grid[0], curves, strict=True)):
            axes.plot(one.grid, one.truth, color=COLOURS["converged"], label="converged")
            axes.plot(one.grid, one.prediction, color=COLOURS["predicted"], label="predicted")
            axes.axvline(one.reached, color=COLOURS["predicted"], linestyle=":")
            axes.plot(one.path, np.interp(one.path, one.grid, one.truth), ".", color="#1f6fd6")
            height = np.ptp(one.truth)
            axes.set_ylim(one.truth.min() - 0.1 * height, one.truth.max() + 0.1 * height)
            axes.set(xlabel="λ", title=f"{title} {seed}")
        grid[0, 0].set_ylabel("validation loss")
        grid[0, 0].legend()

    return figures.svg(draw, (3.8 * len(curves), 3.4), columns=len(curves))
