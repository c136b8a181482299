"""Both tables and the schedules of the paper's two experiments, in one command each.

`selftuning-cifar` and `selftuning-text`: for every seed one self-tuned run, the controls of Table
1, and the peers of Table 2; then, on the first seed's data, the rate of the last dropout alone
from five starts, which is the paper's figure. Drawn are the first seed's losses, those starts,
and the schedules of all hyperparameters, means over the seeds, by group. All of these are kept in
`.cache/`, so that a figure of hours can be interrupted; they know nothing of changes to the code.
"""

from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
from matplotlib.axes import Axes

from benchmarks import figures
from benchmarks.kept import Folder
from benchmarks.selftuning import budgets
from benchmarks.selftuning import cifar
from benchmarks.selftuning import controls
from benchmarks.selftuning import schedules
from benchmarks.selftuning import text
from benchmarks.selftuning.problem import HIGHEST
from benchmarks.selftuning.problem import Problem
from benchmarks.selftuning.problem import Run


LEVELS = budgets.GRID  # of Table 1's constants: few, since a training takes minutes
TIMES = (1,)  # of the self-tuned run's seconds in Table 2
KEPT = Path(__file__).parents[2] / ".cache" / "benchmarks" / "selftuning"

Make = Callable[[int, Sequence[str]], Problem]  # of a seed, and of what is tuned


def images(seeds: int) -> str:
    """The convolutional network on CIFAR-10."""
    return experiment(cifar.subset, list(cifar.SPACE), cifar.LAST, seeds, KEPT / "cifar")


def words(seeds: int) -> str:
    """The LSTM on the Brown corpus."""
    return experiment(text.subset, list(text.SPACE), text.LAST, seeds, KEPT / "text")


def all_images(seeds: int) -> str:
    """The first in the sizes of the paper."""
    return experiment(cifar.full, list(cifar.SPACE), cifar.LAST, seeds, KEPT / "cifar-full")


def all_words(seeds: int) -> str:
    """The second."""
    return experiment(text.full, list(text.SPACE), text.LAST, seeds, KEPT / "text-full")


def experiment(make: Make, tuned: Sequence[str], last: str, seeds: int, path: Path) -> str:
    """All of it; ``last`` names the one hyperparameter that is tuned alone, too."""
    first = make(0, tuned)
    print(f"{first.title}, {first.epochs} epochs")
    print(f"start: {', '.join(f'{name} {value:g}' for name, value in named(first).items())}")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    both = [tables(make(seed, tuned), Folder(path / f"seed-{seed}")) for seed in range(seeds)]
    ones, twos = zip(*both, strict=True)
    controls.means(ones)
    budgets.means(twos, TIMES)
    alone = make(0, [last])
    print(f"\n{', '.join(alone.names)} alone, from five starts")
    starts = Folder(path).kept("starts", lambda: schedules.from_starts(alone, alone.epochs))
    schedules.tell(alone, starts)
    return plot(first, ones, twos[0], starts)


def tables(problem: Problem, folder: Folder) -> tuple[controls.Runs, budgets.Paths]:
    """Tables 1 and 2 of one seed."""
    run = folder.kept("self-tuned", lambda: problem.tune(problem.start, problem.epochs))
    one = controls.controls(problem, run, LEVELS, folder.kept)
    controls.heading()
    controls.tell(problem.seed, one)
    two = budgets.compare(problem, run, TIMES, folder.kept)
    budgets.heading()
    budgets.tell(problem.seed, two, TIMES)
    return one, two


def named(problem: Problem) -> dict[str, float]:
    """Where a run starts, by what hyperparameters are called."""
    return dict(zip(problem.names, problem.start.values(), strict=True))


def plot(
    problem: Problem,
    ones: Sequence[controls.Runs],
    paths: budgets.Paths,
    starts: schedules.Runs,
) -> str:
    """Three panels of losses and starts, and under them a panel of schedules per group."""

    def draw(grid: np.ndarray) -> None:
        controls.curves(grid[0, 0], ones[0])
        budgets.curves(grid[0, 1], paths)
        schedules.curves(grid[0, 2], starts)
        grid[0, 2].set_ylabel("rate of the last dropout, alone")
        grid[0, 2].legend()
        tuned = [runs["self-tuned"] for runs in ones]
        for axes in grid[1, len(problem.grid) :]:
            axes.set_axis_off()
        for axes, group in zip(grid[1], problem.grid, strict=False):
            levels(axes, problem, group, tuned)

    return figures.svg(draw, (12.0, 7.6), rows=2, columns=3)


def levels(axes: Axes, problem: Problem, group: str, runs: Sequence[Run]) -> None:
    """Levels of a group's hyperparameters over epochs, means over runs."""
    mean = np.mean([problem.levels(run.values) for run in runs], axis=0)
    names = dict(zip(problem.space, problem.names, strict=True))
    for column, name in enumerate(problem.space):
        if name in problem.grid[group]:
            axes.plot(runs[0].epochs, mean[:, column], label=names[name])
    axes.set(xlabel="epoch", ylabel="level", title=group, ylim=(0, HIGHEST))
    axes.legend()
