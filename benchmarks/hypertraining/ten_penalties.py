"""Figure 6: ten penalties, one per class; predicted validation losses against true ones.

A linear model learns 50,000 images by batches of 100. Its penalty is the mean over classes c of
exp(λ_c) |w_c|, biases left out, with λ uniform on [-3, 3]^10. Classes do not share weights, so the
converged best response of each is exact, and the truth a mean of ten functions of one λ_c.

Three predictors: a Gaussian process on the true losses of 25 λ (scikit-learn's, with a bare RBF
kernel as in the paper), a linear hypernetwork that has seen the same 25 λ, and one that has seen
fresh λ at every step. The hypernetworks are never shown a validation loss.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from optuna.distributions import FloatDistribution
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from torch import Tensor
from torch import nn

from benchmarks import figures
from benchmarks.hypertraining import data
from benchmarks.hypertraining.contenders import Setting
from benchmarks.hypertraining.norm_penalty import Path
from benchmarks.hypertraining.one_penalty import CONSTANT
from benchmarks.hypertraining.one_penalty import PRECISION
from benchmarks.hypertraining.one_penalty import r_squared
from benchmarks.hypertraining.one_penalty import valid_loss
from optuna_hypernet import HyperTraining
from optuna_hypernet import Shaped
from optuna_hypernet.bilevel.loop import run
from optuna_hypernet.bilevel.optimizers import adam
from optuna_hypernet.bilevel.optimizers import hyper_adam
from optuna_hypernet.bilevel.plans import Plan
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.randomness import generator
from optuna_hypernet.response.hypernetworks import Linear


CLASSES = 10
LOW, HIGH = -3.0, 3.0
SPACE = {"penalty": Shaped(FloatDistribution(math.exp(LOW), math.exp(HIGH), log=True), (CLASSES,))}
SHOWN = 25  # λ that the first two predictors may see
HELD_OUT = 300
STEPS = 1000


def train_loss(model: nn.Module, batch: Any, hp: Mapping[str, Tensor]) -> Tensor:
    """The validation loss, and the mean over the classes of exp(λ_c) |w_c|."""
    return valid_loss(model, batch) + (hp["penalty"] * model.weight.norm(dim=1)).mean()


@dataclass(frozen=True)
class Given:
    """A density of the bilevel loop that draws from given rows (n, D) of coordinates."""

    rows: Tensor

    def __call__(self, z: Tensor, k: int, seed: torch.Generator) -> Tensor:
        """``(k, D)``."""
        return self.rows[torch.randperm(len(self.rows), generator=seed)[:k]].to(z)


class TenPenalties:
    """The problem of one seed."""

    def __init__(self, split: data.Split, seed: int) -> None:
        self.seed = seed
        self.model = nn.Linear(split.train[0].shape[1], CLASSES)
        for parameter in self.model.parameters():
            nn.init.normal_(parameter, 0, 1e-5, torch.Generator().manual_seed(seed))
        self.train = data.batches(split.train, 100)
        self.valid = [split.valid]
        self._prepare(split)

    def _prepare(self, split: data.Split) -> None:
        """What `converged` needs: no bias is penalised, so everything is centred."""
        x, y = split.train[0].double().numpy(), data.one_hot(split.train[1]).double().numpy()
        self._factor = len(x) / (2 * PRECISION)  # of exp(λ_c), when squared errors have factor 1
        self._path = Path.of(x - x.mean(0), y - y.mean(0))
        self._x_valid = (split.valid[0].double().numpy() - x.mean(0)) @ self._path.basis
        self._y_valid = data.one_hot(split.valid[1]).double().numpy() - y.mean(0)

    def converged(self, lambdas: np.ndarray) -> np.ndarray:
        """Validation losses (n,) of the exact best responses at `lambdas` (n, 10)."""
        squares = np.zeros(lambdas.shape)
        for c in range(CLASSES):
            path = self._path.column(c)
            inside = [path.inside(self._factor * math.exp(at)) for at in lambdas[:, c]]
            errors = self._x_valid @ np.hstack(inside) - self._y_valid[:, c : c + 1]
            squares[:, c] = (errors**2).mean(0)
        return PRECISION * squares.mean(1) + CONSTANT

    def stochastic(self, lambdas: np.ndarray, steps: int) -> np.ndarray:
        """Predictions (n,) of a hypernetwork that sees fresh λ at every step."""
        losses = (train_loss, valid_loss)
        seen = {"response": "linear", "seed": self.seed}
        training = HyperTraining(self.model, SPACE, *losses, self.train, self.valid, **seen)
        training.fit_globally(steps, samples=SHOWN, descent=1, finish=0)
        return np.array([training.predict({"penalty": np.exp(row)}) for row in lambdas])

    def fixed(self, shown: np.ndarray, lambdas: np.ndarray, steps: int) -> np.ndarray:
        """Predictions (n,) of one that only sees the λ of `shown`: a plan of the same loop."""
        coordinates = Coordinates(SPACE, torch.float32)
        losses, settings = (train_loss, valid_loss), (adam, hyper_adam, self.seed)
        setting = Setting(coordinates, *losses, self.train, self.valid, *settings)
        response = setting.weights(self.model)
        response.hypernetwork = Linear(CLASSES, response.n_weights, generator(self.seed))
        rows = torch.stack([coordinates.encode({"penalty": np.exp(row)}) for row in shown])
        bilevel = setting.bilevel(response, rows[0])
        for _ in run(bilevel, Plan(Given(rows), SHOWN, warm_up=steps, cycles=0, ratio=0)):
            pass
        points = [coordinates.encode({"penalty": np.exp(row)}) for row in lambdas]
        return np.array([bilevel.evaluate(z) for z in points])

    def gaussian_process(self, shown: np.ndarray, lambdas: np.ndarray) -> np.ndarray:
        """Predictions (n,) from the true losses at `shown`."""
        process = GaussianProcessRegressor(RBF(), n_restarts_optimizer=1, random_state=self.seed)
        return np.asarray(process.fit(shown, self.converged(shown)).predict(lambdas))


@dataclass(frozen=True)
class Predictions:
    """True and predicted losses (n,) at held-out λ, by predictor."""

    truth: np.ndarray
    by: Mapping[str, np.ndarray]


def predict(problem: TenPenalties, steps: int, held_out: int) -> Predictions:
    """All three predictors on the same λ."""
    draws = np.random.default_rng(problem.seed).uniform(LOW, HIGH, (SHOWN + held_out, CLASSES))
    shown, lambdas = draws[:SHOWN], draws[SHOWN:]
    by = {
        f"GP on {SHOWN}": problem.gaussian_process(shown, lambdas),
        f"hypernetwork on {SHOWN}": problem.fixed(shown, lambdas, steps),
        "stochastic hypernetwork": problem.stochastic(lambdas, steps),
    }
    return Predictions(problem.converged(lambdas), by)


def prediction(seeds: int) -> str:
    """Figure 6."""
    print("Figure 6: ten penalties exp(λ_c)|w_c| (the code's), λ uniform on [-3, 3]^10 (both)")
    print(f"truth: converged, exact, at {HELD_OUT} held-out λ (the code: 1,000 steps of training)")
    print("\nseed   predictor                 Spearman      R²    bias")
    found = []
    for seed in range(seeds):
        problem = TenPenalties(data.mnist(50_000, 10_000, seed), seed)
        found.append(predict(problem, STEPS, HELD_OUT))
        for name, values in found[-1].by.items():
            truth = found[-1].truth
            rank, fit = stats.spearmanr(truth, values).statistic, r_squared(truth, values)
            bias = (values - truth).mean()
            print(f"{seed:4}   {name:24} {rank:9.3f} {fit:7.2f} {bias:7.3f}", flush=True)
    return plot(found[0])


def plot(found: Predictions) -> str:
    """Predicted against true losses, one panel per predictor."""
    ends = [found.truth.min(), found.truth.max()]

    def draw(grid: np.ndarray) -> None:
        for axes, (name, values) in zip(grid[0], found.by.items(), strict=True):
            axes.plot(ends, ends, color="#9aa0a6", linewidth=1)
            axes.plot(found.truth, values, ".", color="#d81b60", markersize=3)
            axes.set(xlabel="true validation loss", title=name)
        grid[0, 0].set_ylabel("predicted validation loss")

    return figures.svg(draw, (11.4, 3.6), columns=len(found.by))
