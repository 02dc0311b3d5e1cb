"""What the page about label errors shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whence.arrays import Floats
from whence.methods.model_quality import ModelQuality
from whence.methods.wrong_labels import WrongLabels
from whence.objective.trained import Examples, Trained
from whence.pages import Fact, RankedPage, RankedRow
from whence.pages.words import decimals_of, number
from whence.scores import Diagnostics
from whence.views.answer import class_names, label_of
from whence.views.columns import NONE, Columns, columns_of
from whence.views.examples import item_of
from whence.views.made import Made
from whence.views.statuses import quality_of, quality_sentence, statuses_of

_MOSTLY_WRONG = 0.8  # of the errors of one answer for all, from which a model has learned little
_WORDS = (
    "Training examples whose label the model believes only because it was told. Look at them from "
    "the top, and correct those that are wrong. The suggested label is what the model says of the "
    "example when it is trained without it."
)
_NUMBERS = (
    "Training examples whose number a model trained without them does not expect. Look at them "
    "from the top, and correct those that are wrong. What is suggested is what that model predicts."
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Suspects:
    """Training examples ranked by how wrong their labels look, as a page shows them.

    Args:
        trained: The model.
        ranking: Positions of the examples to show, the most suspect first, [m].
        score: What they are ranked by.
        ranked_by: The same with the penalty.
        scores: In the order of the training data, in the unit of the loss, [n].
        losses: The examples' losses in that order, [n]; `None` where they are the scores.
        suggested: Labels suggested for the first k of the ranking, encoded, [k].
        agrees: Whether the model says the given label all the same, [k].
        gain: What correcting these is expected to bring, [k], or `None`.
        diagnostics: How the numbers were computed.
        wrong: How many labels are wrong, an estimate, or `None`.
    """

    trained: Trained
    ranking: NDArray[np.intp]
    score: str
    ranked_by: str
    scores: Floats
    losses: Floats | None
    suggested: Tensor
    agrees: NDArray[np.bool_]
    gain: Floats | None
    diagnostics: Diagnostics
    wrong: WrongLabels | None


def label_errors_page(
    suspects: Suspects,
    *,
    quality: ModelQuality | None,
    texts: Sequence[str] | None,
    made: Made,
) -> RankedPage:
    """Return what the page of label errors shows.

    Args:
        suspects: The ranking.
        quality: How good the model is on what it has not seen, or `None`.
        texts: The training examples as texts, [n], or `None`.
        made: How the page was made.

    Returns:
        Plain data.
    """
    trained = suspects.trained
    shown = trained.train.subset(suspects.ranking)
    columns = columns_of([shown.inputs]) if made.image_shape is None and texts is None else NONE
    rows = _rows(suspects, shown, columns, texts, made.image_shape)
    names = class_names(trained)
    classifies = trained.loss.classifies or bool(names)
    words = _WORDS if classifies else _NUMBERS
    good = "" if quality is None else quality_sentence(quality, names, 0)
    return RankedPage(
        score=suspects.score,
        unit=trained.loss.unit,
        columns=columns.names,
        rows=rows,
        facts=_facts(suspects.wrong, quality, len(rows)),
        decisions=True,
        statuses=(*statuses_of(suspects.diagnostics), quality_of(quality, names, 0)),
        method=f"Ranked by {suspects.ranked_by}; suggested labels by one Newton step without the "
        "example; gains to first order.",
        n=len(trained.train),
        label="label" if classifies else "number",
        **made.common(made.data(), words, good),
    )


def _rows(
    suspects: Suspects,
    shown: Examples,
    columns: Columns,
    texts: Sequence[str] | None,
    image_shape: tuple[int, ...] | None,
) -> tuple[RankedRow, ...]:
    """Return the examples of a ranking, each with its score and what is suggested."""
    trained, scores = suspects.trained, suspects.scores
    losses, gain = suspects.losses, suspects.gain
    decimals = decimals_of(float(scores[suspects.ranking[0]])) if len(shown) else 3
    found = []
    for row, position in enumerate(suspects.ranking.tolist()):
        title = f"Training example {shown.ids[row]}"
        item = item_of(trained, shown, row, title=title, image_shape=image_shape, columns=columns)
        if texts is not None:
            item = replace(item, text=texts[position])
        known = row < len(suspects.suggested)
        if known:
            said = shown.targets[row] if suspects.agrees[row] else suspects.suggested[row]
            item = replace(item, predicted=label_of(trained, said))
        value = float(scores[position])
        found.append(
            RankedRow(
                item=item,
                score=value,
                text=number(value, decimals),
                name=str(shown.ids[row]),
                loss=None if losses is None else float(losses[position]),
                gain=float(gain[row]) if known and gain is not None else None,
            )
        )
    return tuple(found)


def wrong_in_words(wrong: WrongLabels, quality: ModelQuality | None) -> str:
    """Return how many labels look wrong, with the error of the estimate, in a sentence.

    Args:
        wrong: The estimate.
        quality: How good the model is on what it has not seen, or `None`.
    """
    return (
        f"About {wrong.count:,.0f} of {wrong.n:,} labels look wrong to the model, give or take "
        f"{max(wrong.error, 1):,.0f}; rows between two classes count too.{_own_mistakes(quality)}"
    )


def _own_mistakes(quality: ModelQuality | None) -> str:
    """Return that the model errs where labels look wrong, a sentence; empty where it is good."""
    if quality is None or quality.accuracy is None or quality.majority is None:
        return ""
    wrong, simple = 1 - quality.accuracy, 1 - quality.majority
    if wrong <= _MOSTLY_WRONG * simple:
        return ""
    if quality.weighted is not None:
        return " A fit with weighted classes errs on the common one: many are its own mistakes."
    return " The model is hardly better than one answer for all: many are its own mistakes."


def _facts(wrong: WrongLabels | None, quality: ModelQuality | None, shown: int) -> tuple[Fact, ...]:
    """Return how many rows deserve a look."""
    if wrong is None:
        return ()
    words = (
        f"of {wrong.n:,} labels look wrong to the model when it has not seen them, give or take "
        f"{max(wrong.error, 1):,.0f}. Rows that lie between two classes count too."
        f"{_own_mistakes(quality)}"
    )
    check = wrong.worth_a_look
    more = "" if check <= shown else f"; {shown:,} are shown here"
    rows = "row" if check == 1 else "rows"
    look = (
        f"from the top {'is' if check == 1 else 'are'} worth a look{more}. Stop where the labels "
        "begin to be right."
    )
    return (
        Fact(figure=f"About {wrong.count:,.0f}", words=words),
        Fact(figure=f"{check:,} {rows}", words=look),
    )
