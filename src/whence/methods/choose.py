"""Which method scores a model where the user names none: the one rule, by kind of model."""

from __future__ import annotations

from whence.curvature.damping import CurvatureName
from whence.errors import InvalidInput
from whence.linalg.solver import Solver
from whence.methods.boosting import Boosting
from whence.methods.data_oob import DataOOB
from whence.methods.forest import ForestWeights
from whence.methods.influence import Influence
from whence.methods.method import Method
from whence.objective.trained import Trained
from whence.trees.model import BoostedModel, ForestModel


def chosen(
    trained: Trained,
    method: Method | None,
    solver: Solver | None = None,
    damping: float | None = None,
    curvature: CurvatureName = "auto",
) -> Method:
    """Return the method that a user's options name, or the default for the model.

    Args:
        trained: The model.
        method: The method, or `None`.
        solver: Of influence; names it if given.
        damping: Of influence; names it if given.
        curvature: Of influence; names it unless "auto".

    Returns:
        The method.

    Raises:
        InvalidInput: If a method is given and options of influence too.
    """
    given = solver is not None or damping is not None or curvature != "auto"
    if method is None:
        if not given:
            return default_method(trained)
        return Influence(solver=solver, damping=damping, curvature=curvature)
    if given:
        raise InvalidInput(
            "Expected solver=, damping= and curvature= without method=. Got "
            f"method={method!r} too. Pass them to the method, as in whence.Influence(damping=...)."
        )
    return method


def default_method(trained: Trained) -> Method:
    """Return the method that scores a model unless the user names another.

    Boosted trees by `Boosting`, a forest by `ForestWeights`, every other model by `Influence`.

    Args:
        trained: The model.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.ensemble import RandomForestRegressor
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = RandomForestRegressor(n_estimators=5, random_state=0).fit(X, y)
        >>> default_method(whence.from_sklearn(model, X, y))
        ForestWeights()
    """
    if isinstance(trained, BoostedModel):
        return Boosting()
    return ForestWeights() if isinstance(trained, ForestModel) else Influence()


def default_label_method(trained: Trained) -> Method | None:
    """Return the method whose self-scores rank labels unless the user names another, or `None`.

    Trees by `DataOOB`: the error of trees or retrainings that have not seen the row.

    Args:
        trained: The model.
    """
    return DataOOB() if isinstance(trained, BoostedModel | ForestModel) else None
