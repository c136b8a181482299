"""Groups of parameters with the optimizer that moves each, and the optimizers taken by default."""

from __future__ import annotations

import copy
import inspect
import re
from collections import Counter
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau

from optuna_hypernet.coordinates import Blocks


MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
MakeScheduler = Callable[[Optimizer], LRScheduler]


class Group:
    """Parameters that one optimizer moves.

    Args:
        parameters: Of φ or of λ̂.
        optimizer: Makes the optimizer.
        scheduler: Makes what sets its step sizes, step by step; else :meth:`resize` does.
        clip: The largest norm of the gradient; longer ones are shortened.

    Raises:
        TypeError: If ``optimizer`` cannot be called, or what it or ``scheduler`` makes cannot be
            stepped by itself.
        ValueError: If what ``optimizer`` makes moves other parameters than these.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler | None = None,
        clip: float | None = None,
    ) -> None:
        self.parameters = list(parameters)
        if not callable(optimizer):
            raise TypeError(
                f"an optimizer is {optimizer!r}, which cannot be called. Pass a function of the "
                "parameters, say lambda parameters: torch.optim.Adam(parameters, lr=1e-3)."
            )
        self._optimizer = optimizer(self.parameters)
        _check_moves(self._optimizer, self.parameters)
        self._settings = copy.deepcopy(
            [
                {name: value for name, value in group.items() if name != "params"}
                for group in self._optimizer.param_groups
            ]
        )
        self._make_scheduler = scheduler
        self._scheduler = None if scheduler is None else _made(scheduler, self._optimizer)
        self._clip = clip

    def step(self, gradients: Iterable[Tensor | None]) -> None:
        """One step with these gradients; none is left behind for another group to find."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
            if self._clip is not None and gradient is not None:
                # Some may be one tensor, or parts of it, which clipping would shorten twice.
                parameter.grad = gradient.clone()
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self._clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._scheduler is not None:
            self._scheduler.step()

    def resize(self, factor: float) -> None:
        """Multiplies the step sizes that the optimizer came with, unless they have a scheduler."""
        if self._scheduler is None:
            for group, came in zip(self._optimizer.param_groups, self._settings, strict=True):
                group["lr"] = came["lr"] * factor

    def restart(self, steps: int) -> None:
        """Begins a schedule for so many steps, with the settings that the optimizer came with.

        What the optimizer has gathered, such as momentum, it keeps.
        """
        if self._make_scheduler is None:
            return
        for group, came in zip(self._optimizer.param_groups, self._settings, strict=True):
            parameters = group["params"]
            group.clear()
            group.update(copy.deepcopy(came), params=parameters)
        self._scheduler = _made(self._make_scheduler, self._optimizer)
        self.check_length(steps)

    def check_length(self, steps: int) -> None:
        """Refuses a schedule that ends before so many steps.

        Raises:
            ValueError: If there is one, and it does.
        """
        length = getattr(self._scheduler, "total_steps", None)
        if length is not None and length < steps:
            raise ValueError(
                f"scheduler made a {type(self._scheduler).__name__} of {length} steps, but it is "
                f"stepped after each of {steps} train steps. Make it with total_steps={steps}, or "
                "train for fewer."
            )

    def described(self) -> dict[str, str]:
        """In words what moves the parameters: the classes, and the settings they came with."""
        settings = dict.fromkeys(name for came in self._settings for name in came)
        return {
            "class": type(self._optimizer).__name__,
            "scheduler": "None" if self._scheduler is None else type(self._scheduler).__name__,
            **{
                name: ", ".join(in_words(_plain(came.get(name))) for came in self._settings)
                for name in settings
            },
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything from which it goes on bit by bit, but the parameters; no copies."""
        schedule = None if self._scheduler is None else self._scheduler.state_dict()
        return {"optimizer": _plain(self._optimizer.state_dict()), "scheduler": _plain(schedule)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state.

        Raises:
            ValueError: If it is one with a scheduler, and here is none, or the reverse.
        """
        if (state["scheduler"] is None) != (self._scheduler is None):
            here, there = ("no", "a") if self._scheduler is None else ("a", "no")
            raise ValueError(
                f"The state was saved with {there} scheduler, but here is {here} scheduler. Load "
                "it into a HyperTraining made from the same arguments."
            )
        state = copy.deepcopy(state)  # what is loaded keeps and changes the tensors it is given
        self._optimizer.load_state_dict(state["optimizer"])
        if self._scheduler is not None:
            self._scheduler.load_state_dict(state["scheduler"])


def _check_moves(optimizer: Optimizer, parameters: Collection[nn.Parameter]) -> None:
    """Refuses an optimizer that wants losses, or of other parameters, such as the model's own."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise TypeError(
            f"An optimizer's function made {type(optimizer).__name__}, which takes losses again "
            "and again in one step, but a step has the gradients of one batch. Pass another one, "
            "say lambda parameters: torch.optim.Adam(parameters, lr=1e-3)."
        )
    moves = {p for group in optimizer.param_groups for p in group["params"]}
    if moves != set(parameters):
        raise ValueError(
            f"An optimizer's function made {type(optimizer).__name__} of {len(moves)} parameters, "
            f"of which {len(moves & set(parameters))} are among the {len(parameters)} that it was "
            "given; but those are what is trained, and not the model's own. Pass a function of "
            "them all, say lambda parameters: torch.optim.Adam(parameters, lr=1e-3)."
        )


def _plain(state: Any) -> Any:
    """The same with numpy's numbers as Python's: a checkpoint of those cannot be read."""
    if isinstance(state, np.generic):
        return state.item()
    if type(state) in (dict, Counter):
        return type(state)({_plain(key): _plain(value) for key, value in state.items()})
    if type(state) in (list, tuple):
        return type(state)(_plain(value) for value in state)
    return state


def in_words(value: Any) -> str:
    """Its ``repr`` without addresses in memory, which are others in the next process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _made(scheduler: MakeScheduler, optimizer: Optimizer) -> LRScheduler:
    advice = (
        "Pass a function of an optimizer, say "
        "lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3000)."
    )
    if not callable(scheduler):
        raise TypeError(f"scheduler is {scheduler!r}, which cannot be called. {advice}")
    made = scheduler(optimizer)
    if not isinstance(made, LRScheduler):
        raise TypeError(f"scheduler made {made!r}, but it must make an LRScheduler. {advice}")
    if isinstance(made, ReduceLROnPlateau):
        raise TypeError(
            "scheduler made a ReduceLROnPlateau, which waits for a metric; but it is stepped "
            f"after every train step, when there is none. {advice}"
        )
    return made


def adam(parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The default optimizer of φ."""
    return torch.optim.Adam(parameters, lr=5e-3, fused=True)


def hyper_adam(parameters: Iterable[nn.Parameter], *, length: float = 0.03) -> Optimizer:
    """The default optimizer of λ̂, whose step has that length, in standard deviations.

    The length is that of all coordinates together: along no direction may λ̂ leave, in one step,
    the neighbourhood in which the response was learnt.
    """
    parameters = list(parameters)
    size = sum(parameter.numel() for parameter in parameters)
    return torch.optim.Adam(parameters, lr=length / size**0.5)


def hyper_adam_each(parameters: Iterable[nn.Parameter], *, length: float = 0.05) -> Optimizer:
    """That of λ̂ of a structured response: that step along every coordinate."""
    return torch.optim.Adam(parameters, lr=length)


class BlockAdam(Optimizer):
    """That of λ̂ where each coordinate acts on weights of its own, and there may be thousands.

    The mean of the coordinates of a hyperparameter, and what each of them is apart from it, are
    two scales. Steps of Adam (Kingma & Ba 2015) along means are ``common`` times as long as those
    apart, of which 0.003 in a thousand valid steps still are a whole range. Longer ones over-fit
    the validation data; and so what is apart decays, as weights do in AdamW (Loshchilov & Hutter
    2019): where nothing else is known, the numbers of a hyperparameter are alike.

    Args:
        parameters: ``(D,)`` each.
        blocks: Which coordinates belong to one hyperparameter.
        lr: The step of each coordinate, in standard deviations.
        common: How much longer that of a mean is.
        decay: A step of decay, in steps of ``lr``.
        betas: Of the running means of a gradient and of its square.
        eps: Beneath gradients.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        blocks: Blocks,
        lr: float = 0.003,
        common: float = 5.0,
        decay: float = 0.5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self._blocks = blocks
        settings = {"lr": lr, "common": common, "decay": decay, "betas": betas, "eps": eps}
        super().__init__(parameters, settings)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step, with the gradients that there are."""
        blocks = self._blocks
        for group in self.param_groups:
            for z in (z for z in group["params"] if z.grad is not None):
                state = self.state[z]
                state["step"] = state.get("step", 0) + 1
                along = self._direction(state, "common", blocks.sums(z.grad), group)
                move = self._direction(state, "apart", blocks.apart(z.grad), group)
                move += group["common"] * blocks.spread(along)
                move += group["decay"] * blocks.apart(z)
                z.sub_(move, alpha=group["lr"])

    def _direction(
        self, state: dict[str, Any], name: str, gradient: Tensor, group: Mapping[str, Any]
    ) -> Tensor:
        """Adam's, of a gradient whose running means are kept under that name."""
        first = state.setdefault(name, torch.zeros_like(gradient))
        second = state.setdefault(f"{name} squared", torch.zeros_like(gradient))
        of_first, of_second = group["betas"]
        first.lerp_(gradient, 1 - of_first)
        second.lerp_(gradient.square(), 1 - of_second)
        size = (second / (1 - of_second ** state["step"])).sqrt()
        direction: Tensor = first / (1 - of_first ** state["step"]) / (size + group["eps"])
        return direction
