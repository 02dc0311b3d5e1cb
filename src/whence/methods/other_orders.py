"""How far a model moves when its training examples come in another order."""

from __future__ import annotations

import numpy as np

from whence.evaluation.chance import Chance
from whence.methods.prediction import as_array
from whence.objective.measures import Measure
from whence.objective.trained import Examples, Trained

_ORDERS = 5


def chance_of(trained: Trained, queries: Examples, measure: Measure) -> Chance | None:
    """Return what fits to the same examples in five other orders say of queries.

    Args:
        trained: The model.
        queries: The q queries.
        measure: m.

    Returns:
        The outcomes; `None` where the order of the examples makes no difference, or is not known.

    Cost:
        Five retrainings.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> trained = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> chance_of(trained, trained.examples((X[:1], y[:1])), trained.loss) is None
        True
    """
    each = []
    for seed in range(_ORDERS):
        fitted = trained.reordered(seed)
        if fitted is None:
            return None
        each.append(as_array(measure(fitted.outputs(queries), queries.targets)))
    return Chance(outcomes=np.stack(each).astype(np.float64))
