"""Recurrent layers that respond: loops over time.

Each of the gates of a cell has, for each hidden unit, a gate of ours.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from optuna_hypernet.response.layers import Layer


class Recurrent(Layer):
    """``(B, T, in)``, or ``(T, B, in)``, and optionally states → outputs and last states.

    Attributes:
        n_states: How many tensors ``(B, H)`` a state is; the first is the output.
        apart: Whether a cell needs the sum of all that comes from its state for itself.
    """

    n_states: int
    apart: bool

    @abstractmethod
    def cell(
        self, inputs: Tensor, recurrent: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """The next state, from W x + b, U h (+ b, if apart), ``(B, gates H)``, and this one."""

    def outputs(
        self, dz: Tensor, input: Tensor, hx: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Outputs, and the last states ``(layers, B, H)``, as torch has them."""
        plain, sequence = self.plain, input
        assert isinstance(plain, nn.RNNBase)
        if not isinstance(input, Tensor) or input.ndim != 3:
            raise ValueError(
                f"{self.path} got {type(input).__name__} input, but a {type(self).__name__} that "
                "responds to λ takes padded sequences (B, T, F), or (T, B, F) if not batch_first."
            )
        self.check_rows(input, 0 if plain.batch_first else 1)
        if plain.batch_first:
            sequence = sequence.transpose(0, 1)  # (T, B, F)
        zeros = input.new_zeros(plain.num_layers, len(dz), plain.hidden_size)
        first = (zeros,) * self.n_states if hx is None else hx
        last = []
        for layer in range(plain.num_layers):
            if layer:
                sequence = F.dropout(sequence, plain.dropout, plain.training)
            start = tuple(each[layer] for each in first)
            sequence, state = self._layer(dz, sequence, start, layer)
            last.append(state)
        if plain.batch_first:
            sequence = sequence.transpose(0, 1)
        return sequence, tuple(torch.stack(each) for each in zip(*last, strict=True))

    def _layer(
        self, dz: Tensor, x: Tensor, state: tuple[Tensor, ...], layer: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        inputs = self._product(dz, x, f"weight_ih_l{layer}")  # (T, B, gates H)
        inputs = inputs + self._bias(dz, f"bias_ih_l{layer}")
        bias = self._bias(dz, f"bias_hh_l{layer}")
        if not self.apart:
            inputs = inputs + bias  # of all steps at once
        outputs = []
        for step in inputs:
            recurrent = self._product(dz, state[0], f"weight_hh_l{layer}")
            state = self.cell(step, recurrent + bias if self.apart else recurrent, state)
            outputs.append(state[0])
        return torch.stack(outputs), state

    def _product(self, dz: Tensor, x: Tensor, name: str) -> Tensor:
        y = F.linear(x, getattr(self.plain, name))
        if name in self.gated:
            weight = self.weights()[name]
            y = y + weight.gates(dz) * F.linear(x, weight.response)
        return y

    def _bias(self, dz: Tensor, name: str) -> Tensor | float:
        if name in self.gated:
            return self.weights()[name].at(dz)  # (B, gates H)
        value: Tensor | float = getattr(self.plain, name, 0.0)
        return value


class LSTM(Recurrent):
    """As ``torch.nn.LSTM``, equations (1)-(6) of its documentation; a state is (h, c)."""

    n_states, apart = 2, False

    def per_example(
        self, dz: Tensor, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Outputs and (h, c)."""
        return self.outputs(dz, input, hx)

    def cell(
        self, inputs: Tensor, recurrent: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """(h, c) → (h, c)."""
        i, f, g, o = (inputs + recurrent).chunk(4, -1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class GRU(Recurrent):
    """As ``torch.nn.GRU``, equations (1)-(4) of its documentation; a state is h."""

    n_states, apart = 1, True  # its reset gate scales what comes from the state, bias included

    def per_example(
        self, dz: Tensor, input: Tensor, hx: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Outputs and h."""
        outputs, (h,) = self.outputs(dz, input, None if hx is None else (hx,))
        return outputs, h

    def cell(
        self, inputs: Tensor, recurrent: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """(h,) → (h,)."""
        (r, z, n), (of_r, of_z, of_n) = inputs.chunk(3, -1), recurrent.chunk(3, -1)
        update = (z + of_z).sigmoid()
        new = (n + (r + of_r).sigmoid() * of_n).tanh()
        return ((1 - update) * new + update * state[0],)
