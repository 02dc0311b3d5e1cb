"""Metasmoothness: whether parameters change linearly as examples lose weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import InvalidInput
from whence.result import Card, Result
from whence.training.replay import retrain
from whence.training.run import Run


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Metasmoothness(Result):
    """Agreement of successive parameter changes as examples lose weight.

    Attributes:
        values: S of each direction, [m], from −1 to 1.
        fraction: The part of the examples that a direction removes.
    """

    values: Tensor
    fraction: float

    @property
    def mean(self) -> float:
        """The mean over directions; 1 is a straight path, 0 no relation."""
        return float(self.values.mean())

    def card(self) -> Card:
        """Return the mean over directions."""
        return Card(title=f"mean {self.mean:.3f} over {len(self.values)} directions")


@checked
def metasmoothness(
    run: Run,
    *,
    fraction: float = 0.01,
    directions: int = 8,
    seed: int = 0,
    together: int | None = None,
) -> Metasmoothness:
    r"""Measure, before any metagradient, how well it can predict the removal of examples.

    For a random subset of the examples, the training is repeated with their weights halved and
    with their weights zero, which moves the parameters by Δ₁ and then by Δ₂. Then

    ```
    S = Σⱼ |Δ₁ⱼ| sign(Δ₁ⱼ) sign(Δ₂ⱼ) / Σⱼ |Δ₁ⱼ|
    ```

    the agreement in sign of the two halves of the way, weighted by the length of the first. A
    metagradient extrapolates from an infinitesimal step, so where S is far below 1 it cannot
    predict the whole one. A lower learning rate or one that decays, larger batches, smooth
    activations (tanh or GELU for ReLU), and for Adam `eps_root` > 0, bring S towards 1.

    Args:
        run: A run of `whence.train`.
        fraction: The part of the examples to remove, in (0, 1); at least one example.
        directions: m >= 1, the number of subsets.
        seed: Decides the subsets.
        together: Trainings in one stack; see `retrain`.

    Returns:
        S of each subset.

    Raises:
        InvalidInput: If an argument is out of range.
        Diverged: If a training does not stay finite.

    Cost:
        2m + 1 trainings, several at once.

    References:
        Engstrom et al. (2025), "Optimizing ML training with metagradient descent", section 3
        (empirical metasmoothness), here with z the example weights and h = ½.

    Examples:
        >>> import torch
        >>> from whence.objective.losses import SquaredError
        >>> from whence.training.recipe import Recipe
        >>> from whence.training.train import train
        >>> x, y = torch.ones(4, 1), torch.arange(4.0)
        >>> recipe = Recipe(learning_rate=0.1, batch_size=4, epochs=20)
        >>> run = train(torch.nn.Linear(1, 1), SquaredError(), (x, y), recipe)
        >>> metasmoothness(run, fraction=0.25, directions=2).mean
        1.0
    """
    n = len(run.weights)
    if not 0 < fraction < 1 or directions < 1:
        raise InvalidInput(
            f"Expected 0 < fraction < 1 and directions >= 1. Got {fraction} and {directions}."
        )
    generator = np.random.default_rng(seed)
    removed = torch.zeros(directions, n, dtype=torch.bool)
    for row in removed:
        row[generator.choice(n, max(1, round(fraction * n)), replace=False)] = True
    removed = removed.to(run.weights.device)
    full = run.weights.expand(directions, n)
    halved = torch.where(removed, full / 2, full)
    gone = torch.where(removed, torch.zeros_like(full), full)
    params = retrain(run, torch.cat([run.weights[None], halved, gone]), together=together)
    # The unchanged training is repeated beside the others, so that all are rounded alike.
    start, middle, end = torch.split(params, [1, directions, directions])
    first, second = middle - start, end - middle
    length = first.abs().sum(1)
    agreement = (first.abs() * first.sign() * second.sign()).sum(1) / length
    # Examples that move nothing at all move straight.
    values = torch.where(length > 0, agreement, torch.ones_like(length))
    return Metasmoothness(values=values.cpu(), fraction=fraction)
