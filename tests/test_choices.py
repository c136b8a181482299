"""Choices among numbers: read in their order, and told apart where that means nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import Trial

from optuna_hypernet import HypernetSampler
from optuna_hypernet.space import SearchSpace
from optuna_hypernet.surrogate.ensemble import fit_members
from optuna_hypernet.surrogate.ensemble import rank_correlation
from optuna_hypernet.surrogate.hypernetwork import Columns
from optuna_hypernet.surrogate.hypernetwork import Hypernetwork
from optuna_hypernet.surrogate.posterior import Posterior
from optuna_hypernet.surrogate.warp import warp


UNITS = [16, 32, 64, 128, 256, 512, 1024, 2048]
BEST = {"a": 2, "b": 5, "c": 6, "e": 3}


def lowest(choices: Sequence[int | str], seed: int) -> float:
    """After 24 trials of a bowl over the places of four choices in their order."""

    def objective(trial: Trial) -> float:
        chosen = {name: trial.suggest_categorical(name, choices) for name in BEST}
        return sum((choices.index(chosen[name]) - best) ** 2 for name, best in BEST.items())

    study = optuna.create_study(sampler=HypernetSampler(seed=seed))
    study.optimize(objective, n_trials=24)
    return study.best_value


def test_the_order_of_numbers_is_worth_something() -> None:
    numbers = [lowest(UNITS, seed) for seed in range(5)]
    names = [lowest([f"{units} units" for units in UNITS], seed) for seed in range(5)]

    assert np.mean(numbers) < 0.5 * np.mean(names)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_that_are_mere_names_are_told_apart(seed: int) -> None:
    """Of a sum of what each choice is worth, at random, most is known after forty trials."""
    rng = np.random.default_rng(seed)
    space = SearchSpace({name: CategoricalDistribution(range(8)) for name in "ab"})
    rows = space.snap(rng.random((200, 2)))
    embedding = space.embed(rows, np.ones(rows.shape, dtype=bool))
    levels, worth = space.levels(rows), rng.random((2, 8))
    values = worth[0, levels[:, 0]] + worth[1, levels[:, 1]]
    columns = Columns(space.owner, space.ranged, space.tilt)
    warps, theta, log_weights = fit_members(columns, embedding[:40], values[:40])
    warped = np.stack([warp(values[:40], name) for name in warps])
    mean, _ = Posterior(Hypernetwork(theta, columns), embedding[:40], warped).predict(embedding)

    assert rank_correlation(np.exp(log_weights) @ mean[:, 40:], values[40:]) > 0.9
