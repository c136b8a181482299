"""Dropout with a rate for every example of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import nn

from optuna_hypernet.response.layers import InPlaceOf
from optuna_hypernet.response.layers import check_rows


class TunedDropout(InPlaceOf):
    """A dropout layer of the user's with a rate per example.

    Attributes:
        rates: ``(B,)``, to be set before it is called in training mode.
        used: Whether it ever drew a mask.
    """

    rates: Tensor

    def __init__(self, path: str, plain: nn.Module) -> None:
        super().__init__(path, plain)
        self.used = False

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "p":
                raise AttributeError(
                    f"{self.path}.p is not one number while it is tuned: every example has its "
                    f"own, which train_loss has as hp['{self.path}.p']."
                ) from None
            return getattr(super().__getattr__("plain"), name)

    def forward(self, input: Tensor) -> Tensor:
        """``(B, ...)``; a mask per number, or per channel as the layer's kind has it."""
        x = input  # its name in torch's own, for those who call it by that
        if not self.training:
            return x
        self.used = True
        check_rows(self.path, x, len(self.rates))
        kept = 1 - self.rates.to(x).view(-1, *[1] * (x.ndim - 1))
        channels = isinstance(self.plain, nn.Dropout1d | nn.Dropout2d | nn.Dropout3d)
        shape = (*x.shape[:2], *[1] * (x.ndim - 2)) if channels else x.shape
        mask = torch.rand(shape, dtype=x.dtype, device=x.device) < kept
        if isinstance(self.plain, nn.AlphaDropout):
            return _alpha(x, mask, kept)
        return x * mask / kept


_SATURATED = -1.7580993408473766  # SELU at minus infinity


def _alpha(x: Tensor, mask: Tensor, kept: Tensor) -> Tensor:
    """Mean 0 and variance 1 stay: Klambauer et al. (2017), "Self-Normalizing Networks"."""
    scale = (kept + _SATURATED**2 * kept * (1 - kept)).rsqrt()
    return scale * (torch.where(mask, x, _SATURATED) - (1 - kept) * _SATURATED)
