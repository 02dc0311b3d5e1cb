"""The positive class of queries: their labels, their ranking and their probability."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from whence.errors import InvalidInput, UnsupportedModel
from whence.objective.loss import Loss


def is_positive(targets: Tensor, positive: int | None) -> Tensor:
    """Return which targets are of the positive class, [q].

    Args:
        targets: y, [q].
        positive: The position of the positive class, or `None`.

    Raises:
        InvalidInput: If there are more than two classes, and none is named.
    """
    flat = targets if targets.ndim == 1 else targets[:, 0]
    if positive is not None:
        return flat == positive
    if len(np.unique(flat.detach().cpu().numpy())) > 2:
        raise InvalidInput(
            "Expected targets of two classes. Got more. Name the positive one by positive=, its "
            "position among objective.classes."
        )
    classes = bool(((flat == 0) | (flat == 1)).all())  # of which only one may be there
    return flat == (1 if classes else flat.max())


def scores_of(outputs: Tensor, positive: int | None) -> Tensor:
    """Return what ranks queries: one output, or the log odds of the positive class, [q].

    Args:
        outputs: f, [q, c].
        positive: The position of the positive class, or `None`.
    """
    _check(positive, max(2, outputs.shape[1]))
    if outputs.shape[1] == 1:
        return outputs[:, 0] if positive in (None, 1) else -outputs[:, 0]
    if positive is None and outputs.shape[1] > 2:
        raise InvalidInput(
            f"Expected positive=, the position of the positive class. Got {outputs.shape[1]} "
            "classes and no name."
        )
    at = 1 if positive is None else positive
    others = [c for c in range(outputs.shape[1]) if c != at]
    return outputs[:, at] - outputs[:, others].logsumexp(1)


def probability(outputs: Tensor, loss: Loss, positive: int | None) -> Tensor:
    """Return the probability of the positive class, or what a regression predicts, [q].

    Args:
        outputs: f, [q, c].
        loss: The loss of the model.
        positive: The position of the positive class, or `None`.
    """
    p = loss.probabilities(outputs)
    if p is not None:
        _check(positive, p.shape[1])
        if positive is None and p.shape[1] > 2:
            raise InvalidInput(
                f"Expected positive=, the position of the positive class. Got {p.shape[1]} "
                "classes and no name."
            )
        return p[:, 1 if positive is None else positive]
    if loss.regresses:
        return loss.prediction(outputs, outputs)
    raise UnsupportedModel(
        "Expected a model with probabilities or predictions for a gap between groups. Got "
        f"{loss!r}. Pass a function of (outputs, targets) that returns one number."
    )


def _check(positive: int | None, c: int) -> None:
    """Raise unless a position is one of c classes, or none is given."""
    if positive is not None and not 0 <= positive < c:
        raise InvalidInput(
            f"Expected positive as a position from 0 to {c - 1} among objective.classes. Got "
            f"{positive}."
        )
