"""A structured response that learns by two losses, one of them of the linearised network.

After Bae & Grosse (2020), "Delta-STN: Efficient Bilevel Optimization for Neural Networks using
Structured Response Jacobians".
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch import nn
from torch.autograd import forward_ad

from optuna_hypernet.randomness import private_randomness
from optuna_hypernet.response.batch import cloned
from optuna_hypernet.response.batch import n_rows
from optuna_hypernet.response.losses import slopes
from optuna_hypernet.response.structured import Network
from optuna_hypernet.response.structured import Structured


class Delta(Structured):
    """The map of :class:`~.structured.Structured`, whose two groups of φ have a loss each.

    * Elementary weights w_c, those at the centre c: the training loss at c itself, L_T(w_c, c).
      So nothing that the response cannot follow moves them away from the best response there.
    * Response weights: the training loss at the coordinates drawn, w_c held fixed, of the network
      linearised in its weights, f(x; w_c) + ∂f/∂w (w(z) - w_c). So they learn a slope alone, and
      no curvature of f bends it: -G⁻¹ ∂²L_T/∂w∂λ for a small spread, where the Gauss-Newton
      matrix G stands for the Hessian.

    The linearised network answers where ``train_loss`` calls the model itself. A part of the model
    that is called alone, and ``squared_norm``, have the weights w(z). Buffers, such as running
    statistics, see both passes. A train step costs four to six plain ones, an LSTM's more.
    """

    def train_losses(self, z: Tensor, hp: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Training losses at the centre, ``(B,)`` or their mean ``(1,)``.

        Their gradient in response weights is that of the linearised network's losses at
        ``z (B, D)``.
        """
        network = self.network
        at_centre = self._coordinates.natural(network.centre.expand_as(z))
        elementary, *response = self.groups
        with _frozen(chain(*response)):
            losses = self._losses(network.centre, at_centre, cloned(batch))
        with _frozen(elementary), _linearised(network):
            linear = self._losses(z, hp, batch)
        return losses + (linear - linear.detach())

    def probe(self, hps: Sequence[Mapping[str, Tensor]], batch: Any, seed: int) -> None:
        """Tries the linearised network, too.

        Raises:
            NotImplementedError: If it has no gradient, for want of a derivative.
        """
        super().probe(hps, batch, seed)
        z = self.network.centre.expand(n_rows(batch), -1) + 1
        try:
            with private_randomness(seed, z.device):
                losses = self.train_losses(z, hps[-1], cloned(batch))
            slopes("train_loss", losses.mean(), self.telling)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise NotImplementedError(
                "The model cannot be linearised by forward mode, with the error above. If it "
                "names a layer listed in elementary=[...], let that layer respond. A softmax or "
                'attention inside of the model has none: use response="structured" for this '
                f"model. ({error})"
            ) from error


@contextmanager
def _frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Context in which these parameters are constants."""
    parameters = list(parameters)
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def _linearised(network: Network) -> Iterator[None]:
    """Context in which the model, if called, is expanded in the displacement to first order.

    By forward mode: the displacement is a dual number, 0 with the tangent z - c. An attribute of
    the instance answers in place of the class, so that the loss sees the user's class as ever.
    """
    model, forward = network.model, network.model.forward
    own = vars(model).get("forward")  # a user's model may have one, too

    def expanded(*inputs: Any, **options: Any) -> Any:
        dz = network.displacement
        with forward_ad.dual_level():
            dual: Tensor = forward_ad.make_dual(torch.zeros_like(dz), dz)  # type: ignore[no-untyped-call]
            with network.displaced(dual):
                return _sums(forward(*inputs, **options))

    vars(model)["forward"] = expanded
    try:
        yield
    finally:
        del vars(model)["forward"]
        if own is not None:
            vars(model)["forward"] = own


def _sums(outputs: Any) -> Any:
    """Dual numbers to values plus tangents, in tuples, lists and dicts, too."""
    if isinstance(outputs, Tensor):
        value, tangent = forward_ad.unpack_dual(outputs)  # type: ignore[no-untyped-call]
        return value if tangent is None else value + tangent
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):  # a named tuple
        return type(outputs)(*map(_sums, outputs))
    if isinstance(outputs, tuple | list):
        return type(outputs)(map(_sums, outputs))
    if isinstance(outputs, dict):
        values = copy.copy(outputs)  # of the same class
        for key, one in outputs.items():
            values[key] = _sums(one)
        return values
    if outputs is None:
        return None
    raise ValueError(
        f"The model returned a {type(outputs).__name__}, but to be linearised it must return "
        'tensors, or tuples, lists or dicts of them. Use response="structured" for this model.'
    )
