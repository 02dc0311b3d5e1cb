"""The page of an index's answer: the texts that matter most, with their ids and scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final

import numpy as np
from torch import Tensor

from whence.arrays import Floats
from whence.index.asking import Asked
from whence.methods.prediction import as_array
from whence.methods.tokens import token_parts
from whence.objective.objective import objective_of
from whence.objective.trained import Examples, Trained
from whence.pages import Color, Fact, Item, Listed, Listing, ResultPage
from whence.pages.words import number
from whence.scores import Ranking
from whence.views.columns import Columns, columns_of
from whence.views.examples import item_of
from whence.views.made import Made
from whence.views.sequences import Decode, is_sequence, placed
from whence.views.statuses import statuses_of


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """An index's answer, with the examples that it names.

    Args:
        asked: What the index was asked.
        helpful: The largest scores, in falling order.
        harmful: The smallest scores, in rising order.
        examples: One example by itself, by its position in the index; those that could be read.
        decode: From token numbers to text; the numbers are shown if `None`.
    """

    asked: Asked
    helpful: Ranking
    harmful: Ranking
    examples: Mapping[int, Examples]
    decode: Decode | None

    @property
    def trained(self) -> Trained:
        """The model."""
        return self.asked.features.trained

    @cached_property
    def columns(self) -> Columns:
        """Which columns are shown of examples that are rows of a table."""
        each = (self.asked.queries, *self.examples.values())
        return columns_of([examples.inputs for examples in each])

    @cached_property
    def of_sequences(self) -> bool:
        """Whether the model answers each token."""
        return is_sequence(self.trained)

    def item(self, position: int, name: str, direction: Tensor | None) -> Item | None:
        """Return an example as it is shown, or `None` where it could not be read.

        Args:
            position: In the index.
            name: The user's name of it.
            direction: Of θ, along which the derivative of its loss is its score, [p, 1]; `None`
                where the score is no such derivative.
        """
        example = self.examples.get(position)
        if example is None:
            return None
        parts: Floats | None = None
        if direction is not None and self.of_sequences:
            objective = objective_of(self.trained)
            found = next(token_parts(objective, example, objective.loss, direction))
            parts = placed(example, 0, as_array(found[0, 0]))
        return self.shown(example, 0, title=f"Training example {name}", parts=parts)

    def shown(
        self, examples: Examples, index: int, *, title: str, parts: Floats | None = None
    ) -> Item:
        """Return one of some examples as it is shown.

        Args:
            examples: The examples.
            index: Its position among them.
            title: What to call it.
            parts: The part of its score that each of its tokens has, [t].
        """
        return item_of(
            self.trained,
            examples,
            index,
            title=title,
            image_shape=None,
            columns=self.columns,
            attribution=parts,
            decode=self.decode,
        )


def hits_page(found: Found, made: Made) -> ResultPage:
    """Return what the page of an index's answer shows.

    Args:
        found: The answer, with examples.
        made: How the page was made.
    """
    asked, k = found.asked, found.helpful.ids.shape[1]
    removed, words = asked.manifest.removed, asked.method
    n = asked.manifest.n - (0 if removed is None else removed.count)
    queries = Listing(
        heading="What was asked",
        noun="query",
        heads=(),
        columns=found.columns.names,
        lines=tuple(
            Listed(
                name=str(name),
                numbers=(),
                item=found.shown(asked.queries, index, title=f"Query {name}"),
            )
            for index, name in enumerate(asked.queries.ids)
        ),
    )
    return ResultPage(
        said=f"Of {n:,} training examples, those that seem to lower the {asked.measure} of each "
        f"query most, and those that seem to raise it most: {k:,} at most on either side.",
        facts=(Fact(figure=f"{n:,}", words="training examples were compared, each of them."),),
        listings=(queries, *_sides(found)),
        quantity=found.trained.loss.regresses,
        statuses=statuses_of(asked.diagnostics, sized=found.trained.convex),
        method=f"{words[0].upper()}{words[1:]}.",
        **made.common(made.data(f"An index of {n:,} training examples.")),
    )


def _sides(found: Found) -> Iterator[Listing]:
    """Yield the examples on both sides of each query."""
    for query in range(len(found.asked.queries)):
        direction = found.asked.direction(query)
        ends = found.helpful.values[query], found.harmful.values[query]
        largest = float(np.abs(ends).max()) or 1.0
        yield _side(found, found.helpful, query, direction, largest, "lower")
        yield _side(found, found.harmful, query, direction, largest, "raise")


def _side(
    found: Found,
    ranking: Ranking,
    query: int,
    direction: Tensor | None,
    largest: float,
    verb: Literal["lower", "raise"],
) -> Listing:
    """Return the examples on one side of one query; the bar of the largest score has length 1.

    Of few examples the largest scores may be negative, and the smallest positive: they are left
    out. How to read a list stands under those of the first query.
    """
    measure = found.asked.measure
    sign: int = 1 if verb == "lower" else -1
    color: Color = "toward" if verb == "lower" else "against"
    split = direction is not None and found.of_sequences
    words = f"A score is the predicted change of the {measure} without the example."
    of_tokens = (
        "Colors in a text show which of its tokens the score comes from: had the model not been "
        f"trained to say an orange one, the {measure} would rise; for a violet one it would fall. "
        "Each text is scaled to its own strongest token. "
    )
    return Listing(
        heading=f"Training on these seems to {verb} the {measure} of query "
        f"{found.asked.queries.ids[query]}",
        noun="training example",
        heads=("score",),
        columns=found.columns.names,
        lines=tuple(
            Listed(
                name=str(name),
                numbers=(number(value, 3),),
                item=found.item(position, str(name), direction),
                size=value / largest,
                color=color,
            )
            for name, position, value in zip(
                ranking.ids[query].tolist(),
                ranking.positions[query].tolist(),
                ranking.values[query].tolist(),
                strict=True,
            )
            if sign * value > 0
        ),
        words="" if query else of_tokens + words if split else words,
    )
