"""Columns of a square root of the loss Hessian in the outputs, or random samples of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, final

import torch
from torch import Tensor

from whence.linalg.signs import random_signs
from whence.objective.losses import Loss, output_hessian

Fisher = Literal["expected", "sampled", "empirical"]


@final
@dataclass(frozen=True)
class Directions:
    """Directions u in the outputs with E uuᵀ = ∂²ℓ/∂f².

    Args:
        loss: ℓ.
        fisher: "expected" for all columns of a square root of the loss Hessian, "sampled" for one
            random direction per example, "empirical" for the gradient of the loss.
        seed: Of the random directions.
    """

    loss: Loss
    fisher: Fisher
    seed: int
    generator: torch.Generator = field(default_factory=torch.Generator, compare=False)

    def __post_init__(self) -> None:
        """Seed the draws."""
        self.generator.manual_seed(self.seed)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return r directions per example, [b, ..., r]."""
        if self.fisher == "empirical":
            return self.loss.gradient(outputs, targets).unsqueeze(-1)
        p = self.loss.softmax(outputs, targets)
        if p is not None:
            counted = p.any(-1)
            if self.fisher == "sampled":
                z = p.sqrt() * self._normal(p, counted)
                return (z - p * z.sum(-1, keepdim=True)).unsqueeze(-1)
            roots = torch.diag_embed(p.sqrt()) - p.unsqueeze(-1) * p.sqrt().unsqueeze(-2)
            return roots * self._signs(roots, counted) if outputs.ndim > 2 else roots
        flat = outputs.flatten(1)
        values, vectors = torch.linalg.eigh(output_hessian(self.loss, flat, targets))
        roots = vectors * values.clamp_min(0).sqrt().unsqueeze(1)
        if self.fisher == "sampled":
            roots = roots @ self._normal(flat).unsqueeze(-1)
        spread: Tensor = roots.reshape(*outputs.shape, -1)
        return spread

    def _signs(self, roots: Tensor, counted: Tensor) -> Tensor:
        """Return a random sign per position, which takes out products between positions."""
        signs = torch.zeros(counted.shape, dtype=roots.dtype)
        signs[counted.cpu()] = random_signs((int(counted.sum()),), self.generator, signs)
        return signs[..., None, None].to(roots.device)

    def _normal(self, like: Tensor, counted: Tensor | None = None) -> Tensor:
        """Return standard normal numbers, drawn for one example after the other.

        So they do not depend on how the examples are batched or, drawn for the positions that
        count alone, on how they are padded.

        Args:
            like: What the numbers are for, [b, ..., c].
            counted: The positions that count, [b, ...]; all if `None`.
        """
        draws = torch.zeros(like.shape)
        where = torch.ones(like.shape[:-1], dtype=torch.bool) if counted is None else counted.cpu()
        for row, kept in zip(draws, where, strict=True):
            numbers = int(kept.sum()), like.shape[-1]
            row[kept] = torch.randn(numbers, generator=self.generator)
        return draws.to(like)
