"""Whether the files of an index are as they were written, and what the encoding of rows costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from whence.index.damage import check_sizes, fault
from whence.index.format import Manifest, read_index
from whence.index.hits import Info, Verification
from whence.index.scan import products
from whence.methods.features import FeatureMap

_SAMPLE = 2_000  # examples whose features are computed anew, at most


def files_read(folder: Path, manifest: Manifest) -> Verification:
    """Return which files are damaged: every byte is read.

    Args:
        folder: The index.
        manifest: What it holds.
    """
    faults = [fault(folder, file) for file in manifest.files]
    return Verification(
        faults=tuple(found for found in faults if found),
        files=len(manifest.files),
        encoding=manifest.encoding,
        error=error_of(manifest),
        worst=max((shard.error for shard in manifest.shards), default=0.0) ** 0.5,
    )


def info_of(folder: Path) -> Info:
    """Return what an index holds; no model is needed.

    Args:
        folder: The index.

    Raises:
        InvalidInput: If there is none.
        CorruptFile: If the manifest is damaged, or a file is missing or has another size.
    """
    manifest = read_index(folder)
    check_sizes(folder, manifest.files)
    size = sum((folder / file.name).stat().st_size for file in manifest.files)
    return Info(
        n=manifest.n,
        removed=manifest.removed.count if manifest.removed else 0,
        complete=manifest.complete,
        shards=len(manifest.shards),
        dimensions=sum(block.size for block in manifest.blocks),
        encoding=manifest.encoding,
        size=size,
        error=error_of(manifest),
        words=manifest.words,
    )


def error_of(manifest: Manifest) -> float:
    """Return the relative root mean square error of the rows, shards counted by their rows.

    Args:
        manifest: What an index holds.
    """
    total = sum(shard.rows * shard.error for shard in manifest.shards)
    return float((total / max(1, manifest.n)) ** 0.5)


def compared(
    found: Verification,
    folder: Path,
    manifest: Manifest,
    features: FeatureMap,
    asked: Tensor,
    k: int,
) -> Verification:
    """Return the findings with scores by stored rows beside those by float32 features.

    Args:
        found: The findings so far.
        folder: The index, of the training data of the model.
        manifest: What it holds.
        features: The features, computed anew.
        asked: What rows are multiplied with, [q, d].
        k: Of the comparison of the first k.
    """
    trained, asked = features.trained, asked.cpu()
    count = min(_SAMPLE, len(trained.train))
    shards = tuple(shard for shard in manifest.shards if shard.first < count)
    some = replace(manifest, shards=shards)
    stored = torch.cat([part.T for _, part in products(folder, some, asked)])[:count]
    examples = trained.train.subset(np.arange(count))
    rows = features.rows(examples).detach().float().cpu()
    factors = features.slopes(examples).float().cpu()
    if features.averaged:
        factors = factors * trained.weights[:count].float().cpu().unsqueeze(1)
    exact = torch.zeros_like(stored)
    for part, factor in zip(features.columns, factors.unbind(1), strict=True):
        exact += factor.unsqueeze(1) * (rows[:, part] @ asked[:, part].T)
    k = min(k, count)
    firsts = zip(exact.topk(k, 0).indices.T, stored.topk(k, 0).indices.T, strict=True)
    shared = [len({*a.tolist()} & {*b.tolist()}) / k for a, b in firsts]
    # A query whose scores are all alike has no correlation; stored rows that made them so have 0.
    correlations = [
        float(torch.corrcoef(torch.stack(pair))[0, 1].nan_to_num())
        for pair in zip(exact.T, stored.T, strict=True)
        if pair[0].min() < pair[0].max()
    ]
    return replace(
        found,
        pearson=min(correlations, default=None),
        overlap=float(np.mean(shared)),
        k=k,
        compared=count,
    )
