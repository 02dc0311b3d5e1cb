"""Which removals can be retrained, and how few retrainings find the smallest set of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from whence.objective.targets import target_classes
from whence.objective.trained import Trained

_NUMBERS = 5e6  # n · p up to which retraining a dozen times takes seconds
_GROWTH = 1.25  # from a number at which a condition does not hold to the next one tried


def keeping_classes(trained: Trained, ranking: NDArray[np.intp]) -> int:
    """Return how many examples of a ranking can be removed before a class is gone.

    Args:
        trained: The model.
        ranking: Positions, the first to be removed first.
    """
    if not trained.classes:
        return len(ranking)
    classes = target_classes(trained.train.targets)
    kept = torch.bincount(classes).tolist()
    for place, label in enumerate(classes[torch.from_numpy(ranking.copy())].tolist()):
        kept[label] -= 1
        if not kept[label]:
            return place
    return len(ranking)


def is_cheap(trained: Trained) -> bool:
    """Return whether a dozen retrainings of a model take seconds.

    Args:
        trained: The model.
    """
    if not trained.convex:
        return False
    params = getattr(trained, "params", None)
    return params is not None and len(trained.train) * len(params) <= _NUMBERS


def fewest(low: int, guess: int, last: int, holds: Callable[[int], bool]) -> int:
    """Return the smallest number at which a condition holds that holds for all larger ones.

    Args:
        low: A number at which it does not hold.
        guess: The number to try first, > low.
        last: The largest number; returned, too, where the condition holds at none.
        holds: The condition; asked as rarely as that allows, for it costs a retraining.
    """
    high = guess
    while high < last and not holds(high):
        low, high = high, min(last, max(high + 1, int(high * _GROWTH)))
    while high - low > 1 and holds(high):
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
