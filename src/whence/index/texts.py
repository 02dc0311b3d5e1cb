"""Texts as tokens with labels: plain, prompt with completion, or the messages of a chat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from importlib import import_module
from itertools import takewhile
from typing import Any, final

from whence.errors import InvalidInput, MissingDependency
from whence.network.transformers import IGNORED


@singledispatch
def columns(row: Any) -> Mapping[str, Any]:
    """Return a row by the names of its columns; nothing where they have none.

    Args:
        row: Of a data set.
    """
    return {}


@columns.register(Mapping)
def _named(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return row


@singledispatch
def _named_text(row: Any) -> Mapping[str, Any]:
    """Return a row of texts as a dict; a text alone has one column."""
    raise InvalidInput(f"Expected a text or a dict. Got {type(row).__name__}.")


@_named_text.register(str)
def _text(row: str) -> Mapping[str, Any]:
    return {"text": row}


_named_text.register(Mapping, columns)


@final
@dataclass(frozen=True)
class Tokenized:
    """Tokenizes a row when it is needed; the loss is on the completion, or on the answers, only.

    Args:
        tokenizer: Of the transformers library.
        max_length: Tokens at most; the rest is cut off. No bound if `None`.
    """

    tokenizer: Any
    max_length: int | None = None

    def __call__(self, row: Mapping[str, Any] | str) -> dict[str, Any]:
        """Return a row with "input_ids" and "labels".

        Args:
            row: A text, or a dict with "text", with "prompt" and "completion", with "messages", or
                with "input_ids" already.

        Raises:
            InvalidInput: If it has none of them.
        """
        row = _named_text(row)
        if "input_ids" in row:
            return dict(row)
        tokens, labels = self._tokens(row)
        cut = slice(self.max_length)
        found: dict[str, Any] = {"input_ids": tokens[cut], "labels": labels[cut]}
        given = next((row[name] for name in ("label", "labels") if name in row), None)
        return found if given is None else {**found, "labels": given}

    def _tokens(self, row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """Return tokens and their labels."""
        if "messages" in row:
            return self._chat(row["messages"])
        if "prompt" in row and "completion" in row:
            if not isinstance(row["prompt"], str):  # messages in both, as in TRL
                return self._chat([*row["prompt"], *row["completion"]])
            before = self._of(row["prompt"])
            # Together, as in training: alone a completion may have other tokens, or a space before.
            tokens = self._of(row["prompt"] + row["completion"])
            end = getattr(self.tokenizer, "eos_token_id", None)
            tokens = tokens if end is None or tokens[-1:] == [end] else [*tokens, end]
            alike = (one == other for one, other in zip(before, tokens, strict=False))
            shared = sum(takewhile(bool, alike))
            return tokens, [*[IGNORED] * shared, *tokens[shared:]]
        if "text" in row:
            tokens = self._of(row["text"])
            return tokens, list(tokens)
        raise InvalidInput(
            "Expected rows with 'text', 'prompt' and 'completion', 'messages' or 'input_ids'. "
            f"Got {', '.join(map(str, row))}. Rename the columns."
        )

    def _of(self, text: str) -> list[int]:
        """Return the tokens of a text, special ones too."""
        return list(self.tokenizer(text)["input_ids"])

    def _chat(self, messages: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int]]:
        """Return the tokens of a chat; those that an assistant wrote are the labels."""
        tokens: list[int] = []
        labels: list[int] = []
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._template(messages[:number], answer=True)
            after = self._template(messages[: number + 1], answer=False)
            if after[: len(before)] != before or before[: len(tokens)] != tokens:
                raise InvalidInput(
                    "Expected a chat template whose tokens of a longer chat begin with those of a "
                    "shorter one. Got one that changes earlier messages. Tokenize the chats "
                    "yourself, and pass 'input_ids' and 'labels'."
                )
            labels += [IGNORED] * (len(before) - len(tokens)) + after[len(before) :]
            tokens = after
        if not tokens:
            raise InvalidInput("Expected a message of the role 'assistant'. Got none.")
        return tokens, labels

    def _template(self, messages: Sequence[Mapping[str, Any]], *, answer: bool) -> list[int]:
        """Return the tokens of messages, with the beginning of an answer if one is to follow."""
        found = self.tokenizer.apply_chat_template(
            list(messages), tokenize=True, add_generation_prompt=answer
        )
        return list(columns(found).get("input_ids", found))


def tokenized(data: Any, tokenizer: Any, max_length: int | None = None) -> Any:
    """Return queries that are texts as rows of tokens with labels; others as they are.

    Args:
        data: Rows as `Tokenized` takes them, or one of them.
        tokenizer: Of the transformers library, or `None` for data that are no texts.
        max_length: Tokens of a text, at most.

    Raises:
        InvalidInput: If a row has another form, or no token with a loss: all scores would be 0.
    """
    if tokenizer is None:
        return data
    prepare = Tokenized(tokenizer, max_length)
    found = [prepare(row) for row in _rows(data)]
    for place, row in enumerate(found):
        if not row["input_ids"] or row.get("labels") == [IGNORED] * len(row["input_ids"]):
            among = f"among the first {max_length} tokens of" if max_length else "in"
            raise InvalidInput(
                f"Expected a token with a loss in every query. Got none {among} query {place}. "
                "Give a text that is not empty, and a max_length= beyond the prompt."
            )
    return found


@singledispatch
def _rows(data: Any) -> Iterable[Any]:
    """Return rows, or one of them as a list."""
    rows: Iterable[Any] = data
    return rows


@_rows.register(str)
@_rows.register(Mapping)
def _one_row(data: Any) -> Iterable[Any]:
    return [data]


def load_tokenizer(name: str) -> Any:
    """Return a tokenizer of the transformers library.

    Args:
        name: Its name on the hub, or a folder.

    Raises:
        MissingDependency: If that library is not installed.
        InvalidInput: If there is no such tokenizer.
    """
    try:
        transformers = import_module("transformers")
    except ImportError as error:
        raise MissingDependency(
            "Expected the transformers package, to load a tokenizer. Got none; run: "
            "pip install 'whence-attribution[transformers]'."
        ) from error
    try:
        return transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"Expected a tokenizer of the transformers library. Got {name!r}, of which it says: "
            f"{str(error).splitlines()[0]}"
        ) from error
