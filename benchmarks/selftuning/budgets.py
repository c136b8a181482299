"""Table 2: self-tuning against trials of ordinary training, in the same seconds and in more.

Every trial is one training at constant rates, as long in epochs as the self-tuned run, and its
value is the validation loss of its best epoch. A trial that began in time counts. Optuna's
samplers have their defaults, for TPE and GP ten random trials first.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import optuna

from benchmarks import figures
from benchmarks.selftuning import dropout
from benchmarks.selftuning.dropout import EPOCHS
from benchmarks.selftuning.dropout import RATE
from benchmarks.selftuning.dropout import Dropout


START = 0.05
TIMES = (1, 4)  # of the self-tuned run's seconds
GRID = (0.0, 0.2, 0.4, 0.6, 0.8)  # of each rate
COLOURS = {
    "grid": "#e08e0b",
    "random": "#8a8f98",
    "TPE": "#1f6fd6",
    "GP": "#1e8e5a",
    "self-tuned": "#d81b60",
}


@dataclass(frozen=True)
class Path:
    """The best so far by validation loss, ``(trials,)`` each; seconds are when a trial ended."""

    began: np.ndarray
    seconds: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    def within(self, seconds: float) -> tuple[int, float, float]:
        """Trials that began in that time, and the best one's losses."""
        count = int((self.began < seconds).sum())
        return count, float(self.valid[count - 1]), float(self.test[count - 1])


def samplers(problem: Dropout) -> dict[str, optuna.samplers.BaseSampler]:
    """By name, all with the problem's seed."""
    space = dict.fromkeys(problem.tuned, GRID)
    return {
        "grid": optuna.samplers.GridSampler(space, seed=problem.seed),
        "random": optuna.samplers.RandomSampler(seed=problem.seed),
        "TPE": optuna.samplers.TPESampler(seed=problem.seed),
        "GP": optuna.samplers.GPSampler(seed=problem.seed),
    }


def tried(
    problem: Dropout, sampler: optuna.samplers.BaseSampler, seconds: float, epochs: int
) -> Path:
    """Trials until the seconds are over."""
    study = optuna.create_study(sampler=sampler)
    start, began, best, rows = time.perf_counter(), 0.0, (np.inf, np.inf), []
    while began < seconds:
        trial = study.ask()
        params = {n: trial.suggest_float(n, RATE.low, RATE.high) for n in problem.tuned}
        run = problem.hold(params, epochs)
        study.tell(trial, run.valid)
        best, ended = min(best, (run.valid, run.test)), time.perf_counter() - start
        rows.append((began, ended, *best))
        began = ended
    return Path(*np.array(rows).T)


def compare(problem: Dropout, epochs: int) -> dict[str, Path]:
    """All on one problem, printed."""
    run = problem.tune(START, epochs)
    once = (np.array([value]) for value in (0.0, run.seconds, run.valid, run.test))
    found = {"self-tuned": Path(*once)}
    peers = samplers(problem)
    for name, sampler in peers.items():
        found[name] = tried(problem, sampler, max(TIMES) * run.seconds, epochs)
    for name in COLOURS:
        for times in TIMES if name in peers else (1,):
            count, valid, test = found[name].within(times * run.seconds)
            print(f"{problem.seed:4}   {name:12} {times * run.seconds:8.1f} {count:8}", end="")
            print(f" {valid:8.3f} {test:8.3f}", flush=True)
    return found


def table(seeds: int, epochs: int = EPOCHS) -> str:
    """Table 2."""
    print(f"Table 2: dropout rates of 784-200-200-10 on 1,000 + 1,000 images, {epochs} epochs")
    print(
        f"one self-tuned run from {START}; trials for {TIMES[0]} and {TIMES[1]} times its seconds"
    )
    print("\nseed   method        seconds   trials    valid     test")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = [compare(dropout.mnist(seed), epochs) for seed in range(seeds)]
    return plot(found[0])


def plot(found: Mapping[str, Path]) -> str:
    """Lowest losses so far against seconds."""

    def draw(grid: np.ndarray) -> None:
        axes = grid[0, 0]
        for name, path in found.items():
            axes.plot(path.seconds, path.valid, "o-", color=COLOURS[name], label=name)
            axes.plot(path.seconds, path.test, "o--", color=COLOURS[name], markersize=3)
        axes.set(xlabel="seconds", ylabel="validation loss, test loss dashed")
        axes.legend()

    return figures.svg(draw, (5.6, 3.8))
