"""Test functions of the COCO platform: bbob (continuous), bbob-mixint (four fifths integer).

Source: coco-experiment (BSD-3). Each instance moves and rotates the function, so no optimum is in
the centre.
"""

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from benchmarks import MissingError
from benchmarks.problem import Params
from benchmarks.problem import Problem
from benchmarks.problem import Reference


FUNCTIONS, DIMENSIONS, INSTANCES = range(1, 25), (5, 10), range(1, 6)
RANDOM_POINTS = 10_000


def load(suite: str, function: int, dimension: int, instance: int) -> tuple[Any, Any]:
    """The suite and its problem; the first must outlive the second."""
    try:
        import cocoex
    except ImportError as error:
        raise MissingError(
            "the suites 'functions' and 'mixint' need `pip install coco-experiment`"
        ) from error
    owner = cocoex.Suite(suite, f"instances: {instance}", f"dimensions: {dimension}")
    return owner, owner.get_problem_by_function_dimension_instance(function, dimension, instance)


def suggest(trial: optuna.Trial, low: np.ndarray, high: np.ndarray, integers: int) -> Params:
    """The first `integers` variables are whole numbers; `low` and `high` have shape (d,)."""
    return {
        f"x{i}": trial.suggest_int(f"x{i}", int(low[i]), int(high[i]))
        if i < integers
        else trial.suggest_float(f"x{i}", low[i], high[i])
        for i in range(len(low))
    }


def minimizer(function: Any) -> np.ndarray:
    """The optimal point, shape (d,); COCO tells it only by a file in the working directory."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            function._best_parameter("print")
            return np.loadtxt("._bbob_problem_best_parameter.txt")
        finally:
            os.chdir(before)


def reference(function: Any) -> Reference:
    """Exact optimum, and the median over uniform points, the same for every run."""
    rng = np.random.default_rng(0)
    low, high = function.lower_bounds, function.upper_bounds
    integers = function.number_of_integer_variables
    points = rng.uniform(low, high, (RANDOM_POINTS, len(low)))
    points[:, :integers] = rng.integers(
        low[:integers], high[:integers], (RANDOM_POINTS, integers), endpoint=True
    )
    median = np.median([function(point) for point in points])
    return Reference(float(function(minimizer(function))), float(median))


def problem(suite: str, number: int, dimension: int, instance: int, name: str) -> Problem:
    """One instance of one function."""
    owner, function = load(suite, number, dimension, instance)
    low, high = function.lower_bounds, function.upper_bounds
    integers = function.number_of_integer_variables

    # NOTE: COCO frees a problem with its suite, so the function holds on to its owner.
    def evaluate(params: Params, rng: np.random.Generator, owner: Any = owner) -> float:
        return float(function(np.array([params[f"x{i}"] for i in range(dimension)], dtype=float)))

    return Problem(
        name=name,
        about=f"{suite} function **f{number}**, instance {instance}, {dimension} variables, "
        f"{integers} of them integer. From coco-experiment.",
        direction="minimize",
        suggest=partial(suggest, low=low, high=high, integers=integers),
        evaluate=evaluate,
        reference=partial(reference, function),
    )


def family(suite: str, prefix: str) -> dict[str, partial[Problem]]:
    """Problem name -> problem, for every function, dimension and instance of one suite."""
    names = {
        f"{prefix}f{number:02d}-{dimension}d-i{instance}": (number, dimension, instance)
        for instance in INSTANCES
        for dimension in DIMENSIONS
        for number in FUNCTIONS
    }
    return {name: partial(problem, suite, *which, name=name) for name, which in names.items()}


BBOB = family("bbob", "")
MIXINT = family("bbob-mixint", "mixint-")
