"""The dog-fish models that figure 5 attacks: logistic regression on frozen MobileNetV2 features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import whence
from experiments.koh_liang_2017.photos import Embedding, Photos, coarse, photos, signed
from experiments.koh_liang_2017.record import Bar, Request
from whence.linear.objective import LinearObjective

_L2, _NETWORK = 0.001, "MobileNetV2"


@dataclass(frozen=True, eq=False, kw_only=True)
class Attacked:
    """The model, its test images, and how sure it is of them.

    Attributes:
        shown: The photos.
        objective: The top layer, differentiable to the pixels.
        images: The test images, [q, 3, h, w] in [−1, 1].
        features: What the network makes of them, [q, d].
        margins: How far on the right side of zero the logit of each test image is, [q].
    """

    shown: Photos
    objective: LinearObjective
    images: Tensor
    features: NDArray[np.float64]
    margins: NDArray[np.float64]

    def query(self, where: Any) -> tuple[Tensor, NDArray[Any]]:
        """Return some test images with their labels."""
        rows = np.atleast_1d(where)
        return self.images[torch.as_tensor(rows)], self.shown.data.y_test[rows]

    def least_certain(self, count: int) -> NDArray[np.intp]:
        """Return the right test images with the smallest margins, the smallest first."""
        order = np.argsort(self.margins, kind="stable")
        return order[self.margins[order] > 0][:count]

    def random(self, count: int, seed: int, without: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return random right test images that are not among others."""
        right = np.setdiff1d(np.flatnonzero(self.margins > 0), without)
        return np.random.default_rng(seed).choice(right, min(count, len(right)), replace=False)

    def alike(self, count: int, seed: int) -> NDArray[np.intp]:
        """Return a random right test image and the nearest to it, by features, of its class."""
        (first,) = self.random(1, seed, np.empty(0, dtype=np.intp))
        labels = self.shown.data.y_test
        where = np.flatnonzero((self.margins > 0) & (labels == labels[first]))
        distances = np.linalg.norm(self.features[where] - self.features[first], axis=1)
        return where[np.argsort(distances, kind="stable")[:count]]

    def told(self, attack: whence.attacks.Attack) -> dict[str, Any]:
        """Return what an attack did, and whether training from nothing flips the same."""
        flips = int(attack.flipped.sum())
        return {
            "images": len(attack.positions),
            "flips": flips,
            "loss": attack.losses[-1],
            "steps": len(attack.losses) - 1,
            "verified": not flips or bool((attack.verify() == attack.flipped).all()),
            "same": self.same_8_bits(attack),
            "largest": attack.largest_change,
            "shift": self.feature_shift(attack),
        }

    def same_8_bits(self, attack: whence.attacks.Attack) -> bool:
        """Whether the changed images, stored in 8 bits, are the original ones."""
        before = self.objective.train.inputs[torch.as_tensor(attack.positions)]
        return torch.equal(_levels(attack.inputs), _levels(before))

    def feature_shift(self, attack: whence.attacks.Attack) -> float:
        """Return the largest ‖φ(x̃) − φ(x)‖ over the distance of x to its nearest neighbor."""
        features = self.objective.train.features.dense()
        rows = torch.as_tensor(attack.positions)
        moved = (attack.poisoned.train.features.dense()[rows] - features[rows]).norm(dim=1)
        distances = torch.cdist(features[rows], features)
        distances[torch.arange(len(rows)), rows] = torch.inf
        return float((moved / distances.min(1).values).max())


@cache
def attacked(request: Request) -> Attacked:
    """The model on 1,800 photos; quick: 300. Made once in each process."""
    return _on(photos(request.quick, request.device, [_NETWORK]), request.device)


@cache
def attacked_coarse(side: int, device: str) -> Attacked:
    """The model on the photos shrunk to so many pixels a side. Made once in each process."""
    return _on(coarse(side, _NETWORK, device), device)


def _on(shown: Photos, device: str) -> Attacked:
    """The model on some photos; without a network, the pixels are the features."""
    data = shown.data
    x, q = signed(data.x_train), signed(data.x_test)
    extractor: nn.Module = nn.Flatten()
    if _NETWORK in shown.features:
        extractor = Embedding(_NETWORK, device)
        train, test = shown.features[_NETWORK]
    else:
        train, test = (np.asarray(extractor(part), dtype=np.float64) for part in (x, q))
    model = LogisticRegression(
        C=1 / (_L2 * len(train)), fit_intercept=False, tol=1e-8, max_iter=5000
    ).fit(train, data.y_train)
    objective = whence.from_frozen(extractor, model, x, data.y_train)
    margins = (2 * data.y_test - 1) * (test @ model.coef_[0])
    return Attacked(shown=shown, objective=objective, images=q, features=test, margins=margins)


def unseen(largest: float) -> Bar:
    """Whether no pixel, in [−1, 1], is changed by more than half a gray level."""
    most = 1 / 255
    name = "largest pixel change"
    return Bar(name=name, value=largest, bar=f"<= {most:.5f}", met=largest <= most)


def all_are(attacks: list[dict[str, Any]], name: str) -> float:
    """Return whether all attacks are so, 1 or 0."""
    return float(all(attack[name] for attack in attacks))


def _levels(images: Tensor) -> Tensor:
    """Pixels in gray levels, rounded."""
    return ((images.double() + 1) * 127.5).round()
