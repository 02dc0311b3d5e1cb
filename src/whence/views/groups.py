"""What the page about groups of training rows shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from whence.methods.model_quality import ModelQuality
from whence.objective.trained import Trained
from whence.pages import Item, RankedPage, RankedRow
from whence.pages.words import decimals_of, number, signed
from whence.scores import Diagnostics
from whence.views.answer import class_names, target_decimals
from whence.views.made import Made
from whence.views.statuses import quality_of, statuses_of

_COLUMNS = ("rows", "summed influence", "without the group", "acts through")


@dataclass(frozen=True, kw_only=True)
class Group:
    """What a page shows of one group.

    Args:
        name: Of the group.
        size: How many rows it has.
        per_row: The mean of the size of its rows' influence.
        total: The sum of their influence.
        effect: What removing all of them does.
        feature: The input through which they act most, or `None`.
    """

    name: str
    size: int
    per_row: float
    total: float
    effect: float
    feature: str | None


def groups_page(
    groups: Iterable[Group],
    *,
    measure: str,
    unit: str,
    value: float,
    order: str,
    trained: Trained,
    quality: ModelQuality | None,
    diagnostics: Diagnostics,
    made: Made,
) -> RankedPage:
    """Return what the page of groups shows.

    Args:
        groups: The groups, the largest influence per row first.
        measure: What is predicted.
        unit: Of the loss, where it is that; else empty.
        value: The queries' mean measure as it is.
        order: How the effects of whole groups were found.
        trained: The model.
        quality: How good it is on what it has not seen, or `None`.
        diagnostics: How the first-order numbers were computed.
        made: How the page was made.

    Returns:
        Plain data.
    """
    lead = (
        f"Groups of training rows by the mean size of one row's influence on the mean {measure} of "
        f"the queries, {number(value)} as it is. The last column is by how much that falls when "
        "the model is trained without the group; below 0, it rises."
    )
    listed = list(groups)
    decimals = decimals_of(listed[0].per_row) if listed else 3
    return RankedPage(
        score="influence per row",
        unit=unit,
        columns=_COLUMNS,
        rows=tuple(
            RankedRow(
                item=_item(group),
                score=group.per_row,
                text=number(group.per_row, decimals),
                gain=-group.effect,
            )
            for group in listed
        ),
        statuses=(
            *statuses_of(diagnostics),
            quality_of(quality, class_names(trained), target_decimals(trained)),
        ),
        method=f"Influence of rows: first order. Effect of groups: {order}. Feature: the largest "
        "mean size of the derivative in a training row's input, per standard deviation of it or "
        "from one of its two values to the other.",
        n=len(trained.train),
        noun="group",
        label="size",
        gain="loss saved without it" if measure == "loss" else "fall without it",
        **made.common(made.data(), lead),
    )


def _item(group: Group) -> Item:
    """Return a group as a page shows it."""
    return Item(
        title=group.name,
        label=f"{group.size:,} rows",
        cells=(
            f"{group.size:,}",
            signed(group.total, decimals_of(group.total)),
            signed(group.effect, decimals_of(group.effect)),
            group.feature or "several inputs",
        ),
    )
