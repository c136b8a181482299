"""Suites by name: each maps problem names to functions that build the problem when needed."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import lru_cache

from benchmarks import UsageError
from benchmarks import functions
from benchmarks import pick
from benchmarks import tables
from benchmarks import trainings
from benchmarks.problem import Problem


Suite = dict[str, Callable[[], Problem]]
SUITES: dict[str, Suite] = {
    "tables": {**tables.MEAN_VALUED},
    "tables-noisy": {**tables.NOISY},
    "trainings": {**trainings.SUITE},
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
    names = list(SUITES[pick("suite", suite, list(SUITES))])
    chosen: dict[str, None] = {}
    for pattern in patterns.split(","):
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            raise UsageError(f"unknown problem {pattern!r}; {suite} has: {', '.join(names)}")
        chosen.update(dict.fromkeys(matching))
    return list(chosen)
