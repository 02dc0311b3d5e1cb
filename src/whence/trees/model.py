"""Tree ensembles with the data they were fitted on, as models that methods score."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.arrays import Floats
from whence.checked import said
from whence.errors import warn_user
from whence.objective.cache import first_time
from whence.objective.loss import Loss
from whence.objective.trained import Data, Examples, Trained
from whence.rows import take
from whence.tiles import spread
from whence.trees.forest import Forest
from whence.trees.form import BoostedTrees
from whence.workers import Backend, ahead, map_shards

_LOOKED_AT = 1_000  # training rows at which a fit is to give the model again
_SAME = 1e-3  # of the range of predictions: less is rounding, which may turn a split
_LONG = 5_000  # rows of a fit that is worth a thread of its own


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TreeExamples(Examples):
    """Rows of a table with their targets.

    Args:
        inputs: The user's rows: a frame, an array or a sparse matrix, [b].
        targets: 0.0/1.0, class indices or numbers, [b].
        ids: The user's names of the rows, [b].
    """

    inputs: Any
    targets: Tensor
    ids: NDArray[Any]

    def subset(self, indices: NDArray[np.intp]) -> TreeExamples:
        """Return the rows at these positions."""
        return TreeExamples(
            inputs=take(self.inputs, indices),
            targets=self.targets[torch.as_tensor(indices)],
            ids=self.ids[indices],
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TreeModel(Trained):
    """A fitted tree ensemble, without parameters to differentiate.

    Args:
        name: What the estimator is called.
        settings: Its settings, as text.
        train: The n training rows.
        weights: The sample weights, [n]; 0 for rows that were left out of the fit.
        loss: ℓ, of the raw predictions of boosting, or of the log odds of a forest.
        classes: The user's names of the classes; empty for a regression.
        encode: Checks and encodes a user's (X, y).
        fit: Returns the estimator fitted under other weights.
        read: Returns the model of an estimator that was fitted under these weights.
        fit_edited: Returns the model that it gives with another row in the place of one.
        notes: What a reader must know, a sentence each.
        repeats: Whether a fit on the same rows is to give the same model.
        workers: Processes, or tasks of Ray, that fit it again at a time.
        backend: "process" or "ray".
        convex: False: trees are chosen greedily.
        jumps: True: another split may win as one row goes.
    """

    name: str
    settings: str
    train: TreeExamples
    weights: Tensor
    loss: Loss
    classes: tuple[Any, ...]
    encode: Callable[[Any], TreeExamples]
    fit: Callable[[Floats], Any]
    read: Callable[[Any, Floats], TreeModel]
    fit_edited: Callable[[int, TreeExamples, Floats], TreeModel]
    notes: tuple[str, ...] = ()
    repeats: bool = True
    workers: int = 1
    backend: Backend = "process"
    convex: bool = False
    jumps: bool = True

    @property
    def trained_loss(self) -> Loss:
        """The same loss."""
        return self.loss

    def __repr__(self) -> str:
        """Return the estimator and the number of rows."""
        return f"<{self.name} on {len(self.weights):,} rows>"

    def identity(self) -> tuple[Tensor | str, ...]:
        """Return the estimator's settings."""
        return (repr(self), self.settings)

    def examples(self, data: Data) -> TreeExamples:
        """Check and encode (X, y): one row or many."""
        return self.encode(data)

    def refit(self, weights: Tensor | None = None) -> TreeModel:
        """Return the model that the estimator's own fit gives on the rows with weight."""
        chosen = self.weights if weights is None else weights
        given = chosen.double().numpy()
        return self.read(self.fit(given), given)

    @property
    def together(self) -> int:
        """As many as keep all workers busy."""
        return 1 if self.workers == 1 and self.backend == "process" else 8 * self.workers

    def refits(self, weights: Tensor) -> Iterator[TreeModel]:
        """Yield the estimator's own fits for each row of weights [k, n], by several workers.

        Before the first of all, one to the model's own rows must give the model again.

        Warns:
            NotConvergedWarning: If it does not.
        """
        rows, own = [row.double().numpy() for row in weights], self.weights.double().numpy()
        judged = self.repeats and first_time(self, "a fit gives the model again")
        if judged and len(rows):
            rows.insert(0, own)
        workers = max(1, min(self.workers, len(rows)))
        fits = map_shards(self.fit, rows, workers=workers, backend=self.backend)
        if len(self.weights) >= _LONG:
            fits = ahead(fits)  # the next is fitted while this one is read
        for row, fitted in zip(rows, fits, strict=True):
            model = self.read(fitted, row)
            if row is own:
                self._warn_unless_the_same(model)
            else:
                yield model

    def _warn_unless_the_same(self, again: TreeModel) -> None:
        """Warn if a fit to the model's own rows predicts other than the model."""
        n = len(self.weights)
        few = self.train.subset(spread(n, _LOOKED_AT))
        ours, theirs = self.outputs(few), again.outputs(few)
        off = float((ours - theirs).abs().max() / (float(ours.max() - ours.min()) or 1.0))
        if off > _SAME:
            warn_user(
                f"Expected a fit with the settings of {self.name} to give the model again. Got "
                f"predictions that differ by {off:.2g} of their range, so that retrainings are of "
                "another model. A model from a file may have lost its settings; a fit may have "
                "been given more than rows, targets and weights, such as callbacks. Pass the "
                "estimator as it was fitted."
            )

    def refit_edited(self, where: NDArray[np.intp], new: Examples) -> TreeModel:
        """Return the model that the estimator's own fit gives with training rows replaced."""
        changed = self
        for place, index in enumerate(where.tolist()):
            row = changed.encode(new.subset(np.array([place])))
            changed = changed.fit_edited(index, row, changed.weights.double().numpy())
        return changed


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class BoostedModel(TreeModel):
    """A fitted boosting model.

    Args:
        trees: Its trees, with the n training rows.
    """

    trees: BoostedTrees

    def outputs(self, examples: Examples) -> Tensor:
        """Return the raw predictions, [b, c]."""
        with said("rows that the trees can read"):
            return torch.from_numpy(self.trees.predict(examples.inputs))


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ForestModel(TreeModel):
    """A fitted forest, whose outputs are the log odds of its class shares, or its means.

    Args:
        forest: Its trees, with the n training rows.
        floor: ε, which is added to every class share before the logarithm; 0 for a regression.
    """

    forest: Forest
    floor: float = 0.0

    def outputs(self, examples: Examples) -> Tensor:
        """Return the log odds or the means, [b, c]."""
        with said("rows that the trees can read"):
            return self.scores(torch.from_numpy(self.forest.predict(examples.inputs)))

    def scores(self, shares: Tensor) -> Tensor:
        """Return the outputs for class shares [..., c], or for means [..., 1].

        log(p + ε), and for two classes log(p₁ + ε) − log(p₀ + ε), [..., 1].
        """
        if not self.floor:
            return shares
        logs = torch.log(shares + self.floor)
        return logs[..., 1:] - logs[..., :1] if shares.shape[-1] == 2 else logs
