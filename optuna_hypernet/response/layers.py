"""Layers whose weights respond to hyperparameters, each example of a batch having its own λ.

Notation: ``B`` examples, ``D`` coordinates, ``dz`` their *displacement* from the centre c, around
which the response is learnt: ``(B, D)``, one row per example, or ``(D,)``, the same for all. A
weight has two parts of its shape, and one gate per output unit:

    w(z) = W_elem + diag(V (z - c)) W_resp

After MacKay et al. (2019), "Self-Tuning Networks: Bilevel Optimization of Hyperparameters using
Structured Best-Response Functions", section 3.2, with the centred input of Bae & Grosse (2020),
"Delta-STN": the *elementary* weights are those at c itself. As a gate scales whole output units,
examples with different λ share two products with weight matrices, and no weight per example is
ever formed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F


class Gated(nn.Module):
    """One weight as an affine function of the displacement.

    Args:
        elementary: The user's own parameter, not a copy.
        axis: Along which the gates lie.
        n_coordinates: D.
        bound: The response weights start uniform on ±bound, the gates at zero.
        seed: Of the response weights.
    """

    def __init__(
        self,
        elementary: nn.Parameter,
        axis: int,
        n_coordinates: int,
        bound: float,
        seed: torch.Generator,
    ) -> None:
        super().__init__()
        shape, n_units = elementary.shape, elementary.shape[axis]
        uniform = torch.rand(shape, generator=seed, dtype=elementary.dtype, device="cpu")
        self.elementary = elementary
        self.response = nn.Parameter((2 * uniform - 1).to(elementary) * bound)
        self.gate = nn.Parameter(elementary.new_zeros(n_units, n_coordinates))
        self._units = [n_units if axis % len(shape) == i else 1 for i in range(len(shape))]
        self.axis = axis

    def gates(self, dz: Tensor) -> Tensor:
        """``(..., D)`` → ``(..., n)``."""
        return dz @ self.gate.T

    def at(self, dz: Tensor) -> Tensor:
        """The weights themselves: ``(..., D)`` → ``(..., *shape)``."""
        return self.elementary + self.gated(dz, self.response)

    def gated(self, dz: Tensor, weight: Tensor) -> Tensor:
        """Gates times what has the weight's shape: ``(..., D)`` → ``(..., *shape)``."""
        return self.gates(dz).reshape(*dz.shape[:-1], *self._units) * weight

    def fold(self, dz: Tensor) -> None:
        """Moves the centre by ``dz (D,)``: the same map, seen from there."""
        with torch.no_grad():
            self.elementary.copy_(self.at(dz))

    def squared_norm(self, dz: Tensor) -> Tensor:
        """‖w‖²: ``(..., D)`` → ``(...)``, without forming a weight per example.

        Per unit it is |e|² + 2 g e·r + g² |r|²; so Wenzel et al. (2020), "Hyperparameter
        Ensembles for Robustness and Uncertainty Quantification".
        """
        pairs = [
            (self.elementary, self.elementary),
            (self.elementary, self.response),
            (self.response, self.response),
        ]
        dims = [i for i, size in enumerate(self._units) if size == 1]
        sums = [(one * other).sum(dims) if dims else one * other for one, other in pairs]
        ee, er, rr = (total.reshape(-1) for total in sums)  # (n,) each
        gates = self.gates(dz)  # (..., n)
        return (ee + 2 * gates * er + gates.square() * rr).sum(-1)


class InPlaceOf(nn.Module):
    """What takes the place of a module of the user's while it is tuned.

    Code of the user's that asks ``isinstance(module, nn.Linear)`` gets the answer that it would
    get of the module itself.

    Args:
        path: Where that is in the user's model.
        plain: The module itself.
    """

    plain: nn.Module

    def __init__(self, path: str, plain: nn.Module) -> None:
        super().__init__()
        self.path = path
        self.plain = plain
        self.training = plain.training

    @property  # type: ignore[misc]
    def __class__(self) -> type[nn.Module]:  # type: ignore[override]
        plain = vars(self).get("_modules", {}).get("plain", self)  # before __init__, none yet
        return type(plain)


class Layer(InPlaceOf):
    """A layer of the user's with weights that respond.

    Args:
        path: See :class:`InPlaceOf`.
        plain: The layer itself, which holds the elementary weights.
        gated: Which of its weights respond, by name.

    Attributes:
        displacement: ``(B, D)`` or ``(D,)``, to be set before it is called.
    """

    def __init__(self, path: str, plain: nn.Module, gated: Mapping[str, Gated]) -> None:
        super().__init__(path, plain)
        self.gated = nn.ModuleDict(gated)
        self.displacement: Tensor = next(iter(gated.values())).gate.new_zeros(1)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            plain, gated = super().__getattr__("plain"), super().__getattr__("gated")
            assert isinstance(gated, nn.ModuleDict)
            if name in gated:
                raise AttributeError(
                    f"{self.path}.{name} is not one tensor while it responds to λ: every example "
                    "has its own. For its norm use squared_norm(module); to use it elsewhere, "
                    "tie it to the weight of a layer, or list that module in elementary=[...]."
                ) from None
            return getattr(plain, name)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """As the plain layer does, with weights at the displacement."""
        dz = self.displacement
        if dz.ndim == 1:
            weights = {name: weight.at(dz) for name, weight in self.weights().items()}
            return functional_call(self.plain, weights, inputs, options, tie_weights=False)
        return self.per_example(dz, *inputs, **options)

    def per_example(self, dz: Tensor, *inputs: Any, **options: Any) -> Any:
        """The same with ``dz (B, D)``, a row per example; arguments have torch's own names."""
        raise NotImplementedError

    def weights(self) -> dict[str, Gated]:
        """The weights that respond, by name."""
        return {n: weight for n, weight in self.gated.items() if isinstance(weight, Gated)}

    def check_rows(self, x: Tensor, dim: int = 0) -> None:
        """Refuses an input in which a row of λ cannot be told its example."""
        check_rows(self.path, x, len(self.displacement), dim)


class RowsError(ValueError):
    """An input has no row for each example."""


def check_rows(path: str, x: Tensor, n_examples: int, dim: int = 0) -> None:
    """Refuses an input that does not have the examples along ``dim``, by a :class:`RowsError`."""
    if x.ndim <= dim or x.shape[dim] != n_examples:
        raise RowsError(
            f"{path} got an input of shape {tuple(x.shape)}, but the batch has {n_examples} "
            f"examples, each with its own λ: dimension {dim} must count them. Keep the batch "
            "dimension, for example (B, T, F) instead of (B * T, F), all through the model, and "
            "flatten only in the loss. A layer whose input holds no examples, but positions, say, "
            f"cannot respond: name it in elementary=[{path!r}]."
        )


def along(values: Tensor, like: Tensor, dim: int) -> Tensor:
    """``(B, n)`` as a factor of ``like (B, ..., n, ...)``, whose units lie along ``dim``."""
    shape = [1] * like.ndim
    shape[0], shape[dim] = values.shape
    return values.view(shape)


class _Product(Layer):
    """A layer that is a product with its weight, plus its bias: W x + b."""

    unit = -1  # the dimension of the output that counts units

    def per_example(self, dz: Tensor, input: Tensor) -> Tensor:
        """W_elem x + b_elem + (V dz) ∘ (W_resp x) + (C dz) ∘ b_resp."""
        self.check_rows(input)
        y: Tensor = self.plain(input)
        gated = self.weights()
        if "weight" in gated:
            y = y + self.respond(dz, input, gated["weight"])
        if "bias" in gated:
            bias = gated["bias"]
            y = y + along(bias.gates(dz) * bias.response, y, self.unit)
        return y

    def respond(self, dz: Tensor, x: Tensor, weight: Gated) -> Tensor:
        """(V dz) ∘ (W_resp x)."""
        y = self.product(x, weight.response)
        return along(weight.gates(dz), y, self.unit) * y

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer without bias, with another weight."""
        raise NotImplementedError


class Linear(_Product):
    """``(B, ..., in)`` → ``(B, ..., out)``."""

    def respond(self, dz: Tensor, x: Tensor, weight: Gated) -> Tensor:
        """Its gates scale inputs, not outputs, where it is tied to an embedding."""
        if weight.axis == 0:
            return super().respond(dz, x, weight)
        return self.product(along(weight.gates(dz), x, -1) * x, weight.response)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """W x."""
        return F.linear(x, weight)


class Convolution(_Product):
    """``(B, in, ...)`` → ``(B, out, ...)``; a gate per output channel."""

    unit = 1

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """W * x."""
        functions = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
        names = ("stride", "padding", "dilation", "groups")
        options = {name: getattr(self.plain, name) for name in names}
        return functions[weight.ndim - 2](x, weight, None, **options)


class Embedding(_Product):
    """``(B, ...)`` integers → ``(B, ..., dimensions)``; a gate per dimension."""

    def __init__(self, path: str, plain: nn.Module, gated: Mapping[str, Gated]) -> None:
        super().__init__(path, plain, gated)
        assert isinstance(plain, nn.Embedding)
        if plain.padding_idx is not None:  # that row never learns, and does not respond
            with torch.no_grad():
                gated["weight"].response[plain.padding_idx] = 0

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Rows of the table."""
        names = ("padding_idx", "scale_grad_by_freq")
        return F.embedding(x, weight, **{name: getattr(self.plain, name) for name in names})


OF_THE_LAST = (nn.LayerNorm, nn.RMSNorm)  # dimensions, which their weights count


class Norm(Layer):
    """A normalisation, whose scale and shift respond.

    Statistics over the batch are those of all its examples, and so of the density that their λ
    come from. Running ones follow that, and are what an evaluation has, as in ordinary training.
    """

    def per_example(self, dz: Tensor, input: Tensor) -> Tensor:
        """What is normalised, times w(z_i), plus b(z_i)."""
        self.check_rows(input)
        gated, own = self.weights(), dict(self.plain.named_parameters(recurse=False))
        neutral = {n: torch.full_like(p, n == "weight") for n, p in own.items()}
        y: Tensor = functional_call(self.plain, neutral, (input,))
        last = isinstance(self.plain, OF_THE_LAST)  # else units are channels, dimension 1
        # A weight that is frozen stays what it is, for all rows.
        rows = {n: gated[n].at(dz) if n in gated else p[None] for n, p in own.items()}
        if "weight" in rows:
            y = y * self._rows(rows["weight"], y, last)
        if "bias" in rows:
            y = y + self._rows(rows["bias"], y, last)
        return y

    def _rows(self, values: Tensor, like: Tensor, last: bool) -> Tensor:
        units = values.shape[1:]
        free = [1] * (like.ndim - 1 - len(units))
        return values.reshape(len(values), *((*free, *units) if last else (*units, *free)))


def squared_norm(module: nn.Module) -> Tensor:
    """‖w‖² of all weights of a module, for penalties in a training loss.

    Inside a training loss of a structured response every example has weights of its own, and so
    has the norm: ``(B,)``, exact, at the cost of one product ``(B, D) (D, units)`` per weight. In
    any other module it is a scalar, the sum over ``module.parameters()`` of their squares.

    Raises:
        ValueError: If the module has no weights.
    """
    responding = [one for one in module.modules() if isinstance(one, Layer)]
    displaced = {w: one.displacement for one in responding for w in one.weights().values()}
    known = {part for weight in displaced for part in weight.parameters()}
    norms = [weight.squared_norm(dz) for weight, dz in displaced.items()]
    norms += [p.square().sum() for p in module.parameters() if p not in known]
    if not norms:
        raise ValueError(f"{type(module).__name__} has no weights, so it has no norm.")
    total = norms[0]
    for norm in norms[1:]:
        total = total + norm
    return total
