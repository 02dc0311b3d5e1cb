"""The expected effect of a removal over many random subsets of the data."""

from __future__ import annotations

import numpy as np
import torch

from whence.errors import InvalidInput
from whence.evaluation.expected import ExpectedChanges
from whence.methods.subsets import Positions
from whence.objective.measures import Measure
from whence.objective.removed import weights_in_parts, weights_without_each
from whence.objective.trained import Examples, Trained
from whence.progress import progress

_FRACTION = 0.9  # of the training examples that each part keeps


def expected_removals(
    trained: Trained,
    where: Positions,
    queries: Examples,
    measure: Measure,
    *,
    subsets: int,
) -> ExpectedChanges:
    """Remove each example from random parts of the data, and return the mean change.

    E_S[m(S ∖ i) − m(S)] over random S of nine tenths of the data that hold example i. One fit of a
    tree jumps where a split changes, so that a single removal is mostly noise; its mean is not.

    Args:
        trained: A model that can be fitted again.
        where: Positions of the k examples.
        queries: The q queries.
        measure: m.
        subsets: How many parts, >= 2.

    Returns:
        The mean changes, [q, k], their standard errors, and the spread of single ones.

    Raises:
        InvalidInput: If subsets < 2.
        UnsupportedModel: If the model cannot be fitted again.

    Cost:
        subsets × (k + 1) retrainings, with a progress bar.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> trained = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> query = trained.examples((X[:1], y[:1]))
        >>> found = expected_removals(trained, np.array([3, 7]), query, trained.loss, subsets=3)
        >>> found.mean.shape
        (1, 2)
    """
    if subsets < 2:
        raise InvalidInput(f"Expected subsets >= 2. Got {subsets}.")
    n, k = len(trained.train), len(where)
    others = np.setdiff1d(np.arange(n), where)
    keep = max(1, round(_FRACTION * n) - k)
    generator = np.random.default_rng(0)
    changes = []
    with progress(total=subsets * (k + 1), desc="retraining on parts", unit="fit") as bar:
        for _ in range(subsets):
            part = torch.zeros(n, dtype=torch.bool)
            part[torch.from_numpy(where)] = True
            part[torch.from_numpy(generator.choice(others, min(keep, len(others)), False))] = True
            weights = weights_in_parts(trained.weights, part)
            rows = torch.cat([weights[None], weights_without_each(weights, where)])
            outcomes = []
            for fitted in trained.refits(rows):
                outcomes.append(measure(fitted.outputs(queries), queries.targets).double())
                bar.update()
            changes.append(torch.stack(outcomes[1:], 1) - outcomes[0].unsqueeze(1))
    each = torch.stack(changes).numpy()
    spread = each.std(axis=0, ddof=1)
    return ExpectedChanges(
        mean=each.mean(axis=0),
        error=spread / np.sqrt(subsets),
        spread=float(np.sqrt(np.square(spread).mean())),
        subsets=subsets,
    )
