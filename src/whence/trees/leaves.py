r"""How boosting libraries turn the rows of a leaf into its value, and how it moves with them.

In round t, with the outputs F of the rounds before it, leaf l of output k has the value
v = −η S(G)/(H + λ), G = Σ wᵢ gᵢ, H = Σ wᵢ hᵢ over its rows, S the soft threshold of an L1 penalty.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import softmax

from whence.arrays import Floats
from whence.trees.losses import BoostingLoss, Slopes, Softmax

Integers = NDArray[np.integer]
Wide: TypeAlias = NDArray[np.floating[Any]]  # of rows or leaves by queries, in either precision
_TINY = 1e-150  # sums of curvatures that count as none


@dataclass(frozen=True, eq=False)
class Round:
    """One round: the leaf of each row, and how the row moves the value of its leaf.

    Args:
        leaf: The leaf of each row in the tree of each output, [c, n].
        by_weight: ∂v_k/∂wᵢ of the value v_k of row i's leaf, [n, c].
        by_output: ∂v_k/∂F_j(xᵢ), in the outputs before the round, [n, c (k), c (j)].
        mixing: `None` where a row moves its own leaf alone. Else by_weight and by_output are of
            s = 2 c sums over the rows of a leaf in place of c values, and mixing is how the leaf
            values of output k = i mod c follow sum i, [s (i), size (its leaf), size].
    """

    leaf: Integers
    by_weight: Floats
    by_output: Floats
    mixing: Floats | None = None

    def of_sums(self, values: Wide) -> Wide:
        """Return the sensitivities of what rows move, [s, size, q], from those of the leaf values.

        Args:
            values: Those of the leaf values, [s, size, q]; those from c on are not read.
        """
        if self.mixing is None:
            return values
        c = self.by_output.shape[2]
        both = np.concatenate([values[:c], values[:c]])
        return np.asarray(np.matmul(self.mixing, both, dtype=values.dtype))


class LeafRule(ABC):
    """How leaf values are computed.

    Attributes:
        size: The number of leaves that room is kept for, per tree.
    """

    size: int

    @abstractmethod
    def values(
        self, t: int, leaf: Integers, outputs: Floats, targets: Floats, weights: Floats
    ) -> Floats:
        """Return the leaf values of round t, [c, size].

        Args:
            t: The round.
            leaf: The leaf of each row in the tree of each output, [c, n].
            outputs: F of the rows before the round, [n, c].
            targets: y, [n].
            weights: The weights that the trees of the round see, [n, 1 or c].
        """

    @abstractmethod
    def round(
        self, t: int, leaf: Integers, outputs: Floats, targets: Floats, weights: Floats
    ) -> Round:
        """Return round t with its derivatives; the arguments are those of `values`."""

    def beside(self, rules: Sequence[LeafRule]) -> LeafRule | None:
        """Return the rule of several models side by side, each with as many leaves per tree.

        Args:
            rules: The rules of the b models, of this class, this one's first.

        Returns:
            The rule, with leaf l of model i as leaf i size/b + l; `None` where there is none.
        """
        return None


@dataclass(frozen=True, eq=False)
class NewtonLeaves(LeafRule):
    """Leaf values v = −η S(G)/(H + λ), for the losses whose leaf values are smooth in their rows.

    Args:
        loss: Gives g and h.
        rates: η of each round, [t].
        size: The number of leaves that room is kept for, per tree.
        l2: λ, one number or one per leaf, [t, c, size]; infinity where a leaf is left at 0.
        l1: α >= 0: S(G) = sign(G) max(|G| − α, 0).
        max_step: The largest |v|/η; 0 for no limit.
        min_curvature: Trees with a smaller H in a leaf leave it at 0, [t, c, 1]; `None` for none.
            Of models side by side, [t, c, size].
        steps: Newton steps per round (CatBoost's `leaf_estimation_iterations`); one output only.
        factors: What each step of a round is multiplied with, [t, steps, 1]; `None`: with 1. Of
            models side by side, [t, steps, size].
    """

    loss: BoostingLoss
    rates: Floats
    size: int
    l2: Floats
    l1: float = 0.0
    max_step: float = 0.0
    min_curvature: Floats | None = None
    steps: int = 1
    factors: Floats | None = None

    def beside(self, rules: Sequence[LeafRule]) -> LeafRule | None:
        """Return the rule of models that differ in penalties and leaves alone."""
        alike = [rule for rule in rules if type(rule) is NewtonLeaves and self._like(rule)]
        if len(alike) < len(rules):
            return None
        size = max(rule.size for rule in alike)
        least = [each.min_curvature for each in alike if each.min_curvature is not None]
        factors: Floats | None = None
        if any(each.factors is not None for each in alike):
            factors = np.repeat(np.concatenate([each._factors for each in alike], 2), size, axis=2)
        return replace(
            self,
            size=size * len(alike),
            factors=factors,
            l2=np.concatenate([each._penalties(size) for each in alike], axis=2),
            min_curvature=np.repeat(np.concatenate(least, axis=2), size, axis=2) if least else None,
        )

    def _like(self, other: NewtonLeaves) -> bool:
        """Return whether another rule has the same loss, rates and options."""
        return (
            (self.loss, self.l1, self.max_step, self.steps)
            == (other.loss, other.l1, other.max_step, other.steps)
            and np.array_equal(self.rates, other.rates)
            and (self.min_curvature is None) == (other.min_curvature is None)
        )

    @property
    def _factors(self) -> Floats:
        """The factors of the steps, [t, steps, 1]."""
        return np.ones((len(self.rates), self.steps, 1)) if self.factors is None else self.factors

    def _penalties(self, size: int) -> Floats:
        """Return λ of more leaves than there are, [t, 1 or c, size]: those beyond stay at 0."""
        own = self.l2 if self.l2.ndim else np.broadcast_to(self.l2, (len(self.rates), 1, self.size))
        l2 = np.full((*own.shape[:2], size), np.inf)
        l2[:, :, : self.size - 1] = own[:, :, :-1]
        return l2

    def values(
        self, t: int, leaf: Integers, outputs: Floats, targets: Floats, weights: Floats
    ) -> Floats:
        """Return the sums of the steps, times η."""
        total = np.zeros((len(leaf), self.size))
        for factor in self._factors[t]:
            at = self.loss.slopes(outputs + _spread(total, leaf), targets)
            total += factor * self._step(t, leaf, at, weights)[0]
        return np.asarray(self.rates[t] * total, dtype=np.float64)

    def round(
        self, t: int, leaf: Integers, outputs: Floats, targets: Floats, weights: Floats
    ) -> Round:
        """Return round t with its derivatives.

        A step s of several moves the later ones through the outputs of the leaf's rows. Their
        sensitivities are numbers per leaf, so that the steps of a round fold into one coefficient
        per row.
        """
        total = np.zeros((len(leaf), self.size))
        by_weight, by_output = [], []
        for factor in self._factors[t]:
            at = self.loss.slopes(outputs + _spread(total, leaf), targets)
            step, inverse = self._step(t, leaf, at, weights)
            moved, scale = _spread(step, leaf), -_spread(factor * inverse, leaf)
            by_weight.append(scale * (at.g + moved * at.h))
            by_output.append((weights * scale)[:, :, None] * (at.dg + moved[:, :, None] * at.dh))
            total += factor * step
        sensitivity = np.ones_like(total)
        first, second = by_weight[-1], by_output[-1]
        for s in range(self.steps - 2, -1, -1):
            seen = _spread(sensitivity, leaf)[:, :, None] * by_output[s + 1]
            sensitivity = sensitivity + sums(seen[:, :, 0], leaf, self.size)
            spread = _spread(sensitivity, leaf)
            first = first + spread * by_weight[s]
            second = second + spread[:, :, None] * by_output[s]
        return Round(leaf, self.rates[t] * first, self.rates[t] * second)

    def _step(self, t: int, leaf: Integers, at: Slopes, weights: Floats) -> tuple[Floats, Floats]:
        """Return v/η, and 1/(H + λ) where the value is free to move, [c, size] both."""
        total = sums(weights * at.g, leaf, self.size)
        curvature = sums(weights * at.h, leaf, self.size)
        l2 = self.l2 if self.l2.ndim == 0 else self.l2[t]
        least = 0.0 if self.min_curvature is None else self.min_curvature[t]
        step, inverse = self.step(total, curvature, l2, least)
        inverse[:, -1] = step[:, -1] = 0  # rows that lie in no leaf of the training rows
        return step, inverse

    def step(
        self, total: Floats, curvature: Floats, l2: Floats, least: Floats | float
    ) -> tuple[Floats, Floats]:
        """Return −S(G)/(H + λ), and 1/(H + λ) where the step is free to move, in the shape of G.

        Args:
            total: G.
            curvature: H.
            l2: λ.
            least: The H below which there is no step.
        """
        fitted = (curvature + l2 > _TINY) & (curvature >= least)
        inverse = np.zeros_like(total)
        np.divide(1.0, curvature + l2, out=inverse, where=fitted)
        step = -np.sign(total) * np.maximum(np.abs(total) - self.l1, 0) * inverse
        free = np.abs(total) > self.l1 if self.l1 else fitted
        if self.max_step:
            free &= np.abs(step) < self.max_step
            step = np.clip(step, -self.max_step, self.max_step)
        return step, inverse * free


@dataclass(frozen=True, eq=False)
class VectorLeaves(LeafRule):
    """Leaves of one tree for all outputs: v = −η (H + λ I)⁻¹ G with the full Hessian H [c, c].

    Args:
        loss: The softmax loss: its dg is the Hessian of a row.
        rates: η of each round, [t].
        size: The number of leaves that room is kept for.
        l2: λ.
    """

    loss: Softmax
    rates: Floats
    size: int
    l2: float

    def values(
        self, t: int, leaf: Integers, outputs: Floats, targets: Floats, weights: Floats
    ) -> Floats:
        """Return the Newton steps, times η."""
        at = self.loss.slopes(outputs, targets)
        step = self._step(leaf[0], at, weights)[0]
        return np.asarray(self.rates[t] * step.T, dtype=np.float64)

    def round(
        self, t: int, leaf: Integers, outputs: Floats, targets: Floats, weights: Floats
    ) -> Round:
        """Return round t: u moves by −(H + λ)⁻¹ (g + J u) per weight, J the row's Hessian."""
        at = self.loss.slopes(outputs, targets)
        step, inverse = self._step(leaf[0], at, weights)
        u, spread = step[leaf[0]], -self.rates[t] * inverse[leaf[0]]
        p = softmax(outputs, axis=1)
        centered = p * (u - (p * u).sum(axis=1, keepdims=True))  # J u
        moved = at.dg - p[:, :, None] * centered[:, None] - centered[:, :, None] * p[:, None]
        diagonal = np.arange(p.shape[1])
        moved[:, diagonal, diagonal] += centered  # ∂(g + J u)/∂F
        by_weight = np.einsum("njk,nk->nj", spread, at.g + centered)
        return Round(leaf, by_weight, weights[:, :, None] * (spread @ moved))

    def _step(self, leaf: Integers, at: Slopes, weights: Floats) -> tuple[Floats, Floats]:
        """Return v/η, [size, c], and (H + λ I)⁻¹, [size, c, c]; zero for leaves without rows."""
        n, c = at.g.shape
        members = sparse.csr_array(
            (weights[:, 0], leaf.astype(np.int32), np.arange(n + 1, dtype=np.int32)),
            shape=(n, self.size),
        ).T
        hessian = (members @ at.dg.reshape(n, -1)).reshape(self.size, c, c)
        largest = hessian.diagonal(axis1=1, axis2=2).max(axis=1)
        inverse = np.zeros_like(hessian)
        filled = np.flatnonzero(largest[:-1] > _TINY)
        floor = np.maximum(self.l2, largest[filled] * np.finfo(np.float32).eps)
        inverse[filled] = np.linalg.inv(hessian[filled] + floor[:, None, None] * np.eye(c))
        return -np.einsum("ljk,lk->lj", inverse, members @ at.g), inverse


def _spread(values: Floats, leaf: Integers) -> Floats:
    """Return each row's leaf value, [n, c]."""
    each = [values[k][leaf[k]] for k in range(len(leaf))]
    return each[0].reshape(-1, 1) if len(each) == 1 else np.stack(each, axis=1)


def sums(rows: Floats, leaf: Integers, size: int) -> Floats:
    """Return the sum over each leaf's rows, [c, size].

    Args:
        rows: A number per row and output, [n, c].
        leaf: The leaf of each row in the tree of each output, [c, n].
        size: The leaves per tree.
    """
    return np.stack([np.bincount(leaf[k], rows[:, k], minlength=size) for k in range(len(leaf))])
