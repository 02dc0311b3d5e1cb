"""Attention of torch by the calls of layers, so that the gradients of its weights factor."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention, softmax


@final
class InProjection(nn.Linear):
    """The packed projection of `nn.MultiheadAttention` as a layer, on the same parameters."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = attention.in_proj_weight, attention.in_proj_bias

    def _save_to_state_dict(self, *arguments: Any, **named: Any) -> None:
        """Save nothing: the attention has the parameters."""

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        """Load nothing."""


@final
class MultiheadAttention(nn.MultiheadAttention):
    """Self-attention by two linear layers; what else there is, as its base computes it."""

    in_projection: InProjection

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
        """Return what the base returns."""
        unmasked = is_causal and attn_mask is None
        if query is not key or key is not value or query.ndim != 3 or unmasked:
            return super().forward(
                query,
                key,
                value,
                key_padding_mask,
                need_weights,
                attn_mask,
                average_attn_weights,
                is_causal,
            )
        x = query if self.batch_first else query.transpose(0, 1)
        b, t, _ = x.shape
        packed = self.in_projection(x).view(b, t, 3, self.num_heads, self.head_dim)
        q, k, v = packed.permute(2, 0, 3, 1, 4)
        bias = _added(attn_mask, q)
        bias = bias.view(b, self.num_heads, t, t) if bias is not None and bias.ndim == 3 else bias
        if (padding := _added(key_padding_mask, q)) is not None:
            padding = padding.view(b, 1, 1, t)
            bias = padding if bias is None else bias + padding
        rate = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            products = q @ k.mT / math.sqrt(self.head_dim)
            weights = dropout(softmax(products if bias is None else products + bias, -1), rate)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = scaled_dot_product_attention(q, k, v, bias, rate)
        found = self.out_proj(mixed.transpose(1, 2).reshape(b, t, -1))
        return found if self.batch_first else found.transpose(0, 1), weights


def by_layers(model: nn.Module) -> None:
    """Have the self-attention within a module call layers.

    Args:
        model: A copy of the user's module, which is changed.
    """
    for module in [m for m in model.modules() if type(m) is nn.MultiheadAttention]:
        plain = module.bias_k is None and module.bias_v is None and not module.add_zero_attn
        if plain and module.in_proj_weight is not None:
            module.__class__ = MultiheadAttention
            module.in_projection = InProjection(module)


def _added(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """Return a mask as what is added to products: −∞ where it is true."""
    if mask is None or mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
