"""Studies -> arrays: the regret after every trial and the seconds that every suggestion took."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from tqdm import tqdm

from benchmarks import UsageError
from benchmarks import optima
from benchmarks import statistics
from benchmarks.problem import Direction
from benchmarks.problem import Reference
from benchmarks.samplers import PEERS


def regret(
    trials: Sequence[FrozenTrial], direction: Direction, reference: Reference
) -> np.ndarray:  # (T,)
    """Normalised regret of the incumbent after each trial: 0 is perfect, 1 a median random value.

    The incumbent is the trial with the best value seen so far. Where the objective is noisy it is
    judged by its `score`, the noise-free value, so a lucky draw earns nothing. Until a first
    evaluation succeeds the regret is 1.
    """
    sign = 1.0 if direction == "minimize" else -1.0
    seen = np.array([np.inf if t.value is None else sign * t.value for t in trials])
    scores = np.array(
        [np.nan if t.value is None else t.user_attrs.get("score", t.value) for t in trials]
    )
    before = np.minimum.accumulate(np.concatenate([[np.inf], seen[:-1]]))
    improves = seen < before
    incumbent = np.maximum.accumulate(np.where(improves, np.arange(len(seen)), 0))
    value = (scores[incumbent] - reference.optimum) / (reference.median - reference.optimum)
    return np.where(np.logical_or.accumulate(improves), value, 1.0)


def seconds(trials: Sequence[FrozenTrial]) -> np.ndarray:  # (T,)
    """From `ask` to the last suggested parameter; NaN where the suggestion itself failed."""
    return np.array([trial.user_attrs.get("seconds", np.nan) for trial in trials], dtype=float)


@dataclass(frozen=True)
class Run:
    """One study, read."""

    problem: str
    sampler: str
    seed: int
    regret: np.ndarray  # (T,)
    seconds: np.ndarray  # (T,)
    failed: np.ndarray  # (T,), True where the evaluation or the suggestion crashed


@dataclass(frozen=True)
class Comparison:
    """The (problem, seed) pairs that every sampler has finished: S samplers, P pairs, T trials."""

    suite: str
    samplers: list[str]  # S
    problems: list[str]  # Q
    problem_of: np.ndarray  # (P,), index into `problems`
    regret: np.ndarray  # (S, P, T)
    seconds: np.ndarray  # (S, P, T)
    failed: np.ndarray  # (S, P, T)
    pairs_started: int  # by any sampler

    @property
    def trials(self) -> int:
        """T."""
        return self.regret.shape[-1]

    @cached_property
    def logs(self) -> np.ndarray:  # (S, Q, T)
        """Log of the floored regret, mean over the seeds of each problem."""
        return statistics.by_problem(statistics.log_floored(self.regret), self.problem_of)


def read(
    storages: list[RDBStorage],
    suite: str,
    samplers: list[str] | None = None,
    problems: list[str] | None = None,
) -> list[Run]:
    """All studies of `suite` and, if given, of `samplers` and `problems`."""
    references = optima.load()
    chosen = [
        (storage, study.study_name, study.user_attrs)
        for storage in storages
        for study in storage.get_all_studies()
        if study.user_attrs.get("suite") == suite
        and (samplers is None or study.user_attrs["sampler"] in samplers)
        and (problems is None or study.user_attrs["problem"] in problems)
    ]
    runs = []
    for storage, name, about in tqdm(chosen, desc=suite, unit="study", leave=False):
        problem = about["problem"]
        if problem not in references:
            raise UsageError(f"no reference for {problem!r}; run `python -m benchmarks optima`")
        study = optuna.load_study(study_name=name, storage=storage)
        trials = study.get_trials(deepcopy=False)
        if trials:
            direction: Direction = study.direction.name.lower()  # type: ignore[assignment]
            curve = regret(trials, direction, references[problem])
            failed = np.array([trial.state == TrialState.FAIL for trial in trials])
            runs.append(
                Run(problem, about["sampler"], about["seed"], curve, seconds(trials), failed)
            )
    return runs


def compare(suite: str, runs: list[Run]) -> Comparison:
    """Line up the runs, as long as the sampler that was run shortest."""
    if not runs:
        raise UsageError(f"no studies of {suite} are of these problems and samplers")
    names = sorted({run.sampler for run in runs}, key=[*PEERS, *(r.sampler for r in runs)].index)
    table = {(run.sampler, run.problem, run.seed): run for run in runs}
    length = min(max(len(r.regret) for r in runs if r.sampler == name) for name in names)
    started = sorted({(run.problem, run.seed) for run in runs})
    pairs = [
        pair
        for pair in started
        if all((run := table.get((name, *pair))) and len(run.regret) >= length for name in names)
    ]
    if not pairs:
        raise UsageError(
            f"no (problem, seed) of {suite} is complete for all of {', '.join(names)}; "
            "name fewer with --samplers"
        )
    problems = list(dict.fromkeys(problem for problem, _ in pairs))

    def stack(field: str) -> np.ndarray:  # (S, P, T)
        return np.array(
            [[getattr(table[(name, *pair)], field)[:length] for pair in pairs] for name in names]
        )

    return Comparison(
        suite=suite,
        samplers=names,
        problems=problems,
        problem_of=np.array([problems.index(problem) for problem, _ in pairs]),
        regret=stack("regret"),
        seconds=stack("seconds"),
        failed=stack("failed"),
        pairs_started=len(started),
    )
