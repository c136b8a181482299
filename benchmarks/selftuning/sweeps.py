"""Sweeps: where the spread starts, the weight of its entropy, and train steps per valid step.

One setting at a time is changed in the self-tuned run of the dropout rates on MNIST, all else is
as by default. Of the paper, the sweeps over scales and over step ratios, in small.
"""

import warnings
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks import figures
from benchmarks.selftuning import dropout
from benchmarks.selftuning.dropout import EPOCHS
from benchmarks.selftuning.problem import Problem
from benchmarks.selftuning.problem import Run


SWEEPS: dict[str, Sequence[float]] = {  # an argument of `fit`, and what it is set to
    "scale": (0.1, 0.25, 0.5, 1.0, 2.0),
    "entropy": (0.0, 1e-3, 1e-2, 3e-2, 1e-1),
    "ratio": (1, 2, 4, 8),
}

Runs = Mapping[tuple[str, float], Run]  # by argument and value


def sweep(problem: Problem, epochs: int) -> Runs:
    """A run for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The spread of")  # that ended at its floor: it shall
        return {
            (name, value): replace(problem, fit={name: value}).tune(problem.start, epochs)
            for name, values in SWEEPS.items()
            for value in values
        }


def table(seeds: int) -> str:
    """Means over seeds of each setting's losses, last rates and last spreads; highest losses."""
    print(f"{dropout.mnist(0).title}, {EPOCHS} epochs, {seeds} seeds, from {dropout.START}")
    print("\nsetting            valid  highest     test  highest   last rates, spreads (means)")
    found = [sweep(dropout.mnist(seed), EPOCHS) for seed in range(seeds)]
    for name, value in found[0]:
        runs = [one[name, value] for one in found]
        losses = np.array([[run.valid, run.test] for run in runs])
        both = zip(losses.mean(0), losses.max(0), strict=True)
        print(
            f"{name:8} {value:<7g}", *(f"{mean:8.3f} {top:8.3f}" for mean, top in both), end="  "
        )
        rates = [run.values[-1] for run in runs]
        spreads = [list(run.tuned.path[-1].spread.values()) for run in runs]
        for rows in (rates, spreads):
            print(" ", *(f"{mean:.2f}" for mean in np.mean(rows, axis=0)), end="")
        print(flush=True)
    return plot(found)


def plot(found: Sequence[Runs]) -> str:
    """Losses over each setting, a panel for each."""

    def draw(grid: np.ndarray) -> None:
        for axes, (name, values) in zip(grid[0], SWEEPS.items(), strict=True):
            for loss, tint in (("valid", "#1f6fd6"), ("test", "#d81b60")):
                rows = [[getattr(one[name, value], loss) for value in values] for one in found]
                at = np.arange(len(values))
                axes.plot(at, np.transpose(rows), ".", color=tint, markersize=3)
                axes.plot(at, np.mean(rows, axis=0), "o-", color=tint, label=loss)
            axes.set_xticks(at, [f"{value:g}" for value in values])
            axes.set(xlabel=name)
        grid[0, 0].set_ylabel("loss")
        grid[0, 0].legend()

    return figures.svg(draw, (3.4 * len(SWEEPS), 3.6), columns=len(SWEEPS))
