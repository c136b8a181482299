"""Suites by name: each maps problem names to functions that build the problem when needed."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import lru_cache

from benchmarks import functions
from benchmarks import pick
from benchmarks import tables
from benchmarks import trainings
from benchmarks.problem import Problem


Suite = dict[str, Callable[[], Problem]]
SUITES: dict[str, Suite] = {
    "tables": {**tables.MEAN_VALUED},
    "tables-noisy": {**tables.NOISY},
    "tables-failing": {**tables.FAILING},
    "tables-constrained": {**tables.CONSTRAINED},
    "tables-and-memory": {**tables.AND_MEMORY},
    "tables-and-another": {**tables.AND_ANOTHER},
    "tables-parallel": {**tables.PARALLEL},
    "tables-choices": {**tables.CHOICES},
    "tables-conditional": {**tables.CONDITIONAL},
    "tables-again": {**tables.AGAIN},
    "trainings": {**trainings.SUITE},
    "held-out": {**trainings.HELD_OUT_SUITE},
    "libraries": {**trainings.LIBRARIES_SUITE},
    "trainings-linear": {**trainings.LINEAR},
    "trainings-again": {**trainings.AGAIN},
    "functions": {**functions.BBOB},
    "mixint": {**functions.MIXINT},
    "smoke": {
        "nasbench201-cifar10": tables.MEAN_VALUED["nasbench201-cifar10"],
        "elastic-net-diabetes": trainings.SUITE["elastic-net-diabetes"],
        "mixint-f03-5d-i1": functions.MIXINT["mixint-f03-5d-i1"],
    },
}


@lru_cache(maxsize=32)
def problem(suite: str, name: str) -> Problem:
    """Build a problem once per process."""
    return SUITES[suite][name]()


def select(suite: str, patterns: str) -> list[str]:
    """Names of the problems of `suite` that match the comma-separated names or shell patterns."""
    return matching("problem", patterns, list(SUITES[pick("suite", suite, list(SUITES))]))


def matching(kind: str, patterns: str, existing: list[str]) -> list[str]:
    """Those of `existing` that match comma-separated names or shell patterns; each must."""
    chosen: dict[str, None] = {}
    for pattern in patterns.replace(" ", "").split(","):
        found = [name for name in existing if fnmatchcase(name, pattern)]
        chosen.update(dict.fromkeys(found or [pick(kind, pattern, existing)]))
    return list(chosen)
