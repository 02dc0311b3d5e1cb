"""Explanation of one prediction by its most influential training examples."""

from __future__ import annotations

from contextlib import nullcontext

from whence.applications.explanation import Explanation
from whence.applications.queries import Inputs, encoded
from whence.applications.shown import shown_by, shown_of
from whence.checked import checked
from whence.errors import InvalidInput
from whence.linalg.solver import Solver
from whence.methods.choose import chosen, reason_of
from whence.methods.contrast import Contrast
from whence.methods.fit_quality import not_shown
from whence.methods.method import Method
from whence.methods.prediction import MeasureLike
from whence.objective.losses import measure_of
from whence.objective.trained import Data, Trained
from whence.scores import check_answers
from whence.views.quantity import default_measure


@checked
def explain(
    trained: Trained,
    query: Data | Inputs,
    *,
    k: int = 10,
    against: Data | None = None,
    measure: MeasureLike | None = None,
    method: Method | None = None,
    solver: Solver | None = None,
    damping: float | None = None,
) -> Explanation:
    """Find the training examples behind one prediction.

    All n examples are scored by the method. Of a convex model the 3k strongest on each side, or
    the k strongest where the preprocessing of more than 20,000 rows is fitted again for each, are
    then predicted again by the method's refined form, where it has one, and the k strongest of
    each side are shown with those effects.

    Args:
        trained: The model: an objective, or a recorded training.
        query: (x, y) of one query; or x alone, and the predicted class or number is explained.
        k: How many examples to show on each side, >= 1.
        against: Another answer to the same question: why this one and not that? Effects are then
            those on the difference of the two measures. (x, y) of one query; for a language model
            the same prompt with the other completion.
        measure: "loss", "margin", "probability", "prediction", or a function (outputs, targets) ->
            [b]. If `None`, what the model answers: the loss where that says the probability of the
            label, else its probability, margin or the predicted number.
        method: What scores training examples; `whence.Influence()` if `None`.
        solver: What inverts the curvature of that default; chosen by cost if `None`.
        damping: λ >= 0 added to that curvature; chosen by rule if `None`.

    Returns:
        The explanation: `.raising`, `.lowering`, `.verify()`, `.to_frame()`, `.report(path)`.

    Raises:
        InvalidInput: If there is not exactly one query, k < 1, or both a method and options of the
            default method are given.
        UnsupportedModel: If the method does not apply to the model.

    Cost:
        Scores of one query; for influence on a convex model, 6 k c solves more.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X[1:], y[1:])
        >>> objective = whence.from_sklearn(model, X[1:], y[1:])
        >>> explanation = whence.explain(objective, (X[0], y[0]), k=3)
        >>> len(explanation.helpful)
        3
        >>> whence.explain(objective, X[:1], k=3).labeled
        False
        >>> whence.explain(objective, (X[:1], y[:1]), against=(X[:1], y[50:51]), k=3).quantity.name
        'the loss (nats) of “0” less that of “1”'
    """
    if k < 1:
        raise InvalidInput(f"Expected k >= 1 examples to show. Got {k}.")
    scoring = chosen(trained, method, solver, damping)
    examples, labeled = encoded(trained, query)
    if len(examples) != 1:
        raise InvalidInput(
            f"Expected one query to explain. Got {len(examples)}. "
            "Pass one row, or use whence.report for many."
        )
    about = default_measure(trained, examples) if measure is None else measure
    measure_of(trained.loss, about)  # raises for a measure of a set: one query is explained
    other = None if against is None else trained.examples(against)
    if other is not None:
        check_answers(1, len(other))
        scoring = Contrast(scoring, other)
    ranked_only = shown_by(scoring, trained) is not scoring
    with not_shown() if ranked_only else nullcontext():
        scores = scoring.fit(trained).scores_to_rank(examples, about)
    shown = shown_of(scoring, trained, examples, about, scores, k)
    return Explanation(
        trained=trained,
        query=examples,
        labeled=labeled,
        method=scoring,
        scores=scores,
        shown=shown.scores,
        sized=shown.sized,
        k=k,
        measure=about,
        reason=reason_of(trained) if method is None else "",
        against=other,
    )
