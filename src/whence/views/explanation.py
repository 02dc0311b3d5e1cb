"""What the page about one prediction shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from whence.methods.changes import perturbation
from whence.methods.prediction import Floats
from whence.pages import ExplanationPage, Light, Scatter
from whence.views.examples import item_of, lights_of, said_of
from whence.views.sequences import Decode, is_sequence, parts_of, pieces_of

if TYPE_CHECKING:
    from whence.applications.explain import Explanation, Verification

_FIRST_ORDER = Light(
    level="caution",
    title="Are the sizes right?",
    words="Of a network at one checkpoint, first order tells the rank of an example better than "
    "the size of its effect. Train again without it to know the size.",
)


def explanation_page(
    explanation: Explanation,
    verification: Verification | None,
    *,
    image_shape: tuple[int, ...] | None,
    texts: Sequence[str] | None,
    query_text: str | None,
    decode: Decode | None,
    title: str,
    command: str,
) -> ExplanationPage:
    """Return what the page of an explanation shows.

    Args:
        explanation: The explanation.
        verification: Predicted against retrained, or `None`.
        image_shape: (h, w) or (h, w, 3) if a row is an image laid out flat.
        texts: The training examples as texts, [n], or `None`.
        query_text: The query as a text, or `None`.
        decode: From token numbers to text, or `None`.
        title: The heading.
        command: What reproduces the page.

    Returns:
        Plain data.
    """
    objective, query = explanation.objective, explanation.query
    effects = (*explanation.helpful, *explanation.harmful)
    where = np.array([effect.position for effect in effects])
    shown = objective.train.subset(where)
    acting = _acting(explanation, where)
    actual = (
        dict(zip(verification.positions.tolist(), verification.actual.tolist(), strict=True))
        if verification is not None
        else {}
    )
    items = [
        item_of(
            objective,
            shown,
            index,
            title=f"Training example {effect.id}",
            image_shape=image_shape,
            acting=acting[index],
            effect=effect.effect,
            actual=actual.get(effect.position),
            decode=decode,
        )
        for index, effect in enumerate(effects)
    ]
    asked = item_of(objective, query, 0, title="The query", image_shape=image_shape, decode=decode)
    if texts is not None:
        items = [
            replace(item, text=texts[at], columns=(), acting=None)
            for item, at in zip(items, where.tolist(), strict=True)
        ]
    if query_text is not None:
        asked = replace(asked, text=query_text, columns=())
    unit = {"loss": "nats", "margin": "log odds", "probability": "probability"}
    diagnostics = explanation.diagnostics
    lights = lights_of(diagnostics, convex=objective.convex) if diagnostics is not None else ()
    if not objective.convex:
        lights = (*lights, _FIRST_ORDER)
    helped = len(explanation.helpful)
    return ExplanationPage(
        title=title,
        query=asked,
        said=said_of(objective, query),
        measure=explanation.scores.measure,
        unit=unit.get(explanation.scores.measure, ""),
        value=explanation.value,
        helpful=tuple(items[:helped]),
        harmful=tuple(items[helped:]),
        scatter=None
        if verification is None
        else Scatter(
            predicted=verification.predicted,
            actual=verification.actual,
            names=tuple(verification.ids.tolist()),
            r=verification.r,
            slope=verification.slope,
        ),
        lights=lights,
        method=f"Effects: {explanation.refined.method}. Candidates: {explanation.scores.method}.",
        command=command,
        n=len(objective.train),
    )


def _acting(explanation: Explanation, where: NDArray[np.intp]) -> Sequence[Floats | None]:
    """Return what acts in each example: derivatives in its inputs, or the parts of its tokens."""
    objective, query = explanation.objective, explanation.query
    options: dict[str, Any] = {
        "measure": explanation.measure,
        "solver": explanation.solver,
        "damping": explanation.damping,
    }
    if not len(where) or not pieces_of(objective.train, 0, None):
        return list(perturbation(objective, where, query, **options)) if len(where) else []
    if not is_sequence(objective):  # tokens are discrete, and one answer has no parts
        return [None] * len(where)
    return parts_of(objective, query, where, **options)
