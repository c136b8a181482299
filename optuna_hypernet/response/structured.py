"""The user's model with layers that respond to hyperparameters, and its two losses.

After MacKay et al. (2019), "Self-Tuning Networks: Bilevel Optimization of Hyperparameters using
Structured Best-Response Functions".
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import nn

from optuna_hypernet.coordinates import LIMIT
from optuna_hypernet.coordinates import Coordinates
from optuna_hypernet.randomness import generator
from optuna_hypernet.randomness import private_randomness
from optuna_hypernet.response.batch import cloned
from optuna_hypernet.response.batch import cut
from optuna_hypernet.response.batch import n_rows
from optuna_hypernet.response.batch import tensors
from optuna_hypernet.response.dropout import TunedDropout
from optuna_hypernet.response.layers import Gated
from optuna_hypernet.response.layers import Layer
from optuna_hypernet.response.layers import RowsError
from optuna_hypernet.response.losses import Recorded
from optuna_hypernet.response.losses import TrainLoss
from optuna_hypernet.response.losses import ValidLoss
from optuna_hypernet.response.losses import came
from optuna_hypernet.response.losses import check_effect
from optuna_hypernet.response.losses import check_losses
from optuna_hypernet.response.losses import looked_at
from optuna_hypernet.response.losses import scalar
from optuna_hypernet.response.losses import slopes
from optuna_hypernet.response.models import check_model
from optuna_hypernet.response.models import copied
from optuna_hypernet.response.models import load_state
from optuna_hypernet.response.models import modes_of
from optuna_hypernet.response.models import nearest
from optuna_hypernet.response.models import replaced
from optuna_hypernet.response.models import set_buffers
from optuna_hypernet.response.models import set_modes
from optuna_hypernet.response.siblings import DROPOUTS
from optuna_hypernet.response.siblings import LAYERS
from optuna_hypernet.response.siblings import axis_of
from optuna_hypernet.response.siblings import bound_of
from optuna_hypernet.response.siblings import rate_refusal
from optuna_hypernet.response.siblings import refusal


_HIGHEST_RATE = 0.95  # beyond it 1/(1 - rate), by which dropout scales, explodes

_ROUNDING = 1e-4  # what single precision may leave of a difference that should be none

EVERYTHING = ("",)  # the path of the model itself: nothing responds, which is ordinary training


class Structured:
    """w_φ(λ) by gates on the model's own layers; every example of a batch has its own λ.

    A copy of the model is converted: each layer that can respond becomes its sibling (see
    :mod:`~optuna_hypernet.response.siblings`), and each dropout layer whose rate is in the search
    space, as ``"path.p"``, gets a rate per example. Shared modules stay shared, tied weights stay
    tied, weights that do not require a gradient stay what they are.

    Args:
        model: Copied. In training mode; submodules in eval mode stay so.
        train_loss: ``(model, batch, hp) -> (B,)``, or a scalar that is their mean; ``hp`` maps
            names to tensors ``(B, *shape)``.
        valid_loss: ``(model, batch) -> scalar``.
        coordinates: The search space. A name with a dot is the path of a dropout layer's rate.
        device: Where the copy is.
        seed: Of the new weights.
        elementary: Paths of modules that are trained, but do not respond.

    Attributes:
        network: The converted model and the centre; holds φ.

    Raises:
        TypeError: If the model is not a module, or a loss is not callable.
        ValueError: If a module can neither respond nor may stay elementary, a path names
            nothing that can be tuned, or for the reasons of ``check_model``.
    """

    per_example = True

    def __init__(
        self,
        model: nn.Module,
        train_loss: TrainLoss,
        valid_loss: ValidLoss,
        coordinates: Coordinates,
        device: torch.device,
        seed: int,
        elementary: Sequence[str] = (),
    ) -> None:
        check_losses(train_loss, valid_loss)
        check_model(model)
        self._coordinates = coordinates
        self._train_loss = train_loss
        self._valid_loss = valid_loss
        self._plain = copied(model).to(device)
        converted = copy.deepcopy(self._plain)
        dropouts = _dropouts(converted, coordinates)
        layers = _layers(converted, coordinates.D, elementary, generator(seed))
        self.network = Network(converted, layers, dropouts, coordinates.D)
        self._modes = modes_of(self.network)
        self._read: set[str] = set()  # names that the training loss has read

    @property
    def groups(self) -> list[list[nn.Parameter]]:
        """Elementary and response weights: each has its own optimizer and its own clipping."""
        response = [part for one in self.network.gated for part in (one.response, one.gate)]
        apart = set(response)
        elementary = [p for p in self.network.parameters() if p.requires_grad and p not in apart]
        return [elementary, response] if response else [elementary]

    @property
    def telling(self) -> list[nn.Parameter]:
        """All of φ: no part of it has the slopes of all weights."""
        return [parameter for group in self.groups for parameter in group]

    def recentre(self, z: Tensor) -> None:
        """Moves the centre to ``z (D,)`` and the elementary weights along: the same map."""
        self.network.recentre(z)

    def train_losses(self, z: Tensor, hp: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Training losses ``(B,)`` of the examples at ``z (B, D)``, or their mean ``(1,)``.

        Args:
            z: Coordinates, of which the weights are a function.
            hp: Natural units of the same, ``(B, *shape)`` by name.
            batch: Of training data, on the device.
        """
        return self._losses(z, hp, batch)

    def valid_loss(self, z: Tensor, batch: Any) -> Tensor:
        """Validation loss, a scalar; the model is in eval mode.

        Args:
            z: Coordinates ``(D,)``, or ``(B, D)`` with a row per example.
            batch: Of validation data, on the device.
        """
        network = self.network
        network.eval()
        with network.at(z, {}):
            return scalar("valid_loss", self._valid_loss(network.model, batch))

    def probe(self, hps: Sequence[Mapping[str, Tensor]], batch: Any, seed: int) -> None:
        """Takes the training loss at some hyperparameters, all else equal, and compares.

        Args:
            hps: Natural units by name, ``(B, *shape)``.
            batch: Of training data, on the device.
            seed: Of the user's own randomness, the same for each.

        Raises:
            ValueError: If the loss never reads a hyperparameter, has the same gradient for all
                ``hps``, or none in the weights, uses weights that are parts of one, or reads them
                in the backward pass, too. A rate is read when its layer is called.
        """
        network = self.network
        phi = [parameter for group in self.groups for parameter in group]
        spoilt = torch.full_like(network.centre, torch.nan)
        for group in self.groups:
            _shake(group, seed)  # decay of zeros is zero, and so are gates of zeros
        ends = []
        here = network.centre.expand(n_rows(batch), -1)
        for hp in hps:
            take = partial(self._repeatably, here, hp, batch, seed)
            ends.append(looked_at("train_loss", take, phi, network.displaced(spoilt)))
            found = dict(zip(phi, ends[-1], strict=True))
            _check_parts(found, network.gated, torch.zeros_like(network.centre), _ROUNDING)
        apart, types = torch.ones_like(network.centre), set[torch.dtype]()
        with _noting(types, network):
            loss = self._repeatably(here + apart, hps[-1], batch, seed)
        found = dict(zip(phi, slopes("train_loss", loss, phi), strict=True))
        _check_parts(found, network.gated, apart, _rounding(types, here.device))
        used = {name for name, dropout in network.dropouts.items() if dropout.used}
        check_effect(hps[0], self._read | used, ends)
        self._probe_fewer(hps[0], batch, seed)

    def _probe_fewer(self, hp: Mapping[str, Tensor], batch: Any, seed: int) -> None:
        """Takes one example away: what has as many rows by chance alone is then refused."""
        n = n_rows(batch) - 1
        fewer = cut(batch, n)
        if n == 0 or n_rows(fewer) != n:
            return
        here = self.network.centre.expand(n, -1)
        try:
            self._repeatably(here, {name: value[:n] for name, value in hp.items()}, fewer, seed)
        except RowsError:
            raise
        except Exception:  # of the user's own: a loss that needs pairs, say, cannot be asked
            return

    def _repeatably(self, z: Tensor, hp: Mapping[str, Tensor], batch: Any, seed: int) -> Tensor:
        with private_randomness(seed, z.device):
            return self._losses(z, hp, cloned(batch)).mean()

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Context after which φ is as before, and all buffers that there were."""
        network = self.network
        before = copy.deepcopy(network.state_dict())
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        yield
        set_modes(network, self._modes)
        set_buffers(network, buffers, network.centre.device)
        network.load_state_dict(before, strict=False)  # a pass may have made a buffer

    def original(self) -> nn.Module:
        """The model as it was passed in; not a copy."""
        return self._plain

    def export(self, z: Tensor) -> nn.Module:
        """A plain model of the user's class with the weights at ``(D,)``, in the user's modes.

        Its dropout rates that are in the search space are those at ``z``.
        """
        network: Network = copied(self.network)
        set_modes(network, self._modes)
        network.recentre(z.detach())
        params = self._coordinates.decode(z)
        for name, dropout in network.dropouts.items():
            dropout.plain.p = params[name]
        return replaced(network.model, {part: part.plain for part in network.parts})

    def state_dict(self) -> dict[str, Any]:
        """φ, all buffers, and the model as it was passed in; not copies."""
        set_modes(self.network, self._modes)  # eval() may have done something to them
        return {
            "phi": self.network.state_dict(),
            "initial": self._plain.state_dict(),
            "buffers": {n: b.detach() for n, b in self.network.named_buffers()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state."""
        network = self.network
        set_modes(network, self._modes)
        load_state(network, state["phi"], network.centre.device)
        set_buffers(network, state["buffers"], network.centre.device)
        self._plain.load_state_dict(state["initial"])

    def _losses(self, z: Tensor, hp: Mapping[str, Tensor], batch: Any) -> Tensor:
        """What the training loss returns at ``z (B, D)`` or ``(D,)``: ``(B,)``, or ``(1,)``."""
        network = self.network
        set_modes(network, self._modes)
        with network.at(z, hp):
            losses = self._train_loss(network.model, batch, Recorded(hp, self._read))
        n_examples = len(next(iter(hp.values())))
        if isinstance(losses, Tensor) and losses.shape in ((), (n_examples,)):
            return losses.reshape(-1)
        raise ValueError(
            f"train_loss returned {came(losses)}, but it must return one loss per example, "
            f"({n_examples},), or their mean, a scalar."
        )


class Network(nn.Module):
    """The converted model, and the centre around which it responds.

    Args:
        model: A copy of the user's; changed.
        layers: What takes the place of layers in it.
        dropouts: Likewise of dropout layers, by the name of their rate in the search space.

    Attributes:
        centre: ``(D,)``, where the weights are the elementary ones.
        gated: All weights that respond, tied ones once.
        in_encoders: Whether parts of torch's encoder layers are among those that respond.
        displacement: ``(B, D)`` or ``(D,)``, z - c as it is now.
    """

    centre: Tensor

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        dropouts: Mapping[str, TunedDropout],
        n_coordinates: int,
    ) -> None:
        super().__init__()
        self.layers = list(layers)
        self.dropouts = dict(dropouts)
        self.gated = list(dict.fromkeys(w for one in layers for w in one.weights().values()))
        self.parts: list[Layer | TunedDropout] = [*layers, *dropouts.values()]
        self.model = replaced(model, {part.plain: part for part in self.parts})
        encoders = [m for m in model.modules() if isinstance(m, nn.TransformerEncoderLayer)]
        self.in_encoders = any(isinstance(m, Layer) for one in encoders for m in one.modules())
        first = next(p for p in model.parameters() if p.requires_grad)
        self.register_buffer("centre", first.detach().new_zeros(n_coordinates))
        self._displace(torch.zeros_like(self.centre))

    def recentre(self, z: Tensor) -> None:
        """Moves the centre to ``z (D,)`` and the elementary weights along: the same map."""
        dz = z - self.centre
        if dz.any():
            for weight in self.gated:
                weight.fold(dz)
            with torch.no_grad():
                self.centre.copy_(z)

    @contextmanager
    def at(self, z: Tensor, hp: Mapping[str, Tensor]) -> Iterator[None]:
        """Context of weights at coordinates ``(B, D)`` or ``(D,)``, and of rates as in hp."""
        for name in self.dropouts.keys() & hp.keys():
            self.dropouts[name].rates = hp[name].detach()
        with self.displaced(z - self.centre), _fast_path(allowed=not self.in_encoders):
            yield

    @contextmanager
    def displaced(self, dz: Tensor) -> Iterator[None]:
        """Context of weights displaced by ``(B, D)`` or ``(D,)`` from those at the centre."""
        before = self.displacement
        self._displace(dz)
        try:
            yield
        finally:
            self._displace(before)

    def _displace(self, dz: Tensor) -> None:
        self.displacement = dz
        for layer in self.layers:
            layer.displacement = dz


@contextmanager
def _fast_path(*, allowed: bool) -> Iterator[None]:
    """Context in which torch's encoder layers may only in that case take a fast path.

    There, in eval mode, they do not call their parts, but take the weights out of them.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(before and allowed)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _dropouts(model: nn.Module, coordinates: Coordinates) -> dict[str, TunedDropout]:
    """Siblings of the dropout layers whose rates are in the search space, by name there."""
    modules = dict(model.named_modules(remove_duplicate=False))
    tunable = {f"{path}.p": m for path, m in modules.items() if isinstance(m, DROPOUTS)}
    found: dict[str, TunedDropout] = {}
    for name in coordinates.names:
        if "." not in name:
            continue
        if name not in tunable:
            raise ValueError(
                f"{name!r} is the path of no dropout rate of the model; {nearest(name, tunable)}. "
                "A name with a dot tunes a dropout layer of the model as 'path.p'; one without "
                "a dot is for train_loss to read from hp."
            )
        if reason := rate_refusal(tunable[name]):
            raise ValueError(
                f"{name!r} cannot be tuned: {reason}, in place of which masks with a rate per "
                "example would be drawn. Use one of torch's own dropout layers there, as it is; "
                "or name the rate without a dot, and let train_loss read it from hp."
            )
        _check_rates(name, coordinates)
        if twins := [other for other, one in found.items() if one.plain is tunable[name]]:
            raise ValueError(
                f"{name!r} and {twins[0]!r} are the same module, which has one rate. Leave one of "
                "them out of the search space, or give the model two dropout layers."
            )
        found[name] = TunedDropout(name.removesuffix(".p"), tunable[name])
    return found


def _check_rates(name: str, coordinates: Coordinates) -> None:
    ends = (torch.full((coordinates.D,), end) for end in (-LIMIT, LIMIT))
    low, high = (coordinates.decode(end)[name] for end in ends)
    if np.shape(low) or not 0 <= low <= high <= _HIGHEST_RATE:
        raise ValueError(
            f"{name!r} is a dropout rate: a single number between 0 and {_HIGHEST_RATE}, since "
            f"what is kept is scaled by 1 / (1 - rate). The search space has the shape "
            f"{np.shape(low)}, from {np.min(low):.4g} to {np.max(high):.4g}."
        )


def _layers(
    model: nn.Module, n_coordinates: int, elementary: Collection[str], seed: torch.Generator
) -> list[Layer]:
    """Siblings of all layers with trainable weights, except of the elementary ones."""
    modules = dict(model.named_modules(remove_duplicate=False))
    if isinstance(elementary, str):
        raise ValueError(f"elementary is {elementary!r}, but it must be a list: [{elementary!r}].")
    for path in elementary:
        if path not in modules:
            raise ValueError(
                f"elementary names {path!r}, which is no module of the model; "
                f"{nearest(path, modules)}."
            )
    # A weight that is tied to an elementary one has no λ to respond to, either.
    fixed = {p for path in elementary for p in modules[path].parameters()}
    fixed |= {p for p in model.parameters() if not p.requires_grad}
    own = {module: _own_weights(module, fixed) for module in model.modules()}
    paths = {module: path for path, module in reversed(modules.items())}
    users: dict[nn.Parameter, list[nn.Module]] = {}
    for module, weights in own.items():
        if weights and (reason := refusal(module)):
            advice = (
                "List it in elementary=[...] to train it without response"
                if paths[module]
                else f"Move {', '.join(weights)} into a submodule, which can be listed in "
                "elementary=[...] to train it without response"
            )
            raise ValueError(
                f"{paths[module] or 'The model'} ({type(module).__name__}) has weights that "
                f"cannot respond to λ: {reason}. {advice}; or use "
                'response="low-rank", which takes any model.'
            )
        for weight in weights.values():
            users.setdefault(weight, []).append(module)
    gated = {
        weight: Gated(weight, _axis(weight, by, paths), n_coordinates, bound_of(by[0]), seed)
        for weight, by in users.items()
    }
    return [
        LAYERS[type(module)](paths[module], module, {n: gated[w] for n, w in weights.items()})
        for module, weights in own.items()
        if weights
    ]


def _own_weights(module: nn.Module, fixed: set[nn.Parameter]) -> dict[str, nn.Parameter]:
    named = module.named_parameters(recurse=False, remove_duplicate=False)
    return {name: p for name, p in named if p not in fixed}


def _axis(weight: nn.Parameter, users: list[nn.Module], paths: Mapping[nn.Module, str]) -> int:
    """Along which axis of a weight its gates lie: one that all layers that share it can use."""
    axes = {axis_of(user) % weight.ndim for user in users}
    if len(axes) == 1:
        return axes.pop()
    if all(isinstance(user, nn.Embedding | nn.Linear) for user in users):
        return 1  # embedding dimensions, which are the linear layer's inputs
    raise ValueError(
        f"{' and '.join(paths[user] for user in users)} share a weight of shape "
        f"{tuple(weight.shape)}, but count its output units along different axes. List one of "
        "them in elementary=[...]."
    )


def _shake(parameters: list[nn.Parameter], seed: int) -> None:
    noise = generator(seed)
    with torch.no_grad():
        for p in parameters:
            drawn = torch.randn(p.shape, generator=noise, dtype=p.dtype, device="cpu")
            p.add_(0.01 * drawn.to(p.device))


@contextmanager
def _noting(types: set[torch.dtype], network: Network) -> Iterator[None]:
    """Context that adds the types in which layers that respond calculate to ``types``."""
    kind = network.centre.device.type

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        types.update(tensor.dtype for tensor in tensors(output))
        if torch.is_autocast_enabled(kind):  # the output may have been promoted again
            types.add(torch.get_autocast_dtype(kind))

    hooks = [part.register_forward_hook(note) for part in network.parts]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _rounding(types: set[torch.dtype], device: torch.device) -> float:
    """What arithmetic in these types may leave, relatively, of a difference that is none."""
    steps = [torch.finfo(one).eps for one in types if one.is_floating_point]
    if device.type == "cuda":  # convolutions round to TF32 unless told not to
        steps.append(2**-10)
    return max(_ROUNDING, 16 * max(steps, default=0.0))


def _check_parts(
    found: Mapping[nn.Parameter, Tensor | None],
    gated: Sequence[Gated],
    dz: Tensor,
    rounding: float,
) -> None:
    """Refuses a loss that takes the parts of a weight for weights.

    Where all examples have one displacement, they have weights e + g r in common. So the slopes
    of a loss of those alone are g times as large in r as in e: none in r at the centre.

    Args:
        found: Slopes of the loss where all examples are displaced by ``dz (D,)``.
        gated: All weights that respond.
        dz: See there.
        rounding: How far apart slopes may be, relatively, and count as equal.
    """

    def of(part: nn.Parameter) -> Tensor:
        slope = found[part]
        return torch.zeros_like(part) if slope is None else slope

    with torch.no_grad():
        pairs = [
            (of(weight.response), weight.gated(dz, of(weight.elementary))) for weight in gated
        ]
        apart = sum(float((one - other).square().sum()) for one, other in pairs)
        size = sum(float(one.square().sum() + other.square().sum()) for one, other in pairs)
    if apart > rounding**2 * size:
        raise ValueError(
            "train_loss uses model.parameters(), or the weights of model.modules(), but while "
            "the layers respond to λ those are two parts of what would be the weights. Use "
            "squared_norm(model) or squared_norm(model.layer) of optuna_hypernet for their "
            "norms, where model.layer is called by its name in the model."
        )
