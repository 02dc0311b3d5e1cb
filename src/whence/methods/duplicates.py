"""Training examples that nearly repeat each other: one alone does little while the others stay."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from whence.methods.method import Positions
from whence.methods.similarity import coordinates
from whence.objective.trained import Trained

_NEAR = 0.25  # of the median distance of examples to their nearest neighbors
_TARGET = 0.1  # of the spread of a number that is predicted: what counts as the same target
_SAMPLE = 256  # examples whose nearest neighbors say what is near
_EQUAL = 1e-6  # rounding of distances between standardized points


def near_duplicates(trained: Trained, where: Positions) -> list[NDArray[np.intp]]:
    """Return the groups of training examples that nearly repeat some examples.

    Near: closer than a quarter of the distance at which half of the examples have their nearest
    neighbor, each column standardized, and with the same target. Copies are near whatever that is.

    Args:
        trained: The model.
        where: Positions of the m examples.

    Returns:
        Positions in rising order, two or more in a group, groups disjoint; none where inputs are
        not points.

    Cost:
        Distances of m + 256 examples to all n.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> trained = whence.from_sklearn(LogisticRegression(max_iter=1000).fit(X, y), X, y)
        >>> [group.tolist() for group in near_duplicates(trained, np.array([0, 142]))]
        [[101, 142]]
    """
    train = trained.train
    if train.inputs is None or len(train) < 3 or not len(where):
        return []
    found = coordinates(train.inputs, train.subset(where).inputs)
    if found is None:
        return []
    points, own = found
    generator = np.random.default_rng(0)
    sample = generator.choice(len(train), min(_SAMPLE, len(train)), replace=False)
    apart = torch.cdist(points[torch.from_numpy(sample)], points)
    apart[torch.arange(len(sample)), torch.from_numpy(sample)] = torch.inf
    limit = _NEAR * float(apart.min(1).values.median())
    rounding = _EQUAL * float(points.square().sum(1).mean().sqrt())
    near = torch.cdist(own, points) <= max(limit, rounding)
    near &= _same_target(train.targets.detach().cpu(), where)
    rows, columns = (part.numpy() for part in near.nonzero(as_tuple=True))
    graph = sparse.coo_array(
        (np.ones(len(rows)), (where[rows], columns)), shape=(len(train), len(train))
    )
    _, labels = connected_components(graph, directed=False)
    groups = [np.flatnonzero(labels == label) for label in dict.fromkeys(labels[where].tolist())]
    return [group.astype(np.intp) for group in groups if len(group) > 1]


def _same_target(targets: Tensor, where: Positions) -> Tensor:
    """Return which examples have the target of each of some, [m, n]."""
    flat = targets.reshape(len(targets), -1)
    own = flat[torch.from_numpy(where)].unsqueeze(1)
    if not targets.is_floating_point() or len(np.unique(flat.numpy(), axis=0)) <= 2:
        return (own == flat).all(2)
    return ((own - flat).abs() <= _TARGET * flat.std(0)).all(2)
