"""Which method scores training examples where none is named: one rule."""

from __future__ import annotations

from whence.errors import InvalidInput
from whence.linalg.solver import Solver
from whence.methods.ensemble import Retrained
from whence.methods.influence import Influence
from whence.methods.leave_one_out import LeaveOneOut
from whence.methods.method import Method
from whence.objective.trained import Trained


def default_method(trained: Trained) -> Method:
    """Return the method for a model where none is named.

    1. A model with derivatives in its parameters: `Influence`, by the inverse curvature.
    2. One whose refit costs no more than a prediction: `LeaveOneOut`, every removal for real.
    3. Any other: `Retrained`, an ensemble of fits to random halves.

    Args:
        trained: The model.

    Returns:
        The method; `why(trained)` says which rule chose it.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.neighbors import KNeighborsClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = whence.from_sklearn(KNeighborsClassifier().fit(X, y), X, y)
        >>> default_method(model), why(model)
        (LeaveOneOut(), 'a refit costs no more than a prediction')
    """
    if trained.differentiable() is not None:
        return Influence()
    return LeaveOneOut() if trained.instant else Retrained()


def why(trained: Trained) -> str:
    """Return the reason for `default_method` in words.

    Args:
        trained: The model.
    """
    if trained.differentiable() is not None:
        return "the model has derivatives in its parameters"
    if trained.instant:
        return "a refit costs no more than a prediction"
    return "the model has no derivatives, and is asked for predictions alone"


def chosen(
    trained: Trained,
    method: Method | None,
    solver: Solver | None = None,
    damping: float | None = None,
) -> Method:
    """Return the method that a user's options name; the default for the model if none.

    Args:
        trained: The model.
        method: The method, or `None`.
        solver: Of influence.
        damping: Of influence.

    Returns:
        The method.

    Raises:
        InvalidInput: If a method is given and options of influence too.
    """
    if method is None:
        if solver is not None or damping is not None:
            return Influence(solver=solver, damping=damping)
        return default_method(trained)
    if solver is not None or damping is not None:
        raise InvalidInput(
            f"Expected solver= and damping= without method=. Got method={method!r} too. Pass them "
            "to the method, as in whence.Influence(solver=..., damping=...)."
        )
    return method
