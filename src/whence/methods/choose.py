"""Which method scores a model where the user names none: the one rule, by kind of model."""

from __future__ import annotations

from functools import singledispatch
from typing import Literal

from whence.adapters.composed import Composed
from whence.adapters.neighbors import Neighbors
from whence.curvature.damping import CurvatureName
from whence.errors import InvalidInput
from whence.linalg.solver import Solver
from whence.methods.boosting import Boosting
from whence.methods.composition import Composition
from whence.methods.data_oob import DataOOB
from whence.methods.ensemble import Retrained
from whence.methods.forest import ForestWeights
from whence.methods.influence import Influence
from whence.methods.knn_shapley import KNNShapley
from whence.methods.leave_one_out import LeaveOneOut
from whence.methods.loo_loss import quick, solves_each
from whence.methods.method import Method
from whence.objective.trained import Trained
from whence.trees.model import BoostedModel, ForestModel

Ranking = Literal["self_influence", "held_out_loss", "class_adjusted", "loss"]


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

    1. Boosted trees: `Boosting`. A forest: `ForestWeights`.
    2. A model with derivatives in its parameters: `Influence`.
    3. Neighbors whose votes count alike: `KNNShapley`; single removals mostly change nothing.
    4. A model whose refits are so quick that each removal can be made: `LeaveOneOut`. They are
       exact walks and sums, or its own library's fits of up to 1,000 rows that draw nothing; those
       of an estimator outside of scikit-learn where n of them take a minute at most and the
       changes of two removals add up, as 25 fits tell.
    5. An estimator made of such: `Composition`, each removal through every member.
    6. Any other: `Retrained`, an ensemble of fits to random halves.

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
    return default_of(trained)[0]


@singledispatch
def default_of(trained: Trained) -> tuple[Method, str]:
    """Return the default method of a model with the reason for it; families register their own.

    Args:
        trained: The model.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.naive_bayes import GaussianNB
        >>> X, y = load_iris(return_X_y=True)
        >>> default_of(whence.from_sklearn(GaussianNB().fit(X, y), X, y))
        (LeaveOneOut(), 'its refits are so quick that each removal is made')
    """
    if trained.differentiable() is not None:
        return Influence(), "the model has derivatives in its parameters"
    if trained.instant:
        return LeaveOneOut(), "its refits are so quick that each removal is made"
    return Retrained(), "the model is known by its predictions alone"


@default_of.register
def _(trained: BoostedModel) -> tuple[Method, str]:
    return Boosting(), "boosted predictions have derivatives in the weights of rows"


@default_of.register
def _(trained: ForestModel) -> tuple[Method, str]:
    return ForestWeights(), "predictions of a forest are weighted means of the targets"


@default_of.register
def _of_neighbors(trained: Neighbors) -> tuple[Method, str]:
    if trained.votes_alike:
        return KNNShapley(), "a removal alone may only hand the vote to the next neighbor"
    return default_of.dispatch(object)(trained)


@default_of.register
def _of_composed(trained: Composed) -> tuple[Method, str]:
    return Composition(), "removals from its members are exact, and what follows is fitted again"


def reason_of(trained: Trained) -> str:
    """Return why a model is scored by its default method, in a sentence; empty for influence.

    Args:
        trained: The model.
    """
    if trained.differentiable() is not None:
        return ""
    method, reason = default_of(trained)
    return f"Scored by {type(method).__name__}, because {reason}."


def default_label_method(trained: Trained) -> Method | None:
    """Return the method whose self-scores rank labels unless the user names another, or `None`.

    Models without derivatives, as trees are, by `DataOOB`: the error of trees or retrainings that
    have not seen the row.

    Args:
        trained: The model.
    """
    return DataOOB() if trained.differentiable() is None else None


def default_ranking(trained: Trained, solver: Solver | None) -> Ranking | Method:
    """Return what ranks labels by how wrong they look unless the user names something.

    1. A model without derivatives: `default_label_method`.
    2. Where `quick` says so, the held-out loss: a hinge is flat where a row is right, a robust loss
       where it is far off, so that self-influence finds a third of such wrong labels.
    3. Self-influence where a solve for each example is worth while, else the loss.

    Args:
        trained: The model.
        solver: The one asked for, or `None`.
    """
    by_kind = default_label_method(trained)
    if by_kind is not None:
        return by_kind
    if quick(trained):
        return "held_out_loss"
    return "self_influence" if solves_each(trained, solver) else "loss"
