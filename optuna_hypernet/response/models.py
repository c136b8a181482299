"""The user's model: what can be trained through a best response, and paths inside of it."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import TypeVar

import torch
from torch import Tensor
from torch import nn

from optuna_hypernet.response.batch import tensors


_Module = TypeVar("_Module", bound=nn.Module)
_WITH_STATISTICS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)


def check_model(model: nn.Module) -> torch.dtype:
    """Refuses by name what cannot be trained so; else the type of the trainable weights.

    Raises:
        TypeError: If the model is not a module.
        ValueError: If it has no weights to train, weights of several or of half-precision types,
            or lazy weights, or is in eval mode.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"The model is {model!r}, but it must be a torch.nn.Module.")
    if not model.training:
        raise ValueError(
            "The model is in eval mode, so dropout would be off in training. Call model.train() "
            "first; submodules that are to stay frozen may be in eval mode."
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
    return types.pop()


def check_statistics(model: nn.Module) -> None:
    """Refuses running statistics by a ValueError: they belong to one λ, and would mix many."""
    for name, module in model.named_modules():
        if isinstance(module, _WITH_STATISTICS) and module.track_running_stats and module.training:
            raise ValueError(
                f"{name or 'The model'} is a {type(module).__name__} with running statistics, "
                "which belong to one λ and would mix many. Use GroupNorm or LayerNorm, or "
                "track_running_stats=False, or put that module into eval mode to freeze it; or "
                'use response="structured", whose λ stay around one.'
            )


def device_of(model: Any) -> torch.device:
    """Where the model's first weight is; the CPU if it has none."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((p.device for p in parameters), torch.device("cpu"))


def modes_of(model: nn.Module) -> dict[str, bool]:
    """Which modules are in training mode, by path."""
    return {name: module.training for name, module in model.named_modules()}


def set_modes(model: nn.Module, modes: Mapping[str, bool]) -> None:
    """Puts modules back into the modes that they had, by their own ``train``.

    That may do more than to set a flag, so it is called where a module has left its mode. As it
    goes down to all children, the flags of those that differ are set after it.
    """
    modules = [(one, modes[name]) for name, one in model.named_modules() if name in modes]
    for module, mode in modules:
        if module.training != mode:
            module.train(mode)
    for module, mode in modules:
        module.training = mode


def places_of(model: nn.Module) -> dict[str, str]:
    """The name of a trainable weight, by each place where it is: tied ones have several.

    A module that occurs at several paths is one place: ``functional_call``, given its weights at
    each of them, would leave in it what it was given.
    """
    names = {p: name for name, p in model.named_parameters() if p.requires_grad}
    return {
        place: names[p]
        for path, module in model.named_modules()
        for place, p in module.named_parameters(path, recurse=False, remove_duplicate=False)
        if p in names
    }


def copied(model: _Module) -> _Module:
    """A deep copy, without what a forward pass has left on the modules.

    A tensor that hangs on a graph, such as an auxiliary loss that is kept until it is added to
    the others, cannot be copied; the next pass makes it anew.
    """
    left = [value for module in model.modules() for value in vars(module).values()]
    memo = {id(one): None for value in left for one in tensors(value) if one.grad_fn is not None}
    return copy.deepcopy(model, memo)


def held(model: nn.Module) -> dict[str, Tensor]:
    """All its weights and buffers by path; not copies."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def set_buffers(model: nn.Module, values: Mapping[str, Tensor], device: torch.device) -> None:
    """Gives buffers these values, by path, also those that a forward pass fills or resizes.

    A frozen weight that a pass has moved, as of a mean teacher, counts as one.
    What the model does not have is left out: the pass that made it makes it anew.
    """
    modules = dict(model.named_modules())
    there = held(model)
    for path, value in values.items():
        parent, _, name = path.rpartition(".")
        if not hasattr(modules.get(parent), name):
            continue
        own = there.get(path)
        if own is None or own.shape != value.shape or own.dtype != value.dtype:
            new = value.detach().clone().to(device if own is None else own.device)
            setattr(modules[parent], name, new)
        else:
            with torch.no_grad():
                own.copy_(value)


def load_state(
    model: nn.Module, state: Mapping[str, Any], device: torch.device, *, strict: bool = True
) -> None:
    """``model.load_state_dict``, also where a pass has filled or resized buffers since."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    apart = {name: value for name, value in state.items() if name not in parameters}
    buffers = {name: value for name, value in apart.items() if isinstance(value, Tensor)}
    set_buffers(model, buffers, device)
    model.load_state_dict(state, strict=strict)


def replaced(model: nn.Module, substitutes: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The model with some of its modules exchanged, in place, wherever they occur.

    A module that occurs at several paths has one substitute at all of them.
    """
    for path, module in reversed(list(model.named_modules(remove_duplicate=False))):  # inner first
        if module not in substitutes:
            continue
        if not path:
            return substitutes[module]
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, substitutes[module])
    return model


def nearest(name: str, names: Iterable[str]) -> str:
    """What an error says about a name that is none of ``names``."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
    return f"the nearest there are {close}" if close else "there are none at all"
