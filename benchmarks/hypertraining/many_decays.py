"""Figure 5: one decay per weight, 7,850 to 89,610 of them, on 50,000 + 10,000 images of MNIST.

Squared error of one-hot classes, as in the text, and the sum of decay · w² over all weights and
biases. Beside the hypernetwork with the diagonal response: the same decays by unrolled and by
implicit differentiation, random decays per weight, and one decay for all by a grid, chosen by its
validation loss. The paper's own response here has rank 10; ours knows which weight a decay acts
on. It and the unrolled method run twice, once with a quarter of the steps: whose plateau comes how
soon depends on when step sizes go down. Clocks stop while a loss over all data is taken.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from optuna.distributions import FloatDistribution
from torch import Tensor
from torch import nn

from benchmarks import figures
from benchmarks.hypertraining import data
from benchmarks.hypertraining.contenders import CONTENDERS
from benchmarks.hypertraining.contenders import Setting
from benchmarks.timing import turn_about
from optuna_hypernet import HyperTraining
from optuna_hypernet import Shaped
from optuna_hypernet.bilevel.densities import Around
from optuna_hypernet.bilevel.densities import At
from optuna_hypernet.bilevel.densities import Density
from optuna_hypernet.bilevel.densities import Together
from optuna_hypernet.bilevel.optimizers import adam
from optuna_hypernet.bilevel.optimizers import hyper_adam_each
from optuna_hypernet.bilevel.plans import joint
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.randomness import generator
from optuna_hypernet.response.hypernetworks import Constant
from optuna_hypernet.response.hypernetworks import Diagonal
from optuna_hypernet.response.hypernetworks import LowRank


DECAY = FloatDistribution(1e-7, 1e-2, log=True)
GRID = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
NETS: tuple[Sequence[int], ...] = ((), (100,), (100, 100))  # hidden units
BATCH = 128
STEPS = 4000  # ten passes over the data: after two, weights are still far from where decays matter
READINGS = 24  # of a run
SHORT = ", a quarter of the steps"
COLOURS = {
    "hypernetwork": "#d81b60",
    f"hypernetwork{SHORT}": "#f48fb1",
    "unrolled": "#1f6fd6",
    f"unrolled{SHORT}": "#90b8ec",
    "implicit": "#1e8e5a",
}


def valid_loss(model: nn.Module, batch: Any) -> Tensor:
    """Mean squared error of one-hot classes."""
    return (model(batch[0]) - data.one_hot(batch[1])).square().mean()


def train_loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    """The same, and a decay per weight; hyperparameters are named after their weights."""
    weights = dict(model.named_parameters())
    return valid_loss(model, batch) + sum((hp[n] * weights[n].square()).sum() for n in hp)


def common_loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    """The same with one decay for all."""
    squares = sum(w.square().sum() for w in model.parameters())
    return valid_loss(model, batch) + hp["decay"] * squares


def network(hidden: Sequence[int], inputs: int, seed: int) -> nn.Sequential:
    """Fully connected with ReLU; the global generator is put back."""
    sizes = [inputs, *hidden, 10]
    layers: list[nn.Module] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for one, other in pairwise(sizes):
            layers += [nn.Linear(one, other), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True)
class Curve:
    """Seconds, and losses over all validation and test data, of one run."""

    seconds: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    @property
    def chosen(self) -> tuple[float, float]:
        """Validation and test loss where the validation loss is lowest."""
        at = self.valid.argmin()
        return float(self.valid[at]), float(self.test[at])

    @property
    def plateau(self) -> float:
        """Seconds after which the validation loss is within 1 % of the lowest."""
        return self.reaches(1.01 * float(self.valid.min()))

    def reaches(self, loss: float) -> float:
        """Seconds to a validation loss as low as that; infinite if it is not reached."""
        there = self.valid <= loss
        return float(self.seconds[there.argmax()]) if there.any() else math.inf


class ManyDecays:
    """The problem of one net and seed."""

    def __init__(self, split: data.Split, hidden: Sequence[int], seed: int) -> None:
        self.split = split
        self.seed = seed
        self.model = network(hidden, split.train[0].shape[1], seed)
        named = self.model.named_parameters()
        self.space = {name: Shaped(DECAY, tuple(weight.shape)) for name, weight in named}
        self.data = data.batches(split.train, BATCH), data.batches(split.valid, 1000)

    @property
    def setting(self) -> Setting:
        """What the contenders share."""
        coordinates = Coordinates(self.space, torch.float32)
        settings = (adam, partial(hyper_adam_each, length=0.003), self.seed)
        return Setting(coordinates, train_loss, valid_loss, *self.data, *settings)

    def losses(self, model: nn.Module) -> tuple[float, float]:
        """Over all validation and all test data."""
        with torch.no_grad():
            parts = self.split.valid, self.split.test
            valid, test = (float(valid_loss(model, part)) for part in parts)
        return valid, test

    def one_decay(self, steps: int) -> tuple[float, float, float]:
        """The best decay of the grid, and its losses."""
        training = HyperTraining(
            self.model, {"decay": DECAY}, common_loss, valid_loss, *self.data, seed=self.seed
        )
        candidates = [{"decay": decay} for decay in GRID]
        best = training.cross_validate(candidates, steps)
        return best.params["decay"], *self.losses(best.model)

    def random(self, steps: int, count: int) -> tuple[float, float]:
        """The best of random decays per weight."""
        training = self.training()
        return self.losses(training.cross_validate(count, steps).model)

    def training(self, **arguments: Any) -> HyperTraining:
        """As a user would call it."""
        losses = (train_loss, valid_loss)
        given = {"response": "diagonal", "seed": self.seed, **arguments}
        return HyperTraining(self.model, self.space, *losses, *self.data, **given)

    def tuned_from(self, decay: float, steps: int) -> tuple[float, float]:
        """Losses after `fit` from one decay for all."""
        shapes = {name: entry.shape for name, entry in self.space.items()}
        start = {name: np.full(shape, decay) for name, shape in shapes.items()}
        return self.losses(self.training(start=start).fit(steps).model)

    def race(self, name: str, steps: int) -> Curve:
        """One contender from the middle of all ranges."""
        coordinates = self.setting.coordinates
        density, warm_up = Together(0.1, coordinates.blocks), steps // 3
        plan = joint(density, samples=2, steps=steps, ratio=2, warm_up=warm_up)
        middle = torch.zeros(coordinates.D)
        ticks = CONTENDERS[name](self.setting, self.model, middle, plan)
        clock, since, readings = 0.0, time.perf_counter(), []
        for tick, model in enumerate(ticks, 1):
            if tick % max(plan.ticks // READINGS, 1) and tick != plan.ticks:
                continue
            clock += time.perf_counter() - since
            readings.append((clock, *self.losses(model())))
            since = time.perf_counter()
        return Curve(*np.array(readings).T)


def step_costs(problem: ManyDecays, steps: int = 100) -> dict[str, float]:
    """Median times of a train step of φ over that of a plain one, in the same loop, turn about.

    The plain one is ordinary training: one λ, and a response that does not depend on it.
    """
    fixed = problem.setting
    blocks, size = fixed.coordinates.blocks, fixed.coordinates.D
    weights = fixed.weights(problem.model)
    count, owners = weights.n_weights, weights.owners(fixed.coordinates.shapes)
    kinds: dict[str, tuple[nn.Module, Density, int]] = {
        "plain": (Constant(count), At(), 1),
        "low-rank, one λ": (LowRank(size, count, generator(0)), Around(0.1), 1),
        "diagonal, one λ": (Diagonal(owners, blocks), Together(0.1, blocks), 1),
        "diagonal, two λ": (Diagonal(owners, blocks), Together(0.1, blocks), 2),
    }
    parts = {}
    for name, (network, density, samples) in kinds.items():
        response = fixed.weights(problem.model)
        response.hypernetwork = network
        loop = fixed.bilevel(response, torch.zeros(size))
        parts[name] = partial(loop.train_step, density, samples)
    medians = turn_about(parts, steps)
    return {name: seconds / medians["plain"] for name, seconds in medians.items()}


def decays(seeds: int) -> str:
    """Figure 5."""
    print("Figure 5: one decay per weight, on 50,000 + 10,000 images of MNIST")
    print("mean squared error (the text's) and sums of decay · w², Adam, batches of 128")
    print(
        f"{STEPS} steps; a third of them before λ moves. 'plateau': within 1 % of the lowest loss"
    )
    found: dict[str, dict[str, Curve]] = {}
    for hidden in NETS:
        title = "-".join(map(str, (784, *hidden, 10)))
        for seed in range(seeds):
            problem = ManyDecays(data.mnist(50_000, 10_000, seed), hidden, seed)
            curves = compare(title, problem, STEPS)
            found.setdefault(title, curves)
    return plot(found)


def compare(title: str, problem: ManyDecays, steps: int) -> dict[str, Curve]:
    """All methods on one net and seed, printed."""
    weights = sum(weight.numel() for weight in problem.model.parameters())
    print(f"\n{title}, {weights:,} decays, seed {problem.seed}")
    costs = [f"{name} {ratio:.2f}" for name, ratio in step_costs(problem).items()]
    print("a train step of φ, in plain ones:", ", ".join(costs[1:]))
    print(f"{'':38}     valid      test   plateau, s   whole run, s")
    decay, *losses = problem.one_decay(steps)
    row(f"one decay, {decay:g}", *losses)
    row("random decays, best of 3", *problem.random(steps, 3))
    row("fit, from that one decay", *problem.tuned_from(decay, steps))
    runs = {f"{name}{SHORT}": (name, steps // 4) for name in ("hypernetwork", "unrolled")}
    runs |= {name: (name, steps) for name in CONTENDERS}
    curves = {}
    for name, (contender, length) in runs.items():
        curves[name] = one = problem.race(contender, length)
        row(name, *one.chosen, f"{one.plateau:12.1f} {one.seconds[-1]:14.1f}")
    level = 1.01 * curves["unrolled"].chosen[0]
    times = [f"{name} {one.reaches(level):.1f}" for name, one in curves.items()]
    print("seconds to 1 % above the unrolled method's lowest:", ", ".join(times), flush=True)
    return curves


def row(name: str, valid: float, test: float, rest: str = "") -> None:
    print(f"{name:38} {valid:9.5f} {test:9.5f} {rest}", flush=True)


def plot(found: dict[str, dict[str, Curve]]) -> str:
    """Losses against seconds, one panel per net."""

    def draw(grid: np.ndarray) -> None:
        for axes, (title, curves) in zip(grid[0], found.items(), strict=True):
            for name, one in curves.items():
                axes.plot(one.seconds, one.valid, color=COLOURS[name], label=name)
                axes.plot(one.seconds, one.test, color=COLOURS[name], linestyle="--")
            lowest = [(one.valid.min(), one.test.min()) for one in curves.values()]
            limits = 0.95 * np.min(lowest), 1.3 * np.max(lowest)  # the end of every curve is seen
            axes.set(xlabel="seconds", title=title, ylim=limits)
        grid[0, 0].set_ylabel("validation loss, test loss dashed")
        grid[0, 0].legend()

    return figures.svg(draw, (3.8 * len(found), 3.6), columns=len(found))
