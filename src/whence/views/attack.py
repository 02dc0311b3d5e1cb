"""What the page about an attack shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whence.methods.model_quality import model_quality
from whence.objective.trained import Examples, Trained
from whence.pages import AttackPage, Status
from whence.views.answer import class_names, predicted_labels, target_decimals
from whence.views.examples import item_of
from whence.views.made import Made
from whence.views.statuses import quality_of

_SHOWN = 20  # changed inputs, and queries, on a page
_LEAD = (
    "An audit of one's own model: how little a few training inputs must change before, trained on "
    "them, it reads the queries otherwise. The colors show where each input was changed."
)


def attack_page(
    clean: Trained,
    poisoned: Trained,
    queries: Examples,
    positions: NDArray[np.intp],
    *,
    original: Tensor,
    changed: Tensor,
    losses: Sequence[float],
    flipped: NDArray[np.bool_],
    held: NDArray[np.bool_],
    said: str,
    made: Made,
) -> AttackPage:
    """Return what the page of an attack shows.

    Args:
        clean: The model before.
        poisoned: The model trained on the changed inputs.
        queries: The q queries.
        positions: Of the changed training examples, [m].
        original: Their inputs before, [m, ...].
        changed: Their inputs now, [m, ...].
        losses: The mean loss of the queries after each step, the clean one first.
        flipped: Which queries are read otherwise at the end of the attack, [q].
        held: Which are after training from nothing, [q].
        said: The outcome, in a sentence.
        made: How the page was made.

    Returns:
        Plain data.
    """
    train: Any = clean.train.subset(positions[:_SHOWN])
    after = replace(train, inputs=changed[:_SHOWN])
    moved = (changed - original).double().numpy()
    before, now = (predicted_labels(each, each.outputs(queries)) for each in (clean, poisoned))
    return AttackPage(
        said=said,
        pairs=tuple(
            (
                item_of(clean, train, i, title=f"Training example {name}", image_shape=None),
                item_of(
                    clean,
                    after,
                    i,
                    title=f"Training example {name}, changed",
                    image_shape=None,
                    attribution=moved[i] if moved[i].ndim in (2, 3) else None,
                ),
            )
            for i, name in enumerate(train.ids)
        ),
        queries=tuple(
            item_of(
                clean,
                queries,
                i,
                title=f"Query {queries.ids[i]}",
                image_shape=None,
                predicted=f"{before[i]} at first, "
                + ("and still" if before[i] == now[i] else f"then {now[i]}"),
            )
            for i in range(min(_SHOWN, len(queries)))
        ),
        losses=tuple(losses),
        statuses=(
            Status(
                level="good" if held[flipped].all() else "bad",
                title=f"{int(held.sum())} of {len(held)} queries flip after training from nothing; "
                f"{int(flipped.sum())} did at the end of the attack.",
            ),
            quality_of(model_quality(clean), class_names(clean), target_decimals(clean)),
        ),
        method="Projected ascent of the queries' mean loss along the sign of its derivative in "
        "the training inputs, through retraining (Koh & Liang 2017, section 5.2).",
        **made.common(_LEAD),
    )
