"""How the gates learn: by one loss, as in Self-Tuning Networks, or by two, as in Delta-STN.

Of Bae & Grosse (2020), "Delta-STN", the comparison on MNIST, in small: the same network, images,
first weights and starts for both, and the same epochs, of which one of Delta-STN takes longer.
"""

from collections.abc import Mapping

import numpy as np

from benchmarks import figures
from benchmarks.selftuning import dropout
from benchmarks.selftuning.dropout import EPOCHS
from benchmarks.selftuning.dropout import NAMES
from benchmarks.selftuning.dropout import RATES
from benchmarks.selftuning.problem import Problem
from benchmarks.selftuning.problem import Run


STARTS = (0.05, 0.5)
COLOURS = {"structured": "#d81b60", "structured-delta": "#1f6fd6"}
STYLES = dict(zip(STARTS, ("-", "--"), strict=True))

Runs = Mapping[tuple[str, float], Run]  # by response and start


def compare(problem: Problem, epochs: int) -> Runs:
    """Both from both starts."""
    pairs = [(response, start) for response in COLOURS for start in STARTS]
    return {
        (response, start): problem.tune(problem.alike(start), epochs, response)
        for response, start in pairs
    }


def table(seeds: int) -> str:
    """Both learnt ways, and what they came to."""
    print(f"{dropout.mnist(0).title}, {EPOCHS} epochs")
    print("\nseed   response           start  seconds    valid     test   rates of the last epoch")
    found = []
    for seed in range(seeds):
        found.append(compare(dropout.mnist(seed), EPOCHS))
        for (response, start), run in found[-1].items():
            last = " ".join(f"{rate:.2f}" for rate in run.values[-1])
            print(f"{seed:4}   {response:16} {start:7} {run.seconds:8.1f}", end="")
            print(f" {run.valid:8.3f} {run.test:8.3f}   {last}", flush=True)
    print()
    for response, start in found[0]:
        losses = [(runs[response, start].valid, runs[response, start].test) for runs in found]
        valid, test = np.mean(losses, axis=0)
        print(f"mean   {response:16} {start:7} {'':8} {valid:8.3f} {test:8.3f}")
    return plot(found[0])


def plot(runs: Runs) -> str:
    """The first seed's rates over epochs, a panel for each."""

    def draw(grid: np.ndarray) -> None:
        for i, (axes, name) in enumerate(zip(grid[0], RATES, strict=True)):
            for (response, start), run in runs.items():
                look = {"color": COLOURS[response], "linestyle": STYLES[start]}
                axes.plot(run.epochs, run.values[:, i], label=f"{response}, from {start}", **look)
            axes.set(xlabel="epoch", ylim=(0, 0.9), title=NAMES[name])
        grid[0, 0].set_ylabel("dropout rate")
        grid[0, 0].legend()

    return figures.svg(draw, (3.4 * len(RATES), 3.6), columns=len(RATES))
