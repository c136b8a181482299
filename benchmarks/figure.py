"""`figure`: one figure of a paper on hypernetworks, built again: numbers printed, plot written."""

import argparse
import importlib
import importlib.util
from pathlib import Path

from benchmarks import MissingError
from benchmarks import pick
from benchmarks import positive


OUT = Path("out") / "figures"
FIGURES = {  # name -> module:function, imported when asked for, called with the number of seeds
    "hypertraining-2": "benchmarks.hypertraining.one_penalty:everywhere",
    "hypertraining-3": "benchmarks.hypertraining.surfaces:toy",
    "hypertraining-4": "benchmarks.hypertraining.one_penalty:around",
    "hypertraining-5": "benchmarks.hypertraining.many_decays:decays",
    "hypertraining-6": "benchmarks.hypertraining.ten_penalties:prediction",
    "hypertraining-7": "benchmarks.hypertraining.budgets:budgets",
    "selftuning-theorems": "benchmarks.selftuning.theorems:theorems",
    "selftuning-schedules": "benchmarks.selftuning.schedules:schedules",
    "selftuning-delta": "benchmarks.selftuning.learning:table",
    "selftuning-sweeps": "benchmarks.selftuning.sweeps:table",
    "selftuning-table1": "benchmarks.selftuning.controls:table",
    "selftuning-table2": "benchmarks.selftuning.budgets:table",
    "selftuning-cifar": "benchmarks.selftuning.experiments:images",
    "selftuning-text": "benchmarks.selftuning.experiments:words",
}
FULL = {  # in the sizes of the paper, for a GPU
    "selftuning-cifar": "benchmarks.selftuning.experiments:all_images",
    "selftuning-text": "benchmarks.selftuning.experiments:all_words",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help=", ".join(FIGURES))
    parser.add_argument(
        "--seeds", type=positive, default=3, help="how many; each has its own data"
    )
    parser.add_argument("--full", action="store_true", help=f"large, for a GPU: {', '.join(FULL)}")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder of the plot ({OUT})")


def main(args: argparse.Namespace) -> int:
    figures = FULL if args.full else FIGURES
    module, function = figures[pick("figure", args.name, list(figures))].split(":")
    if importlib.util.find_spec("torch") is None:
        raise MissingError("torch is missing, which the figures need; pip install '.[torch]'")
    plot = getattr(importlib.import_module(module), function)(args.seeds)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{args.name}.svg"
    path.write_text(plot, encoding="utf-8")
    print(f"wrote {path}")
    return 0
