"""A tiny GPT on characters of Shakespeare: 4 layers, 128 wide, 4 heads, context 128.

2,000 training and 50 query sequences; an example is a sequence, its loss the sum over 128
characters. Run with `python -m benchmarks.attribution.gpt` to train it once; needs WHENCE_DATA.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

import whence
from experiments import datasets
from whence.training.run import Run
from whence.training.train import train

Pair: TypeAlias = tuple[Tensor, Tensor]

N, QUERIES, CONTEXT = 2_000, 50, 128
LAYERS, WIDTH, HEADS = 4, 128, 4
CHARACTERS = 65
# AdamW, since plain SGD is slow on transformers.
RECIPE = whence.Recipe(
    optimizer="adamw",
    learning_rate=2e-3,
    batch_size=10,
    epochs=2,
    weight_decay=0.01,
    schedule="cosine",
    warmup=30,
)


class Block(nn.Module):
    """Attention and a perceptron, each on normalized inputs and added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.before_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [b, t, width]; a position sees itself and those before it."""
        x = x + self.projection(self._attend(self.query_key_value(self.before_attention(x))))
        added: Tensor = self.mlp(self.before_mlp(x))
        return x + added

    def _attend(self, qkv: Tensor) -> Tensor:
        b, t, _ = qkv.shape
        q, k, v = qkv.view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # Written out, because the fused kernel cannot be differentiated twice.
        weights = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        future = torch.ones(t, t, dtype=torch.bool, device=qkv.device).triu(1)
        attended: Tensor = weights.masked_fill(future, -torch.inf).softmax(-1) @ v
        return attended.transpose(1, 2).reshape(b, t, -1)


class GPT(nn.Module):
    """From characters [b, t] to logits [b, t, characters]."""

    def __init__(
        self, layers: int = LAYERS, width: int = WIDTH, heads: int = HEADS, context: int = CONTEXT
    ) -> None:
        super().__init__()
        self.characters = nn.Embedding(CHARACTERS, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CHARACTERS, bias=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of each next character."""
        # One row of positions per example, so that the embedding's gradient is an example's own.
        at = torch.arange(x.shape[1], device=x.device).expand_as(x)
        hidden = self.characters(x) + self.positions(at)
        for block in self.blocks:
            hidden = block(hidden)
        logits: Tensor = self.head(self.norm(hidden))
        return logits


def data(n: int = N, queries: int = QUERIES, context: int = CONTEXT) -> tuple[Pair, Pair]:
    """Return training and query sequences (x, y), [n, t] each, y one character ahead of x."""
    text = datasets.tinyshakespeare()
    codes = {character: code for code, character in enumerate(sorted(set(text)))}
    stream = np.array([codes[character] for character in text])
    windows = stream[: len(stream) // (context + 1) * (context + 1)].reshape(-1, context + 1)
    chosen = np.random.default_rng(0).permutation(len(windows))[: n + queries]
    sequences = torch.tensor(windows[chosen])
    x, y = sequences[:, :-1], sequences[:, 1:]
    return (x[:n], y[:n]), (x[n:], y[n:])


def model(seed: int = 0) -> nn.Module:
    """Return the network at its start."""
    torch.manual_seed(seed)
    return GPT()


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
    """Train once and print the loss per character."""
    pairs, queries = data()
    start = time.perf_counter()
    run = trained(0, pairs)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        held_out = float(run.program.losses(run.params, *queries).mean()) / CONTEXT
    fitted = float(run.losses[-10:].mean()) / CONTEXT
    print(
        f"{len(run.params)} parameters, {run.steps} steps, {seconds:.1f} s; nats per character "
        f"{fitted:.3f} in the last batches, {held_out:.3f} on the queries"
    )


if __name__ == "__main__":
    main()
