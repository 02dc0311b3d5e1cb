"""Label errors: training examples ranked by how wrong their labels look."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.arrays import Floats
from whence.checked import checked
from whence.errors import InvalidInput
from whence.linalg.solver import Solver
from whence.methods.choose import (
    Ranking,
    chosen,
    default_label_method,
    default_method,
    default_ranking,
)
from whence.methods.edits import relabel_gain
from whence.methods.loo_loss import best_penalty, loo_outputs, penalty_applies, solves_each
from whence.methods.method import Method
from whence.methods.model_quality import model_quality
from whence.methods.prediction import MeasureLike, as_array
from whence.methods.suspects import suspects_of
from whence.methods.wrong_labels import WrongLabels
from whence.objective.losses import measure_of
from whence.objective.objective import objective_of
from whence.objective.trained import Data, Trained
from whence.pages import write
from whence.result import Card, Result
from whence.scores import Diagnostics
from whence.views.answer import label_of
from whence.views.labels import Suspects, label_errors_page
from whence.views.made import Made

Penalty = Literal["fitted", "best"]

_NAMES: dict[object, str] = {
    "self_influence": "self-influence",
    "held_out_loss": "held-out loss",
    "class_adjusted": "held-out loss with classes weighed alike",
    "loss": "loss",
}
_BY_LOSS = (
    "Ranked by the loss: of a network at one checkpoint self-influence takes a solve per example, "
    "and its sizes are not known. solver=whence.EKFAC() computes it; of a recorded training, "
    "method=whence.TracIn() follows each example through the checkpoints."
)
_SHOWN, _MOST_SHOWN = 100, 1_000  # rows of a page that says nothing else
_UNSEEN = ("held_out_loss", "class_adjusted")  # rankings by the loss without each example


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LabelErrors(Result):
    """Training examples ranked by how wrong their labels look; made by `find_label_errors`.

    Args:
        objective: R at θ̂, under the penalty at which the model was asked.
        asked: The model as the user fitted it.
        method: What they are ranked by.
        penalty: How many times the fitted penalty that is.
        ranking: Positions in the training data, the most suspect first, [n].
        scores: What they are ranked by, in the order of the training data, in nats, [n]; of a
            regression in the unit of its loss, such as half the squared residual.
        self_influence: How far each example's own loss would rise without it, in that unit, [n], by
            influence or the method asked for; `None` where it was not computed.
        loss: Each example's loss, above the least that its target allows, [n].
        suggested: For each of the first k of the ranking the likeliest label other than its own, or
            the number predicted, by the model trained without it, of a large network by the model
            as it is; encoded targets, [k].
        agrees: Whether that model says the given label all the same, [k].
        gain: By how much the mean measure of the queries would fall if these k were given the
            suggested label, [k]; `None` where no queries were given.
        diagnostics: How far to trust the numbers.
        wrong: How many labels are wrong, an estimate with its error, by confident learning; `None`
            where the model does not give probabilities to rows that it has not seen.
    """

    objective: Trained
    asked: Trained
    method: Ranking | Method
    penalty: float
    ranking: NDArray[np.intp]
    scores: Floats
    self_influence: Floats | None
    loss: Floats
    suggested: Tensor
    agrees: NDArray[np.bool_]
    gain: Floats | None
    diagnostics: Diagnostics
    wrong: WrongLabels | None = None

    def __len__(self) -> int:
        """Return n."""
        return len(self.ranking)

    def __str__(self) -> str:
        """Return what they are ranked by, and the first twenty."""
        known = self.to_frame().head(20).dropna(axis="columns", how="all")
        first = known.to_string(index=False)
        return f"{len(self):,} training examples by {self.ranked_by}\n{first}"

    def card(self) -> Card:
        """Return what they are ranked by, and the first twenty."""
        title = f"{len(self):,} training examples by {self.ranked_by}"
        return Card(title=title, table=self.to_frame().dropna(axis="columns", how="all"))

    def to_frame(self) -> pd.DataFrame:
        """Return the ranking as a frame, a row per training example.

        Returns:
            Columns position, id, label, suggested, agrees, score, self_influence, loss and gain;
            the score is what the rows are ranked by; what is suggested, whether the model agrees
            with the label all the same, and the gain are missing beyond the first k.
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
                "label": self._named(targets),
                "suggested": [*self._named(self.suggested), *[None] * missing],
                "agrees": [*self.agrees.tolist(), *[None] * missing],
                "score": self.scores[where],
                "self_influence": np.nan
                if self.self_influence is None
                else self.self_influence[where],
                "loss": self.loss[where],
                "gain": np.r_[gain, np.full(missing, np.nan)],
            }
        )

    def _named(self, targets: Tensor) -> list[Any]:
        """Return targets as the user names them: classes by their names, or numbers."""
        if self.objective.loss.classifies or self.objective.classes:
            return [label_of(self.objective, target) for target in targets]
        return targets.tolist()

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

    @checked
    def report(
        self,
        path: str | os.PathLike[str],
        *,
        rows: int | None = None,
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
            rows: How many examples to show, at least 1; if `None`, 100, or up to 1,000 where more
                are worth a look.
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
        worth = 0 if self.wrong is None else self.wrong.worth_a_look
        rows = min(max(_SHOWN, worth), _MOST_SHOWN) if rows is None else rows
        if rows < 1:
            raise InvalidInput(f"Expected rows >= 1. Got {rows}.")
        if texts is not None and len(texts) != n:
            raise InvalidInput(f"Expected {n} texts, one per training example. Got {len(texts)}.")
        suspects = Suspects(
            trained=self.objective,
            ranking=self.ranking[:rows],
            score=f"estimated {self.score_name}" if self.method in _UNSEEN else self.score_name,
            ranked_by=self.ranked_by,
            scores=self.scores,
            losses=None if self.method == "loss" else self.loss,
            suggested=self.suggested,
            agrees=self.agrees,
            gain=self.gain,
            diagnostics=self.diagnostics,
            wrong=self.wrong,
        )
        page = label_errors_page(
            suspects,
            quality=model_quality(self.asked, held_out),
            texts=texts,
            made=Made(title=title, about=tuple(about), command=command, image_shape=image_shape),
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

    Where one class is rare, its rows come first: each looks unlikely. That is right if labels were
    turned at random, but hides rows of the rare class that were given to the common one.
    method="class_adjusted" finds those: −log of p_y/π_y over the sum of all p_c/π_c, with π the
    shares of the classes. Of a regression, the held-out loss is half the squared held-out residual
    or the unit deviance, and the number predicted without the example is suggested.

    For the first k of the ranking, the suggested label y′ is the one with the smallest loss one
    Newton step without the example, other than the given one, and the expected gain is
    (wᵢ/n) ∇m̄ᵀ H⁻¹ (g(xᵢ, y′) − g(xᵢ, yᵢ)), the fall of the queries' mean measure m̄ when the label
    is corrected.

    Args:
        objective: R at θ̂ of a classifier or a regression.
        method: Rank by the "held_out_loss", the same "class_adjusted", by "self_influence", or by
            the "loss" itself for comparison; or by the self-scores of any `Method`. If `None`, the
            held-out loss where penalties can be tried, of a hinge or of a convex regression, where
            that takes about a minute at most (10¹³ operations), else self-influence; the
            out-of-bag error of trees (`whence.DataOOB`); the loss of another model without
            derivatives, and of a network of more than 4,000 parameters unless a solver is named.
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
        UnsupportedModel: If the model is neither a classifier with one label per example nor a
            regression, or penalty="best" or method="class_adjusted" does not apply to it.
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
    asked, suspects, train = objective, suspects_of(objective), objective.train
    options: dict[str, Any] = {"solver": solver, "damping": damping}
    if method is None:
        method = default_ranking(objective, solver)
    unseen, factor = method in _UNSEEN, 1.0
    if penalty is None and unseen and penalty_applies(objective):
        penalty = "best"
    if penalty == "best":
        best = best_penalty(objective_of(objective), **options)
        objective, factor, suspects = best.objective, best.factor, suspects_of(best.objective)
    if method == "class_adjusted":
        suspects = suspects.adjusted()
    outputs, least = objective.outputs(train), objective.loss.least(train.targets)
    losses = as_array(objective.loss(outputs, train.targets) - least)
    own, without, diagnostics = _without_each(objective, method, options)
    if unseen and without is not None:
        scores = as_array(suspects.cost(without, train.targets))
    else:
        scores = losses if method == "loss" or own is None else own
    ranking = np.argsort(-scores, kind="stable")
    first = ranking[:k]
    if without is not None:
        outputs = without[torch.from_numpy(first)]
    elif len(first) and solves_each(objective, solver):
        outputs = loo_outputs(objective_of(objective), first, **options).outputs
    else:  # as the model is, the example in its training data
        outputs = outputs[torch.from_numpy(first)]
    given = train.targets[torch.from_numpy(first)]
    suggested, agrees = suspects.suggested(outputs, given), suspects.agrees(outputs, given)
    gain = None
    if queries is not None:
        gain = _gain(objective, first, suggested, queries, measure, options)
    return LabelErrors(
        objective=objective,
        asked=asked,
        method=method,
        penalty=factor,
        ranking=ranking,
        scores=scores,
        self_influence=own,
        loss=losses,
        suggested=suggested,
        agrees=np.asarray(agrees.cpu().numpy()),
        gain=gain,
        diagnostics=diagnostics,
        wrong=suspects.wrong(without),
    )


def _without_each(
    objective: Trained, method: Ranking | Method, options: dict[str, Any]
) -> tuple[Floats | None, Tensor | None, Diagnostics]:
    """Return how far each loss rises without its example, [n], and the outputs without it, [n, c].

    `None` for what the ranking does not ask for, and the model does not give beside it.
    """
    everything, unseen = np.arange(len(objective.train)), method in _UNSEEN
    smooth = objective.differentiable() is objective
    own, without, diagnostics = None, None, Diagnostics(notes=objective.notes)
    named = method if isinstance(method, Method) else None
    if smooth and method == "loss" and not solves_each(objective, options["solver"]):
        return own, without, replace(diagnostics, notes=(*diagnostics.notes, _BY_LOSS))
    if named is not None or smooth or unseen:
        named = named or default_label_method(objective)
        found = chosen(objective, named, **options).fit(objective)
        ranked, diagnostics = found.self_values(everything)
        own, without = as_array(ranked), found.outputs_without(everything)
    if smooth and unseen:
        without = loo_outputs(objective_of(objective), everything, **options).outputs
    return own, without, diagnostics


def _gain(
    objective: Trained,
    where: NDArray[np.intp],
    targets: Tensor,
    queries: Data,
    measure: MeasureLike,
    options: dict[str, Any],
) -> Floats:
    """Return by how much the queries' mean measure falls with each label corrected, [k]."""
    if objective.differentiable() is objective:
        smooth = objective_of(objective)
        return relabel_gain(smooth, where, targets, queries, measure=measure, **options)
    judge = default_method(objective).fit(objective)
    examples, quantity = objective.examples(queries), measure_of(objective.loss, measure)
    return -as_array(judge.relabel_effects(examples, quantity, where, targets))
