"""`python -m benchmarks.suggestion_time`: what one suggestion costs, against the finished trials.

Every sampler gets the same finished random trials and then runs cycles of ask, suggest and tell,
so that growing caches and refits that come now and then are paid for. The first cycle, a warm-up,
is not counted; the first suggestion of a fresh process is timed apart. One thread each.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from benchmarks import THREADS
from benchmarks import UsageError
from benchmarks import samplers


PATIENCE = 20.0  # seconds after which a cell of the table needs no more than three cycles
FIRST_TRIALS, FIRST_DIMENSION = 30, 6


def objective(trial: optuna.Trial, dimension: int) -> float:
    """Shaped like a validation loss, over floats, log floats, ints and choices.

    A valley around `centre` on the unit cube, in logs, with a floor; early parameters matter most.
    """
    unit = np.empty(dimension)
    for i in range(dimension):
        name, kind = f"x{i}", i % 6
        if kind in (0, 1):
            unit[i] = trial.suggest_float(name, 0.0, 1.0)
        elif kind == 2:
            unit[i] = np.log10(trial.suggest_float(name, 1e-5, 1e-1, log=True)) / 4 + 1.25
        elif kind == 3:
            unit[i] = (trial.suggest_int(name, 1, 32) - 1) / 31
        elif kind == 4:
            unit[i] = np.log2(trial.suggest_int(name, 16, 512, log=True)) / 5 - 0.8
        else:
            unit[i] = "abcd".index(trial.suggest_categorical(name, list("abcd"))) / 3
    centre = np.linspace(0.2, 0.8, dimension)
    weights = 0.7 ** np.arange(dimension)
    away = unit - centre
    return float(np.log(1e-2 + weights @ away**2 + weights[1:] @ (away[1:] - away[:-1]) ** 2))


def finished_trials(count: int, dimension: int) -> list[FrozenTrial]:
    """The same random trials for every sampler."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: objective(trial, dimension), n_trials=count)
    return study.get_trials(deepcopy=False)


def cycle(study: optuna.Study, dimension: int) -> float:
    """Seconds for ask, suggest and tell; the objective itself takes microseconds."""
    start = time.perf_counter()
    trial = study.ask()
    study.tell(trial, objective(trial, dimension))
    return time.perf_counter() - start


def warm(
    name: str, trials: Sequence[FrozenTrial], dimension: int, repeats: int
) -> tuple[float, float]:
    """Median and mean seconds of up to `repeats` cycles that follow `trials`."""
    study = optuna.create_study(sampler=samplers.factory(name)(0))
    study.add_trials(trials)
    cycle(study, dimension)
    spent: list[float] = []
    while len(spent) < repeats and (len(spent) < 3 or sum(spent) < PATIENCE):
        spent.append(cycle(study, dimension))
    return float(np.median(spent)), float(np.mean(spent))


def first(name: str) -> None:
    """Print the seconds of this process's first suggestion and whether it loaded torch."""
    samplers.quiet()
    study = optuna.create_study(sampler=samplers.factory(name)(0))
    study.add_trials(finished_trials(FIRST_TRIALS, FIRST_DIMENSION))
    spent = cycle(study, FIRST_DIMENSION)
    print(json.dumps({"seconds": spent, "torch": "torch" in sys.modules}))


def print_first(names: Sequence[str]) -> None:
    """One row per sampler, each in a process of its own."""
    print(f"\nfirst suggestion of a fresh process, n = {FIRST_TRIALS}, d = {FIRST_DIMENSION}")
    print(f"{'sampler':16}{'suggestion s':>14}{'process s':>12}{'torch':>8}")
    for name in names:
        code = f"from benchmarks.suggestion_time import first; first({name!r})"
        start = time.perf_counter()
        output = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout
        total = time.perf_counter() - start
        row = json.loads(output)
        loaded = "yes" if row["torch"] else "no"
        print(f"{name:16}{row['seconds']:14.3f}{total:12.2f}{loaded:>8}", flush=True)


def print_warm(
    names: Sequence[str], sizes: Sequence[int], dimensions: Sequence[int], repeats: int
) -> None:
    """One row per dimension and number of trials; ratios against the first sampler."""
    ours, *others = names
    print("\nwarm suggestion, milliseconds, median (mean)")
    heads = [f"{name:>20}" for name in names] + [f"{f'{name}/{ours}':>18}" for name in others]
    print(f"{'d':>3}{'n':>6}" + "".join(heads))
    for dimension in dimensions:
        trials = finished_trials(max(sizes), dimension)
        for size in sizes:
            times = {name: warm(name, trials[:size], dimension, repeats) for name in names}
            cells = [f"{f'{a * 1e3:.1f} ({b * 1e3:.1f})':>20}" for a, b in times.values()]
            ratios = [f"{times[name][0] / times[ours][0]:18.1f}" for name in others]
            print(f"{dimension:3}{size:6}" + "".join(cells + ratios), flush=True)


def numbers(text: str) -> list[int]:
    """Whole numbers from 1, comma-separated."""
    values = [int(part) for part in text.split(",")]
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text} holds a number below 1")
    return values


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suggestion_time")
    parser.add_argument("--sizes", type=numbers, default=[30, 100, 200, 500, 1000])
    parser.add_argument("--dimensions", type=numbers, default=[6, 20])
    parser.add_argument("--repeats", type=int, default=20, help="cycles of each cell, at most")
    parser.add_argument("--samplers", default="hypernet,gp,tpe", help="the first one is ours")
    args = parser.parse_args()
    samplers.quiet()
    try:
        usable = samplers.usable(args.samplers)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{THREADS} thread for every numerical library (OMP_NUM_THREADS and its like)")
    print_warm(usable, args.sizes, args.dimensions, args.repeats)
    print_first(usable)
    return 0


if __name__ == "__main__":
    sys.exit(main())
