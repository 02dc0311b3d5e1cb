"""Training data as chunks of consecutive examples, read when they are needed.

A corpus gives chunks with ids, in order; its reader, which goes to the workers, makes them the
model's examples. Whatever the corpus is, memory holds a few chunks.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import singledispatch
from itertools import islice
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.checked import converted
from whence.errors import InvalidInput
from whence.evaluation.identity import identity_of
from whence.index.files import rows_of
from whence.index.ids import array_of
from whence.index.texts import Tokenized, columns, tokenizer_digests
from whence.network.forms import has_positions, one_data_set
from whence.objective.trained import Examples, Trained
from whence.tiles import tiles

_TOKENS = 16_384  # in a batch, padding counted in
_EXAMPLES = 256  # in a batch, at most
_IDS = ("id", "ids", "idx", "index", "uuid")  # columns that name examples


@final
@dataclass(frozen=True, eq=False)
class Chunk:
    """Consecutive examples of a corpus.

    Args:
        first: The position of the first, from the start of the corpus.
        ids: Their names, [b].
        content: What the reader reads.
    """

    first: int
    ids: NDArray[Any]
    content: Any


class Reader(ABC):
    """Makes chunks the model's examples; sent to each worker once."""

    @abstractmethod
    def batches(self, chunk: Chunk) -> Iterator[tuple[NDArray[np.intp], Examples, Tensor]]:
        """Yield places in the chunk, their examples, and the weights of those."""


class Corpus(ABC):
    """Training data that can be read from any chunk on.

    Attributes:
        reader: Makes its chunks examples.
        identity: What tells these data from others.
        counted: Whether its examples have no names of their own but their numbers.
    """

    reader: Reader
    identity: str
    counted: bool

    @property
    def tokenizer(self) -> dict[str, str]:
        """Digests of the tokenizer; nothing where data are no texts."""
        return {}

    @abstractmethod
    def chunks(self, size: int, start: int) -> Iterator[Chunk]:
        """Yield chunks of `size` examples, from a position that is a multiple of it."""


@final
@dataclass(frozen=True, eq=False)
class HeldReader(Reader):
    """Takes examples that are in memory.

    Args:
        examples: All of them.
        weights: wᵢ, [n].
    """

    examples: Examples
    weights: Tensor

    def batches(self, chunk: Chunk) -> Iterator[tuple[NDArray[np.intp], Examples, Tensor]]:
        """Yield them, a few hundred at a time."""
        for part in tiles(len(chunk.ids), budget=_EXAMPLES):
            places = np.arange(part.start, part.stop)
            where = places + chunk.first
            yield places, self.examples.subset(where), self.weights[torch.as_tensor(where)]


@final
@dataclass(frozen=True, eq=False)
class Held(Corpus):
    """The training examples of the model.

    Args:
        reader: Holds them.
        identity: Their digest.
        counted: Whether ids are 0, 1, ….
    """

    reader: HeldReader
    identity: str
    counted: bool

    def chunks(self, size: int, start: int) -> Iterator[Chunk]:
        """Yield positions; the reader has the examples."""
        ids = self.reader.examples.ids
        for first in range(start, len(ids), size):
            yield Chunk(first, ids[first : first + size], None)


@final
@dataclass(frozen=True, eq=False)
class RowReader(Reader):
    """Tokenizes rows, and pads them in batches of nearly equal lengths.

    Args:
        trained: The model, which encodes them.
        prepare: From a row to what the model's data set holds; `None` where that is what comes.
        tokens: In a batch, padding counted in.
    """

    trained: Trained
    prepare: Tokenized | None
    tokens: int

    def batches(self, chunk: Chunk) -> Iterator[tuple[NDArray[np.intp], Examples, Tensor]]:
        """Yield examples, the short ones first: each is padded to the longest of its batch."""
        rows = chunk.content if self.prepare is None else [self.prepare(r) for r in chunk.content]
        lengths = np.array([_length(row) for row in rows])
        for places in _batches(lengths, self.tokens):
            examples = self.trained.examples([rows[place] for place in places])
            yield places, examples, torch.ones(len(places))


@final
@dataclass(frozen=True, eq=False)
class Streamed(Corpus):
    """Rows of a data set, of files or of a stream.

    Args:
        reader: Makes them examples.
        identity: What tells them from others; empty where nothing does.
        rows: From a position to the rows from there on.
        named: The column of ids, or `None` to number them.
    """

    reader: RowReader
    identity: str
    rows: Callable[[int], Iterator[Any]]
    named: str | None

    @property
    def counted(self) -> bool:  # type: ignore[override]
        """Whether no column names them."""
        return self.named is None

    @property
    def tokenizer(self) -> dict[str, str]:
        """Digests of the tokenizer, if there is one."""
        prepare = self.reader.prepare
        return {} if prepare is None else tokenizer_digests(prepare.tokenizer)

    def chunks(self, size: int, start: int) -> Iterator[Chunk]:
        """Yield rows as they come."""
        rows = self.rows(start)
        while some := list(islice(rows, size)):
            ids: Any = range(start, start + len(some))
            if self.named is not None:
                ids = [_named(row, self.named) for row in some]
            yield Chunk(start, array_of(ids), some)
            start += len(some)


def corpus_of(
    data: Any,
    trained: Trained,
    *,
    tokenizer: Any = None,
    max_length: int | None = None,
    trl: bool = False,
    ids: str | None = None,
    name: str = "",
    tokens: int = _TOKENS,
) -> Corpus:
    """Return training data in any form as a corpus.

    Args:
        data: `None` for the model's own; (x, y) or examples; a map-style data set; a split of a
            Hugging Face data set, streaming or not; a file or folder of Parquet or JSON lines; or
            any iterable of rows.
        trained: The model.
        tokenizer: Of texts; rows that have "input_ids" need none.
        max_length: Tokens of a row, at most.
        trl: As for `Tokenized`.
        ids: The column that names the rows; "id" or the like if `None`, else their numbers.
        name: What tells the data from others, for those that do not tell themselves.
        tokens: In a batch, padding counted in.

    Raises:
        InvalidInput: If the data have another form.
    """
    prepare = None if tokenizer is None else Tokenized(tokenizer, max_length, trl)
    return _corpus(data, _Asked(RowReader(trained, prepare, tokens), ids, name))


@final
@dataclass(frozen=True, eq=False)
class _Asked:
    """What a user asks of training data besides the data.

    Args:
        reader: Of rows.
        ids: The column that names rows, or `None`.
        name: What tells the data from others; empty where they tell themselves.
    """

    reader: RowReader
    ids: str | None
    name: str

    def streamed(self, identity: str, rows: Callable[[int], Iterator[Any]]) -> Corpus:
        """Return rows as a corpus."""
        named, told = _id_column(rows, self.ids), self.name or identity
        if told and self.reader.prepare is not None:
            told += self.reader.prepare.words
        return Streamed(self.reader, told, rows, named)

    def held(self, examples: Examples, weights: Tensor, identity: str) -> Corpus:
        """Return examples in memory as a corpus."""
        counted = np.array_equal(examples.ids, np.arange(len(examples)))
        return Held(HeldReader(examples, weights), self.name or identity, counted)


@singledispatch
def _corpus(data: Any, asked: _Asked) -> Corpus:
    """Return data of a kind as a corpus: those whose rows `iter` finds by their positions, too."""
    of_rows = hasattr(data, "__getitem__") or hasattr(data, "__iter__")
    if not of_rows or hasattr(data, "iloc") or getattr(data, "ndim", 1) == 0:
        raise InvalidInput(
            "Expected training data: (x, y), a data set, or a file or folder of Parquet or JSON "
            f"lines. Got {type(data).__name__}."
        )
    items = _indexed(data) if has_positions(data) else _streamed(data)
    return asked.streamed(str(getattr(data, "_fingerprint", "")), items)


@_corpus.register(Iterator)
def _refuse_iterator(data: Iterator[Any], asked: _Asked) -> Corpus:
    raise InvalidInput(
        "Expected data that can be read again, to go on after an interruption. Got a generator "
        "or another iterator. Pass a data set, or an object whose __iter__ starts anew."
    )


@_corpus.register(str)
@_corpus.register(os.PathLike)
def _of_files(data: str | os.PathLike[str], asked: _Asked) -> Corpus:
    return asked.streamed(*rows_of(converted("data", data, os.PathLike)))


@_corpus.register(type(None))
def _own(data: None, asked: _Asked) -> Corpus:
    trained = asked.reader.trained
    return asked.held(trained.train, trained.weights, identity_of(trained, None, "training data"))


@_corpus.register(Mapping)
def _of_columns(data: Mapping[str, Any], asked: _Asked) -> Corpus:
    return _given(one_data_set(data), asked)


@_corpus.register(Examples)
@_corpus.register(tuple)
def _given(data: Any, asked: _Asked) -> Corpus:
    trained = asked.reader.trained
    examples = trained.examples(data)
    weights = torch.ones(len(examples)).to(trained.weights)
    return asked.held(examples, weights, identity_of(trained, examples, "more data"))


def examples_at(corpus: Corpus, wanted: NDArray[np.intp]) -> dict[int, Examples]:
    """Return some examples, each by itself, by their positions.

    Args:
        corpus: The data.
        wanted: Positions, sorted and not empty.

    Cost:
        One pass over the rows up to the last of them; only these are tokenized.
    """
    found = dict[int, Examples]()
    for chunk in corpus.chunks(_EXAMPLES, int(wanted[0]) // _EXAMPLES * _EXAMPLES):
        stop = chunk.first + len(chunk.ids)
        for position in wanted[(wanted >= chunk.first) & (wanted < stop)].tolist():
            place = slice(position - chunk.first, position - chunk.first + 1)
            content = None if chunk.content is None else chunk.content[place]
            alone = Chunk(position, chunk.ids[place], content)
            found[position] = next(corpus.reader.batches(alone))[1]
        if stop > wanted[-1]:
            break
    return found


def _indexed(data: Any) -> Callable[[int], Iterator[Any]]:
    """Return the rows of a data set with positions."""
    return lambda start: (data[i] for i in range(start, len(data)))


def _streamed(data: Any) -> Callable[[int], Iterator[Any]]:
    """Return the rows of a stream, which is asked to skip those before where it can."""

    def rows(start: int) -> Iterator[Any]:
        if start and hasattr(data, "skip"):
            return iter(data.skip(start))
        return islice(iter(data), start, None)

    return rows


def _id_column(rows: Callable[[int], Iterator[Any]], asked: str | None) -> str | None:
    """Return the column of ids, or `None` if rows are to be numbered."""
    known = list(columns(next(rows(0), None)))
    if asked is not None and asked not in known:
        raise InvalidInput(f"Expected a column {asked!r} of ids. Got the columns {known}.")
    return asked or next((name for name in _IDS if name in known), None)


def _named(row: Mapping[str, Any], column: str) -> Any:
    """Return the id of a row."""
    try:
        return row[column]
    except KeyError as error:
        raise InvalidInput(f"Expected the id {column!r} in every row. Got {list(row)}.") from error


def _length(row: Any) -> int:
    """Return the number of tokens of a row; 1 for what has none."""
    tokens = columns(row).get("input_ids")
    return max(1, len(tokens)) if isinstance(tokens, Sized) else 1


def _batches(lengths: NDArray[np.intp], tokens: int) -> Iterator[NDArray[np.intp]]:
    """Yield places of rows of nearly equal lengths, no more than so many tokens with padding."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    for stop in range(1, len(order) + 1):
        full = stop - start >= _EXAMPLES
        if stop == len(order) or full or (stop + 1 - start) * lengths[order[stop]] > tokens:
            yield order[start:stop]
            start = stop
