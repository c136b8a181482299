"""Schedules from five starts: whether self-tuning finds its way to one curve from anywhere.

The paper shows it for the rate of the output dropout alone; so the first half is the last hidden
layer's rate, all others 0. The second half is all three rates of the network at once.
"""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from benchmarks import figures
from benchmarks.selftuning import dropout
from benchmarks.selftuning.dropout import EPOCHS
from benchmarks.selftuning.dropout import LAST
from benchmarks.selftuning.dropout import NAMES
from benchmarks.selftuning.dropout import RATES
from benchmarks.selftuning.problem import HIGHEST
from benchmarks.selftuning.problem import Problem
from benchmarks.selftuning.problem import Run


STARTS = (0.05, 0.3, 0.5, 0.7, 0.85)
READ = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # shares of the epochs
COLOURS = dict(zip(STARTS, ("#d81b60", "#e08e0b", "#1e8e5a", "#1f6fd6", "#7b4fd0"), strict=True))

Runs = Mapping[float, Run]  # by start


def from_starts(problem: Problem, epochs: int) -> Runs:
    """A run from each start, of the same first weights, data and draws."""
    return {start: problem.tune(problem.alike(start), epochs) for start in STARTS}


def apart(problem: Problem, runs: Runs) -> np.ndarray:
    """Highest minus lowest level over the starts, ``(epochs, hyperparameters)``."""
    levels = np.stack([problem.levels(run.values) for run in runs.values()])
    return np.asarray(np.ptp(levels, axis=0))


def schedules(seeds: int) -> str:
    """Schedules from five starts."""
    print(f"Schedules from the starts {', '.join(map(str, STARTS))};")
    print(f"{dropout.mnist(0).title}, {EPOCHS} epochs")
    found = {}
    for tuned in ((LAST,), RATES):
        print(f"\ntuned: {', '.join(NAMES[name] for name in tuned)}")
        for seed in range(seeds):
            problem = dropout.mnist(seed, tuned)
            runs = from_starts(problem, EPOCHS)
            tell(problem, runs)
            found.setdefault(tuned, runs)
    return plot(found)


def tell(problem: Problem, runs: Runs) -> None:
    """How far the starts are apart on the way, and what each came to."""
    distances = apart(problem, runs)
    at = [round(share * (len(distances) - 1)) for share in READ]
    print(f"seed {problem.seed}, highest - lowest rate after epoch", *(f"{i + 1:5}" for i in at))
    for name, column in zip(problem.names, distances.T, strict=True):
        print(f"{name:>44}", *(f"{column[i]:5.2f}" for i in at))
    print("  start    valid     test   rates of the last epoch")
    for start, run in runs.items():
        last = " ".join(f"{rate:.2f}" for rate in run.values[-1])
        print(f"{start:7} {run.valid:8.3f} {run.test:8.3f}   {last}", flush=True)


def plot(found: Mapping[Sequence[str], Runs]) -> str:
    """A panel per rate."""
    panels = [(tuned, i, runs) for tuned, runs in found.items() for i in range(len(tuned))]

    def draw(grid: np.ndarray) -> None:
        for axes, (tuned, i, runs) in zip(grid[0], panels, strict=True):
            curves(axes, runs, i)
            axes.set_title(NAMES[tuned[i]] + (", alone" if len(tuned) == 1 else ""))
        grid[0, 0].set_ylabel("dropout rate")
        grid[0, 0].legend()

    return figures.svg(draw, (3.4 * len(panels), 3.6), columns=len(panels))


def curves(axes: Axes, runs: Runs, column: int = 0) -> None:
    """One dropout rate over epochs."""
    for start, run in runs.items():
        axes.plot(run.epochs, run.values[:, column], color=COLOURS[start], label=f"from {start}")
    axes.set(xlabel="epoch", ylim=(0, HIGHEST))
