"""`optima`: what is perfect and what is random, for every problem.

`optima.json` holds, by problem name, the optimum and the median of random configurations. Tables:
both exact; of a hypervolume, 0 stands for the median. Functions: exact optimum, median of 10,000
uniform points. Trainings: best value known, which this command lowers to the best in the given
storages, and the median of 200 random configurations.
"""

import argparse
import json
from collections.abc import Collection
from collections.abc import Iterable
from dataclasses import asdict
from dataclasses import replace
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


def trained(name: str) -> str:
    """Of which training the problem is a variant, with the same configurations; "" if of none."""
    training = name.removesuffix("-linear").removesuffix("-again")
    return training if training in trainings.TRAININGS else ""


def best_found(url: str, chosen: Collection[str]) -> list[tuple[str, float]]:
    """Problem and best (lowest) value of every study of a training in the suites `chosen`."""
    studies = runs.source(url).runs(
        lambda label: label.suite in chosen and bool(trained(label.problem))
    )
    return [(run.label.problem, float(np.nanmin(run.values))) for run in studies]


def lower(references: dict[str, Reference], found: Iterable[tuple[str, float]]) -> None:
    """Give all variants of a training, of which nobody knows what is perfect, the lowest value."""
    lowest: dict[str, float] = {}
    for name, value in [*((n, one.optimum) for n, one in references.items()), *found]:
        lowest[trained(name)] = min(value, lowest.get(trained(name), np.inf))
    for name, reference in references.items():
        if trained(name):
            references[name] = replace(reference, optimum=lowest[trained(name)])


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
    found = [(name, reference.optimum) for name, reference in known.items()]
    for name, suite in tqdm(wanted.items(), unit="problem"):
        known[name] = suites.problem(suite, name).reference()
    for url in args.storage:
        found += best_found(url, chosen)
    lower(known, found)
    save(known)
    print(f"{len(wanted)} of {len(known)} references written to {FILE.name}")
    return 0
