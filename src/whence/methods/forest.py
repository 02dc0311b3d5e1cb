"""Forests: the weights of training rows in a prediction, and what it would be without each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.arrays import Floats
from whence.checked import checked
from whence.methods.attribution import Attribution
from whence.methods.family import of_family
from whence.methods.method import Method
from whence.methods.subsets import Positions
from whence.methods.tree_changes import forest_edit, forest_relabeling
from whence.objective.measures import Measure
from whence.objective.trained import Data, Examples, Trained
from whence.scores import Diagnostics
from whence.tiles import tiles
from whence.trees.model import ForestModel

_NUMBERS = 2**24  # of queries by rows by outputs at a time


@final
@checked
@dataclass(frozen=True, kw_only=True)
class ForestWeights(Method):
    r"""Predict removals from a forest in closed form: its predictions are weighted means.

    f(x) = Σᵢ wᵢ(x) yᵢ with Σᵢ wᵢ(x) = 1, from shared leaves and bootstrap counts. Without row i
    the other weights grow in proportion: f₋ᵢ = (f − wᵢ yᵢ)/(1 − wᵢ), and
    score[q, i] = m(f₋ᵢ) − m(f), evaluated and not linearized. Of a classifier the shares are
    measured with 1/(2n) added to each, before and after: where all trees agree, the rows that carry
    the prediction still support it.

    Cost:
        One addition per tree, query and training row that share a leaf, and q n measures.

    References:
        Meinshausen (2006), section 2, equation 4, for the weights; Wager, Hastie & Efron (2014),
        equations 5 and 7, for the standard error of a prediction.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.ensemble import RandomForestRegressor
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = RandomForestRegressor(n_estimators=50, random_state=0).fit(X, y)
        >>> found = whence.ForestWeights().fit(whence.from_sklearn(model, X, y))
        >>> found.scores((X[:2], y[:2])).values.shape
        (2, 442)
    """

    def attribution(self, trained: Trained) -> Attribution:
        """Return the scores of a forest."""
        return _Weighted(forest_model(trained))


def forest_model(trained: Trained) -> ForestModel:
    """Return the model, or raise if it is not a forest.

    Args:
        trained: The model.
    """
    return of_family(
        trained,
        ForestModel,
        "a forest: RandomForest*, ExtraTrees*, DecisionTree*, or Bagging* of trees",
        "Use whence.Boosting() for boosted trees, and whence.Influence() for a smooth model.",
    )


@final
@dataclass(frozen=True, eq=False)
class _Weighted(Attribution):
    """Removals from a forest.

    Args:
        trained: The forest.
    """

    trained: ForestModel

    @property
    def words(self) -> str:
        """The method, with its source."""
        return "forest weights in closed form (Meinshausen 2006)"

    @property
    def linear(self) -> bool:
        """Whether measures are linearized: no, they are evaluated."""
        return False

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return m(f₋ᵢ) − m(f), [q, k]."""
        model, forest = self.trained, self.trained.forest
        leaves = forest.leaves_of(queries.inputs)
        shares = torch.from_numpy(forest.outputs(leaves))
        targets = torch.from_numpy(forest.targets[where])
        before = measure(model.scores(shares), queries.targets)
        values = torch.empty(len(queries), len(where), dtype=torch.float64)
        for part in tiles(len(queries), forest.targets.size, _NUMBERS):
            weights = torch.from_numpy(forest.weights(leaves[:, part])[:, where]).unsqueeze(2)
            without = shares[part].unsqueeze(1) - weights * targets
            if model.classes:  # the loss takes logarithms of shares to any scale
                without = without.clamp_min(0)
            else:
                # A row that alone makes a prediction leaves the mean of the training targets.
                alone = weights >= 1 - 1e-12
                without = torch.where(alone, self._prior(), without / (1 - weights))
            asked = queries.targets[part].repeat_interleave(len(where), 0)
            after = measure(model.scores(without.flatten(0, 1)), asked)
            values[part] = after.reshape(-1, len(where)) - before[part].unsqueeze(1)
        error = forest.standard_error(leaves)
        note = (
            "With other training rows of the same kind a prediction would differ by about "
            f"{np.median(error.max(axis=1)):.2g} "
            f"({'in the share of a class' if model.classes else 'in the unit of the target'}; "
            "standard error by the infinitesimal jackknife)."
        )
        drawn = bool((forest.counts != forest.counts[:1]).any())
        notes = (*model.notes, note) if drawn else model.notes
        return values, Diagnostics(notes=notes)

    def edit_effects(
        self, queries: Examples, measure: Measure, index: int, new: Examples
    ) -> Tensor:
        """Return the changes with the new row in the bags of the old one, [q]."""
        return forest_edit(self.trained, queries, measure, index, new)

    def relabel_effects(
        self, queries: Examples, measure: Measure, where: Positions, targets: Tensor
    ) -> Tensor:
        """Return the changes of the mean measure, [k]."""
        return forest_relabeling(self.trained, queries, measure, where, targets)

    def standard_error(self, queries: Data) -> Floats:
        """Return the standard error of predictions over training sets, [q, c].

        Args:
            queries: (X, y) of q queries.

        Returns:
            Of each class share, or of the mean: zero where the trees saw the same rows.
        """
        rows = self.trained.examples(queries).inputs
        return self.trained.forest.standard_error(self.trained.forest.leaves_of(rows))

    def _prior(self) -> Tensor:
        """Return the mean of the training targets, [c]."""
        return torch.from_numpy(self.trained.forest.targets.mean(axis=0))
