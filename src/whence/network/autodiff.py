"""Calls of a module as a function of some of its parameters, and derivatives of its outputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from whence.errors import UnsupportedModel


def call(model: nn.Module, parameters: Mapping[str, Tensor], inputs: Any) -> Tensor:
    """Return a module's outputs: model(x), model(*x) for a tuple, model(**x) for a dict.

    Args:
        model: The module.
        parameters: What replaces its own parameters, by name.
        inputs: x of a batch.

    Returns:
        The outputs, [b, ...].

    Raises:
        UnsupportedModel: If the module does not return one tensor.
    """
    if isinstance(inputs, Mapping):
        value = functional_call(model, dict(parameters), (), dict(inputs))
    else:
        arguments = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
        value = functional_call(model, dict(parameters), arguments)
    if not isinstance(value, Tensor):
        raise UnsupportedModel(
            f"Expected a model that returns one tensor. Got {type(value).__name__}. "
            "Wrap it in a module that returns the logits."
        )
    return value


@contextmanager
def unfused_recurrence() -> Iterator[None]:
    """Compute recurrent layers by plain operations: the fused ones differentiate only once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration")
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def along(outputs: Tensor, cotangent: Tensor) -> Tensor:
    """Return uᵀ f, whose gradient is Jᵀ u.

    torch asked for Jᵀ u outright loads its symbolic algebra first, a quarter of a second.

    Args:
        outputs: f, any shape.
        cotangent: u, the same shape.

    Returns:
        One number.
    """
    return torch.dot(outputs.reshape(-1), cotangent.reshape(-1))


def backward(outputs: Tensor, leaf: Tensor, cotangent: Tensor) -> Tensor:
    """Return Jᵀ u, [p]; the graph is kept for the next column."""
    (product,) = torch.autograd.grad(
        along(outputs, cotangent), leaf, retain_graph=True, materialize_grads=True
    )
    return product


def forward(outputs: Tensor, leaf: Tensor, v: Tensor) -> list[Tensor]:
    """Return J v for each column of V, in the shape of the outputs."""
    seed = torch.zeros_like(outputs, requires_grad=True)
    (pulled,) = torch.autograd.grad(outputs, leaf, seed, create_graph=True)
    return [
        torch.autograd.grad(pulled, seed, column, retain_graph=True)[0] for column in v.unbind(1)
    ]
