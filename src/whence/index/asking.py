"""From queries to the rows that stored rows are multiplied with, and from positions to examples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.errors import InvalidInput
from whence.index.best import Best
from whence.index.curvature import read_curvature
from whence.index.encodings import encoding_of
from whence.index.format import File, Manifest, mapped_file, mapped_rows
from whence.index.ids import ids_of
from whence.methods.features import Damped, FeatureMap, blockwise, of_moment
from whence.methods.prediction import MeasureLike
from whence.methods.sets import check_asked
from whence.objective.cache import cached
from whence.objective.losses import measure_of
from whence.objective.objective import objective_of
from whence.objective.trained import Examples
from whence.scores import Diagnostics, Ranking


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Asked:
    """What an index was asked.

    Args:
        manifest: What it holds.
        features: Whose rows it holds.
        queries: The queries, encoded.
        rows: What stored rows are multiplied with, [q, d].
        measure: What is predicted.
        diagnostics: How far to trust the scores.
    """

    manifest: Manifest
    features: FeatureMap
    queries: Examples
    rows: Tensor
    measure: str
    diagnostics: Diagnostics

    @property
    def method(self) -> str:
        """What makes the scores, in words."""
        return f"{self.manifest.words}, {self.manifest.encoding} rows"

    def direction(self, query: int) -> Tensor | None:
        """Return the direction of θ along which derivatives of training losses are the scores.

        Args:
            query: Its position.

        Returns:
            [p, 1]; `None` where scores are no such derivatives.
        """
        if not self.features.splits:
            return None
        scale = self.manifest.n if self.features.averaged else 1
        return self.features.directions(self.rows[query : query + 1] * scale, "training")

    def scored(self, example: Examples) -> tuple[Tensor, Tensor]:
        """Return the scores of one example of weight one, computed anew, and a bound of their size.

        The encoding is that of the index: what it loses is lost here as well.

        Args:
            example: The example.

        Returns:
            Both [q].
        """
        encoding, blocks = encoding_of(self.manifest.encoding), self.manifest.blocks
        encoded = encoding.encode(self.features.rows(example).detach().float().cpu(), blocks)
        row = encoding.rows(encoded, slice(0, 1), blocks)[0]
        slopes = self.features.slopes(example).float().cpu()[0]
        queries = self.rows.cpu()
        scores, most = queries.new_zeros(2, len(queries))
        for part, slope in zip(self.features.columns, slopes, strict=True):
            scores += slope * (queries[:, part] @ row[part])
            most += slope.abs() * queries[:, part].norm(dim=1) * row[part].norm()
        return scores, most


def asked_rows(
    folder: Path, manifest: Manifest, features: FeatureMap, queries: Examples, measure: MeasureLike
) -> tuple[Tensor, Diagnostics]:
    """Return what stored rows are multiplied with, and how that was computed.

    Args:
        folder: The index.
        manifest: What it holds.
        features: The features.
        queries: The queries, encoded.
        measure: m.

    Returns:
        (K + (l2 + λ) I)⁻¹ φ(m_q), over n where scores hold it, float32 [q, d] on the device of the
        model.

    Raises:
        InvalidInput: If a gradient of a query is not finite.
        NotPositiveDefinite: If K is singular and not damped.
    """
    trained = features.trained
    check_asked(trained, queries, measure)
    if manifest.curvature is not None:
        stored, like = manifest.curvature, objective_of(trained).params
        of_file = (File, stored.sha256)
        known = cached(trained, of_file, lambda _: read_curvature(folder, stored, like))
        features = features.given(known)
    found = features.queries(queries, measure_of(trained.loss, measure)).detach()
    rows = found.float().cpu()
    measured = features.measured()
    if manifest.moment is not None:
        moment = manifest.moment
        key = (File, moment.sha256, features.damping)
        inverse = cached(trained, key, lambda _: _inverse(folder, features, moment))
        rows = inverse.apply(rows.T).T
        measured = replace(
            measured,
            solver="Cholesky factor of the second moments that lie in the index",
            damping=inverse.damping,
            damping_reason="the mean eigenvalue of each second moment"
            if features.damping is None
            else "as asked",
        )
    if not bool(torch.isfinite(rows).all()):
        raise InvalidInput("Expected finite gradients of the queries. Got NaN or infinity.")
    rows = rows / manifest.n if features.averaged else rows
    return rows.contiguous().to(found.device), measured


def removed_rows(folder: Path, manifest: Manifest) -> NDArray[np.intp]:
    """Return the removed positions, sorted.

    Args:
        folder: The index.
        manifest: What it holds.
    """
    if manifest.removed is None:
        return np.empty(0, dtype=np.intp)
    with mapped_file(folder, manifest.removed) as tensors:
        found: NDArray[np.intp] = tensors["positions"].numpy().astype(np.intp)
    return found


def positions_of(folder: Path, manifest: Manifest, ids: NDArray[Any]) -> NDArray[np.intp]:
    """Return where the examples with some ids lie, sorted.

    Args:
        folder: The index.
        manifest: What it holds.
        ids: The names of the examples.

    Raises:
        InvalidInput: If the index has no such example.
    """
    found, seen = list[NDArray[np.intp]](), list[NDArray[Any]]()
    for shard in manifest.shards:
        with mapped_rows(folder, shard) as tensors:
            there = ids_of(tensors)
            if there.dtype.kind != ids.dtype.kind:
                there, ids = there.astype(str), ids.astype(str)
            hit = np.isin(there, ids)
            found.append(np.flatnonzero(hit) + shard.first)
            seen.append(there[hit].astype(ids.dtype))
    missing = np.setdiff1d(ids, np.concatenate([ids[:0], *seen]))
    if len(missing):
        raise InvalidInput(
            f"Expected ids of the index. Got {missing[0].item()!r}"
            f"{f' and {len(missing) - 1} others' if len(missing) > 1 else ''}, which it does not "
            "have. Nothing was removed."
        )
    return np.concatenate(found)


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
    with mapped_file(folder, moment) as tensors:
        parts = [tensors[str(place)] / moment.count for place in range(len(groups))]
    return blockwise(
        groups, [of_moment(part, features.damping, features.penalty) for part in parts]
    )
