"""Retrainings of a boosting model on random parts of its data, shared by several methods."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.errors import InvalidInput
from whence.methods.family import of_family
from whence.objective.cache import cached
from whence.objective.trained import Trained
from whence.progress import progress
from whence.trees.form import BoostedTrees
from whence.trees.model import BoostedModel


@dataclass(frozen=True, eq=False, kw_only=True)
class Parts:
    """Models that were fitted on random parts of the training rows.

    Args:
        models: The B fitted models, each with all n rows, of weight 0 if outside its part.
        inside: Which rows each was fitted on, [B, n].
    """

    models: tuple[BoostedModel, ...]
    inside: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return B."""
        return len(self.models)

    @cached_property
    def losses(self) -> Tensor:
        """The loss of every training row under each model, [B, n]."""
        targets = self.models[0].train.targets
        return torch.stack(
            [
                model.loss(torch.from_numpy(model.trees.replay.outputs), targets)
                for model in self.models
            ]
        )

    def outputs_without(self) -> Tensor:
        """Return each row's mean outputs under the models that have not seen it, [n, c]."""
        outputs = torch.stack(
            [torch.from_numpy(model.trees.replay.outputs) for model in self.models]
        )
        chosen = torch.from_numpy(~self.inside).double().unsqueeze(2)
        return (outputs * chosen).sum(0) / chosen.sum(0)

    def mean_loss(self, *, inside: bool) -> Tensor:
        """Return each row's mean loss under the models that have seen it, or have not, [n]."""
        chosen = torch.from_numpy(self.inside if inside else ~self.inside).double()
        return (self.losses * chosen).sum(0) / chosen.sum(0).clamp_min(1)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Halves(Parts):
    """Models that were fitted on random halves of the training rows.

    Args:
        models: The B fitted models, each with all n rows, of weight 0 if outside its half.
        inside: Which rows each was fitted on, [B, n].
        whole: The same trees, with leaf values computed from all n rows.
    """

    whole: tuple[BoostedTrees, ...]


_ENSEMBLES = ((2_000, 60), (20_000, 40))  # up to so many rows, so many retrainings; 20 beyond
_SMALL, _TREES, _MOST = (
    200,
    24_000,
    240,
)  # rows up to which so many trees are grown, in so many fits
_FOLDS = 5
_SPLITS = 20  # retrainings on halves to each split into folds


def halves_of(trained: Trained, ensemble: int | None, seed: int) -> Halves:
    """Return retrainings on random halves, made once per model.

    Each pair of halves holds every row once, class by class, so that every row is inside half of
    the models and outside of the other half.

    Args:
        trained: A boosting model.
        ensemble: How many, even, >= 2. If `None`, 60 up to 2,000 rows, 40 up to 20,000 and 20
            beyond; up to 200 rows as many as grow 24,000 trees, from 60 to 240.
        seed: Seed of the halves.

    Returns:
        The models.

    Raises:
        UnsupportedModel: If the model is not boosted trees.
        InvalidInput: If a class has a single row.

    Cost:
        One fit per half, with a progress bar.
    """
    model = boosted(trained)
    count = _count(model, ensemble)
    return cached(model, ("halves", count, seed), lambda twin: _fitted(twin, count, seed))


def folds_of(trained: Trained, ensemble: int | None, seed: int) -> Parts:
    """Return retrainings on four fifths of the rows, class by class, made once per model.

    Each split into five leaves every row out once. There is a split to 20 retrainings on halves,
    and one at least: 15 fits beside 60.

    Args:
        trained: A boosting model.
        ensemble: How many retrainings on halves there are; as `halves_of` has it if `None`.
        seed: Seed of the splits.

    Returns:
        The models.

    Raises:
        UnsupportedModel: If the model is not boosted trees.
        InvalidInput: If a class has a single row.

    Cost:
        One fit per fold, with a progress bar.
    """
    model = boosted(trained)
    splits = max(1, _count(model, ensemble) // _SPLITS)
    return cached(model, ("folds", splits, seed), lambda twin: _fitted_folds(twin, splits, seed))


def _count(model: BoostedModel, ensemble: int | None) -> int:
    """Return how many retrainings on halves there are."""
    if ensemble is not None:
        return ensemble
    count = next((size for most, size in _ENSEMBLES if len(model.train) <= most), 20)
    if len(model.train) > _SMALL:
        return count
    rounds, outputs = model.trees.leaves.shape[:2]
    return max(count, min(_MOST, _TREES // int(2 * rounds * outputs) * 2))


def boosted(trained: Trained) -> BoostedModel:
    """Return the model, or raise if it is not boosted trees.

    Args:
        trained: The model.
    """
    return of_family(
        trained,
        BoostedModel,
        "boosted trees: a model of scikit-learn's HistGradientBoosting or GradientBoosting, "
        "LightGBM, XGBoost or CatBoost",
        "Use whence.Influence() for a smooth model, and whence.ForestWeights() for a forest.",
    )


def _fitted(model: BoostedModel, ensemble: int, seed: int) -> Halves:
    """Return the models of an ensemble."""
    inside = _draw(model, ensemble, seed)
    models = _refits(model, inside, "fitting halves")
    trees = model.trees
    whole = tuple(each.trees.on(each.trees.leaves, trees.targets, trees.weights) for each in models)
    return Halves(models=models, inside=inside, whole=whole)


def _fitted_folds(model: BoostedModel, splits: int, seed: int) -> Parts:
    """Return the models that have not seen a fold each."""
    generator = np.random.default_rng(seed)
    inside = np.repeat(model.weights.numpy()[None] > 0, splits * _FOLDS, axis=0)
    for split in inside.reshape(splits, _FOLDS, -1):
        for group in _groups(model):
            first = int(generator.integers(_FOLDS))  # small classes begin anywhere
            fold = (first + np.arange(len(group))) % _FOLDS
            split[fold, generator.permutation(group)] = False
    return Parts(models=_refits(model, inside, "fitting folds"), inside=inside)


def _refits(model: BoostedModel, inside: NDArray[np.bool_], words: str) -> tuple[BoostedModel, ...]:
    """Return the models fitted on the rows inside each part."""
    weights = model.weights * torch.from_numpy(inside)
    refits = progress(model.refits(weights), total=len(inside), desc=words, unit="fit")
    return tuple(boosted(each) for each in refits)


def _groups(model: BoostedModel) -> list[NDArray[np.intp]]:
    """Return the rows with weight, class by class where there are classes."""
    present = np.flatnonzero(model.weights.numpy() > 0)
    if not model.loss.classifies:
        return [present]
    labels = model.train.targets.numpy()[present]
    groups = [present[labels == label] for label in np.unique(labels)]
    smallest = min(map(len, groups))
    if smallest < 2:
        raise InvalidInput(
            "Expected at least 2 rows of every class, one for each half. Got a class with "
            f"{smallest}. Leave its row out, or use whence.Boosting(ensemble=0)."
        )
    return groups


def _draw(model: BoostedModel, ensemble: int, seed: int) -> NDArray[np.bool_]:
    """Return the halves, [ensemble, n]: pairs that complement each other."""
    groups = _groups(model)
    generator = np.random.default_rng(seed)
    inside = np.zeros((ensemble, len(model.train)), dtype=bool)
    for pair in range(0, ensemble, 2):
        for group in groups:
            order = generator.permutation(group)
            # An odd row goes to either half by chance.
            half = (len(group) + int(generator.integers(2))) // 2
            inside[pair, order[:half]] = True
            inside[pair + 1, order[half:]] = True
    return inside
