"""w_φ(λ) put into a model: coordinates, hypernetworks, and the losses through them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from torch import Tensor
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from optuna_hypernet import HyperTraining
from optuna_hypernet.bilevel.optimizers import adam
from optuna_hypernet.coordinates import LIMIT
from optuna_hypernet.coordinates import Blocks
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.coordinates import Shaped
from optuna_hypernet.response.hypernetworks import MLP
from optuna_hypernet.response.hypernetworks import Constant
from optuna_hypernet.response.hypernetworks import Diagonal
from optuna_hypernet.response.hypernetworks import Linear
from optuna_hypernet.response.hypernetworks import LowRank
from optuna_hypernet.response.hypernetworks import hypernetwork
from optuna_hypernet.response.weights import Weights


CPU = torch.device("cpu")
KINDS: dict[str, BaseDistribution | Shaped] = {
    "float": FloatDistribution(-1.0, 3.0),
    "log": FloatDistribution(1e-6, 1e-1, log=True),
    "step": FloatDistribution(0.0, 0.9, step=0.1),
    "int": IntDistribution(-2, 5),
    "int_step": IntDistribution(16, 128, step=16),
    "log_int": IntDistribution(1, 300, log=True),
    "tensor": Shaped(FloatDistribution(1e-3, 1e0, log=True), (2, 3)),
}


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def network(*extra: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), *extra, nn.Linear(5, 3)).double()


def batch() -> tuple[Tensor, Tensor]:
    x = torch.randn(7, 4, generator=seed(), dtype=torch.float64)
    return x, torch.arange(7) % 3


def train_loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
    decay = sum(w.square().sum() for w in model.parameters())
    return cross_entropy(model(batch[0]), batch[1]) + hp["decay"] * decay


def valid_loss(model: nn.Module, batch: Any) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


def response(kind: str | nn.Module = "low-rank", model: nn.Module | None = None) -> Weights:
    """A response over one coordinate, its parameters drawn at random."""
    weights = Weights(network() if model is None else model, train_loss, valid_loss, CPU)
    weights.hypernetwork = hypernetwork(kind, 1, weights.n_weights, seed()).double()
    with torch.no_grad():
        for parameter in weights.hypernetwork.parameters():
            noise = torch.randn(parameter.shape, generator=seed(1), dtype=torch.float64)
            parameter.copy_(0.1 * noise)
    return weights


# --- coordinates


def test_params_survive_the_way_there_and_back() -> None:
    coordinates = Coordinates(KINDS)
    for z in torch.randn(50, coordinates.D, generator=seed(), dtype=torch.float64):
        params = coordinates.decode(z)
        again = coordinates.decode(coordinates.encode(params))

        for name in KINDS:
            np.testing.assert_allclose(again[name], params[name], rtol=1e-9)
        assert isinstance(params["int"], int)
        assert params["int_step"] % 16 == 0
        assert params["tensor"].shape == (2, 3)


def test_natural_units_are_what_decode_says() -> None:
    coordinates = Coordinates(KINDS)
    z = torch.randn(5, coordinates.D, generator=seed(), dtype=torch.float64)
    hp = coordinates.natural(z)
    assert hp["tensor"].shape == (5, 2, 3)
    assert hp["log"].shape == (5,)
    for i, row in enumerate(z):
        for name, value in coordinates.decode(row).items():
            np.testing.assert_allclose(hp[name][i], value, rtol=1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_ends_of_a_range_can_be_reached(name: str) -> None:
    coordinates = Coordinates({name: KINDS[name]})
    entry = KINDS[name]
    kind = entry.distribution if isinstance(entry, Shaped) else entry
    assert isinstance(kind, FloatDistribution | IntDistribution)
    for end, value in ((-LIMIT, kind.low), (LIMIT, kind.high)):
        z = torch.full((coordinates.D,), end, dtype=torch.float64)
        np.testing.assert_allclose(coordinates.decode(z)[name], value, rtol=1e-12)
        assert coordinates.at_bound(z) == [name]
    assert not coordinates.at_bound(z * 0)


def test_a_standard_normal_is_uniform_over_the_range() -> None:
    coordinates = Coordinates({"x": FloatDistribution(1e-4, 1e2, log=True)})
    z = torch.randn(20000, 1, generator=seed(), dtype=torch.float64)
    share = (coordinates.natural(z)["x"].log10() + 4) / 6
    assert share.sort().values.sub(torch.linspace(0, 1, 20000)).abs().max() < 0.02


def test_every_cell_of_a_grid_is_as_likely() -> None:
    coordinates = Coordinates({"x": IntDistribution(0, 3)})
    z = torch.special.ndtri((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)
    assert coordinates.natural(z[:, None])["x"].long().bincount().tolist() == [1000] * 4


def test_gradient_of_natural_units_meets_finite_differences() -> None:
    smooth = {name: KINDS[name] for name in ("float", "log", "tensor")}
    coordinates = Coordinates(smooth)
    z = torch.randn(coordinates.D, generator=seed(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: tuple(coordinates.natural(z).values()), z)


def test_a_wide_linear_axis_does_not_spoil_the_gradient() -> None:
    coordinates = Coordinates({"x": FloatDistribution(0, 1e6)}, torch.float32)
    z = torch.zeros(1, requires_grad=True)
    (gradient,) = torch.autograd.grad(coordinates.natural(z)["x"].sum(), z)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("space", "error", "message"),
    [
        ({}, ValueError, "search space is empty"),
        ({"a": CategoricalDistribution(["x", "y"])}, ValueError, "categorical.*outer study"),
        ({"a": FloatDistribution(1.0, 1.0)}, ValueError, "'a' has a single value"),
        ({"a": (0.0, 1.0)}, TypeError, "'a' is .*but a search space holds"),
    ],
)
def test_search_spaces_that_cannot_be_descended_on(
    space: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Coordinates(space)


def test_shapes_are_positive_ints() -> None:
    with pytest.raises(ValueError, match=r"shape .* is \(2, 0\)"):
        Shaped(FloatDistribution(0, 1), (2, 0))
    shapes = [Shaped(FloatDistribution(0, 1), one).shape for one in (np.int64(2), (np.int32(2),))]
    assert [type(size) for shape in shapes for size in shape] == [int, int]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"x": 0.5}, r"missing: \['t'\]"),
        ({"x": 0.5, "t": [0.1, 0.2], "y": 1}, r"Unknown: \['y'\]"),
        ({"x": 0.5, "t": 0.1}, r"'t' got a value of shape \(\), but .* \(2,\)"),
        ({"x": 7.0, "t": [0.1, 0.2]}, r"'x' got 7.0, which is not inside \[0.0, 1.0\]"),
        ({"x": math.nan, "t": [0.1, 0.2]}, "'x' got nan"),
    ],
)
def test_params_of_another_space(params: dict[str, Any], message: str) -> None:
    kind = FloatDistribution(0.0, 1.0)
    with pytest.raises(ValueError, match=message):
        Coordinates({"x": kind, "t": Shaped(kind, (2,))}).encode(params)


# --- hypernetworks


@pytest.mark.parametrize("name", ["linear", "low-rank", "mlp"])
def test_new_hypernetworks_leave_the_weights_where_they_are(name: str) -> None:
    z = torch.randn(6, 3, generator=seed())
    made = hypernetwork(name, 3, 11, seed())
    assert made(z).shape == (6, 11)
    assert not made(z).any()


def test_hypernetworks_are_as_large_as_they_say() -> None:
    def size(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert size(Constant(7850)) == 7850
    assert size(Diagonal(torch.arange(7850), Blocks((7840, 10)))) == 23_550
    assert size(Linear(1, 7850, seed())) == 15_700  # the paper's local one
    assert size(Linear(10, 7850, seed())) == 86_350  # its ten hyperparameters
    assert size(MLP(1, 7850, seed())) == 7850 * 51 + 50 * 2  # its global one: 400,450
    # Its factorised one has 164,860: ours, without the ten biases of the units between.
    assert size(LowRank(7850, 7850, seed())) == 164_850


@pytest.mark.parametrize("n_coordinates", [2, 12, 400, 20_000])
def test_a_step_of_the_optimizer_is_small_beside_low_rank_factors(n_coordinates: int) -> None:
    """However many coordinates there are; and units have variance 1 under p(λ) all the same."""
    network = LowRank(n_coordinates, 3, seed(), rank=200)
    z = torch.randn(200, n_coordinates, generator=seed(1))
    with torch.no_grad():
        network.up.copy_(torch.randn(3, 200, generator=seed(2)) / 200**0.5)
    (step,) = adam(network.parameters()).param_groups

    assert float(network(z).detach().var()) == pytest.approx(1.0, rel=0.25)
    assert step["lr"] < 0.03 * float(network.down.detach().std())


def test_unknown_responses_are_named() -> None:
    known = "'linear', 'low-rank', 'mlp', 'diagonal', 'structured', 'structured-delta'"
    with pytest.raises(ValueError, match=rf"response is 'cubic'.*{known}"):
        hypernetwork("cubic", 1, 2, seed())


def test_each_weight_of_a_diagonal_response_has_its_own_coordinate() -> None:
    """Shapes as the weight's, a column, a single number, and none: columns of the Jacobian."""
    weights = Weights(network(), train_loss, valid_loss, CPU)
    shapes = {"2.weight": (3, 1), "0.weight": (5, 4), "0.bias": ()}
    owners = weights.owners(shapes)
    made = Diagonal(owners, Blocks((3, 20, 1))).double()
    torch.nn.init.normal_(made.slope, generator=seed())
    torch.nn.init.normal_(made.common, generator=seed(2))
    weights.hypernetwork = made
    weights.recentre(torch.randn(24, generator=seed(), dtype=torch.float64))
    z = torch.randn(24, generator=seed(1), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda z: weights.at(z[None])[0], z)  # (P, D)
    row = [*range(3, 23), *[23] * 5, *[0] * 5, *[1] * 5, *[2] * 5, None, None, None]
    slow = torch.zeros_like(jacobian)
    for p, coordinate in enumerate(row):
        if coordinate is not None:
            block = next(b for b in (range(3), range(3, 23), [23]) if coordinate in b)
            slow[p, list(block)] = (made.common[p] - made.slope[p]).detach() / len(block)
            slow[p, coordinate] += made.slope[p].detach()
    torch.testing.assert_close(jacobian, slow)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"decay": (5, 4)}, r"'decay' is not named after a trainable weight.*'0.weight'"),
        ({"0.weight": (4, 5)}, r"'0.weight' has the shape \(4, 5\), which does not broadcast"),
        ({"0.bias": (1, 5)}, r"'0.bias' has the shape \(1, 5\)"),
    ],
)
def test_coordinates_without_a_weight_are_named(
    shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Weights(network(), train_loss, valid_loss, CPU).owners(shapes)


def test_a_response_of_the_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1\) to \(2, 9\).*must give \(2, 43\)"):
        response(nn.Linear(1, 9).double()).at(torch.zeros(2, 1, dtype=torch.float64))


# --- losses


@pytest.mark.parametrize("kind", ["linear", "low-rank", "mlp", nn.Linear(1, 43)])
def test_vmapped_losses_equal_a_loop_over_plain_models(kind: str | nn.Module) -> None:
    weights = response(kind)
    z = torch.tensor([[-1.0], [0.3], [2.0]], dtype=torch.float64)
    hp = {"decay": torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)}
    losses = weights.train_losses(z, hp, batch())
    phi = list(weights.hypernetwork.parameters())
    gradients = torch.autograd.grad(losses.mean(), phi)

    slow = [torch.zeros_like(p) for p in phi]
    for i, row in enumerate(z):
        model = weights.export(row)
        loss = train_loss(model, batch(), {"decay": hp["decay"][i]})
        torch.testing.assert_close(losses[i], loss)
        by_weights = torch.autograd.grad(loss, list(model.parameters()))
        flat = torch.cat([g.reshape(-1) for g in by_weights])  # ∂L/∂w
        pulled = torch.autograd.grad(weights.at(row[None])[0], phi, flat / len(z))  # · ∂w/∂φ
        slow = [total + part for total, part in zip(slow, pulled, strict=True)]
    for fast, twin in zip(gradients, slow, strict=True):
        torch.testing.assert_close(fast, twin)


def test_validation_loss_is_that_of_the_exported_model() -> None:
    weights = response(model=network(nn.Dropout(0.5)))
    z = torch.tensor([0.7], dtype=torch.float64)
    model = weights.export(z)
    assert model.training
    torch.testing.assert_close(weights.valid_loss(z, batch()), valid_loss(model.eval(), batch()))


def test_hypergradient_meets_finite_differences() -> None:
    weights = response("mlp")
    z = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: weights.valid_loss(z, batch()), z)


def test_each_lambda_has_its_own_dropout_mask() -> None:
    weights = response("linear", network(nn.Dropout(0.5)))
    z = torch.zeros(4, 1, dtype=torch.float64)
    with torch.random.fork_rng():
        losses = weights.train_losses(z, {"decay": torch.zeros(4)}, batch())
    assert len(set(losses.tolist())) == 4


def test_tied_weights_stay_tied_and_frozen_ones_stay() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(4, 4)
            self.two = nn.Linear(4, 4)
            self.two.weight = self.one.weight
            self.two.bias.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            assert self.two.weight is self.one.weight
            return self.two(self.one(x))

    given = Tied().double()
    weights = response("linear", given)
    assert weights.n_weights == 16 + 4
    z = torch.ones(2, 1, dtype=torch.float64)
    weights.train_losses(z, {"decay": torch.ones(2)}, (batch()[0], torch.arange(7) % 4))
    model = weights.export(z[0])
    assert type(model) is Tied
    assert model.two.weight is model.one.weight
    assert torch.equal(model.two.bias, given.two.bias)
    assert not torch.equal(model.one.weight, given.one.weight)


def test_a_module_at_two_paths_and_a_tied_weight_are_one() -> None:
    """Pass after pass, whatever λ the pass before was at."""
    first, *_, last = network()
    one, other = (nn.Linear(5, 5).double() for _ in range(2))
    other.weight = one.weight
    space = {"decay": FloatDistribution(1e-4, 1.0, log=True)}
    model = nn.Sequential(first, one, nn.Tanh(), one, other, last)
    training = HyperTraining(
        model, space, train_loss, valid_loss, [batch()], [batch()], response="linear", seed=0
    )
    training.fit(20, finish=0)
    for decay in (1e-4, 1e-2, 1.0):
        plain = training.best_response({"decay": decay}).eval()
        assert plain[1] is plain[3]
        assert plain[1].weight is plain[4].weight
        loss = float(valid_loss(plain, batch()).detach())
        assert training.predict({"decay": decay}) == pytest.approx(loss)


def test_the_given_model_is_left_alone() -> None:
    given = network()
    before = [p.clone() for p in given.parameters()]
    weights = response("linear", given)
    weights.valid_loss(torch.ones(1, dtype=torch.float64), batch())
    assert given.training
    assert all(torch.equal(p, q) for p, q in zip(given.parameters(), before, strict=True))


def test_frozen_batch_norm_is_accepted() -> None:
    model = network(nn.BatchNorm1d(5))
    model[2].eval()
    weights = response("linear", model)
    z = torch.ones(3, 1, dtype=torch.float64)
    weights.valid_loss(z[0], batch())
    assert weights.train_losses(z, {"decay": torch.ones(3)}, batch()).shape == (3,)
    assert not weights.export(z[0])[2].training


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (network(nn.BatchNorm1d(5)), ValueError, "2 is a BatchNorm1d with running statistics"),
        (network().eval(), ValueError, r"eval mode.*model.train\(\)"),
        (network().half(), ValueError, "'0.weight' is torch.float16.*float32 or float64"),
        (network().requires_grad_(False), ValueError, r"types \[\]"),
        (network(nn.Linear(5, 5)), ValueError, "types .*torch.float32.*torch.float64"),
        (nn.LazyLinear(3), ValueError, "'weight' is lazy"),
        (len, TypeError, "must be a torch.nn.Module"),
    ],
)
def test_models_that_cannot_be_trained_so(
    model: Any, error: type[Exception], message: str
) -> None:
    if model is not len and message.startswith("types .*"):
        model[2].float()
    with pytest.raises(error, match=message):
        Weights(model, train_loss, valid_loss, CPU)


def test_losses_must_be_functions_and_give_scalars() -> None:
    with pytest.raises(TypeError, match="valid_loss is 3"):
        Weights(network(), train_loss, 3, CPU)
    weights = Weights(network(), train_loss, lambda model, batch: model(batch[0]), CPU)
    weights.hypernetwork = hypernetwork("linear", 1, weights.n_weights, seed()).double()
    with pytest.raises(ValueError, match=r"valid_loss returned shape \(7, 3\).*loss.mean"):
        weights.valid_loss(torch.zeros(1, dtype=torch.float64), batch())


def test_what_vmap_does_not_know_is_taken_one_after_another() -> None:
    def numbers(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return model(batch[0]).sum() * float(hp["decay"])

    weights = Weights(network(), numbers, valid_loss, CPU)
    weights.hypernetwork = hypernetwork("linear", 1, weights.n_weights, seed()).double()
    z, decays = torch.tensor([[0.3], [-0.4]], dtype=torch.float64), torch.tensor([1.0, 2.0])
    weights.probe([{"decay": decay} for decay in decays], batch(), 0)
    alone = [
        weights.train_losses(one[None], {"decay": decay[None]}, batch())
        for one, decay in zip(z, decays, strict=True)
    ]
    together = weights.train_losses(z, {"decay": decays}, batch())
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=0)
    assert together[1] != together[0]


def test_an_lstm_answers_to_any_hyperparameters() -> None:
    """For which vmap has no rule."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.last = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.lstm(x)[0][:, -1])

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        squares = sum(p.square().sum() for p in model.parameters())
        return model(batch).square().mean() + hp["decay"] * squares

    training = HyperTraining(
        Recurrent(),
        {"decay": FloatDistribution(1e-4, 1.0, log=True)},
        loss,
        lambda model, batch: model(batch).square().mean(),
        [torch.ones(5, 2, 4)],
        [torch.ones(5, 2, 4)],
        seed=0,
    )
    assert training.fit(20, finish=0).true_loss < 1.0


@pytest.mark.parametrize("kind", ["low-rank", "structured", "structured-delta"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_is_refused(kind: Any, reentrant: bool) -> None:
    """Its second pass comes when the weights of the first are gone."""

    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 5), network()[2]

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.first(x)
            if not self.training:
                return self.last(hidden.tanh())
            return checkpoint(lambda h: self.last(h.tanh()), hidden, use_reentrant=reentrant)

    def loss(model: nn.Module, batch: Any, hp: Any) -> Tensor:
        return (1 + hp["decay"].mean()) * cross_entropy(model(batch[0]), batch[1])

    space = {"decay": FloatDistribution(1e-4, 1.0, log=True)}
    data = [batch()]
    with pytest.raises(ValueError, match=r"activation checkpointing.*turn that off"):
        HyperTraining(
            Saving().double(), space, loss, valid_loss, data, data, response=kind, seed=0
        )


def test_what_runs_again_without_weights_is_let_be() -> None:
    """Its gradient is the right one; but not for several λ at once, which the look finds out."""

    class Saving(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            hidden = checkpoint(torch.tanh, self[0](x), use_reentrant=False)
            y: Tensor = self[2](hidden)
            return y

    space = {"decay": FloatDistribution(1e-4, 1.0, log=True)}
    plain, saving = (
        HyperTraining(model, space, train_loss, valid_loss, [batch()], [batch()], seed=0)
        .fit(12, finish=0)
        .true_loss
        for model in (network(), Saving(*network()))
    )
    assert saving == pytest.approx(plain)


def test_weights_that_are_out_of_reach_are_refused() -> None:
    """In a plain list w_φ(λ) cannot take their place."""

    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 3).double()
            self.kept = [self.body.weight]

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) @ self.kept[0]

    with pytest.raises(ValueError, match="use a ParameterList"):
        response(model=Keeping()).probe([{"decay": torch.ones(())}], batch(), 0)
