"""Attention of torch as calls of layers: the same outputs, and gradients that factor."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import whence
from whence.network.attention import by_layers

_PADDED = torch.arange(5) >= torch.tensor([5, 3, 4])[:, None]
_CAUSAL = torch.ones(5, 5, dtype=torch.bool).triu(1)
CALLS: dict[str, dict[str, Any]] = {
    "weights": {},
    "weights of each head": {"average_attn_weights": False},
    "no weights": {"need_weights": False},
    "padded": {"key_padding_mask": _PADDED},
    "padded, no weights": {"key_padding_mask": _PADDED, "need_weights": False},
    "causal": {"attn_mask": _CAUSAL, "is_causal": True, "need_weights": False},
    "causal and padded": {"attn_mask": _CAUSAL, "key_padding_mask": _PADDED},
    "a bias of each head": {"attn_mask": torch.randn(6, 5, 5, dtype=torch.float64)},
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("batch_first", [True, False])
def test_outputs_and_weights_are_those_of_torch(call: str, batch_first: bool) -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(4, 2, batch_first=batch_first, dtype=torch.float64)
    ours = copy.deepcopy(theirs)
    by_layers(ours)
    x = torch.randn((3, 5, 4) if batch_first else (5, 3, 4), dtype=torch.float64)
    other = torch.randn_like(x)
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    for query in (x, other):  # attention to others is computed as before
        found = (attend(query, x, x, **CALLS[call]) for attend in (ours, theirs))
        for mine, own in zip(*found, strict=True):
            assert (mine is None) == (own is None)
            assert mine is None or torch.allclose(mine, own, rtol=1e-12, atol=1e-14)


class Sequences(nn.Module):
    """Layers of torch's own encoder, and a head on the mean."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head, self.batch_first = nn.Linear(4, 3), batch_first

    def forward(self, x: Tensor) -> Tensor:
        found = self.encoder(x if self.batch_first else x.transpose(0, 1))
        logits: Tensor = self.head(found.mean(1 if self.batch_first else 0))
        return logits


@pytest.mark.parametrize("batch_first", [True, False])
def test_its_gradients_factor(batch_first: bool) -> None:
    """Where positions come first, the other layers of the encoder have no rule."""
    torch.manual_seed(0)
    model = Sequences(batch_first).double().eval()
    x, y = torch.randn(6, 5, 4, dtype=torch.float64), torch.arange(6) % 3
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    packed = {name for name in objective.shapes if "self_attn" in name}
    assert len(packed) == 8
    assert packed <= objective.factored
    assert batch_first == ("all with factored per-example gradients" in str(objective))
    found = objective.gradient_columns(objective.train, objective.loss)
    for b, column in enumerate(found.T):
        model.zero_grad()
        nn.functional.cross_entropy(model(x[b : b + 1]), y[b : b + 1]).backward()
        exact = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        torch.testing.assert_close(column, exact, rtol=1e-10, atol=1e-12)


def test_attention_to_others_is_differentiated() -> None:
    """Its share is said once, by the name that torch has for it."""
    torch.manual_seed(0)

    class Across(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self.attend(x[:, :2], x, x)[0].mean(1))
            return logits

    x, y = torch.randn(6, 5, 4), torch.arange(6) % 3
    objective = whence.from_torch(Across(), whence.CrossEntropy(), (x, y))
    words = str(objective)
    assert "MultiheadAttention (63.2 %, such as attend.in_proj_weight)" in words
    assert "InProjection" not in words
