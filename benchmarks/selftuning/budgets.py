"""Table 2: self-tuning against trials of ordinary training, in the same seconds and in more.

Every trial is one training at constant hyperparameters, as long in epochs as the self-tuned run,
and its value is the validation loss of its best epoch. A trial that began in time counts.
Optuna's samplers have their defaults, for TPE and GP ten random trials first. Where there are many
hyperparameters, the grid has one number for each group of them.
"""

import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import optuna
from matplotlib.axes import Axes
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from benchmarks import figures
from benchmarks.kept import Keep
from benchmarks.kept import afresh
from benchmarks.selftuning import dropout
from benchmarks.selftuning.dropout import EPOCHS
from benchmarks.selftuning.problem import RATE
from benchmarks.selftuning.problem import Problem
from benchmarks.selftuning.problem import Run


TIMES = (1, 4)  # of the self-tuned run's seconds
GRID = (0.0, 0.2, 0.4, 0.6, 0.8)  # levels
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


Paths = Mapping[str, Path]
Times = Sequence[int]
Propose = Callable[[optuna.Study], tuple[optuna.Trial, Mapping[str, float]]]


def proposals(problem: Problem) -> dict[str, tuple[BaseSampler, Propose]]:
    """Samplers by name, all with the problem's seed, and how each proposes hyperparameters."""

    def each(study: optuna.Study) -> tuple[optuna.Trial, Mapping[str, float]]:
        trial = study.ask(dict(problem.space))
        return trial, trial.params

    def grouped(study: optuna.Study) -> tuple[optuna.Trial, Mapping[str, float]]:
        trial = study.ask(dict.fromkeys(problem.grid, RATE))
        return trial, problem.grouped(trial.params)

    grid = dict.fromkeys(problem.grid, GRID)
    return {
        "grid": (optuna.samplers.GridSampler(grid, seed=problem.seed), grouped),
        "random": (optuna.samplers.RandomSampler(seed=problem.seed), each),
        "TPE": (optuna.samplers.TPESampler(seed=problem.seed), each),
        "GP": (optuna.samplers.GPSampler(seed=problem.seed), each),
    }


def tried(
    problem: Problem, sampler: BaseSampler, propose: Propose, seconds: float, epochs: int
) -> Path:
    """Trials until the seconds are over."""
    study = optuna.create_study(sampler=sampler)
    start, began, best, rows = time.perf_counter(), 0.0, (np.inf, np.inf), []
    while began < seconds:
        trial, params = propose(study)
        try:
            run = problem.hold(params, epochs)
        except FloatingPointError:  # it diverged, and took its seconds
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, run.valid)
            best = min(best, (run.valid, run.test))
        ended = time.perf_counter() - start
        rows.append((began, ended, *best))
        began = ended
    return Path(*np.array(rows).T)


def compare(problem: Problem, tuned: Run, times: Times = TIMES, keep: Keep = afresh) -> Paths:
    """All on one problem, against a self-tuned run; ``keep`` may know what was found before."""
    once = (np.array([value]) for value in (0.0, tuned.seconds, tuned.valid, tuned.test))
    found = {"self-tuned": Path(*once)}
    limit, epochs = max(times) * tuned.seconds, len(tuned.epochs)
    for name, (sampler, propose) in proposals(problem).items():
        search = partial(tried, problem, sampler, propose, limit, epochs)
        found[name] = keep(name, search)
    return found


def table(seeds: int) -> str:
    """Table 2 of the dropout rates on MNIST."""
    print(f"Table 2: {dropout.mnist(0).title}, {EPOCHS} epochs")
    times = " and ".join(map(str, TIMES))
    print(f"one self-tuned run from {dropout.START}; trials for {times} times its seconds")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    heading()
    found = []
    for seed in range(seeds):
        problem = dropout.mnist(seed)
        found.append(compare(problem, problem.tune(problem.start, EPOCHS)))
        tell(seed, found[-1])
    means(found)
    return figures.svg(lambda grid: curves(grid[0, 0], found[0]), (5.6, 3.8))


def heading() -> None:
    """Of the lines."""
    print("\nseed   method        seconds   trials    valid     test")


def tell(seed: int, found: Paths, times: Times = TIMES) -> None:
    """A line for each method and time."""
    once = float(found["self-tuned"].seconds[-1])
    for name, factor in lines(times):
        count, valid, test = found[name].within(factor * once)
        print(
            f"{seed:4}   {name:12} {factor * once:8.1f} {count:8} {valid:8.3f} {test:8.3f}",
            flush=True,
        )


def means(found: Sequence[Paths], times: Times = TIMES) -> None:
    """Over seeds."""
    print()
    for name, factor in lines(times):
        within = [one[name].within(factor * float(one["self-tuned"].seconds[-1])) for one in found]
        count, valid, test = np.mean(within, axis=0)
        print(
            f"mean   {name:12} {f'x {factor}':>8} {count:8.1f} {valid:8.3f} {test:8.3f}",
            flush=True,
        )


def lines(times: Times) -> list[tuple[str, int]]:
    """Methods with times of the self-tuned run's seconds."""
    peers = [name for name in COLOURS if name != "self-tuned"]
    return [*((name, factor) for name in peers for factor in times), ("self-tuned", 1)]


def curves(axes: Axes, found: Paths) -> None:
    """Lowest losses so far against seconds."""
    for name, path in found.items():
        axes.plot(path.seconds, path.valid, "o-", color=COLOURS[name], label=name)
        axes.plot(path.seconds, path.test, "o--", color=COLOURS[name], markersize=3)
    axes.set(xlabel="seconds", ylabel="validation loss, test loss dashed")
    axes.legend()
