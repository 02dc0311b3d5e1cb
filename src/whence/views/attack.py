"""What the page about an attack shows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from whence.objective.objective import Objective
from whence.pages import AttackPage, Light
from whence.views.examples import class_of, item_of

if TYPE_CHECKING:
    from whence.applications.attacks import Attack

_SHOWN = 20  # changed inputs, and queries, on a page
_WORDS = (
    "An audit of one's own model: how little a few training inputs must change before, trained on "
    "them, it reads the queries otherwise. The colors show where each input was changed."
)


def attack_page(attack: Attack, title: str, command: str) -> AttackPage:
    """Train from nothing to check, and return what the page of an attack shows.

    Args:
        attack: The attack.
        title: The heading.
        command: What reproduces the page.

    Returns:
        Plain data.
    """
    clean, queries = attack.clean, attack.queries
    train: Any = clean.train.subset(attack.positions[:_SHOWN])
    after = replace(train, inputs=attack.inputs[:_SHOWN])
    moved = (attack.inputs - attack.original).double().numpy()
    held = attack.verify()
    said = [_named(objective, attack) for objective in (clean, attack.poisoned)]
    return AttackPage(
        title=title,
        words=_WORDS,
        said=f"{attack}.".replace("->", "→"),
        pairs=tuple(
            (
                item_of(clean, train, i, title=f"Training example {name}", image_shape=None),
                item_of(
                    clean,
                    after,
                    i,
                    title=f"Training example {name}, changed",
                    image_shape=None,
                    acting=moved[i] if moved[i].ndim in (2, 3) else None,
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
                predicted=f"{said[0][i]} at first, "
                + ("and still" if said[0][i] == said[1][i] else f"then {said[1][i]}"),
            )
            for i in range(min(_SHOWN, len(queries)))
        ),
        losses=attack.losses,
        lights=(
            Light(
                level="good" if held[attack.flipped].all() else "bad",
                title="Is it the same when the model is trained from nothing?",
                words=f"{int(held.sum())} of {len(held)} queries flip after training from nothing; "
                f"{int(attack.flipped.sum())} did at the end of the attack.",
            ),
        ),
        method="Projected ascent of the queries' mean loss along the sign of its derivative in "
        "the training inputs, through retraining (Koh & Liang 2017, section 5.2).",
        command=command,
    )


def _named(objective: Objective, attack: Attack) -> list[str]:
    """Return what a model says of each query, in the user's words."""
    best = [class_of(row) for row in objective.outputs(attack.queries)]
    return [str(objective.classes[i]) if objective.classes else str(i) for i in best]
