"""The Gauss–Newton matrix of a network in its Kronecker eigenbasis, and diagonals in its place.

A layer's gradients are δ āᵀ. In the eigenbasis of E δδᵀ and E āāᵀ, KFAC, EKFAC and all between them
are diagonals, one number for each pair of a δ̂ and an â, and the matrix itself is the second moment
of the rotated gradients. Written out, so that one thing at a time can be changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

from whence.curvature.directions import Directions
from whence.curvature.factors import Layer, by_layer, multiplying_layers
from whence.linalg.rank_reduction import separate
from whence.network.objective import ModuleObjective
from whence.objective.trained import Examples

_ROWS = 250  # gradients in full at a time

Basis: TypeAlias = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True, eq=False)
class Factors:
    """What the gradients of some examples are made of, layer by layer.

    Attributes:
        inputs: ā of each layer, [n, in + 1].
        outputs: δ of each layer for each of k directions of the outputs, [n, k, out].
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.inputs[0])

    def subset(self, rows: Tensor | slice) -> Factors:
        """Return those of some examples."""
        return Factors(tuple(a[rows] for a in self.inputs), tuple(d[rows] for d in self.outputs))

    def rotated(self, basis: Basis) -> Factors:
        """Return â and δ̂."""
        return Factors(
            tuple(a @ right for a, (_, right) in zip(self.inputs, basis, strict=True)),
            tuple(d @ left for d, (left, _) in zip(self.outputs, basis, strict=True)),
        )

    def basis(self, *, weighted: bool = False) -> Basis:
        """Return the eigenvectors of E Σ_k δδᵀ and of E āāᵀ of each layer.

        Args:
            weighted: Of E w āāᵀ in its place, w an example's curvature in that layer.
        """
        found = []
        for a, d in zip(self.inputs, self.outputs, strict=True):
            flat = d.flatten(0, 1)
            w = curvature(d) if weighted else a.new_ones(len(a))
            left = torch.linalg.eigh(flat.T @ flat / len(a)).eigenvectors
            found.append((left, torch.linalg.eigh((a.T * w) @ a / w.sum()).eigenvectors))
        return tuple(found)

    def rows(self) -> Tensor:
        """Return the gradients in full, [n k, p]."""
        pairs = zip(self.inputs, self.outputs, strict=True)
        full = [torch.einsum("nko,ni->nkoi", d, a).flatten(2) for a, d in pairs]
        return torch.cat(full, 2).flatten(0, 1)

    def sizes(self) -> list[int]:
        """Return the number of parameters of each layer."""
        pairs = zip(self.inputs, self.outputs, strict=True)
        return [a.shape[1] * d.shape[2] for a, d in pairs]

    def equal(self) -> Factors:
        """Return the same with δ scaled so that every example has the mean curvature of a layer."""
        scaled = []
        for d in self.outputs:
            own = curvature(d)
            factor = (own.mean() / own.clamp_min(torch.finfo(own.dtype).tiny)).sqrt()
            scaled.append(d * factor[:, None, None])
        return replace(self, outputs=tuple(scaled))

    def carrying(self) -> float:
        """Return how many examples carry the curvature, (Σ w)² / Σ w², w that in the outputs."""
        w = curvature(self.outputs[-1])
        return float(w.sum() ** 2 / (w**2).sum())


def together(parts: list[Factors]) -> Factors:
    """Return the factors of several networks or data sets as those of one."""
    return Factors(
        tuple(map(torch.cat, zip(*(part.inputs for part in parts), strict=True))),
        tuple(map(torch.cat, zip(*(part.outputs for part in parts), strict=True))),
    )


def factors(objective: ModuleObjective, examples: Examples, directions: Directions) -> Factors:
    """Return the factors of examples, for directions of the outputs.

    All parameters must be those of layers that see one position per example.
    """
    layers = multiplying_layers(objective)
    if {name for layer in layers for name in layer.names} != set(objective.shapes):
        raise ValueError(f"Expected layers that multiply only. Got {objective.model}.")
    parts = []
    for _, uses, each in objective.traced(directions, examples):
        passes = list(each)
        seen = by_layer(layers, uses, passes[0], lambda use, _, layer: layer.seen(use))
        deltas = [
            [rows for _, rows in by_layer(layers, uses, one, lambda _, d, layer: _back(d, layer))]
            for one in passes
        ]
        outputs = tuple(torch.cat(of, 1) for of in zip(*deltas, strict=True))
        parts.append(Factors(tuple(a[:, 0] for _, a in seen), outputs))
    return together(parts)


def _back(delta: Tensor, layer: Layer) -> Tensor:
    """Return δ of one call, [b, t, out]."""
    return layer.rule.output_gradients(delta)


def curvature(d: Tensor) -> Tensor:
    """Return Σ_k ‖δ_k‖² of each example, [n], for δ [n, k, out]."""
    return (d**2).sum((1, 2))


def kfac(rotated: Factors) -> Tensor:
    """Return KFAC's eigenvalues, E Σ_k δ̂² · E â², [p]."""
    return _flat(rotated, lambda a, d: torch.outer((d**2).sum(1).mean(0), (a**2).mean(0)))


def ekfac(rotated: Factors) -> Tensor:
    """Return EKFAC's, E Σ_k δ̂² â²: the diagonal of the matrix itself, [p]."""
    return _flat(rotated, lambda a, d: (d**2).sum(1).T @ a**2 / len(a))


def weighted_kfac(rotated: Factors) -> Tensor:
    """Return KFAC's with each example's â² counted by its curvature w, E Σ_k δ̂² · E w â² / E w."""

    def of(a: Tensor, d: Tensor) -> Tensor:
        w = curvature(d)
        return torch.outer((d**2).sum(1).mean(0), w @ a**2 / w.sum())

    return _flat(rotated, of)


def equal_ekfac(rotated: Factors) -> Tensor:
    """Return EKFAC's with every example's curvature made equal, layer by layer."""
    return ekfac(rotated.equal())


EIGENVALUES: Mapping[str, Callable[[Factors], Tensor]] = MappingProxyType(
    {
        "KFAC": kfac,
        "KFAC, inputs weighted": weighted_kfac,
        "EKFAC": ekfac,
        "EKFAC, examples equal": equal_ekfac,
    }
)


def _flat(rotated: Factors, of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return what a function gives of each layer's â and δ̂, [p]."""
    pairs = zip(rotated.inputs, rotated.outputs, strict=True)
    return torch.cat([of(a, d).flatten() for a, d in pairs])


def scores(queries: Factors, train: Factors, inverses: list[Tensor]) -> list[Tensor]:
    """Return the scores [q, n] by each of some diagonals D, [p]: gᵀ D g′ of rotated gradients."""
    asked = queries.rows()
    found = [asked.new_empty(len(asked), len(train)) for _ in inverses]
    for start in range(0, len(train), _ROWS):
        part = slice(start, start + _ROWS)
        rows = train.subset(part).rows().T
        for total, inverse in zip(found, inverses, strict=True):
            total[:, part] = (asked * inverse) @ rows
    return found


def quick_scores(queries: Factors, train: Factors, inverse: Tensor, rtol: float) -> Tensor:
    """Return the scores [q, n] by a diagonal D as few outer products, to a relative error.

    Both sides have one direction of the outputs.
    """
    total = queries.inputs[0].new_zeros(len(queries), len(train))
    sides = (queries.outputs, queries.inputs, train.outputs, train.inputs)
    blocks = inverse.split(train.sizes())
    for d, a, others, seen, block in zip(*sides, blocks, strict=True):
        d, others = d[:, 0], others[:, 0]
        values = block.reshape(d.shape[1], a.shape[1])
        u, v = separate(values, (others**2).mean(0), (seen**2).mean(0), rtol)
        left, right = d * u.unsqueeze(1), a * v.unsqueeze(1)
        for start in range(0, len(train), _ROWS):
            part = slice(start, start + _ROWS)
            total[:, part] += ((left @ others[part].T) * (right @ seen[part].T)).sum(0)
    return total


def matrix(rotated: Factors) -> Tensor:
    """Return the Gauss–Newton matrix without the penalty in the eigenbasis, [p, p]."""
    rows = rotated.rows()
    return rows.T @ rows / len(rotated)


def blocks_of(whole: Tensor, sizes: list[int]) -> Tensor:
    """Return a matrix without what stands between layers, [p, p]."""
    kept = torch.zeros_like(whole)
    for at, size in enumerate(sizes):
        own = slice(sum(sizes[:at]), sum(sizes[:at]) + size)
        kept[own, own] = whole[own, own]
    return kept
