r"""Scores of gradients that factor, in the Kronecker eigenbasis: no gradient is ever formed.

With one position per example a layer's gradient is δ āᵀ, and with D = 1/(Λ + λ) ≈ Σ_r u_r v_rᵀ

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
from typing import final

import torch
from torch import Tensor

from whence.curvature.exact import Gradients
from whence.curvature.factors import Layer, by_layer
from whence.errors import InvalidInput
from whence.linalg.operator import LinearOperator
from whence.linalg.rank_reduction import separate
from whence.linalg.solver import Inverse, Solution, default_rtol
from whence.linalg.spectral import KroneckerEigen, Spectral
from whence.linalg.structured import BlockDiagonal, Reordered
from whence.network.layers import products
from whence.network.objective import ModuleObjective
from whence.network.precision import product_dtype

_TILE = 2**21  # numbers in a tile of separable scores: what a cache holds


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class KroneckerInverse(Inverse):
    """The inverse that `EKFAC` and `KFAC` prepare: products, and scores of factored gradients.

    Args:
        operator: A, damped.
        closed: A⁻¹, block diagonal in its own order of the parameters.
        layers: The layers of its first blocks.
        rtol: The relative root mean square error of scores that come apart.
    """

    operator: LinearOperator
    closed: Reordered
    layers: tuple[Layer, ...]
    rtol: float

    def matmat(self, V: Tensor) -> Tensor:
        """Return A⁻¹ V, unchecked."""
        return self.closed.matmat(V)

    def solve_columns(self, B: Tensor) -> Solution:
        """Return A⁻¹ B with its residual."""
        rtol = default_rtol(self.dtype)
        return Solution.checked(self.operator, B, self.matmat(B), rtol=rtol, iterations=0)

    def between(self, left: Gradients, right: Gradients) -> Tensor:
        """Return G A⁻¹ G′ᵀ.

        Args:
            left: G, [q, p]; few rows.
            right: G′, [b, p].

        Returns:
            The products, [q, b].
        """
        total = torch.zeros(left.shape[0], right.shape[0], dtype=self.dtype, device=self.device)
        if self._single:
            terms = self._terms(left)
            for part, rows in self._rows(right):
                for layer, (delta, a) in rows.items():
                    block = self._single[layer]
                    _add_products(
                        total[:, part], *terms[layer], delta @ block.left, a @ block.right
                    )
        rest = self._rest(left)
        if rest is not None:
            objective, inverse = rest
            columns = Gradients(objective, left.examples, left.measure).columns()
            other = Gradients(objective, right.examples, right.measure)
            total += other.matmat(inverse.matmat(columns)).T
        return total

    def quadratic(self, gradients: Gradients) -> Tensor:
        """Return gᵀ A⁻¹ g for each row of G, [b].

        Args:
            gradients: G, [b, p].
        """
        total = torch.zeros(gradients.shape[0], dtype=self.dtype, device=self.device)
        if self._single:
            for part, rows in self._rows(gradients):
                for layer, (delta, a) in rows.items():
                    block = self._single[layer]
                    squares = (delta @ block.left).square_() @ block.values
                    total[part] += (squares * (a @ block.right).square_()).sum(1)
        rest = self._rest(gradients)
        if rest is not None:
            objective, inverse = rest
            other = Gradients(objective, gradients.examples, gradients.measure)
            total += other.squares(inverse)
        return total

    @property
    def factors(self) -> bool:
        """Whether the gradients of some layer are one outer product each."""
        return bool(self._single)

    @cached_property
    def _single(self) -> dict[Layer, KroneckerEigen]:
        """The layers whose gradients are one outer product each, with their inverse blocks."""
        blocks = zip(self.layers, self._blocks, strict=False)
        return {
            layer: block
            for layer, (block, _) in blocks
            if layer.single and isinstance(block, KroneckerEigen)
        }

    @cached_property
    def _blocks(self) -> list[tuple[Spectral, Tensor]]:
        """The blocks of the inverse, with the places of their parameters."""
        inner = self.closed.inner
        assert isinstance(inner, BlockDiagonal)
        blocks = [block for block in inner.blocks if isinstance(block, Spectral)]
        places = torch.split(self.closed.order, [block.shape[0] for block in blocks])
        return list(zip(blocks, places, strict=True))

    @cached_property
    def _separated(self) -> dict[Layer, tuple[Tensor, Tensor]]:
        """D ≈ Σ_r u_r v_rᵀ of the single layers."""
        return {
            layer: separate(block.values, *layer.spread, self.rtol)
            for layer, block in self._single.items()
        }

    def _terms(self, gradients: Gradients) -> dict[Layer, tuple[Tensor, Tensor]]:
        """Return x [r, q, out] and y [r, q, in + 1] of each single layer."""
        batches = [rows for _, rows in self._rows(gradients)]
        kind = product_dtype(self.dtype, self.device, self.rtol)
        terms = {}
        for layer in batches[0]:
            block, (u, v) = self._single[layer], self._separated[layer]
            delta = torch.cat([rows[layer][0] for rows in batches]) @ block.left
            a = torch.cat([rows[layer][1] for rows in batches]) @ block.right
            terms[layer] = (delta * u.unsqueeze(1)).to(kind), (a * v.unsqueeze(1)).to(kind)
        return terms

    def _rows(
        self, gradients: Gradients
    ) -> Iterator[tuple[slice, dict[Layer, tuple[Tensor, Tensor]]]]:
        """Yield, for each micro-batch, δ [b, out] and ā [b, in + 1] of the single layers."""
        objective, measure = gradients.objective, gradients.measure
        assert isinstance(objective, ModuleObjective)
        layers = list(self._single)
        traced = objective.traced(
            lambda f, y: objective.cotangent(measure, f, y).unsqueeze(-1), gradients.examples
        )
        for part, uses, passes in traced:
            (deltas,) = passes
            lefts = by_layer(layers, uses, deltas, lambda _, d, layer: products(layer.module, d))
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

    def _rest(self, gradients: Gradients) -> tuple[ModuleObjective, Reordered] | None:
        """Return the objective in all other parameters with their block of the inverse."""
        objective = gradients.objective
        assert isinstance(objective, ModuleObjective)
        covered = {name for layer in self._single for name in layer.names}
        names = [name for name in objective.shapes if name not in covered]
        if not names:
            return None
        single = list(self._single.values())
        kept = [pair for pair in self._blocks if not any(pair[0] is block for block in single)]
        local = torch.empty_like(self.closed.order)
        where = torch.cat(
            [
                torch.arange(len(local), device=local.device)[objective.slices[name]]
                for name in names
            ]
        )
        local[where] = torch.arange(len(where), device=local.device)
        order = local[torch.cat([places for _, places in kept])]
        return objective.narrowed(names), Reordered(BlockDiagonal(tuple(b for b, _ in kept)), order)


def _add_products(total: Tensor, x: Tensor, y: Tensor, delta: Tensor, a: Tensor) -> None:
    """Add Σ_r (x_rᵀ δ)(y_rᵀ a) to scores [q, b], a tile of examples at a time."""
    step = max(1, _TILE // x.shape[:2].numel())
    for start in range(0, len(delta), step):
        part = slice(start, start + step)
        product = (x @ delta[part].to(x.dtype).T).mul_(y @ a[part].to(y.dtype).T)
        total[:, part] += product.sum(0)
