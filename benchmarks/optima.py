"""`optima`: what is perfect and what is random, for every problem.

`optima.json` holds, by problem name, the optimum and the median of random configurations. Tables:
both exact; of a hypervolume, 0 stands for the median. Functions: exact optimum, median of 10,000
uniform points. Trainings: best value known, which this command lowers to the best in the given
storages, and the median of 200 random configurations.
"""

import argparse
import json
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks import runs
from benchmarks import samplers
from benchmarks import suites
from benchmarks import trainings
from benchmarks.problem import Reference


FILE = Path(__file__).with_name("optima.json")


def load() -> dict[str, Reference]:
    """Problem name -> its reference."""
    if not FILE.exists():
        return {}
    return {name: Reference(**entry) for name, entry in json.loads(FILE.read_text()).items()}


def save(references: dict[str, Reference]) -> None:
    """Write one line per problem, sorted, so that a change can be read."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(asdict(references[name]))}"
        for name in sorted(references)
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def best_found(url: str, suite: str) -> dict[str, float]:
    """Problem name -> best (lowest) value of all studies of `suite`."""
    best: dict[str, float] = {}
    for run in runs.source(url).runs(lambda label: label.suite == suite):
        name = run.label.problem
        best[name] = float(np.nanmin([*run.values, best.get(name, np.inf)]))
    return best


def trained(name: str) -> str:
    """Of which training the problem is a variant, with the same configurations; "" if of none."""
    training = name.removesuffix("-linear").removesuffix("-again")
    return training if training in trainings.TRAININGS else ""


def share(references: dict[str, Reference]) -> None:
    """Give all variants of a training the best value known of any."""
    lowest: dict[str, float] = {}
    for name, reference in references.items():
        lowest[trained(name)] = min(reference.optimum, lowest.get(trained(name), np.inf))
    for name, reference in references.items():
        if trained(name):
            references[name] = Reference(lowest[trained(name)], reference.median)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m benchmarks optima`."""
    parser.add_argument("--suite", help="only this suite (default: all)")
    parser.add_argument("--storage", action="append", default=[], help="lower best-known values")


def main(args: argparse.Namespace) -> int:
    """Recompute the references of the chosen suites."""
    samplers.quiet()
    known = load()
    chosen = [args.suite] if args.suite else list(suites.SUITES)
    wanted = {name: suite for suite in chosen for name in suites.select(suite, "*")}
    for name, suite in tqdm(wanted.items(), unit="problem"):
        reference = suites.problem(suite, name).reference()
        if name in known and trained(name):
            reference = Reference(min(reference.optimum, known[name].optimum), reference.median)
        known[name] = reference
    # Of these nobody knows what is perfect.
    unknown = {"trainings", "held-out", "libraries", "trainings-linear", "trainings-again"}
    for url, suite in product(args.storage, unknown & set(chosen)):
        for name, value in best_found(url, suite).items():
            known[name] = Reference(min(value, known[name].optimum), known[name].median)
    share(known)
    save(known)
    print(f"{len(wanted)} of {len(known)} references written to {FILE.name}")
    return 0
