r"""Words in common: what any other method should be seen to beat.

A text is a bag of words, or of the tokens that the model reads. Nothing of the model is used.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from torch import Tensor

from whence.checked import checked
from whence.errors import InvalidInput, UnsupportedModel
from whence.methods.attribution import Attribution
from whence.methods.method import Method
from whence.methods.subsets import Positions
from whence.network.examples import named_input
from whence.objective.measures import Measure
from whence.objective.trained import Examples, Trained
from whence.scores import Diagnostics

Words = Sequence[Hashable]


class Lexical(Method):
    """A likeness of texts by their words; positive, and larger for texts more alike."""

    @abstractmethod
    def weighted(self, train: Any) -> tuple[Any, Any]:
        """Return what counts become on the side of the training examples, and of the queries.

        Args:
            train: Counts, sparse, [n, words].

        Returns:
            The training examples, [n, words]; a function of the counts of queries, [q, words].
        """

    @property
    @abstractmethod
    def named(self) -> str:
        """The name of the likeness, with its source."""

    @final
    def attribution(self, trained: Trained) -> Attribution:
        """Return the words of a model's training examples."""
        counter = CountVectorizer(analyzer=_same)
        try:
            counts = counter.fit_transform(words_of(trained.train)).astype(np.float64)
        except ValueError as error:  # of scikit-learn: no words at all
            raise InvalidInput("Expected texts with words. Got none.") from error
        rows, of_queries = self.weighted(counts)
        return _InCommon(trained, self, counter, rows, of_queries)


@final
@checked
@dataclass(frozen=True, kw_only=True)
class BM25(Lexical):
    r"""Score training texts by the rare words that they share with the query: Okapi BM25.

    score[q, i] = Σ_{w in q} idf(w) f (k1 + 1) / (f + k1 (1 − b + b |i| / mean |i|)), with f the
    count of w in text i and idf(w) = ln(1 + (n − n_w + ½)/(n_w + ½)). A baseline: it knows the
    texts, and nothing of the model.

    Args:
        k1: How soon repeating a word stops to count, >= 0.
        b: How far long texts are held down, from 0 to 1.

    Raises:
        InvalidInput: If an option is out of range.

    References:
        Robertson & Zaragoza (2009), "The Probabilistic Relevance Framework: BM25 and Beyond".

    Examples:
        >>> import torch, whence
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> config = GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2)
        >>> texts = [{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5, 6, 7]}]
        >>> objective = whence.from_transformers(GPT2LMHeadModel(config).eval(), texts)
        >>> scores = whence.BM25().fit(objective).scores([{"input_ids": [5, 9]}])
        >>> scores.top(1).ids
        array([[1]])
    """

    k1: float = 1.5
    b: float = 0.75

    def __post_init__(self) -> None:
        """Check the options."""
        if self.k1 < 0 or not 0 <= self.b <= 1:
            raise InvalidInput(f"Expected k1 >= 0 and 0 <= b <= 1. Got k1={self.k1}, b={self.b}.")

    @property
    def named(self) -> str:
        """The name, with its source."""
        return "BM25 of words in common (Robertson & Zaragoza 2009)"

    def weighted(self, train: Any) -> tuple[Any, Any]:
        """Return the saturated counts times idf, and the counts of queries as they are."""
        lengths = np.asarray(train.sum(1)).ravel()
        n, having = train.shape[0], np.asarray((train > 0).sum(0)).ravel()
        idf = np.log1p((n - having + 0.5) / (having + 0.5))
        rows = train.tocsr(copy=True)
        spread = self.k1 * (1 - self.b + self.b * lengths / lengths.mean())
        each = np.repeat(spread, np.diff(rows.indptr))
        rows.data = rows.data * (self.k1 + 1) / (rows.data + each)
        return rows @ sparse.diags(idf), _same


@final
@checked
@dataclass(frozen=True, kw_only=True)
class TfIdfCosine(Lexical):
    """Score training texts by the cosine of their words with the query's, rare words up-weighted.

    The counts of each text times ln((1 + n)/(1 + n_w)) + 1, and the cosine of the two. A baseline:
    it knows the texts, and nothing of the model.

    References:
        Salton & Buckley (1988), "Term-weighting approaches in automatic text retrieval".

    Examples:
        >>> import torch, whence
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> config = GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2)
        >>> texts = [{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5, 6, 7]}]
        >>> objective = whence.from_transformers(GPT2LMHeadModel(config).eval(), texts)
        >>> scores = whence.TfIdfCosine().fit(objective).scores([{"input_ids": [1, 2, 3]}])
        >>> scores.values.round(6)
        array([[1., 0.]])
    """

    @property
    def named(self) -> str:
        """The name, with its source."""
        return "cosine of words weighted by tf-idf (Salton & Buckley 1988)"

    def weighted(self, train: Any) -> tuple[Any, Any]:
        """Return weighted counts of length 1, and what makes those of queries."""
        weighing = TfidfTransformer().fit(train)
        return weighing.transform(train), weighing.transform


@final
@dataclass(frozen=True, eq=False)
class _InCommon(Attribution):
    """Products of words.

    Args:
        trained: The model.
        method: The likeness.
        counter: From words to counts.
        rows: The training examples, sparse, [n, words].
        of_queries: From counts of queries to what rows are multiplied with.
    """

    trained: Trained
    method: Lexical
    counter: CountVectorizer
    rows: Any
    of_queries: Any

    @property
    def words(self) -> str:
        """The name of the likeness."""
        return self.method.named

    @property
    def unit(self) -> str:
        """A likeness has no unit."""
        return ", as words in common"

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the likenesses, [q, k]; the measure does not matter."""
        counts = self.counter.transform(words_of(queries)).astype(np.float64)
        found = (self.of_queries(counts) @ self.rows[where].T).toarray()
        note = "A likeness of texts: neither the model nor the measure is in it."
        return torch.from_numpy(found), Diagnostics(notes=(*self.trained.notes, note))


def words_of(examples: Examples) -> list[Words]:
    """Return the words of texts, or the tokens that the model reads, padding left out.

    Args:
        examples: The texts.

    Raises:
        UnsupportedModel: If they are no texts.
    """
    inputs = examples.inputs
    tokens = named_input(inputs, "input_ids")
    if tokens is not None:
        mask = named_input(inputs, "attention_mask")
        read_all = torch.ones_like(tokens) if mask is None else mask
        pairs = zip(tokens.tolist(), read_all.bool().tolist(), strict=True)
        return [[token for token, read in zip(*pair, strict=True) if read] for pair in pairs]
    texts = np.asarray(inputs, dtype=object)
    if texts.ndim == 2 and texts.shape[1] == 1:
        texts = texts[:, 0]
    if texts.ndim == 1 and len(texts) and all(isinstance(text, str) for text in texts):
        split = CountVectorizer().build_analyzer()
        return [split(text) for text in texts]
    raise UnsupportedModel(
        "Expected a model of texts, for a likeness by words. Got one whose inputs are neither "
        "texts nor token ids. Use whence.TracIn(cosine=True), or whence.HiddenCosine()."
    )


def _same(value: Any) -> Any:
    """Return what came."""
    return value
