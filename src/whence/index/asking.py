"""From queries to the rows that stored rows are multiplied with, and from positions to examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.errors import InvalidInput
from whence.index.format import File, Manifest, ids_of, mapped, mapped_rows
from whence.index.scan import Best
from whence.methods.features import Damped, FeatureMap, blockwise, of_moment
from whence.methods.prediction import MeasureLike
from whence.methods.sets import check_asked
from whence.objective.cache import cached
from whence.objective.losses import measure_of
from whence.objective.trained import Examples
from whence.scores import Diagnostics, Ranking


def asked_rows(
    folder: Path, manifest: Manifest, features: FeatureMap, queries: Examples, measure: MeasureLike
) -> tuple[Tensor, Damped | None]:
    """Return what stored rows are multiplied with.

    Args:
        folder: The index.
        manifest: What it holds.
        features: The features.
        queries: The queries, encoded.
        measure: m.

    Returns:
        (K + (l2 + λ) I)⁻¹ φ(m_q), over n where scores hold it, [q, d]; the inverse in it, or
        `None` where nothing is inverted.

    Raises:
        InvalidInput: If a gradient of a query is not finite.
        NotPositiveDefinite: If K is singular and not damped.
    """
    trained = features.trained
    check_asked(trained, queries, measure)
    rows = features.queries(queries, measure_of(trained.loss, measure)).detach().float().cpu()
    inverse = None
    if manifest.moment is not None:
        moment = manifest.moment
        key = (File, moment.sha256, features.damping)
        inverse = cached(trained, key, lambda _: _inverse(folder, features, moment))
        rows = inverse.apply(rows.T).T
    if not bool(torch.isfinite(rows).all()):
        raise InvalidInput("Expected finite gradients of the queries. Got NaN or infinity.")
    return (rows / manifest.n if features.averaged else rows).contiguous(), inverse


def diagnostics(features: FeatureMap, inverse: Damped | None) -> Diagnostics:
    """Return how scores are computed.

    Args:
        features: The features.
        inverse: What is inverted, or `None`.
    """
    notes = features.trained.notes
    if inverse is None:
        return Diagnostics(notes=notes)
    asked = features.damping is not None
    return Diagnostics(
        solver="Cholesky factor of the second moments that lie in the index",
        damping=inverse.damping,
        damping_reason="as asked" if asked else "the mean eigenvalue of each second moment",
        notes=notes,
    )


def removed_rows(folder: Path, manifest: Manifest) -> NDArray[np.intp]:
    """Return the removed positions, sorted.

    Args:
        folder: The index.
        manifest: What it holds.
    """
    if manifest.removed is None:
        return np.empty(0, dtype=np.intp)
    with mapped(folder / manifest.removed.name) as (_, tensors):
        found: NDArray[np.intp] = tensors["positions"].numpy().astype(np.intp)
    return found


def ranking(folder: Path, manifest: Manifest, best: Best) -> Ranking:
    """Return rows with their ids.

    Args:
        folder: The index.
        manifest: What it holds.
        best: The rows.
    """
    values, positions = best.ranked()
    names = dict[int, Any]()
    wanted = np.unique(positions)
    for shard in manifest.shards:
        low, high = np.searchsorted(wanted, [shard.first, shard.first + shard.rows])
        if low == high:
            continue
        with mapped_rows(folder, shard) as tensors:
            found = ids_of(tensors, (wanted[low:high] - shard.first).tolist()).tolist()
        names.update(zip(wanted[low:high].tolist(), found, strict=True))
    mixed = len({type(name) for name in names.values()}) > 1
    named = [str(names[p]) if mixed else names[p] for p in positions.ravel().tolist()]
    ids = np.asarray(named).reshape(positions.shape)
    return Ranking(ids=ids, positions=positions, values=values)


def _inverse(folder: Path, features: FeatureMap, moment: File) -> Damped:
    """Return the damped inverse of the stored second moments."""
    groups = features.groups
    with mapped(folder / moment.name) as (_, tensors):
        parts = [tensors[str(place)] / moment.count for place in range(len(groups))]
    return blockwise(
        groups, [of_moment(part, features.damping, features.penalty) for part in parts]
    )
