"""Which of a user's modules have a sibling that responds, and why others have none."""

from __future__ import annotations

import re

from torch import Tensor
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from optuna_hypernet.response.attention import Attention
from optuna_hypernet.response.layers import OF_THE_LAST
from optuna_hypernet.response.layers import Convolution
from optuna_hypernet.response.layers import Embedding
from optuna_hypernet.response.layers import Layer
from optuna_hypernet.response.layers import Linear
from optuna_hypernet.response.layers import Norm
from optuna_hypernet.response.recurrent import GRU
from optuna_hypernet.response.recurrent import LSTM


LAYERS: dict[type[nn.Module], type[Layer]] = {
    nn.Linear: Linear,
    nn.Conv1d: Convolution,
    nn.Conv2d: Convolution,
    nn.Conv3d: Convolution,
    nn.Embedding: Embedding,
    nn.LayerNorm: Norm,
    nn.RMSNorm: Norm,
    nn.GroupNorm: Norm,
    nn.InstanceNorm1d: Norm,
    nn.InstanceNorm2d: Norm,
    nn.InstanceNorm3d: Norm,
    nn.BatchNorm1d: Norm,
    nn.BatchNorm2d: Norm,
    nn.BatchNorm3d: Norm,
    nn.LSTM: LSTM,
    nn.GRU: GRU,
    nn.MultiheadAttention: Attention,
    NonDynamicallyQuantizableLinear: Linear,  # attention's projection of outputs
}


def axis_of(plain: nn.Module) -> int:
    """Along which axis of its weights a layer's output units lie."""
    return -1 if isinstance(plain, (nn.Embedding, *OF_THE_LAST)) else 0


def bound_of(plain: nn.Module) -> float:
    """1/√(fan in), torch's own bound for a new layer's weights; 1 for a normalisation."""
    if isinstance(plain, nn.RNNBase):
        return float(plain.hidden_size**-0.5)
    if isinstance(plain, nn.MultiheadAttention):
        return float(plain.embed_dim**-0.5)
    if isinstance(plain, nn.Embedding):
        return float(plain.embedding_dim**-0.5)
    weight = plain.weight
    assert isinstance(weight, Tensor)
    return float(weight[0].numel() ** -0.5) if weight.ndim > 1 else 1.0


def refusal(plain: nn.Module) -> str | None:
    """Why a layer cannot respond, or None if it can."""
    kind = type(plain)
    if kind not in LAYERS:
        return f"a {kind.__name__} is none of {', '.join(one.__name__ for one in LAYERS)}"
    if isinstance(plain, nn.RNNBase) and (plain.bidirectional or plain.proj_size):
        return "it is bidirectional or has projections"
    if isinstance(plain, nn.Embedding) and (plain.sparse or plain.max_norm is not None):
        return "it has sparse gradients or max_norm"
    if isinstance(plain, nn.MultiheadAttention) and not _usual(plain):
        return "it is not batch_first, or its keys and values have sizes or biases of their own"
    if getattr(plain, "padding_mode", "zeros") != "zeros":
        return "its padding_mode is not 'zeros'"
    if _tampered(plain):
        return "it has hooks or a forward of its own, which would not see what it returns there"
    named = [name for name, _ in plain.named_parameters(recurse=False)]
    if not all(re.fullmatch(r"(in_proj_)?(weight|bias)(_[ih]h_l\d+)?", name) for name in named):
        return f"its weights {named} are reparametrised"
    return None


def _usual(plain: nn.MultiheadAttention) -> bool:
    return plain.batch_first and plain.in_proj_weight is not None and plain.bias_k is None


def _tampered(plain: nn.Module) -> bool:
    """Whether calling the module does other things than its class does."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return "forward" in vars(plain) or any(getattr(plain, kind) for kind in hooks)


DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


def rate_refusal(plain: nn.Module) -> str | None:
    """Why a dropout layer cannot have a rate per example, or None if it can."""
    if type(plain).forward not in [kind.forward for kind in DROPOUTS]:
        return f"a {type(plain).__name__} has a forward of its own"
    return "it has hooks or a forward of its own" if _tampered(plain) else None
