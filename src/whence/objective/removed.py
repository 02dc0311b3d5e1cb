"""Example weights without some examples, as a refit is asked for them.

An example that is gone has weight −0.0. All arithmetic takes it for 0; only its sign tells it from
an example whose weight was 0 all along, which libraries still count, as in a mean or a variance.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def weights_without(weights: Tensor, where: NDArray[np.intp]) -> Tensor:
    """Return the weights of a fit without some examples, [n].

    Args:
        weights: wᵢ >= 0 of all, [n].
        where: Positions of those that go.
    """
    rest = weights.clone()
    rest[torch.as_tensor(where.copy())] = -0.0  # a copy: the order may be turned round
    return rest


def weights_without_each(weights: Tensor, where: NDArray[np.intp]) -> Tensor:
    """Return the weights of k fits, each without one example, [k, n].

    Args:
        weights: wᵢ >= 0 of all, [n].
        where: Positions of those that go, [k].
    """
    rest = weights.repeat(len(where), 1)
    rest[torch.arange(len(where)), torch.as_tensor(where.copy())] = -0.0
    return rest


def weights_in_parts(weights: Tensor, kept: Tensor) -> Tensor:
    """Return the weights of k fits, each to a part of the examples, [k, n].

    Args:
        weights: wᵢ >= 0 of all, [n].
        kept: By what each weight is multiplied, 0 for an example that is not in the part, [k, n].
    """
    shares = kept.to(weights)
    return torch.where(shares > 0, weights * shares, -0.0)


def unchanged(weights: Tensor, own: Tensor) -> bool:
    """Return whether a fit with some weights is the fit that there is: no example is gone.

    Args:
        weights: Of the fit, [n].
        own: Of the fit that there is, [n].
    """
    return torch.equal(weights, own) and not bool(gone(weights).any())


def gone(weights: Tensor) -> NDArray[np.bool_]:
    """Return which examples are gone, [n].

    Args:
        weights: As the functions above return them.
    """
    return np.asarray(weights.signbit().cpu().numpy())
