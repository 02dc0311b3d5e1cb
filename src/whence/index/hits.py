"""What an index answers: the training examples that matter most, and how its files are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from whence.checked import checked
from whence.errors import InvalidInput
from whence.index.asking import Asked
from whence.index.corpus import Corpus, corpus_of, examples_at
from whence.index.page import Found, hits_page
from whence.objective.trained import Examples
from whence.pages import write
from whence.result import Card, Result
from whence.scores import Diagnostics, Ranking
from whence.views.made import Made

_ROUNDING = 1e-2  # of a row, by the other examples of its batch, most where it is stored in 8 bits


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Hits(Result):
    """The most helpful and the most harmful of all indexed examples, for each query.

    Args:
        helpful: The largest scores, in falling order.
        harmful: The smallest scores, in rising order.
        asked: The queries, and what the index makes of them.
    """

    helpful: Ranking
    harmful: Ranking
    asked: Asked = field(repr=False)

    @property
    def query_ids(self) -> NDArray[Any]:
        """The user's names of the queries, [q]."""
        return self.asked.queries.ids

    @property
    def n(self) -> int:
        """The number of indexed examples, removed ones included."""
        return self.asked.manifest.n

    @property
    def method(self) -> str:
        """What made the scores, in words."""
        return self.asked.method

    @property
    def measure(self) -> str:
        """What is predicted."""
        return self.asked.measure

    @property
    def diagnostics(self) -> Diagnostics:
        """How far to trust the scores."""
        return self.asked.diagnostics

    @checked
    def top(self, k: int = 10) -> Ranking:
        """Return the k most helpful examples per query, k at most what was asked for."""
        return _first(self.helpful, k)

    @checked
    def bottom(self, k: int = 10) -> Ranking:
        """Return the k most harmful examples per query, k at most what was asked for."""
        return _first(self.harmful, k)

    def to_frame(self) -> pd.DataFrame:
        """Return a frame with a row per query and example."""
        parts = []
        for side, ranking in (("helpful", self.helpful), ("harmful", self.harmful)):
            q, k = ranking.ids.shape
            parts.append(
                pd.DataFrame(
                    {
                        "query": self.query_ids.repeat(k),
                        "side": side,
                        "rank": [*range(1, k + 1)] * q,
                        "id": ranking.ids.ravel(),
                        "score": ranking.values.ravel(),
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)

    @checked
    def report(
        self,
        path: str | os.PathLike[str],
        data: Any = None,
        *,
        tokenizer: Any = None,
        max_length: int | None = None,
        trl: bool = False,
        name: str = "",
        title: str = "Which training examples made the model say this?",
        about: Sequence[str] = (),
        command: str = "index.query(queries).report(path, data)",
    ) -> Path:
        """Write the queries and the examples as one HTML page, texts whole.

        Of a sequence model each token is the darker, the more of the score its own term of the loss
        has, where scores are derivatives of the loss.

        Args:
            path: The file; an existing one is replaced, whole or not at all.
            data: What `build`, or an `append`, was given; `None` for the training data of the
                model. Examples of other data are shown by id alone.
            tokenizer: As for `build`.
            max_length: As for `build`.
            trl: As for `build`.
            name: As for `build`.
            title: The heading.
            about: Which data and model these are, a sentence each; the first stands on top.
            command: What reproduces the page; shown at its end.

        Returns:
            The path.

        Raises:
            InvalidInput: If the index does not hold the data, or in another order, or the path
                cannot be written.

        Cost:
            One pass over the data up to the last example shown; for each of these a forward pass,
            its features and a derivative.
        """
        corpus = corpus_of(
            data,
            self.asked.features.trained,
            tokenizer=tokenizer,
            max_length=max_length,
            trl=trl,
            name=name,
        )
        examples = self._examples(corpus)
        if data is not None:
            self._check_scores(examples)
        found = Found(
            asked=self.asked,
            helpful=self.helpful,
            harmful=self.harmful,
            examples=examples,
            decode=tokenizer,
        )
        return write(hits_page(found, Made(title=title, about=tuple(about), command=command)), path)

    def _examples(self, corpus: Corpus) -> dict[int, Examples]:
        """Return those of the examples that are of some data, by their positions in the index."""
        first = 0
        for part in self.asked.manifest.data:
            rows = part.rows or 0
            if part.identity == corpus.identity:
                every = np.unique([self.helpful.positions, self.harmful.positions])
                wanted = every[(every >= first) & (every < first + rows)] - first
                found = examples_at(corpus, wanted) if len(wanted) else {}
                if len(found) < len(wanted):
                    break
                return {first + position: each for position, each in found.items()}
            first += rows
        raise InvalidInput(
            "Expected the data that the index was built with, or that were appended. Got others. "
            "Pass data=, tokenizer=, max_length=, trl= and name= as build had them, and none of "
            "them for the training data of the model."
        )

    def _check_scores(self, examples: dict[int, Examples]) -> None:
        """Raise unless examples, scored anew, have the scores that their stored rows have.

        Nothing else tells a list in another order: each would stand beside another one's score.

        Args:
            examples: Of weight one, by their positions in the index.
        """
        for position, example in examples.items():
            scores, most = (each.numpy() for each in self.asked.scored(example))
            for end in (self.helpful, self.harmful):
                query, place = np.nonzero(end.positions == position)
                stored = end.values[query, place]
                allowed = np.abs(stored) / 2 + _ROUNDING * most[query]
                for at in np.flatnonzero(np.abs(scores[query] - stored) > allowed)[:1]:
                    raise InvalidInput(
                        "Expected the data that the index was built with, in their order. Got "
                        f"another example where it has {end.ids[query[at], place[at]]}: its score "
                        f"is {scores[query[at]]:.2g}, and not {stored[at]:.2g}. Pass data= as "
                        "build had them."
                    )

    def card(self) -> Card:
        """Return the first of the first query."""
        q, k = self.helpful.ids.shape
        frame = self.to_frame()
        table = frame[frame["query"] == self.query_ids[0]].drop(columns="query") if q else None
        return Card(
            title=f"the {k} most helpful and most harmful of {self.n:,} examples for "
            f"{q:,} {'query' if q == 1 else 'queries'}, by {self.method}",
            facts={"queries": f"{q:,}", "examples": f"{self.n:,}", "measure": self.measure},
            table=table,
        )


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Info(Result):
    """What an index holds.

    Args:
        n: Rows, removed ones included.
        removed: Rows that are not answered with.
        complete: Whether the last build or append has come to its end.
        shards: Files of rows.
        dimensions: Numbers per row.
        encoding: How they are stored.
        size: Bytes of all files.
        error: Relative root mean square error of the stored rows.
        words: What makes the scores.
    """

    n: int
    removed: int
    complete: bool
    shards: int
    dimensions: int
    encoding: str
    size: int
    error: float
    words: str

    def card(self) -> Card:
        """Return the facts."""
        state = "" if self.complete else "; its last build or append was interrupted"
        return Card(
            title=f"an index of {self.n:,} rows of {self.dimensions:,} numbers in "
            f"{self.encoding}, {self.size / 1e6:,.1f} MB{state}",
            facts={
                "rows": f"{self.n:,}",
                "removed": f"{self.removed:,}",
                "shards": f"{self.shards:,}",
                "error of the rows": f"{self.error:.2g}",
            },
            words=(f"Scores: {self.words}.",),
        )


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Verification(Result):
    """How the files of an index are, and what their encoding costs.

    Args:
        faults: What is wrong, a sentence per file; empty if every byte is as it was written.
        files: How many files were read.
        encoding: How rows are stored.
        error: ‖row − stored‖ / ‖row‖ over all rows, as measured when they were written.
        worst: The largest such error of a shard.
        pearson: The correlation of scores by stored rows with those by float32 features, the
            smallest over the queries; `None` where no queries were given, or the scores of each
            are all alike.
        overlap: The share of the top k by float32 features that are in the top k by stored rows,
            mean over the queries; `None` where no queries were given.
        k: Of the overlap.
        compared: Training examples in the comparison.
    """

    faults: tuple[str, ...]
    files: int
    encoding: str
    error: float
    worst: float
    pearson: float | None = None
    overlap: float | None = None
    k: int = 0
    compared: int = 0

    @property
    def ok(self) -> bool:
        """Whether every byte is as it was written."""
        return not self.faults

    def __str__(self) -> str:
        """Return a line per finding."""
        lines = [
            f"files     {self.files:,} read, "
            + ("every byte as it was written" if self.ok else f"{len(self.faults):,} damaged"),
            *(f"          {fault}" for fault in self.faults),
            f"rows      {self.encoding}: relative error {self.error:.2g}, at most {self.worst:.2g} "
            "in a shard",
        ]
        if self.overlap is not None:
            least = "none" if self.pearson is None else f"{self.pearson:.5f} at least"
            lines.append(
                f"scores    beside float32 features of {self.compared:,} examples: correlation "
                f"{least}, {self.overlap:.1%} of the first {self.k}"
            )
        return "\n".join(lines)

    def card(self) -> Card:
        """Return the findings."""
        state = "whole" if self.ok else f"damaged: {self.faults[0]}"
        return Card(
            title=f"{self.files:,} files {state}; {self.encoding} rows with relative error "
            f"{self.error:.2g}",
            words=self.faults,
        )


def _first(ranking: Ranking, k: int) -> Ranking:
    """Return the first k of a ranking."""
    most = ranking.ids.shape[1]
    if not 1 <= k <= most:
        raise InvalidInput(f"Expected 1 <= k <= {most}, what the index was asked for. Got {k}.")
    return replace(
        ranking,
        ids=ranking.ids[:, :k],
        positions=ranking.positions[:, :k],
        values=ranking.values[:, :k],
    )
