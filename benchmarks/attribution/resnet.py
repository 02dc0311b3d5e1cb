"""A small ResNet on 5,000 images of CIFAR-10, without batch normalization.

Three stages of one residual block, 16, 32 and 64 channels, group norm: deterministic, and an
example's outputs are its own. Run with `python -m benchmarks.attribution.resnet` to train it once.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

import whence
from experiments import datasets
from whence.training.run import Run
from whence.training.train import train

Pair: TypeAlias = tuple[Tensor, Tensor]

N, QUERIES = 5_000, 100
CHANNELS, GROUPS = (16, 32, 64), 4
RECIPE = whence.Recipe(
    learning_rate=0.1,
    momentum=0.9,
    batch_size=50,
    epochs=10,
    weight_decay=1e-3,
    schedule="cosine",
    warmup=50,
)


class Residual(nn.Module):
    """Two convolutions added to their input, which is brought to their shape where it differs."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(GROUPS, after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, after),
        )
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return [b, after, height, width]."""
        return torch.relu(self.body(x) + self.shortcut(x))


def model(seed: int = 0) -> nn.Module:
    """Return the network at its start."""
    torch.manual_seed(seed)
    first, second, third = CHANNELS
    return nn.Sequential(
        # The stride of 2 halves the side at once; at full size an epoch takes four times as long.
        nn.Conv2d(3, first, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(GROUPS, first),
        nn.ReLU(),
        Residual(first, first, 1),
        Residual(first, second, 2),
        Residual(second, third, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(third, 10),
    )


def data(n: int = N, queries: int = QUERIES) -> tuple[Pair, Pair]:
    """Return training and query images [n, 3, 32, 32] with their classes, standardized."""
    images = datasets.cifar10(n, queries)

    def pair(x: object, y: object) -> Pair:
        pixels = torch.as_tensor(x).permute(0, 3, 1, 2).float() / 255
        return (pixels - 0.47) / 0.25, torch.as_tensor(y)

    return pair(images.x_train, images.y_train), pair(images.x_test, images.y_test)


def recipe(seed: int = 0) -> whence.Recipe:
    """Return how it is trained, in an order that the seed decides."""
    return replace(RECIPE, seed=seed)


def trained(
    seed: int = 0,
    train_data: Pair | None = None,
    directory: str | os.PathLike[str] | None = None,
    device: str = "cpu",
) -> Run:
    """Train once, from a start and in an order that the seed decides; kept in a directory."""
    pairs = data()[0] if train_data is None else train_data
    start = model(seed).to(device)
    return train(start, whence.CrossEntropy(), pairs, recipe(seed), directory=directory)


def main() -> None:
    """Train once and print how well it classifies."""
    pairs = data()[0]
    _, held_out = data(1, 1_000)
    start = time.perf_counter()
    run = trained(0, pairs)
    seconds = time.perf_counter() - start

    def accuracy(x: Tensor, y: Tensor) -> float:
        with torch.no_grad():
            return float((run.program.outputs(run.params, x).argmax(1) == y).double().mean())

    print(
        f"{len(run.params)} parameters, {run.steps} steps, {seconds:.1f} s; accuracy "
        f"{accuracy(*(part[:1_000] for part in pairs)):.3f} on training images, "
        f"{accuracy(*held_out):.3f} on 1,000 others"
    )


if __name__ == "__main__":
    main()
