"""The dogs and fish of sections 5.1 and 5.2: photos, distances between them, frozen features."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pooch
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from experiments import datasets, networks
from experiments.datasets import Split

Floats = NDArray[np.float64]
NETWORKS = {
    "MobileNetV2": networks.mobilenet_v2,
    "SqueezeNet 1.1": networks.squeezenet1_1,
}
_COLUMNS = 8192  # pixels whose products are taken at once
_BATCH = 32
_SIDE = 224  # of the photos, as the networks read them


class Embedding(nn.Module):
    """A frozen network up to its pooled features, for pixels in [−1, 1] that stay where they are.

    Args:
        network: One of `NETWORKS`.
        device: Where the network runs.
    """

    def __init__(self, network: str, device: str = "cpu") -> None:
        super().__init__()
        torch.backends.cudnn.allow_tf32 = False  # rounds more than a changed pixel does
        # No submodule: whence keeps the pixels where a module's parameters are.
        self._network = (NETWORKS[network]().to(device),)
        self._device = device

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self._network[0].embed(((x + 1) / 2).to(self._device))
        return pooled.to(x.device)


@dataclass(frozen=True, eq=False, kw_only=True)
class Photos:
    """Images of two classes and how they look to a frozen network.

    Attributes:
        data: Images and labels, 0 for a dog and 1 for a fish.
        classes: The names of the two labels.
        features: By network, the features of training and test images, [n, d] and [q, d].
    """

    data: Split
    classes: tuple[str, str]
    features: dict[str, tuple[Floats, Floats]]


def at_hand() -> bool:
    """Whether the photos and the network's weights are local."""
    needed = ("dogfish/dogfish224.tar", "weights/mobilenet_v2.safetensors")
    return all(datasets.at_hand(name) for name in needed)


def photos(quick: bool, device: str = "cpu", networks: Sequence[str] = tuple(NETWORKS)) -> Photos:
    """900 + 900 photos to train and 300 + 300 to test; quick: 150 and 50, one network.

    Without the archive, the quick form takes 3 against 8 of scikit-learn's digits, and their
    pixels stand in for features.
    """
    if quick and not at_hand():
        return _digits()
    data = datasets.dogfish(n_train=150, n_test=50) if quick else datasets.dogfish()
    names = ["MobileNetV2"] if quick else networks
    found = {
        name: (features(name, data.x_train, device), features(name, data.x_test, device))
        for name in names
    }
    return Photos(data=data, classes=("dog", "fish"), features=found)


def coarse(side: int, network: str, device: str) -> Photos:
    """The photos shrunk to so many pixels a side and enlarged again, and their features."""
    data = datasets.dogfish(size=side)
    x_train, x_test = (resized(images, _SIDE) for images in (data.x_train, data.x_test))
    data = replace(data, name=f"{data.name}, enlarged to {_SIDE}", x_train=x_train, x_test=x_test)
    found = {network: (features(network, x_train, device), features(network, x_test, device))}
    return Photos(data=data, classes=("dog", "fish"), features=found)


def resized(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Images with so many pixels a side, in 8 bits."""
    size, how = (side, side), Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(image).resize(size, how)) for image in images])


def views(photo: NDArray[np.uint8], count: int, seed: int) -> NDArray[np.uint8]:
    """Parts of a photo at its own size, turned, some mirrored, darker or lighter.

    Args:
        photo: RGB, [h, h, 3].
        count: How many.
        seed: Of the random choices.

    Returns:
        The views, [count, h, h, 3].
    """
    rng = np.random.default_rng(seed)
    full = len(photo)
    made = []
    for _ in range(count):
        image = Image.fromarray(photo).rotate(rng.uniform(-15, 15), Image.Resampling.BICUBIC)
        side = int(full * rng.uniform(0.6, 0.8))
        left, top = rng.integers(full // 10, full - full // 10 - side, 2, endpoint=True)
        image = image.crop((left, top, left + side, top + side))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        lighter = np.asarray(image) * rng.uniform(0.8, 1.2)
        made.append(np.clip(lighter, 0, 255).round().astype(np.uint8))
    return np.concatenate([resized(part[None], full) for part in made])


def features(network: str, images: NDArray[np.uint8], device: str = "cpu") -> Floats:
    """Pooled features of images under a frozen network, kept in the cache folder.

    Args:
        network: One of `NETWORKS`.
        images: RGB, [b, h, w, 3].
        device: Where the network runs.

    Returns:
        Features, float64 [b, d].
    """
    digest = hashlib.sha256(network.encode() + np.ascontiguousarray(images).data).hexdigest()
    path = Path(pooch.os_cache("whence")) / "features" / f"{digest[:32]}.npy"
    if path.is_file():
        return np.load(path).astype(np.float64)
    model = Embedding(network, device)
    parts = []
    with torch.no_grad():
        for start in tqdm(range(0, len(images), _BATCH), desc=network, unit="batch"):
            parts.append(model(signed(images[start : start + _BATCH])).numpy())
    found = np.concatenate(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as file:
        np.save(file, found)
    partial.replace(path)
    return found.astype(np.float64)


def signed(images: NDArray[np.uint8]) -> Tensor:
    """Pixels in [−1, 1], [n, 3, h, w]."""
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1


def squared_distances(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Floats:
    """Squared distances between images with pixels in [−1, 1], [len(a), len(b)].

    Whole numbers until the end: no rounding, whatever the size of the images.
    """
    flat_a, flat_b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    total = np.zeros((len(a), len(b)))
    for start in range(0, flat_a.shape[1], _COLUMNS):
        part_a = flat_a[:, start : start + _COLUMNS].astype(np.float64)
        part_b = flat_b[:, start : start + _COLUMNS].astype(np.float64)
        squares = (part_a**2).sum(1)[:, None] + (part_b**2).sum(1)
        total += squares - 2 * (part_a @ part_b.T)
    return total * (2 / 255) ** 2


def _digits() -> Photos:
    """3 against 8 of scikit-learn's digits, as gray pictures."""
    whole = datasets.digits()
    parts = []
    for x, y in ((whole.x_train, whole.y_train), (whole.x_test, whole.y_test)):
        kept = np.isin(y, (3, 8))
        images = np.round(x[kept] * 255).astype(np.uint8).reshape(-1, 8, 8, 1)
        order = np.argsort(y[kept], kind="stable")
        parts += [images[order].repeat(3, axis=3), (y[kept][order] == 8).astype(np.int64)]
    data = Split(
        name=f"{whole.name}, 3 against 8",
        x_train=parts[0],
        y_train=parts[1],
        x_test=parts[2],
        y_test=parts[3],
    )
    flat = tuple(x.reshape(len(x), -1) / 255 for x in (data.x_train, data.x_test))
    return Photos(data=data, classes=("3", "8"), features={"pixels": (flat[0], flat[1])})
