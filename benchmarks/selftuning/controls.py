"""Table 1: what of self-tuning is the schedule, what the last constant, what mere noise.

A schedule is self-tuned from one start. Against it, in ordinary training: the best constant of a
grid, chosen by validation loss; the last self-tuned rates held, as they are, with Gaussian noise
and with a sinusoid; and the schedule replayed. The paper redraws the noise at every step; here it
is drawn for every epoch, with lines in between.
"""

from collections.abc import Mapping

import numpy as np

from benchmarks import figures
from benchmarks.selftuning import dropout
from benchmarks.selftuning.dropout import EPOCHS
from benchmarks.selftuning.dropout import NAMES
from benchmarks.selftuning.dropout import RATES
from benchmarks.selftuning.dropout import Dropout
from benchmarks.selftuning.dropout import Run


START = 0.05
GRID = tuple(np.round(np.arange(0.0, 0.9, 0.1), 1))  # all rates alike
GAUSSIAN = 0.05  # standard deviation
AMPLITUDE, PERIOD = 0.1, 12  # of the sinusoid, in epochs
COLOURS = {
    "best constant": "#8a8f98",
    "last value": "#1f6fd6",
    "last value, Gaussian": "#7cb4f5",
    "last value, sinusoid": "#0aa5b5",
    "schedule replayed": "#e08e0b",
    "self-tuned": "#d81b60",
}


def controls(problem: Dropout, epochs: int) -> dict[str, Run]:
    """All six on one problem."""
    tuned = problem.tune(START, epochs)
    last = np.tile(tuned.rates[-1], (epochs, 1))
    noise = np.random.default_rng(problem.seed).normal(0, GAUSSIAN, last.shape)
    wave = AMPLITUDE * np.sin(2 * np.pi * np.arange(epochs) / PERIOD)[:, None]
    constants = [problem.follow(np.full_like(last, rate)) for rate in GRID]
    return {
        "best constant": min(constants, key=lambda run: run.valid),
        "last value": problem.follow(last),
        "last value, Gaussian": problem.follow(last + noise),
        "last value, sinusoid": problem.follow(last + wave),
        "schedule replayed": problem.replay(tuned.tuned),
        "self-tuned": tuned,
    }


def table(seeds: int, epochs: int = EPOCHS) -> str:
    """Table 1."""
    print(f"Table 1: dropout rates of 784-200-200-10 on 1,000 + 1,000 images, {epochs} epochs")
    print(f"self-tuned from {START}; constants of {', '.join(map(str, GRID))} for all rates")
    print(f"\nseed   {'':22}    valid     test   rates of the last epoch")
    found = []
    for seed in range(seeds):
        found.append(controls(dropout.mnist(seed), epochs))
        for name, run in found[-1].items():
            last = " ".join(f"{rate:.2f}" for rate in run.rates[-1])
            print(f"{seed:4}   {name:22} {run.valid:8.3f} {run.test:8.3f}   {last}", flush=True)
    print()
    for name in COLOURS:
        losses = np.array([(runs[name].valid, runs[name].test) for runs in found])
        print(f"mean   {name:22} {losses[:, 0].mean():8.3f} {losses[:, 1].mean():8.3f}")
    return plot(found[0])


def plot(runs: Mapping[str, Run]) -> str:
    """Validation losses over epochs, and the first seed's rates."""

    def draw(grid: np.ndarray) -> None:
        losses, rates = grid[0]
        for name, run in runs.items():
            losses.plot(run.epochs, run.losses, color=COLOURS[name], label=name, linewidth=1)
        lowest = min(run.valid for run in runs.values())
        losses.set(xlabel="epoch", ylabel="validation loss", ylim=(0.9 * lowest, 2 * lowest))
        losses.legend()
        tuned = runs["self-tuned"]
        rates.plot(tuned.epochs, tuned.rates, label=[NAMES[name] for name in RATES])
        rates.set(xlabel="epoch", ylabel="self-tuned dropout rate", ylim=(0, 0.9))
        rates.legend()

    return figures.svg(draw, (8.4, 3.8), columns=2)
