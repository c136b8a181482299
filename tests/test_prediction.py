"""Hyper-training inside a study, on ridge regression, whose best response has a closed form."""

from __future__ import annotations

import copy
import logging
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from differences import finite_differences
from interruptions import Interrupted
from interruptions import interrupting
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.samplers import PartialFixedSampler
from optuna.trial import Trial
from optuna.trial import TrialState
from problems import assert_in_range
from problems import params_of
from scipy.special import ndtr
from scipy.special import ndtri
from scipy.stats import spearmanr
from torch import Tensor
from torch import nn

from optuna_hypernet import HypernetSampler
from optuna_hypernet import HyperTraining
from optuna_hypernet import Shaped
from optuna_hypernet import squared_norm
from optuna_hypernet.prediction import Informed
from optuna_hypernet.prediction import half_log
from optuna_hypernet.space import SearchSpace
from optuna_hypernet.training import Trained


D = 5
DECAY = FloatDistribution(1e-2, 1e1, log=True)
SPACE = {f"decay_{j}": DECAY for j in range(D)}
SEEDS = range(5)
ASKED = np.ones((100, D), dtype=bool)


def data(n: int, seed: int, slopes: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=draws, dtype=torch.float64)
    noise = torch.randn(n, 1, generator=draws, dtype=torch.float64)
    return x, x @ torch.tensor(slopes, dtype=torch.float64)[:, None] + 2 * noise


TRAIN = data(24, 0, (2.0, -1.5, 1.0, 0.0, 0.0))
VALID = data(200, 1, (2.0, -1.5, 1.0, 0.0, 0.0))
OTHER = data(200, 2, (0.0, 0.0, 0.0, 2.0, -3.0))  # as if it came from another problem


def squared(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def against(model: nn.Module, batch: Any) -> Tensor:
    return -squared(model, batch)


def decayed(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    decays = torch.stack([hp[f"decay_{j}"] for j in range(D)])
    return squared(model, batch) + (decays * model.weight[0].square()).sum()


def fast_adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.02)


def training(**changed: Any) -> HyperTraining:
    with torch.random.fork_rng():
        model = nn.Linear(D, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    arguments: dict[str, Any] = {
        "model": model,
        "search_space": SPACE,
        "train_loss": decayed,
        "valid_loss": squared,
        "train_data": [TRAIN],
        "valid_data": [VALID],
        "response": "mlp",
        "optimizer": fast_adam,
        "seed": 0,
    }
    return HyperTraining(**{**arguments, **changed})


def true_loss(params: dict[str, Any]) -> float:
    """Validation loss of the exact ridge solution: what full training ends at."""
    (x, y), (x_valid, y_valid) = TRAIN, VALID
    decays = torch.tensor([params[f"decay_{j}"] for j in range(D)], dtype=torch.float64)
    weights = torch.linalg.solve(x.T @ x / len(x) + torch.diag(decays), x.T @ y / len(x))
    return float((x_valid @ weights - y_valid).square().mean())


def objective(trial: Trial) -> float:
    return true_loss({name: trial.suggest_float(name, 1e-2, 1e1, log=True) for name in SPACE})


def quick(trial: Trial) -> float:
    """The same parameters, another loss."""
    values = [math.log10(trial.suggest_float(name, 1e-2, 1e1, log=True)) for name in SPACE]
    return float(np.square(values).sum())


@pytest.fixture(scope="module")
def learnt() -> HyperTraining:
    """Fitted already, so that no study fits it again."""
    made = training()
    made.fit(scale=0.2, finish=0)
    return made


@pytest.fixture(scope="module")
def predicted(learnt: HyperTraining) -> Trained:
    return Trained(learnt)


def bests(
    make: Callable[[], HyperTraining | None], seed: int, n_trials: int = 10, sign: float = 1.0
) -> np.ndarray:
    """The lowest loss after each trial ``(n_trials,)``; the score is ``sign`` times the loss."""
    study = optuna.create_study(
        sampler=HypernetSampler(seed=seed, training=make()),
        direction="minimize" if sign > 0 else "maximize",
    )
    study.optimize(lambda trial: sign * objective(trial), n_trials=n_trials)
    return np.minimum.accumulate([sign * trial.value for trial in study.trials])


def random_losses(n: int) -> np.ndarray:
    space, rows = SearchSpace(SPACE), np.random.default_rng(7).random((n, D))
    return np.array([true_loss(space.decode(row)) for row in rows])


# --- what it is worth


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    """``(seeds, trials)`` without a training."""
    return np.array([bests(lambda: None, seed, 14) for seed in SEEDS])


def test_a_prediction_is_worth_many_trials(learnt: HyperTraining, plain: np.ndarray) -> None:
    """Two trials with it end lower than nine without, on every seed, and near the optimum."""
    told = np.array([bests(lambda: copy.deepcopy(learnt), seed) for seed in SEEDS])
    lowest = min(plain.min(), told.min(), random_losses(2000).min())
    unit = np.median(random_losses(200)) - lowest

    assert (told[:, 1] <= plain[:, 8]).all()
    assert (told[:, 9] - lowest < 0.05 * unit).all()


def test_scores_that_are_maximised_turn_the_slope(
    learnt: HyperTraining, plain: np.ndarray
) -> None:
    told = bests(lambda: copy.deepcopy(learnt), 0, sign=-1.0)

    assert told[1] <= plain[0, 9]


@pytest.mark.parametrize(
    "wrong", [{"valid_loss": against}, {"valid_data": [OTHER]}], ids=["opposite", "other data"]
)
def test_a_wrong_prediction_costs_little(plain: np.ndarray, wrong: dict[str, Any]) -> None:
    """After 14 trials no more than a fifth of what random search leaves is lost, on average."""
    misled = training(**wrong)
    misled.fit(scale=0.2, finish=0)
    told = np.array([bests(lambda: copy.deepcopy(misled), seed, 14) for seed in SEEDS])
    unit = np.median(random_losses(200)) - random_losses(2000).min()

    assert np.mean(told[:, 13] - plain[:, 13]) < 0.2 * unit


def test_what_the_training_does_not_know_is_searched(learnt: HyperTraining) -> None:
    def with_rate(trial: Trial) -> float:
        rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
        return objective(trial) + (math.log10(rate) + 1) ** 2

    study = optuna.create_study(sampler=HypernetSampler(seed=0, training=copy.deepcopy(learnt)))
    study.optimize(with_rate, n_trials=12)

    assert abs(math.log10(study.best_params["rate"]) + 1) < 0.3
    assert true_loss(study.best_params) < np.quantile(random_losses(200), 0.1)


@pytest.mark.parametrize("loss_first", [True, False])
def test_of_two_objectives_one_may_be_the_predicted_loss(
    learnt: HyperTraining, loss_first: bool
) -> None:
    """Whichever it is, and although the other one falls where that rises."""

    def both(trial: Trial) -> list[float]:
        values = [objective(trial), -math.log10(trial.params["decay_0"])]
        return values if loss_first else values[::-1]

    sampler = HypernetSampler(seed=0, training=copy.deepcopy(learnt))
    study = optuna.create_study(sampler=sampler, directions=["minimize"] * 2)
    study.optimize(both, n_trials=12)
    values = np.array([trial.values for trial in study.trials])[:, :: 1 if loss_first else -1]

    assert study.trials[0].params == pytest.approx(learnt.params)
    assert values[:, 0].min() < np.quantile(random_losses(200), 0.05)
    assert values[:, 1].min() < -0.9  # of at most 10 ** 1


# --- the bridge


def around(prediction: Trained, n: int, spread: float) -> np.ndarray:
    """Rows ``(n, d)``, Gaussian about λ̂ in the coordinates of the response."""
    draws = np.random.default_rng(1).normal(size=(n, D))
    return np.asarray(ndtr(ndtri(prediction.centre) + spread * draws))


def test_interpolation_is_close_to_the_prediction(
    learnt: HyperTraining, predicted: Trained
) -> None:
    rows = around(predicted, 100, 0.5)
    exact = np.array([learnt.predict(predicted.space.decode(row)) for row in rows])

    assert spearmanr(exact, predicted.value(rows, ASKED)).statistic > 0.97


def test_prediction_orders_exact_trainings_around_the_training(predicted: Trained) -> None:
    rows = around(predicted, 100, 0.5)
    exact = [true_loss(predicted.space.decode(row)) for row in rows]

    assert spearmanr(exact, predicted.value(rows, ASKED)).statistic > 0.8


def test_gradient_of_the_informed_embedding_equals_finite_differences(
    predicted: Trained,
) -> None:
    """With parameters beside it, and where one that it needs is inactive: the column is 0."""
    space = SearchSpace(
        {**SPACE, "a_rate": FloatDistribution(0, 1), "width": IntDistribution(1, 9)}
    )
    informed = Informed(space, predicted)
    rng = np.random.default_rng(2)
    rows, active = rng.random((4, space.d)), np.ones((4, space.d), dtype=bool)
    active[3, space.names.index("decay_2")] = False
    weight = rng.normal(size=(4, len(informed.owner)))

    def total(flat: np.ndarray) -> float:
        return float((weight * informed.embed(flat.reshape(rows.shape), active)).sum())

    expected = finite_differences(total, rows.ravel(), 1e-6).reshape(rows.shape)
    np.testing.assert_allclose(informed.pull(weight, rows, active), expected, rtol=1e-4, atol=1e-5)
    assert (informed.embed(rows, active)[:, -1] != 0).tolist() == [True, True, True, False]


def test_half_log_keeps_order_and_tames_the_worst() -> None:
    losses = np.array([1.0, 2.0, 3.0, 4.0, 1e12, math.inf, math.nan])
    levels = half_log(losses)

    assert (np.diff(levels[:5]) > 0).all()
    assert levels[2] == 0.0
    assert (levels[5:] == levels[4]).all()
    assert levels[4] < 50


def test_nothing_to_predict_is_an_error() -> None:
    losses = np.array([1.0, math.nan, math.nan])

    with pytest.raises(FloatingPointError, match="not finite"):
        half_log(losses)


def test_a_fitted_training_is_not_fitted_again(learnt: HyperTraining) -> None:
    before = learnt.trained
    study_of(HypernetSampler(seed=0, training=learnt), 2)

    assert learnt.trained == before


# --- manners


def study_of(sampler: HypernetSampler, n_trials: int, objective: Any = quick) -> optuna.Study:
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    return study


def test_seed_repeats_and_pickle_goes_on(learnt: HyperTraining) -> None:
    make = lambda: HypernetSampler(seed=3, training=copy.deepcopy(learnt))  # noqa: E731
    whole = study_of(make(), 8)
    study = study_of(make(), 5)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    study.optimize(quick, n_trials=3)

    assert params_of(study) == params_of(whole)
    assert_in_range(study.trials)


def test_a_resumed_study_trains_anew_and_says_so(
    optuna_log: pytest.LogCaptureFixture,
) -> None:
    whole = study_of(HypernetSampler(seed=0, training=training()), 3)
    study = optuna.create_study(sampler=HypernetSampler(seed=0, training=training()))
    study.add_trials(whole.trials[:2])
    optuna.logging.set_verbosity(optuna.logging.INFO)
    with optuna_log.at_level(logging.INFO):
        study.optimize(quick, n_trials=1)

    said = [record for record in optuna_log.records if "hyper-trains" in record.message]
    assert [record.levelname for record in said] == ["INFO"]
    assert "2 finished trials" in said[0].message
    assert params_of(study) == params_of(whole)


def test_training_that_goes_astray_leaves_the_study_going(
    optuna_log: pytest.LogCaptureFixture,
) -> None:
    def far(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1e6)

    study = study_of(HypernetSampler(seed=0, training=training(optimizer=far)), 6)

    assert len(study.trials) == 6
    assert [r.levelname for r in optuna_log.records if "hyper-train" in r.message] == ["WARNING"]


@pytest.mark.parametrize("n_startup_trials", [0, 4])
def test_first_trial_is_where_the_fit_ended(learnt: HyperTraining, n_startup_trials: int) -> None:
    sampler = HypernetSampler(
        seed=0, n_startup_trials=n_startup_trials, training=copy.deepcopy(learnt)
    )
    first, second = params_of(study_of(sampler, 2))

    assert first == pytest.approx(learnt.params)
    assert second != first


@pytest.mark.parametrize("outside", [False, True])
def test_a_study_that_has_trials_comes_to_the_reached_params_once(
    learnt: HyperTraining, outside: bool
) -> None:
    """Enqueued defaults, or trials of another study: the sampler's own first trial is at λ̂."""
    sampler = HypernetSampler(seed=0, training=copy.deepcopy(learnt))
    study = optuna.create_study(sampler=sampler)
    if outside:
        study.add_trials(study_of(HypernetSampler(seed=1), 6).trials)
    else:
        study.enqueue_trial(dict.fromkeys(SPACE, 0.1))
    before = 6 if outside else 1
    study.optimize(quick, n_trials=12 - before)
    there = [params == pytest.approx(learnt.params) for params in params_of(study)]

    assert there.index(True) == before
    assert sum(there) == 1


def test_of_trials_that_start_together_one_is_at_the_reached_params(
    learnt: HyperTraining,
) -> None:
    study = optuna.create_study(sampler=HypernetSampler(seed=0, training=copy.deepcopy(learnt)))
    trials = [study.ask() for _ in range(3)]
    for trial in trials:
        objective(trial)

    assert [trial.params == pytest.approx(learnt.params) for trial in trials] == [1, 0, 0]


def test_conditional_params_are_tried_at_the_reached_ones(learnt: HyperTraining) -> None:
    def sometimes(trial: Trial) -> float:
        return quick(trial) if trial.suggest_categorical("model", ["a", "b"]) == "a" else 30.0

    study = optuna.create_study(sampler=HypernetSampler(seed=2, training=copy.deepcopy(learnt)))
    study.enqueue_trial({"model": "a", **dict.fromkeys(SPACE, 0.1)})
    study.enqueue_trial({"model": "b"})
    study.optimize(sometimes, n_trials=12)
    asked = [params for params in params_of(study)[1:] if params["model"] == "a"]
    learnt_params = [{name: params[name] for name in SPACE} for params in asked]

    assert learnt_params[0] == pytest.approx(learnt.params)
    assert sum(params == pytest.approx(learnt.params) for params in learnt_params) == 1


def test_a_fit_that_was_interrupted_is_begun_again() -> None:
    calm = study_of(HypernetSampler(seed=0, training=training()), 1)
    made = training(train_loss=interrupting(decayed, at=100))
    study = optuna.create_study(sampler=HypernetSampler(seed=0, training=made))
    with pytest.raises(Interrupted):
        study.optimize(quick, n_trials=1)
    assert made.trained == 0
    study.optimize(quick, n_trials=1)

    assert params_of(study)[1:] == params_of(calm)


def test_threads_share_one_training(learnt: HyperTraining) -> None:
    study = optuna.create_study(sampler=HypernetSampler(seed=0, training=copy.deepcopy(learnt)))
    study.optimize(objective, n_trials=8, n_jobs=4)

    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert_in_range(study.trials)


def test_without_all_of_its_parameters_there_is_no_prediction(learnt: HyperTraining) -> None:
    inner = HypernetSampler(seed=0, training=copy.deepcopy(learnt))
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        sampler = PartialFixedSampler({"decay_0": 0.5}, inner)
    study = optuna.create_study(sampler=sampler)
    study.optimize(quick, n_trials=6)

    assert {params["decay_0"] for params in params_of(study)} == {0.5}


def test_not_a_training() -> None:
    with pytest.raises(TypeError, match=r"must be a HyperTraining or None, got 'low-rank'"):
        HypernetSampler(training="low-rank")


def test_shaped_hyperparameters_cannot_be_suggested() -> None:
    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return squared(model, batch) + (hp["decays"] * model.weight.square()).sum()

    shaped = training(search_space={"decays": Shaped(DECAY, (1, D))}, train_loss=loss)
    with pytest.raises(ValueError, match=r"tensor-valued hyperparameters: \['decays'\]"):
        HypernetSampler(training=shaped)


def test_a_name_that_the_study_never_suggests(learnt: HyperTraining) -> None:
    def fewer(trial: Trial) -> float:
        return trial.suggest_float("decay_0", 1e-2, 1e1, log=True)

    with pytest.raises(ValueError, match=r"\['decay_1', 'decay_2', 'decay_3', 'decay_4'\], but"):
        study_of(HypernetSampler(training=copy.deepcopy(learnt)), 2, fewer)


def test_ranges_that_differ(learnt: HyperTraining) -> None:
    def wider(trial: Trial) -> float:
        trial.suggest_float("decay_1", 1e-3, 1e1, log=True)
        return quick_without_one(trial)

    def quick_without_one(trial: Trial) -> float:
        return sum(trial.suggest_float(n, 1e-2, 1e1, log=True) for n in SPACE if n != "decay_1")

    with pytest.raises(ValueError, match=r"'decay_1' is .*low=0\.001.*low=0\.01"):
        study_of(HypernetSampler(training=copy.deepcopy(learnt)), 2, wider)


def test_a_structured_response_predicts_around_where_it_ended() -> None:
    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return squared(model, batch) + (sum(hp.values()) * squared_norm(model)).mean()

    made = training(response="structured", train_loss=loss)
    made.fit(400)
    study = study_of(HypernetSampler(seed=0, training=copy.deepcopy(made)), 4)

    assert params_of(study)[0] == pytest.approx(made.params)
    assert_in_range(study.trials)


def test_functions_that_cannot_be_pickled_are_named() -> None:
    made = training(valid_loss=lambda model, batch: squared(model, batch))

    assert copy.deepcopy(made).predict(made.params) == made.predict(made.params)
    with pytest.raises(TypeError, match=r"valid_loss cannot be pickled.*state_dict\(\)"):
        pickle.dumps(HypernetSampler(training=made))
