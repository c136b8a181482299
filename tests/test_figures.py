"""Figures of the papers, small: on scikit-learn's digits, in seconds."""

import importlib
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optuna.distributions import FloatDistribution
from scipy import stats


pytest.importorskip("sklearn", reason="pip install scikit-learn")
pytest.importorskip("matplotlib", reason="pip install matplotlib")

from benchmarks import figure
from benchmarks import selftuning_cost
from benchmarks.hypertraining import budgets
from benchmarks.hypertraining import contenders
from benchmarks.hypertraining import data
from benchmarks.hypertraining import many_decays
from benchmarks.hypertraining import one_penalty
from benchmarks.hypertraining import surfaces
from benchmarks.hypertraining import ten_penalties
from benchmarks.hypertraining.norm_penalty import Path as PenaltyPath
from benchmarks.selftuning import budgets as selftuning_budgets
from benchmarks.selftuning import controls
from benchmarks.selftuning import dropout
from benchmarks.selftuning import learning
from benchmarks.selftuning import schedules
from benchmarks.selftuning import sweeps
from benchmarks.selftuning import theorems
from benchmarks.selftuning.problem import HIGHEST
from benchmarks.selftuning.problem import Problem
from optuna_hypernet import Shaped
from optuna_hypernet.bilevel.densities import At
from optuna_hypernet.bilevel.plans import Plan
from optuna_hypernet.coordinates import Coordinates


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
    batches = [data.digits(200, 300, 0).train], problem.valid
    training = ten_penalties.HyperTraining(
        problem.model, ten_penalties.SPACE, *losses, *batches, seed=0
    )
    trained = training.train({"penalty": np.exp(lambdas[0])}, 4000).true_loss
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


def test_figure_3_learns_the_tangent() -> None:
    one = surfaces.learn(0, 1500, 0.1)
    assert one.slope == pytest.approx(-1, abs=0.05)
    assert one.lowest == pytest.approx(-surfaces.TARGET, abs=0.05)
    assert surfaces.plot(one).startswith("<svg")


@pytest.mark.parametrize("name", ["implicit", "unrolled"])
def test_contenders_of_figure_5_have_the_gradient_of_ridge(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of plain gradient descent on λ, against dL_V(w*(λ))/dλ in closed form."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 3, generator=rng), torch.randn(20, 1, generator=rng)
    x_valid, y_valid = torch.randn(20, 3, generator=rng), torch.randn(20, 1, generator=rng)
    space = {"weight": Shaped(FloatDistribution(0.1, 10.0, log=True), (1, 3))}
    coordinates = Coordinates(space, torch.float32)

    def weights(z: torch.Tensor) -> torch.Tensor:
        decay = torch.diag(coordinates.natural(z)["weight"][0])
        return torch.linalg.solve(x.T @ x / 20 + decay, x.T @ y / 20)[:, 0]

    def squared(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return (model(batch[0]) - batch[1]).square().mean()

    def loss(model: torch.nn.Module, batch: Any, hp: Any) -> torch.Tensor:
        return squared(model, batch) + (hp["weight"] * model.weight.square()).sum()

    z = torch.zeros(3)
    exact = torch.autograd.functional.jacobian(
        lambda z: (x_valid @ weights(z)[:, None] - y_valid).square().mean(), z
    )
    model = torch.nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(weights(z)[None])  # converged: truncation and warm-up add nothing
    seen: list[torch.Tensor] = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            seen.append(self.param_groups[0]["params"][0].grad.clone())

    monkeypatch.setattr(contenders, "UNROLLED", 300)
    monkeypatch.setattr(contenders, "TERMS", 300)
    data_of = [(x, y)], [(x_valid, y_valid)]
    optimizers = partial(torch.optim.SGD, lr=0.0), partial(Watched, lr=0.0)
    settings = (coordinates, loss, squared, *data_of, *optimizers, 0)
    for _ in contenders.CONTENDERS[name](
        contenders.Setting(*settings), model, z, Plan(At(), 1, 0, 1, 1)
    ):
        pass
    torch.testing.assert_close(seen[0], exact, rtol=2e-2, atol=1e-4)


def test_figure_5_in_small() -> None:
    problem = many_decays.ManyDecays(data.digits(200, 800, 0), (), 0)
    curve = problem.race("hypernetwork", 300)
    assert (np.diff(curve.seconds) > 0).all()
    assert curve.valid.min() < curve.valid[0]
    assert curve.chosen[0] == curve.valid.min()
    assert curve.reaches(curve.valid.min()) <= curve.seconds[-1]
    assert curve.reaches(0.0) == np.inf
    assert many_decays.step_costs(problem, 20)["diagonal, two λ"] > 1  # two passes to one
    assert many_decays.plot({"64-10": {"hypernetwork": curve}}).startswith("<svg")


def test_a_run_from_the_best_single_decay_does_not_end_worse() -> None:
    problem = many_decays.ManyDecays(data.digits(200, 800, 0), (), 0)
    decay, valid, _ = problem.one_decay(300)
    assert any(decay == pytest.approx(one) for one in many_decays.GRID)
    assert problem.tuned_from(decay, 300)[0] <= 1.005 * valid


def test_figure_7_in_small() -> None:
    problem = many_decays.ManyDecays(data.digits(200, 300, 0), (), 0)
    problem.space = {"0.weight": Shaped(many_decays.DECAY, (10, 1))}
    rows = budgets.compare(problem, 60)
    assert rows.keys() == budgets.COLOURS.keys()
    for path in rows.values():
        assert [row[1] for row in path] == sorted((row[1] for row in path), reverse=True)


# --- self-tuning


def test_gates_are_a_best_response_and_no_other_ones_are() -> None:
    """The closed form has the least loss and no slope; gates of another λ have not."""
    problem = theorems.diabetes(0)
    found = theorems.gating(problem, theorems.LAMBDAS)
    assert max(found.weights, found.loss, found.gradient) < 1e-6
    shifted = theorems.GatedNet.of(problem)
    at = torch.tensor(0.0, dtype=torch.float64)
    s, q = shifted.best_response(at + 0.1)
    exact = problem.best_response(at)
    assert theorems.relative(q.T @ s, exact) > 0.01
    least = theorems.net_loss(problem, *shifted.best_response(at), at)
    assert theorems.net_loss(problem, s, q, at) > least


def test_best_responses_of_the_theorems_are_stationary() -> None:
    problem = theorems.diabetes(1)
    for value in (-4.0, 0.0, 3.0):
        at = torch.tensor(value, dtype=torch.float64)
        slope = torch.func.grad(problem.train_loss)(problem.best_response(at), at)
        assert slope.norm() < 1e-10 * problem.x.T.matmul(problem.y).norm()


def test_jacobians_are_exact_where_the_loss_is_quadratic_and_biased_where_not() -> None:
    """The measured table of ridge on diabetes: relative errors, to its two digits."""
    table = {  # of weights, Jacobian, dL_V/dλ, and dL_V/dλ of Delta-STN
        0.1: (0.0006, 0.002, 0.004, 0.002),
        0.3: (0.005, 0.018, 0.035, 0.016),
        0.5: (0.013, 0.050, 0.09, 0.04),
        1.0: (0.044, 0.19, 0.31, 0.10),
        2.0: (0.19, 0.60, 0.48, -0.12),
    }
    rows = {scale: theorems.bias(theorems.diabetes(0), scale) for scale in table}
    for scale, (weights, jacobian, *slopes) in table.items():
        row = rows[scale]
        assert (row.weights, row.jacobian) == pytest.approx((weights, jacobian), rel=0.1)
        got = [row.hypergradient, row.centred]
        assert got == pytest.approx(slopes, rel=0.05, abs=5e-4)  # half of 0.1 %
    assert rows[2.0].jacobian == pytest.approx(0.60, rel=0.02)
    assert max(row.quadratic for row in rows.values()) < 1e-10
    assert theorems.plot(theorems.diabetes(0), list(rows.values())).startswith("<svg")


def small(epochs: int = 9) -> tuple[Problem, int]:
    """A narrow network on 500 digits, and some epochs."""
    return dropout.problem(data.digits(500, 500, 0), 0, hidden=30), epochs


def test_a_constant_schedule_is_training_at_these_rates() -> None:
    problem, epochs = small(4)
    rates = dict.fromkeys(dropout.RATES, 0.2)
    run = problem.hold(rates, epochs)
    plain = problem.training().train(rates, 5 * epochs)
    assert run.losses[-1] == pytest.approx(plain.true_loss)
    np.testing.assert_allclose(run.values, 0.2, atol=1e-6)
    assert run.valid == pytest.approx(run.losses.min(), rel=0.006)  # ties: the last one
    with torch.no_grad():
        test = problem.valid_loss(run.tuned.model, problem.test[0])
    assert run.test == pytest.approx(float(test))


def test_a_schedule_has_its_rates_at_the_end_of_every_epoch() -> None:
    """An epoch ends at its own rates: they are those of the exported model, too."""
    problem, _ = small()
    rows = np.random.default_rng(0).uniform(0.1, 0.8, (5, 3))
    run = problem.follow(rows)
    np.testing.assert_allclose(run.values, rows, atol=1e-5)
    kept = [run.tuned.model.get_submodule(name.removesuffix(".p")).p for name in dropout.RATES]
    assert np.abs(rows - kept).max(1).min() < 1e-5
    assert problem.follow(rows + 0.5).values.max() <= HIGHEST


def test_schedules_of_a_single_rate_meet_from_five_starts() -> None:
    split = data.digits(500, 500, 0)
    problem = dropout.problem(split, 0, hidden=30, tuned=[dropout.LAST])
    runs = schedules.from_starts(problem, 40)
    distances = schedules.apart(problem, runs)[:, 0]
    assert distances[0] == pytest.approx(max(schedules.STARTS) - min(schedules.STARTS), abs=0.05)
    assert distances[-1] < 0.1
    schedules.tell(problem, runs)
    assert schedules.plot({(dropout.LAST,): runs}).startswith("<svg")


def test_both_ways_to_learn_in_small() -> None:
    problem, epochs = small(20)
    runs = learning.compare(problem, epochs)
    assert len(runs) == len(learning.COLOURS) * len(learning.STARTS)
    for start in learning.STARTS:
        one, two = (runs[response, start] for response in learning.COLOURS)
        assert np.abs(one.values - two.values).max() > 0
        assert max(one.valid, two.valid) < 0.9 * np.log(10)  # of an even guess
    assert learning.plot(runs).startswith("<svg")


def test_each_setting_of_the_sweeps_counts() -> None:
    """Little entropy narrows the spread, much widens it; valid steps move λ̂ less if fewer."""
    problem, epochs = small()
    runs = sweeps.sweep(problem, epochs)
    assert {name for name, _ in runs} == sweeps.SWEEPS.keys()
    for name, (*_, low, high) in sweeps.SWEEPS.items():
        assert runs[name, low].losses[-1] != runs[name, high].losses[-1]
    widths = [
        sum(runs["entropy", tau].tuned.path[-1].spread.values())
        for tau in sweeps.SWEEPS["entropy"]
    ]
    assert widths[0] < widths[-1]
    moved = [np.abs(runs["ratio", n].values - dropout.START).max() for n in (1, 8)]
    assert moved[0] > moved[1]
    assert sweeps.plot([runs]).startswith("<svg")


def test_table_1_in_small() -> None:
    problem, epochs = small()
    runs = controls.controls(problem, problem.tune(problem.start, epochs))
    assert runs.keys() == controls.COLOURS.keys()
    tuned, held = runs["self-tuned"].values, runs["last value"].values
    np.testing.assert_allclose(held, np.tile(tuned[-1], (len(held), 1)), atol=1e-5)
    np.testing.assert_allclose(runs["schedule replayed"].values, tuned, atol=1e-5)
    noisy = runs["last value, Gaussian"].values - held
    assert 0 < noisy.std() < 2 * controls.GAUSSIAN
    assert controls.plot(problem, runs).startswith("<svg")


def test_table_2_in_small() -> None:
    problem, epochs = small()
    found = selftuning_budgets.compare(problem, problem.tune(problem.start, epochs))
    assert found.keys() == selftuning_budgets.COLOURS.keys()
    for path in found.values():
        assert (np.diff(path.valid) <= 0).all()
        assert (path.began < path.seconds).all()
        count, valid, test = path.within(path.seconds[-1])
        assert (count, valid, test) == (len(path.valid), path.valid[-1], path.test[-1])


def test_the_cost_of_a_step_is_counted_right() -> None:
    """Twice the weights and biases, and a gate per unit of each and hyperparameter."""
    net = selftuning_cost.NETS["784-300-300-10"]
    weights, units = 784 * 300 + 300 * 300 + 300 * 10 + 610, 2 * 610
    assert selftuning_cost.parameters(net, "plain") == weights
    assert selftuning_cost.parameters(net, "self-tuned") == 2 * weights + 3 * units
    narrow = selftuning_cost.Net(net.build, 20, net.shape)
    spent = selftuning_cost.seconds(narrow, 20)
    assert min(spent["self-tuned"], spent["delta"]) > spent["plain"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_a_step_holds_its_weights_at_least() -> None:
    name = "784-300-300-10"
    numbers = selftuning_cost.parameters(selftuning_cost.NETS[name], "self-tuned")
    with_moments = 4 * 4 * numbers / 2**20  # gradients, and two of Adam's
    assert with_moments < selftuning_cost.memory(name, "self-tuned") < 10 * with_moments


@pytest.mark.parametrize("place", [*figure.FIGURES.values(), *figure.FULL.values()])
def test_every_figure_can_be_called(place: str) -> None:
    module, function = place.split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_an_unknown_figure_is_one_line() -> None:
    command = [sys.executable, "-m", "benchmarks", "figure", "hypertraining-9"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert re.fullmatch(r"error: unknown figure 'hypertraining-9'; there are: .*\n", run.stderr)
