"""Where boosting starts: a constant output that most libraries compute from the targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from whence.arrays import Floats
from whence.trees.losses import BoostingLoss

_LEAST = float(np.finfo(np.float64).eps)  # share of a class, as scikit-learn clips it


class Start(ABC):
    """The outputs F₀ [c] before the first round, as a function of the weighted targets."""

    @property
    def models(self) -> int:
        """The number b of models side by side, whose starts are [b, c]; 1 of one model."""
        return 1

    @abstractmethod
    def value(self, targets: Floats, weights: Floats) -> Floats:
        """Return F₀, [c], of targets [n] under weights [n]."""

    @abstractmethod
    def gradient(self, targets: Floats, weights: Floats) -> Floats:
        """Return ∂F₀/∂wᵢ, [n, c]; rows of weight zero have theirs too."""


@dataclass(frozen=True)
class Fixed(Start):
    """A start that does not depend on the data.

    Args:
        outputs: F₀, [c].

    Examples:
        >>> Fixed((0.5,)).gradient(np.ones(2), np.ones(2))
        array([[0.],
               [0.]])
    """

    outputs: tuple[float, ...]

    def value(self, targets: Floats, weights: Floats) -> Floats:
        """Return the given outputs."""
        return np.array(self.outputs)

    def gradient(self, targets: Floats, weights: Floats) -> Floats:
        """Return zeros."""
        return np.zeros((len(targets), len(self.outputs)))


@dataclass(frozen=True)
class Starts(Start):
    """The starts of several models side by side, each with as many rows.

    Args:
        each: The start of each model.
    """

    each: tuple[Start, ...]

    @property
    def models(self) -> int:
        """The number of models."""
        return len(self.each)

    def value(self, targets: Floats, weights: Floats) -> Floats:
        """Return F₀ of each model, [b, c]."""
        return np.stack([start.value(*part) for start, *part in self._parts(targets, weights)])

    def gradient(self, targets: Floats, weights: Floats) -> Floats:
        """Return ∂F₀/∂wᵢ of the model that each row is of, [b n, c]."""
        parts = self._parts(targets, weights)
        return np.concatenate([start.gradient(*part) for start, *part in parts])

    def _parts(self, targets: Floats, weights: Floats) -> Iterator[tuple[Start, Floats, Floats]]:
        """Yield each model's start, targets and weights."""
        b = len(self.each)
        return zip(self.each, targets.reshape(b, -1), weights.reshape(b, -1), strict=True)


@dataclass(frozen=True)
class Mean(Start):
    """F₀ = link(ȳ), for the weighted mean ȳ of the targets.

    Args:
        link: The link: "identity", "log" or "logit".

    Examples:
        >>> Mean("identity").value(np.array([1.0, 3.0]), np.array([1.0, 3.0]))
        array([2.5])
    """

    link: Literal["identity", "log", "logit"] = "identity"

    def value(self, targets: Floats, weights: Floats) -> Floats:
        """Return link(ȳ)."""
        mean = np.average(targets, weights=weights)
        if self.link == "log":
            mean = np.log(mean)
        elif self.link == "logit":
            mean = np.clip(mean, _LEAST, 1 - _LEAST)
            mean = np.log(mean / (1 - mean))
        return np.array([mean])

    def gradient(self, targets: Floats, weights: Floats) -> Floats:
        """Return link′(ȳ) (yᵢ − ȳ) / Σ w."""
        mean = np.average(targets, weights=weights)
        slope = 1.0
        if self.link == "log":
            slope = 1 / mean
        elif self.link == "logit":
            slope = 1 / (mean * (1 - mean)) if 0 < mean < 1 else 0.0
        change = slope * (targets - mean) / weights.sum()
        return np.asarray(change, dtype=np.float64)[:, None]


@dataclass(frozen=True)
class LogPrior(Start):
    """F₀ = log of the weighted shares of the classes, less their mean if centered.

    Args:
        classes: c, the number of classes.
        centered: Whether the mean over classes is subtracted.
        least: The share of a class none of whose rows has weight.

    Examples:
        >>> LogPrior(2, centered=True).value(np.array([0.0, 1.0]), np.ones(2))
        array([0., 0.])
    """

    classes: int
    centered: bool
    least: float = _LEAST

    def value(self, targets: Floats, weights: Floats) -> Floats:
        """Return the logarithms of the shares."""
        shares = np.log(self._shares(targets, weights).clip(self.least))
        return np.asarray(shares - shares.mean() if self.centered else shares)

    def gradient(self, targets: Floats, weights: Floats) -> Floats:
        """Return (1[yᵢ = k]/p_k − 1)/Σ w, less its mean over classes if centered.

        0 for a class without weight, whose share is held.
        """
        shares = self._shares(targets, weights)
        own = targets[:, None] == np.arange(self.classes)
        change = np.where(shares > 0, own / shares.clip(self.least) - 1, 0.0)
        if self.centered:
            change -= change.mean(axis=1, keepdims=True)
        return np.asarray(change / weights.sum(), dtype=np.float64)

    def _shares(self, targets: Floats, weights: Floats) -> Floats:
        """Return the weighted share of each class."""
        counts = np.bincount(targets.astype(np.intp), weights, minlength=self.classes)
        return np.asarray(counts / weights.sum(), dtype=np.float64)


@dataclass(frozen=True)
class NewtonStep(Start):
    """F₀ = −Σ w g / Σ w h at F = 0: one Newton step, as XGBoost takes for some objectives.

    Args:
        loss: The loss, of one output.

    Examples:
        >>> from whence.trees.losses import Squared
        >>> NewtonStep(Squared()).value(np.array([1.0, 3.0]), np.ones(2))
        array([2.])
    """

    loss: BoostingLoss

    def value(self, targets: Floats, weights: Floats) -> Floats:
        """Return the Newton step from zero."""
        at = self.loss.slopes(np.zeros((len(targets), 1)), targets)
        return np.asarray(-(weights @ at.g) / (weights @ at.h), dtype=np.float64)

    def gradient(self, targets: Floats, weights: Floats) -> Floats:
        """Return −(gᵢ + F₀ hᵢ) / Σ w h."""
        at = self.loss.slopes(np.zeros((len(targets), 1)), targets)
        change = -(at.g + self.value(targets, weights) * at.h) / (weights @ at.h)
        return np.asarray(change, dtype=np.float64)
