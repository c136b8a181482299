"""Attention that responds: its projections do, and between them it is torch's own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from optuna_hypernet.response.layers import Gated
from optuna_hypernet.response.layers import Layer
from optuna_hypernet.response.layers import along


class Attention(Layer):
    """``(B, T, E)`` queries, keys and values → outputs, and their weights or None.

    Each unit of queries, keys and values has a gate. The projection of outputs is a layer of its
    own, whose sibling is inside of the plain one.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As ``torch.nn.MultiheadAttention``, whose arguments these are.

        Torch's function is given what is projected already, and the identity to project it by.
        """
        plain = self.plain
        assert isinstance(plain, nn.MultiheadAttention)
        eye = torch.eye(plain.embed_dim, dtype=query.dtype, device=query.device)
        y, weights = F.multi_head_attention_forward(
            self._projected(query, 0).transpose(0, -2),  # (T, B, E)
            self._projected(key, 1).transpose(0, -2),
            self._projected(value, 2).transpose(0, -2),
            plain.embed_dim,
            plain.num_heads,
            in_proj_weight=eye.repeat(3, 1),
            in_proj_bias=None,
            bias_k=None,
            bias_v=None,
            add_zero_attn=plain.add_zero_attn,
            dropout_p=plain.dropout,
            out_proj_weight=eye,
            out_proj_bias=None,
            training=plain.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        projected: Tensor = plain.out_proj(y.transpose(0, -2))
        return projected, weights

    def _projected(self, x: Tensor, part: int) -> Tensor:
        """W x + b, of the first, second or third third of W and b."""
        dz, size = self.displacement, x.shape[-1]
        units = slice(part * size, (part + 1) * size)
        if dz.ndim == 2:
            self.check_rows(x)

        def gates(weight: Gated) -> Tensor:
            values = weight.gates(dz)[..., units]
            return along(values, x, -1) if dz.ndim == 2 else values

        own, gated = dict(self.plain.named_parameters(recurse=False)), self.weights()
        y = F.linear(x, own["in_proj_weight"][units])
        if "in_proj_weight" in gated:
            weight = gated["in_proj_weight"]
            y = y + gates(weight) * F.linear(x, weight.response[units])
        if "in_proj_bias" in own:
            y = y + own["in_proj_bias"][units]
        if "in_proj_bias" in gated:
            bias = gated["in_proj_bias"]
            y = y + gates(bias) * bias.response[units]
        return y
