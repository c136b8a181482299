"""Hypernetworks: coordinates of hyperparameters → displacement of a model's weights.

Notation: ``D`` coordinates, ``P`` weights of the model, ``k`` rows of coordinates at once. Every
hypernetwork maps ``z (k, D)`` to ``(k, P)``, is zero when it is new, and is added to the weights
that the model came with: w_φ(λ) = w_0 + δ_φ(z). Architectures after Lorraine & Duvenaud (2018),
"Stochastic Hyperparameter Optimization through Hypernetworks", sections 2 and 3.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor
from torch import nn

from optuna_hypernet.coordinates import Blocks


Name = Literal["diagonal", "linear", "low-rank", "mlp"]


class Constant(nn.Module):
    """Weights that do not depend on λ: ordinary training.

    Memory: P numbers. Time: none beside the model's own.
    """

    def __init__(self, n_weights: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(_zeros(n_weights))

    def forward(self, z: Tensor) -> Tensor:
        """``(k, D)`` → ``(k, P)``, all rows equal."""
        return self.offset.expand(len(z), -1)


class Centred(nn.Module):
    """Base of those that are affine in z - c."""

    offset: nn.Parameter
    centre: Tensor

    def recentre(self, z: Tensor) -> None:
        """Moves c to ``z (D,)`` and b along: the same map, better conditioned around there."""
        if torch.equal(z, self.centre):  # most steps: only a valid one moves λ̂
            return
        with torch.no_grad():
            self.offset.copy_(self(z[None])[0])
            self.centre.copy_(z)


class Linear(Centred):
    """δ(z) = b + J (z - c): the tangent plane of the best response, for dozens of hyperparameters.

    Memory: P (D + 1) numbers, and an optimizer's multiple of it. Time of a step: 2 k P D
    multiplications, beside k passes of the model, plus the optimizer's over P (D + 1).
    """

    def __init__(self, n_coordinates: int, n_weights: int, seed: torch.Generator) -> None:
        super().__init__()
        self.offset = nn.Parameter(_zeros(n_weights))
        self.slope = nn.Parameter(_zeros(n_weights, n_coordinates))
        self.register_buffer("centre", _zeros(n_coordinates))

    def forward(self, z: Tensor) -> Tensor:
        """``(k, D)`` → ``(k, P)``."""
        return torch.addmm(self.offset, z - self.centre, self.slope.T)


class Diagonal(Centred):
    """Each weight p answers to one coordinate o(p), its own, and to the mean of those like it.

        δ_p(z) = b_p + d_p (x_o(p) - m) + s_p m,    x = z - c,

    with m the mean of x over the hyperparameter that the coordinate belongs to. For one penalty
    per weight, or per row, column or layer of weights. With curvatures H of the training loss in w
    and M = ∂²L_T/∂w∂z, the best response has the slope -H⁻¹ M, and M has one entry in every row.
    What is learnt, where each weight has a coordinate of its own, is d_p = -M_p / H_pp, H as if it
    were diagonal: the right sign, so that λ̂ knows which way to go. Every train step says something
    about every slope, where units that mix all coordinates would learn next to nothing of any
    single one. But where weights can stand for each other, as those of neighbouring pixels can,
    they move by far more when all their penalties rise at once: so that has slopes of its own,
    s = -H⁻¹ M 1 within a hyperparameter.

    Memory: 3 P numbers, and an optimizer's multiple of it. Time of a step: 2 k P multiplications,
    beside k passes of the model, plus the optimizer's over 3 P.

    Args:
        owners: ``(P,)`` the coordinate of each weight; D for none.
        blocks: Which of the D coordinates belong to one hyperparameter.
    """

    owners: Tensor
    blocks_of: Tensor

    def __init__(self, owners: Tensor, blocks: Blocks) -> None:
        super().__init__()
        size, count = sum(blocks.sizes), len(blocks.sizes)
        self.offset = nn.Parameter(_zeros(len(owners)))
        self.slope = nn.Parameter(_zeros(len(owners)))
        self.common = nn.Parameter(_zeros(len(owners)))
        self.register_buffer("owners", owners, persistent=False)
        own = torch.cat([blocks.spread(torch.arange(count)), torch.tensor([count])])
        self.register_buffer("blocks_of", own[owners], persistent=False)
        self.register_buffer("centre", _zeros(size))
        self._blocks = blocks

    def forward(self, z: Tensor) -> Tensor:
        """``(k, D)`` → ``(k, P)``."""
        x = z - self.centre
        means = self._blocks.means(x)  # (k, E)
        apart = _of(x - self._blocks.spread(means), self.owners)
        own = torch.addcmul(self.offset, apart, self.slope)
        return torch.addcmul(own, _of(means, self.blocks_of), self.common)


def _of(values: Tensor, columns: Tensor) -> Tensor:
    """``(k, n)`` → ``(k, P)``; 0 where a weight has no column, which is n."""
    return nn.functional.pad(values, (0, 1))[:, columns]


# Adam moves every number by one step size. Beside numbers of size 1/4 in V that stays small; of
# 1/√D, which thousands of coordinates would leave them, it is a multiple.
_LARGEST_ROOT = 4.0


class LowRank(Centred):
    """δ(z) = b + U V (z - c), with ``rank`` linear units between; for up to thousands of them.

    λ̂ descends in as many directions, and in the others hardly: with forty hyperparameters that all
    matter :class:`Linear` comes further.

    Beyond sixteen coordinates the sums in V (z - c) are divided, so that V's numbers need not be
    small.

    Memory: P (rank + 1) + rank D numbers, and an optimizer's multiple of it. Time of a step:
    2 k rank (P + D) multiplications, beside k passes of the model, plus the optimizer's.
    """

    def __init__(
        self, n_coordinates: int, n_weights: int, seed: torch.Generator, rank: int = 10
    ) -> None:
        super().__init__()
        self.offset = nn.Parameter(_zeros(n_weights))
        self.up = nn.Parameter(_zeros(n_weights, rank))
        # Units of variance 1 under p(λ) = N(0, I).
        root = n_coordinates**0.5
        self.down = nn.Parameter(_normal(rank, n_coordinates, seed) / min(root, _LARGEST_ROOT))
        self._share = min(root, _LARGEST_ROOT) / root
        self.register_buffer("centre", _zeros(n_coordinates))

    def forward(self, z: Tensor) -> Tensor:
        """``(k, D)`` → ``(k, P)``."""
        units = self._share * ((z - self.centre) @ self.down.T)  # (k, rank)
        return torch.addmm(self.offset, units, self.up.T)


class MLP(nn.Module):
    """δ(z) = b + U tanh(V z + c) / hidden: bends enough to hold the best response over a range.

    The mean over the units, not their sum: Adam moves each column of U by one step size, and all
    together would move the weights by ``hidden`` of them.

    Memory: P (hidden + 1) + hidden (D + 1) numbers, and an optimizer's multiple of it. Time of a
    step: 2 k hidden (P + D) multiplications, beside k passes of the model, plus the optimizer's.
    """

    def __init__(
        self, n_coordinates: int, n_weights: int, seed: torch.Generator, hidden: int = 50
    ) -> None:
        super().__init__()
        self.offset = nn.Parameter(_zeros(n_weights))
        self.up = nn.Parameter(_zeros(n_weights, hidden))
        scale = 2 / n_coordinates**0.5
        self.down = nn.Parameter(scale * _normal(hidden, n_coordinates, seed))
        self.shift = nn.Parameter(2 * _normal(1, hidden, seed)[0])

    def forward(self, z: Tensor) -> Tensor:
        """``(k, D)`` → ``(k, P)``."""
        units = torch.tanh(torch.addmm(self.shift, z, self.down.T))  # (k, hidden)
        return torch.addmm(self.offset, units / len(self.shift), self.up.T)


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float32, device="cpu")


def _normal(n_rows: int, n_columns: int, seed: torch.Generator) -> Tensor:
    shape = (n_rows, n_columns)
    return torch.randn(shape, generator=seed, dtype=torch.float32, device="cpu")


_BY_NAME: dict[str, type[Linear | LowRank | MLP]] = {
    "linear": Linear,
    "low-rank": LowRank,
    "mlp": MLP,
}


def hypernetwork(
    response: Name | nn.Module, n_coordinates: int, n_weights: int, seed: torch.Generator
) -> nn.Module:
    """The hypernetwork of that name, or a copy of the user's own; :class:`Diagonal` needs more.

    Raises:
        ValueError: If there is none of that name, or the user's own has nothing to train.
    """
    if isinstance(response, nn.Module):
        if not any(parameter.requires_grad for parameter in response.parameters()):
            raise ValueError(
                f"The response, a {type(response).__name__}, has no parameters that require a "
                "gradient, so it cannot learn. Give it some, or pass the name of a response."
            )
        return copy.deepcopy(response)
    if response not in _BY_NAME:
        raise ValueError(
            f"response is {response!r}, but it must be one of "
            f"{[*_BY_NAME, 'diagonal', 'structured', 'structured-delta']}, or a torch module that "
            f"maps coordinates (k, {n_coordinates}) to weights (k, {n_weights})."
        )
    return _BY_NAME[response](n_coordinates, n_weights, seed)
