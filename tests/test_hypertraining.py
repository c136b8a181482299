"""The bilevel loop against closed forms, and HyperTraining's manners."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from interruptions import Interrupted
from interruptions import interrupting
from interruptions import moved
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from torch import Tensor
from torch import nn
from torch.utils.data import BatchSampler
from torch.utils.data import DataLoader
from torch.utils.data import RandomSampler
from torch.utils.data import TensorDataset
from torch.utils.data import WeightedRandomSampler

from optuna_hypernet.bilevel.densities import Around
from optuna_hypernet.bilevel.densities import At
from optuna_hypernet.bilevel.densities import Everywhere
from optuna_hypernet.bilevel.densities import Together
from optuna_hypernet.bilevel.loop import Bilevel
from optuna_hypernet.bilevel.optimizers import BlockAdam
from optuna_hypernet.bilevel.optimizers import in_words
from optuna_hypernet.bilevel.plans import Plan
from optuna_hypernet.bilevel.problem import Problem
from optuna_hypernet.bilevel.tuned import Point
from optuna_hypernet.bilevel.tuned import Tuned
from optuna_hypernet.coordinates import Blocks
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.coordinates import Shaped
from optuna_hypernet.hypertraining import HyperTraining
from optuna_hypernet.randomness import generator
from optuna_hypernet.response.hypernetworks import hypernetwork
from optuna_hypernet.response.layers import squared_norm
from optuna_hypernet.response.weights import Weights


DECAY = FloatDistribution(1e-3, 1e1, log=True)
SPACE = {"decay": DECAY}
BOTH = {"decay": DECAY, "scales": Shaped(FloatDistribution(0.5, 2.0), (3,))}


def squared(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def ridge_loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    return squared(model, batch) + hp["decay"] * model.weight.square().sum()


def optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.02)


def drawn(size: int, number: int = 0) -> Tensor:
    return torch.randn(size, generator=generator(number), dtype=torch.float64)


class Ridge:
    """min_w |X w - y|²/n + λ |w|²: the best response, its slope and the validation loss."""

    def __init__(self) -> None:
        seed = torch.Generator().manual_seed(3)
        x = torch.randn(60, 3, generator=seed, dtype=torch.float64)
        y = x @ torch.tensor([1.0, -2.0, 0.5]).double()[:, None]
        y += 2.0 * torch.randn(60, 1, generator=seed, dtype=torch.float64)
        self.train, self.valid = (x[:12], y[:12]), (x[12:], y[12:])
        with torch.random.fork_rng():
            self.model = nn.Linear(3, 1, bias=False).double()
        nn.init.zeros_(self.model.weight)

    def weights(self, decay: Tensor) -> Tensor:
        """w*(λ), ``(3,)``, differentiable in λ."""
        x, y = self.train
        eye = torch.eye(3, dtype=torch.float64)
        return torch.linalg.solve(x.T @ x / len(x) + decay * eye, x.T @ y / len(x))[:, 0]

    def valid_loss(self, decay: Tensor) -> Tensor:
        x, y = self.valid
        return (x @ self.weights(decay)[:, None] - y).square().mean()

    def best_decay(self) -> float:
        decays = torch.logspace(-3, 1, 4001, dtype=torch.float64)
        losses = torch.stack([self.valid_loss(decay) for decay in decays])
        return float(decays[losses.argmin()])

    def training(self, **changed: Any) -> HyperTraining:
        arguments: dict[str, Any] = {
            "model": self.model,
            "search_space": SPACE,
            "train_loss": ridge_loss,
            "valid_loss": squared,
            "train_data": [self.train],
            "valid_data": [self.valid],
            "response": "linear",
            "optimizer": optimizer,
            "seed": 0,
        }
        return HyperTraining(**{**arguments, **changed})


RIDGE = Ridge()


def parts(
    response: str = "linear", space: Any = SPACE, z: float = 0.3
) -> tuple[Ridge, Weights, Coordinates, Bilevel]:
    ridge = Ridge()
    coordinates = Coordinates(space)
    weights = Weights(ridge.model, ridge_loss, squared, torch.device("cpu"))
    made = hypernetwork(response, coordinates.D, weights.n_weights, generator(0))
    weights.hypernetwork = made.double()
    data = ([ridge.train], [ridge.valid])
    problem = Problem(
        coordinates, *data, optimizer, optimizer, torch.device("cpu"), 0, lambda model: weights
    )
    start = torch.full((coordinates.D,), z, dtype=torch.float64)
    return ridge, weights, coordinates, problem.bilevel(weights, start)


# --- closed forms


def test_hypergradient_of_the_tangent_is_that_of_the_best_response() -> None:
    """φ set to w*(λ̂) and its Jacobian: the valid step's gradient is dL_V(w*(λ))/dλ."""
    ridge, weights, coordinates, bilevel = parts()
    z = bilevel.z.detach()

    def exact(z: Tensor) -> Tensor:
        return ridge.weights(coordinates.natural(z)["decay"])

    slope = torch.autograd.functional.jacobian(exact, z)  # (P, 1)
    with torch.no_grad():
        weights.hypernetwork.slope.copy_(slope)
        weights.hypernetwork.offset.copy_(exact(z) - slope @ z)
    got = torch.autograd.grad(weights.valid_loss(bilevel.z, ridge.valid), bilevel.z)[0]

    def loss(z: Tensor) -> Tensor:
        return ridge.valid_loss(coordinates.natural(z)["decay"])

    torch.testing.assert_close(got, torch.autograd.functional.jacobian(loss, z))
    differences = (loss(z + 1e-5) - loss(z - 1e-5)) / 2e-5
    torch.testing.assert_close(got[0], differences, rtol=1e-6, atol=1e-9)


def test_train_steps_learn_the_jacobian_of_ridge() -> None:
    ridge, weights, coordinates, bilevel = parts()
    z = bilevel.z.detach()
    for step in range(1500):
        bilevel.resize(1 - step / 1500, 1)
        bilevel.train_step(Around(0.1), 2)

    def exact(z: Tensor) -> Tensor:
        return ridge.weights(coordinates.natural(z)["decay"])

    torch.testing.assert_close(weights.at(z[None])[0], exact(z), rtol=0.02, atol=5e-3)
    slope = torch.autograd.functional.jacobian(exact, z)
    torch.testing.assert_close(weights.hypernetwork.slope.detach(), slope, rtol=0.1, atol=0)


def test_joint_training_reaches_the_best_decay_of_ridge() -> None:
    ridge = Ridge()
    best = ridge.best_decay()
    assert 0.02 < best < 5
    for start in (best / 15, min(best * 15, 10)):
        tuned = ridge.training(start={"decay": start}).fit(1500)
        assert abs(math.log(tuned.params["decay"] / best)) < 0.15
        closed = ridge.weights(torch.tensor(tuned.params["decay"]))
        torch.testing.assert_close(tuned.model.weight[0], closed, rtol=1e-3, atol=1e-3)
        assert tuned.true_loss == pytest.approx(float(ridge.valid_loss(torch.tensor(best))), 1e-3)


def test_a_start_at_an_end_of_the_range_is_left() -> None:
    """At the very end the loss no longer depends on the coordinate."""
    tuned = RIDGE.training(start={"decay": DECAY.low}).fit(1500)
    assert abs(math.log(tuned.params["decay"] / RIDGE.best_decay())) < 0.3
    assert not tuned.at_bound


def test_simplified_joint_training_comes_near() -> None:
    ridge = Ridge()
    tuned = ridge.training().fit_simplified(1500)
    assert abs(math.log(tuned.params["decay"] / ridge.best_decay())) < 1.0


def test_global_training_predicts_everywhere_and_descends() -> None:
    ridge = Ridge()
    training = ridge.training(response="mlp")
    tuned = training.fit_globally(2000)
    for decay in (0.003, 0.03, 0.3, 3.0):
        truth = float(ridge.valid_loss(torch.tensor(decay)))
        assert training.predict({"decay": decay}) == pytest.approx(truth, rel=5e-3)
        model = training.best_response({"decay": decay})
        assert squared(model, ridge.valid).item() == training.predict({"decay": decay})
    assert abs(math.log(tuned.params["decay"] / ridge.best_decay())) < 0.3


def test_a_global_hypernetwork_reaches_the_best_response_everywhere() -> None:
    """The theorem's setting (section 2.2): L_T = (w - 1)² + λ (w + 1)², linear in λ.

    The best response (1 - λ) / (1 + λ) is unique and continuous.
    """

    class Number(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros((), dtype=torch.float64))

    training = HyperTraining(
        Number(),
        {"penalty": FloatDistribution(0.0, 3.0)},
        lambda model, batch, hp: (model.w - 1) ** 2 + hp["penalty"] * (model.w + 1) ** 2,
        lambda model, batch: (model.w - 0.25) ** 2,
        [0],
        [0],
        response="mlp",
        optimizer=optimizer,
        seed=0,
    )
    tuned = training.fit_globally(2000)
    for penalty in torch.linspace(0, 3, 31).tolist():
        w = training.best_response({"penalty": penalty}).w.item()
        assert w == pytest.approx((1 - penalty) / (1 + penalty), abs=0.03)
    assert tuned.params["penalty"] == pytest.approx(0.6, abs=0.02)  # w*(0.6) = 0.25


def test_cross_validation_takes_the_best_candidate() -> None:
    ridge = Ridge()
    candidates = [{"decay": decay} for decay in (0.002, 0.05, 0.4, 9.0)]
    tuned = ridge.training().cross_validate(candidates, steps=1500)
    truth = [float(ridge.valid_loss(torch.tensor(one["decay"]))) for one in candidates]
    assert [p.predicted_loss for p in tuned.path] == pytest.approx(truth, rel=1e-4)
    assert tuned.true_loss == min(point.predicted_loss for point in tuned.path)
    drawn = ridge.training().cross_validate(4, steps=5)
    assert len({point.params["decay"] for point in drawn.path}) == 4


def test_a_candidate_without_a_loss_is_not_the_best() -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        return torch.where(model.weight.abs().sum() > 1, squared(model, batch), math.nan)

    candidates = [{"decay": 10.0}, {"decay": 0.01}, {"decay": 0.1}]
    start = nn.Linear(3, 1, bias=False).double()
    nn.init.ones_(start.weight)
    best = RIDGE.training(model=start, valid_loss=loss).cross_validate(candidates, 500)
    assert math.isnan(best.path[0].predicted_loss)
    assert best.params["decay"] < 10


def test_one_decay_per_weight_beats_the_best_common_one() -> None:
    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return squared(model, batch) + (hp["decay"] * model.weight[0].square()).sum()

    ridge = Ridge()
    tuned = ridge.training(search_space={"decay": Shaped(DECAY, (3,))}, train_loss=loss).fit(1500)
    assert tuned.params["decay"].shape == (3,)
    closed = ridge.weights(torch.from_numpy(tuned.params["decay"]))
    torch.testing.assert_close(tuned.model.weight[0], closed, rtol=1e-3, atol=1e-3)
    assert tuned.true_loss < float(ridge.valid_loss(torch.tensor(ridge.best_decay()))) - 0.01


@pytest.mark.parametrize(
    ("shared", "steps", "weights", "small"), [(0.0, 1500, 0.02, 0.0), (0.3, 3000, 0.03, 0.05)]
)
def test_a_diagonal_response_learns_slopes_of_separate_weights_and_of_all(
    shared: float, steps: int, weights: float, small: float
) -> None:
    """Ridge with a decay per weight: w* = (G + diag λ)⁻¹ b.

    Of all decays together it learns the very slope, of a weight's own one that knows no other
    weight: right where inputs share nothing. (Of three, what is apart has correlations of -1/3.)
    """
    scales = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    target = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    gram = scales.diag() + shared * (1 - torch.eye(3))
    root = torch.linalg.cholesky(gram).T * 3**0.5
    model = nn.Linear(3, 1, bias=False).double()
    data = [(root, 3 * torch.linalg.solve(root.T, target[:, None]))]

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return squared(model, batch) + (hp["weight"] * model.weight.square()).sum()

    def exact(z: Tensor) -> Tensor:
        decays = training.coordinates.natural(z)["weight"][0]
        return torch.linalg.solve(gram + decays.diag(), target)

    space = {"weight": Shaped(DECAY, (1, 3))}
    given = {"train_data": data, "valid_data": data, "optimizer": optimizer, "seed": 0}
    held = {"hyper_optimizer": lambda z: torch.optim.SGD(z, lr=0.0)}
    training = HyperTraining(model, space, loss, squared, response="diagonal", **given, **held)
    training.fit(steps, scale=0.05, patience=steps, finish=0)
    response, z = training.state_dict()["phi"], torch.zeros(3).double()
    reached = response["offset"] + model.weight[0].detach()
    torch.testing.assert_close(reached, exact(response["centre"]), rtol=weights, atol=0)
    slopes = torch.autograd.functional.jacobian(exact, z)
    torch.testing.assert_close(response["common"], slopes.sum(1), rtol=0.05, atol=0)
    decays = training.coordinates.natural(z)["weight"][0]
    curvatures = gram + decays.diag()
    forces = (curvatures @ slopes).diag()  # -M, which is diagonal
    apart = torch.eye(3).double() - 1 / 3
    alone = torch.linalg.solve(curvatures * apart, 2 / 3 * forces)
    torch.testing.assert_close(response["slope"], alone, rtol=0.05, atol=small)


def test_decays_of_weights_that_stand_for_each_other_end_below_the_best_single_one() -> None:
    """Sixteen inputs, of two kinds: a slope for each decay alone is too small by far."""

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return squared(model, batch) + (hp["weight"] * model.weight.square()).sum()

    def rows(count: int, number: int) -> tuple[Tensor, Tensor]:
        seed = generator(number)
        kinds, noise, errors = (
            torch.randn(count, columns, generator=seed, dtype=torch.float64)
            for columns in (2, 16, 1)
        )
        x = kinds.repeat_interleave(8, 1) + 0.3 * noise
        return x, kinds[:, :1] - kinds[:, 1:] + 1.5 * errors

    def with_one(decay: Tensor) -> float:
        x, y = train
        penalty = decay * torch.eye(16, dtype=torch.float64)
        w = torch.linalg.solve(x.T @ x / len(x) + penalty, x.T @ y / len(x))
        return float((valid[0] @ w - valid[1]).square().mean())

    train, valid = rows(20, 0), rows(200, 1)
    best = min(map(with_one, torch.logspace(-3, 1, 100, dtype=torch.float64)))
    model = nn.Linear(16, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    training = RIDGE.training(
        model=model,
        search_space={"weight": Shaped(DECAY, (1, 16))},
        train_loss=loss,
        train_data=[train],
        valid_data=[valid],
        response="diagonal",
    )
    assert training.fit(700).true_loss < best


def test_means_and_what_is_apart_are_moved_by_two_adams() -> None:
    """Against torch's own, of two leaves that the coordinates are made of."""
    blocks = Blocks((3, 1, 2))
    z = nn.Parameter(drawn(6))
    means, apart = nn.Parameter(torch.zeros(3).double()), nn.Parameter(z.detach().clone())
    optimizers = [BlockAdam([z], blocks, lr=0.1, common=3.0, decay=0.0)]
    optimizers += [torch.optim.Adam([means], lr=0.3), torch.optim.Adam([apart], lr=0.1)]
    for number in range(5):
        gradient = drawn(6, number=number)
        z.grad, means.grad = gradient, torch.stack([g.sum() for g in gradient.split([3, 1, 2])])
        each = [g - g.mean() for g in gradient.split([3, 1, 2])]
        apart.grad = torch.cat(each)
        for optimizer in optimizers:
            optimizer.step()
    slow = apart + means.repeat_interleave(torch.tensor([3, 1, 2]))
    torch.testing.assert_close(z.detach(), slow.detach())


def test_what_is_apart_decays_and_means_do_not() -> None:
    blocks = Blocks((3, 2))
    z = nn.Parameter(drawn(5))
    before = z.detach().clone()
    optimizer = BlockAdam([z], blocks, lr=0.1, decay=2.0)
    z.grad = torch.zeros_like(z)
    optimizer.step()
    means = blocks.spread(blocks.means(before))
    torch.testing.assert_close(z.detach(), means + 0.8 * (before - means))


# --- steps


@pytest.mark.parametrize("response", ["linear", "low-rank", "mlp"])
def test_each_step_moves_its_own_and_nothing_else(response: str) -> None:
    *_, bilevel = parts(response)
    for _ in range(3):  # until all buffers are there
        bilevel.train_step(Around(0.1), 2)
        bilevel.valid_step()

    start = copy.deepcopy(bilevel.state_dict())
    bilevel.train_step(Around(0.1), 2)
    middle = copy.deepcopy(bilevel.state_dict())
    bilevel.valid_step()
    end = bilevel.state_dict()

    assert moved(start["phi"], middle["phi"])
    assert moved(middle["z"], end["z"])
    assert not moved(start["z"], middle["z"])
    assert not moved(start["hyper_optimizers"], middle["hyper_optimizers"])
    assert not moved(middle["phi"], end["phi"])
    assert not moved(middle["optimizers"], end["optimizers"])


def test_no_gradient_is_left_behind() -> None:
    _, weights, _, bilevel = parts()
    bilevel.train_step(Around(0.1), 2)
    bilevel.valid_step()
    assert bilevel.z.grad is None
    assert all(p.grad is None for p in weights.hypernetwork.parameters())


def test_plans_do_what_they_say() -> None:
    plan = Plan(At(), 1, warm_up=4, cycles=3, ratio=2)
    ticks = [plan.tick(number) for number in range(plan.ticks)]
    assert ticks == [(1, 0)] * 4 + [(2, 1)] * 3
    assert plan.train_steps == sum(train for train, _ in ticks) == 10
    factors = [plan.decay(number) for number in range(plan.ticks)]
    assert factors[0] == (1.0, 1.0)
    assert factors == sorted(factors, reverse=True)
    assert 0 < factors[-1][0] < 0.5


def test_moving_the_centre_leaves_the_response_where_it_is() -> None:
    for name in ("linear", "low-rank"):
        _, weights, _, bilevel = parts(name)
        for _ in range(5):
            bilevel.train_step(Around(0.5), 2)
        z = torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None]
        before = weights.at(z)
        weights.recentre(torch.tensor([-1.7], dtype=torch.float64))
        torch.testing.assert_close(weights.at(z), before)


def test_densities_draw_what_they_say() -> None:
    z = torch.tensor([0.5, -1.0], dtype=torch.float64)
    around = Around(0.1)(z, 10_000, generator(1))
    torch.testing.assert_close(around.mean(0), z)  # opposite pairs
    torch.testing.assert_close(around.std(0), torch.full_like(z, 0.1), rtol=0.03, atol=0)
    everywhere = Everywhere()(z, 10_000, generator(1))
    torch.testing.assert_close(everywhere.mean(0), z * 0, rtol=0, atol=1e-3)
    torch.testing.assert_close(everywhere.std(0), z * 0 + 1, rtol=1e-2, atol=0)
    assert torch.equal(At()(z, 3, generator(1)), torch.stack([z, z, z]))
    assert Around(0.1)(z, 3, generator(1)).shape == (3, 2)


def test_all_of_a_hyperparameter_are_drawn_together_and_apart() -> None:
    z = torch.linspace(-1, 1, 5, dtype=torch.float64)
    rows = Together(0.1, Blocks((3, 2)))(z, 20_000, generator(1))
    torch.testing.assert_close(rows.mean(0), z)  # opposite pairs
    alike = torch.block_diag(torch.ones(3, 3), torch.ones(2, 2)).double()
    expected = 0.01 * (alike + torch.eye(5))
    torch.testing.assert_close(rows.T.cov(), expected, rtol=0, atol=4e-4)


# --- runs


class Noisy(nn.Module):
    """A model with randomness of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def noisy_loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    noisy = batch[0] * hp["scales"] + 0.1 * torch.randn_like(batch[0])
    decay = sum(w.square().sum() for w in model.parameters())
    return (model(noisy) - batch[1]).square().mean() + hp["decay"] * decay


def noisy(own_generator: bool = False, **changed: Any) -> HyperTraining:
    ridge = Ridge()
    x, y = (torch.cat(pair).float() for pair in zip(ridge.train, ridge.valid, strict=True))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = changed.pop("model", None) or Noisy()
    own = torch.Generator().manual_seed(5) if own_generator else None
    # 30 rows in batches of 8: the last one is short; of the other 30, it is a batch of one.
    train = DataLoader(TensorDataset(x[:30], y[:30]), 8, shuffle=True, generator=own)
    valid = DataLoader(TensorDataset(x[30:], y[30:]), 29, shuffle=True)
    arguments: dict[str, Any] = {"valid_loss": squared, "seed": 7, **changed}
    return HyperTraining(model, BOTH, noisy_loss, train_data=train, valid_data=valid, **arguments)


def same(one: Tuned, other: Tuned) -> bool:
    """Bit by bit."""
    states = [{**vars(t), "model": t.model.state_dict(), "path": []} for t in (one, other)]
    for state, tuned in zip(states, (one, other), strict=True):
        state["params"] = {k: torch.as_tensor(v) for k, v in tuned.params.items()}
        state["path"] = [
            (p.tick, p.predicted_loss, *map(torch.as_tensor, p.params.values()))
            for p in tuned.path
        ]
    return not moved(states[0], states[1])


@pytest.mark.parametrize("response", ["linear", "low-rank", "mlp"])
def test_same_seed_same_result_whatever_the_global_generator(response: str) -> None:
    tuned = []
    for number in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            tuned.append(noisy(response=response).fit(60))
    assert same(*tuned)
    assert not same(tuned[0], noisy(response=response, seed=8).fit(60))


def test_no_global_state_is_touched() -> None:
    ridge = Ridge()
    before = (
        torch.get_rng_state(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )
    training = noisy()
    training.fit(40)
    training.fit_simplified(40)
    training.fit_globally(20, descent=5)
    training.cross_validate(2, steps=5)
    ridge.training().fit(40)
    after = (
        torch.get_rng_state(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )
    assert not moved(before, after)
    assert not ridge.model.weight.any()


@pytest.mark.parametrize("algorithm", ["fit", "fit_simplified", "fit_globally"])
@pytest.mark.parametrize("own_generator", [False, True])
def test_a_resumed_run_ends_in_the_very_same_bits(
    tmp_path: Path, algorithm: str, own_generator: bool
) -> None:
    file = tmp_path / "run.pt"
    whole = getattr(noisy(own_generator), algorithm)(90)
    cut = noisy(own_generator, valid_loss=interrupting(squared, 75))
    with pytest.raises(Interrupted):
        getattr(cut, algorithm)(90, checkpoint=file)
    resumed = getattr(noisy(own_generator), algorithm)(90, checkpoint=file)
    assert same(whole, resumed)
    assert same(whole, getattr(noisy(own_generator), algorithm)(90, checkpoint=file))


def test_a_resumed_run_of_a_decay_per_weight_ends_in_the_very_same_bits(tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return squared(model, batch) + (hp["weight"] * model.weight.square()).sum()

    file, space = tmp_path / "run.pt", {"weight": Shaped(DECAY, (1, 3))}
    made = partial(RIDGE.training, search_space=space, train_loss=loss, response="diagonal")
    whole = made().fit(90)
    with pytest.raises(Interrupted):
        made(valid_loss=interrupting(squared, 75)).fit(90, checkpoint=file)
    assert file.exists()
    assert same(whole, made().fit(90, checkpoint=file))


def test_a_state_goes_on_bit_by_bit() -> None:
    one, other = noisy(), noisy(seed=7)
    one.fit(30)
    state = one.state_dict()
    whole = one.fit(30)  # which leaves the state what it was
    other.load_state_dict(state)
    assert same(whole, other.fit(30))
    one.load_state_dict(state)
    assert same(whole, one.fit(30))


@pytest.mark.parametrize("response", ["low-rank", "structured"])
def test_a_state_holds_buffers_that_hang_on_a_graph(response: Any) -> None:
    class Smooth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(3, 1).double()
            self.register_buffer("level", torch.zeros((), dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.body(x)
            self.level = y.mean()
            return y

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return squared(model, batch) + (hp["decay"] * squared_norm(model)).mean()

    training = RIDGE.training(model=Smooth(), train_loss=loss, response=response)
    training.fit_simplified(9) if response == "low-rank" else training.fit(9)
    state = training.state_dict()
    whole = training.fit(9)
    training.load_state_dict(state)
    assert same(whole, training.fit(9))


def halving(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 20, 60], 0.5)


def one_cycle(optimizer: Any) -> Any:
    """Moves step sizes and Adam's momentum."""
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=120)


def in_turn(optimizer: Any) -> Any:
    schedulers = torch.optim.lr_scheduler
    parts = [schedulers.LinearLR(optimizer), schedulers.ExponentialLR(optimizer, 0.99)]
    return schedulers.SequentialLR(optimizer, parts, [40])


@pytest.mark.parametrize("scheduler", [halving, one_cycle, in_turn])
def test_a_scheduled_run_is_resumed_in_the_very_same_bits(tmp_path: Path, scheduler: Any) -> None:
    file = tmp_path / "run.pt"
    whole = noisy(scheduler=scheduler).fit(90)
    assert not same(whole, noisy().fit(90))
    cut = noisy(scheduler=scheduler, valid_loss=interrupting(squared, 75))
    with pytest.raises(Interrupted):
        cut.fit(90, checkpoint=file)
    with pytest.raises(ValueError, match=r"the optimizer's scheduler .*, but this run has None"):
        noisy().fit(90, checkpoint=file)
    assert same(whole, noisy(scheduler=scheduler).fit(90, checkpoint=file))


def test_a_scheduler_sets_the_step_sizes_of_train_steps_and_no_other() -> None:
    """Against gradient descent written out, twice from the start; λ̂ has its own decay."""
    training = RIDGE.training(
        optimizer=lambda phi: torch.optim.SGD(phi, lr=0.2), scheduler=halving
    )
    penalty = torch.tensor(0.1, dtype=torch.float64)
    w = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    for step in range(30):
        x, y = RIDGE.train
        loss = (x @ w.T - y).square().mean() + penalty * w.square().sum()
        (slope,) = torch.autograd.grad(loss, w)
        size = 0.2 * 0.5 ** sum(step >= milestone for milestone in (4, 20, 60))
        w = (w - size * slope).detach().requires_grad_()
    for _ in range(2):
        model = training.train({"decay": 0.1}, steps=30).model
        torch.testing.assert_close(model.weight, w)
    path = [Point(n, n, {"decay": 0.1}, 0.0) for n in (10, 30)]
    replayed = training.replay(replace(training.train({"decay": 0.1}, 0), path=path))
    losses = [point.predicted_loss for point in replayed.path]
    assert squared(model, RIDGE.valid).item() == pytest.approx(losses[-1])


def test_every_fit_has_a_schedule_of_its_own(tmp_path: Path) -> None:
    """Of momentum, too; and a fit that is resumed goes on with its own."""

    def cycle(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=30)

    sizes: list[tuple[float, ...]] = []

    class Watched(torch.optim.Adam):
        def step(self, closure: Any = None) -> None:
            (group,) = self.param_groups
            sizes.append((group["lr"], *group["betas"]))
            super().step(closure)

    options: dict[str, Any] = {"optimizer": Watched, "scheduler": cycle}
    training = RIDGE.training(**options)
    for _ in range(2):
        training.fit(30, finish=0)
    assert sizes[:30] == sizes[30:]
    cut = RIDGE.training(**options, valid_loss=interrupting(squared, 25))
    cut.load_state_dict(training.state_dict())
    whole = training.fit(30)
    with pytest.raises(Interrupted):
        cut.fit(30, checkpoint=tmp_path / "run.pt")
    assert same(RIDGE.training(**options).fit(30, checkpoint=tmp_path / "run.pt"), whole)


def test_a_schedule_that_ends_too_early_is_named_at_once() -> None:
    training = RIDGE.training(scheduler=one_cycle)
    for call in (
        lambda: training.fit(150),
        lambda: training.fit(120, finish=150),
        lambda: training.train({"decay": 1.0}, 150),
    ):
        with pytest.raises(ValueError, match=r"OneCycleLR of 120 steps, .* each of 150 train"):
            call()
    assert training.trained == 0


def test_a_resumed_run_has_the_weights_that_it_began_with(tmp_path: Path) -> None:
    """A script that is started again may make its model from other random numbers."""
    whole = RIDGE.training().fit(60)
    cut = RIDGE.training(valid_loss=interrupting(squared, 40))
    with pytest.raises(Interrupted):
        cut.fit(60, checkpoint=tmp_path / "run.pt")
    other = nn.Linear(3, 1, bias=False).double()
    resumed = RIDGE.training(model=other)
    assert same(resumed.fit(60, checkpoint=tmp_path / "run.pt"), whole)
    torch.testing.assert_close(
        resumed.train({"decay": 1.0}, 5).model.weight,
        RIDGE.training().train({"decay": 1.0}, 5).model.weight,
        rtol=0,
        atol=0,
    )


def by_examples(rows: TensorDataset, own: torch.Generator) -> DataLoader[Any]:
    sampler = WeightedRandomSampler(torch.ones(len(rows)).tolist(), len(rows), generator=own)
    return DataLoader(rows, 4, sampler=sampler)


def by_batches(rows: TensorDataset, own: torch.Generator) -> DataLoader[Any]:
    sampler = BatchSampler(RandomSampler(rows, generator=own), 4, drop_last=False)
    return DataLoader(rows, batch_size=None, sampler=sampler)


@pytest.mark.parametrize("loader", [by_examples, by_batches])
def test_a_resumed_sampler_goes_on_with_its_own_generator(tmp_path: Path, loader: Any) -> None:
    def training(valid_loss: Any = squared) -> HyperTraining:
        own = torch.Generator().manual_seed(5)
        data = loader(TensorDataset(*RIDGE.train), own)
        return RIDGE.training(train_data=data, valid_loss=valid_loss)

    whole = training().fit(60)
    with pytest.raises(Interrupted):
        training(interrupting(squared, 40)).fit(60, checkpoint=tmp_path / "run.pt")
    assert same(training().fit(60, checkpoint=tmp_path / "run.pt"), whole)


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    training, other = RIDGE.training(), RIDGE.training(scheduler=halving)
    training.fit(60)
    before = training.predict({"decay": 0.5})
    other.fit(30)
    with pytest.raises(ValueError, match="scheduler"):
        training.load_state_dict(other.state_dict())
    narrow = RIDGE.training(search_space={"decay": FloatDistribution(1e-2, 1.0, log=True)})
    with pytest.raises(ValueError, match=r"of the search space decay .*low=0\.01"):
        training.load_state_dict(narrow.state_dict())
    assert training.predict({"decay": 0.5}) == before


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"junk\.pt is no checkpoint"):
        RIDGE.training().fit(60, checkpoint=tmp_path / "junk.pt")
    with pytest.raises(ValueError, match="there is no folder"):
        RIDGE.training().fit(60, checkpoint=tmp_path / "nowhere" / "run.pt")
    torch.save({"model": 1}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt is of another run"):
        RIDGE.training().fit(60, checkpoint=tmp_path / "model.pt")


def test_a_run_with_other_data_is_not_resumed(tmp_path: Path) -> None:
    rows, file = TensorDataset(*RIDGE.train), tmp_path / "run.pt"
    cut = RIDGE.training(train_data=DataLoader(rows, 2), valid_loss=interrupting(squared, 40))
    with pytest.raises(Interrupted):
        cut.fit(60, checkpoint=file)
    with pytest.raises(ValueError, match=r"batches of train_data had been taken .* now one has 1"):
        RIDGE.training(train_data=DataLoader(rows, 12)).fit(60, checkpoint=file)
    drawing = DataLoader(rows, 2, shuffle=True, generator=torch.Generator())
    with pytest.raises(ValueError, match="train_data had 0 generators of its own, but now has 1"):
        RIDGE.training(train_data=drawing).fit(60, checkpoint=file)


def test_numbers_may_be_those_of_numpy(tmp_path: Path) -> None:
    """A checkpoint holds Python's alone: nothing else may be read from a file."""

    def numpy_adam(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=np.float64(1e-2))

    whole = noisy(optimizer=numpy_adam).fit(60, warm_up=10, patience=9, scale=0.2)
    options: dict[str, Any] = {"warm_up": np.int64(10), "patience": np.int32(9)}
    options |= {"scale": np.float64(0.2), "checkpoint": tmp_path / "run.pt"}
    with pytest.raises(Interrupted):
        noisy(optimizer=numpy_adam, valid_loss=interrupting(squared, 25)).fit(60, **options)
    assert same(noisy(optimizer=numpy_adam).fit(np.int64(60), **options), whole)
    assert len(noisy().cross_validate(np.int64(2), 3).path) == 2


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    noisy().fit(30, checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="of another run"):
        noisy().fit(40, checkpoint=tmp_path / "run.pt")


class Affine(nn.Module):
    """A hypernetwork of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.affine = nn.Linear(4, 31)

    def forward(self, z: Tensor) -> Tensor:
        return self.affine(z)


def rectified() -> nn.Module:
    """Of another layer, and as many weights."""
    model = Noisy()
    model.body[1] = nn.ReLU()
    return model


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 8}, "the seed 7, but this run has 8"),
        ({"response": "linear"}, "the response 'low-rank', but this run has 'linear'"),
        ({"response": Affine()}, "the response 'low-rank', but this run has Affine"),
        ({"optimizer": optimizer}, r"the optimizer's lr 0\.005, but this run has 0\.02"),
        ({"optimizer": torch.optim.SGD}, "the optimizer's class Adam, but this run has SGD"),
        ({"hyper_optimizer": optimizer}, "the hyper_optimizer's lr .*, but this run has "),
        ({"scheduler": halving}, "the optimizer's scheduler None, but .* has MultiStepLR"),
        ({"clip": 1.0}, r"the clip None, but this run has 1\.0"),
        ({"model": rectified()}, r"the model \(1\): Tanh\(\), but this run has \(1\): ReLU\(\)"),
    ],
)
def test_a_checkpoint_of_other_arguments_is_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    file = tmp_path / "run.pt"
    noisy().fit(9, checkpoint=file)
    with pytest.raises(ValueError, match=f"is of another run: it has {message}"):
        noisy(**changed).fit(9, checkpoint=file)


def test_a_run_without_a_seed_is_resumed(tmp_path: Path) -> None:
    """So is one of which the checkpoint, an older one, does not say what it was made with."""
    file = tmp_path / "run.pt"
    tuned = noisy(seed=None).fit(9, checkpoint=file, finish=0)
    resumed = noisy(seed=None).fit(9, checkpoint=file, finish=0)
    assert resumed.predicted_loss == tuned.predicted_loss
    content = torch.load(file, weights_only=True)
    torch.save({name: content[name] for name in ("plan", "record", "state")}, file)
    resumed = noisy(seed=1, clip=0.5).fit(9, checkpoint=file, finish=0)
    assert resumed.predicted_loss == tuned.predicted_loss


def test_addresses_in_memory_say_nothing_of_a_run() -> None:
    assert in_words([object(), 0.5]) == "[<object object>, 0.5]"


def test_a_resumed_run_has_the_patience_that_it_is_given(tmp_path: Path) -> None:
    file, still = tmp_path / "run.pt", lambda parameters: torch.optim.SGD(parameters, lr=0.0)

    def training() -> HyperTraining:
        return RIDGE.training(optimizer=still, hyper_optimizer=still)

    assert training().fit(90, patience=3, checkpoint=file).stopped
    whole = training().fit(90, patience=9)
    assert same(training().fit(90, patience=9, checkpoint=file), whole)
    assert training().fit(90, patience=1, checkpoint=file).stopped


def test_runs_end_early_without_progress() -> None:
    training = Ridge().training(
        hyper_optimizer=lambda z: torch.optim.SGD(z, lr=0.0),
        optimizer=lambda phi: torch.optim.SGD(phi, lr=0.0),
    )
    tuned = training.fit(600, patience=3)
    assert tuned.stopped
    assert len(tuned.path) < 30


def test_the_result_says_what_was_found() -> None:
    training = Ridge().training()
    tuned = training.fit(300, finish=0)
    assert tuned.params.keys() == SPACE.keys()
    assert type(tuned.model) is nn.Linear
    assert tuned.true_loss == pytest.approx(tuned.predicted_loss, rel=1e-12)
    lowest = min(point.predicted_loss for point in tuned.path if point.tick >= 100)
    assert lowest <= tuned.predicted_loss <= 1.005 * lowest
    assert [p.tick for p in tuned.path] == sorted(p.tick for p in tuned.path)
    assert tuned.path[-1].params == training.params
    assert not tuned.at_bound


@pytest.mark.parametrize("finish", [2, 4, 6])
def test_steps_that_finish_the_model_leave_it_no_worse(finish: int) -> None:
    """So few, at full size, end a little further from where training ends than they began."""
    tuned = RIDGE.training().fit(1500, finish=finish)
    assert tuned.true_loss <= tuned.predicted_loss * (1 + 1e-12)  # the same one, or lower
    assert squared(tuned.model, RIDGE.valid).item() == pytest.approx(tuned.true_loss)


def test_a_finish_that_diverges_loses_nothing() -> None:
    """The run is whole by then; its model stays as it is."""
    bad, calls = -1, 0

    def failing(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return ridge_loss(model, batch, hp) * (math.nan if calls == bad else 1.0)

    whole = Ridge().training(train_loss=failing).fit(300, finish=0)
    bad, calls = calls + 7, 0
    with pytest.warns(UserWarning, match="50 steps of .* were dropped.*training loss is nan"):
        tuned = Ridge().training(train_loss=failing).fit(300, finish=50)
    assert same(tuned, whole)


def test_gradients_that_share_memory_are_shortened_once() -> None:
    """That of a sum is one tensor for both of its parts."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = (nn.Parameter(torch.zeros(3)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.one + self.other)

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return (model(batch[0] * hp["decay"][:, None]) - 100).square().mean()

    x = torch.ones(4, 3)
    step = HyperTraining(
        Sum(),
        SPACE,
        loss,
        lambda model, batch: (model(batch[0]) - 100).square().mean(),
        [(x,)],
        [(x,)],
        response="structured",
        elementary=[""],
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        clip=0.1,
        seed=0,
    ).train({"decay": 1.0}, 1)
    moved = torch.cat([step.model.one, step.model.other]).norm()
    torch.testing.assert_close(moved, torch.tensor(0.1), rtol=1e-4, atol=0)


def test_what_a_pass_leaves_on_the_model_is_no_hindrance() -> None:
    """An auxiliary loss, say, that is kept until it is added to the others."""

    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.body(x)
            if self.training:
                self.kept = [y.square().mean(-1)]
            return y

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        error = (model(batch[0]) - batch[1]).square().mean(1)
        penalty = squared_norm(model) if hp["decay"].ndim else model.body.weight.square().sum()
        losses = error + 1e-3 * model.kept[0] + hp["decay"] * penalty
        return losses if hp["decay"].ndim else losses.mean()

    x, y = (part.float() for part in RIDGE.train)
    for response in ("low-rank", "structured"):
        training = HyperTraining(
            Keeping(), SPACE, loss, squared, [(x, y)], [(x, y)], response=response, seed=0
        )
        model = training.fit(20).model
        if response == "low-rank":
            assert not hasattr(model, "kept")
        assert training.train({"decay": 1.0}, 3).model(x).shape == (12, 1)
        model(x)  # which leaves something that hangs on a graph
        assert training.train({"decay": 1.0}, 3, model=model).model(x).shape == (12, 1)


def test_a_look_at_the_loss_leaves_buffers_as_they_were() -> None:
    """Among them such as are made anew by every pass, which one with several λ would spoil."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(3, 1)
            self.register_buffer("level", torch.zeros(()))
            self.register_buffer("passes", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.body(x)
            self.passes += 1
            if self.training:
                self.level = 0.9 * self.level + 0.1 * (y.detach().mean() + 1)
            return y

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return squared(model, batch) + hp["decay"] * model.body.weight.square().sum()

    data = [tuple(part.float() for part in RIDGE.train)]
    training = HyperTraining(Counting(), SPACE, loss, squared, data, data, seed=0)
    assert not any(training.best_response({"decay": 1.0}).buffers())
    assert float(training.fit_simplified(10, finish=0).model.level) != 0
    assert float(training.fit(10, finish=0).model.level) != 0  # two λ at once


class Merging(nn.Module):
    """Adds an offset to a frozen weight in eval mode, and takes it out again in training."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.noise = nn.Linear(3, 1), nn.Dropout(0.5).eval()
        self.register_buffer("frozen", torch.zeros(3))
        self.merged = False

    def train(self, mode: bool = True) -> Merging:
        if mode == self.merged:
            self.frozen += -1.0 if mode else 1.0
        self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        assert self.merged != self.training
        assert not self.noise.training
        y: Tensor = self.body(x + self.frozen)
        return y


@pytest.mark.parametrize("response", ["low-rank", "structured"])
def test_modes_are_changed_by_the_models_own_train(response: Any) -> None:
    """What it does besides is undone in training, in what is exported, and in checkpoints."""

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        assert not model.merged
        penalty = squared_norm(model) if hp["decay"].ndim else model.body.weight.square().sum()
        return squared(model, batch) + (hp["decay"] * penalty).mean()

    def valid_loss(model: nn.Module, batch: Any) -> Tensor:
        assert model.merged
        return squared(model, batch)

    data = [tuple(part.float() for part in RIDGE.train)]

    def training() -> HyperTraining:
        return HyperTraining(
            Merging(), SPACE, loss, valid_loss, data, data, response=response, seed=0
        )

    one, other = training(), training()
    tuned = one.fit(20)
    assert tuned.model.training
    assert not tuned.model.merged
    assert not tuned.model.noise.training
    assert not tuned.model.frozen.any()
    predicted = one.predict({"decay": 1.0})
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert other.predict({"decay": 1.0}) == one.predict({"decay": 1.0}) == predicted
    assert not one.best_response({"decay": 1.0}).frozen.any()


class Adapted(nn.Module):
    """A frozen layer with an adapter, zero at first, that eval mode adds to its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.ones(1, 3), requires_grad=False)
        self.down, self.up = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.zeros(1, 2))

    def train(self, mode: bool = True) -> Adapted:
        if mode != self.training:
            self.frozen.data += (-1 if mode else 1) * (self.up @ self.down).detach()
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        adapter = (self.up @ self.down) if self.training else 0.0
        return nn.functional.linear(x, self.frozen + adapter)


def test_adapters_that_merge_in_evaluations_are_refused() -> None:
    """They would merge what they came with; where weights are in their place, they merge those."""

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return squared(model, batch) + (hp["decay"] * model[0].up.square().sum()).mean()

    model = nn.Sequential(Adapted(), nn.Linear(1, 1))
    data = [tuple(part.float() for part in RIDGE.train)]
    options: dict[str, Any] = {"train_data": data, "valid_data": data, "seed": 0}
    with pytest.raises(ValueError, match=r"eval\(\) makes '0\.frozen' of.*Turn merging off"):
        HyperTraining(model, SPACE, loss, squared, **options)
    options |= {"response": "structured", "elementary": ["0"]}
    tuned = HyperTraining(model, SPACE, loss, squared, **options).fit(20)
    exported = squared(tuned.model.eval(), data[0]).detach()
    assert tuned.true_loss == pytest.approx(float(exported), rel=1e-5)


class Taught(nn.Module):
    """Its frozen teacher follows it in every training pass."""

    def __init__(self) -> None:
        super().__init__()
        self.pupil, self.teacher = nn.Linear(3, 3), nn.Linear(3, 3).requires_grad_(False)
        self.last = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.teacher.weight.mul_(0.9).add_(0.1 * self.pupil.weight)
        y: Tensor = self.last(self.pupil(x) + self.teacher(x))
        return y


@pytest.mark.parametrize("response", ["low-rank", "structured"])
def test_frozen_weights_that_passes_move_are_kept(tmp_path: Path, response: Any) -> None:
    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        penalty = squared_norm(model.last) if hp["decay"].ndim else model.last.weight.norm()
        return squared(model, batch) + (hp["decay"] * penalty).mean()

    data = [tuple(part.float() for part in RIDGE.train)]
    given = Taught()
    elementary = ["pupil"] if response == "structured" else []
    options: dict[str, Any] = {"response": response, "elementary": elementary, "seed": 0}

    def training(valid_loss: Any = squared) -> HyperTraining:
        return HyperTraining(given, SPACE, loss, valid_loss, data, data, **options)

    trained = training().train({"decay": 1.0}, 20)
    assert moved(given.teacher.state_dict(), trained.model.teacher.state_dict())
    again = training().train({"decay": 1.0}, 0, model=trained.model)
    assert again.true_loss == trained.true_loss
    whole, file = training().fit(20, finish=0), tmp_path / "run.pt"
    again = training().train(whole.params, 0, model=whole.model)
    assert again.true_loss == pytest.approx(whole.predicted_loss)
    with pytest.raises(Interrupted):
        training(interrupting(squared, 20)).fit(20, finish=0, checkpoint=file)
    assert same(training().fit(20, finish=0, checkpoint=file), whole)


@pytest.mark.parametrize("number", [float, lambda hp: hp.nonzero().sum()])
def test_what_vmap_does_not_know_may_come_in_any_batch(tmp_path: Path, number: Any) -> None:
    """From there on several λ are taken one after another, in a run that is resumed, too."""

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        noisy = (batch[0] + 0.1 * torch.randn_like(batch[0]), batch[1])
        loss = squared(model, noisy) + hp["decay"] * model.weight.square().sum()
        return loss if len(batch[0]) == 12 else loss + number(hp["decay"]) * 0

    x, y = RIDGE.train
    options: dict[str, Any] = {"train_data": [(x, y)] * 5 + [(x[:6], y[:6])], "train_loss": loss}
    whole, file = RIDGE.training(**options).fit(60, finish=0), tmp_path / "run.pt"
    with pytest.raises(Interrupted):
        RIDGE.training(**options, valid_loss=interrupting(squared, 40)).fit(
            60, finish=0, checkpoint=file
        )
    assert same(RIDGE.training(**options).fit(60, finish=0, checkpoint=file), whole)

    def failing(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        if len(batch[0]) < 12:
            raise RuntimeError("out of paper")
        return ridge_loss(model, batch, hp)

    with pytest.raises(RuntimeError, match="out of paper"):
        RIDGE.training(**{**options, "train_loss": failing}).fit(60)


class Masked(nn.Module):
    """Keeps a mask as long as the batch, made when it is first called."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 1)
        self.register_buffer("mask", None)
        self.register_buffer("longer", torch.ones(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None or len(self.mask) != len(x):
            self.mask = torch.ones(len(x), 1)
            self.longer = torch.ones(len(x), 1)
        y: Tensor = self.body(x) * self.mask * self.longer
        return y


@pytest.mark.parametrize("response", ["low-rank", "structured"])
def test_buffers_may_be_made_and_resized_on_the_way(tmp_path: Path, response: Any) -> None:
    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        if response == "structured":
            return (model(batch[0]) - batch[1]).square().mean(1) + hp["decay"] * squared_norm(
                model
            )
        return squared(model, batch) + hp["decay"] * model.body.weight.square().sum()

    model = Masked()

    def training(valid_loss: Any = squared) -> HyperTraining:
        train, valid = ([tuple(part.float() for part in data)] for data in (RIDGE.train, rest))
        options: dict[str, Any] = {"response": response, "seed": 0}
        return HyperTraining(
            copy.deepcopy(model), SPACE, loss, valid_loss, train, valid, **options
        )

    rest = tuple(part[:5] for part in RIDGE.valid)
    whole, file = training().fit(20), tmp_path / "run.pt"
    with pytest.raises(Interrupted):
        training(interrupting(squared, 20)).fit(20, checkpoint=file)
    assert same(training().fit(20, checkpoint=file), whole)
    again = training()
    again.fit(20)
    assert copy.deepcopy(again).predict({"decay": 1.0}) == again.predict({"decay": 1.0})


class Late(nn.Module):
    """Makes in a pass what it was not made with: a buffer, and a module that has one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "signs"):
            self.register_buffer("signs", torch.ones(1), persistent=False)
            self.norm = nn.Module()
            self.norm.register_buffer("scale", torch.ones(1))
        y: Tensor = self.body(x) * self.signs
        return y


def test_what_a_pass_makes_is_not_exported() -> None:
    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return squared(model, batch) + hp["decay"] * model.body.weight.square().sum()

    data = [tuple(part.float() for part in RIDGE.train)]
    training = HyperTraining(Late(), SPACE, loss, squared, data, data, seed=0)
    Late().load_state_dict(training.fit(10).model.state_dict())


def test_predictions_from_batches_that_cannot_be_copied_whole() -> None:
    weight = torch.ones(3, 3, requires_grad=True, dtype=torch.float64)

    class Loader:
        def __iter__(self) -> Iterator[Any]:
            x, y = RIDGE.valid
            return iter([(x @ weight, y, threading.Lock())])  # someone forgot no_grad

    training = RIDGE.training(valid_data=Loader())
    assert training.predict({"decay": 1.0}, examples=1) == training.predict({"decay": 1.0})


def test_candidates_may_be_any_iterable() -> None:
    some = {0.1: {"decay": 0.1}, 1.0: {"decay": 1.0}}
    best = RIDGE.training().cross_validate(some.values(), 30)
    again = RIDGE.training().cross_validate((each for each in some.values()), 30)
    assert same(best, again)


def test_a_loss_may_change_the_batch_that_it_is_given() -> None:
    x, y = RIDGE.valid

    def changing(model: nn.Module, batch: Any) -> Tensor:
        target = batch.pop("y")
        return (model(batch["x"].mul_(2.0)) - target).square().mean()

    class Loader:
        def __iter__(self) -> Iterator[Any]:
            return iter([{"x": x.clone(), "y": y}])

    training = RIDGE.training(valid_loss=changing, valid_data=Loader())
    predicted = [training.predict({"decay": 1.0}, examples=1) for _ in range(3)]
    assert predicted == 3 * [training.predict({"decay": 1.0})]
    with pytest.raises(ValueError, match="examples is 0, but it must be at least 1"):
        training.predict({"decay": 1.0}, examples=0)


@pytest.mark.parametrize("response", ["linear", "one by one", "structured", "structured-delta"])
def test_so_may_the_training_loss(response: str) -> None:
    """Each call gets the batch as the loader gave it, however many there are of one batch."""
    x, y = RIDGE.train

    class Loader:
        def __iter__(self) -> Iterator[Any]:
            return iter([{"x": x.clone(), "y": y}, {"x": x.clone() + 0.1, "y": y}])

    def loss(inputs: Tensor, target: Tensor, model: nn.Module, hp: Any) -> Tensor:
        decay = float(hp["decay"]) if response == "one by one" else hp["decay"]
        each = (model(inputs) - target).square().mean(-1) + decay * squared_norm(model)
        return each.mean()

    def changing(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        target = batch.pop("y")
        batch["x"] = batch["x"] + 0.5 * hp["decay"].mean() ** 0
        return loss(batch["x"].mul_(2.0), target, model, hp)

    def careful(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return loss(2.0 * (batch["x"] + 0.5 * hp["decay"].mean() ** 0), batch["y"], model, hp)

    kind = "linear" if response == "one by one" else response
    one, other = (
        RIDGE.training(train_loss=each, train_data=Loader(), response=kind).fit(12)
        for each in (changing, careful)
    )
    assert same(one, other)


def ratio(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    """Two tasks, of whose weights only the share matters."""
    small = model(batch[0]).square().mean()
    weights = torch.softmax(hp["weights"], -1)
    return weights[..., 0] * squared(model, batch) + weights[..., 1] * small


def share(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    small = model(batch[0]).square().mean()
    return (hp["a"] * squared(model, batch) + hp["b"] * small) / (hp["a"] + hp["b"])


@pytest.mark.parametrize(
    ("loss", "space"),
    [
        (ratio, {"weights": Shaped(FloatDistribution(-2, 2), (2,))}),
        (share, {"a": FloatDistribution(0.01, 1), "b": FloatDistribution(0.01, 1)}),
        (share, {"a": FloatDistribution(0.01, 1, log=True), "b": FloatDistribution(0.01, 1)}),
    ],
)
def test_hyperparameters_of_which_only_ratios_matter_do_change_what_is_learnt(
    loss: Any, space: Any
) -> None:
    """At both ends of all ranges weights were equal, so it was said that they do not."""
    training = RIDGE.training(train_loss=loss, search_space=space)
    start = training.params
    tuned = training.fit(60)

    assert math.isfinite(tuned.true_loss)
    assert any(not np.array_equal(tuned.params[name], start[name]) for name in space)


def test_of_one_batch_of_thousands_no_more_is_taken_than_was_asked_for() -> None:
    x, y = (part.repeat(60, 1) for part in RIDGE.valid)
    x = x + torch.linspace(0, 1, len(x)).double()[:, None]
    seen = []

    def counting(model: nn.Module, batch: Any) -> Tensor:
        seen.append(len(batch[0]))
        return squared(model, batch)

    training = RIDGE.training(valid_loss=counting, valid_data=[(x, y)])
    seen.clear()
    predicted = training.predict({"decay": 1.0}, examples=300)
    first = RIDGE.training(valid_data=[(x[:300], y[:300])]).predict({"decay": 1.0})

    assert seen == [300]
    assert predicted == first
    training.predict({"decay": 1.0})
    assert seen == [300, len(x)]


def test_predictions_start_a_loader_once() -> None:
    starts = 0

    class Counting:
        def __iter__(self) -> Iterator[Any]:
            nonlocal starts
            starts += 1
            return iter([RIDGE.valid, RIDGE.valid])

    training = RIDGE.training(valid_data=Counting())
    starts = 0
    losses = [training.predict({"decay": 0.1 * i}, examples=10) for i in range(1, 9)]
    assert starts == 1
    assert losses[0] == training.predict({"decay": 0.1})  # both batches are the same


def test_two_threads_do_not_share_randomness() -> None:
    alone = [noisy(seed=seed).fit(12, finish=0).true_loss for seed in (1, 2)]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(2) as pool:
        runs = [noisy(seed=seed) for seed in (1, 2)]
        together = list(pool.map(lambda one: one.fit(12, finish=0).true_loss, runs))
    assert together == alone
    assert torch.equal(torch.get_rng_state(), before)


def test_a_finish_without_a_validation_loss_is_not_kept() -> None:
    bad, calls = -1, 0

    def failing(model: nn.Module, batch: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return squared(model, batch) * (math.nan if calls == bad else 1.0)

    whole = Ridge().training(valid_loss=failing).fit(300, finish=0)
    bad, calls = calls, 0
    assert same(Ridge().training(valid_loss=failing).fit(300, finish=50), whole)


def test_a_range_that_is_too_narrow_is_named() -> None:
    space = {"decay": FloatDistribution(5.0, 10.0)}
    tuned = Ridge().training(search_space=space).fit(1500)
    assert tuned.at_bound == ["decay"]
    assert tuned.params["decay"] == pytest.approx(5.0, rel=0.01)


def test_progress_is_shown_if_asked(capfd: pytest.CaptureFixture[str]) -> None:
    Ridge().training().fit(30)
    assert not capfd.readouterr().err
    Ridge().training().fit(30, progress=True)
    assert "predicted=" in capfd.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_code_runs_on_a_gpu(tmp_path: Path) -> None:
    before = torch.cuda.get_rng_state()
    training = noisy(device="cuda")
    tuned = training.fit(60, checkpoint=tmp_path / "run.pt")
    assert next(tuned.model.parameters()).device.type == "cuda"
    assert torch.equal(before, torch.cuda.get_rng_state())
    assert same(tuned, noisy(device="cuda").fit(60, checkpoint=tmp_path / "run.pt"))
    assert tuned.predicted_loss == pytest.approx(noisy().fit(60).predicted_loss, rel=0.5)


# --- bad input


class Once:
    """Gives its batches in the first pass only."""

    def __init__(self, batch: Any, passes: int) -> None:
        self.batch, self.passes = batch, passes

    def __iter__(self) -> Iterator[Any]:
        self.passes -= 1
        if self.passes >= 0:
            yield self.batch


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"train_data": iter([RIDGE.train])}, TypeError, "train_data is a list_iterator.*once"),
        ({"valid_data": []}, ValueError, "valid_data is empty"),
        ({"valid_data": Once(RIDGE.valid, 0)}, ValueError, "valid_data is empty"),
        ({"train_data": Once(RIDGE.train, 0)}, ValueError, "train_data is empty"),
        ({"train_data": 3}, TypeError, "train_data is 3, which cannot be iterated over"),
        ({"start": {"decoy": 1.0}}, ValueError, r"Unknown: \['decoy'\]"),
        ({"start": {"decay": 100.0}}, ValueError, "not inside"),
        ({"start": {"decay": 0.0}}, ValueError, "not inside"),
        ({"search_space": [DECAY]}, TypeError, "must be a dict of distributions by name"),
        ({"start": {"decay": "a"}}, ValueError, "'decay' got 'a', which is no number"),
        ({"optimizer": 0.1}, TypeError, r"optimizer is 0\.1, which cannot be called"),
        (
            {"optimizer": lambda phi: optimizer(RIDGE.model.parameters())},
            ValueError,
            "made Adam of 1 parameters, of which 0 are among the 2 that",
        ),
        (
            {"response": "linear", "hyper_optimizer": lambda z: optimizer([*z, nn.Parameter()])},
            ValueError,
            "made Adam of 2 parameters, of which 1 are among the 1 that",
        ),
        (
            {"search_space": {**SPACE, "0.p": FloatDistribution(0.0, 0.9)}},
            ValueError,
            r"never reads \['0.p'\].*response=\"structured\"",
        ),
        (
            {
                "train_data": DataLoader(
                    TensorDataset(*RIDGE.train), num_workers=1, persistent_workers=True
                )
            },
            ValueError,
            "train_data is a loader with persistent_workers",
        ),
        (
            {"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau},
            TypeError,
            "made a ReduceLROnPlateau, which waits for a metric",
        ),
        ({"scheduler": lambda optimizer: 0.1}, TypeError, r"made 0\.1, but it must make an LRSch"),
        ({"scheduler": 0.1}, TypeError, r"scheduler is 0\.1, which cannot be called"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"seed": 0.5}, TypeError, "seed is 0.5, but it must be an int"),
        ({"response": "cubic"}, ValueError, "response is 'cubic'"),
        ({"optimizer": torch.optim.LBFGS}, TypeError, "made LBFGS, which takes losses again"),
        ({"response": nn.Flatten()}, ValueError, "a Flatten, has no parameters that require"),
        (
            {"search_space": {**SPACE, "learning_rate": DECAY}},
            ValueError,
            r"never reads \['learning_rate'\].*outer study",
        ),
        (
            {"train_loss": lambda model, batch, hp: squared(model, batch) + 0 * hp["decay"]},
            ValueError,
            "same gradient at both ends",
        ),
        (
            {"train_loss": lambda model, batch, hp: hp["dcay"]},
            KeyError,
            "'dcay' is not in the search space",
        ),
        (
            {"train_loss": lambda model, batch, hp: hp["decay"] * batch[1]},
            ValueError,
            r"train_loss returned shape \(12, 1\)",
        ),
    ],
)
def test_mistakes_are_named_at_once(
    changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RIDGE.training(**changed)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps is 0, but it must be at least 1"),
        ({"steps": 2.5}, TypeError, "steps is 2.5"),
        ({"steps": "10"}, TypeError, "steps is '10', but it must be an int"),
        ({"samples": 0}, ValueError, "samples is 0"),
        ({"scale": 0.0}, ValueError, "scale is 0.0.*fit_simplified"),
        ({"steps": 10, "warm_up": 10}, ValueError, "steps is 10, of which warm_up takes 10"),
        ({"patience": 0}, ValueError, "patience is 0"),
        ({"finish": -1}, ValueError, "finish is -1"),
    ],
)
def test_numbers_out_of_range(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RIDGE.training().fit(**arguments)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda one: one.fit(30, trial=optuna.create_study()),
            TypeError,
            "trial is a Study, but it must be an Optuna trial",
        ),
        (lambda one: one.replay({"decay": 1.0}), TypeError, r"replay got a dict.*train\(params\)"),
        (
            lambda one: one.load_state_dict(RIDGE.model.state_dict()),
            ValueError,
            r"is a OrderedDict with \['weight'\], and none .* Pass what its state_dict\(\)",
        ),
        (lambda one: one.load_state_dict(3), ValueError, "is a int, and none of a HyperTraining"),
    ],
)
def test_what_is_taken_for_something_else_is_named(
    call: Any, error: type[Exception], message: str
) -> None:
    training = RIDGE.training()
    with pytest.raises(error, match=message):
        call(training)
    assert training.trained == 0


def test_a_hyperparameter_may_act_by_its_size_alone() -> None:
    def even(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return squared(model, batch) + hp["shift"].square() * model.weight.square().sum()

    RIDGE.training(search_space={"shift": FloatDistribution(-1.0, 1.0)}, train_loss=even)


@pytest.mark.parametrize("response", ["linear", "structured"])
def test_a_hyperparameter_may_act_on_some_batches_alone(response: Any) -> None:
    """As the weight of a rare class does; but on one of the first twenty."""

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        usual, rare = squared(model, batch), batch[1].mean() > 50
        return usual * hp["decay"].mean() if rare else usual

    x, y = RIDGE.train
    options: dict[str, Any] = {"train_loss": loss, "response": response}
    rare = (x, y + 100)
    RIDGE.training(train_data=[(x, y)] * 19 + [rare, (x, y)], **options)
    with pytest.raises(ValueError, match=r"never reads \['decay'\]"):
        RIDGE.training(train_data=[(x, y)] * 20 + [rare], **options)


def test_a_loss_may_take_gradients_itself() -> None:
    """As adversarial training does, of its inputs."""

    def adversarial(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        x = batch[0].clone().requires_grad_()
        (slope,) = torch.autograd.grad(squared(model, (x, batch[1])), x)
        return squared(model, (batch[0] + hp["size"] * slope.sign(), batch[1]))

    space = {"size": FloatDistribution(0.0, 0.5)}
    tuned = RIDGE.training(search_space=space, train_loss=adversarial).fit(30)
    assert math.isfinite(tuned.true_loss)


def test_a_loader_that_dries_up_is_named() -> None:
    training = RIDGE.training(train_data=Once(RIDGE.train, 3))
    with pytest.raises(ValueError, match="train_data gave no batch in pass 2"):
        training.fit(30)


def test_losses_cut_off_from_the_weights_are_named() -> None:
    def detached(model: nn.Module, batch: Any) -> Tensor:
        return squared(model, batch).detach()

    with pytest.raises(ValueError, match="valid_loss does not depend on the model's weights"):
        RIDGE.training(valid_loss=detached).fit(30)
    with pytest.raises(ValueError, match="valid_loss does not depend on the model's weights"):
        RIDGE.training(valid_loss=detached)  # at once, and not after the warm-up


@pytest.mark.parametrize("response", ["linear", "structured"])
def test_losses_of_a_model_from_outside_are_named(response: str) -> None:
    """They have a gradient, but in weights that nobody trains."""
    outer, options = nn.Linear(3, 1, bias=False).double(), {"response": response}

    def train_loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return squared(outer, batch) + hp["decay"].mean() * outer.weight.square().sum()

    def half(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return squared(model, batch) + hp["decay"].mean() * outer.weight.square().sum()

    def both(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return squared(model, batch) + hp["decay"].mean() * squared_norm(model).mean()

    with pytest.raises(ValueError, match=r"train_loss does not depend .*model that it is given"):
        RIDGE.training(**options, train_loss=train_loss)
    with pytest.raises(ValueError, match=r"same gradient .*model that train_loss is given"):
        RIDGE.training(**options, train_loss=half)
    with pytest.raises(ValueError, match=r"valid_loss does not depend .*model that it is given"):
        RIDGE.training(
            **options, train_loss=both, valid_loss=lambda model, batch: squared(outer, batch)
        )


def test_a_lambda_that_cannot_move_is_named() -> None:
    """By a response that is the same for all; ordinary training needs none."""

    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset = nn.Parameter(torch.zeros(3, dtype=torch.float64))

        def forward(self, z: Tensor) -> Tensor:
            return self.offset.expand(len(z), -1)

    training = RIDGE.training(response=Same())
    assert math.isfinite(training.train({"decay": 1.0}, 3).true_loss)
    with pytest.raises(ValueError, match="responds to λ, so λ̂ cannot move"):
        training.fit(30)


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path) -> None:
    calls = 0

    def breaking(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return ridge_loss(model, batch, hp) * (math.nan if calls > 20 else 1.0)

    file = tmp_path / "run.pt"
    training = RIDGE.training(train_loss=breaking)
    with pytest.raises(
        FloatingPointError, match=r"training loss is nan after 17 train steps, at decay = 0\.\d+"
    ):
        training.fit(60, checkpoint=file)
    assert torch.load(file, weights_only=True)["record"]["done"] == 17
    assert all(p.isfinite().all() for p in training.best_response({"decay": 1.0}).parameters())


@pytest.mark.parametrize("response", ["linear", "structured"])
def test_a_gradient_that_is_not_a_number_moves_nothing(response: str) -> None:
    """Though the loss is one: a root has no slope at zero."""
    rooted = set[str]()

    def root(kind: str, model: nn.Module, batch: Any) -> Tensor:
        zero = 0.0 * model(batch[0]).sum()
        return zero.sqrt() if kind in rooted else zero

    def train_loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        penalty = (hp["decay"] * squared_norm(model)).mean()
        return squared(model, batch) + penalty + root("training", model, batch)

    def valid_loss(model: nn.Module, batch: Any) -> Tensor:
        return squared(model, batch) + root("validation", model, batch)

    options: dict[str, Any] = {"train_loss": train_loss, "valid_loss": valid_loss}
    for kind, done in (("training", 0), ("validation", 2)):
        rooted.clear()
        training = RIDGE.training(response=response, **options)
        before = copy.deepcopy(training.state_dict())
        rooted.add(kind)
        with pytest.raises(FloatingPointError, match=f"gradient of the {kind} .* {done} train"):
            training.fit(10, warm_up=0)
        after = training.state_dict()
        assert not moved(before["z"], after["z"])
        assert done or not moved(before["phi"], after["phi"])
        assert all(p.isfinite().all() for p in training.best_response({"decay": 1}).parameters())


def test_integers_and_grids_are_searched_too() -> None:
    """A polynomial whose degree is cut off at an integer: rounded for the loss, smooth for w_φ."""

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        assert hp["degree"].shape == ()
        beyond = torch.arange(3) >= hp["degree"]
        return squared(model, batch) + 10 * (beyond * model.weight[0].square()).sum()

    space = {"degree": IntDistribution(0, 3)}
    tuned = RIDGE.training(search_space=space, train_loss=loss).fit(600)
    assert tuned.params["degree"] in (0, 1, 2, 3)
    assert isinstance(tuned.params["degree"], int)
