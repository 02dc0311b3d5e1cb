"""Sizes of gradients, from which settings take their unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

_SAMPLE = 200


def mean_square(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the mean square of an entry of ∇ log(p/(1 − p)), p the label's probability."""

    def margin(params: dict[str, Tensor], row: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(model, params, (row[None],))[0]
        own = torch.arange(len(logits), device=logits.device) == label
        others = torch.where(own, -torch.inf, logits)
        return torch.where(own, logits, 0.0).sum() - others.logsumexp(0)

    params = {name: value.detach() for name, value in model.named_parameters()}
    rows = vmap(grad(margin), (None, 0, 0))(params, x[:_SAMPLE], y[:_SAMPLE])
    total = sum(float((value**2).sum()) for value in rows.values())
    return total / (len(x[:_SAMPLE]) * sum(value.numel() for value in params.values()))


def mean_eigenvalue(model: nn.Module, x: Tensor, classes: int) -> float:
    """Return the mean eigenvalue of the Gauss–Newton matrix of the cross-entropy, tr/p."""

    def loss(params: dict[str, Tensor], row: Tensor, label: int) -> Tensor:
        logits: Tensor = functional_call(model, params, (row[None],))[0]
        return -logits.log_softmax(0)[label]

    params = {name: value.detach() for name, value in model.named_parameters()}
    sample = x[:_SAMPLE]
    with torch.no_grad():
        p = model(sample).softmax(1)
    trace = 0.0
    for label in range(classes):  # E over labels the model would draw
        rows = vmap(grad(loss), (None, 0, None))(params, sample, label)
        squares = sum((value**2).flatten(1).sum(1) for value in rows.values())
        trace += float((p[:, label] * squares).mean())
    return trace / sum(value.numel() for value in params.values())
