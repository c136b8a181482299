"""Figure 7: ten and 7,850 decays; hyper-training against trials in the same seconds.

A linear model learns 1,000 images of MNIST, 1,000 more validate it. Ten decays are one per class,
7,850 one per weight. Hyper-training by the diagonal response gets 3,000 steps; random search and
Optuna's GPSampler get trials of 1,000 training steps for as long as that took, one at least. As in
the paper, a Gaussian process is not asked about thousands of hyperparameters.
"""

import math
import time

import numpy as np
import optuna

from benchmarks import figures
from benchmarks.hypertraining import data
from benchmarks.hypertraining.many_decays import DECAY
from benchmarks.hypertraining.many_decays import ManyDecays
from optuna_hypernet import HyperTraining
from optuna_hypernet import Shaped


STEPS = 3000  # of hyper-training
COLOURS = {"random": "#8a8f98", "GP": "#1e8e5a", "hypernetwork": "#d81b60"}
Row = tuple[float, float, float]  # seconds, validation loss, test loss


def hyper_trained(problem: ManyDecays, training: HyperTraining, steps: int) -> Row:
    """One run of `fit`."""
    start = time.perf_counter()
    tuned = training.fit(steps)
    seconds = time.perf_counter() - start
    return seconds, *problem.losses(tuned.model)


def tried(
    problem: ManyDecays,
    training: HyperTraining,
    sampler: optuna.samplers.BaseSampler,
    seconds: float,
    steps: int,
) -> list[Row]:
    """Trials of `train` until the seconds are over; best so far, by validation loss."""
    study = optuna.create_study(sampler=sampler)
    start, best, rows = time.perf_counter(), (np.inf, np.inf), []
    while not rows or rows[-1][0] < seconds:
        trial = study.ask()
        params = {name: suggest(trial, name, e.shape) for name, e in problem.space.items()}
        losses = problem.losses(training.train(params, steps).model)
        study.tell(trial, losses[0])
        best = min(best, losses)
        rows.append((time.perf_counter() - start, *best))
    return rows


def suggest(trial: optuna.Trial, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One parameter of the trial for every number of a shaped hyperparameter."""
    names = [f"{name}[{i}]" for i in range(math.prod(shape))]
    found = [trial.suggest_float(one, DECAY.low, DECAY.high, log=True) for one in names]
    return np.reshape(found, shape)


def budgets(seeds: int) -> str:
    """Figure 7."""
    print("Figure 7: decays of a linear model on 1,000 + 1,000 images of MNIST, squared error")
    print("\nseed   decays   method          trials   seconds     valid      test")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found: dict[int, dict[str, list[Row]]] = {}
    for seed in range(seeds):
        for each in (False, True):
            problem = ManyDecays(data.mnist(1000, 1000, seed), (), seed)
            if not each:
                problem.space = {"0.weight": Shaped(DECAY, (10, 1))}
            found.setdefault(problem.training().coordinates.D, compare(problem, STEPS))
    return plot(found)


def compare(problem: ManyDecays, steps: int) -> dict[str, list[Row]]:
    """All methods on one problem, printed."""
    training = problem.training()
    size = training.coordinates.D
    rows = {"hypernetwork": [hyper_trained(problem, training, steps)]}
    seconds = rows["hypernetwork"][0][0]
    samplers: dict[str, optuna.samplers.BaseSampler] = {
        "random": optuna.samplers.RandomSampler(seed=problem.seed)
    }
    if size <= 10:
        samplers["GP"] = optuna.samplers.GPSampler(seed=problem.seed)
    for name, sampler in samplers.items():
        rows[name] = tried(problem, problem.training(), sampler, seconds, steps // 3)
    for name, path in rows.items():
        took, valid, test = path[-1]
        print(f"{problem.seed:4} {size:8,}   {name:14} {len(path):7} {took:9.1f}", end="")
        print(f" {valid:9.5f} {test:9.5f}", flush=True)
    return rows


def plot(found: dict[int, dict[str, list[Row]]]) -> str:
    """Lowest losses so far against seconds, one panel per number of decays."""

    def draw(grid: np.ndarray) -> None:
        for axes, (size, rows) in zip(grid[0], found.items(), strict=True):
            for name, path in rows.items():
                seconds, valid, test = np.array(path).T
                axes.plot(seconds, valid, "o-", color=COLOURS[name], label=name, markersize=3)
                axes.plot(seconds, test, "o--", color=COLOURS[name], markersize=3)
            axes.set(xlabel="seconds", title=f"{size:,} decays")
        grid[0, 0].set_ylabel("validation loss, test loss dashed")
        grid[0, 0].legend()

    return figures.svg(draw, (8.4, 3.8), columns=len(found))
