"""The storage: one study per (problem, sampler, seed), only finished trials, appended in order.

A study runs in memory and its finished trials are appended here, each in one transaction. So
whatever is killed, the storage holds a gap-free beginning of the study and no running trial.
"""

from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from benchmarks import UsageError


@dataclass(frozen=True)
class Task:
    """One study to run, up to `trials` finished trials."""

    storage: str
    suite: str
    problem: str
    sampler: str
    seed: int
    trials: int

    @property
    def study_name(self) -> str:
        """Sampler first: it is what the dashboard's legend has to tell apart."""
        return f"{self.sampler} | {self.suite}/{self.problem} | seed {self.seed}"


@cache
def connect(url: str, must_exist: bool = False) -> RDBStorage:
    """Open a relational storage; SQLite waits for other writers instead of giving up."""
    sqlite, _, path = url.partition("sqlite:///")
    if path and not sqlite and must_exist and not Path(path).exists():
        there = ", ".join(f"sqlite:///{name}" for name in sorted(Path().glob("*.db"))) or "none"
        raise UsageError(f"no storage {url!r}; in this folder: {there}")
    options = {"connect_args": {"timeout": 120}} if path else {}
    try:
        return RDBStorage(url, engine_kwargs=options)
    except Exception as error:  # SQLAlchemy, drivers and Optuna raise kinds of their own
        reason = str(error).splitlines()[0]
        forms = "sqlite:///FILE, mysql://…, postgresql://…"
        raise UsageError(f"cannot open storage {url!r} ({reason}); forms: {forms}") from error


def lengths(storage: RDBStorage) -> dict[str, int]:
    """Study name -> how many trials it was run to; 0 while it is not complete."""
    return {
        study.study_name: study.user_attrs.get("trials", 0) for study in storage.get_all_studies()
    }


class Journal:
    """Appends a study's finished trials to its stored twin; the only writer of that study."""

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self.trials: list[FrozenTrial] = study.get_trials(deepcopy=False)

    def append(self, trials: list[FrozenTrial]) -> None:
        """Append what is new of `trials`, the whole study in memory, before any still running."""
        finished = list(takewhile(lambda trial: trial.state.is_finished(), trials))
        if len(self.study.get_trials(deepcopy=False)) != len(self.trials):
            raise RuntimeError(f"another process writes to {self.study.study_name!r}; run again")
        self.study.add_trials(finished[len(self.trials) :])
        self.trials = finished
