"""Studies -> runs: what was reached after every trial, and the seconds of every suggestion.

They are read from a storage that `run` has written, or from an archive: one small file that
`report --archive` has written, without what was tried.
"""

import json
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from typing import Protocol
from zipfile import BadZipFile

import numpy as np
import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from tqdm import tqdm

from benchmarks import UsageError
from benchmarks import store
from benchmarks.problem import Direction


SUFFIX = ".npz"  # of an archive
FIELDS = "values", "seconds", "failed"


def incumbents(trials: Sequence[FrozenTrial], direction: Direction) -> np.ndarray:  # (T,)
    """What the incumbent is worth after each trial; NaN until a first evaluation succeeds.

    The incumbent is the trial with the best value seen so far, among those that violate no
    constraint. Where the objective is noisy it is judged by its `score`, the noise-free value, so
    a lucky draw earns nothing. Of two objectives there is no incumbent, but a hypervolume.
    """
    if any(len(t.values or ()) > 1 for t in trials):
        return hypervolumes(trials)
    sign = 1.0 if direction == "minimize" else -1.0
    seen = np.array([sign * t.value if counts(t) else np.inf for t in trials])
    scores = np.array(
        [np.nan if t.value is None else t.user_attrs.get("score", t.value) for t in trials]
    )
    before = np.minimum.accumulate(np.concatenate([[np.inf], seen[:-1]]))
    improves = seen < before
    incumbent = np.maximum.accumulate(np.where(improves, np.arange(len(seen)), 0))
    return np.where(np.logical_or.accumulate(improves), scores[incumbent], np.nan)


def hypervolumes(trials: Sequence[FrozenTrial]) -> np.ndarray:  # (T,)
    """How much of the unit square is dominated after each trial of two objectives."""
    points = np.array([t.values if t.values is not None else (1.0, 1.0) for t in trials])
    return np.array([hypervolume(points[: n + 1]) for n in range(len(points))])


def hypervolume(points: np.ndarray) -> float:
    """How much of the unit square points (n, 2) dominate; the less of each, the better."""
    points = np.clip(points, 0.0, 1.0)
    x, y = points[np.argsort(points[:, 0])].T
    return float(np.diff(x, append=1.0) @ (1.0 - np.minimum.accumulate(y)))


def counts(trial: FrozenTrial) -> bool:
    """Whether it has a value, and violates no constraint. (Before Optuna 5 there are none.)"""
    constraints = getattr(trial, "constraints", {})
    return trial.value is not None and all(held <= 0 for held in constraints.values())


def seconds(trials: Sequence[FrozenTrial]) -> np.ndarray:  # (T,)
    """From `ask` to the last suggested parameter; NaN where the suggestion itself failed.

    In single precision: six digits are more than a clock's, and half an archive's size.
    """
    return np.array([trial.user_attrs.get("seconds", np.nan) for trial in trials], np.float32)


class Label(NamedTuple):
    """What a study is of."""

    suite: str
    problem: str
    sampler: str
    seed: int


@dataclass(frozen=True)
class Run:
    """One study, read."""

    label: Label
    values: np.ndarray  # (T,) of the incumbents
    seconds: np.ndarray  # (T,)
    failed: np.ndarray  # (T,), True where the evaluation or the suggestion crashed
    versions: dict[str, str]  # of Python and of packages, by name


class Source(Protocol):
    """Where runs come from: a :class:`Storage` or an :class:`Archive`."""

    @property
    def labels(self) -> list[Label]:
        """Of all studies that are there."""

    def runs(self, wanted: Callable[[Label], bool]) -> list[Run]:
        """Those studies, read."""


class Storage:
    """Studies of a storage that `run` has written."""

    def __init__(self, storage: RDBStorage) -> None:
        self._storage = storage
        self._names = {
            Label(*(study.user_attrs[field] for field in Label._fields)): study.study_name
            for study in storage.get_all_studies()
            if study.user_attrs.keys() >= set(Label._fields)
        }

    @property
    def labels(self) -> list[Label]:
        """Of all studies that are there."""
        return list(self._names)

    def runs(self, wanted: Callable[[Label], bool]) -> list[Run]:
        """Those studies, read; but for those without a trial."""
        chosen = [label for label in self._names if wanted(label)]
        read = tqdm(chosen, desc="reading", unit="study", leave=False)
        return [run for label in read if len((run := self._run(label)).values)]

    def _run(self, label: Label) -> Run:
        study = optuna.load_study(study_name=self._names[label], storage=self._storage)
        trials = study.get_trials(deepcopy=False)
        direction: Direction = study.directions[0].name.lower()
        failed = np.array([trial.state == TrialState.FAIL for trial in trials], dtype=bool)
        versions = study.user_attrs["versions"]
        return Run(label, incumbents(trials, direction), seconds(trials), failed, versions)


class Archive:
    """Runs that :func:`archive` has written.

    Raises:
        UsageError: If there is no such file, or it is something else.
    """

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path) as stored:
                self.labels = [Label(*fields) for fields in json.loads(str(stored["labels"]))]
                versions = json.loads(str(stored["versions"]))
                ends = np.cumsum(stored["lengths"])[:-1]
                columns = [np.split(stored[field], ends) for field in FIELDS]
        except (OSError, KeyError, ValueError, BadZipFile) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"no archive {str(path)!r} ({reason}); `report --archive` writes one"
            ) from error
        self._runs = [Run(*fields) for fields in zip(self.labels, *columns, versions, strict=True)]

    def runs(self, wanted: Callable[[Label], bool]) -> list[Run]:
        """Those studies, read."""
        return [run for run in self._runs if wanted(run.label)]


def archive(runs: list[Run], path: Path) -> None:
    """Write the runs."""
    labels = json.dumps([run.label for run in runs])
    stacked = {field: np.concatenate([getattr(run, field) for run in runs]) for field in FIELDS}
    lengths = [len(run.values) for run in runs]
    versions = json.dumps([run.versions for run in runs])
    np.savez_compressed(path, labels=labels, versions=versions, lengths=lengths, **stacked)


def source(url: str) -> Source:
    """The runs in a storage, or in an archive.

    Raises:
        UsageError: If there is none.
    """
    if url.endswith(SUFFIX):
        return Archive(Path(url))
    return Storage(store.connect(url, must_exist=True))
