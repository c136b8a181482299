"""A study's trials as arrays. Finished trials never change, so each is read once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.distributions import check_distribution_compatibility
from optuna.study import Study
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_hypernet.space import Array
from optuna_hypernet.space import Mask
from optuna_hypernet.space import internal_row
from optuna_hypernet.surrogate.outcomes import Outcomes
from optuna_hypernet.surrogate.outcomes import Progress


Key = TypeVar("Key", int, str)

# A running trial is taken for abandoned once more that began later are finished than so many, plus
# so many times the most that any trial so far had before it came to its end itself.
_OVERTAKEN, _TIMES_OVERTAKEN = 10, 3

# From how many trials on a value may stand for failures, and others say that it does.
_FEWEST_ALIKE, _FEWEST_OTHERS = 3, 2


@dataclass(frozen=True)
class Trials:
    """What a study's trials say.

    Attributes:
        names: The ``k`` parameters seen so far.
        searched: Those of them whose latest range has several values.
        finished: ``(n, k)`` params in Optuna's internal representation, NaN where not asked for,
            in the order in which the trials finished.
        lows: ``(n, k)`` where the range of each numeric one began in that trial, NaN else.
        highs: ``(n, k)`` where it ended.
        values: ``(n, m)`` of each of ``m`` objectives, smaller is better: NaN for a failed trial,
            and for one that returned infinity, or another number, in place of failing; the last
            report of a pruned one, infinity for one that was pruned without.
        pruned: ``(n,)``.
        constraints: ``(n, c)`` of each of ``c`` constraints; one is violated where it is above 0,
            and NaN where a trial says nothing of it.
        reports: ``(n, s)`` what they reported, smaller is better, at the steps after which trials
            were pruned, and at those to which running ones have come; NaN for nothing.
        ended: ``(n,)`` the column of the step after which a trial was pruned, -1 for none.
        pending: ``(p, k)`` params of the running trials, as far as they are known, but for those
            that seem abandoned: a worker that died leaves its trial running.
        progress: Of the same ``p``.
        unknown: Whether an earlier one of these is running of which no parameter is known yet.
    """

    names: list[str]
    searched: list[str]
    finished: Array
    lows: Array
    highs: Array
    values: Array
    pruned: Mask
    constraints: Array
    reports: Array
    ended: NDArray[np.int64]
    pending: Array
    progress: Progress
    unknown: bool

    @property
    def none_yet(self) -> bool:
        """Whether there is none of which anything is known."""
        return not (len(self.values) or len(self.pending) or self.unknown)

    @property
    def failed(self) -> Mask:
        """Which of the finished ones ``(n,)`` failed: they have no value to learn from."""
        return np.asarray(np.isnan(self.values).any(1))

    @property
    def outcomes(self) -> list[Outcomes]:
        """What came of them in each objective, failed ones included."""
        violation = np.maximum(np.nan_to_num(self.constraints, posinf=math.inf), 0.0).sum(1)
        return [
            Outcomes(values, self.pruned, violation, self.reports, self.ended)
            for values in self.values.T
        ]

    def columns(self, names: Sequence[str], table: Array) -> Array:
        """Columns ``names`` of ``finished`` or ``pending``; NaN for a name never seen."""
        at = {name: j for j, name in enumerate(self.names)}
        padded = np.column_stack([table, np.full(len(table), math.nan)])
        return np.asarray(padded[:, [at.get(name, -1) for name in names]])


class History:
    """Reads a study's trials, and remembers those that are finished.

    One instance may serve several studies in turn: it notices, and starts anew.
    """

    def __init__(self) -> None:
        self._forget()

    def distributions(self, study: Study) -> dict[str, BaseDistribution]:
        """Latest distribution of every parameter seen in any trial, by name.

        A parameter whose kind changes from trial to trial is left out.
        """
        trials = self._remember(study)
        latest = dict(self._latest)
        for trial in trials:
            if not trial.state.is_finished():
                self._note_distributions(trial, latest)
        return {
            name: distribution
            for name, (_, distribution) in sorted(latest.items())
            if distribution is not None
        }

    @property
    def finished(self) -> int:
        """Number of finished trials at the last reading."""
        return len(self._seen)

    def read(self, study: Study, asking: int) -> Trials:
        """All trials but number ``asking``, the one being asked."""
        trials = self._remember(study)
        running = [
            trial
            for trial in trials
            if trial.state == TrialState.RUNNING
            and trial.number != asking
            and self._overtakers(trial) <= _OVERTAKEN + _TIMES_OVERTAKEN * self._most_overtakers
        ]
        pending = self._internal(running)
        known = np.isfinite(pending).any(1)
        reports, reached = self._last_reports([running[i] for i in np.flatnonzero(known)])
        minimized = [each == StudyDirection.MINIMIZE for each in study.directions]
        signs = np.where(minimized, 1, -1)
        values = signs * self._values.reshape(-1, len(signs))
        # Who returns infinity, or one number again and again, has caught what others raise.
        values[~self._pruned[:, None] & (values == math.inf)] = math.nan
        if len(signs) == 1:  # of several objectives, the worst in one may be the best in another
            values[_stands_for_failures(np.where(self._pruned, math.nan, values[:, 0]))] = math.nan
        values[self._pruned[:, None] & np.isnan(values)] = math.inf
        return Trials(
            names=list(self._names),
            searched=[name for name in self._names if self._is_searched(name)],
            finished=self._finished,
            lows=self._lows,
            highs=self._highs,
            values=values,
            pruned=self._pruned,
            constraints=self._constraints.values,
            reports=signs[0] * self._reports.values,  # of several objectives there are none
            ended=self._ended,
            pending=pending[known],
            progress=Progress(signs[0] * reports, reached),
            unknown=any(running[i].number < asking for i in np.flatnonzero(~known)),
        )

    def _is_searched(self, name: str) -> bool:
        _, latest = self._latest[name]
        return latest is not None and not latest.single()

    def _forget(self) -> None:
        self._seen: dict[int, FrozenTrial] = {}
        self._last = (-math.inf, -1)
        self._latest: dict[str, tuple[int, BaseDistribution | None]] = {}
        self._names: list[str] = []
        self._finished = np.empty((0, 0))
        self._lows = np.empty((0, 0))
        self._highs = np.empty((0, 0))
        self._values = np.empty((0, 0))
        self._pruned = np.empty(0, dtype=bool)
        self._constraints: _Table[str] = _Table()
        self._reports: _Table[int] = _Table()
        self._ended = np.empty(0, dtype=np.int64)
        self._numbers = np.empty(0, dtype=int)
        self._most_overtakers = 0

    def _remember(self, study: Study) -> list[FrozenTrial]:
        """All trials; reads what has finished since the last call.

        Everything, if the study is another, or if a trial that finished earlier shows up only
        now: the order must be the one in which a new sampler would read them.
        """
        # The class's method, not the study's: under Hyperband a sampler is shown a study whose own
        # gives the trials of one bracket. But in what they are worth brackets do not differ.
        trials = Study.get_trials(study, deepcopy=False)
        finished = [trial for trial in trials if trial.state.is_finished()]
        new = [trial for trial in finished if self._seen.get(trial.number) is not trial]
        another_study = len(finished) - len(new) != len(self._seen)
        if another_study or any(_order(trial) < self._last for trial in new):
            self._forget()
            new = finished
        if not new:
            return trials
        new.sort(key=_order)
        self._last = _order(new[-1])
        for trial in new:
            self._seen[trial.number] = trial
            if trial.state != TrialState.FAIL:  # which may come long after it died
                self._most_overtakers = max(self._most_overtakers, self._overtakers(trial))
            self._numbers = np.append(self._numbers, trial.number)
            self._note_distributions(trial, self._latest)
        missing = [name for name in self._latest if name not in set(self._names)]
        self._names += missing
        wider = np.full((len(self._finished), len(missing)), math.nan)
        self._finished = np.vstack([np.hstack([self._finished, wider]), self._internal(new)])
        ends = np.array([[_ends(trial, name) for name in self._names] for trial in new])
        ends = ends.reshape(len(new), len(self._names), 2)
        self._lows = np.vstack([np.hstack([self._lows, wider]), ends[:, :, 0]])
        self._highs = np.vstack([np.hstack([self._highs, wider]), ends[:, :, 1]])
        values = [_values(trial, len(study.directions)) for trial in new]
        self._values = np.vstack([self._values.reshape(-1, len(study.directions)), values])
        states = [trial.state == TrialState.PRUNED for trial in new]
        self._pruned = np.concatenate([self._pruned, np.array(states, dtype=bool)])
        self._note_constraints(new)
        self._note_reports(new)
        return trials

    def _note_constraints(self, new: Sequence[FrozenTrial]) -> None:
        said = [_constraints(trial) for trial in new]
        self._constraints.grow(said, chain(*said))

    def _note_reports(self, new: Sequence[FrozenTrial]) -> None:
        ends = [trial.last_step if trial.state == TrialState.PRUNED else None for trial in new]
        steps = [step for step in ends if step is not None]
        self._reports.grow([trial.intermediate_values for trial in new], steps)
        self._ended = np.concatenate([self._ended, self._reports.columns(ends)])

    def _last_reports(self, running: Sequence[FrozenTrial]) -> tuple[Array, NDArray[np.int64]]:
        """The last report ``(p,)`` of each, NaN for none, and the column of its step."""
        steps = [trial.last_step for trial in running]
        self._reports.grow([], [step for step in steps if step is not None])
        said = [
            math.nan if step is None else trial.intermediate_values[step]
            for trial, step in zip(running, steps, strict=True)
        ]
        return np.array(said, dtype=float), self._reports.columns(steps)

    def _overtakers(self, trial: FrozenTrial) -> int:
        """How many trials that began after this one are finished."""
        return int(np.count_nonzero(self._numbers > trial.number))

    def _internal(self, trials: Sequence[FrozenTrial]) -> Array:
        rows = [internal_row(self._names, trial.params, trial.distributions) for trial in trials]
        return np.array(rows, dtype=float).reshape(len(trials), len(self._names))

    @staticmethod
    def _note_distributions(
        trial: FrozenTrial, latest: dict[str, tuple[int, BaseDistribution | None]]
    ) -> None:
        for name, distribution in trial.distributions.items():
            number, known = latest.get(name, (-1, distribution))
            if known is None or not _compatible(known, distribution):
                latest[name] = (number, None)
            elif trial.number > number:
                latest[name] = (trial.number, distribution)


class _Table(Generic[Key]):
    """What trials said of some keys: it grows as trials finish, and as keys come up.

    Attributes:
        keys: Steps or names, one for each column.
        values: ``(n, k)``, NaN for nothing said.
    """

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.values = np.empty((0, 0))
        self._said: list[Mapping[Key, float]] = []

    def grow(self, said: Sequence[Mapping[Key, float]], keys: Iterable[Key]) -> None:
        """Adds what new trials ``said``, and columns for those of ``keys`` that have none."""
        missing = [key for key in dict.fromkeys(keys) if key not in self.keys]
        if not (missing or said):
            return
        before = np.hstack([self.values, self._tabulated(self._said, missing)])
        self.keys += missing
        self._said += said
        self.values = np.vstack([before, self._tabulated(said, self.keys)])

    def columns(self, keys: Sequence[Key | None]) -> NDArray[np.int64]:
        """The column of each; -1 for None."""
        columns = [-1 if key is None else self.keys.index(key) for key in keys]
        return np.array(columns, dtype=np.int64)

    @staticmethod
    def _tabulated(said: Sequence[Mapping[Key, float]], keys: Sequence[Key]) -> Array:
        table = [[float(each.get(key, math.nan)) for key in keys] for each in said]
        return np.array(table, dtype=float).reshape(len(said), len(keys))


def _ends(trial: FrozenTrial, name: str) -> tuple[float, float]:
    """Of a numeric parameter's range in that trial; NaN for others."""
    kind = trial.distributions.get(name)
    if not isinstance(kind, FloatDistribution | IntDistribution):
        return math.nan, math.nan
    return float(kind.low), float(kind.high)


def _compatible(one: BaseDistribution, other: BaseDistribution) -> bool:
    if one is other:
        return True
    try:
        check_distribution_compatibility(one, other)
    except ValueError:
        return False
    return True


def _order(trial: FrozenTrial) -> tuple[float, int]:
    """Sorts trials as they finished."""
    finished = trial.datetime_complete.timestamp() if trial.datetime_complete else -math.inf
    return finished, trial.number


def _values(trial: FrozenTrial, objectives: int) -> list[float]:
    """The objective values, or a pruned trial's last report; NaN if there is none."""
    if trial.state == TrialState.COMPLETE:
        return [float(value) for value in trial.values]
    if trial.state == TrialState.PRUNED and trial.last_step is not None:
        return [float(trial.intermediate_values[trial.last_step])] * objectives
    return [math.nan] * objectives


def _stands_for_failures(values: Array) -> Mask:
    """Which of ``values (n,)``, NaN for none, are returned where others would raise.

    Such as an accuracy of 0, or a loss of 1e9: the worst of all, more than once or twice, and
    further from the others than these are from each other.
    """
    finite = values[np.isfinite(values)] / 4  # so that no difference overflows
    worst = finite.max(initial=-math.inf)
    others = finite[finite < worst]
    if len(finite) - len(others) < _FEWEST_ALIKE or len(others) < _FEWEST_OTHERS:
        return np.zeros(len(values), dtype=bool)
    apart = worst - others.max() > others.max() - others.min()
    return np.asarray((values / 4 == worst) & apart)


def _constraints(trial: FrozenTrial) -> dict[str, float]:
    """Those of ``trial.set_constraint``, and of any sampler's ``constraints_func``, by name."""
    attributes = trial.system_attrs
    listed = {str(k): value for k, value in enumerate(attributes.get("constraints") or ())}
    prefix = "constraints:"
    named = [name for name in attributes if name.startswith(prefix)]
    return {**listed, **{name.removeprefix(prefix): attributes[name] for name in named}}
