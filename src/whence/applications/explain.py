"""Why did the model say this? The training examples behind one prediction, and the proof."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from whence.errors import InvalidInput
from whence.evaluation.agreement import loo_correlation
from whence.linalg.solver import Solver
from whence.methods.influence import influence
from whence.methods.leave_one_out import leave_one_out
from whence.methods.prediction import Floats, MeasureLike
from whence.objective.losses import measure_of
from whence.objective.objective import Objective
from whence.objective.trained import Examples
from whence.pages import write
from whence.pages.words import decimals_of
from whence.scores import Diagnostics, Scores
from whence.views.examples import said_of
from whence.views.explanation import explanation_page
from whence.views.sequences import Decode

_CANDIDATES = 3  # candidates per example shown: the first order orders them only roughly


@dataclass(frozen=True)
class Effect:
    """What one training example does to the query.

    Args:
        id: The user's name of the example.
        position: Its position in the training data.
        effect: Predicted change of the query's measure if it is removed; nats for the loss.
        first: The same to first order, the paper's influence.
    """

    id: Any
    position: int
    effect: float
    first: float


@dataclass(frozen=True, eq=False)
class Verification:
    """Predicted against actual effects of removing training examples, by retraining.

    Args:
        ids: The user's names of the removed examples, [k].
        positions: Their positions in the training data, [k].
        predicted: Predicted changes of the query's measure, [k].
        actual: Changes after retraining, [k].
        r: Pearson's correlation of the two; NaN if either is constant.
        slope: Least-squares slope of actual on predicted, 1 for a calibrated prediction.
    """

    ids: NDArray[Any]
    positions: NDArray[np.intp]
    predicted: Floats
    actual: Floats
    r: float
    slope: float

    def __str__(self) -> str:
        """Return the comparison in one line."""
        return (
            f"predicted vs retrained on {len(self.ids)} removals: "
            f"R = {self.r:.4f}, slope = {self.slope:.3f}"
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """The training examples behind one prediction, most helpful and most harmful first.

    Args:
        objective: R at θ̂.
        query: The one query.
        scores: First-order scores of all training examples, [1, n].
        refined: Effects of the candidates in the order in which they are shown, [1, m].
        k: How many helpful and harmful examples are shown.
        measure: What is predicted.
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.
    """

    objective: Objective
    query: Examples
    scores: Scores
    refined: Scores
    k: int
    measure: MeasureLike = "loss"
    solver: Solver | None = None
    damping: float | None = None

    @property
    def helpful(self) -> tuple[Effect, ...]:
        """The examples whose removal raises the loss most, at most k; the largest effect first."""
        return tuple(effect for effect in self._effects(-1)[: self.k] if effect.effect > 0)

    @property
    def harmful(self) -> tuple[Effect, ...]:
        """The examples whose removal lowers the loss most, at most k; the most negative first."""
        return tuple(effect for effect in self._effects(1)[: self.k] if effect.effect < 0)

    @property
    def diagnostics(self) -> Diagnostics | None:
        """How far the numbers can be trusted."""
        return self.refined.diagnostics

    def verify(self, k: int = 20) -> Verification:
        """Remove the k most influential examples one by one, retrain, and compare.

        Args:
            k: How many removals to retrain, the largest absolute first-order scores first.

        Returns:
            Predicted (refined) against actual changes, with R and slope.

        Raises:
            UnsupportedModel: If the model is not known to be convex.
        """
        where = self.scores.largest(k).positions[0]
        predicted = influence(
            self.objective,
            self.query,
            order="refined",
            measure=self.measure,
            indices=where,
            solver=self.solver,
            damping=self.damping,
        ).values
        actual = leave_one_out(self.objective, where, self.query, measure=self.measure)
        agreement = loo_correlation(predicted, actual)
        return Verification(
            ids=self.objective.train.ids[where],
            positions=where,
            predicted=predicted[0],
            actual=actual[0],
            r=agreement.pearson,
            slope=agreement.slope,
        )

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        verify: int = 20,
        verification: Verification | None = None,
        image_shape: tuple[int, ...] | None = None,
        texts: Sequence[str] | None = None,
        query_text: str | None = None,
        decode: Decode | None = None,
        title: str = "Why did the model say this?",
        command: str = "explanation.report(path)",
    ) -> Path:
        """Write the explanation as one self-contained HTML page.

        Args:
            path: The file; an existing one is replaced, whole or not at all.
            verify: How many removals to retrain for the page; 0 for none. Models that are not
                convex are not retrained.
            verification: A verification made before, instead of a new one.
            image_shape: (h, w) or (h, w, 3) if a row is an image laid out flat.
            texts: The training examples as texts, [n], where the rows are made from texts.
            query_text: The query as a text.
            decode: From a list of token numbers to text, such as a tokenizer's decode, where the
                inputs are tokens; the numbers are shown if `None`.
            title: The heading.
            command: What reproduces the page; shown at its end.

        Returns:
            The path.

        Raises:
            InvalidInput: If the path cannot be written, or image_shape or texts do not fit the
                rows.
        """
        n = len(self.objective.train)
        if texts is not None and len(texts) != n:
            raise InvalidInput(f"Expected {n} texts, one per training example. Got {len(texts)}.")
        if verification is None and verify and self.objective.convex:
            verification = self.verify(verify)
        page = explanation_page(
            self,
            verification,
            image_shape=image_shape,
            texts=texts,
            query_text=query_text,
            decode=decode,
            title=title,
            command=command,
        )
        return write(page, path)

    def to_frame(self) -> pd.DataFrame:
        """Return the helpful and harmful examples as a frame: id, position, effect, first."""
        return pd.DataFrame([vars(effect) for effect in (*self.helpful, *self.harmful[::-1])])

    @property
    def value(self) -> float:
        """The query's measure as it is."""
        measure = measure_of(self.objective.loss, self.measure)
        return float(measure(self.objective.outputs(self.query), self.query.targets)[0])

    def __str__(self) -> str:
        """Return the examples with their effects, in words."""
        name, value = self.scores.measure, self.value
        shown = (*self.helpful, *self.harmful)
        d = decimals_of(max((abs(effect.effect) for effect in shown), default=0.0))
        lines = [said_of(self.objective, self.query)]
        lines.append(f"The {name} is {value:.{d}f}. Without one training example it would be:")
        for title, effects in (("helpful", self.helpful), ("harmful", self.harmful)):
            lines += [
                f"  {value + effect.effect:.{d}f}  ({effect.effect:+.{d}f})  without {effect.id}, "
                f"{title}"
                for effect in effects
            ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the examples with their effects, for a notebook."""
        lines = str(self).splitlines()[:2]
        words = "".join(f"<p>{escape(line)}</p>" for line in lines)
        return words + self.to_frame().to_html(index=False, float_format="{:+.4f}".format)

    def _effects(self, sign: int) -> list[Effect]:
        """Return all candidates, the smallest sign × effect first."""
        first = self.scores.values[0]
        effects = [
            Effect(id=id_, position=int(at), effect=float(value), first=float(first[at]))
            for id_, at, value in zip(
                self.refined.train_ids.tolist(),
                self.refined.positions,
                self.refined.values[0],
                strict=True,
            )
        ]
        return sorted(effects, key=lambda effect: sign * effect.effect)


def explain(
    objective: Objective,
    query: Any,
    *,
    k: int = 10,
    measure: MeasureLike = "loss",
    solver: Solver | None = None,
    damping: float | None = None,
) -> Explanation:
    """Find the training examples behind one prediction.

    All n examples are scored to first order. Of a convex model the 3k most helpful and 3k most
    harmful are then predicted again in the refined order, and the k best of both are shown with
    those effects; of another model, whose curvature is approximate, with those of first order.

    Args:
        objective: R at θ̂.
        query: (x, y) of one query.
        k: How many helpful and harmful examples to show, >= 1.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.

    Returns:
        The explanation: `.helpful`, `.harmful`, `.verify()`, `.to_frame()`, `.report(path)`.

    Raises:
        InvalidInput: If there is not exactly one query, or k < 1.

    Cost:
        One first-order influence, and 6 k c solves.

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
    """
    if k < 1:
        raise InvalidInput(f"Expected k >= 1 examples to show. Got {k}.")
    asked = objective.examples(query)
    if len(asked) != 1:
        raise InvalidInput(
            f"Expected one query to explain. Got {len(asked)}. "
            "Pass one row, or use whence.influence for many."
        )
    options: dict[str, Any] = {"measure": measure, "solver": solver, "damping": damping}
    scores = influence(objective, asked, **options)
    candidates = min(_CANDIDATES * k, len(objective.train))
    where = np.union1d(scores.top(candidates).positions[0], scores.bottom(candidates).positions[0])
    if objective.convex:
        shown = influence(objective, asked, order="refined", indices=where, **options)
    else:
        shown = replace(
            scores,
            values=scores.values[:, where],
            train_ids=scores.train_ids[where],
            positions=scores.positions[where],
        )
    return Explanation(
        objective=objective, query=asked, scores=scores, refined=shown, k=k, **options
    )
