"""Fills an index shard by shard, in one process or several; what a killed one wrote is kept.

A shard holds consecutive rows of one corpus, and depends on nothing but them: whoever computes it
writes the same bytes. The manifest names a shard once it and all before it are there.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.linalg import vector_norm

from whence.errors import InvalidInput
from whence.index.corpus import Chunk, Corpus, Reader
from whence.index.curvature import write_curvature
from whence.index.damage import ANEW, check_sizes, damaged, fault
from whence.index.encodings import encoding_of
from whence.index.format import (
    File,
    Manifest,
    Part,
    Shard,
    mapped_file,
    mapped_rows,
    read_index,
    shard_name,
    whole,
    write_named,
    write_tensors,
)
from whence.index.ids import id_tensors, plain
from whence.index.reading import norms_of, parts_of
from whence.index.texts import check_tokenizer
from whence.methods.features import FeatureMap
from whence.progress import progress
from whence.tiles import tiles
from whence.workers import Backend, map_shards

_FORMAT = 2  # of shards: 1 had no norms
_TILE = 2**22  # numbers of decoded rows at once
_SHARD = 2**24  # numbers of a shard: 64 MB of float32
_ROWS = 2**16  # rows of a shard, at most


@final
@dataclass(frozen=True, eq=False)
class ShardWork:
    """Computes and writes shards; sent to each worker once.

    Args:
        folder: The index.
        features: The features.
        reader: Makes chunks examples.
        manifest: What the index is.
        identity: Of the corpus.
        offset: The position in the index of the first row of the corpus.
        counted: Whether rows are named by their position in the index.
    """

    folder: Path
    features: FeatureMap
    reader: Reader
    manifest: Manifest
    identity: str
    offset: int
    counted: bool

    def __call__(self, chunk: Chunk) -> Shard:
        """Return the shard of a chunk: as it is there, or computed and written."""
        first = self.offset + chunk.first
        ids = plain(chunk.ids)
        if self.counted:
            ids = np.arange(first, first + len(ids))
        name = shard_name(first)
        about = {
            "kind": "rows",
            "format": _FORMAT,
            "model": self.manifest.model,
            "data": self.identity,
            "encoding": self.manifest.encoding,
            "first": first,
            "rows": len(ids),
        }
        there = whole(self.folder / name, about, ids)
        if there is None:
            tensors, error = self._encoded(chunk)
            told = {**about, "error": error}
            sha = write_tensors(self.folder / name, told, {**tensors, **id_tensors(ids)})
            there = sha, error
        return Shard(name, first, len(ids), *there, (self.folder / name).stat().st_size)

    def _encoded(self, chunk: Chunk) -> tuple[dict[str, Tensor], float]:
        """Return encoded rows with weights and slopes, and the error of the encoding."""
        features, b = self.features, len(chunk.ids)
        rows = torch.empty(b, sum(block.size for block in features.blocks))
        slopes, weights = torch.empty(b, len(features.parts)), torch.empty(b)
        for places, examples, w in self.reader.batches(chunk):
            where = torch.as_tensor(places)
            rows[where] = features.rows(examples).detach().float().cpu()
            slopes[where] = features.slopes(examples).float().cpu()
            weights[where] = w.float().cpu() if features.averaged else torch.ones(len(w))
        if not bool(torch.isfinite(rows).all() and torch.isfinite(slopes).all()):
            bad = int((~torch.isfinite(rows).all(1) | ~torch.isfinite(slopes).all(1)).nonzero()[0])
            raise InvalidInput(
                f"Expected finite gradients. Got NaN or infinity for the example "
                f"{chunk.ids[bad].item()!r}. Drop it, or check the scale of its inputs."
            )
        encoding = encoding_of(self.manifest.encoding)
        tensors = encoding.encode(rows, features.blocks)
        # In float64 and row by row, so that the error does not depend on how sums are split; in
        # tiles, so that no second and third copy of the rows is held.
        lost, sizes = torch.empty(b, dtype=torch.float64), torch.empty(b, dtype=torch.float64)
        parts, norms = parts_of(features.parts), torch.empty_like(slopes)
        for part in tiles(b, rows.shape[1], _TILE):
            stored = encoding.rows(tensors, part, features.blocks)
            norms[part] = norms_of(stored, parts)
            for sums, some in ((lost, stored - rows[part]), (sizes, rows[part])):
                sums[part] = vector_norm(some, dim=1, dtype=torch.float64).square()
        if not bool(torch.isfinite(norms).all()):
            bad = int((~torch.isfinite(norms).all(1)).nonzero()[0])
            raise InvalidInput(
                "Expected gradients of norms that float32 can hold, under 3e38. Got a larger one "
                f"for the example {chunk.ids[bad].item()!r}. Scale the loss down."
            )
        error = float(lost.sum() / sizes.sum().clamp_min(1e-300))
        return {**tensors, "slopes": slopes, "weights": weights, "norms": norms}, error


def fill(
    folder: Path,
    manifest: Manifest,
    features: FeatureMap,
    corpus: Corpus,
    *,
    workers: int,
    backend: Backend,
) -> None:
    """Write the shards of a corpus that are missing, and then the second moments.

    Args:
        folder: The index, claimed.
        manifest: What it holds; its last data are of this corpus, and not complete.
        features: The features.
        corpus: The data.
        workers: As for `map_shards`.
        backend: As for `map_shards`.

    Raises:
        InvalidInput: If the corpus is empty or a gradient is not finite.
        NotWritten: If the operating system refuses.
    """
    if manifest.curvature is None and (inverse := features.curvature()) is not None:
        manifest = replace(manifest, curvature=write_curvature(folder, inverse))
        manifest.write(folder)
    offset = sum(part.rows or 0 for part in manifest.data)
    work = ShardWork(
        folder, features, corpus.reader, manifest, corpus.identity, offset, corpus.counted
    )
    chunks = corpus.chunks(manifest.shard_rows, manifest.n - offset)
    found: Iterator[Shard] = map_shards(work, chunks, workers=workers, backend=backend)
    with progress(desc="indexing", total=None, unit=" rows", initial=manifest.n) as bar:
        for shard in found:
            manifest = replace(manifest, shards=(*manifest.shards, shard))
            manifest.write(folder)
            bar.update(shard.rows)
    if manifest.n == offset:
        raise InvalidInput("Expected at least one example. Got none.")
    moments = _moments(folder, manifest, features) if features.groups else None
    (*before, last) = manifest.data
    data = (*before, replace(last, rows=manifest.n - offset))
    manifest = replace(manifest, data=data, moment=moments)
    manifest.write(folder)


def default_rows(features: FeatureMap) -> int:
    """Return the rows of a shard, where none are asked for.

    Args:
        features: The features.
    """
    return max(1, min(_ROWS, _SHARD // max(1, sum(block.size for block in features.blocks))))


def begin(folder: Path, manifest: Manifest, corpus: Corpus) -> Manifest | None:
    """Return the manifest with data that are now to be filled in, or `None` if all are there.

    Args:
        folder: The index, claimed.
        manifest: What it holds.
        corpus: The data.

    Raises:
        InvalidInput: If others have begun and are not complete, or their tokenizer is another.
        CorruptFile: If a file is damaged that these data alone do not give again.
    """
    identity, tokenizer = corpus.identity, corpus.tokenizer
    check_tokenizer(manifest.tokenizer, tokenizer)
    manifest = replace(manifest, tokenizer=manifest.tokenizer or tokenizer)
    manifest = _undamaged(folder, manifest, identity)
    found = (part for part in manifest.data if part.identity == identity)
    if (rows := next((part.rows for part in found), None)) is not None:
        if not identity:
            _check_unnamed(folder, corpus, rows)
        return None
    if manifest.data and not manifest.complete:
        if manifest.data[-1].identity != identity:
            raise InvalidInput(
                "Expected the data that were interrupted, which are not all in the index yet. Got "
                "others. Give the interrupted command again first."
            )
        return manifest
    manifest = replace(manifest, data=(*manifest.data, Part(identity)))
    manifest.write(folder)
    return manifest


def _check_unnamed(folder: Path, corpus: Corpus, rows: int) -> None:
    """Warn that nothing tells data from those of an index; raise if they are more or fewer rows."""
    known = f"the {rows:,} rows that the index in {folder} was built of"
    named = "Pass name=, any text of your own, or another folder."
    if next(corpus.chunks(1, rows - 1), None) is None or any(corpus.chunks(1, rows)):
        raise InvalidInput(f"Expected {known}. Got more or fewer. {named}")
    warnings.warn(
        f"Nothing tells these data from {known}, which stay as they are. {named}", stacklevel=4
    )


def _undamaged(folder: Path, manifest: Manifest, identity: str) -> Manifest:
    """Return the manifest without what is damaged of data that are given again.

    Every byte of their shards and later ones, and of the files beside the shards, is read. Of
    earlier shards the sizes are checked.

    Args:
        folder: The index, claimed.
        manifest: What it holds.
        identity: What tells the data.

    Returns:
        The manifest up to the first damaged shard: incomplete, as if the build or append had been
        interrupted there. The same one if nothing is damaged.

    Raises:
        CorruptFile: If a file is damaged that these data alone do not give again.
    """
    before = takewhile(lambda each: each.identity != identity, manifest.data)
    first = sum(each.rows or 0 for each in before)
    own = [shard for shard in manifest.shards if shard.first >= first]
    others = manifest.files[len(manifest.shards) :]
    lost = {file.name: why for file in (*own, *others) if (why := fault(folder, file))}
    check_sizes(folder, (file for file in manifest.files if file.name not in lost))
    if not lost:
        return manifest
    (*done, last), moment = manifest.data, manifest.moment
    given = {file.name for file in (*own, moment) if file is not None}
    if last.identity != identity or not lost.keys() <= given:
        name = next((name for name in lost if name not in given), next(iter(lost)))
        raise damaged(folder / name, lost[name], ANEW)
    warnings.warn(
        f"In {folder}, {', '.join(lost.values())}. What is damaged is computed again.", stacklevel=4
    )
    whole = takewhile(lambda shard: shard.name not in lost, manifest.shards)
    data = (*done, replace(last, rows=None))
    return replace(manifest, data=data, shards=tuple(whole), moment=None)


def clear_unnamed(folder: Path, *kinds: str) -> None:
    """Remove files that the manifest of a complete index does not name.

    Args:
        folder: The index, claimed.
        kinds: Of the files: "rows", "moment", "removed", "curvature".
    """
    manifest = read_index(folder)
    if not manifest.complete:
        return
    named = {file.name for file in manifest.files}
    for path in folder.glob("*.safetensors"):
        if path.name not in named and path.name.partition("-")[0] in kinds:
            with suppress(OSError):
                path.unlink()


def _moments(folder: Path, manifest: Manifest, features: FeatureMap) -> File:
    """Return the file of Σ wᵢ φᵢ φᵢᵀ of each group: of the rows before, and of the shards since."""
    counted, sums = 0, list[Tensor]()
    if manifest.moment is not None:
        counted = manifest.moment.count
        with mapped_file(folder, manifest.moment) as tensors:
            sums = [tensors[str(place)].clone() for place in range(len(tensors))]
    encoding = encoding_of(manifest.encoding)
    for shard in manifest.shards:
        if shard.first < counted:
            continue
        with mapped_rows(folder, shard) as tensors:
            for some in tiles(shard.rows, sum(block.size for block in features.blocks), _TILE):
                scaled = encoding.rows(tensors, some, features.blocks)
                scaled *= tensors["weights"][some].sqrt().unsqueeze(1)
                for place, where in enumerate(features.groups):
                    part = (scaled[:, where].T @ scaled[:, where]).double()
                    sums[place : place + 1] = [sums[place] + part if place < len(sums) else part]
    held = {str(place): total for place, total in enumerate(sums)}
    return write_named(folder, "moment", manifest.n, held)
