"""The user's model with the weights that a hypernetwork gives it, and its two losses."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch import nn
from torch.func import functional_call
from torch.func import vmap

from optuna_hypernet.randomness import generator
from optuna_hypernet.randomness import private_randomness
from optuna_hypernet.response.batch import cloned
from optuna_hypernet.response.hypernetworks import MLP
from optuna_hypernet.response.hypernetworks import Centred
from optuna_hypernet.response.hypernetworks import Constant
from optuna_hypernet.response.losses import Recorded
from optuna_hypernet.response.losses import TrainLoss
from optuna_hypernet.response.losses import ValidLoss
from optuna_hypernet.response.losses import check_effect
from optuna_hypernet.response.losses import check_losses
from optuna_hypernet.response.losses import looked_at
from optuna_hypernet.response.losses import scalar
from optuna_hypernet.response.models import check_model
from optuna_hypernet.response.models import check_statistics
from optuna_hypernet.response.models import copied
from optuna_hypernet.response.models import held
from optuna_hypernet.response.models import modes_of
from optuna_hypernet.response.models import places_of
from optuna_hypernet.response.models import set_buffers
from optuna_hypernet.response.models import set_modes


class Weights:
    """w_φ(λ) = w_0 + δ_φ(z) for all trainable weights of a model at once.

    The weights are put into a copy of the model while a loss is taken, so the user's losses are
    written as ever: ``model(x)``, ``model.parameters()``, ``model.fc.weight`` all see w_φ(λ).
    Tied weights stay tied. Weights that do not require a gradient stay what they are.

    Args:
        model: Copied. In training mode; submodules in eval mode stay so.
        train_loss: ``(model, batch, hp) -> scalar``.
        valid_loss: ``(model, batch) -> scalar``.
        device: Where the copy is.

    Attributes:
        n_weights: P.
        hypernetwork: ``(k, D)`` → ``(k, P)``, to be set before anything else is asked for.

    Raises:
        TypeError: If the model is not a module, or a loss is not callable.
        ValueError: If the model has no weights to train, weights of several or of half-precision
            types, lazy weights, or running statistics, or is in eval mode.
    """

    per_example = False
    hypernetwork: nn.Module

    def __init__(
        self,
        model: nn.Module,
        train_loss: TrainLoss,
        valid_loss: ValidLoss,
        device: torch.device,
    ) -> None:
        check_losses(train_loss, valid_loss)
        check_model(model)
        check_statistics(model)
        self._plain = copied(model).to(device)  # never called
        self._modes = modes_of(self._plain)
        self._afresh()
        self._train_loss = train_loss
        self._valid_loss = valid_loss
        self._shapes = {n: p.shape for n, p in self._model.named_parameters() if p.requires_grad}
        self._initial = self._flat()
        self.n_weights = len(self._initial)
        self.dtype = self._initial.dtype
        self._read: set[str] = set()  # names that the training loss has read
        self._at_once = True  # whether vmap knows all that the training loss does

    @property
    def groups(self) -> list[list[nn.Parameter]]:
        """φ, all of which one optimizer moves."""
        return [[p for p in self.hypernetwork.parameters() if p.requires_grad]]

    @property
    def telling(self) -> list[nn.Parameter]:
        """What every weight's own gradient goes to, which is a part of φ; or else all of it."""
        own = self.hypernetwork
        return [own.offset] if isinstance(own, Constant | Centred | MLP) else self.groups[0]

    def at(self, z: Tensor) -> Tensor:
        """Weights ``(k, P)`` at coordinates ``(k, D)``.

        Raises:
            ValueError: If the hypernetwork's output has another shape.
        """
        displacement = self.hypernetwork(z)
        expected = (len(z), self.n_weights)
        if displacement.shape != expected:
            raise ValueError(
                f"The response maps coordinates of shape {tuple(z.shape)} to "
                f"{tuple(displacement.shape)}, but the model has {self.n_weights} weights: it "
                f"must give {expected}."
            )
        weights: Tensor = self._initial + displacement
        return weights

    def owners(self, shapes: Mapping[str, tuple[int, ...]]) -> Tensor:
        """The coordinate that each weight has of its own, ``(P,)``; D for those without.

        Args:
            shapes: Of the hyperparameters by name, in the order of the coordinates. One is named
                after the weight it belongs to, and its shape broadcasts to the weight's.

        Raises:
            ValueError: If one is not.
        """
        free = sum(map(math.prod, shapes.values()))
        found = {name: torch.full(shape, free) for name, shape in self._shapes.items()}
        start = 0
        for name, shape in shapes.items():
            if name not in found:
                raise ValueError(
                    f"Hyperparameter {name!r} is not named after a trainable weight of the model, "
                    f"but response='diagonal' has to know which one it acts on: one of "
                    f"{list(found)}. Rename it, or use another response."
                )
            own = torch.arange(start, start + math.prod(shape)).reshape(shape)
            start += own.numel()
            try:
                found[name] = own.expand(found[name].shape)
            except RuntimeError as error:
                raise ValueError(
                    f"Hyperparameter {name!r} has the shape {shape}, which does not broadcast to "
                    f"the weight's {tuple(self._shapes[name])}. Give it that shape, or one of "
                    "the same number of dimensions with ones in it."
                ) from error
        return torch.cat([own.reshape(-1) for own in found.values()])

    def recentre(self, z: Tensor) -> None:
        """Tells a hypernetwork that has a centre where λ is drawn around, ``(D,)``."""
        if isinstance(self.hypernetwork, Centred):
            self.hypernetwork.recentre(z)

    def train_losses(self, z: Tensor, hp: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Training losses ``(k,)`` at ``z (k, D)``, all on one batch.

        Args:
            z: Coordinates, what the hypernetwork reads.
            hp: Natural units of the same, ``(k, *shape)`` by name, what the loss reads.
            batch: Of training data, on the device.
        """
        weights = self.at(z)
        set_modes(self._model, self._modes)
        if len(z) > 1 and self._at_once:
            buffers = dict(self._model.named_buffers())
            try:
                return self._train_at_once(weights, hp, batch)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError:  # vmap's own, or one that comes again in a moment
                self._one_by_one(buffers)
        rows = ({name: value[i] for name, value in hp.items()} for i in range(len(z)))
        return torch.stack(
            [self._train(w, row, cloned(batch)) for w, row in zip(weights, rows, strict=True)]
        )

    def valid_loss(self, z: Tensor, batch: Any) -> Tensor:
        """Validation loss, a scalar, at coordinates ``(D,)``; the model is in eval mode."""
        self._model.eval()
        arguments = (self._valid_loss, "valid_loss", batch)
        return self._call(self.at(z[None])[0], arguments)

    def probe(self, hps: Sequence[Mapping[str, Tensor]], batch: Any, seed: int) -> None:
        """Takes the training loss at some hyperparameters, all else equal, and compares.

        Several λ at once are tried, too: not every layer of torch, an LSTM for one, can be
        called on several weights by ``vmap``, or has a gradient there, nor may buffers be
        assigned. Then they are taken one after another, as they are from the first batch on with
        which it fails later.

        Args:
            hps: Natural units by name, without a leading dimension.
            batch: Of training data, on the device.
            seed: Of the user's own randomness, the same for each.

        Raises:
            ValueError: If the loss never reads a hyperparameter, has the same gradient for all
                ``hps``, or none in the weights, or reads them in the backward pass, too; or if
                what the model does in ``eval()`` depends on its weights.
        """
        set_modes(self._model, self._modes)
        noise = torch.randn(
            self.n_weights, generator=generator(seed), dtype=self.dtype, device="cpu"
        )
        weights = self._initial + 0.01 * noise.to(self._initial)  # decay of zeros is zero
        self._check_eval(weights)
        ends = []
        for hp in hps:
            moved = weights.clone().requires_grad_()
            take = partial(self._repeatably, moved, hp, batch, seed)
            ends.append(looked_at("train_loss", take, [moved], _spoilt(self._model)))
        check_effect(hps[0], self._read, ends)
        rows = {name: torch.stack([hp[name] for hp in hps]) for name in hps[0]}
        several = weights.repeat(len(hps), 1).requires_grad_()
        try:
            with private_randomness(seed, weights.device):
                at_once = self._train_at_once(several, rows, cloned(batch))
            torch.autograd.grad(at_once.sum(), several)
            copy.deepcopy(list(self._model.buffers()))  # what vmap left there cannot be
        except RuntimeError:
            self._one_by_one({})

    def _check_eval(self, weights: Tensor) -> None:
        """Refuses a model whose ``eval()`` reads or moves its own weights, tried at ``(P,)``."""
        expected = {**held(self._with(self._initial).eval()), **self._named(weights)}
        for name, value in held(self._with(weights).eval()).items():
            if name in expected and not _same(value, expected[name]):
                raise ValueError(
                    f"The model's eval() makes {name!r} of weights that are trained, as adapters "
                    "that merge do. But w_φ(λ) is only in the model while a loss is taken. Turn "
                    "merging off; or response='structured', with that module in elementary=."
                )

    def _one_by_one(self, buffers: Mapping[str, Tensor]) -> None:
        """From now on; the model's own buffers may hold what ``vmap`` has left there."""
        self._at_once = False
        kept = {**buffers, **self._moved()}
        self._afresh()
        set_buffers(self._model, kept, self._initial.device)

    def _repeatably(
        self, weights: Tensor, hp: Mapping[str, Tensor], batch: Any, seed: int
    ) -> Tensor:
        with private_randomness(seed, weights.device):
            return self._train(weights, hp, cloned(batch))

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Context after which the model is as before: passes leave things in buffers."""
        yield
        self._afresh()

    def original(self) -> nn.Module:
        """The model as it was passed in; not a copy."""
        return self._plain

    def export(self, z: Tensor) -> nn.Module:
        """A plain model of the user's class with the weights at ``(D,)``, in the user's modes."""
        with torch.no_grad():
            model = self._with(self.at(z[None])[0])
        set_buffers(model, self._buffers(), z.device)
        return model

    def _with(self, weights: Tensor) -> nn.Module:
        """A copy of the user's model, with these ``(P,)`` as its own."""
        model = copy.deepcopy(self._plain)
        named = self._named(weights)
        with torch.no_grad():
            for name, own in model.named_parameters():
                if name in named:
                    own.copy_(named[name])
        return model

    def state_dict(self) -> dict[str, Any]:
        """φ, w_0, and what training has made of the model's buffers; not copies."""
        return {
            "phi": self.hypernetwork.state_dict(),
            "initial": self._plain.state_dict(),
            "buffers": self._buffers(),
            "at_once": self._at_once,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state."""
        self.hypernetwork.load_state_dict(state["phi"])
        self._plain.load_state_dict(state["initial"])
        self._afresh()
        set_buffers(self._model, state["buffers"], self._initial.device)
        self._at_once = state.get("at_once", self._at_once)  # older checkpoints do not say
        self._initial = self._flat()

    def _afresh(self) -> None:
        """Makes the model that is called."""
        self._model = copy.deepcopy(self._plain)
        self._with_loss = _WithLoss(self._model)
        self._places = places_of(self._model)

    def _buffers(self) -> dict[str, Tensor]:
        """Those of the model that is called, in the user's modes; not copies."""
        set_modes(self._model, self._modes)
        buffers = {name: buffer.detach() for name, buffer in self._model.named_buffers()}
        return {**buffers, **self._moved()}

    def _moved(self) -> dict[str, Tensor]:
        """Frozen weights that passes have moved, as those of a mean teacher; not copies."""
        given = dict(self._plain.named_parameters())
        frozen = {n: p.detach() for n, p in self._model.named_parameters() if not p.requires_grad}
        return {n: p for n, p in frozen.items() if n in given and not p.equal(given[n])}

    def _flat(self) -> Tensor:
        named = self._plain.named_parameters()
        return torch.cat([p.detach().reshape(-1) for n, p in named if n in self._shapes])

    def _train_at_once(self, weights: Tensor, hp: Mapping[str, Tensor], batch: Any) -> Tensor:
        losses = vmap(lambda w, values: self._train(w, values, batch), randomness="different")
        return losses(weights, dict(hp))

    def _train(self, weights: Tensor, hp: Mapping[str, Tensor], batch: Any) -> Tensor:
        arguments = (self._train_loss, "train_loss", batch, Recorded(hp, self._read))
        return self._call(weights, arguments)

    def _call(self, weights: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        named = self._named(weights)
        placed = {f"model.{place}": named[name] for place, name in self._places.items()}
        loss: Tensor = functional_call(self._with_loss, placed, arguments, tie_weights=False)
        return loss

    def _named(self, weights: Tensor) -> dict[str, Tensor]:
        parts = torch.split(weights, [shape.numel() for shape in self._shapes.values()])
        return {
            name: part.view(shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether all numbers are equal; what is not a number equals itself."""
    alike = one.shape == other.shape
    return alike and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


@contextmanager
def _spoilt(model: nn.Module) -> Iterator[None]:
    """Context in which the weights that others take the place of are no numbers."""
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.data for parameter in own]
    for parameter in own:
        parameter.data = torch.full_like(parameter, math.nan)
    try:
        yield
    finally:
        for parameter, values in zip(own, before, strict=True):
            parameter.data = values


class _WithLoss(nn.Module):
    """A module around the model, so that a whole loss runs with the model's weights replaced."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[..., Tensor], name: str, *arguments: Any) -> Tensor:
        value = loss(self.model, *arguments)
        return scalar(name, value)
