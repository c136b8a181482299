"""Table 1: what of self-tuning is the schedule, what the last constant, what mere noise.

A schedule is self-tuned from one start. Against it, in ordinary training: the best constant of a
grid, chosen by validation loss; the last self-tuned values held, as they are, with the spread that
they had around them in the end, with Gaussian noise and with a sinusoid; and the schedule of
values and spreads replayed. The paper redraws the noise at every step; here it is drawn for every
epoch, with lines in between. The spread has a draw for every example, as in self-tuning.
"""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from benchmarks import figures
from benchmarks.kept import Keep
from benchmarks.kept import afresh
from benchmarks.selftuning import dropout
from benchmarks.selftuning.dropout import EPOCHS
from benchmarks.selftuning.problem import HIGHEST
from benchmarks.selftuning.problem import Problem
from benchmarks.selftuning.problem import Run


GRID = tuple(np.round(np.arange(0.0, HIGHEST, 0.1), 1))  # all levels alike
GAUSSIAN = 0.05  # standard deviation of levels
AMPLITUDE, PERIOD = 0.1, 12  # of the sinusoid, in levels and epochs
COLOURS = {
    "best constant": "#8a8f98",
    "last value": "#1f6fd6",
    "last value and spread": "#7b4fd0",
    "last value, Gaussian": "#7cb4f5",
    "last value, sinusoid": "#0aa5b5",
    "schedule replayed": "#e08e0b",
    "self-tuned": "#d81b60",
}

Runs = Mapping[str, Run]


def controls(
    problem: Problem, tuned: Run, levels: Sequence[float] = GRID, keep: Keep = afresh
) -> Runs:
    """All of them on one problem, constants and noise for as many epochs as the self-tuned run."""
    epochs = len(tuned.epochs)
    last = np.tile(problem.levels(tuned.values[-1]), (epochs, 1))
    noise = np.random.default_rng(problem.seed).normal(0, GAUSSIAN, last.shape)
    wave = AMPLITUDE * np.sin(2 * np.pi * np.arange(epochs) / PERIOD)[:, None]

    def best_constant() -> Run:
        constants = [problem.follow(np.full_like(last, level)) for level in levels]
        return min(constants, key=lambda run: run.valid)

    others = {
        "best constant": best_constant,
        "last value": lambda: problem.follow(last),
        "last value and spread": lambda: problem.follow(last, tuned.tuned.path[-1].spread),
        "last value, Gaussian": lambda: problem.follow(last + noise),
        "last value, sinusoid": lambda: problem.follow(last + wave),
        "schedule replayed": lambda: problem.replay(tuned.tuned),
    }
    return {**{name: keep(name, run) for name, run in others.items()}, "self-tuned": tuned}


def table(seeds: int) -> str:
    """Table 1 of the dropout rates on MNIST."""
    first = dropout.mnist(0)
    print(f"Table 1: {first.title}, {EPOCHS} epochs")
    grid = ", ".join(map(str, GRID))
    print(f"self-tuned from {dropout.START}; constants of {grid} for all rates")
    heading()
    found = []
    for seed in range(seeds):
        problem = dropout.mnist(seed)
        found.append(controls(problem, problem.tune(problem.start, EPOCHS)))
        tell(seed, found[-1])
    means(found)
    return plot(first, found[0])


def heading() -> None:
    """Of the lines."""
    print(f"\nseed   {'':22}    valid     test   values of the last epoch")


def tell(seed: int, runs: Runs) -> None:
    """A line for each."""
    for name, run in runs.items():
        last = " ".join(f"{value:.2f}" for value in run.values[-1])
        print(f"{seed:4}   {name:22} {run.valid:8.3f} {run.test:8.3f}   {last}", flush=True)


def means(found: Sequence[Runs]) -> None:
    """Over seeds."""
    print()
    for name in COLOURS:
        losses = np.array([(runs[name].valid, runs[name].test) for runs in found])
        print(
            f"mean   {name:22} {losses[:, 0].mean():8.3f} {losses[:, 1].mean():8.3f}", flush=True
        )


def plot(problem: Problem, runs: Runs) -> str:
    """Validation losses over epochs, and the first seed's rates."""

    def draw(grid: np.ndarray) -> None:
        losses, rates = grid[0]
        curves(losses, runs)
        tuned = runs["self-tuned"]
        rates.plot(tuned.epochs, tuned.values, label=problem.names)
        rates.set(xlabel="epoch", ylabel="self-tuned dropout rate", ylim=(0, HIGHEST))
        rates.legend()

    return figures.svg(draw, (8.4, 3.8), columns=2)


def curves(axes: Axes, runs: Runs) -> None:
    """Validation losses over epochs."""
    for name, run in runs.items():
        axes.plot(run.epochs, run.losses, color=COLOURS[name], label=name, linewidth=1)
    lowest = min(run.valid for run in runs.values())
    first = max(run.losses[0] for run in runs.values())
    span = min(lowest, first - lowest)
    axes.set(xlabel="epoch", ylabel="validation loss", ylim=(lowest - 0.1 * span, lowest + span))
    axes.legend(fontsize="small", frameon=True, framealpha=0.85, edgecolor="none")
