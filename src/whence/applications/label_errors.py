"""Label errors: training examples ranked by how wrong their labels look."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.checked import checked
from whence.errors import InvalidInput, UnsupportedModel
from whence.linalg.solver import Solver
from whence.methods.choose import chosen, default_label_method, default_method
from whence.methods.edits import relabel_gain
from whence.methods.loo_loss import (
    LooOutputs,
    best_penalty,
    loo_outputs,
    penalty_applies,
    quick,
)
from whence.methods.method import Method
from whence.methods.model_quality import model_quality
from whence.methods.prediction import Floats, MeasureLike, as_array
from whence.methods.wrong_labels import WrongLabels, wrong_labels
from whence.objective.losses import measure_of
from whence.objective.objective import objective_of
from whence.objective.trained import Data, Trained
from whence.pages import write
from whence.result import Card, Result
from whence.scores import Diagnostics
from whence.views.answer import label_of, target_class
from whence.views.labels import label_errors_page

Ranking = Literal["self_influence", "held_out_loss", "loss"]
Penalty = Literal["fitted", "best"]

_NAMES: dict[object, str] = {
    "self_influence": "self-influence",
    "held_out_loss": "held-out loss",
    "loss": "loss",
}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LabelErrors(Result):
    """Training examples ranked by how wrong their labels look; made by `find_label_errors`.

    Args:
        objective: R at θ̂, under the penalty at which the model was asked.
        method: What they are ranked by.
        penalty: How many times the fitted penalty that is.
        ranking: Positions in the training data, the most suspect first, [n].
        scores: What they are ranked by, in the order of the training data, in nats, [n].
        self_influence: How far each example's own loss would rise without it, in nats, [n], by
            influence or the method asked for; `None` where it was not computed.
        loss: Each example's loss, in nats, [n].
        suggested: The label that the model gives to each of the first k of the ranking when
            trained without it, as an encoded target, [k].
        gain: By how much the mean measure of the queries would fall if these k were given the
            suggested label, [k]; `None` where no queries were given.
        diagnostics: How far to trust the numbers.
        wrong: How many labels are wrong, an estimate with its error, by confident learning; `None`
            where the model does not give probabilities to rows that it has not seen.
    """

    objective: Trained
    method: Ranking | Method
    penalty: float
    ranking: NDArray[np.intp]
    scores: Floats
    self_influence: Floats | None
    loss: Floats
    suggested: Tensor
    gain: Floats | None
    diagnostics: Diagnostics
    wrong: WrongLabels | None = None

    def __len__(self) -> int:
        """Return n."""
        return len(self.ranking)

    def __str__(self) -> str:
        """Return what they are ranked by, and the first twenty."""
        first = self.to_frame().head(20).to_string(index=False)
        return f"{len(self):,} training examples by {self.ranked_by}\n{first}"

    def card(self) -> Card:
        """Return what they are ranked by, and the first twenty."""
        title = f"{len(self):,} training examples by {self.ranked_by}"
        return Card(title=title, table=self.to_frame())

    def to_frame(self) -> pd.DataFrame:
        """Return the ranking as a frame, a row per training example.

        Returns:
            Columns position, id, label, suggested, score, self_influence, loss and gain; the score
            is what the rows are ranked by; the suggested label and the gain are missing beyond the
            first k.
        """
        train, k = self.objective.train, len(self.suggested)
        where = self.ranking
        targets = train.targets[torch.from_numpy(where)]
        missing = len(where) - k
        gain = np.full(k, np.nan) if self.gain is None else self.gain
        return pd.DataFrame(
            {
                "position": where,
                "id": train.ids[where],
                "label": [label_of(self.objective, target) for target in targets],
                "suggested": [
                    *(label_of(self.objective, target) for target in self.suggested),
                    *[None] * missing,
                ],
                "score": self.scores[where],
                "self_influence": np.nan
                if self.self_influence is None
                else self.self_influence[where],
                "loss": self.loss[where],
                "gain": np.r_[gain, np.full(missing, np.nan)],
            }
        )

    @property
    def score_name(self) -> str:
        """What the score is called."""
        return _NAMES.get(self.method, f"own effect by {type(self.method).__name__}")

    @property
    def ranked_by(self) -> str:
        """What the examples are ranked by, and at which penalty, in words."""
        if self.penalty == 1:
            return self.score_name
        return (
            f"{self.score_name} at {self.penalty:g} times the fitted penalty, "
            "where the mean held-out loss is least"
        )

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        rows: int = 100,
        held_out: Data | None = None,
        image_shape: tuple[int, ...] | None = None,
        texts: Sequence[str] | None = None,
        title: str = "Which labels look wrong?",
        about: Sequence[str] = (),
        command: str = "find_label_errors(objective).report(path)",
    ) -> Path:
        """Write the first of the ranking as one self-contained HTML page.

        Args:
            path: The file; an existing one is replaced, whole or not at all.
            rows: How many examples to show, at least 1.
            held_out: (X, y) that the model was not fitted on, to say how good it is. If `None`, a
                linear model is judged on training examples predicted without themselves.
            image_shape: (h, w) or (h, w, 3) if a row is an image laid out flat.
            texts: The training examples as texts, [n], where the rows are made from texts.
            title: The heading.
            about: Which data and model these are, a sentence each; the first stands on top.
            command: What reproduces the page; shown at its end.

        Returns:
            The path.

        Raises:
            InvalidInput: If the path cannot be written, or texts or image_shape do not fit.
        """
        n = len(self.ranking)
        if rows < 1:
            raise InvalidInput(f"Expected rows >= 1. Got {rows}.")
        if texts is not None and len(texts) != n:
            raise InvalidInput(f"Expected {n} texts, one per training example. Got {len(texts)}.")
        page = label_errors_page(
            self.objective,
            self.ranking[:rows],
            score=self.score_name,
            ranked_by=self.ranked_by,
            scores=self.scores,
            losses=None if self.method == "loss" else self.loss,
            suggested=self.suggested,
            gain=self.gain,
            diagnostics=self.diagnostics,
            wrong=self.wrong,
            quality=model_quality(self.objective, held_out),
            image_shape=image_shape,
            texts=texts,
            title=title,
            about=tuple(about),
            command=command,
        )
        return write(page, path)


@checked
def find_label_errors(
    objective: Trained,
    *,
    method: Ranking | Method | None = None,
    penalty: Penalty | None = None,
    queries: Data | None = None,
    k: int = 1000,
    measure: MeasureLike = "loss",
    solver: Solver | None = None,
    damping: float | None = None,
) -> LabelErrors:
    """Rank the training examples by how wrong their labels look.

    By the loss ℓ(f₋ᵢ, yᵢ) that each has one Newton step without itself, that of leave-one-out
    cross-validation; or by self-influence (wᵢ/n) gᵢᵀ H⁻¹ gᵢ, how far its loss rises when it is
    removed: a wrong label is believed only because it was trained on.

    A model fitted closely enough to repeat its labels, wrong ones included, says little about
    them. The one to ask is the one that predicts best what it has not seen, so that penalty="best"
    takes the penalty, in steps of ten from the fitted one, with the least mean held-out loss. That
    needs no label one can trust. In 1,200 mails with a tenth of the labels flipped it is 100 times
    the fitted one, and the first tenth then holds 81 % of the flips instead of 62 %
    (`python -m experiments.label_detection`).

    For the first k of the ranking, the suggested label y′ is the one with the smallest loss one
    Newton step without the example, and the expected gain is
    (wᵢ/n) ∇m̄ᵀ H⁻¹ (g(xᵢ, y′) − g(xᵢ, yᵢ)), the fall of the queries' mean measure m̄ when the label
    is corrected.

    Args:
        objective: R at θ̂ of a classifier.
        method: Rank by the "held_out_loss", by "self_influence", or by the "loss" itself for
            comparison; or by the self-scores of any `Method`. If `None`, the held-out loss where
            penalties can be tried, or of a hinge, and that takes about a minute at most (10¹³
            operations), else self-influence; the out-of-bag error of trees (`whence.DataOOB`); the
            loss of another model without derivatives.
        penalty: Ask the model as "fitted", or at the "best" penalty: for linear models with a
            smooth loss and an L2 penalty. If `None`, the best for a ranking by the held-out loss
            where it can be had, else as fitted.
        queries: (X, y) with labels one can trust, by which gains are judged; no gains if `None`.
        k: For how many of the first a label is suggested, >= 0.
        measure: Of the queries: "loss", "margin", "probability", or a function of (outputs,
            targets) -> [b]; a gain is its expected fall.
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.

    Returns:
        The ranking: `.ranking`, `.scores`, `.wrong`, `.to_frame()`, `.report(path)`.

    Raises:
        UnsupportedModel: If the model is no classifier with one label per example, or
            penalty="best" does not apply to it.
        InvalidInput: If the method, penalty, queries or k cannot be used.
        NotPositiveDefinite: If the curvature is singular or indefinite.

    Cost:
        n solves for self-influence, n c more for the held-out loss; k c for the suggestions; one
        for the gains. For the best penalty, a factor of the Hessian per penalty tried, three or
        more, and the Newton steps between them.

    References:
        Koh & Liang (2017), section 5.4; the gain is section 2.2, equation 3. Stone (1974) for the
        choice of the penalty.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> y[7] = 2  # a setosa called virginica
        >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X, y)
        >>> errors = find_label_errors(whence.from_sklearn(model, X, y))
        >>> int(errors.ranking[0]), errors.to_frame()["suggested"].iloc[0]
        (7, '0')
    """
    if k < 0:
        raise InvalidInput(f"Expected k >= 0 examples to suggest labels for. Got {k}.")
    labels, train = _labels(objective), objective.train
    everything = np.arange(len(train))
    smooth = objective.differentiable() is objective
    if method is None:
        method = default_label_method(objective)
    if method is None:
        # A hinge is flat where a row is right: self-influence finds a third of wrong labels.
        method = "held_out_loss" if quick(objective) else "self_influence" if smooth else "loss"
    if penalty is None and method == "held_out_loss" and penalty_applies(objective):
        penalty = "best"
    factor = 1.0
    options: dict[str, Any] = {"solver": solver, "damping": damping}
    if penalty == "best":
        best = best_penalty(objective_of(objective), **options)
        objective, factor = best.objective, best.factor
    losses = as_array(objective.loss(objective.outputs(train), train.targets))
    without = None
    if method == "held_out_loss":
        without = loo_outputs(objective_of(objective), everything, **options)
    own, unseen, diagnostics = None, None, Diagnostics(notes=objective.notes)
    named = method if isinstance(method, Method) else None
    if named is not None or smooth:
        found = chosen(objective, named, **options).fit(objective)
        ranked, diagnostics = found.self_values(everything)
        own, unseen = as_array(ranked), found.outputs_without(everything)
    if without is not None:
        scores = as_array(objective.loss(without.outputs, train.targets))
    else:
        scores = losses if method == "loss" or own is None else own
    ranking = np.argsort(-scores, kind="stable")
    first = ranking[:k]
    if unseen is not None:
        suggested = _likeliest(objective, unseen[torch.from_numpy(first)], labels)
    else:
        suggested = _suggested(objective, labels, first, without, options)
    gain = None
    if queries is not None:
        if smooth:
            gain = relabel_gain(
                objective_of(objective), first, suggested, queries, measure=measure, **options
            )
        else:
            judge = default_method(objective).fit(objective)
            examples, quantity = objective.examples(queries), measure_of(objective.loss, measure)
            gain = -as_array(judge.relabel_effects(examples, quantity, first, suggested))
    return LabelErrors(
        objective=objective,
        method=method,
        penalty=factor,
        ranking=ranking,
        scores=scores,
        self_influence=own,
        loss=losses,
        suggested=suggested,
        gain=gain,
        diagnostics=diagnostics,
        wrong=_wrong(objective, unseen if without is None else without.outputs),
    )


def _wrong(objective: Trained, outputs: Tensor | None) -> WrongLabels | None:
    """Return how many labels are wrong, by the outputs of all rows without themselves, [n, c]."""
    probabilities = None if outputs is None else objective.loss.probabilities(outputs)
    if probabilities is None:
        return None
    labels = np.array([target_class(target) for target in objective.train.targets], dtype=np.intp)
    return wrong_labels(as_array(probabilities), labels)


def _suggested(
    objective: Trained,
    labels: Tensor,
    first: NDArray[np.intp],
    without: LooOutputs | None,
    options: dict[str, Any],
) -> Tensor:
    """Return the label with the smallest loss without each of the first examples."""
    if without is not None:
        outputs = without.outputs[torch.from_numpy(first)]
    elif objective.differentiable() is objective:
        outputs = loo_outputs(objective_of(objective), first, **options).outputs
    else:  # as the model is, the example in its training data
        outputs = objective.outputs(objective.train.subset(first))
    return _likeliest(objective, outputs, labels)


def _labels(objective: Trained) -> Tensor:
    """Return the encoded labels that occur, [c] or [c, ·], or refuse what is no classifier."""
    targets = objective.train.targets
    classifies = bool(objective.classes) or (objective.loss.classifies and targets.ndim == 1)
    if not classifies:
        raise UnsupportedModel(
            "Expected a classifier with one label per example. Got a model whose targets are "
            "numbers or sequences. Rank its examples by whence.self_influence(objective)."
        )
    labels: Tensor = torch.unique(targets, dim=0)
    return labels


def _likeliest(objective: Trained, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the label with the smallest loss under each row of outputs, [k] or [k, ·]."""
    if not len(outputs):
        return labels[:0]
    losses = [objective.loss(outputs, label.expand(len(outputs), *label.shape)) for label in labels]
    return labels[torch.stack(losses).argmin(0)]
