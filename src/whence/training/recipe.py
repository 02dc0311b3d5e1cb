r"""How a model is trained, completely enough to train it again: frozen plain values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from whence.checked import checked, written
from whence.errors import InvalidInput, UnsupportedModel
from whence.training.optimizers import SGD, Adam, Update

Schedule: TypeAlias = Literal["constant", "linear", "cosine"] | Callable[[int], float]

# The fields that only one family of optimizers reads.
_ONLY_SGD = ("momentum", "nesterov")
_ONLY_ADAM = ("betas", "eps", "eps_root")


@final
@checked
@dataclass(frozen=True, kw_only=True)
class Recipe:
    r"""A deterministic training: the same recipe, data and start give the same parameters.

    Step t of T uses the learning rate `learning_rate` · f(t). With W = `warmup`, f rises linearly,
    (t + 1)/W, for the first W steps; after them, at r = (t − W)/(T − W), it is 1 ("constant"),
    1 − r ("linear") or (1 + cos πr)/2 ("cosine"). Warm-up and "linear" make the one-cycle triangle.

    The gradient of a step is that of (1/b) Σ wᵢ ℓᵢ over its batch of b examples; the last batch
    of an epoch may be smaller. It is clipped first, then used as `torch.optim` would.

    Args:
        optimizer: "sgd", "adam" (weight decay added to the gradient) or "adamw" (decoupled).
        learning_rate: > 0.
        batch_size: Examples per step, >= 1; more than n means all of them.
        epochs: Passes over the data, >= 1.
        seed: Decides the order of the examples in each epoch, and nothing else: the starting
            parameters are the model's own.
        momentum: In [0, 1), for "sgd".
        nesterov: Whether the momentum is Nesterov's.
        betas: Decay of the two moments of "adam" and "adamw", each in [0, 1).
        eps: Added to the root of the second moment, > 0.
        eps_root: Added under that root, >= 0; `torch.optim` has 0. A positive value bounds the
            derivative of the update, and so smooths the metagradient.
        weight_decay: >= 0.
        schedule: "constant", "linear", "cosine", or a function of the step t giving f(t).
        warmup: Steps of linear warm-up; not with a function as schedule.
        clip_norm: Largest global norm of the batch gradient, or `None`.
        dtype: torch.float32 or torch.float64, for parameters and data; `None` for the model's own,
            where bfloat16 and float16 become float32.

    Raises:
        InvalidInput: If a value is out of range, or set for an optimizer that does not read it.
        UnsupportedModel: If the optimizer or the dtype is not one of those named.

    Examples:
        >>> recipe = Recipe(learning_rate=0.1, batch_size=4, epochs=2, momentum=0.9)
        >>> [len(batch) for batch in recipe.batches(6)]
        [4, 2, 4, 2]
    """

    optimizer: str = "sgd"
    learning_rate: float
    batch_size: int
    epochs: int
    seed: int = 0
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    eps_root: float = 0.0
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    warmup: int = 0
    clip_norm: float | None = None
    dtype: torch.dtype | None = None

    def __repr__(self) -> str:
        """Return the options, a function by its name."""
        return written(self)

    def __post_init__(self) -> None:
        """Check the values."""
        if self.optimizer not in ("sgd", "adam", "adamw"):
            raise UnsupportedModel(
                f"Expected optimizer 'sgd', 'adam' or 'adamw'. Got {self.optimizer!r}. The adjoint "
                "of its update is not known here; train with one of the three."
            )
        if self.dtype not in (None, torch.float32, torch.float64):
            raise UnsupportedModel(
                f"Expected dtype torch.float32 or torch.float64. Got {self.dtype}. Narrower types "
                "round away the small differences that a metagradient is made of."
            )
        unread = _ONLY_ADAM if self.optimizer == "sgd" else _ONLY_SGD
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in unread and value != field.default:
                raise InvalidInput(
                    f"Expected no {field.name} for optimizer {self.optimizer!r}. Got {value}, "
                    "which it would not read; leave it out."
                )
        rules = {
            "learning_rate > 0": 0 < self.learning_rate < math.inf,
            "batch_size >= 1": self.batch_size >= 1,
            "epochs >= 1": self.epochs >= 1,
            "seed >= 0": self.seed >= 0,
            "0 <= momentum < 1": 0 <= self.momentum < 1,
            "momentum > 0 with nesterov": self.momentum > 0 or not self.nesterov,
            "two betas in [0, 1)": len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas),
            "eps > 0": self.eps > 0,
            "eps_root >= 0": self.eps_root >= 0,
            "weight_decay >= 0": 0 <= self.weight_decay < math.inf,
            "schedule 'constant', 'linear', 'cosine' or a function": callable(self.schedule)
            or self.schedule in ("constant", "linear", "cosine"),
            "warmup >= 0, and 0 with a function as schedule": self.warmup >= 0
            and not (self.warmup and callable(self.schedule)),
            "clip_norm > 0 or None": self.clip_norm is None or self.clip_norm > 0,
        }
        for rule, holds in rules.items():
            if not holds:
                raise InvalidInput(f"Expected {rule}. Got {self}.")

    def batches(self, n: int) -> list[Tensor]:
        """Return the examples of each step, in order.

        Args:
            n: Number of training examples.

        Returns:
            T tensors of positions in the training data, [b] each: for every epoch e the
            permutation that sorts n random numbers drawn from (seed, e), cut into batches.
        """
        batches: list[Tensor] = []
        for epoch in range(self.epochs):
            # Raw bits and a stable sort, since numpy keeps those the same from version to version.
            bits = np.random.PCG64(np.random.SeedSequence([self.seed, epoch])).random_raw(n)
            order = torch.from_numpy(np.argsort(bits, kind="stable"))
            batches.extend(torch.split(order, self.batch_size))
        return batches

    def rates(self, steps: int) -> list[float]:
        """Return the learning rate of each step.

        Args:
            steps: T, the number of steps of the training.

        Returns:
            T learning rates.

        Raises:
            InvalidInput: If the schedule gives a rate that is not finite or is negative.
        """
        rates = [self.learning_rate * self._factor(step, steps) for step in range(steps)]
        for step, rate in enumerate(rates):
            if not 0 <= rate < math.inf:
                raise InvalidInput(
                    f"Expected a schedule of factors >= 0. Got the learning rate {rate} at "
                    f"step {step}."
                )
        return rates

    def update(self) -> Update:
        """Return the rule that takes one optimizer state to the next."""
        if self.optimizer == "sgd":
            return SGD(
                momentum=self.momentum, nesterov=self.nesterov, weight_decay=self.weight_decay
            )
        return Adam(
            betas=self.betas,
            eps=self.eps,
            eps_root=self.eps_root,
            weight_decay=self.weight_decay,
            decoupled=self.optimizer == "adamw",
        )

    def _factor(self, step: int, steps: int) -> float:
        """Return f(t)."""
        if callable(self.schedule):
            return float(self.schedule(step))
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(steps - self.warmup, 1)
        if self.schedule == "linear":
            return 1 - progress
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        return 1.0
