"""Training examples chosen for what they do for some targets, from an index."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whence.arrays import Floats
from whence.checked import checked
from whence.errors import InvalidInput
from whence.index.asking import asked_rows, ranking, removed_rows
from whence.index.format import Manifest
from whence.index.index import Index
from whence.index.reading import StoredRows
from whence.index.scan import scan
from whence.index.texts import tokenized
from whence.methods.prediction import MeasureLike, measure_name
from whence.objective.losses import measure_of
from whence.objective.trained import Data
from whence.result import Card, Result

_NUMBERS = 2**22  # of stored rows in memory at once


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Selection(Result):
    """The chosen training examples, the best first.

    Args:
        ids: Their names, [k].
        positions: Their positions in the index, [k].
        scores: The predicted change of the measure without each: for the task it helps most, [k].
        nearest: The name of the target whose features are most alike, [k].
        cosines: The cosine of those features, [k].
        near_duplicates: Whether that cosine is at least the bar: what answers for a target may be
            the target itself, seen in training, [k].
        method: What made the scores.
        measure: What is predicted.
    """

    ids: NDArray[Any]
    positions: NDArray[np.intp]
    scores: Floats
    nearest: NDArray[Any]
    cosines: Floats
    near_duplicates: NDArray[np.bool_]
    method: str
    measure: str

    def to_frame(self) -> pd.DataFrame:
        """Return a row per chosen example."""
        return pd.DataFrame(
            {
                "id": self.ids,
                "score": self.scores,
                "nearest_target": self.nearest,
                "cosine": self.cosines,
                "near_duplicate": self.near_duplicates,
            }
        )

    def card(self) -> Card:
        """Return the first of them."""
        near = int(self.near_duplicates.sum())
        return Card(
            title=f"{len(self.ids):,} training examples chosen by {self.method}; {near:,} nearly "
            "the same as a target",
            facts={"chosen": f"{len(self.ids):,}", "near duplicates": f"{near:,}"},
            table=self.to_frame(),
        )


@checked
def select(
    index: Index,
    targets: Data,
    k: int,
    *,
    tasks: Sequence[Hashable] | None = None,
    measure: MeasureLike = "loss",
    near: float = 0.99,
    tokenizer: Any = None,
    max_length: int | None = None,
) -> Selection:
    r"""Choose the k training examples that help the targets most.

    score[i] = max_t mean_{q in t} score[q, i] over tasks t of targets: LESS, with the features of
    the index (cosines of gradients under Adam there; those of `whence.TracIn(cosine=True, size=16)`
    are nearest to it).

    Args:
        index: The index of the candidates.
        targets: (x, y) of examples of what the model is to be good at; texts with a tokenizer.
        k: How many, >= 1.
        tasks: The task of each target; all are one task if `None`.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        near: The cosine of features from which a chosen example is reported as nearly the same as
            a target.
        tokenizer: Of targets that are texts, as for `Index.query`.
        max_length: Tokens of a text, at most.

    Returns:
        The examples, and beside each the target that is most alike.

    Raises:
        InvalidInput: If k is no number of examples, or there is not one task per target.

    Cost:
        The gradients of the targets, and one pass over the stored rows.

    References:
        Xia et al. (2024), "LESS: Selecting Influential Data for Targeted Instruction Tuning",
        section 4.

    Examples:
        >>> import tempfile, torch, whence
        >>> x, y = torch.randn(30, 4), torch.arange(30) % 3
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(),
        ...                             torch.nn.Linear(8, 3))
        >>> objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index = whence.Index.build(objective, folder)
        ...     chosen = whence.select(index, (x[:6], y[:6]), k=10)
        >>> len(chosen.ids)
        10
    """
    manifest, features = index.complete(), index.features
    removed = removed_rows(index.path, manifest)
    left = manifest.n - len(removed)
    if not 1 <= k <= left:
        raise InvalidInput(f"Expected 1 <= k <= {left}, the examples in the index. Got {k}.")
    encoded = index.trained.examples(tokenized(targets, tokenizer, max_length, manifest.tokenizer))
    asked, _ = asked_rows(index.path, manifest, features, encoded, measure)
    means = _per_task(asked, tasks)
    best, _ = scan(index.path, manifest, means, k, removed, together=True)
    found = ranking(index.path, manifest, best)
    raw = features.queries(encoded, measure_of(index.trained.loss, measure)).detach().float().cpu()
    cosines = _cosines(index, manifest, found.positions[0], raw)
    at = cosines.argmax(1)
    return Selection(
        ids=found.ids[0],
        positions=found.positions[0],
        scores=found.values[0],
        nearest=encoded.ids[at],
        cosines=cosines.max(1),
        near_duplicates=cosines.max(1) >= near,
        method=f"{manifest.words}, {manifest.encoding} rows",
        measure=measure_name(measure) + features.unit,
    )


def _per_task(asked: Tensor, tasks: Sequence[Hashable] | None) -> Tensor:
    """Return the mean over the targets of each task, [t, d]."""
    if tasks is None:
        return asked.mean(0, keepdim=True)
    if len(tasks) != len(asked):
        raise InvalidInput(
            f"Expected one task per target. Got {len(tasks)} for {len(asked)} targets."
        )
    places = {task: place for place, task in enumerate(dict.fromkeys(tasks))}
    where = torch.tensor([places[task] for task in tasks])
    member = nn.functional.one_hot(where).to(asked)
    return (member / member.sum(0)).T @ asked


def _cosines(
    index: Index, manifest: Manifest, positions: NDArray[np.intp], targets: Tensor
) -> Floats:
    """Return the cosines of chosen rows with the features of the targets, [k, q]."""
    stored, targets = StoredRows(index.path, manifest), nn.functional.normalize(targets, dim=1)
    found: Floats = np.empty((len(positions), len(targets)), dtype=np.float32)
    order = np.argsort(positions)
    for part, rows, _ in stored.at(positions[order], max(1, _NUMBERS // targets.shape[1])):
        found[order[part]] = (nn.functional.normalize(rows, dim=1) @ targets.T).numpy()
    return found
