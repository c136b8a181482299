"""Figures of the papers, small: on scikit-learn's digits, in seconds."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats


pytest.importorskip("sklearn", reason="pip install scikit-learn")
pytest.importorskip("matplotlib", reason="pip install matplotlib")

from benchmarks.hypertraining import data
from benchmarks.hypertraining import one_penalty
from benchmarks.hypertraining import ten_penalties
from benchmarks.hypertraining.norm_penalty import Path as PenaltyPath


ROOT = Path(__file__).parents[1]


# --- exact best responses


@pytest.mark.parametrize("n", [5, 40])  # fewer and more examples than features
def test_norm_penalised_least_squares_is_stationary(n: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 12)), rng.normal(size=(n, 3))
    path = PenaltyPath.of(x, y)
    largest = np.linalg.norm(x.T @ y)
    for t in (1e-3 * largest, 0.1 * largest, 0.9 * largest):
        w = path.weights(t)
        gradient = x.T @ (x @ w - y) + t * w / np.linalg.norm(w)
        assert np.abs(gradient).max() < 1e-8 * largest
    assert not path.weights(1.01 * largest).any()
    assert path.weights(0.99 * largest).any()


def test_converged_losses_are_those_of_long_training() -> None:
    problem = one_penalty.OnePenalty(data.digits(10, 300, 0), 0)
    training = problem.training(one_penalty.EVERYWHERE)
    trained = training.train({"penalty": np.e}, 3000).true_loss
    assert problem.converged(np.array([1.0]))[0] == pytest.approx(trained, rel=2e-3)


def test_ten_penalties_have_the_losses_of_long_training() -> None:
    problem = ten_penalties.TenPenalties(data.digits(200, 300, 0), 0)
    lambdas = np.random.default_rng(0).uniform(-3, 3, (1, 10))
    losses = (ten_penalties.train_loss, one_penalty.valid_loss)
    model = torch.nn.Linear(64, 10)
    training = ten_penalties.HyperTraining(
        model, ten_penalties.SPACE, *losses, [data.digits(200, 300, 0).train], problem.valid
    )
    trained = training.train({"penalty": np.exp(lambdas[0])}, 2000).true_loss
    assert problem.converged(lambdas)[0] == pytest.approx(trained, rel=2e-3)


# --- figures


def test_figure_2_predicts_the_converged_curve() -> None:
    one = one_penalty.learn_everywhere(one_penalty.OnePenalty(data.digits(10, 500, 0), 0), 1000)
    assert one.fit > 0.9
    assert abs(one.grid[one.truth.argmin()] - one.grid[one.prediction.argmin()]) <= 0.2
    assert one_penalty.plot([one], "seed").startswith("<svg")


def test_figure_6_orders_losses_that_nobody_showed_it() -> None:
    problem = ten_penalties.TenPenalties(data.digits(1000, 500, 0), 0)
    found = ten_penalties.predict(problem, 300, 60)
    ranks = {name: stats.spearmanr(found.truth, v).statistic for name, v in found.by.items()}
    assert ranks["stochastic hypernetwork"] > 0.8
    assert ranks["stochastic hypernetwork"] > ranks["GP on 25"]
    assert ten_penalties.plot(found).count("<svg") == 1


def test_an_unknown_figure_is_one_line() -> None:
    command = [sys.executable, "-m", "benchmarks", "figure", "hypertraining-9"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert re.fullmatch(r"error: unknown figure 'hypertraining-9'; there are: .*\n", run.stderr)
