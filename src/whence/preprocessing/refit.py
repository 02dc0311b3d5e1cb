"""Transformers fitted again on changed rows, as a refit of the whole pipeline would fit them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import TransformerMixin, clone
from sklearn.decomposition import NMF, PCA, DictionaryLearning, MiniBatchNMF, TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.manifold import LocallyLinearEmbedding
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    Normalizer,
    PolynomialFeatures,
    TargetEncoder,
)
from sklearn.utils.validation import has_fit_parameter

from whence.arrays import Floats
from whence.errors import InvalidInput
from whence.objective.cache import Recent
from whence.preprocessing.containers import is_routed, leaves
from whence.preprocessing.folds import keep_folds
from whence.rows import is_sparse, take

# What these do to a row does not depend on the rows they were fitted on.
_STATELESS = {Binarizer, FunctionTransformer, HashingVectorizer, Normalizer, PolynomialFeatures}
# Whether these transform training rows otherwise than new ones.
_CROSS_FITTED: dict[type, Callable[[Any], bool]] = {
    DictionaryLearning: lambda _: True,
    LocallyLinearEmbedding: lambda _: True,
    MiniBatchNMF: lambda _: True,
    NMF: lambda _: True,
    TargetEncoder: lambda _: True,
    PCA: lambda fitted: getattr(fitted, "_fit_svd_solver", "") == "randomized",
    TruncatedSVD: lambda fitted: fitted.algorithm == "randomized",
}
_BYTES = 2**27  # of transformed rows that are held: 128 MB
_MOST_NAMES = 200_000  # columns up to which those of two fits are matched by name


def follows_data(transform: Any) -> bool:
    """Return whether what a transformer does to a row depends on the rows it was fitted on.

    Args:
        transform: A fitted transformer, a combination of them, or `None`.

    Returns:
        Whether another set of rows can give another transformation.
    """
    return any(type(leaf) not in _STATELESS for leaf in leaves(transform))


def is_cross_fitted(transform: Any) -> bool:
    """Return whether training rows are transformed otherwise than new ones.

    Args:
        transform: A fitted transformer, a combination of them, or `None`.

    Returns:
        Whether `fit_transform` differs from `fit` and `transform`; also where that is not known.
    """
    return any(_is_cross_fitted(leaf) for leaf in leaves(transform))


def _is_cross_fitted(leaf: Any) -> bool:
    """Return the same of one transformer."""
    if getattr(leaf, "sample_posterior", False):  # an IterativeImputer that draws
        return True
    known = _CROSS_FITTED.get(type(leaf))
    if known is not None:
        return known(leaf)
    own = getattr(type(leaf), "fit_transform", None) is not TransformerMixin.fit_transform
    return own and not type(leaf).__module__.startswith("sklearn.")


def fit_again(
    transform: Pipeline,
    rows: Any,
    labels: NDArray[Any],
    sample: Floats | None = None,
    where: NDArray[np.intp] | None = None,
) -> tuple[Pipeline, Any]:
    """Return clones of transformers, fitted on rows, and these rows as a model is fitted on them.

    Args:
        transform: The transformers; they stay as they are.
        rows: All rows, [n].
        labels: Their targets, [n].
        sample: Sample weights of the rows that are left, for the steps that take them, [m]; `None`
            if none was given them.
        where: Positions of the rows that are left, sorted, [m]; all if `None`. They keep the folds
            that a step was given by positions.

    Returns:
        The fitted clones, and `fit_transform` of the rows that are left.

    Raises:
        InvalidInput: If a step cannot be fitted on those rows.
    """
    fresh = clone(transform)
    if where is not None:
        keep_folds(fresh, len(labels), where)
        rows, labels = take(rows, where), labels[where]
    arguments = {} if sample is None else weighted_steps(fresh, sample)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever there is to say, the first fit has said
        try:
            matrix = fresh.fit_transform(rows, labels, **arguments)
        except Exception as error:
            raise InvalidInput(
                f"Expected the preprocessing to fit on {len(labels)} training rows. Got: {error}. "
                "Refits are made without a row: try clone(pipeline).fit on the others."
            ) from error
    return fresh, matrix


@dataclass(frozen=True, eq=False)
class Fits:
    """Transformers fitted again on some rows, shared by all that ask for the same rows.

    A prediction and the refit that confirms it remove the same row, and fit the same transformers.
    Fits that a random draw makes are not shared.

    Args:
        recent: The last fits, with their rows transformed.
    """

    recent: Recent[tuple[Pipeline, Any]] = field(default_factory=partial(Recent, _BYTES))

    def on(
        self,
        where: NDArray[np.intp],
        transform: Pipeline,
        rows: Any,
        labels: NDArray[Any],
        sample: Floats | None,
    ) -> tuple[Pipeline, Any]:
        """Return `fit_again` on some of the rows, which are always the same.

        Args:
            where: Positions of the rows that are left, [m].
            transform: The transformers.
            rows: All rows, [n].
            labels: Their targets, [n].
            sample: Sample weights of the rows that are left, [m], or `None`.
        """

        def make() -> tuple[Pipeline, Any]:
            return fit_again(transform, rows, labels, sample, where)

        if any(_is_cross_fitted(leaf) and not _seeded(leaf) for leaf in leaves(transform)):
            return make()
        key = where.tobytes(), None if sample is None else sample.tobytes()
        return self.recent.get(key, make, lambda found: _bytes(found[1]))


def _seeded(leaf: Any) -> bool:
    """Return whether a number fixes what a transformer draws when it is fitted."""
    splitter = getattr(leaf, "cv", None)
    return int in (type(getattr(own, "random_state", None)) for own in (leaf, splitter))


def _bytes(matrix: Any) -> int:
    """Return the bytes of transformed rows."""
    if is_sparse(matrix):
        matrix = sparse.csr_array(matrix)
        return int(matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes)
    return int(np.asarray(matrix).nbytes)


def weighted_steps(transform: Pipeline, sample: Floats) -> dict[str, Floats]:
    """Return sample weights under the names by which a pipeline hands them to its steps.

    Args:
        transform: The pipeline.
        sample: The weights, [m].

    Returns:
        `{"step__sample_weight": sample}` for each step whose fit takes them; under metadata routing
        `{"sample_weight": sample}` if one asks for them.
    """
    if is_routed():
        routes = (step.get_metadata_routing() for _, step in transform.steps)
        asked = any("sample_weight" in route.consumes("fit", ["sample_weight"]) for route in routes)
        return {"sample_weight": sample} if asked else {}
    return {
        f"{name}__sample_weight": sample
        for name, step in transform.steps
        if has_fit_parameter(step, "sample_weight")
    }


def training_matrix(
    transform: Pipeline, rows: Any, labels: NDArray[Any], sample: Floats | None
) -> tuple[Any, str]:
    """Return training rows as the model behind some transformers was fitted on them.

    Args:
        transform: The fitted transformers.
        rows: The training rows, [n].
        labels: Their targets, [n].
        sample: Sample weights for the steps that take them, or `None`.

    Returns:
        The transformed rows; and a sentence for the reader if they cannot be had, else "".
    """
    plain = transform.transform(rows)
    if not is_cross_fitted(transform):
        return plain, ""
    fresh, crossed = fit_again(transform, rows, labels, sample)
    if not same_features(fresh.transform(rows), plain):
        return plain, (
            "The preprocessing gives other features when it is fitted again on the same rows, so "
            "that those the model was trained on are not known. Give it a fixed random_state."
        )
    again = crossed
    if TargetEncoder in {type(leaf) for leaf in leaves(transform)}:
        _, again = fit_again(transform, rows, labels, sample)
    if not same_features(crossed, again):
        return plain, (
            "TargetEncoder splits the training rows at random when it is fitted, so that the "
            "features the model was trained on are not known: encodings of all rows stand in for "
            "them. Pass cv=KFold(5, shuffle=True, random_state=0)."
        )
    return crossed, ""


def matched_columns(old: Pipeline, new: Pipeline, width: int) -> NDArray[np.intp] | None:
    """Return which columns of an earlier fit the columns of a new one are.

    Args:
        old: Fitted transformers.
        new: The same, fitted on other rows.
        width: The number of columns of the new ones.

    Returns:
        For each new column its position among the old ones, −1 for none, [width]; `None` if the
        columns have no names to match.
    """
    if width > _MOST_NAMES:
        return None
    try:
        before = {name: j for j, name in enumerate(old.get_feature_names_out().tolist())}
        names = new.get_feature_names_out().tolist()
    except (AttributeError, ValueError, NotImplementedError):
        return None
    return np.array([before.get(name, -1) for name in names], dtype=np.intp)


def encoded_all(transform: Pipeline | None, matrix: Any, rows: Any, kept: NDArray[np.bool_]) -> Any:
    """Return all rows as columns, those left out of a fit by `transform`.

    Args:
        transform: The transformers, fitted on the kept rows; `None` if others may be zero.
        matrix: The kept rows as the model is fitted on them.
        rows: All rows, [n].
        kept: Which rows were kept, [n].

    Returns:
        The columns, [n, d]. A row that the transformers refuse, such as the only one of its
        category, is zero.
    """
    if kept.all():
        return matrix
    gone, width = np.flatnonzero(~kept), matrix.shape[1]
    if transform is None:
        blocks = [sparse.csr_array((len(gone), width))]
    else:
        blocks = list(_accepted(transform, rows, gone, width))
    if is_sparse(matrix):
        order = np.argsort(np.r_[np.flatnonzero(kept), gone])
        return sparse.vstack([matrix, *map(sparse.csr_array, blocks)], format="csr")[order]
    rest = np.concatenate([each.toarray() if is_sparse(each) else each for each in blocks])
    columns = np.empty((len(kept), width), dtype=np.result_type(matrix, rest))
    columns[kept], columns[gone] = matrix, rest
    return columns


def _accepted(transform: Pipeline, rows: Any, where: NDArray[np.intp], width: int) -> Iterator[Any]:
    """Yield blocks of the columns of some rows, in their order; a row that is refused is zero."""
    try:
        yield transform.transform(take(rows, where))
    except ValueError:  # one refused row is an error for all that are passed with it
        if len(where) == 1:
            yield sparse.csr_array((1, width))
            return
        for part in np.array_split(where, 2):
            yield from _accepted(transform, rows, part, width)


def same_features(a: Any, b: Any) -> bool:
    """Return whether two transformed matrices are the same, to 1e-6 of the largest of a column.

    Args:
        a: Columns, dense or sparse, [m, d].
        b: Others.
    """
    if a.shape != b.shape:
        return False
    if not all(b.shape):
        return True
    off, sizes = _largest(a - b), _largest(b)  # columns are in units of their own
    return bool((off <= np.maximum(1e-6 * sizes, 1e-12 * sizes.max())).all())


def _largest(matrix: Any) -> NDArray[np.float64]:
    """Return the largest size in each column, missing values aside, [d]."""
    if is_sparse(matrix):
        return np.asarray(abs(matrix).max(axis=0).todense(), dtype=np.float64).ravel()
    sizes = np.abs(np.asarray(matrix, dtype=np.float64))
    return np.asarray(np.nan_to_num(sizes, nan=0.0).max(axis=0))
