"""Runs -> a comparison: the regret of every sampler on the same problems and seeds, as arrays."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks import UsageError
from benchmarks import optima
from benchmarks import statistics
from benchmarks.problem import Reference
from benchmarks.runs import Run
from benchmarks.samplers import PEERS


def regret(values: np.ndarray, reference: Reference) -> np.ndarray:  # (T,)
    """Normalised regret of incumbents: 0 is perfect, 1 a median random value, or none at all."""
    distance = (values - reference.optimum) / (reference.median - reference.optimum)
    return np.where(np.isnan(values), 1.0, distance)


@dataclass(frozen=True)
class Comparison:
    """The (problem, seed) pairs that every sampler has finished: S samplers, P pairs, T trials.

    Instances of a test function are one problem here, as its seeds are: what one teaches of a
    sampler, the others only confirm.
    """

    suite: str
    samplers: list[str]  # S
    problems: list[str]  # Q, without their instances
    problem_of: np.ndarray  # (P,), index into `problems`
    regret: np.ndarray  # (S, P, T)
    seconds: np.ndarray  # (S, P, T)
    failed: np.ndarray  # (S, P, T)
    pairs_started: int  # by any sampler
    versions: dict[str, list[str]]  # of Python and of packages that the studies ran with

    @property
    def trials(self) -> int:
        """T."""
        return self.regret.shape[-1]

    @cached_property
    def logs(self) -> np.ndarray:  # (S, Q, T)
        """Log of the floored regret, mean over the seeds of each problem."""
        return statistics.by_problem(statistics.log_floored(self.regret), self.problem_of)


def compare(suite: str, runs: list[Run]) -> Comparison:
    """Line up the runs, as long as the sampler that was run shortest."""
    if not runs:
        raise UsageError(f"no studies of {suite} are of these problems and samplers")
    found = [run.label.sampler for run in runs]
    names = sorted(set(found), key=[*PEERS, *found].index)
    table = {(run.label.sampler, run.label.problem, run.label.seed): run for run in runs}
    length = min(max(len(r.values) for r in runs if r.label.sampler == name) for name in names)
    started = sorted({(run.label.problem, run.label.seed) for run in runs})
    pairs = [
        pair
        for pair in started
        if all((run := table.get((name, *pair))) and len(run.values) >= length for name in names)
    ]
    if not pairs:
        raise UsageError(
            f"no (problem, seed) of {suite} is complete for all of {', '.join(names)}; "
            "name fewer with --samplers"
        )
    of_pairs = [re.sub(r"-i\d+$", "", problem) for problem, _ in pairs]
    problems = list(dict.fromkeys(of_pairs))
    references = optima.load()
    if unknown := [problem for problem, _ in pairs if problem not in references]:
        raise UsageError(f"no reference for {unknown[0]!r}; run `python -m benchmarks optima`")

    def stack(of: Callable[[Run], np.ndarray]) -> np.ndarray:  # (S, P, T)
        return np.array([[of(table[(name, *pair)])[:length] for pair in pairs] for name in names])

    return Comparison(
        suite=suite,
        samplers=names,
        problems=problems,
        problem_of=np.array([problems.index(problem) for problem in of_pairs]),
        regret=stack(lambda run: regret(run.values, references[run.label.problem])),
        seconds=stack(lambda run: run.seconds),
        failed=stack(lambda run: run.failed),
        pairs_started=len(started),
        versions=versions(runs),
    )


def versions(runs: list[Run]) -> dict[str, list[str]]:
    """All that were there, by package."""
    packages = dict.fromkeys(package for run in runs for package in run.versions)
    return {
        package: sorted({run.versions[package] for run in runs if package in run.versions})
        for package in packages
    }
