"""Notices about duplicate examples and missing cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves

from whence.errors import listed
from whence.objective.trained import Examples, Trained
from whence.pages import Status
from whence.rows import row_cells
from whence.views.columns import column_name, has_cells, is_table
from whence.views.sequences import is_sequence

HIDDEN = "One alone does little while the others stay: remove them together."


def copies_of(
    trained: Trained, train_outputs: Tensor, examples: Examples, index: int
) -> NDArray[np.intp]:
    """Return the training examples with the same inputs as one example.

    Args:
        trained: The model.
        train_outputs: Its outputs on the training data, [n, ...]: copies have the same.
        examples: The examples it is one of.
        index: Its position among them.

    Returns:
        Positions in the training data.
    """
    own = trained.outputs(examples.subset(np.array([index])))
    scale = own.abs().max().clamp_min(1.0)
    near = (train_outputs - own).abs().flatten(1).amax(1) <= 1e-5 * scale
    candidates = np.flatnonzero(near.cpu().numpy())
    if not len(candidates) or examples.inputs is None:
        return candidates[:0]
    inputs = trained.train.subset(candidates).inputs
    same = [
        k for k in range(len(candidates)) if _equal(_at(inputs, k), _at(examples.inputs, index))
    ]
    return candidates[same]


def duplicate_statuses(
    trained: Trained, query: Examples, shown: NDArray[np.intp]
) -> tuple[Status, ...]:
    """Return that the query is in the training data, and which shown examples have copies there.

    Args:
        trained: The model.
        query: The one query.
        shown: Positions of the shown examples, [k].

    Returns:
        Statuses, none where nothing occurs twice.
    """
    train = trained.train
    if is_sequence(trained):
        return ()
    outputs = trained.outputs(train)
    found = []
    same = copies_of(trained, outputs, query, 0)
    if len(same):
        found.append(
            Status(
                level="caution",
                title=f"The query is in the training data: {listed(train.ids[same].tolist())}.",
                words="The model has seen its label.",
            )
        )
    examples, seen, twice = train.subset(shown), set[int](), list[tuple[Any, list[Any]]]()
    for index, position in enumerate(shown.tolist()):
        if position in seen:
            continue
        copies = copies_of(trained, outputs, examples, index)
        seen.update(copies.tolist())
        if len(copies) > 1:
            others = [name for name in train.ids[copies].tolist() if name != train.ids[position]]
            twice.append((train.ids[position], others or train.ids[copies].tolist()))
    if twice:
        title = f"Copies of {twice[0][0]} are in the training data: {listed(twice[0][1])}."
        if len(twice) > 1:
            each = listed([f"{name} ({listed(others)})" for name, others in twice])
            title = f"Some of these have copies in the training data: {each}."
        found.append(Status(level="caution", title=title, words=HIDDEN))
    return tuple(found)


def seen_statuses(
    trained: Trained, queries: Examples, shown: Examples, behind: Sequence[Sequence[int]]
) -> tuple[Status, ...]:
    """Return which queries are among the training examples behind them.

    Args:
        trained: The model.
        queries: The q queries.
        shown: The training examples that are shown.
        behind: Of each query, positions in `shown`.

    Returns:
        One status, or none.
    """
    if is_sequence(trained) or queries.inputs is None or not len(shown):
        return ()
    own, of_shown = trained.outputs(queries), trained.outputs(shown)
    found = []
    for q, positions in enumerate(behind):
        some = torch.as_tensor(list(positions), dtype=torch.long, device=own.device)
        near = torch.isclose(of_shown[some], own[q], rtol=1e-5, atol=1e-5).flatten(1).all(1)
        same = (positions[i] for i in np.flatnonzero(near.cpu().numpy()).tolist())
        if any(_equal(_at(shown.inputs, i), _at(queries.inputs, q)) for i in same):
            found.append(queries.ids[q])
    if not found:
        return ()
    one = len(found) == 1
    subject = "1 query is" if one else f"{len(found):,} queries are"
    return (
        Status(
            level="caution",
            title=f"{subject} among the training examples behind {'it' if one else 'them'}: "
            f"{listed(found)}.",
            words=f"The model has seen {'its label' if one else 'their labels'}.",
        ),
    )


def missing_statuses(query: Examples) -> tuple[Status, ...]:
    """Return which cells of a query are missing.

    Args:
        query: The one query.

    Returns:
        One status, or none.
    """
    rows = query.inputs
    if not has_cells(rows):
        return ()
    where = np.flatnonzero(pd.isna(row_cells(rows, 0)))
    if not len(where):
        return ()
    names = listed([column_name(rows, int(j)) for j in where])
    verb = "is" if len(where) == 1 else "are"
    return (
        Status(
            level="caution",
            title=f"{names} {verb} missing in the query.",
            words="The model's own preprocessing filled in a value.",
        ),
    )


def _at(inputs: Any, index: int) -> list[Any]:
    """Return one example's inputs as a list of arrays."""
    if is_table(inputs):
        return [row_cells(inputs, index)]
    return [np.asarray(leaf[index]) for leaf in tree_leaves(inputs)]


def _equal(left: list[Any], right: list[Any]) -> bool:
    """Return whether the inputs of two examples are the same; missing cells are alike."""
    return all(_same(a, b) for a, b in zip(left, right, strict=True))


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Return whether two arrays are the same; `pd.NA` is compared with nothing."""
    if a.shape != b.shape:
        return False
    there, also = np.asarray(pd.notna(a)), np.asarray(pd.notna(b))
    return bool((there == also).all() and (a[there] == b[there]).all())
