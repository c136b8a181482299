"""Optimizers of φ and of λ̂: those taken by default."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer


MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


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


def hyper_adam_each(parameters: Iterable[nn.Parameter]) -> Optimizer:
    """That of λ̂ if each coordinate acts on weights of its own: a step of 0.003 along every one.

    In a thousand valid steps that still is a whole range. Longer ones over-fit the validation data
    where there are thousands of coordinates.
    """
    return torch.optim.Adam(parameters, lr=0.003)
