"""Branches of a conditional space: which are drawn, how often, and what a study sees of it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.trial import Trial
from problems import silent

from optuna_hypernet import HypernetSampler
from optuna_hypernet.branches import Branch
from optuna_hypernet.branches import Seen
from optuna_hypernet.branches import draw_branch
from optuna_hypernet.conditions import Conditions
from optuna_hypernet.domain import Domain
from optuna_hypernet.risk import Risks
from optuna_hypernet.space import Mask
from optuna_hypernet.space import SearchSpace
from optuna_hypernet.surrogate.ensemble import Ensemble
from optuna_hypernet.surrogate.hypernetwork import Columns
from optuna_hypernet.surrogate.outcomes import Outcomes


N_DRAWS = 60


def choice(models: list[str]) -> SearchSpace:
    """Of a model, each of which owns two numbers."""
    numbers = {f"{model}{k}": FloatDistribution(0, 1) for model in models for k in range(2)}
    return SearchSpace({"model": CategoricalDistribution(models), **numbers})


def owned(space: SearchSpace, model: str) -> Mask:
    """What a trial of a model asks for."""
    return np.array([name == "model" or name[:-1] == model for name in space.names])


def drawn(
    trials: dict[str, tuple[int, float]], failed: str = "", fixed: str = ""
) -> Counter[str | None]:
    """Which model how often, after so many random trials of each on a slope above its level.

    Args:
        trials: By model.
        failed: The model whose trials have all failed.
        fixed: The model that the next trial has already.
    """
    models, rng = list(trials), np.random.default_rng(0)
    space = choice(models)
    which = rng.permutation(np.repeat(np.arange(len(models)), [n for n, _ in trials.values()]))
    active = np.array([owned(space, models[k]) for k in which])
    rows, at = rng.random(active.shape), space.names.index("model")
    rows[:, at] = space.centres(at, which)
    rows = np.where(active, rows, space.idle)
    levels = np.array([level for _, level in trials.values()])[which]
    values = levels + (rows * active)[:, np.arange(space.d) != at].sum(1)

    ok = np.array([models[k] != failed for k in which])
    row = np.full(space.d, np.nan)
    if fixed:
        row[at] = space.centres(at, np.array([models.index(fixed)]))[0]
    domain = Domain(space, Conditions(space, rows, active, ok), row)
    nothing, none = np.empty((len(ok), 0)), np.zeros(len(ok), dtype=bool)
    embedding = space.embed(rows, active)
    risk = Risks().condition(space, embedding, ~ok, nothing, embedding[:0])
    whole = Outcomes(values, none, np.zeros(len(ok)), nothing, np.full(len(ok), -1))
    outcomes = whole[ok]
    columns = Columns(space.owner, space.ranged, space.tilt)
    beliefs = Ensemble().condition(
        columns, embedding[ok], [outcomes], outcomes.places, silent(embedding[:0], none[:0])
    )
    seen = Seen(rows[ok], active[ok], outcomes.places)
    found = [
        draw_branch(domain, space, beliefs, risk, seen, np.random.default_rng(seed))
        for seed in range(N_DRAWS)
    ]
    names = {owned(space, model).tobytes(): model for model in models}
    return Counter(branch and names[branch.asked.tobytes()] for branch in found)


def test_log_ei_has_no_place_outside() -> None:
    space = choice(["net", "svm"])
    branch = Branch(owned(space, "net"))
    active = np.array([owned(space, "net"), owned(space, "svm"), owned(space, "net")])
    penalty, slope = branch.value_and_gradient(np.zeros(active.shape), active)

    assert branch.holds(active).tolist() == [True, False, True]
    assert penalty.tolist() == branch.value(np.zeros(active.shape), active).tolist()
    assert penalty[0] == penalty[2] == 0
    assert penalty[1] > 1e3
    assert not slope.any()


def test_best_of_a_branch_come_first_and_of_all_where_it_has_none() -> None:
    space = choice(["net", "svm", "forest"])
    net, svm, forest = (Branch(owned(space, model)) for model in ["net", "svm", "forest"])
    active = np.array([net.asked, svm.asked, net.asked, svm.asked])
    seen = Seen(np.arange(4.0)[:, None] + np.zeros(space.d), active, np.array([3, 0, 2, 1]))

    assert seen.of(net).best(8)[:, 0].tolist() == [2, 0]
    assert seen.of(svm).best(1)[:, 0].tolist() == [1]
    assert seen.of(forest) is seen.of(None) is seen
    assert seen.best(3)[:, 0].tolist() == [1, 3, 2]


@pytest.mark.parametrize(
    ("trials", "fixed"),
    [
        ({"net": (19, 0.0), "svm": (20, 0.0)}, ""),  # too early
        ({f"net{k}": (4, 0.0) for k in range(13)}, ""),  # too many
        ({"net": (20, 0.0), "svm": (20, 0.0)}, "net"),  # no choice
    ],
)
def test_otherwise_it_is_all_the_same(trials: dict[str, tuple[int, float]], fixed: str) -> None:
    assert drawn(trials, fixed=fixed) == {None: N_DRAWS}


def test_equal_branches_are_drawn_alike() -> None:
    found = drawn({"net": (20, 0.0), "svm": (20, 0.0)})

    assert min(found["net"], found["svm"]) >= N_DRAWS / 12
    assert found["net"] + found["svm"] == N_DRAWS


def test_akin_are_those_that_share_half() -> None:
    space = choice(["net", "svm"])
    names, net, svm = np.array(space.names), owned(space, "net"), owned(space, "svm")

    assert Branch(net).akin(net)
    assert not Branch(svm).akin(net)
    assert Branch(svm & (names != "svm0")).akin(net)
    assert Branch(svm | (names == "net0")).akin(net)


def test_a_branch_that_began_badly_is_gone_back_to() -> None:
    """But not when many trials say that it is bad."""
    few = drawn({"net": (40, 0.0), "svm": (3, 1.0)})["svm"]
    many = drawn({"net": (40, 0.0), "svm": (40, 1.0)})["svm"]

    assert N_DRAWS / 20 <= few <= N_DRAWS / 2
    assert many < few


def test_a_branch_that_fails_is_left() -> None:
    healthy = drawn({"forest": (20, 0.0), "net": (20, 0.0), "svm": (5, 0.1)})
    failing = drawn({"forest": (20, 0.0), "net": (20, 0.0), "svm": (5, 0.1)}, failed="svm")

    assert failing["svm"] < healthy["svm"] / 2


@pytest.mark.parametrize("seed", [0, 1])
def test_a_study_does_not_stay_where_it_began_well(seed: int) -> None:
    """Six numbers that must be right, beside a choice that is fair at once."""
    top = (0.85, 0.15, 0.8, 0.3, 0.75, 0.2)

    def objective(trial: Trial) -> float:
        if trial.suggest_categorical("model", ["fair", "good"]) == "fair":
            return 0.25 + 0.1 * sum((trial.suggest_float(x, 0, 1) - 0.3) ** 2 for x in "abcd")
        return 1.2 * max(abs(trial.suggest_float(f"x{k}", 0, 1) - at) for k, at in enumerate(top))

    study = optuna.create_study(sampler=HypernetSampler(seed=seed))
    study.optimize(objective, n_trials=75)
    late = [trial.params["model"] for trial in study.trials[40:]]

    assert late.count("good") >= 4
    assert late.count("fair") >= 18
