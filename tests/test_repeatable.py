"""Same seed, same suggestions: in a process, across processes, after pickling, after resuming."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial
from optuna.trial import TrialState
from problems import assert_in_range
from problems import every_kind
from problems import optimized
from problems import params_of

from optuna_hypernet import HypernetSampler


N_TRIALS = 14


def constant(trial: Trial) -> float:
    """All kinds of parameters, and nothing to learn."""
    every_kind(trial)
    return 1.0


def troubled(trial: Trial) -> float:
    """Complete, failed and pruned trials in turn."""
    value = every_kind(trial)
    trial.report(value, 0)
    if trial.number % 5 == 3:
        raise optuna.TrialPruned
    return float("nan") if trial.number % 5 == 4 else value


def two_objectives(trial: Trial) -> tuple[float, float]:
    """Now and then a trial fails."""
    value = every_kind(trial)
    return (float("nan") if trial.number % 5 == 4 else value), trial.params["float"]


def hypernet(seed: int | None = 0) -> HypernetSampler:
    return HypernetSampler(seed=seed, n_startup_trials=4)


# In one process.


@pytest.mark.parametrize("objective", [every_kind, constant, troubled])
def test_same_seed_same_suggestions(objective: Any) -> None:
    one, other = (optimized(hypernet(), objective, N_TRIALS) for _ in range(2))

    assert params_of(one) == params_of(other)


@pytest.mark.parametrize("objective", [every_kind, constant])
def test_other_seed_other_suggestions(objective: Any) -> None:
    one, other = (params_of(optimized(hypernet(seed), objective, N_TRIALS)) for seed in (0, 1))
    differ = [a != b for a, b in zip(one, other, strict=True)]

    assert all(differ[:4])
    assert sum(differ) >= N_TRIALS - 2  # the model may find the same corner twice


def test_no_seed_never_the_same() -> None:
    one, other = (params_of(optimized(hypernet(None), every_kind, 8)) for _ in range(2))

    assert all(a != b for a, b in zip(one, other, strict=True))


def test_copies_of_an_unused_sampler_without_seed_differ() -> None:
    sampler = hypernet(None)
    twin = pickle.loads(pickle.dumps(sampler))
    one, other = (params_of(optimized(each, every_kind, 8)) for each in (sampler, twin))

    # The first trial is RandomSampler's, whose copies are equal in Optuna.
    assert all(a != b for a, b in zip(one[1:], other[1:], strict=True))


def test_order_of_suggest_calls_does_not_matter() -> None:
    def backwards(trial: Trial) -> float:
        y = trial.suggest_float("y", -1, 1)
        return (trial.suggest_float("x", -1, 1) - 0.3) ** 2 + (y + 0.4) ** 2

    def forwards(trial: Trial) -> float:
        x = trial.suggest_float("x", -1, 1)
        return (x - 0.3) ** 2 + (trial.suggest_float("y", -1, 1) + 0.4) ** 2

    def started(objective: Any) -> list[dict[str, Any]]:
        study = optuna.create_study(sampler=hypernet())
        study.enqueue_trial({"x": 0.0, "y": 0.0})
        study.optimize(objective, n_trials=10)
        return params_of(study)

    assert started(forwards) == started(backwards)


def test_maximising_one_of_two_objectives_mirrors_minimising_both() -> None:
    def mirrored(trial: Trial) -> tuple[float, float]:
        one, other = two_objectives(trial)
        return one, -other

    both = ["minimize", "minimize"]
    down = optimized(hypernet(), two_objectives, N_TRIALS, directions=both)
    up = optimized(hypernet(), mirrored, N_TRIALS, directions=["minimize", "maximize"])

    assert params_of(up) == params_of(down)


def test_maximising_mirrors_minimising() -> None:
    down = optimized(hypernet(), every_kind, N_TRIALS)
    up = optimized(hypernet(), lambda trial: -every_kind(trial), N_TRIALS, direction="maximize")

    assert params_of(up) == params_of(down)


# Across processes.

_SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import optuna
from problems import optimized, params_of
from test_repeatable import N_TRIALS, hypernet, troubled
optuna.logging.set_verbosity(optuna.logging.ERROR)
print(json.dumps(params_of(optimized(hypernet(), troubled, N_TRIALS))))
"""


def test_same_in_processes_with_random_hash_seeds() -> None:
    here = params_of(optimized(hypernet(), troubled, N_TRIALS))
    for hash_seed in ("0", "1", "4321"):
        output = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(Path(__file__).parent)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=120,
        ).stdout

        assert json.loads(output) == here


# Copies.


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda study: pickle.loads(pickle.dumps(study))]
)
@pytest.mark.parametrize("after", [0, 2, 6])
def test_copy_in_mid_study_goes_on_alike(copied: Any, after: int) -> None:
    whole = optimized(hypernet(), troubled, N_TRIALS)
    study = optimized(hypernet(), troubled, after)
    twin = copied(study)
    for each in (study, twin):
        each.optimize(troubled, n_trials=N_TRIALS - after)

        assert params_of(each) == params_of(whole)


# Resuming.


@pytest.mark.parametrize(
    ("kind", "after"), [("journal", 1), ("journal", 3), ("journal", 7), ("sqlite", 6)]
)
def test_resumed_by_a_new_sampler(kind: str, after: int, tmp_path: Path) -> None:
    """The new sampler has seen nothing; it goes on as if nothing had happened."""

    def storage() -> Any:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/study.sqlite3"
        return JournalStorage(JournalFileBackend(str(tmp_path / "journal")))

    whole = optimized(hypernet(), troubled, 10)
    optuna.create_study(storage=storage(), study_name="s")
    for n_trials in (after, 10 - after):
        study = optuna.load_study(storage=storage(), study_name="s", sampler=hypernet())
        study.optimize(troubled, n_trials=n_trials)

    assert params_of(study) == params_of(whole)


@pytest.mark.parametrize(("objective", "count"), [(troubled, 1), (two_objectives, 2)])
def test_resumed_after_every_trial(objective: Any, count: int) -> None:
    """With an enqueued and an added trial on the way, beyond the checkpoints of the fits."""

    def driven(renewed: bool) -> list[dict[str, Any]]:
        study = optuna.create_study(sampler=hypernet(), directions=["minimize"] * count)
        for n in range(26):
            if n == 5:
                study.enqueue_trial({"float": 1.5})
            if n == 8:
                study.add_trial(study.trials[3])
            if renewed and n > 0:  # the first trial is the independent sampler's
                study.sampler = hypernet()
            study.optimize(objective, n_trials=1)
        return params_of(study)

    assert driven(renewed=True) == driven(renewed=False)


def test_resumed_study_does_not_repeat_its_first_trials() -> None:
    study = optimized(hypernet(), every_kind, 3)
    study.sampler = hypernet()
    study.optimize(every_kind, n_trials=3)

    assert len({repr(params) for params in params_of(study)}) == 6


# Reseeding and threads.


def test_reseeding_changes_suggestions() -> None:
    one, other = (optimized(hypernet(), every_kind, 6) for _ in range(2))
    other.sampler.reseed_rng()
    for study in (one, other):
        study.optimize(every_kind, n_trials=4)

    assert params_of(one)[:6] == params_of(other)[:6]
    assert params_of(one)[6:] != params_of(other)[6:]


def test_reseeding_changes_the_start() -> None:
    one, other = hypernet(), hypernet()
    other.reseed_rng()
    pairs = [params_of(optimized(each, every_kind, 4)) for each in (one, other)]

    assert all(a != b for a, b in zip(*pairs, strict=True))


def test_threads() -> None:
    study = optuna.create_study(sampler=hypernet())
    study.optimize(every_kind, n_trials=32, n_jobs=4)

    assert len(study.trials) == 32
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert_in_range(study.trials)


def test_threads_seldom_repeat_a_discrete_configuration() -> None:
    """Two threads may take the same one while neither is visible to the other; not more."""

    def objective(trial: Trial) -> float:
        return abs(trial.suggest_int("k", 0, 7) - 3) + abs(trial.suggest_int("m", 0, 7) - 5)

    study = optuna.create_study(sampler=hypernet())
    study.optimize(objective, n_trials=40, n_jobs=4)
    counts = Counter(repr(sorted(params.items())) for params in params_of(study))

    assert len(counts) >= 30
    assert max(counts.values()) <= 4
