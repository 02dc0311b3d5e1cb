"""Training examples that nearly repeat each other: one alone does little while the others stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.preprocessing import normalize
from torch import Tensor

from whence.methods.similarity import coordinates, counted
from whence.methods.subsets import Positions
from whence.objective.trained import Trained

_NEAR = 0.25  # of the median distance of examples to their nearest neighbors
_TARGET = 0.1  # of the spread of a number that is predicted: what counts as the same target
_SAMPLE = 256  # examples whose nearest neighbors say what is near
_EQUAL = 1e-6  # rounding of distances between standardized points


def near_duplicates(trained: Trained, where: Positions) -> list[NDArray[np.intp]]:
    """Return the groups of training examples that nearly repeat some examples.

    Near: closer than a quarter of the distance at which half of the examples have their nearest
    neighbor, each column standardized, texts by angle, and with the same target. Copies are near
    whatever that is.

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
    generator = np.random.default_rng(0)
    sample = generator.choice(len(train), min(_SAMPLE, len(train)), replace=False)
    found = _distances(train.inputs, train.subset(np.concatenate([where, sample])).inputs)
    if found is None:
        return []
    own, apart = found[: len(where)], found[len(where) :]
    rounding = _EQUAL * float(apart.max())
    apart[torch.arange(len(sample)), torch.from_numpy(sample)] = torch.inf
    limit = _NEAR * float(apart.min(1).values.median())
    near = own <= max(limit, rounding)
    near &= _same_target(train.targets.detach().cpu(), where)
    rows, columns = (part.numpy() for part in near.nonzero(as_tuple=True))
    graph = sparse.coo_array(
        (np.ones(len(rows)), (where[rows], columns)), shape=(len(train), len(train))
    )
    _, labels = connected_components(graph, directed=False)
    groups = [np.flatnonzero(labels == label) for label in dict.fromkeys(labels[where].tolist())]
    return [group.astype(np.intp) for group in groups if len(group) > 1]


def _distances(train: Any, asked: Any) -> Tensor | None:
    """Return how far some examples are from all, [m, n]; `None` where inputs are not points.

    Texts and sparse rows by the angle of their counts: to standardize rare words would make each of
    them as large as all others together.
    """
    train, asked = counted(train, asked, 2**18)
    if sparse.issparse(train):
        products = (normalize(asked) @ normalize(train).T).toarray()
        return torch.from_numpy(np.sqrt((2 - 2 * products).clip(0)))
    found = coordinates(train, asked)
    return None if found is None else torch.cdist(found[1], found[0])


def _same_target(targets: Tensor, where: Positions) -> Tensor:
    """Return which examples have the target of each of some, [m, n]."""
    flat = targets.reshape(len(targets), -1)
    own = flat[torch.from_numpy(where)].unsqueeze(1)
    if not targets.is_floating_point() or len(np.unique(flat.numpy(), axis=0)) <= 2:
        return (own == flat).all(2)
    return ((own - flat).abs() <= _TARGET * flat.std(0)).all(2)
