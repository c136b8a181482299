"""Objectives and checks that several test files share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial
from optuna.trial import Trial

from optuna_hypernet.space import Array
from optuna_hypernet.space import Mask
from optuna_hypernet.surrogate.ensemble import Running
from optuna_hypernet.surrogate.outcomes import Progress


CHOICES = (None, True, "adam", 3, 2.5)


def silent(embedding: Array, likely: Mask) -> Running:
    """Running trials without a report."""
    return Running(
        embedding, likely, Progress(np.full(len(likely), np.nan), np.full(len(likely), -1))
    )


def every_kind(trial: Trial) -> float:
    """One parameter of every kind, one of them conditional. Best: 0."""
    x = trial.suggest_float("float", -1.0, 2.0)
    lr = trial.suggest_float("log", 1e-5, 1e-1, log=True)
    drop = trial.suggest_float("step", 0.0, 0.9, step=0.1)
    depth = trial.suggest_int("int", -3, 4)
    width = trial.suggest_int("log_int", 1, 300, log=True)
    batch = trial.suggest_int("int_step", 16, 128, step=16)
    kind = trial.suggest_categorical("choice", CHOICES)
    trial.suggest_float("single", 0.5, 0.5)
    loss = (x - 0.3) ** 2 + (math.log10(lr) + 3) ** 2 + (drop - 0.2) ** 2 + abs(depth - 1) / 4
    loss += abs(math.log(width / 20)) / 5 + abs(batch - 64) / 64 + CHOICES.index(kind) / 5
    if kind == "adam":
        loss += (trial.suggest_float("beta", 0.0, 1.0) - 0.9) ** 2
    return loss


def quadratic(trial: Trial) -> float:
    """Two floats. Best: 0 at (0.3, -0.4)."""
    x, y = trial.suggest_float("x", -1, 1), trial.suggest_float("y", -1, 1)
    return (x - 0.3) ** 2 + (y + 0.4) ** 2


def optimized(
    sampler: optuna.samplers.BaseSampler,
    objective: Any = every_kind,
    n_trials: int = 12,
    **arguments: Any,
) -> optuna.Study:
    """A new study after ``n_trials`` trials."""
    study = optuna.create_study(sampler=sampler, **arguments)
    study.optimize(objective, n_trials=n_trials)
    return study


def params_of(study: optuna.Study) -> list[dict[str, Any]]:
    """What was suggested, trial by trial."""
    return [trial.params for trial in study.get_trials(deepcopy=False)]


def assert_in_range(trials: list[FrozenTrial]) -> None:
    """Every value is of a plain type, within its bounds and on its steps."""
    for trial in trials:
        for name, value in trial.params.items():
            distribution = trial.distributions[name]
            assert is_valid(value, distribution), (trial.number, name, value, distribution)


def is_valid(value: Any, distribution: BaseDistribution) -> bool:
    """Whether ``value`` is one of ``distribution``, and plain Python."""
    if isinstance(distribution, CategoricalDistribution):
        return any(value is choice or value == choice for choice in distribution.choices)
    if isinstance(distribution, IntDistribution):
        on_step = type(value) is int and (value - distribution.low) % distribution.step == 0
    else:
        assert isinstance(distribution, FloatDistribution)
        on_step = type(value) is float
        if on_step and distribution.step is not None:
            steps = (value - distribution.low) / distribution.step
            on_step = abs(steps - round(steps)) < 1e-8
    return on_step and distribution.low <= value <= distribution.high
