"""Texts as tokens with labels: plain, prompt with completion, or the messages of a chat."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import singledispatch
from importlib import import_module
from itertools import takewhile
from typing import Any, final

from whence.errors import InvalidInput, MissingDependency
from whence.network.transformers import IGNORED
from whence.storage import digest

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")  # in a template, of what is an answer
# Letters, digits, spaces, signs and accents, which tokenizers split and normalize differently.
_SAMPLE = "Hello World's  12345, don't\n\tcafé ﬁ 你好 x_y=[3.14]; "


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
        trl: Whether a text ends with the end of text, and all of a chat has a loss.
    """

    tokenizer: Any
    max_length: int | None = None
    trl: bool = False

    @property
    def words(self) -> str:
        """What of the options tells these tokens from others of the same texts."""
        bound = "" if self.max_length is None else f"; at most {self.max_length} tokens"
        return bound + ("; as by TRL" if self.trl else "")

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
            if not self.trl:
                return self._chat(row)
            tokens = self._template(row, row["messages"])
            return tokens, list(tokens)
        if "prompt" in row and "completion" in row:
            # Together, as in training: alone a completion may have other tokens, or a space before.
            if isinstance(row["prompt"], str):
                before = self._of(row["prompt"])
                tokens = self._of(self._ended(row["prompt"] + row["completion"]))
            else:
                before = self._template(row, row["prompt"], answer=True)
                tokens = self._template(row, [*row["prompt"], *row["completion"]])
            alike = (one == other for one, other in zip(before, tokens, strict=False))
            shared = sum(takewhile(bool, alike))
            return tokens, [*[IGNORED] * shared, *tokens[shared:]]
        if "text" in row:
            tokens = self._of(self._ended(row["text"]) if self.trl else row["text"])
            return tokens, list(tokens)
        raise InvalidInput(
            "Expected rows with 'text', 'prompt' and 'completion', 'messages' or 'input_ids'. "
            f"Got {', '.join(map(str, row))}. Rename the columns."
        )

    def _of(self, text: str) -> list[int]:
        """Return the tokens of a text, special ones too."""
        return list(self.tokenizer(text)["input_ids"])

    def _ended(self, text: str) -> str:
        """Return a text with the end of text behind it."""
        end = getattr(self.tokenizer, "eos_token", None)
        return text if end is None or text.endswith(end) else text + end

    def _chat(self, row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """Return the tokens of a chat; those that an assistant wrote are the labels.

        A template that marks them says which, else they are what each answer adds.
        """
        marks = _MARKS.search(str(getattr(self.tokenizer, "chat_template", None)))
        tokens, labels = (self._marked if marks else self._told_apart)(row)
        if all(label == IGNORED for label in labels):
            raise InvalidInput("Expected a message of the role 'assistant'. Got none.")
        return tokens, labels

    def _marked(self, row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """Return the tokens of a chat; those that the template marks as answers are the labels."""
        found = self._applied(
            row, row["messages"], return_dict=True, return_assistant_tokens_mask=True
        )
        pairs = zip(found["input_ids"], found["assistant_masks"], strict=True)
        return found["input_ids"], [token if answer else IGNORED for token, answer in pairs]

    def _told_apart(self, row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """Return the tokens of a chat; those that come with each answer are the labels."""
        messages = row["messages"]
        tokens: list[int] = []
        labels: list[int] = []
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._template(row, messages[:number], answer=True)
            after = self._template(row, messages[: number + 1])
            if after[: len(before)] != before or before[: len(tokens)] != tokens:
                raise InvalidInput(
                    "Expected a chat template whose tokens of a longer chat begin with those of a "
                    "shorter one. Got one that changes earlier messages. Tokenize the chats "
                    "yourself, and pass 'input_ids' and 'labels'."
                )
            labels += [IGNORED] * (len(before) - len(tokens)) + after[len(before) :]
            tokens = after
        return tokens, labels

    def _template(
        self, row: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], *, answer: bool = False
    ) -> list[int]:
        """Return the tokens of messages, with the beginning of an answer if one is to follow."""
        found = self._applied(row, messages, add_generation_prompt=answer)
        return list(columns(found).get("input_ids", found))

    def _applied(
        self, row: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], **options: bool
    ) -> Any:
        """Return what the tokenizer makes of messages, with the tools and options of a row."""
        own = dict(row.get("chat_template_kwargs") or {})
        if tools := row.get("tools"):
            own["tools"] = tools
            with suppress(TypeError):  # TRL takes them as JSON too
                own["tools"] = json.loads(tools)
        return self.tokenizer.apply_chat_template(list(messages), tokenize=True, **options, **own)


def tokenizer_digests(tokenizer: Any) -> dict[str, str]:
    """Return digests of what makes a tokenizer's tokens, by the name of what they are of.

    Args:
        tokenizer: Of the transformers library; nothing is known of others.
    """
    if not hasattr(tokenizer, "get_vocab"):
        return {}
    found = {
        "vocabulary": sorted(tokenizer.get_vocab().items()),
        "end of text": getattr(tokenizer, "eos_token", None),
        "way to split a text": list(tokenizer(_SAMPLE)["input_ids"]),
        "chat template": getattr(tokenizer, "chat_template", None),
    }
    return {name: digest(json.dumps(value, sort_keys=True)) for name, value in found.items()}


def check_tokenizer(known: Mapping[str, str], given: Mapping[str, str]) -> None:
    """Raise if a tokenizer is another than the one that an index was built with.

    Args:
        known: The digests of that one; empty where it is not known.
        given: The digests of this one; empty where there is none.

    Raises:
        InvalidInput: If they differ.
    """
    differing = [name for name in known if given and known[name] != given.get(name)]
    if differing:
        raise InvalidInput(
            "Expected the tokenizer that the index was built with. Got one with another "
            f"{' and another '.join(differing)}: the model would be asked about other tokens than "
            "it was trained on. Load the tokenizer of the training."
        )


def tokenized(data: Any, tokenizer: Any, max_length: int | None, known: Mapping[str, str]) -> Any:
    """Return queries that are texts as rows of tokens with labels; others as they are.

    Args:
        data: Rows as `Tokenized` takes them, or one of them.
        tokenizer: Of the transformers library, or `None` for data that are no texts.
        max_length: Tokens of a text, at most.
        known: Digests of the tokenizer that the index was built with.

    Raises:
        InvalidInput: If a row has another form, or no token with a loss: all scores would be 0. If
            the tokenizer is another than the known one.
    """
    if tokenizer is None:
        return data
    check_tokenizer(known, tokenizer_digests(tokenizer) if known else {})
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
