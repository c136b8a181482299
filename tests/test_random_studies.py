"""Random spaces, random objectives and random trial states, through ask and tell.

Whatever comes, no hook raises, nothing is warned of, and every value is in range and plain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import optuna
import pytest
from hypothesis import assume
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from optuna.distributions import BaseDistribution
from optuna.trial import Trial
from optuna.trial import TrialState
from optuna.trial import create_trial
from problems import assert_in_range
from strategies import Opaque
from strategies import distributions

from optuna_hypernet import HypernetSampler


N_STUDIES = 500

# What a trial's value is, from a number that depends on its params, and its own number.
VALUES: dict[str, Callable[[float, int], float]] = {
    "smooth": lambda x, n: x * x,
    "noisy": lambda x, n: x + 0.1 * math.sin(1e4 * n),
    "constant": lambda x, n: 3.0,
    "steps": lambda x, n: float(round(x)),
    "huge": lambda x, n: 1e308 * math.tanh(x),
    "tiny": lambda x, n: 1e-308 * math.tanh(x),
    "nearly constant": lambda x, n: 1 + 1e-12 * x,
    "decades": lambda x, n: 10 ** (60 * math.tanh(x)),
    "diverging": lambda x, n: math.inf if x > 0 else x,
    "falling": lambda x, n: -math.inf if n % 4 == 1 else x,
    "infinite": lambda x, n: math.inf,
    "failing": lambda x, n: math.nan if x > 0 else x,
    "nothing": lambda x, n: math.nan,
}

ENDINGS = [
    "complete",
    "complete",
    "complete",
    "complete",
    "fail",
    "prune",
    "prune after reports",
    "prune after nan",
    "leave running",
    "leave half-asked",
    "enqueue",
    "enqueue half",
    "add",
]


@dataclass
class Scenario:
    """One study to be driven.

    Attributes:
        space: Distributions by name; names from ``gated`` on depend on the first one.
        gated: How many of the last parameters are asked for only sometimes.
        value: A key of ``VALUES``.
        endings: What happens to each trial.
        directions: Of the study.
        startup: Of the sampler.
        seed: Of the sampler.
    """

    space: dict[str, BaseDistribution]
    gated: int
    value: str
    endings: list[str]
    directions: tuple[str, ...]
    startup: int
    seed: int


scenarios = st.builds(
    Scenario,
    space=st.dictionaries(st.sampled_from("abcdef"), distributions(), min_size=1, max_size=5),
    gated=st.integers(0, 2),
    value=st.sampled_from(sorted(VALUES)),
    endings=st.lists(st.sampled_from(ENDINGS), min_size=8, max_size=12),
    directions=st.sampled_from(
        [("minimize",), ("maximize",), ("minimize", "maximize"), ("maximize",) * 3]
    ),
    startup=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)


def ask_for(trial: Trial, scenario: Scenario, most: int | None = None) -> float:
    """Suggests what the scenario asks for; a number that depends on it."""
    names = sorted(scenario.space)
    always = max(len(names) - scenario.gated, 1)
    total, first = 0.0, True
    for name in names[:most]:
        if name in names[always:] and not first:
            continue
        kind = scenario.space[name]
        value = suggest(trial, name, kind)
        internal = kind.to_internal_repr(value)
        scaled = math.tanh(internal / 100) if math.isfinite(internal) else 0.0
        first = first if name in names[1:] else scaled <= 0.2
        total += scaled - 0.1
    return total


def is_left_by_the_random_sampler(kind: BaseDistribution) -> bool:
    """Before Optuna 5 its values leave log ranges that are but a few digits wide."""
    old = int(optuna.__version__.split(".")[0]) < 5
    return (
        old
        and isinstance(kind, optuna.distributions.FloatDistribution)
        and kind.log
        and kind.high < kind.low * (1 + 1e-12)
    )


def suggest(trial: Trial, name: str, kind: BaseDistribution) -> Any:
    if isinstance(kind, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(name, kind.choices)
    if isinstance(kind, optuna.distributions.IntDistribution):
        return trial.suggest_int(name, kind.low, kind.high, step=kind.step, log=kind.log)
    assert isinstance(kind, optuna.distributions.FloatDistribution)
    return trial.suggest_float(name, kind.low, kind.high, step=kind.step, log=kind.log)


def step(study: optuna.Study, scenario: Scenario, ending: str) -> None:
    """One trial of the scenario."""
    earlier = [trial for trial in study.get_trials(deepcopy=False) if trial.params]
    if ending == "add":
        some = earlier[len(earlier) // 2] if earlier else None
        params, kinds = (some.params, some.distributions) if some else ({}, {})
        values = [-2.0] * len(scenario.directions)
        study.add_trial(create_trial(params=params, distributions=kinds, values=values))
        return
    if ending.startswith("enqueue"):
        params = dict(earlier[-1].params) if earlier else {}
        # Optuna copies what is enqueued, and a copied object is none of the choices any more.
        params = {name: value for name, value in params.items() if not isinstance(value, Opaque)}
        study.enqueue_trial(dict(list(params.items())[:: 2 if ending.endswith("half") else 1]))
    trial = study.ask()
    if ending == "leave half-asked":
        ask_for(trial, scenario, most=1)
        return
    value = VALUES[scenario.value](ask_for(trial, scenario), trial.number)
    if ending == "leave running":
        return
    if ending.startswith("prune after") and len(scenario.directions) == 1:
        trial.report(value if ending.endswith("reports") else math.nan, step=1)
    if ending.startswith("prune"):
        study.tell(trial, state=TrialState.PRUNED)
    elif ending == "fail" or math.isnan(value):
        study.tell(trial, state=TrialState.FAIL)
    else:
        # What is good in one objective is bad in the next.
        study.tell(trial, [value * (-1) ** k for k in range(len(scenario.directions))])


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
@settings(max_examples=N_STUDIES)
@given(scenarios)
@example(
    Scenario(
        space={
            "a": optuna.distributions.FloatDistribution(0, 5e-324),
            "b": optuna.distributions.FloatDistribution(0, 1),
        },
        gated=0,
        value="decades",
        endings=["complete"] * 9,
        directions=("minimize",),
        startup=0,
        seed=0,
    )
)
def test_any_study(optuna_log: pytest.LogCaptureFixture, scenario: Scenario) -> None:
    assume(not any(map(is_left_by_the_random_sampler, scenario.space.values())))
    optuna_log.clear()
    sampler = HypernetSampler(
        seed=scenario.seed,
        n_startup_trials=scenario.startup,
        warn_independent_sampling=False,
    )
    study = optuna.create_study(sampler=sampler, directions=scenario.directions)
    for ending in scenario.endings:
        step(study, scenario, ending)
    trials = study.get_trials(deepcopy=False)

    assert [record.getMessage() for record in optuna_log.records] == []
    assert_in_range(trials)
    assert len(trials) == len(scenario.endings)
