"""Text vectorizers that are fitted again without reading the texts again."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.pipeline import FeatureUnion, Pipeline

# The vectorizers that are known, with the options by which they weigh counts.
_READERS: dict[type, tuple[str, ...]] = {
    CountVectorizer: (),
    TfidfVectorizer: ("norm", "use_idf", "smooth_idf", "sublinear_tf"),
}
_MOST = 50_000  # other texts whose counts are kept


class Counts:
    """How often each word is in each text that a vectorizer has read; texts are read once.

    Args:
        vectorizer: A vectorizer with its options, whose limits on words are left out.
        texts: The training texts: their words are the columns, in order.
    """

    def __init__(self, vectorizer: Any, texts: NDArray[Any]) -> None:
        """Read the texts."""
        reading = clone(vectorizer).set_params(min_df=1, max_df=1.0, max_features=None)
        self.matrix: Any = sparse.csr_array(CountVectorizer.fit_transform(reading, texts))
        self.words = reading.get_feature_names_out()
        self._reading = reading
        self._rows = {text: row for row, text in enumerate(texts.tolist())}
        self._others: dict[Any, Any] = {}

    def __deepcopy__(self, memo: Any) -> Counts:
        """Return itself: a clone of what refers to it reads nothing again."""
        return self

    def knows(self, texts: Any) -> bool:
        """Return whether all of some texts are training texts, and so have no other words."""
        return all(text in self._rows for text in np.asarray(texts, dtype=object).tolist())

    def of(self, texts: Any) -> Any:
        """Return the counts of some texts, [b, d], CSR."""
        given = np.asarray(texts, dtype=object).tolist()
        rows = [self._rows.get(text, -1) for text in given]
        if min(rows, default=0) >= 0:
            return self.matrix[rows]
        key = tuple(given)
        if key not in self._others and len(key) <= _MOST:
            self._others.clear()  # those of one set of queries at a time
            read = CountVectorizer.transform(self._reading, given)
            self._others[key] = sparse.csr_array(read)
        found = self._others.get(key)
        if found is None:
            found = sparse.csr_array(CountVectorizer.transform(self._reading, given))
        return found


class Counted(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A `CountVectorizer` or `TfidfVectorizer` over counts that are known.

    Args:
        vectorizer: The vectorizer with its options.
        counts: The counts of the training texts.
    """

    def __init__(self, vectorizer: Any, counts: Counts) -> None:
        """Keep the arguments, as estimators do."""
        self.vectorizer = vectorizer
        self.counts = counts

    def fit(self, X: Any, y: Any = None) -> Counted:
        """Choose the words, and weigh them, as the vectorizer does."""
        self._fitted(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Return the weighted counts of the texts that it is fitted on."""
        chosen = self._fitted(X)
        return chosen if self.weights_ is None else self.weights_.transform(chosen)

    def transform(self, X: Any) -> Any:
        """Return the weighted counts of texts."""
        chosen = self.read_.of(X)[:, self.words_]
        return chosen if self.weights_ is None else self.weights_.transform(chosen)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Return the words, one a column."""
        names: NDArray[Any] = self.read_.words[self.words_]
        return names

    def _fitted(self, texts: Any) -> Any:
        """Choose the words of some texts and weigh them; return their counts."""
        options = self.vectorizer
        # An edited text may have words that no training text had.
        self.read_ = self.counts if self.counts.knows(texts) else Counts(options, texts)
        matrix = self.read_.of(texts)
        n, d = matrix.shape
        frequencies = np.bincount(matrix.indices, minlength=d)
        most, least = options.max_df, options.min_df
        most, least = _documents(most, n), _documents(least, n)
        allowed = (frequencies > 0) & (frequencies <= most) & (frequencies >= least)
        where = np.flatnonzero(allowed)
        if options.max_features is not None and allowed.sum() > options.max_features:
            used = np.flatnonzero(frequencies > 0)  # as the vectorizer sees them, before limits
            inside = allowed[used]
            totals = np.asarray(matrix.sum(axis=0)).ravel()[used]
            chosen = (-totals[inside]).argsort()[: options.max_features]
            where = used[np.sort(np.flatnonzero(inside)[chosen])]
        self.words_ = where
        self.weights_ = None
        counts = matrix[:, where].astype(np.float64)
        names = _READERS[type(options)]
        if names:
            self.weights_ = TfidfTransformer(**{name: getattr(options, name) for name in names})
            self.weights_.fit(counts)
        return counts


def _documents(limit: float, n: int) -> float:
    """Return a limit on how many of n documents use a word: a whole number, or a share of n."""
    return limit if isinstance(limit, int) else limit * n


@singledispatch
def counting(transform: Any, rows: Any) -> Any:
    """Return fitted transformers whose vectorizers have counted the training texts.

    Args:
        transform: Fitted transformers. A column transformer stays as it is: its own lists of
            fitted and unfitted steps are not rebuilt.
        rows: The rows they were fitted on, [n].

    Returns:
        Transformers that do the same, to be fitted again; `transform` itself where there is no
        text to read.
    """
    if type(transform) not in _READERS or transform.vocabulary is not None:
        return transform
    return Counted(transform, Counts(transform, rows)).fit(rows)


@counting.register
def _first_counting(transform: Pipeline, rows: Any) -> Pipeline:
    name, first = transform.steps[0]
    read = counting(first, rows)
    return transform if read is first else Pipeline([(name, read), *transform.steps[1:]])


@counting.register
def _all_counting(transform: FeatureUnion, rows: Any) -> FeatureUnion:
    parts = [(name, counting(step, rows)) for name, step in transform.transformer_list]
    pairs = zip(parts, transform.transformer_list, strict=True)
    if all(part is step for (_, part), (_, step) in pairs):
        return transform
    return FeatureUnion(parts, transformer_weights=transform.transformer_weights)
