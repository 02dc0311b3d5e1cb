"""Comparison of two models by the training examples behind the same predictions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from whence.applications.shown import shown_of
from whence.checked import checked
from whence.errors import InvalidInput
from whence.methods.choose import chosen
from whence.methods.method import Method
from whence.methods.model_quality import model_quality
from whence.methods.prediction import MeasureLike
from whence.objective.trained import Data, Examples, Trained
from whence.pages import write
from whence.result import Card, Result
from whence.scores import Ranking, Scores
from whence.views.answer import class_names
from whence.views.made import Made
from whence.views.results import LISTED, Compared, comparison_page


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Comparison(Result):
    """The influence of the same training examples on one query, under two models.

    Args:
        a: Scores under the first model, [1, n].
        b: Under the second, [1, n].
        same_class: Whether each training example has the query's label, [n].
        agreement: Spearman correlation of the two rows of scores, in [−1, 1]; NaN if one is
            constant.
        trained: The first model, whose examples are shown.
        query: The query as it takes it.
        trained_b: The second model.
        query_b: The query as that takes it.
        methods: What made the scores of either.
        measure: What is predicted.
    """

    a: Scores
    b: Scores
    same_class: NDArray[np.bool_]
    agreement: float
    trained: Trained
    query: Examples
    trained_b: Trained
    query_b: Examples
    methods: tuple[Method, Method]
    measure: MeasureLike

    @checked
    def helpful(self, k: int = 10) -> tuple[Ranking, Ranking]:
        """Return the k most helpful examples under each model."""
        return self.a.top(k), self.b.top(k)

    @checked
    def harmful(self, k: int = 10) -> tuple[Ranking, Ranking]:
        """Return the k most harmful examples under each model."""
        return self.a.bottom(k), self.b.bottom(k)

    @checked
    def shared(self, k: int = 10) -> int:
        """Return how many of the k most helpful examples the two models have in common."""
        first, second = self.helpful(k)
        return len(np.intersect1d(first.positions, second.positions))

    @property
    def first_opposite(self) -> tuple[int | None, int | None]:
        """The rank, from 1, of the first helpful example of another class under each model.

        A model that recognizes a class by what sets it apart is helped by examples of the other
        class; one that only compares with what looks alike is not. `None` if none helps.
        """
        return _first(self.a, ~self.same_class), _first(self.b, ~self.same_class)

    def to_frame(self) -> pd.DataFrame:
        """Return a row per training example: id, same_class, and score and rank in a and in b."""
        frame = pd.DataFrame({"id": self.a.train_ids, "same_class": self.same_class})
        for name, scores in (("a", self.a), ("b", self.b)):
            frame[f"score_{name}"] = scores.values[0]
            frame[f"rank_{name}"] = _ranks(-scores.values[0]).astype(int)
        return frame

    @checked
    def report(
        self,
        path: str | os.PathLike[str],
        *,
        names: tuple[str, str] = ("the first model", "the second model"),
        image_shape: tuple[int, ...] | None = None,
        title: str = "Do two models say it for the same reason?",
        about: Sequence[str] = (),
        command: str = "compare_influence(a, b, query).report(path)",
    ) -> Path:
        """Write the strongest examples under either model as one self-contained HTML page.

        Of a convex model their effects are refined, as those of `whence.explain`; where sizes are
        not known, rank and bar alone are shown.

        Args:
            path: The file; an existing one is replaced, whole or not at all.
            names: What the models are called.
            image_shape: (h, w) or (h, w, 3) if a row is an image laid out flat.
            title: The heading.
            about: Which data and models these are, a sentence each; the first stands on top.
            command: What reproduces the page; shown at its end.

        Returns:
            The path.

        Raises:
            InvalidInput: If the path cannot be written.
        """
        asked = ((self.trained, self.query), (self.trained_b, self.query_b))
        scores = (self.a, self.b)
        shown = [
            shown_of(method, trained, query, self.measure, own, LISTED)
            for method, (trained, query), own in zip(self.methods, asked, scores, strict=True)
        ]
        first, second = (
            Compared(
                name=name,
                trained=trained,
                query=query,
                scores=own,
                shown=of.scores,
                sized=of.sized,
                measure=self.measure,
                quality=model_quality(trained),
            )
            for name, (trained, query), own, of in zip(names, asked, scores, shown, strict=True)
        )
        page = comparison_page(
            (first, second),
            agreement=self.agreement,
            shared=self.shared(10),
            made=Made(title=title, about=tuple(about), command=command, image_shape=image_shape),
        )
        return write(page, path)

    def card(self) -> Card:
        """Return the agreement, and the examples that matter most under the first model."""
        order = np.argsort(-np.abs(self.a.values[0]), kind="stable")
        return Card(
            title=str(self).splitlines()[0],
            facts={
                "Spearman correlation": f"{self.agreement:.2f}",
                "of the 10 most helpful in common": f"{self.shared(10)}",
            },
            table=self.to_frame().iloc[order],
        )

    def __str__(self) -> str:
        """Return the comparison in words."""
        lines = [
            f"Spearman correlation of the two models' influence: {self.agreement:.2f}; "
            f"{self.shared(10)} of the 10 most helpful examples in common."
        ]
        for name, scores, rank in zip("ab", (self.a, self.b), self.first_opposite, strict=True):
            said = "no example of another class helps" if rank is None else f"rank {rank}"
            said = f"; first of another class: {said}" if class_names(self.trained) else ""
            top = ", ".join(str(id_) for id_, _ in scores.top(5))
            lines.append(f"  {name}: helped most by {top}{said}")
        return "\n".join(lines)


@checked
def compare_influence(
    objective_a: Trained,
    objective_b: Trained,
    query: Data,
    query_b: Data | None = None,
    *,
    measure: MeasureLike = "loss",
    method: Method | None = None,
    method_b: Method | None = None,
) -> Comparison:
    """Compare which training examples are behind one prediction under two models.

    Both are trained on the same examples in the same order; what they see of them may differ:
    pixels and features of a network, or two sets of columns.

    Args:
        objective_a: One model.
        objective_b: The other.
        query: (x, y) of one query, as the first model takes it.
        query_b: The same query as the second model takes it; `query` if `None`.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        method: What scores the examples; `whence.Influence` if `None`.
        method_b: Under the second model; `method` if `None`.

    Returns:
        The comparison: `.agreement`, `.helpful(k)`, `.first_opposite`, `.to_frame()`.

    Raises:
        InvalidInput: If the models' training examples or the queries are not the same.

    Cost:
        The scores of one query under each model.

    References:
        Koh & Liang (2017), section 5.1, figure 4.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_breast_cancer
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.preprocessing import scale
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> X, model = scale(X), LogisticRegression(tol=1e-8)
        >>> means, worst = X[:, :10], X[:, 20:]
        >>> a = whence.from_sklearn(model.fit(means[1:], y[1:]), means[1:], y[1:])
        >>> b = whence.from_sklearn(model.fit(worst[1:], y[1:]), worst[1:], y[1:])
        >>> comparison = compare_influence(a, b, (means[0], y[0]), (worst[0], y[0]))
        >>> -1 <= comparison.agreement <= 1
        True
    """
    queries_a = objective_a.examples(query)
    queries_b = objective_b.examples(query if query_b is None else query_b)
    if len(queries_a) != 1 or len(queries_b) != 1:
        raise InvalidInput(
            f"Expected one query for each model. Got {len(queries_a)} and {len(queries_b)}."
        )
    label, labels = queries_a.targets[0], objective_a.train.targets
    same = _equal(labels, label)
    if len(objective_a.train) != len(objective_b.train) or not np.array_equal(
        same, _equal(objective_b.train.targets, queries_b.targets[0])
    ):
        raise InvalidInput(
            "Expected two models of the same examples in the same order, and the same query. Got "
            f"{len(objective_a.train)} and {len(objective_b.train)} training examples, or other "
            "labels. Fit both on the same rows."
        )
    first = chosen(objective_a, method)
    second = chosen(objective_b, method if method_b is None else method_b)
    a = first.fit(objective_a).scores(queries_a, measure=measure)
    b = second.fit(objective_b).scores(queries_b, measure=measure)
    ranks = _ranks(a.values[0]), _ranks(b.values[0])
    varies = all(np.ptp(rank) > 0 for rank in ranks)
    agreement = float(np.corrcoef(*ranks)[0, 1]) if varies else float("nan")
    return Comparison(
        a=a,
        b=b,
        same_class=same,
        agreement=agreement,
        trained=objective_a,
        query=queries_a,
        trained_b=objective_b,
        query_b=queries_b,
        methods=(first, second),
        measure=measure,
    )


def _equal(labels: Any, label: Any) -> NDArray[np.bool_]:
    """Return which encoded labels are the one given."""
    agree = (labels == label).reshape(len(labels), -1).all(1)
    return np.asarray(agree.cpu().numpy(), dtype=np.bool_)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1, ties averaged."""
    return np.asarray(pd.Series(values).rank(), dtype=np.float64)


def _first(scores: Scores, which: NDArray[np.bool_]) -> int | None:
    """Return the rank, from 1, of the first of some examples in the order of helpfulness."""
    order = np.argsort(-scores.values[0], kind="stable")
    found = np.flatnonzero(which[order] & (scores.values[0][order] > 0))
    return int(found[0]) + 1 if len(found) else None
