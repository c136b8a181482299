"""The user's model with the weights that a hypernetwork gives it, and its two losses."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch import nn
from torch.func import functional_call
from torch.func import vmap

from optuna_hypernet.randomness import generator
from optuna_hypernet.randomness import private_randomness
from optuna_hypernet.response.hypernetworks import Diagonal
from optuna_hypernet.response.hypernetworks import Linear
from optuna_hypernet.response.hypernetworks import LowRank


TrainLoss = Callable[[nn.Module, Any, Mapping[str, Tensor]], Tensor]
ValidLoss = Callable[[nn.Module, Any], Tensor]

_WITH_STATISTICS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)


class Recorded(Mapping[str, Tensor]):
    """A mapping that remembers which of its names were read."""

    def __init__(self, values: Mapping[str, Tensor], read: set[str]) -> None:
        self._values = values
        self._read = read

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._values:
            raise KeyError(f"{name!r} is not in the search space, which has {list(self._values)}")
        self._read.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Weights:
    """w_φ(λ) = w_0 + δ_φ(z) for all trainable weights of a model at once.

    The weights are put into a copy of the model while a loss is taken, so the user's losses are
    written as ever: ``model(x)``, ``model.parameters()``, ``model.fc.weight`` all see w_φ(λ).
    Tied weights stay tied. Weights that do not require a gradient stay what they are.

    Args:
        model: Copied. In training mode; submodules in eval mode stay so.
        train_loss: ``(model, batch, hp) -> scalar``.
        valid_loss: ``(model, batch) -> scalar``.

    Attributes:
        n_weights: P.
        hypernetwork: ``(k, D)`` → ``(k, P)``, to be set before anything else is asked for.

    Raises:
        TypeError: If the model is not a module, or a loss is not callable.
        ValueError: If the model has no weights to train, weights of several or of half-precision
            types, lazy weights, or running statistics, or is in eval mode.
    """

    hypernetwork: nn.Module

    def __init__(
        self,
        model: nn.Module,
        train_loss: TrainLoss,
        valid_loss: ValidLoss,
        device: torch.device,
    ) -> None:
        for name, loss in (("train_loss", train_loss), ("valid_loss", valid_loss)):
            if not callable(loss):
                raise TypeError(f"{name} is {loss!r}, but it must be a function of the model.")
        _check(model)
        self._model = copy.deepcopy(model).to(device)
        self._modes = {name: module.training for name, module in self._model.named_modules()}
        self._problem = _Problem(self._model)
        self._train_loss = train_loss
        self._valid_loss = valid_loss
        trained = {n: p.detach() for n, p in self._model.named_parameters() if p.requires_grad}
        self._shapes = {name: weight.shape for name, weight in trained.items()}
        self._initial = torch.cat([weight.reshape(-1) for weight in trained.values()])
        self.n_weights = len(self._initial)
        self.dtype = self._initial.dtype
        self._read: set[str] = set()  # names that the training loss has read

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
        if isinstance(self.hypernetwork, Diagonal | Linear | LowRank):
            self.hypernetwork.recentre(z)

    def train_losses(self, z: Tensor, hp: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Training losses ``(k,)`` at ``z (k, D)``, all on one batch.

        Args:
            z: Coordinates, what the hypernetwork reads.
            hp: Natural units of the same, ``(k, *shape)`` by name, what the loss reads.
            batch: Of training data, on the device.
        """
        weights = self.at(z)
        self._to_training_mode()
        if len(z) == 1:  # without vmap, which not every layer of torch knows
            return self._train(weights[0], {n: v[0] for n, v in hp.items()}, batch)[None]
        losses = vmap(lambda w, values: self._train(w, values, batch), randomness="different")
        try:
            return losses(weights, dict(hp))
        except RuntimeError as error:
            raise RuntimeError(
                "Taking the training loss at several λ at once by torch.func.vmap failed, with "
                f"the error above. If it names an operation that vmap does not know, use "
                f"samples=1, which does without vmap. ({error})"
            ) from error

    def valid_loss(self, z: Tensor, batch: Any) -> Tensor:
        """Validation loss, a scalar, at coordinates ``(D,)``; the model is in eval mode."""
        self._model.eval()
        arguments = (self._valid_loss, "valid_loss", batch)
        return self._call(self.at(z[None])[0], arguments)

    def probe(self, hps: Sequence[Mapping[str, Tensor]], batch: Any, seed: int) -> None:
        """Takes the training loss at some hyperparameters, all else equal, and compares.

        Args:
            hps: Natural units by name, without a leading dimension.
            batch: Of training data, on the device.
            seed: Of the user's own randomness, the same for each.

        Raises:
            ValueError: If the loss never reads a hyperparameter, or is the same for all ``hps``.
        """
        self._to_training_mode()
        noise = torch.randn(
            self.n_weights, generator=generator(seed), dtype=self.dtype, device="cpu"
        )
        weights = self._initial + 0.01 * noise.to(self._initial)  # decay of zeros is zero
        losses = set()
        for hp in hps:
            with torch.no_grad(), private_randomness(seed, weights.device):
                losses.add(float(self._train(weights, hp, batch)))
        if unread := [name for name in hps[0] if name not in self._read]:
            raise ValueError(
                f"train_loss never reads {unread} from hp, so nothing can be learnt about it. A "
                "setting of the optimizer, such as a learning rate, does not change where "
                "training ends: let the outer study search it, and leave it out here."
            )
        if len(losses) == 1:
            raise ValueError(
                "train_loss has the same value at both ends of all hyperparameters. Use hp so "
                "that it changes the loss; every entry is a tensor in natural units."
            )

    def original(self) -> nn.Module:
        """The model as it was passed in; not a copy."""
        self._to_training_mode()
        return self._model

    def export(self, z: Tensor) -> nn.Module:
        """A plain model of the user's class with the weights at ``(D,)``, in the user's modes."""
        with torch.no_grad():
            named = self._named(self.at(z[None])[0])
            self._to_training_mode()
            model = copy.deepcopy(self._model)
            for name, parameter in model.named_parameters():
                if name in named:
                    parameter.copy_(named[name])
        return model

    def _train(self, weights: Tensor, hp: Mapping[str, Tensor], batch: Any) -> Tensor:
        arguments = (self._train_loss, "train_loss", batch, Recorded(hp, self._read))
        return self._call(weights, arguments)

    def _call(self, weights: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        named = {f"model.{name}": weight for name, weight in self._named(weights).items()}
        loss: Tensor = functional_call(self._problem, named, arguments)
        return loss

    def _named(self, weights: Tensor) -> dict[str, Tensor]:
        parts = torch.split(weights, [shape.numel() for shape in self._shapes.values()])
        return {
            name: part.view(shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }

    def _to_training_mode(self) -> None:
        for name, module in self._model.named_modules():
            module.training = self._modes[name]


class _Problem(nn.Module):
    """A module around the model, so that a whole loss runs with the model's weights replaced."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[..., Tensor], name: str, *arguments: Any) -> Tensor:
        value = loss(self.model, *arguments)
        if not isinstance(value, Tensor) or value.shape != ():
            came = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise ValueError(
                f"{name} returned {came}, but it must return a scalar tensor. Take the mean over "
                "the batch: loss.mean()."
            )
        return value


def _check(model: nn.Module) -> None:
    """Refuses by name what cannot be trained through a hypernetwork."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"The model is {model!r}, but it must be a torch.nn.Module.")
    if not model.training:
        raise ValueError(
            "The model is in eval mode, so dropout would be off in training. Call model.train() "
            "first; submodules that are to stay frozen may be in eval mode."
        )
    for name, module in model.named_modules():
        if isinstance(module, _WITH_STATISTICS) and module.track_running_stats and module.training:
            raise ValueError(
                f"{name or 'The model'} is a {type(module).__name__} with running statistics, "
                "which belong to one λ and would mix many. Use GroupNorm or LayerNorm, or "
                "track_running_stats=False, or put that module into eval mode to freeze it."
            )
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name, parameter in trained.items():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(f"Weight {name!r} is lazy. Run the model once on a batch first.")
        if parameter.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"Weight {name!r} is {parameter.dtype}, but hyper-training works in float32 or "
                "float64. Call model.float() first."
            )
    types = {parameter.dtype for parameter in trained.values()}
    if len(types) != 1:
        raise ValueError(
            f"The model has trainable weights of the types {sorted(map(str, types))}, but there "
            "must be some, and all of one type. Set requires_grad, or call model.float()."
        )


def device_of(model: Any) -> torch.device:
    """Where the model's first weight is; the CPU if it has none."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((p.device for p in parameters), torch.device("cpu"))
