"""Layers that respond to hyperparameters, the conversion of a model, and Self-Tuning Networks."""

from __future__ import annotations

import copy
import json
import math
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from typing import NamedTuple

import numpy as np
import optuna
import pytest
import torch
from interruptions import Interrupted
from interruptions import interrupting
from interruptions import moved
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from sklearn.datasets import load_diabetes
from torch import Tensor
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.functional import softplus
from torch.utils.data import DataLoader
from torch.utils.data import TensorDataset

from optuna_hypernet import squared_norm
from optuna_hypernet.bilevel.batches import Batches
from optuna_hypernet.bilevel.densities import Around
from optuna_hypernet.bilevel.loop import Bilevel
from optuna_hypernet.bilevel.tuned import Point
from optuna_hypernet.coordinates import LIMIT
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.coordinates import Shaped
from optuna_hypernet.hypertraining import HyperTraining
from optuna_hypernet.response.delta import Delta
from optuna_hypernet.response.dropout import TunedDropout
from optuna_hypernet.response.layers import Gated
from optuna_hypernet.response.layers import Layer
from optuna_hypernet.response.layers import Linear
from optuna_hypernet.response.siblings import LAYERS
from optuna_hypernet.response.siblings import axis_of
from optuna_hypernet.response.structured import EVERYTHING
from optuna_hypernet.response.structured import Structured


CPU = torch.device("cpu")
RATE = FloatDistribution(0.0, 0.9)
DECAY = FloatDistribution(1e-5, 1e-1, log=True)
N = 5  # examples in a batch


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def drawn(*shape: int, number: int = 0) -> Tensor:
    return torch.randn(shape, generator=seed(number), dtype=torch.float64)


def made(build: Any, *arguments: Any, **options: Any) -> Any:
    """A module in float64 from a fixed seed; the global generator is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(*arguments, **options).double()


def layer_of(plain: nn.Module, n_coordinates: int = 2) -> Layer:
    """The layer's sibling, with gates drawn at random."""
    gated = {
        name: Gated(p, axis_of(plain), n_coordinates, 0.5, seed(3))
        for name, p in plain.named_parameters()
    }
    for i, weight in enumerate(gated.values()):
        weight.gate.data.copy_(0.3 * drawn(*weight.gate.shape, number=i))
    return LAYERS[type(plain)]("layer", plain, gated)


def tokens() -> Tensor:
    return torch.randint(7, (N, 4), generator=seed())


PLAIN: dict[str, tuple[nn.Module, Tensor]] = {
    "linear": (made(nn.Linear, 3, 4), drawn(N, 3)),
    "linear of sequences": (made(nn.Linear, 3, 4), drawn(N, 6, 3)),
    "linear without bias": (made(nn.Linear, 3, 4, bias=False), drawn(N, 3)),
    "conv1d": (made(nn.Conv1d, 4, 6, 3, padding=1, groups=2), drawn(N, 4, 5)),
    "conv2d": (made(nn.Conv2d, 2, 3, 3, stride=2, dilation=2), drawn(N, 2, 7, 7)),
    "conv3d": (made(nn.Conv3d, 2, 3, 2, bias=False), drawn(N, 2, 3, 3, 3)),
    "embedding": (made(nn.Embedding, 7, 3), tokens()),
    "padded embedding": (made(nn.Embedding, 7, 3, padding_idx=2), tokens()),
    "layer norm": (made(nn.LayerNorm, 3), drawn(N, 4, 3)),
    "layer norm of images": (made(nn.LayerNorm, (2, 3)), drawn(N, 4, 2, 3)),
    "rms norm": (made(nn.RMSNorm, 3), drawn(N, 4, 3)),
    "instance norm": (made(nn.InstanceNorm1d, 3, affine=True), drawn(N, 3, 4)),
    "group norm": (made(nn.GroupNorm, 2, 4), drawn(N, 4, 3, 3)),
    "batch norm": (made(nn.BatchNorm2d, 4).eval(), drawn(N, 4, 3, 3)),
    "lstm": (made(nn.LSTM, 3, 4, batch_first=True), drawn(N, 6, 3)),
    "two lstms": (made(nn.LSTM, 3, 4, num_layers=2), drawn(6, N, 3)),
    "lstm without bias": (made(nn.LSTM, 3, 4, bias=False), drawn(6, N, 3)),
    "gru": (made(nn.GRU, 3, 4, batch_first=True), drawn(N, 6, 3)),
    "two grus": (made(nn.GRU, 3, 4, num_layers=2), drawn(6, N, 3)),
    "gru without bias": (made(nn.GRU, 3, 4, bias=False), drawn(6, N, 3)),
}


def output(value: Any) -> Tensor:
    """One tensor; of a recurrent layer its outputs and its last states."""
    if isinstance(value, Tensor):
        return value
    return torch.cat([value[0].reshape(-1), *(state.reshape(-1) for state in states(value[1]))])


def states(value: Any) -> tuple[Tensor, ...]:
    """Of an LSTM two, of a GRU one."""
    return (value,) if isinstance(value, Tensor) else value


# --- layers


@pytest.mark.parametrize("name", PLAIN)
def test_each_example_has_the_weights_of_its_own_lambda(name: str) -> None:
    """Against a loop: each example alone, through the plain layer with its own weights."""
    plain, x = PLAIN[name]
    layer = layer_of(copy.deepcopy(plain))
    dz = drawn(N, 2, number=9)
    layer.displacement = dz
    together = layer(x)

    dim = 1 if isinstance(plain, nn.RNNBase) and not plain.batch_first else 0
    for i in range(N):
        alone = copy.deepcopy(plain)
        with torch.no_grad():
            for weight, parameter in alone.named_parameters():
                parameter.copy_(layer.weights()[weight].at(dz[i]))
        one = alone(x.narrow(dim, i, 1))
        if isinstance(plain, nn.RNNBase):
            torch.testing.assert_close(together[0].narrow(dim, i, 1), one[0])
            for state, its in zip(states(together[1]), states(one[1]), strict=True):
                torch.testing.assert_close(state[:, i : i + 1], its)
        else:
            torch.testing.assert_close(together[i : i + 1], one)


@pytest.mark.parametrize("name", PLAIN)
def test_equal_rows_give_what_one_displacement_for_all_gives(name: str) -> None:
    plain, x = PLAIN[name]
    layer = layer_of(copy.deepcopy(plain))
    layer.displacement = drawn(2)
    shared = output(layer(x))
    layer.displacement = drawn(2).expand(N, -1)
    torch.testing.assert_close(output(layer(x)), shared)


@pytest.mark.parametrize("name", PLAIN)
def test_at_the_centre_a_layer_is_the_plain_one(name: str) -> None:
    plain, x = PLAIN[name]
    layer = layer_of(copy.deepcopy(plain))
    layer.displacement = torch.zeros(N, 2, dtype=torch.float64)
    torch.testing.assert_close(output(layer(x)), output(plain(x)))


@pytest.mark.parametrize("name", ["lstm", "two lstms", "gru", "two grus"])
def test_a_recurrent_layer_goes_on_from_the_states_it_is_given(name: str) -> None:
    plain, x = PLAIN[name]
    layer = layer_of(copy.deepcopy(plain))
    layer.displacement = torch.zeros(N, 2, dtype=torch.float64)
    first = drawn(plain.num_layers, N, 4, number=1)
    hx = (first, 0.5 * first) if isinstance(plain, nn.LSTM) else first
    torch.testing.assert_close(output(layer(x, hx)), output(plain(x, hx)))


@pytest.mark.parametrize("per_example", [True, False])
@pytest.mark.parametrize("name", sorted(PLAIN.keys() - {"padded embedding"}))
def test_gradients_meet_finite_differences(name: str, per_example: bool) -> None:
    plain, x = PLAIN[name]
    layer = layer_of(copy.deepcopy(plain))
    parameters = list(layer.parameters())

    def function(dz: Tensor, *values: Tensor) -> Tensor:
        names = [n for n, _ in layer.named_parameters()]
        layer.displacement = dz
        given = dict(zip(names, values, strict=True))
        return output(torch.func.functional_call(layer, given, (x,)))

    dz = drawn(N, 2) if per_example else drawn(2)
    values = [p.detach().clone().requires_grad_() for p in parameters]
    assert torch.autograd.gradcheck(function, (dz.requires_grad_(), *values), fast_mode=True)


def test_padding_neither_learns_nor_responds() -> None:
    plain, x = PLAIN["padded embedding"]
    layer = layer_of(copy.deepcopy(plain))
    layer.displacement = drawn(N, 2)
    weight = layer.weights()["weight"]
    assert (x == 2).any()
    layer(x).square().sum().backward()
    assert not layer(x)[x == 2].any()
    assert not weight.response.grad[2].any()
    assert not weight.elementary.grad[2].any()


@pytest.mark.parametrize("name", PLAIN)
def test_folding_moves_the_centre_and_not_the_map(name: str) -> None:
    plain, x = PLAIN[name]
    layer = layer_of(copy.deepcopy(plain))
    layer.displacement, shift = drawn(N, 2), drawn(2, number=4)
    before = output(layer(x))
    for weight in layer.weights().values():
        weight.fold(shift)
    layer.displacement = layer.displacement - shift
    torch.testing.assert_close(output(layer(x)), before)


@pytest.mark.parametrize("name", PLAIN)
def test_squared_norms_are_those_of_the_weights_of_each_example(name: str) -> None:
    plain, _ = PLAIN[name]
    layer = layer_of(copy.deepcopy(plain))
    layer.displacement = dz = drawn(N, 2)
    slow = sum(w.at(dz).square().flatten(1).sum(1) for w in layer.weights().values())
    torch.testing.assert_close(squared_norm(layer), slow)
    simple = sum(p.square().sum() for p in plain.parameters())
    torch.testing.assert_close(squared_norm(plain), simple)


def test_a_module_without_weights_has_no_norm() -> None:
    with pytest.raises(ValueError, match="Tanh has no weights"):
        squared_norm(nn.Tanh())


@pytest.mark.parametrize(
    ("name", "x"),
    [
        ("linear", drawn(3 * N, 3)),
        ("conv2d", drawn(2, 7, 7)),
        ("group norm", drawn(N + 1, 4, 3)),
        ("lstm", drawn(6, N, 3)),
    ],
)
def test_inputs_whose_examples_cannot_be_told_are_refused(name: str, x: Tensor) -> None:
    layer = layer_of(copy.deepcopy(PLAIN[name][0]))
    layer.displacement = drawn(N, 2)
    with pytest.raises(ValueError, match=r"input.*5 examples|takes padded"):
        layer(x)


def test_a_weight_that_responds_cannot_be_taken_for_one_tensor() -> None:
    layer = layer_of(made(nn.Linear, 3, 4))
    assert layer.in_features == 3
    with pytest.raises(AttributeError, match=r"layer.weight is not one tensor.*squared_norm"):
        layer.weight.square()
    with pytest.raises(AttributeError, match="no attribute 'wait'"):
        _ = layer.wait


# --- dropout


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout])
def test_dropout_keeps_a_share_of_its_own_per_example(kind: type[nn.Module]) -> None:
    dropout = TunedDropout("drop", kind())
    dropout.rates = torch.tensor([0.0, 0.2, 0.9])
    channelwise = kind in (nn.Dropout1d, nn.Dropout2d)
    size = (3, 4000, 2) if channelwise else (3, 80000)
    x = torch.randn(*size, generator=seed(1))  # not the numbers of which masks are made
    if kind is nn.Dropout2d:
        x = x[..., None]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        y = dropout(x)
    changed = (y != x / (1 - dropout.rates.view(-1, *[1] * (x.ndim - 1)))).double()
    if kind is nn.AlphaDropout:  # mean and variance stay, whatever the rate
        torch.testing.assert_close(y.mean(1), torch.zeros(3), rtol=0, atol=0.05)
        torch.testing.assert_close(y.std(1), torch.ones(3), rtol=0.05, atol=0)
        return
    torch.testing.assert_close(
        changed.flatten(1).mean(1).float(), dropout.rates, rtol=0, atol=0.03
    )
    assert not (y * changed).any()
    if channelwise:
        assert torch.equal(changed.flatten(2).amin(2), changed.flatten(2).amax(2))
    dropout.eval()
    assert torch.equal(dropout(x), x)


# --- closed form: ridge on scikit-learn's diabetes


class Diabetes:
    """L_T = |X w - y|²/n + e^λ |w|² on 60 rows, at λ = -1 + ε; in closed form."""

    centre = -1.0

    def __init__(self) -> None:
        x, y = load_diabetes(return_X_y=True)
        order = np.random.RandomState(0).permutation(len(x))
        x, y = ((x - x.mean(0)) / x.std(0))[order], (y - y.mean())[order]
        self.x, self.y = torch.from_numpy(x[:60]), torch.from_numpy(y[:60])
        self.valid = torch.from_numpy(x[60:240]), torch.from_numpy(y[60:240])

    def weights(self, shift: Tensor) -> Tensor:
        """w*(λ), ``(10,)``, differentiable in λ."""
        penalty = (self.centre + shift).exp() * torch.eye(10, dtype=torch.float64)
        return torch.linalg.solve(self.x.T @ self.x / 60 + penalty, self.x.T @ self.y / 60)

    def best_affine(self, scale: float) -> tuple[Tensor, Tensor]:
        """w and J that minimise E L_T(w + J ε, -1 + ε) exactly, by moments of e^ε ε^k."""
        gram, target = self.x.T @ self.x / 60, self.x.T @ self.y / 60
        eye = torch.eye(10, dtype=torch.float64)
        m0 = math.exp(self.centre + scale**2 / 2)
        m1, m2 = scale**2 * m0, (scale**2 + scale**4) * m0
        top = torch.cat([gram + m0 * eye, m1 * eye], 1)
        bottom = torch.cat([m1 * eye, scale**2 * gram + m2 * eye], 1)
        found = torch.linalg.solve(torch.cat([top, bottom]), torch.cat([target, 0 * target]))
        return found[:10], found[10:]

    def hypergradient(self, w: Tensor, slope: Tensor) -> float:
        """dL_V/dλ at w with the Jacobian ``slope``, ``(10,)`` both."""
        x, y = self.valid
        return float((2 * (x @ w - y) / len(y)) @ x @ slope)


def relative(got: Tensor, exact: Tensor) -> float:
    return float((got - exact).norm() / exact.norm())


@pytest.mark.parametrize(
    ("scale", "weights", "jacobian", "hypergradient"),
    [
        (0.1, 0.0006, 0.002, 0.004),
        (0.3, 0.005, 0.018, 0.035),
        (0.5, 0.013, 0.050, 0.09),
        (1.0, 0.044, 0.19, 0.31),
    ],
)
def test_a_layer_learns_the_best_affine_response(
    scale: float, weights: float, jacobian: float, hypergradient: float
) -> None:
    """A structured layer under the exact expectation over ε, by quadrature.

    Its errors against the true best response, Jacobian and hypergradient at λ = -1 are those of
    the measured table: exact for a small spread, and off by a known amount for a large one.
    """
    data = Diabetes()
    nodes, mass = np.polynomial.hermite_e.hermegauss(24)
    epsilon = scale * torch.from_numpy(nodes)[:, None]  # (24, 1)
    mass = torch.from_numpy(mass / mass.sum())
    layer = layer_of(made(nn.Linear, 10, 1, bias=False), n_coordinates=1)
    x = data.x.expand(24, -1, -1)

    def loss() -> Tensor:
        layer.displacement = epsilon
        errors = (layer(x)[..., 0] - data.y).square().mean(1)
        penalty = (data.centre + epsilon[:, 0]).exp() * squared_norm(layer)
        return mass @ (errors + penalty)

    minimise(loss, list(layer.parameters()))
    centre = torch.zeros(1, dtype=torch.float64)
    got = torch.autograd.functional.jacobian(layer.weights()["weight"].at, centre)[0, :, 0]
    expected, slope = data.best_affine(scale)
    torch.testing.assert_close(
        layer.weights()["weight"].elementary[0], expected, rtol=1e-4, atol=1e-3
    )
    torch.testing.assert_close(got, slope, rtol=1e-3, atol=1e-2)

    exact = data.weights(centre)
    true_slope = torch.autograd.functional.jacobian(data.weights, centre)[:, 0]
    learnt = layer.weights()["weight"].elementary[0].detach()
    ratio = data.hypergradient(learnt, got) / data.hypergradient(exact, true_slope)
    assert relative(learnt, exact) == pytest.approx(weights, rel=0.1)
    assert relative(got, true_slope) == pytest.approx(jacobian, rel=0.1)
    assert ratio - 1 == pytest.approx(hypergradient, rel=0.05, abs=5e-4)


def minimise(loss: Any, parameters: list[nn.Parameter]) -> None:
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=2000,
        tolerance_grad=1e-6,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


def test_the_slope_of_a_valid_step_is_that_of_the_best_response() -> None:
    """With the true w* and its Jacobian in the layer, dL_V/dλ̂ is that of L_V(w*(λ))."""
    data, centre = Diabetes(), torch.zeros(1, dtype=torch.float64)
    layer = layer_of(made(nn.Linear, 10, 1, bias=False), n_coordinates=1)
    weight = layer.weights()["weight"]
    with torch.no_grad():
        weight.elementary.copy_(data.weights(centre)[None])
        weight.response.copy_(torch.autograd.functional.jacobian(data.weights, centre).T)
        weight.gate.fill_(1.0)
    x, y = data.valid

    def through_layer(dz: Tensor) -> Tensor:
        layer.displacement = dz
        return (layer(x)[:, 0] - y).square().mean()

    def exact(shift: Tensor) -> Tensor:
        return (x @ data.weights(shift) - y).square().mean()

    got = torch.autograd.functional.jacobian(through_layer, centre)
    torch.testing.assert_close(got, torch.autograd.functional.jacobian(exact, centre))


# --- conversion


class Small(nn.Module):
    """Layers of several kinds, a shared one and a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(7, 3)
        self.twice = nn.Linear(3, 3)
        self.body = nn.Sequential(self.twice, nn.Tanh(), nn.Dropout(0.5), self.twice)
        self.norm = nn.LayerNorm(3)
        self.decoder = nn.Linear(3, 7)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.decoder(self.norm(self.body(self.encoder(x))))
        return y


def labels() -> Tensor:
    return (tokens().sum(1) % 7)[:, None].expand(-1, 4)


def small_loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    x, y = batch
    losses = cross_entropy(model(x).transpose(1, 2), y, reduction="none").mean(1)
    return losses + hp["decay"] * squared_norm(model)


def small_valid(model: nn.Module, batch: Any) -> Tensor:
    return cross_entropy(model(batch[0]).transpose(1, 2), batch[1])


SMALL = {"body.2.p": RATE, "decay": DECAY}


def small(
    model: nn.Module | None = None,
    space: Any = SMALL,
    loss: Any = small_loss,
    kind: type[Structured] = Structured,
    **options: Any,
) -> Structured:
    """A response with gates drawn at random."""
    coordinates = Coordinates(space)
    model = made(Small) if model is None else model
    response = kind(model, loss, small_valid, coordinates, CPU, 0, **options)
    for i, weight in enumerate(response.network.gated):
        weight.gate.data.copy_(0.3 * drawn(*weight.gate.shape, number=i))
    return response


BATCH = (tokens(), labels())


def test_an_exported_model_is_plain_and_predicts_the_same() -> None:
    """Folded and unfolded: from per-example layers, from shared weights, and exported."""
    response = small()
    z = drawn(2)
    model = response.export(z)
    assert type(model) is Small
    assert type(model.body) is nn.Sequential
    assert not [m for m in model.modules() if isinstance(m, Layer | TunedDropout)]
    assert model.training
    assert model.body[0] is model.body[3] is model.twice
    assert model.decoder.weight is model.encoder.weight
    assert model.body[2].p == Coordinates(SMALL).decode(z)["body.2.p"]
    folded = small_valid(model.eval(), BATCH)
    torch.testing.assert_close(response.valid_loss(z, BATCH), folded, rtol=0, atol=1e-6)
    rows = response.valid_loss(z.expand(N, -1), BATCH)
    torch.testing.assert_close(rows, folded, rtol=0, atol=1e-6)
    response.recentre(z)
    torch.testing.assert_close(response.valid_loss(z, BATCH), folded, rtol=0, atol=1e-6)
    assert response.network.model.twice.displacement.shape == (2,)


def test_train_losses_are_those_of_each_example_with_its_own_model() -> None:
    """With dropout off, each example alone in its own exported model."""
    space = {"decay": DECAY}
    model = made(Small)
    model.body[2].eval()
    response = small(model, space)
    z = drawn(N, 1, number=7)
    losses = response.train_losses(z, Coordinates(space).natural(z), BATCH)
    for i in range(N):
        one = response.export(z[i])
        hp = Coordinates(space).natural(z[i : i + 1])
        alone = small_loss(one, (BATCH[0][i : i + 1], BATCH[1][i : i + 1]), hp)
        torch.testing.assert_close(losses[i : i + 1], alone)


def test_a_tied_weight_has_one_response_and_counts_once() -> None:
    response = small()
    assert len(response.network.gated) == 1 + 2 + 2 + 1  # encoder, twice, norm, decoder.bias
    parameters = response.network.parameters()
    assert sum(p.numel() for group in response.groups for p in group) == sum(
        p.numel() for p in parameters
    )
    z = drawn(2)
    with response.network.at(z, {}):
        norm = squared_norm(response.network.model)
    torch.testing.assert_close(norm, squared_norm(response.export(z)))


def test_frozen_and_elementary_weights_do_not_respond() -> None:
    model = made(Small)
    model.twice.weight.requires_grad_(False)
    response = small(model, elementary=["decoder", "norm"])
    names = {one.path: set(one.weights()) for one in response.network.layers}
    # The encoder's only weight is the decoder's.
    assert names == {"twice": {"bias"}}
    one, other = response.export(drawn(2)), response.export(-drawn(2))
    assert torch.equal(one.norm.weight, other.norm.weight)
    assert torch.equal(one.encoder.weight, other.encoder.weight)
    assert not torch.equal(one.twice.bias, other.twice.bias)
    trained = {id(p) for p in response.groups[0]}
    assert id(response.network.model.norm.weight) in trained
    assert all(p.requires_grad for group in response.groups for p in group)


def test_a_response_is_as_large_as_the_paper_says() -> None:
    """2 D_out (D_in + 1) + 2 D_out n numbers for a layer and n hyperparameters (section 3.2)."""
    sizes = [(784, 300), (300, 300), (300, 10)]
    model = nn.Sequential(*(nn.Linear(*pair) for pair in sizes))
    response = small(model, {name: DECAY for name in ("one", "two", "three")})
    expected = sum(2 * n_out * (n_in + 1) + 2 * n_out * 3 for n_in, n_out in sizes)
    assert expected == 661_280
    assert sum(p.numel() for group in response.groups for p in group) == expected


def test_nothing_responds_in_ordinary_training() -> None:
    response = small(elementary=EVERYTHING)
    assert not response.network.layers
    assert len(response.groups) == 1
    z = drawn(N, 2)
    assert response.train_losses(z, Coordinates(SMALL).natural(z), BATCH).shape == (N,)


def test_the_given_model_is_left_alone() -> None:
    given = made(Small)
    before = copy.deepcopy(given.state_dict())
    response = small(given)
    response.recentre(drawn(2))
    response.train_losses(drawn(N, 2), Coordinates(SMALL).natural(drawn(N, 2)), BATCH)
    assert all(torch.equal(before[name], value) for name, value in given.state_dict().items())
    assert given.body[2].p == 0.5
    assert type(given.twice) is nn.Linear
    assert given.training


def test_a_single_layer_can_be_the_whole_model() -> None:
    plain = made(nn.Linear, 3, 4)
    response = Structured(plain, small_loss, small_valid, Coordinates({"decay": DECAY}), CPU, 0)
    assert type(response.network.model) is Linear
    assert type(response.export(drawn(1))) is nn.Linear


class Odd(nn.Module):
    """Has a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x) * self.scale
        return y


class Mine(nn.Linear):
    """A subclass may do anything."""


class Kept(nn.Dropout):
    """Drops nothing."""

    def forward(self, input: Tensor) -> Tensor:
        return input


class Renamed(nn.Dropout):
    """A subclass that does what the class does."""


def hooked(module: nn.Module, kind: str) -> nn.Module:
    getattr(module, f"register_{kind}_hook")(lambda *arguments, **options: None)
    return nn.Sequential(nn.Linear(2, 2), module)


def patched(module: nn.Module) -> nn.Module:
    module.forward = lambda input: input
    return nn.Sequential(nn.Linear(2, 2), module)


def tied(one: nn.Module, other: nn.Module) -> nn.Module:
    other.weight = one.weight
    return nn.Sequential(one, other)


def attention(**options: Any) -> nn.Module:
    return nn.MultiheadAttention(4, 2, batch_first=True, **options)


@pytest.mark.parametrize(
    ("model", "space", "options", "message"),
    [
        (Odd(), {}, {}, r"The model \(Odd\) has weights .*elementary="),
        (Odd(), {}, {}, r"The model \(Odd\) .*Move scale into a submodule"),
        (nn.Sequential(Mine(2, 2)), {}, {}, r"0 \(Mine\) has weights that cannot respond"),
        (nn.LSTM(2, 2, bidirectional=True), {}, {}, "bidirectional"),
        (nn.Conv1d(2, 2, 3, padding_mode="circular"), {}, {}, "padding_mode is not 'zeros'"),
        (nn.Embedding(3, 2, max_norm=1.0), {}, {}, "max_norm"),
        (nn.MultiheadAttention(2, 1), {}, {}, r"\(MultiheadAttention\) .* not batch_first"),
        (attention(kdim=3), {}, {}, "keys and values have sizes or biases of their own"),
        (attention(add_bias_kv=True), {}, {}, "keys and values have sizes or biases"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), {}, {}, "Parametrized"),
        (tied(nn.Linear(2, 2), nn.LayerNorm((2, 2))), {}, {}, r"0 and 1 share .*elementary"),
        (Small(), {}, {"elementary": ["decode"]}, r"'decode'.*nearest.*'decoder'"),
        (Small(), {"body.3.p": RATE}, {}, r"'body.3.p'.*nearest.*'body.2.p'"),
        (Small(), {"norm.eps": RATE}, {}, "path of no dropout rate"),
        (nn.Linear(2, 2), {"drop.p": RATE}, {}, "there are none at all"),
        (Small(), {"body.2.p": FloatDistribution(0.0, 1.0)}, {}, r"between 0 and 0.95.*to 1"),
        (Small(), {"body.2.p": FloatDistribution(-0.5, 0.5)}, {}, "from -0.5 to 0.5"),
        (Small(), {"body.2.p": Shaped(RATE, (3,))}, {}, r"shape \(3,\)"),
        (hooked(nn.Linear(2, 2), "forward"), {}, {}, r"1 \(Linear\) .* it has hooks .*elementary"),
        (hooked(nn.LayerNorm(2), "forward_pre"), {}, {}, r"1 \(LayerNorm\) .* it has hooks"),
        (hooked(nn.Linear(2, 2), "full_backward"), {}, {}, r"1 \(Linear\) .* it has hooks"),
        (patched(nn.Linear(2, 2)), {}, {}, r"1 \(Linear\) .* forward of its own"),
        (hooked(nn.Dropout(), "forward"), {"1.p": RATE}, {}, "'1.p' cannot .* it has hooks"),
        (patched(nn.Dropout()), {"1.p": RATE}, {}, "'1.p' cannot .* forward of its own"),
        (nn.Sequential(nn.Linear(2, 2), Kept()), {"1.p": RATE}, {}, "a Kept has a forward"),
        (Small().half(), {}, {}, "float16"),
    ],
)
def test_what_cannot_be_converted_is_named(
    model: nn.Module, space: Any, options: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small(model, {**space, "decay": DECAY}, **options)


def test_a_dropout_that_does_what_its_class_does_is_tuned() -> None:
    model = nn.Sequential(nn.Linear(2, 2), Renamed(), Kept()).double()
    exported = small(model, {"1.p": RATE}).export(drawn(1))
    assert [type(part) for part in exported[1:]] == [Renamed, Kept]


def test_a_layer_with_hooks_may_stay_elementary() -> None:
    seen = []
    model = made(Small)
    model.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    response = small(model, elementary=["norm"])
    response.train_losses(drawn(N, 2), Coordinates(SMALL).natural(drawn(N, 2)), BATCH)
    assert len(seen) == 1


def test_one_rate_of_a_shared_dropout() -> None:
    drop = nn.Dropout()
    model = nn.Sequential(drop, nn.Linear(2, 2), drop)
    with pytest.raises(ValueError, match=r"'2.p' and '0.p' are the same module"):
        small(model, {"0.p": RATE, "2.p": RATE})


def test_a_part_of_the_model_that_cannot_respond_may_stay_elementary() -> None:
    response = small(Odd().double(), {"decay": DECAY}, elementary=[""])
    assert not response.network.layers


def test_batch_norm_without_statistics_has_affine_weights_that_respond() -> None:
    norm = nn.BatchNorm1d(4, track_running_stats=False).double()
    layer = layer_of(norm)
    x = drawn(N, 4)
    layer.displacement = drawn(2).expand(N, -1)
    expected = (x - x.mean(0)) / (x.var(0, unbiased=False) + norm.eps).sqrt()
    weight, bias = (layer.weights()[name].at(drawn(2)) for name in ("weight", "bias"))
    torch.testing.assert_close(layer(x), expected * weight + bias)


def test_statistics_over_a_batch_are_those_of_all_examples_whatever_their_lambda() -> None:
    """In training and in running ones; an example has a scale and a shift of its own."""
    layer = layer_of(nn.BatchNorm1d(4).double())
    plain = nn.BatchNorm1d(4, affine=False).double()
    layer.displacement = dz = drawn(N, 2)
    weight, bias = (layer.weights()[name].at(dz) for name in ("weight", "bias"))
    for number, mode in enumerate((True, True, False)):
        x = 3 + 2 * drawn(N, 4, number=number)
        for module in (layer, plain):
            module.train(mode)
        torch.testing.assert_close(layer(x), plain(x) * weight + bias)
    assert not moved(dict(layer.plain.named_buffers()), plain.state_dict())


class Attending(nn.Module):
    """The first three tokens look at all."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attend = attention(**options)

    def forward(self, x: Tensor, **options: Any) -> Any:
        return self.attend(x[:, :3], x, x, **options)


@pytest.mark.parametrize(
    ("built", "called"),
    [
        ({}, {}),
        ({"bias": False, "add_zero_attn": True}, {"average_attn_weights": False}),
        ({}, {"need_weights": False}),
        ({}, {"key_padding_mask": drawn(N, 6) > 0.5}),
        ({}, {"attn_mask": drawn(3, 6) > 0.5, "need_weights": False}),
        ({}, {"attn_mask": drawn(3, 6)}),
    ],
)
def test_each_example_attends_by_weights_of_its_own(built: Any, called: Any) -> None:
    """Against a loop over examples, each alone in its own exported model."""
    response = small(made(Attending, **built), {"decay": DECAY})
    z, x = drawn(N, 1, number=8), drawn(N, 6, 4, number=5)
    model = response.network.model
    assert len(response.network.gated) == (2 if built else 4)
    with response.network.at(z, {}):
        together, weights = model(x, **called)
    for i in range(N):
        alone = response.export(z[i])
        assert type(alone.attend) is nn.MultiheadAttention
        own = {n: v[i : i + 1] if n == "key_padding_mask" else v for n, v in called.items()}
        expected, its = alone(x[i : i + 1], **own)
        torch.testing.assert_close(together[i : i + 1], expected)
        assert (weights is None) == (its is None) == (called.get("need_weights") is False)
        if its is not None:
            torch.testing.assert_close(weights[i : i + 1], its)
        with response.network.at(z[i], {}):  # one displacement for all
            torch.testing.assert_close(model(x[i : i + 1], **own)[0], expected)


@pytest.mark.parametrize("frozen", ["in_proj_weight", "in_proj_bias", "out_proj.weight"])
def test_a_part_of_attention_may_be_frozen(frozen: str) -> None:
    model = made(Attending)
    model.attend.get_parameter(frozen).requires_grad_(False)
    response = small(model, {"decay": DECAY})
    z, x = drawn(1), drawn(N, 6, 4)
    assert len(response.network.gated) == 3
    with response.network.at(z.expand(N, -1), {}):
        torch.testing.assert_close(response.network.model(x), response.export(z)(x))


@pytest.mark.parametrize("frozen", ["weight", "bias"])
@pytest.mark.parametrize("build", [lambda: nn.LayerNorm((3, 4)), lambda: nn.GroupNorm(3, 3)])
def test_a_norm_of_which_a_part_is_frozen_is_the_exported_one(build: Any, frozen: str) -> None:
    norm = build().double()
    for number, (name, weight) in enumerate(norm.named_parameters()):
        weight.data.copy_(drawn(*weight.shape, number=number))
        weight.requires_grad_(name != frozen)
    response = small(nn.Sequential(norm), {"decay": DECAY})
    z, x = drawn(1), drawn(N, 3, 4)
    expected = response.export(z)(x)
    with response.network.at(z.expand(N, -1), {}):
        torch.testing.assert_close(response.network.model(x), expected)


# --- Delta-STN


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 2)
        self.norm = nn.GroupNorm(2, 4)
        self.drop = nn.Dropout1d()
        self.lstm = nn.LSTM(4, 5)
        self.head = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(self.norm(self.conv(x[:, None])))
        y = self.lstm(y.permute(2, 0, 1))[0][-1]
        z: Tensor = self.head(y)
        return z


@pytest.mark.parametrize(("build", "x"), [(Small, tokens()), (Recurrent, drawn(5, 3))])
def test_the_network_is_linearised_in_its_displacement(build: type[nn.Module], x: Tensor) -> None:
    """Against a central difference, an example at a time in its own direction."""
    seen: list[Tensor] = []

    def watched(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        seen.append(model(batch).detach())
        return model(batch).square().flatten(1).mean(1)

    model = made(build)
    for part in model.modules():
        part.train(not isinstance(part, nn.Dropout | nn.Dropout1d))
    response = small(model, {"decay": DECAY}, watched, Delta)
    network, z = response.network, drawn(len(x), 1)
    response.train_losses(z, Coordinates({"decay": DECAY}).natural(z), x)
    plain, linear = seen

    def output(step: float) -> Tensor:
        with network.at(step * z, {}):
            return network.model(x).detach()

    torch.testing.assert_close(plain, output(0.0))
    torch.testing.assert_close(linear, plain + (output(1e-5) - output(-1e-5)) / 2e-5)
    assert not torch.allclose(linear, output(1.0), rtol=0.01)
    assert "forward" not in vars(network.model)


def test_everything_that_a_model_returns_is_linearised() -> None:
    class Pair(NamedTuple):
        value: Tensor
        nothing: None

    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Any:
            y = self.inner(x)
            two = (y.square(), y.detach().sign())
            return OrderedDict(one=[y, Pair(2 * y, None)], two=two)

    seen: list[Any] = []

    def watched(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        seen.append(model(batch))
        return seen[-1]["one"][0].square().mean(1)

    response = small(made(Many), {"decay": DECAY}, watched, Delta)
    z = drawn(4, 1)
    response.train_losses(z, Coordinates({"decay": DECAY}).natural(z), drawn(4, 3))
    plain, linear = seen
    slope = linear["one"][0] - plain["one"][0]
    assert slope.abs().min() > 0
    torch.testing.assert_close(linear["one"][1].value, 2 * linear["one"][0])
    torch.testing.assert_close(linear["two"][0], plain["two"][0] + 2 * plain["one"][0] * slope)
    assert linear["one"][1].nothing is None
    assert type(linear) is OrderedDict


def gradients(response: Structured, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Of the mean loss in elementary and in response weights, flat."""
    elementary, learnt = (
        torch.autograd.grad(losses.mean(), group, retain_graph=True, materialize_grads=True)
        for group in response.groups
    )
    flat = [torch.cat([part.reshape(-1) for part in parts]) for parts in (elementary, learnt)]
    return flat[0], flat[1]


@pytest.mark.parametrize(("spread", "apart"), [(1e-3, 1e-6), (1e-2, 1e-4), (1.0, 1.0)])
def test_both_ways_to_learn_are_one_for_a_layer_without_spread(
    spread: float, apart: float
) -> None:
    """Every row twice, on opposite sides of the centre: what is left is of order spread²."""
    x, y = (part[:20].double().repeat(2, 1) for part in regression())
    half = spread * drawn(20, 1)
    z = torch.cat([half, -half])
    hp = Coordinates({"decay": DECAY}).natural(z)

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return softplus(-y * model(x)).mean(1) + 10 * hp["decay"] * squared_norm(model)

    def slopes(kind: type[Structured]) -> tuple[Tensor, Tensor]:
        response = small(made(nn.Linear, 3, 1), {"decay": DECAY}, loss, kind)
        return gradients(response, response.train_losses(z, hp, (x, y)))

    one, two = slopes(Structured), slopes(Delta)
    torch.testing.assert_close(two[1], one[1])
    assert 0.01 * apart < relative(two[0], one[0]) < apart


def expectation(scale: float, n_rows: int) -> tuple[Tensor, Tensor]:
    """Coordinates ``(12 n, 1)`` and weights ``(12 n,)`` of a Gaussian's quadrature, for n rows."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(12)
    z = scale * torch.from_numpy(nodes).repeat_interleave(n_rows)[:, None]
    return z, 12 * torch.from_numpy(mass / mass.sum()).repeat_interleave(n_rows)


def coordinate(share: Tensor) -> Tensor:
    """z of a hyperparameter that is uniform on [0, 1]."""
    tail = 0.5 * math.erfc(LIMIT / math.sqrt(2))
    return torch.special.ndtri(tail + share * (1 - 2 * tail))


SHARE = {"share": FloatDistribution(0.0, 1.0)}


@pytest.mark.parametrize("scale", [0.1, 0.5])
def test_the_centre_of_ridge_is_exact_where_one_loss_moves_it_away(scale: float) -> None:
    """Where φ stands still, in closed form: w* itself, and J by moments of e^ε around it.

    That J is no nearer to the best response's, but dL_V/dλ̂, taken at w*, is.
    """
    data, zero = Diabetes(), torch.zeros(1, dtype=torch.float64)
    z, mass = expectation(scale, 60)
    x, y = data.x.repeat(12, 1), data.y.repeat(12)

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        penalty = (data.centre + coordinate(hp["share"])).exp()
        return mass * ((model(x)[:, 0] - y).square() + penalty * squared_norm(model))

    def still(kind: type[Structured], centre: Tensor, slope: Tensor) -> list[bool]:
        response = small(made(nn.Linear, 10, 1, bias=False), SHARE, loss, kind)
        (weight,) = response.network.gated
        with torch.no_grad():
            weight.elementary.copy_(centre[None])
            weight.response.copy_(slope[None])
            weight.gate.fill_(1.0)
        losses = response.train_losses(z, Coordinates(SHARE).natural(z), (x, y))
        return [bool(part.norm() < 1e-8 * losses.mean()) for part in gradients(response, losses)]

    exact = data.weights(zero)
    true_slope = torch.autograd.functional.jacobian(data.weights, zero)[:, 0]
    m0 = math.exp(data.centre + scale**2 / 2)
    m1, m2 = scale**2 * m0, (scale**2 + scale**4) * m0
    curvature = scale**2 * data.x.T @ data.x / 60 + m2 * torch.eye(10, dtype=torch.float64)
    slope = -m1 * torch.linalg.solve(curvature, exact)
    assert still(Delta, exact, slope) == [True, True]
    assert still(Structured, *data.best_affine(scale)) == [True, True]
    assert still(Structured, exact, slope) == [False, True]
    both = data.hypergradient(exact, slope), data.hypergradient(*data.best_affine(scale))
    delta, one = (abs(each / data.hypergradient(exact, true_slope) - 1) for each in both)
    assert delta < 0.5 * one


def test_the_slope_is_exact_where_only_the_network_bends() -> None:
    """softplus(w) against 1 + 0.3 z: dw*/dz is 0.3 over softplus's slope, however wide z is."""
    z, mass = expectation(0.7, 1)
    x = torch.ones(12, 1, dtype=torch.float64)

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return mass * (model(x)[:, 0] - 1 - 0.3 * coordinate(hp["share"])).square()

    def slopes(kind: type[Structured]) -> Tensor:
        model = made(lambda: nn.Sequential(nn.Linear(1, 1, bias=False), nn.Softplus()))
        response = small(model, SHARE, loss, kind)
        (weight,) = response.network.gated
        with torch.no_grad():
            weight.elementary.fill_(math.log(math.e - 1))
            weight.response.fill_(0.3 / (1 - 1 / math.e))
            weight.gate.fill_(1.0)
        hp = Coordinates(SHARE).natural(z)
        return torch.cat(gradients(response, response.train_losses(z, hp, x)))

    assert slopes(Delta).abs().max() < 1e-10
    assert slopes(Structured).abs().max() > 1e-3


# --- the loop


def regression(n: int = 60) -> tuple[Tensor, Tensor]:
    x = drawn(n, 3, number=1).float()
    return x, (x[:, :1] - 2 * x[:, 1:2] + 0.3 * drawn(n, 1, number=2)).float()


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)
        self.body = nn.Sequential(nn.Linear(3, width), nn.Tanh(), self.drop, nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


SPACE = {"drop.p": RATE, "decay": DECAY, "noise": FloatDistribution(0.0, 1.0)}


def net_loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    noisy = batch[0] + hp["noise"][:, None] * torch.randn_like(batch[0])
    return (model(noisy) - batch[1]).square().mean(1) + hp["decay"] * squared_norm(model)


def net_valid(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def training(batch: int = 8, **changed: Any) -> HyperTraining:
    """30 rows in batches of 8, so the last one is short; of the other 30, a batch of one."""
    x, y = regression()
    arguments: dict[str, Any] = {
        "model": made(Net).float(),
        "search_space": SPACE,
        "train_loss": net_loss,
        "valid_loss": net_valid,
        "train_data": DataLoader(TensorDataset(x[:30], y[:30]), batch, shuffle=True),
        "valid_data": DataLoader(TensorDataset(x[30:], y[30:]), 29, shuffle=True),
        "response": "structured",
        "seed": 3,
    }
    return HyperTraining(**{**arguments, **changed})


@pytest.mark.parametrize("response", ["structured", "structured-delta"])
def test_each_step_moves_its_own_and_nothing_else(response: str) -> None:
    one = training(response=response)
    one.fit(30, patience=100)
    bilevel = one._bilevel
    states = [copy.deepcopy(bilevel.state_dict())]
    for step in (
        lambda: bilevel.train_step(Around(0.5), None),
        lambda: bilevel.adaptive_valid_step(1e-3),
    ):
        step()
        states.append(copy.deepcopy(bilevel.state_dict()))
    start, trained, validated = states
    mine, hyper = ("phi", "optimizers"), ("z", "log_scale", "hyper_optimizers")
    for name in mine:
        assert moved(start[name], trained[name])
        assert not moved(trained[name], validated[name])
    for name in hyper:
        assert not moved(start[name], trained[name])
        assert moved(trained[name], validated[name])
    assert all(p.grad is None for p in one._response.network.parameters())


def test_a_valid_batch_that_lambda_does_not_change_leaves_it_alone() -> None:
    """Here the last of a pass, a batch of one, goes through a part that does not respond."""

    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.usual, self.other = nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                return self.usual(x) + self.other(x)
            y: Tensor = self.other(x) if len(x) == 1 else self.usual(x)
            return y

    space = {"decay": DECAY, "noise": SPACE["noise"]}
    one = training(model=made(Forked).float(), search_space=space, elementary=["other"])
    one.fit(8)
    bilevel = one._bilevel
    path = [bilevel.z.detach().clone()]
    for _ in range(4):
        bilevel.adaptive_valid_step(1e-2)
        path.append(bilevel.z.detach().clone())
    stays = [torch.equal(before, after) for before, after in pairwise(path)]
    assert stays in ([True, False] * 2, [False, True] * 2)


def refuse(gradient: Tensor) -> None:
    raise RuntimeError("cudnn RNN backward can only be called in training mode")


def as_cudnn(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The forward of an LSTM with the manners that it has on a GPU."""

    def mannered(module: nn.Module, *inputs: Any) -> Any:
        outputs = forward(module, *inputs)
        if not module.training and outputs[0].requires_grad:
            outputs[0].register_hook(refuse)
        return outputs

    return mannered


@pytest.mark.parametrize("elementary", [[], ["lstm"]])
def test_an_lstm_without_gradient_in_eval_mode_can_be_tuned(
    monkeypatch: pytest.MonkeyPatch, elementary: list[str]
) -> None:
    """No step needs one: it is a loop if it responds, and λ acts behind it if it does not."""
    monkeypatch.setattr(nn.LSTM, "forward", as_cudnn(nn.LSTM.forward))

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.last = nn.LSTM(1, 4, batch_first=True), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(self.lstm(x[:, :, None])[0][:, -1])
            return y

    space = {"decay": DECAY, "noise": SPACE["noise"]}
    one = training(model=made(Recurrent).float(), search_space=space, elementary=elementary)
    assert math.isfinite(one.fit(6, warm_up=2).true_loss)


def quadratic(entropy: float, steps: int) -> Bilevel:
    """L_V = 2 + mean of (z - 1)²/2: with τ, σ goes to √τ, in closed form."""

    class Bowl:
        per_example = True

        def __init__(self) -> None:
            self.hypernetwork = nn.Linear(1, 1)
            self.telling = list(self.hypernetwork.parameters())
            self.groups = [self.telling]

        def recentre(self, z: Tensor) -> None: ...

        def valid_loss(self, z: Tensor, batch: Any) -> Tensor:
            return 2 + 0.5 * (z - 1).square().mean()

    bilevel = Bilevel(
        Bowl(),
        Coordinates({"x": RATE}),
        Batches("train_data", [torch.zeros(64)], CPU, 0),
        Batches("valid_data", [torch.zeros(64)], CPU, 0),
        lambda phi: torch.optim.SGD(phi, lr=0.1),
        lambda z: torch.optim.Adam(z, lr=0.05),
        torch.zeros(1, dtype=torch.float64),
        0,
    )
    bilevel.reset_scale(0.5)
    for step in range(steps):
        bilevel.resize(1, 1 - step / steps)
        bilevel.adaptive_valid_step(entropy)
    return bilevel


def test_the_spread_goes_where_entropy_and_curvature_balance() -> None:
    """d/dσ of σ²/2 - τ log σ is zero at σ = √τ."""
    bilevel = quadratic(0.09, 500)
    assert float(bilevel.z[0].detach()) == pytest.approx(1.0, abs=0.02)
    assert float(bilevel.scale[0]) == pytest.approx(0.3, rel=0.05)
    assert bilevel.at_floor() == bilevel.at_ceiling() == []


@pytest.mark.parametrize(("entropy", "end"), [(0.0, 0.05), (9.0, 2.0)])
def test_the_spread_stays_between_its_floor_and_its_ceiling(entropy: float, end: float) -> None:
    bilevel = quadratic(entropy, 400)
    assert float(bilevel.scale[0]) == pytest.approx(end)
    assert bilevel.at_floor() == (["x"] if entropy == 0 else [])
    assert bilevel.at_ceiling() == (["x"] if entropy == 9 else [])


def test_a_spread_at_its_floor_is_warned_of() -> None:
    """Descent on a smooth bowl: without entropy the spread of a rate that matters dies."""
    start = {"drop.p": 0.5, "decay": 1e-3, "noise": 0.5}
    one = training(start=start, hyper_optimizer=lambda z: torch.optim.SGD(z, lr=1e3))
    with pytest.warns(UserWarning, match=r"spread of \[.*\] ended at its floor.*more entropy="):
        one.fit(12, entropy=0.0)


def test_a_spread_at_its_ceiling_is_told_without_a_warning() -> None:
    tuned = training(hyper_optimizer=lambda z: torch.optim.SGD(z, lr=1e3)).fit(12, entropy=10.0)
    assert tuned.flat == ["drop.p", "decay", "noise"]
    assert training().fit(12).flat == []


def test_long_gradients_are_shortened_group_by_group() -> None:
    """SGD with step 1: a group moves by its gradient, and at most by ``clip``."""

    def distances(clip: float | None) -> list[float]:
        one = training(clip=clip, optimizer=lambda phi: torch.optim.SGD(phi, lr=1.0))
        with torch.no_grad():
            for weight in one._response.network.gated:
                weight.gate.fill_(0.1)
        before = [[p.detach().clone() for p in group] for group in one._response.groups]
        one._bilevel.train_step(Around(0.5), None)
        pairs = zip(one._response.groups, before, strict=True)
        return [
            math.sqrt(
                sum(float((p - q).detach().square().sum()) for p, q in zip(*pair, strict=True))
            )
            for pair in pairs
        ]

    free, short = distances(None), distances(0.01)
    assert min(free) > 0.01
    assert short == pytest.approx([0.01, 0.01], rel=1e-3)


# --- the door


def test_a_valid_step_has_the_slope_of_the_best_response() -> None:
    """Ridge through the whole loop: φ learnt in train steps, dL_V/dλ̂ against the closed form."""
    x, y = (part.double() for part in regression())
    one = training(
        model=made(nn.Linear, 3, 1, bias=False),
        search_space={"decay": FloatDistribution(0.1, 1.0, log=True)},
        train_loss=lambda model, batch, hp: (
            (model(batch[0]) - batch[1]).square().mean(1) + hp["decay"] * squared_norm(model)
        ),
        train_data=[(x[:30], y[:30])],
        valid_data=[(x[30:], y[30:])],
        optimizer=lambda phi: torch.optim.Adam(phi, lr=0.01),
    )
    for step in range(1000):
        one._bilevel.resize(1 - step / 1000, 1)
        one._bilevel.train_step(Around(0.15), None)

    def exact(z: Tensor) -> Tensor:
        penalty = one.coordinates.natural(z)["decay"] * torch.eye(3, dtype=torch.float64)
        w = torch.linalg.solve(x[:30].T @ x[:30] / 30 + penalty, x[:30].T @ y[:30] / 30)
        return (x[30:] @ w - y[30:]).square().mean()

    def learnt(z: Tensor) -> Tensor:
        return one._response.valid_loss(z, (x[30:], y[30:]))

    z = one._bilevel.z.detach()
    torch.testing.assert_close(learnt(z).detach(), exact(z), rtol=0.03, atol=0)
    slopes = [torch.autograd.functional.jacobian(loss, z) for loss in (learnt, exact)]
    torch.testing.assert_close(*slopes, rtol=0.1, atol=0)


@pytest.mark.parametrize("response", ["structured", "structured-delta"])
def test_self_tuning_comes_back_from_a_harmful_start(response: str) -> None:
    """Dropout and decay that spoil a net go down, and so does its loss; also replayed."""
    start = {"drop.p": 0.8, "decay": 0.05}
    one = training(
        search_space={name: SPACE[name] for name in start},
        train_loss=lambda model, batch, hp: net_loss(
            model, batch, {**hp, "noise": hp["decay"] * 0}
        ),
        start=start,
        response=response,
        train_data=[tuple(part[:30] for part in regression())],
    )
    tuned = one.fit(400, patience=400)
    constant = one.train(start, steps=400)
    assert tuned.true_loss < 0.8 * constant.true_loss
    assert all(tuned.params[name] < 0.5 * start[name] for name in start)
    assert tuned.predicted_loss == pytest.approx(tuned.true_loss, rel=1e-5)
    assert type(tuned.model) is Net
    assert tuned.model.drop.p == tuned.params["drop.p"]
    assert tuned.schedule["decay"].shape == tuned.steps.shape
    replayed = one.replay(tuned)
    assert replayed.steps.tolist() == tuned.steps.tolist()
    for name, rates in tuned.schedule.items():
        np.testing.assert_allclose(replayed.schedule[name], rates, rtol=1e-4)
    assert replayed.true_loss < 0.8 * constant.true_loss
    assert type(replayed.model) is Net


def test_a_replayed_path_is_followed_along_lines_between_evaluations() -> None:
    """The first steps at the first point; then each step at the λ that the step before left."""
    seen: list[float] = []

    def watched(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        seen.append(float(hp["decay"][0]))
        return net_loss(model, batch, hp)

    one = training(train_loss=watched)
    low, high = ({"drop.p": p, "decay": d, "noise": p} for p, d in ((0.1, 1e-4), (0.6, 1e-2)))
    path = [Point(steps, steps, params, 0.0) for steps, params in ((3, low), (7, high))]
    seen.clear()
    replayed = one.replay(replace(one.train(low, steps=0), path=path))
    start, end = map(one.coordinates.encode, (low, high))
    shares = [0, 0, 0, 0, 0.25, 0.5, 0.75]
    expected = [one.coordinates.decode(torch.lerp(start, end, s))["decay"] for s in shares]
    assert seen == pytest.approx(expected, rel=1e-4)
    assert [point.params["decay"] for point in replayed.path] == pytest.approx([1e-4, 1e-2])


def test_a_replay_trains_on_other_data_if_told_to() -> None:
    """And still is validated on the same."""
    seen: set[int] = set()

    def watched(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        seen.add(len(batch[0]))
        return net_loss(model, batch, hp)

    one = training(train_loss=watched)
    tuned = one.fit(epochs=2)
    x, y = regression()
    seen.clear()
    replayed = one.replay(tuned, train_data=[(x[:7], y[:7]), (x[7:14], y[7:14])])
    assert seen == {7}
    again = one.train(replayed.params, 0, model=replayed.model)
    assert replayed.true_loss == pytest.approx(again.true_loss, rel=1e-5)


@pytest.mark.parametrize("names", [["decay"], ["drop.p", "decay", "noise"]])
def test_a_step_of_a_hyperparameter_is_as_long_however_many_there_are(names: list[str]) -> None:
    """Adam's first one is of the length that is set: 0.05 standard deviations."""
    start = {name: 0.5 * (kind.low + kind.high) for name, kind in SPACE.items()}

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        zero = torch.zeros(len(batch[0]))
        return net_loss(model, batch, {name: zero for name in SPACE} | dict(hp))

    space = {name: SPACE[name] for name in names}
    begun = {name: start[name] for name in names}
    one = training(search_space=space, train_loss=loss, start=begun)
    one.fit(3, warm_up=1, ratio=2, patience=9)
    steps = one.coordinates.encode(one.params) - one.coordinates.encode(begun)
    torch.testing.assert_close(steps.abs(), torch.full_like(steps, 0.05), rtol=0.01, atol=0)


def test_every_example_of_a_replay_has_its_own_draw_from_the_spread_there_was() -> None:
    """Of the middle of a range: the spread of shares is that of the normal distribution."""
    seen: list[Tensor] = []

    def watched(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        seen.append(hp["noise"].detach())
        return net_loss(model, batch, hp)

    one = training(train_loss=watched, train_data=[tuple(x.repeat(50, 1) for x in regression())])
    params = {"drop.p": 0.1, "decay": 1e-3, "noise": 0.5}
    spreads: list[dict[str, float]] = [{}, {"noise": 0.2}, {"noise": 0.6}]
    path = [Point(n, n, params, 0.0, spread) for n, spread in zip((2, 4, 6), spreads, strict=True)]
    seen.clear()
    replayed = one.replay(replace(one.train(params, steps=0), path=path))
    found = [float(torch.special.ndtri(hp).std()) for hp in seen]
    assert found == pytest.approx([0.0, 0.0, 0.0, 0.1, 0.2, 0.4], rel=0.1, abs=1e-6)
    assert all(hp.mean() == pytest.approx(0.5, abs=0.02) for hp in seen)
    assert [point.spread["noise"] for point in replayed.path] == pytest.approx([0.0, 0.2, 0.6])
    unknown = replace(path[0], spread={"nois": 0.2})
    with pytest.raises(ValueError, match=r"'nois'.*'noise'"):
        one.replay(replace(replayed, path=[unknown]))


def test_a_run_that_ended_early_is_replayed_with_the_step_sizes_it_had() -> None:
    """They decay over all of the steps that were planned, in the replay as in the run."""
    tuned = training().fit(epochs=8)
    whole = training().replay(tuned)
    assert tuned.planned == whole.planned == tuned.steps[-1]
    early = training().replay(replace(tuned, path=tuned.path[:6]))
    assert [one.predicted_loss for one in early.path] == [
        one.predicted_loss for one in whole.path[:6]
    ]
    shorter = training().replay(replace(tuned, path=tuned.path[:6], planned=0))
    assert shorter.path[-1].predicted_loss != whole.path[5].predicted_loss


def test_same_seed_same_result_and_no_global_state() -> None:
    before = torch.get_rng_state()
    one, other = training().fit(30), training().fit(30)
    assert [point.params for point in one.path] == [point.params for point in other.path]
    assert not moved(one.model.state_dict(), other.model.state_dict())
    assert torch.equal(before, torch.get_rng_state())


def decaying(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.9)


@pytest.mark.parametrize("response", ["structured", "structured-delta"])
def test_a_resumed_run_ends_in_the_very_same_bits(tmp_path: Path, response: str) -> None:
    file = tmp_path / "run.pt"
    made: dict[str, Any] = {"response": response, "scheduler": decaying}
    whole = training(**made).fit(epochs=12)
    with pytest.raises(Interrupted):
        training(**made, valid_loss=interrupting(net_valid, 30)).fit(epochs=12, checkpoint=file)
    resumed = training(**made).fit(epochs=12, checkpoint=file)
    assert not moved(whole.model.state_dict(), resumed.model.state_dict())
    assert whole.path == resumed.path


def test_a_trial_sees_every_epoch_and_keeps_the_schedule() -> None:
    study = optuna.create_study()

    def objective(trial: optuna.Trial) -> float:
        return training().fit(epochs=6, trial=trial).true_loss

    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert sorted(trial.intermediate_values) == [1, 2, 3, 4, 5, 6]
    assert trial.user_attrs["schedule"].keys() == SPACE.keys()
    assert len(trial.user_attrs["schedule"]["drop.p"]) == len(trial.user_attrs["steps"]) == 6
    assert {len(spread) for spread in trial.user_attrs["spread"].values()} == {6}
    assert trial.user_attrs["params"].keys() == SPACE.keys()


def test_a_trial_of_several_objectives_keeps_the_schedule_and_is_told_no_losses() -> None:
    """Optuna's own ``report`` raises there."""
    study = optuna.create_study(directions=["minimize", "minimize"])
    study.optimize(lambda trial: (training().fit(epochs=3, trial=trial).true_loss, 1.0), 1)

    (trial,) = study.trials
    assert trial.intermediate_values == {}
    assert trial.user_attrs["schedule"].keys() == SPACE.keys()
    assert len(trial.user_attrs["steps"]) >= 3


def test_a_study_that_maximises_is_told_of_losses_below_zero() -> None:
    """For its pruner lower is worse; a trial without a study is told of the loss."""
    told = {}
    for direction in ("minimize", "maximize"):
        study = optuna.create_study(direction=direction)
        study.optimize(lambda trial: training().fit(epochs=3, trial=trial).true_loss, n_trials=1)
        told[direction] = study.trials[0].intermediate_values
    assert min(told["minimize"].values()) > 0
    assert told["maximize"] == {step: -loss for step, loss in told["minimize"].items()}
    training().fit(epochs=3, trial=optuna.trial.FixedTrial({}))


def test_every_epoch_is_reported_under_a_number_of_its_own() -> None:
    """With two batches each, most ends of cycles lie in the middle of one."""
    study = optuna.create_study()
    study.optimize(lambda trial: training(batch=15).fit(epochs=15, trial=trial).true_loss, 1)
    (trial,) = study.trials
    assert len(trial.intermediate_values) == len(trial.user_attrs["steps"])
    assert max(trial.intermediate_values) == 15


def test_a_trial_that_resumes_a_run_is_told_all_of_it(tmp_path: Path) -> None:
    file, study = tmp_path / "run.pt", optuna.create_study()
    losses = [interrupting(net_valid, 30), net_valid, net_valid]

    def objective(trial: optuna.Trial) -> float:
        made = training(valid_loss=losses[trial.number])
        return made.fit(epochs=8, trial=trial, checkpoint=file).true_loss

    study.optimize(objective, n_trials=3, catch=Interrupted)
    cut, resumed, over = (trial.intermediate_values for trial in study.trials)
    assert 0 < len(cut) < 8
    assert list(resumed) == list(range(1, 9))
    assert resumed == over
    assert resumed.items() >= cut.items()


def test_a_run_that_is_over_is_not_pruned(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    whole = training().fit(epochs=6, checkpoint=file)
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=-1.0))
    study.optimize(
        lambda trial: training().fit(epochs=6, trial=trial, checkpoint=file).true_loss, 1
    )
    (trial,) = study.trials
    assert trial.state == optuna.trial.TrialState.COMPLETE
    assert trial.value == whole.true_loss
    assert len(trial.intermediate_values) == 6


def test_a_trial_that_goes_on_itself_is_told_once(tmp_path: Path) -> None:
    trial = optuna.create_study().ask()
    with pytest.raises(Interrupted):
        training(valid_loss=interrupting(net_valid, 30)).fit(
            epochs=8, trial=trial, checkpoint=tmp_path / "run.pt"
        )
    training().fit(epochs=8, trial=trial, checkpoint=tmp_path / "run.pt")  # without a warning


def test_a_pruned_trial_has_its_path_stored() -> None:
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=-1.0))
    study.optimize(lambda trial: training().fit(epochs=6, trial=trial).true_loss, n_trials=1)
    (trial,) = study.trials
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert len(trial.user_attrs["schedule"]["decay"]) == 1


@pytest.fixture
def plots() -> Callable[[optuna.Study], dict[str, Any]]:
    """What optuna-dashboard would draw of a study, by name."""
    pytest.importorskip("plotly", reason="pip install plotly")
    stored = pytest.importorskip("optuna_dashboard._custom_plot_data")

    def plots(study: optuna.Study) -> dict[str, Any]:
        attributes = study._storage.get_study_system_attrs(study._study_id)
        texts = stored.get_plotly_graph_objects(attributes)
        return {name: json.loads(text) for name, text in texts.items()}

    return plots


def test_the_dashboard_gets_a_plot_of_each_whole_run(tmp_path: Path, plots: Any) -> None:
    """Of a study over learning rate and width, whose trials tune themselves."""
    storage = f"sqlite:///{tmp_path}/studies.db"
    study = optuna.create_study(storage=storage, pruner=optuna.pruners.NopPruner())
    space = {**SPACE, "noise": Shaped(FloatDistribution(0.0, 1.0), (3,))}

    def noisy_loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        scales = {**hp, "noise": hp["noise"].mean(1)}
        return net_loss(model, (batch[0] + hp["noise"], batch[1]), scales)

    def objective(trial: optuna.Trial) -> float:
        width = trial.suggest_int("width", 4, 16)
        lr = trial.suggest_float("lr", 1e-3, 1e-1, log=True)
        model, adam = made(Net, width).float(), partial(torch.optim.Adam, lr=lr)
        one = training(model=model, search_space=space, train_loss=noisy_loss, optimizer=adam)
        return one.fit(epochs=4, trial=trial).true_loss

    study.optimize(objective, n_trials=2)
    found = plots(optuna.load_study(study_name=study.study_name, storage=storage))
    assert found.keys() == {"schedule-0", "schedule-1"}
    for trial in study.trials:
        plot = found[f"schedule-{trial.number}"]
        rate, decay, *noise = plot["data"]
        schedule = trial.user_attrs["schedule"]
        assert rate["x"] == trial.user_attrs["steps"]
        assert (rate["y"], decay["y"]) == (schedule["drop.p"], schedule["decay"])
        ends = [noise[0]["y"], noise[-1]["y"]]
        assert ends == [[f(row) for row in schedule["noise"]] for f in (min, max)]
        axes = [plot["layout"][axis]["type"] for axis in ("yaxis", "yaxis2", "yaxis3")]
        assert axes == ["linear", "log", "linear"]


def test_a_plot_that_cannot_be_saved_costs_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    dashboard = pytest.importorskip("optuna_dashboard", reason="pip install optuna-dashboard")

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("database is locked")

    monkeypatch.setattr(dashboard, "save_plotly_graph_object", refuse)
    study = optuna.create_study()
    with pytest.warns(UserWarning, match="trial 0's schedule was not saved.*database is locked"):
        study.optimize(lambda trial: training().fit(epochs=2, trial=trial).true_loss, n_trials=1)
    assert study.best_trial.user_attrs["schedule"].keys() == SPACE.keys()


def test_no_plot_without_the_dashboard_or_a_study_or_an_end(
    monkeypatch: pytest.MonkeyPatch, plots: Any
) -> None:
    training().fit(epochs=2, trial=optuna.trial.FixedTrial({}))
    pruned = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=-1.0))
    pruned.optimize(lambda trial: training().fit(epochs=6, trial=trial).true_loss, n_trials=1)
    monkeypatch.setitem(sys.modules, "plotly", None)
    without = optuna.create_study()
    without.optimize(lambda trial: training().fit(epochs=2, trial=trial).true_loss, n_trials=1)
    assert without.trials[0].state == optuna.trial.TrialState.COMPLETE
    assert plots(pruned) == plots(without) == {}


def test_augmentation_reads_hp_in_train_steps_only() -> None:
    seen: list[int] = []

    def augment(batch: Any, hp: Any, seed: torch.Generator) -> Any:
        x, y = batch
        seen.append(len(x))
        assert hp["noise"].shape == (len(x),)
        return x + hp["noise"][:, None] * torch.randn(x.shape, generator=seed), y

    def plain_loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        losses = (model(batch[0]) - batch[1]).square().mean(1)
        return (losses + hp["decay"] * squared_norm(model)).mean()

    one = training(train_loss=plain_loss, augment=augment)
    seen.clear()
    one._bilevel.valid_step()
    one.predict(one.params)
    assert not seen
    one._bilevel.train_step(Around(0.5), None)
    assert seen == [8]
    other = training(train_loss=plain_loss, augment=augment).fit(12)
    again = training(train_loss=plain_loss, augment=augment).fit(12)
    assert not moved(other.model.state_dict(), again.model.state_dict())


def test_integers_are_rounded_for_the_loss_alone() -> None:
    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        assert torch.equal(hp["kept"], hp["kept"].round())
        mask = torch.arange(3) < hp["kept"][:, None]
        return (model(batch[0] * mask) - batch[1]).square().mean(1)

    tuned = training(search_space={"kept": IntDistribution(1, 3)}, train_loss=loss).fit(30)
    assert tuned.params["kept"] in (1, 2, 3)


def test_a_rate_can_be_read_by_the_loss_too() -> None:
    """As where a penalty has to follow the dropout rate; a row per example, on its way to it."""

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        assert torch.equal(hp["drop.p"], model.drop.rates)
        return (model(batch[0]) - batch[1]).square().mean(1) + hp["drop.p"] * squared_norm(model)

    training(search_space={"drop.p": RATE}, train_loss=loss)


@pytest.mark.parametrize("response", ["structured", "structured-delta"])
def test_a_model_may_ask_what_its_layers_are(response: str) -> None:
    """And goes the same way while they respond as when it is plain."""

    class Asking(Net):
        def forward(self, x: Tensor) -> Tensor:
            assert [isinstance(m, nn.Linear) for m in self.body] == [True, False, False, True]
            assert isinstance(self.drop, nn.Dropout)
            return super().forward(x)

    one = training(model=made(Asking).float(), response=response)
    tuned, plain = one.fit(8, warm_up=2), training(response=response).fit(8, warm_up=2)
    assert not moved(tuned.model.state_dict(), plain.model.state_dict())
    layer = copy.deepcopy(one._response.network.model.body[0])
    assert isinstance(layer, Layer)
    with pytest.raises(AttributeError, match=r"body.0.weight is not one tensor"):
        assert layer.weight


def test_layers_may_be_called_by_keyword() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.norm = nn.LSTM(1, 4, batch_first=True), nn.LayerNorm(4)
            self.drop, self.last = nn.Dropout(), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            zeros = x.new_zeros(1, len(x), 4)
            y = self.lstm(input=x[:, :, None], hx=(zeros, zeros))[0][:, -1]
            last: Tensor = self.last(input=self.drop(input=self.norm(input=y)))
            return last

    assert math.isfinite(training(model=made(Named).float()).fit(8, warm_up=2).true_loss)


@pytest.mark.parametrize("elementary", [[], ["encoder.self_attn"]])
@pytest.mark.parametrize("training_mode", [True, False])
def test_encoder_layers_respond_where_they_can(training_mode: bool, elementary: list[str]) -> None:
    """Though torch has a fast path for them in eval mode, which takes weights out of parts."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
            self.encoder.train(training_mode)
            self.first, self.last = nn.Linear(1, 4), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(self.encoder(self.first(x[:, :, None])).mean(1))
            return y

    before = torch.backends.mha.get_fastpath_enabled()
    tuned = {"encoder.dropout.p": RATE} if training_mode else {}
    one = training(
        model=made(Encoder).float(),
        search_space={**tuned, "decay": DECAY, "noise": SPACE["noise"]},
        elementary=elementary,
    )
    found = one.fit(8, warm_up=2)
    loss_of_plain = net_valid(found.model.eval(), [part[30:] for part in regression()]).item()
    assert loss_of_plain == pytest.approx(found.predicted_loss, rel=1e-5)
    assert torch.backends.mha.get_fastpath_enabled() == before


class Normed(nn.Module):
    """Statistics over the batch in front of what they are taken of, and behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)
        self.before, self.after = nn.BatchNorm1d(3), nn.BatchNorm1d(8)
        self.hidden, self.last = nn.Linear(3, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.drop(self.after(self.hidden(self.before(x))).relu()))
        return y


@pytest.mark.parametrize("response", ["structured", "structured-delta"])
def test_running_statistics_are_of_train_steps_alone(tmp_path: Path, response: str) -> None:
    """First looks, valid steps and evaluations leave them alone; and they belong to the model."""
    passes = {"structured": 1, "structured-delta": 2}[response]
    x, y = (part[:32] for part in regression())
    options: dict[str, Any] = {
        "model": made(Normed).float(),
        "response": response,
        "train_data": DataLoader(TensorDataset(x, y), 8, shuffle=True),
    }
    one = training(**options)
    assert not one.best_response(one.params).after.num_batches_tracked
    tuned = one.fit(epochs=5, warm_up=2)
    counted = one.best_response(one.params).after.num_batches_tracked
    assert counted == passes * one.trained == passes * 20
    assert tuned.model.after.running_var.std() > 0
    loss_of_plain = net_valid(tuned.model.eval(), [part[30:] for part in regression()]).item()
    assert loss_of_plain == pytest.approx(tuned.predicted_loss, rel=1e-5)

    file = tmp_path / "run.pt"
    with pytest.raises(Interrupted):
        training(**options, valid_loss=interrupting(net_valid, 20)).fit(
            epochs=5, warm_up=2, checkpoint=file
        )
    resumed = training(**options).fit(epochs=5, warm_up=2, checkpoint=file)
    assert not moved(tuned.model.train().state_dict(), resumed.model.state_dict())
    assert one.replay(tuned).model.after.num_batches_tracked in tuned.steps


def test_batches_of_one_train() -> None:
    assert math.isfinite(training(batch=1).fit(20).true_loss)


@pytest.mark.parametrize("response", ["structured", "structured-delta"])
def test_recurrent_and_convolutional_models_are_tuned(response: str) -> None:
    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return (model(batch[0]) - batch[1]).square().mean(1)

    model, space = made(Recurrent).float(), {"drop.p": RATE}
    one = training(model=model, search_space=space, train_loss=loss, response=response)
    tuned = one.fit(24)
    x, y = regression()
    loss_of_plain = net_valid(tuned.model.eval(), (x[30:], y[30:])).item()
    assert loss_of_plain == pytest.approx(tuned.predicted_loss, rel=1e-5)


# --- bad input


def mean_of_parameters(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    decay = sum(p.square().sum() for p in model.parameters())
    return net_loss(model, batch, hp) + hp["decay"] * decay


def sloped(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    """A penalty on the slope in the inputs, by torch.func."""
    slope = torch.func.grad(lambda x: model(x).sum())(batch[0])
    return net_loss(model, batch, hp) + hp["decay"] * slope.square().sum(1)


def test_a_loss_may_use_torch_func() -> None:
    assert math.isfinite(training(train_loss=sloped).fit(8, warm_up=2).true_loss)


def rounded(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return net_loss(model, batch, hp)


def rounded_mean_of_parameters(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return mean_of_parameters(model, batch, hp)


@pytest.mark.parametrize("response", ["structured", "structured-delta"])
def test_a_loss_may_round_more_than_the_weights_do(response: str) -> None:
    """What is left of a difference that should be none is then larger."""
    model = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
    model = nn.Sequential(model, nn.Dropout(), nn.Linear(64, 1))
    space: dict[str, Any] = {"1.p": RATE, "decay": DECAY, "noise": SPACE["noise"]}
    made_for: dict[str, Any] = {"model": model, "search_space": space, "response": response}
    tuned = training(**made_for, train_loss=rounded).fit(8, warm_up=2)
    assert math.isfinite(tuned.true_loss)
    with pytest.raises(ValueError, match=r"uses model.parameters\(\)"):
        training(**made_for, train_loss=rounded_mean_of_parameters)


def norms_of_modules(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    """Of layers inside of those that respond: the elementary weights alone."""
    plain = [one for one in model.modules() if type(one) is nn.Linear]
    decay = sum(one.weight.square().sum() for one in plain)
    return net_loss(model, batch, hp) + hp["decay"] * decay


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            {"search_space": {**SPACE, "lr": DECAY}},
            ValueError,
            r"never reads \['lr'\].*outer study",
        ),
        (
            {"train_loss": mean_of_parameters},
            ValueError,
            r"uses model.parameters\(\).*squared_norm",
        ),
        ({"train_loss": norms_of_modules}, ValueError, r"model.modules\(\).*squared_norm"),
        ({"elementary": "body"}, ValueError, r"must be a list: \['body'\]"),
        (
            {
                "model": nn.Sequential(nn.Linear(3, 1), nn.Dropout().eval()),
                "search_space": {"1.p": RATE, "decay": DECAY, "noise": SPACE["noise"]},
            },
            ValueError,
            r"never reads \['1.p'\].*call that layer in training mode",
        ),
        (
            {"train_loss": lambda model, batch, hp: net_loss(model, batch, hp)[:, None]},
            ValueError,
            r"train_loss returned shape \(8, 1\).*one loss per example, \(8,\)",
        ),
        (
            {"search_space": {"drop.q": RATE, **SPACE}},
            ValueError,
            r"'drop.q'.*nearest there are \['drop.p'",
        ),
        (
            {
                "model": nn.Linear(3, 1),
                "search_space": {"noise": FloatDistribution(0.0, 1.0)},
                "train_loss": lambda model, batch, hp: (
                    (model(batch[0]) - batch[1]).square().mean() + 0 * hp["noise"].mean()
                ),
            },
            ValueError,
            "same gradient at both ends",
        ),
        (
            {"response": "low-rank", "elementary": ["body"]},
            ValueError,
            "elementary is .*structured",
        ),
        ({"clip": 0.0}, ValueError, "clip is 0.0, but it must be positive"),
        ({"response": "low-rank", "augment": len}, ValueError, "augment is .*structured"),
    ],
)
def test_mistakes_are_named_at_once(
    changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        training(**changed)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: one.fit(30, samples=4), "samples is 4, but a structured response"),
        (lambda one: training(elementary=[""]).fit(30), "λ̂ cannot move.*elementary"),
        (lambda one: training(elementary=["body"]).fit(30), "λ̂ cannot move.*elementary"),
        (lambda one: one.fit(30, epochs=2), "steps is 30 and epochs is 2"),
        (lambda one: one.fit(epochs=0), "epochs is 0"),
        (lambda one: one.fit(30, entropy=-1.0), "entropy is -1.0"),
        (lambda one: one.fit(30, scale=0.0), "scale is 0.0"),
        (lambda one: one.fit_simplified(30), "fit_simplified is not for a structured response"),
        (lambda one: one.fit_globally(30), "fit_globally is not for a structured response"),
        (lambda one: one.replay(one.cross_validate(2, steps=1)), "they must increase"),
        (lambda one: one.replay(one.train(one.params, 0)), r"train steps \[0\], along which"),
    ],
)
def test_what_means_nothing_here_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(training())


def test_entropy_means_nothing_elsewhere() -> None:
    x, y = regression()
    one = HyperTraining(
        made(Net).float(),
        {"decay": DECAY},
        lambda model, batch, hp: net_valid(model, batch) + hp["decay"] * squared_norm(model),
        net_valid,
        [(x[:30], y[:30])],
        [(x[30:], y[30:])],
        seed=0,
    )
    with pytest.raises(ValueError, match=r"entropy is 0.1.*structured"):
        one.fit(30, entropy=0.1)
    assert len(one.replay(one.fit(epochs=30)).path) > 1


def test_a_model_that_cannot_be_linearised_is_named() -> None:
    class Opaque(Net):
        def forward(self, x: Tensor) -> Any:
            return SimpleNamespace(y=super().forward(x))

    class Fixed(Net):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(super().forward(x)[None])[0][0]

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return (getattr(model(batch[0]), "y", 0) - batch[1]).square().mean(1)

    def plain(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return (model(batch[0]) - batch[1]).square().mean(1)

    changed: dict[str, Any] = {"response": "structured-delta", "search_space": {"drop.p": RATE}}
    with pytest.raises(ValueError, match=r"returned a SimpleNamespace.*must return tensors"):
        training(
            model=made(Opaque).float(),
            train_loss=loss,
            valid_loss=lambda model, batch: loss(model, batch, {}).mean(),
            **changed,
        )
    model = made(Fixed).float()
    with pytest.raises(NotImplementedError, match="let that layer respond"):
        training(model=model, train_loss=plain, elementary=["lstm"], **changed)
    softmax = nn.Sequential(nn.Linear(3, 4), nn.Softmax(1), nn.Dropout(), nn.Linear(4, 1))
    with pytest.raises(NotImplementedError, match=r"A softmax .* use response=\"structured\""):
        training(model=softmax, train_loss=plain, **{**changed, "search_space": {"2.p": RATE}})


def test_a_flattened_batch_is_named() -> None:
    class Flat(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.repeat(2, 1))[: len(x)]

    with pytest.raises(ValueError, match=r"body.0 got an input of shape \(16, 3\).*8 examples"):
        training(model=made(Flat).float())


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path) -> None:
    calls = 0

    def breaking(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return net_loss(model, batch, hp) * (math.nan if calls > 21 else 1.0)

    one = training(train_loss=breaking)
    file = tmp_path / "run.pt"
    with pytest.raises(
        FloatingPointError, match=r"training loss is nan after 17 train steps, at drop.p = 0\.\d+"
    ):
        one.fit(60, checkpoint=file)
    assert torch.load(file, weights_only=True)["record"]["done"] > 0
    assert all(p.isfinite().all() for p in one.best_response(one.params).parameters())


class Positions(nn.Module):
    """As many positions as there are examples in a batch: rows of the one look like the other."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.place = nn.Embedding(9, 4), nn.Embedding(8, 4)
        self.drop, self.last = nn.Dropout(0.1), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        embedded = self.word(x) + self.place(torch.arange(x.shape[1]))
        return self.last(self.drop(embedded)).mean(1)


def positions(elementary: list[str], *, in_pairs: bool = False) -> HyperTraining:
    x = torch.randint(0, 9, (16, 8), generator=seed(0))
    y = x.float().mean(1, keepdim=True)

    def loss(model: nn.Module, batch: Any, hp: Any = None) -> Tensor:
        assert not (in_pairs and len(batch[0]) % 2)  # a loss may want what it likes
        return (model(batch[0]) - batch[1]).square().mean()

    data = [(x[:8], y[:8]), (x[8:], y[8:])]
    arguments: dict[str, Any] = {"response": "structured", "seed": 0, "elementary": elementary}
    space = {"drop.p": FloatDistribution(0, 0.9)}
    return HyperTraining(made(Positions).float(), space, loss, loss, data, data, **arguments)


def test_positions_are_no_examples_though_there_are_as_many() -> None:
    """Row 5 of the embedding would get the λ of example 5, whose loss is not the only one then."""
    with pytest.raises(
        ValueError, match=r"place got an input of shape \(8,\).*elementary=\['place"
    ):
        positions([])

    for in_pairs in (False, True):
        assert math.isfinite(positions(["place"], in_pairs=in_pairs).fit(4).true_loss)
