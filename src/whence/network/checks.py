"""What must hold of a model before anything is differentiated: the same answer, asked twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves, tree_map

from whence.errors import InvalidInput, NotDeterministic, UnsupportedModel

_ROUNDING = 100  # units of the last place by which two equal calls may differ


def refuse_random_modules(model: nn.Module) -> None:
    """Raise for modules that are random, or mix the examples of a batch, in training mode.

    Args:
        model: Any module.

    Raises:
        NotDeterministic: For dropout in training mode.
        UnsupportedModel: For batch norm in training mode.
    """
    for name, module in model.named_modules():
        if not module.training:
            continue
        label = f"{type(module).__name__} {name!r}"
        if isinstance(module, _BatchNorm):
            raise UnsupportedModel(
                f"Expected a model whose outputs depend on one example each. Got {label} in "
                "training mode, which normalizes over the batch. Call .eval() on it (its running "
                "statistics are then constants), or use GroupNorm or LayerNorm."
            )
        if isinstance(module, _DropoutNd) and module.p > 0:
            raise NotDeterministic(
                f"Expected a deterministic model. Got {label} in training mode with p = "
                f"{module.p}. Set p = 0, or call .eval() on it."
            )


def check_repeatable(outputs: Callable[[Any], Tensor], inputs: Any) -> Tensor:
    """Raise if outputs change from call to call, or with the company in the batch.

    Args:
        outputs: From inputs to outputs, [b, ...].
        inputs: A few examples: a tensor, or tensors in any nesting, [b, ...] each.

    Returns:
        The outputs, [b, ...].

    Raises:
        InvalidInput: If the model cannot take the inputs, or the outputs are not one row each.
        NotDeterministic: If they differ when asked twice.
        UnsupportedModel: If an example's outputs depend on the rest of its batch.
    """
    with torch.no_grad():
        try:
            first = outputs(inputs)
        except (RuntimeError, TypeError) as error:
            shapes = ", ".join(f"{p.dtype} {list(p.shape)}" for p in tree_leaves(inputs))
            raise InvalidInput(
                f"Expected inputs that the model can take. Got {shapes}, of which it says: "
                f"{error}. Call the model on a few of them yourself first."
            ) from error
        again = outputs(inputs)
        alone = outputs(tree_map(lambda part: part[:1], inputs))
    if first.ndim < 2:
        raise InvalidInput(
            f"Expected outputs of shape [b, c]. Got {list(first.shape)}. "
            "Return one row per example, with c = 1 for a single output."
        )
    scale = float(first.abs().max())
    # Kernels may round otherwise from call to call, by how memory happens to be aligned.
    rounding = _ROUNDING * torch.finfo(first.dtype).eps
    if not torch.allclose(first, again, rtol=rounding, atol=rounding * scale):
        raise NotDeterministic(
            "Expected a model that gives the same outputs when asked twice. Got two different "
            "ones. Remove its randomness (noise layers, sampled masks), or call .eval()."
        )
    if not torch.allclose(first[:1], alone, rtol=1e-3, atol=1e-3 * scale):
        raise UnsupportedModel(
            "Expected outputs that depend on one example each. Got others when an example was "
            "alone in its batch. Replace what normalizes or attends over the batch."
        )
    return first


def check_finite(losses: Tensor, ids: NDArray[Any]) -> None:
    """Raise unless every training loss is finite, and name the first that is not.

    Args:
        losses: ℓ of some training examples, [b].
        ids: Their names, [b].

    Raises:
        InvalidInput: If a loss is infinite or NaN.
    """
    bad = ~torch.isfinite(losses)
    if bad.any():
        at = int(bad.nonzero()[0])
        raise InvalidInput(
            f"Expected finite losses. Got {float(losses[at])} on training example {ids[at]}. "
            "Check its inputs and target, or the model."
        )
