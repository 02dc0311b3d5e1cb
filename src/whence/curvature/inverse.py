r"""The inverse of a Kronecker-factored curvature, and scores in its eigenbasis.

No gradient is formed where it factors. With one position per example a layer's gradient is δ āᵀ,
and with D = 1/(Λ + λ) ≈ Σ_r u_r v_rᵀ

```
Σ_oi (Q_Gᵀδ)_o (Q_Aᵀā)_i D_oi (Q_Gᵀδ′)_o (Q_Aᵀā′)_i = Σ_r (x_rᵀ Q_Gᵀδ′)(y_rᵀ Q_Aᵀā′)
x_r = u_r ⊙ Q_Gᵀδ,   y_r = v_r ⊙ Q_Aᵀā
```

so that q × n scores are r pairs of matrix products, 2 r (out + in) operations each instead of
2 out · in. D is smooth where it matters, and r is a few dozen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, final

import torch
from torch import Tensor

from whence.curvature.downdate import Downdated, downdated
from whence.curvature.exact import Gradients
from whence.curvature.factors import Layer, by_layer
from whence.errors import InvalidInput
from whence.linalg.operator import LinearOperator
from whence.linalg.rank_reduction import separate
from whence.linalg.solver import Inverse, Solution, as_block, default_rtol
from whence.linalg.spectral import KroneckerEigen
from whence.linalg.structured import BlockDiagonal, Reordered
from whence.network.objective import ModuleObjective
from whence.network.precision import product_dtype
from whence.tiles import tiles

_TILE = 2**21  # numbers in a tile of scores by sums of products: what a cache holds
_DOWNDATE = 2**27  # numbers in the rows that are taken out in closed form


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class KroneckerInverse(Inverse):
    """The inverse that `EKFAC` and `KFAC` prepare: products, and scores of factored gradients.

    Args:
        operator: A, damped.
        closed: A⁻¹, block diagonal in its own order of the parameters.
        layers: The layers of its first blocks.
        rtol: The relative root mean square error of scores of Kronecker-factored gradients.
    """

    substitute: ClassVar[bool] = True

    operator: LinearOperator
    closed: Reordered
    layers: tuple[Layer, ...]
    rtol: float

    @property
    def closed_form(self) -> Reordered:
        """A⁻¹."""
        return self.closed

    def matmat(self, V: Tensor) -> Tensor:
        """Return A⁻¹ V, unchecked."""
        return self.closed.matmat(V)

    def solve_columns(self, B: Tensor) -> Solution:
        """Return A⁻¹ B with its residual."""
        rtol = default_rtol(self.dtype)
        return Solution.checked(self.operator, B, self.matmat(B), rtol=rtol, iterations=0)

    def between(
        self, left: LinearOperator, right: LinearOperator
    ) -> tuple[Tensor, Solution | None]:
        """Return L A⁻¹ Rᵀ without a solve: in the eigenbasis where gradients factor.

        Args:
            left: L, [q, p], of few rows.
            right: R, [b, p].

        Returns:
            The products, [q, b], and `None`.
        """
        sides = [rows for rows in (left, right) if isinstance(rows, Gradients)]
        if not self.factors or len(sides) < 2:
            columns = as_block(left)
            for block, places in self.closed.placed():
                columns[places] = block.matmat(columns[places])
            return right.matmat(columns).T, None
        total = torch.zeros(left.shape[0], right.shape[0], dtype=self.dtype, device=self.device)
        mine, others = sides
        terms = self._terms(mine, right.shape[0])
        for part, rows in self._rows(others):
            for layer, (delta, a) in rows.items():
                x, y, rotated = terms[layer]
                if not rotated:
                    block = self._one_position[layer]
                    delta, a = delta @ block.left, a @ block.right
                _add_products(total[:, part], x, y, delta, a)
        if (rest := self._rest(mine)) is not None:
            objective, inverse = rest
            columns = objective.gradient_columns(mine.examples, mine.measure)
            other = Gradients(objective, others.examples, others.measure)
            total += other.matmat(inverse.matmat(columns)).T
        return total, None

    def quadratic(self, rows: LinearOperator) -> Tensor:
        """Return rᵀ A⁻¹ r for each row r: in the eigenbasis where gradients factor.

        Args:
            rows: R, [b, p].

        Returns:
            The products, [b].
        """
        if not (self.factors and isinstance(rows, Gradients)):
            return super().quadratic(rows)
        total = torch.zeros(rows.shape[0], dtype=self.dtype, device=self.device)
        for part, factors in self._rows(rows):
            for layer, (delta, a) in factors.items():
                block = self._one_position[layer]
                squares = (delta @ block.left).square_() @ block.values
                total[part] += (squares * (a @ block.right).square_()).sum(1)
        if (rest := self._rest(rows)) is not None:
            objective, inverse = rest
            others = Gradients(objective, rows.examples, rows.measure).row_blocks()
            total += torch.cat([inverse.forms(part.T.unsqueeze(1)).flatten() for part in others])
        return total

    def downdated(self, rows: LinearOperator, signs: Tensor) -> Downdated | None:
        """Return (A + Rᵀ Σ R)⁻¹, no direction with less curvature than A's smallest eigenvalue.

        Args:
            rows: R, [r, p].
            signs: The diagonal of Σ, ±1, [r].

        Returns:
            The inverse; `None` for more than 2²⁷ numbers in R.
        """
        if rows.shape[0] * rows.shape[1] > _DOWNDATE:
            return None
        least = 1 / self.closed.extremes()[1]
        return downdated(self, torch.cat(list(rows.row_blocks()), 1), signs, least)

    @property
    def gradient_rtol(self) -> float | None:
        """That of scores, where gradients are formed: `None` where their factors are enough."""
        return None if self.factors else self.rtol

    @property
    def factors(self) -> bool:
        """Whether the gradients of some layer are one outer product each."""
        return bool(self._one_position)

    @cached_property
    def _one_position(self) -> dict[Layer, KroneckerEigen]:
        """The layers with one position per example, with their blocks of the inverse."""
        blocks = zip(self.layers, self._blocks, strict=False)
        return {
            layer: block
            for layer, (block, _) in blocks
            if layer.one_position and isinstance(block, KroneckerEigen)
        }

    @cached_property
    def _blocks(self) -> list[tuple[LinearOperator, Tensor]]:
        """The blocks of the inverse, with the places of their parameters."""
        return list(self.closed.placed())

    @cached_property
    def _separated(self) -> dict[Layer, tuple[Tensor, Tensor]]:
        """The terms of D ≈ Σ_r u_r v_rᵀ for each layer with one position per example."""
        return {
            layer: separate(block.values, *layer.spread, self.rtol)
            for layer, block in self._one_position.items()
        }

    def _terms(
        self, gradients: Gradients[ModuleObjective], b: int
    ) -> dict[Layer, tuple[Tensor, Tensor, bool]]:
        """Return x [r, q, out] and y [r, q, in + 1] of each layer with one position.

        They are in the eigenbasis, into which the b rows on the other side are then rotated too;
        unless these are more than the r q terms, which are then rotated back instead.
        """
        batches = [rows for _, rows in self._rows(gradients)]
        kind = product_dtype(self.dtype, self.device, self.rtol)
        terms = {}
        for layer in batches[0]:
            block, (u, v) = self._one_position[layer], self._separated[layer]
            delta = torch.cat([rows[layer][0] for rows in batches]) @ block.left
            a = torch.cat([rows[layer][1] for rows in batches]) @ block.right
            x, y = delta * u.unsqueeze(1), a * v.unsqueeze(1)
            if rotated := x.shape[:2].numel() < b:
                x, y = x @ block.left.T, y @ block.right.T
            terms[layer] = x.to(kind), y.to(kind), rotated
        return terms

    def _rows(
        self, gradients: Gradients[ModuleObjective]
    ) -> Iterator[tuple[slice, dict[Layer, tuple[Tensor, Tensor]]]]:
        """Yield δ [b, out] and ā [b, in + 1] of each layer with one position, by micro-batch."""
        objective, measure = gradients.objective, gradients.measure
        layers = list(self._one_position)
        traced = objective.traced(
            lambda f, y: objective.cotangent(measure, f, y).unsqueeze(-1), gradients.examples
        )
        for part, uses, passes in traced:
            (deltas,) = passes
            lefts = by_layer(
                layers, uses, deltas, lambda _, d, layer: layer.rule.output_gradients(d)
            )
            rights = by_layer(layers, uses, deltas, lambda use, _, layer: layer.seen(use))
            rows = {}
            for (layer, delta), (_, a) in zip(lefts, rights, strict=True):
                if delta.shape[1] != 1:
                    raise InvalidInput(
                        f"Expected {type(layer.module).__name__} to see one position per example, "
                        f"as it did in training. Got {delta.shape[1]}. Pass queries like the "
                        "training data."
                    )
                rows[layer] = delta[:, 0], a[:, 0]
            yield part, rows

    def _rest(
        self, gradients: Gradients[ModuleObjective]
    ) -> tuple[ModuleObjective, Reordered] | None:
        """Return the objective in the remaining parameters, with their block of the inverse."""
        objective = gradients.objective
        covered = {name for layer in self._one_position for name in layer.names}
        names = [name for name in objective.shapes if name not in covered]
        if not names:
            return None
        covered_blocks = list(self._one_position.values())
        others = [
            pair for pair in self._blocks if not any(pair[0] is block for block in covered_blocks)
        ]
        local = torch.empty_like(self.closed.order)
        where = torch.cat(
            [
                torch.arange(len(local), device=local.device)[objective.slices[name]]
                for name in names
            ]
        )
        local[where] = torch.arange(len(where), dtype=local.dtype, device=local.device)
        order = local[torch.cat([places for _, places in others])]
        blocks = tuple(block for block, _ in others)
        return objective.narrowed(names), Reordered(BlockDiagonal(blocks), order)


def _add_products(total: Tensor, x: Tensor, y: Tensor, delta: Tensor, a: Tensor) -> None:
    """Add Σ_r (x_rᵀ δ)(y_rᵀ a) to scores [q, b], a tile of examples at a time."""
    for part in tiles(len(delta), x.shape[:2].numel(), _TILE):
        product = (x @ delta[part].to(x.dtype).T).mul_(y @ a[part].to(y.dtype).T)
        total[:, part] += product.sum(0)
