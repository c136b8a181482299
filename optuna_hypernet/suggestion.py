"""One suggestion, from a study's trials to a row: start, condition, descend. Knows no Study."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from optuna_hypernet.acquisition import ExpectedImprovement
from optuna_hypernet.bounds import Bounds
from optuna_hypernet.bounds import dependent_bounds
from optuna_hypernet.branches import Seen
from optuna_hypernet.branches import draw_branch
from optuna_hypernet.conditions import Conditions
from optuna_hypernet.descent import propose
from optuna_hypernet.domain import Domain
from optuna_hypernet.history import Trials
from optuna_hypernet.prediction import Informed
from optuna_hypernet.prediction import Prediction
from optuna_hypernet.risk import Risk
from optuna_hypernet.risk import Risks
from optuna_hypernet.space import Array
from optuna_hypernet.space import Embedding
from optuna_hypernet.space import Mask
from optuna_hypernet.space import SearchSpace
from optuna_hypernet.surrogate.ensemble import Ensemble
from optuna_hypernet.surrogate.ensemble import Running
from optuna_hypernet.surrogate.front import draw_directions
from optuna_hypernet.surrogate.hypernetwork import Columns
from optuna_hypernet.trust import trust_region


_N_INCUMBENTS = 8
_N_POINTS = 32  # of the Sobol sequence, of which the first that was not tried is taken


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        space: The parameters to be suggested.
        fixed: ``(d,)`` internal representation of what the trial has already, NaN elsewhere.
        number: The trial's number.
        seed: The sampler's.
        n_startup_trials: Number of usable trials from which the surrogate takes over, or half of
            what there are if one is usable; with a prediction that is one.
        prediction: Of hyper-training or of source studies, whose parameters are all in ``space``;
            None without.
        wanted: The parameter that the trial is asking for just now; None if it may be any.
    """

    space: SearchSpace
    fixed: Array
    number: int
    seed: int
    n_startup_trials: int
    prediction: Prediction | None = None
    wanted: str | None = None


def suggest(request: Request, trials: Trials, ensemble: Ensemble, risks: Risks) -> Array:
    """The row ``(d,)`` to be evaluated next, with NaN for what would not be asked for.

    Raises:
        ArithmeticError: On numerical trouble in the surrogate.
        ValueError: The same.
        numpy.linalg.LinAlgError: The same; in older numpy it is no ValueError.
    """
    space = request.space
    rows, active = space.encode(trials.columns(space.names, trials.finished))
    begun, begun_active = space.encode(trials.columns(space.names, trials.pending))
    asked = active.any(1)
    usable = asked & ~trials.failed
    complete = usable & ~trials.pruned
    elsewhere = _depends_elsewhere(space, trials)[asked]
    surely = np.array([name == request.wanted for name in space.names])
    conditions = Conditions(space, rows[asked], active[asked], complete[asked], elsewhere, surely)
    domain = _domain(request, conditions)
    tried_active = np.concatenate([active[asked], begun_active])
    current = conditions.current(tried_active)
    tried, tried_active = np.concatenate([rows[asked], begun])[current], tried_active[current]
    outcomes = [each[usable] for each in trials.outcomes]
    inputs: Embedding = space
    needed = max(request.n_startup_trials, 1)
    if request.prediction is not None:
        informed, needed = Informed(space, request.prediction), 1
        been = informed.settled(tried, tried_active).any()
        if not been and not trials.unknown:  # an unknown one may be there now
            return _start(request, domain, tried, informed.settle(_sequence(request)))
        inputs = informed.judged(rows[usable], active[usable], outcomes)
    embedding = inputs.embed(rows[asked], active[asked])
    pending = inputs.embed(begun, begun_active)
    failed, constraints = trials.failed[asked], trials.constraints[asked]
    risk = risks.condition(inputs, embedding, failed, constraints, pending)
    enough = usable.sum() >= needed or asked.sum() >= 2 * needed  # where most fail
    if not (enough and usable.any()):
        return _start(request, domain, tried, _sequence(request), risk)
    directions = draw_directions(outcomes, _generator(request))
    places = outcomes[0].places if directions is None else directions.places(outcomes)
    # Which of several objectives rises with a predicted loss is not known.
    columns = Columns(inputs.owner, inputs.ranged, inputs.tilt * (len(outcomes) == 1))
    likely = np.ones(len(pending), dtype=bool) if risk is None else risk.passes(pending)
    running, known = Running(pending, likely, trials.progress), embedding[usable[asked]]
    beliefs = ensemble.condition(columns, known, outcomes, places, running, directions)
    seen = Seen(rows[usable], active[usable], places)
    # Each draws from the trial's beginning: where no branch is drawn, nothing else changes.
    branch = draw_branch(domain, inputs, beliefs, risk, seen, _generator(request))
    bounds = _bounds(request, trials, rows, active)
    penalties = [trust_region(seen.rows, domain.climbing), bounds, risk, branch]
    row = propose(
        ExpectedImprovement(inputs, beliefs, [each for each in penalties if each is not None]),
        domain,
        incumbents=seen.of(branch).best(_N_INCUMBENTS),
        tried=tried,
        rng=_generator(request),
    )
    return domain.asked(row)


def _bounds(request: Request, trials: Trials, rows: Array, active: Mask) -> Bounds | None:
    """Of ranges that depend on another parameter; that of what is wanted is known."""
    space = request.space
    ends = [trials.columns(space.names, each) for each in (trials.lows, trials.highs)]
    if not any((np.fmax.reduce(each) > np.fmin.reduce(each)).any() for each in ends):
        return None  # as nearly always: no range varies
    lows, highs = (space.encode(each)[0] for each in ends)
    numeric = np.flatnonzero(~space.categorical & (np.array(space.names) != request.wanted))
    return dependent_bounds(rows, active, lows, highs, numeric)


def _start(
    request: Request, domain: Domain, tried: Array, points: Array, risk: Risk | None = None
) -> Array:
    """A row ``(d,)`` without the surrogate: the first of ``points (n, d)`` that was not tried.

    Where trials have failed, it is the one that is most likely not to.
    """
    rows, _ = domain.untried(domain.project(points)[0], tried, _generator(request))
    if risk is None:
        return domain.asked(rows[0])
    return domain.asked(rows[risk.value(rows, domain.conditions.active(rows)).argmin()])


def _sequence(request: Request) -> Array:
    """The next points ``(n, d)`` of a scrambled Sobol sequence."""
    sequence = qmc.Sobol(request.space.d, scramble=True, seed=request.seed)
    if request.number > 0:  # it cannot go forward by nothing
        sequence.fast_forward(request.number)
    return np.asarray(sequence.random(_N_POINTS))


def _depends_elsewhere(space: SearchSpace, trials: Trials) -> Mask:
    """Which finished trials ``(n,)`` had another value of a parameter that is not in ``space``.

    One that is fixed by now, say: what they did not ask for may be due to it. The last trial
    tells to what.
    """
    held = [name for name in trials.searched if name not in space.distributions]
    table = trials.columns(held, trials.finished)
    return np.asarray(((table != table[-1:]) & ~np.isnan(table)).any(1))


def draw(request: Request) -> Array:
    """A uniformly random row ``(d,)``: what is left when the surrogate fails."""
    nothing = np.empty((0, request.space.d))
    none = nothing.astype(bool)
    domain = _domain(request, Conditions(request.space, nothing, none, none[:, 0]))
    return np.asarray(domain.project(_generator(request).random((1, request.space.d)))[0][0])


def _domain(request: Request, conditions: Conditions) -> Domain:
    fixed, known = request.space.encode(request.fixed[None])
    return Domain(request.space, conditions, np.where(known, fixed, np.nan)[0])


def _generator(request: Request) -> np.random.Generator:
    """Randomness of one trial: never the same for two trials, always for one."""
    return np.random.default_rng([request.seed, request.number])
