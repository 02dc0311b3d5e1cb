"""Which removals can be retrained: such that keep every class, of models that take seconds."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from whence.objective.targets import target_classes
from whence.objective.trained import Trained

_NUMBERS = 5e6  # n · p up to which retraining a dozen times takes seconds


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
