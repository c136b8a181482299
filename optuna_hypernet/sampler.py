"""HypernetSampler: Optuna's hooks, guards and messages. The mathematics is elsewhere."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.logging import get_logger
from optuna.samplers import BaseSampler
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_hypernet.counts import check_count
from optuna_hypernet.history import History
from optuna_hypernet.history import Trials
from optuna_hypernet.prediction import Prediction
from optuna_hypernet.risk import Risks
from optuna_hypernet.sources import Source
from optuna_hypernet.sources import Sources
from optuna_hypernet.space import Array
from optuna_hypernet.space import SearchSpace
from optuna_hypernet.space import stored
from optuna_hypernet.suggestion import Request
from optuna_hypernet.suggestion import draw
from optuna_hypernet.suggestion import suggest
from optuna_hypernet.surrogate.ensemble import Ensemble
from optuna_hypernet.threads import one_blas_thread
from optuna_hypernet.training import SCALE
from optuna_hypernet.training import Trained
from optuna_hypernet.training import Training


_logger = get_logger(f"optuna.{__name__}")


class HypernetSampler(BaseSampler):
    """Sampler that descends on the loss predicted by a gated hypernetwork.

    Drops into any study::

        study = optuna.create_study(sampler=HypernetSampler(seed=0))
        study.optimize(objective, n_trials=100)

    A suggestion is found in five steps:

    1. The first ``n_startup_trials`` trials are points of a scrambled Sobol sequence, but for the
       very first, when Optuna does not know the search space yet.
    2. From then on the finished trials are encoded, their values warped, and a gated
       hypernetwork with a Gaussian output layer is fitted to them by evidence.
    3. The posterior is conditioned on finished trials, and on running ones: for its spread, and
       for what their reports promise.
    4. Log expected improvement is raised by a screen, flips of discrete parameters, and gradient
       steps on the others; in the first 5 (d + 1) trials of d parameters within a trust region.
       Where trials have failed or violated a constraint, it is that of a trial which may, too;
       until one is feasible, the chance of that alone is raised. Where a choice decides
       what else is asked for, from the 40th trial on it is raised within a branch that may hold
       the lowest response, even if that branch began badly; unless branches share at least half
       of what they ask for.
    5. In a discrete space no configuration is proposed twice until all were tried.

    Choices among three numbers or more are read in their order as well as one by one, and trials
    tell whether it means something. Parameters whose range moves are searched in their latest
    range; conditional parameters are searched together with those on which they depend. A pruned
    trial counts as what its last report promises beside those of complete ones at that step; if
    there are none, as no better than the median; without a report, as worse than all. The last
    report of a running trial is an observation, the surer the better reports at that step have
    foretold how complete trials end; one that many others have overtaken is taken for abandoned.
    Of failed trials, and those that returned an infinite loss or, three of them or more, one far
    worse than all others, it is learnt where others would fail; what they would have returned
    stays unknown. Of constraints (``trial.set_constraint``) it is learnt where they hold; the
    values of trials that violate them still say what to expect elsewhere.

    Each of several objectives has members of its own. What is to be improved upon, in all of them
    at once, are points on the Pareto front, drawn anew for every suggestion; and what is raised in
    step 4 is the log of the volume that is to be expected between them and a response.

    With a ``training``, the validation loss of its best response w_φ(λ) is one more thing that
    the hypernetwork of step 2 reads about a trial, with a gate of its own: the prior mean rises
    with it, the trials calibrate by how much (a score to be maximised falls), and what it does
    not explain stays uncertain. Unless the study has been there, the first suggestion is the
    training's λ̂, and the surrogate takes over from the next. A training that is new is fitted
    before, as part of that suggestion: λ̂ then has gone down already. One that you have fitted
    yourself, for longer say, or with other settings, stays what it is. The prediction holds for
    the weights that ``training.best_response(trial.params)`` returns, and for ordinary training
    that starts there; it is a guide to trainings from the very beginning, no more. Which of
    several objectives rises with it is left to the trials.

    With ``source_studies``, what they predict is such an input, too: the mean of what each has
    learnt, in which those that predict the order of this study's trials come to count most. The
    first trial is the best configuration that they know, and the surrogate takes over from the
    next. Only what they share with this study is used: parameters of the same name, in whatever
    range, and choices that both have.

    Suggestions depend on ``seed``, the trial's number, the finished and the running trials (and,
    of course, on ``training`` or ``source_studies``) alone:
    a study that is resumed from its storage by a new sampler with the same seed goes on as if it
    had not been interrupted. A new ``training``, repeatable by its own seed, then catches up
    first; to save that time, give it the ``state_dict`` of the old one. Pickling the sampler
    pickles the training and its data.

    Args:
        seed:
            Non-negative int, or None for fresh randomness. Like everywhere in Optuna, a study
            with ``n_jobs`` other than 1 is not repeatable.
        n_startup_trials:
            Number of trials with a value, complete or pruned, from which the hypernetwork takes
            over; 1 with a ``training`` or ``source_studies``. Where most fail, that is once there
            are twice as many trials, and one with a value.
        independent_sampler:
            Sampler for whatever cannot be searched together with the rest: the first trial, and
            parameters that no trial had before. Defaults to
            :class:`~optuna.samplers.RandomSampler`.
        warn_independent_sampling:
            Whether to log a warning when, after startup, a parameter goes to that sampler.
        training:
            A :class:`~optuna_hypernet.HyperTraining` of the model that the objective trains. Its
            search space must be part of the study's, under the same names and with the same
            ranges; what it does not know, such as a learning rate, is searched as before.
        source_studies:
            Earlier studies of the same pipeline on other data, say, or of a similar one. They are
            read once, now; whether they minimised or maximised, by whatever sampler, and how their
            values are scaled does not matter.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If ``seed`` or ``n_startup_trials`` is negative, or ``training`` has
            tensor-valued hyperparameters, which no trial can suggest; if a source study has
            several objectives, or no finished trial to learn from; or if there are both.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        n_startup_trials: int = 4,
        independent_sampler: BaseSampler | None = None,
        warn_independent_sampling: bool = True,
        training: Training | None = None,
        source_studies: Sequence[Study] = (),
    ) -> None:
        if seed is not None:
            seed = check_count("seed", seed, 0, "Pass an int for repeatable studies, or None.")
        advice = "Pass 1 for the surrogate from the second trial on."
        n_startup_trials = check_count("n_startup_trials", n_startup_trials, 0, advice)
        if not isinstance(independent_sampler, BaseSampler | None):
            raise TypeError(
                "independent_sampler must be a sampler object or None, got "
                f"{independent_sampler!r}. Pass, for example, optuna.samplers.RandomSampler()."
            )
        if not isinstance(warn_independent_sampling, bool):
            raise TypeError(
                "warn_independent_sampling must be a bool, got "
                f"{warn_independent_sampling!r}. Pass True or False."
            )
        if training is not None:
            _check_training(training)
        sources = _read(source_studies)
        if training is not None and sources:
            raise ValueError(
                "training and source_studies both say what to expect before there are trials. "
                "Pass one of them: the training, if you have one, knows this very model."
            )
        self._seed = seed
        self._n_startup_trials = n_startup_trials
        self._independent_sampler = independent_sampler or RandomSampler(
            seed=None if seed is None else seed % 2**32
        )
        self._warn_independent_sampling = warn_independent_sampling
        self._training = training
        self._read_sources = sources
        self._forget()

    def reseed_rng(self) -> None:
        """Draws fresh randomness, here and in the independent sampler."""
        self._seed = _fresh_seed()
        self._independent_sampler.reseed_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All parameters seen so far, each with its latest range."""
        with self._lock:
            known = self._known(study)
        return _searched(known)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values for all parameters of ``search_space`` that go together, found together.

        One that would not be asked for beside the others has none. If it is all the same, its
        value will be sought then, by :meth:`sample_independent`.
        """
        searched = _searched(search_space)
        if not searched:
            return {}
        with self._lock:
            trials = self._history.read(study, trial.number)
            return self._descend(trial, SearchSpace(searched), trials)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value of the independent sampler, if the parameter is new.

        Else one that is found like the others. It comes to this where a trial asks for another
        range than the latest one did, and what was suggested lies outside of it; or for what was
        not expected beside the others.
        """
        with self._lock:
            self._asked[param_name] = param_distribution
            known = self._known(study)
            trials = self._history.read(study, trial.number)
            if param_name in known and param_name in trials.names:
                space = SearchSpace({**_searched(known), param_name: param_distribution})
                return self._descend(trial, space, trials, param_name)[param_name]
            if trials.none_yet and self._sources is not None:
                first = self._first(self._sources, param_name, param_distribution)
                if first:
                    return first[param_name]
            started = self._history.finished > self._n_startup_trials
        if started and self._warn_independent_sampling:
            _logger.warning(
                f"The parameter {param_name!r} of trial {trial.number} is sampled by "
                f"{type(self._independent_sampler).__name__}: it is new to this sampler. "
                "Silence this with warn_independent_sampling=False."
            )
        return self._independent_sampler.sample_independent(
            study, trial, param_name, param_distribution
        )

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Passed on to the independent sampler."""
        self._independent_sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Passed on to the independent sampler."""
        self._independent_sampler.after_trial(study, trial, state, values)

    def __getstate__(self) -> dict[str, Any]:
        """The arguments and the seed: all else is read again from the study's trials."""
        state = self.__dict__.copy()
        for forgotten in (
            "_lock",
            "_history",
            "_asked",
            "_ensemble",
            "_risks",
            "_predicted",
            "_sources",
            "_told",
        ):
            del state[forgotten]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        """Starts without anything that can be read from a study."""
        self._lock = threading.Lock()
        self._history = History()
        self._asked: dict[str, BaseDistribution] = {}
        self._ensemble = Ensemble()
        self._risks = Risks()
        self._predicted: tuple[int, Prediction] | None = None
        self._sources = Sources(self._read_sources) if self._read_sources else None
        self._told: set[str] = set()

    def _entropy(self) -> int:
        """The seed; drawn on first use if there is none, so that unused copies differ."""
        if self._seed is None:
            self._seed = _fresh_seed()
        return self._seed

    def _known(self, study: Study) -> dict[str, BaseDistribution]:
        """The latest distribution of every parameter seen so far, as the objective asks for it."""
        known = self._history.distributions(study)
        if self._training is not None:
            _check_ranges(self._training.search_space, known)
            known = {**self._training.search_space, **known}
        for name in [name for name, kind in known.items() if _is_nested(kind)]:
            # A storage returns tuples as lists, which are other choices. Which they were is known
            # from the first time that the parameter comes to the independent sampler.
            asked = self._asked.get(name)
            if asked is not None and stored(asked) == stored(known[name]):
                known[name] = asked
            else:
                del known[name]
        return known

    def _descend(
        self, trial: FrozenTrial, space: SearchSpace, trials: Trials, wanted: str | None = None
    ) -> dict[str, Any]:
        """Params of ``space`` that would be asked for, found together with what the trial has."""
        request = Request(
            space,
            _fixed(space, trial),
            trial.number,
            self._entropy(),
            self._n_startup_trials,
            self._predict(space, trials),
            wanted,
        )
        return space.decode(self._suggest(request, trials))

    def _suggest(self, request: Request, trials: Trials) -> Array:
        with one_blas_thread(), np.errstate(all="ignore"):
            try:
                return suggest(request, trials, self._ensemble, self._risks)
            except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
                self._tell_once(
                    "numerical trouble",
                    f"HypernetSampler could not model trial {request.number} ({error}) and drew "
                    "it at random. The study goes on, and it will try again.",
                )
                return draw(request)

    def _predict(self, space: SearchSpace, trials: Trials) -> Prediction | None:
        """Of the source studies, or of the training, which is fitted first if it is new."""
        if self._sources is not None:
            return self._remember(self._sources, space)
        training = self._training
        if training is None:
            return None
        its = training.search_space
        if any(space.distributions.get(name) != kind for name, kind in its.items()):
            return None  # PartialFixedSampler keeps some parameters to itself
        _check_names(training.search_space, trials)
        try:
            if not training.trained:
                _logger.info(
                    "HypernetSampler hyper-trains before its first suggestion, because its "
                    f"training is new; the study has {len(trials.values)} finished trials."
                )
                _fit(training)
            if self._predicted is None or self._predicted[0] != training.trained:
                self._predicted = training.trained, Trained(training)
            return self._predicted[1]
        except (ArithmeticError, np.linalg.LinAlgError) as error:
            self._training = None
            _logger.warning(
                f"HypernetSampler could not hyper-train ({error}). The study goes on without."
            )
            return None

    def _remember(self, sources: Sources, space: SearchSpace) -> Prediction | None:
        """Of the source studies; None if they say nothing of this space."""
        try:
            return sources.prediction(space)
        except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
            self._tell_once(
                "source studies",
                f"HypernetSampler could not use its source studies for the parameters "
                f"{space.names} ({error}). The study goes on without.",
            )
            return None

    def _first(self, sources: Sources, name: str, kind: BaseDistribution) -> dict[str, Any]:
        """A parameter of a study's first trial, by name; empty if source studies do not say."""
        try:
            return sources.first(name, kind)
        except (ArithmeticError, ValueError, np.linalg.LinAlgError):
            return {}  # it is said once they are asked again

    def _tell_once(self, kind: str, message: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            _logger.warning(message)


def _searched(space: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """Those of several values."""
    return {name: kind for name, kind in space.items() if not kind.single()}


def _is_nested(kind: BaseDistribution) -> bool:
    """Whether it has choices that a storage may return as something else."""
    return isinstance(kind, CategoricalDistribution) and any(
        isinstance(choice, list | dict) for choice in kind.choices
    )


def _fixed(space: SearchSpace, trial: FrozenTrial) -> Array:
    """What the trial has already, ``(d,)`` in internal representation, NaN for the rest.

    These are parameters suggested before, and those given to ``study.enqueue_trial``.
    """
    params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    out = np.full(space.d, np.nan)
    for j, (name, distribution) in enumerate(space.distributions.items()):
        if name in params:
            with contextlib.suppress(ValueError, TypeError, OverflowError):  # enqueued: anything
                out[j] = distribution.to_internal_repr(params[name])
    return out


def _fresh_seed() -> int:
    return int(np.random.default_rng().integers(2**63))


def _fit(training: Training) -> None:
    """Fits a new training; one whose fit is interrupted is new again."""
    new = training.state_dict()
    try:
        training.fit(scale=SCALE, finish=0)
    except BaseException:  # KeyboardInterrupt, too: half of a fit must not pass for a whole one
        training.load_state_dict(new)
        raise


def _read(studies: Any) -> list[Source]:
    if not isinstance(studies, Sequence) or not all(isinstance(one, Study) for one in studies):
        raise TypeError(
            f"source_studies must be a list of studies, got {studies!r}. Pass, for example, "
            "[optuna.load_study(study_name=..., storage=...)]."
        )
    return [_source(study, number) for number, study in enumerate(studies)]


def _source(study: Study, number: int) -> Source:
    """What an earlier study has to say."""
    name = f"source_studies[{number}], {study.study_name!r},"
    if len(study.directions) > 1:
        raise ValueError(
            f"{name} has {len(study.directions)} objectives, but of a source study one is "
            "expected. Leave it out."
        )
    history = History()
    source = Source(history.read(study, -1), history.distributions(study))
    if not len(source):
        raise ValueError(
            f"{name} has no finished trial with a value and a parameter that violates no "
            "constraint, so nothing can be learnt from it. Leave it out."
        )
    return source


def _check_training(training: Any) -> None:
    if not isinstance(training, Training):
        raise TypeError(
            f"training must be a HyperTraining or None, got {training!r}. Pass "
            "HyperTraining(model, search_space, train_loss, valid_loss, train_data, valid_data)."
        )
    shaped = [
        name
        for name, kind in training.search_space.items()
        if not isinstance(kind, BaseDistribution)
    ]
    if shaped:
        raise ValueError(
            f"The training has tensor-valued hyperparameters: {shaped}. A trial cannot suggest "
            "those. Name each number on its own, or tune them by training.fit()."
        )


def _check_ranges(
    training: Mapping[str, BaseDistribution], study: Mapping[str, BaseDistribution]
) -> None:
    for name in sorted(set(training) & set(study)):
        if training[name] != study[name]:
            raise ValueError(
                f"Parameter {name!r} is {study[name]} in the study, but {training[name]} in the "
                "training. Use the same range in both, and the same log and step."
            )


def _check_names(training: Mapping[str, BaseDistribution], trials: Trials) -> None:
    """Refuses hyperparameters that a study with a complete trial has never suggested."""
    complete = (~trials.failed & ~trials.pruned).any()
    if complete and (missing := sorted(set(training) - set(trials.names))):
        raise ValueError(
            f"The training has the hyperparameters {missing}, but no trial of this study has "
            f"suggested them: it has {sorted(trials.names)}. Use the same names in both; if some "
            "are conditional, or new to the objective, let a trial ask for them first: "
            "study.enqueue_trial with a value for each parameter."
        )
