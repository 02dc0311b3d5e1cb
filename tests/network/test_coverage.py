"""What print(objective) says of parameters without a rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import whence
from tests.network.zoo import objective_of
from whence.errors import UnsupportedModel


def test_all_parameters_factor() -> None:
    assert str(objective_of("mlp")).endswith(
        "43 parameters, all with factored per-example gradients."
    )


def test_what_has_no_rule_is_named_with_its_share_and_its_cost() -> None:
    objective = objective_of("lstm")
    text = str(objective)
    rest = sum(
        shape.numel() for name, shape in objective.shapes.items() if name not in objective.factored
    )
    total = len(objective.params)
    assert f"{total} parameters; {rest} of them ({100 * rest / total:.3g} %)" in text
    assert "LSTM" in text
    assert "lstm.weight_ih_l0" in text
    assert f"rows of {rest} numbers per example" in text
    assert "\n" not in repr(objective)
    assert "at once, by torch.func.vmap" in text
    assert "one example at a time: a forward" in str(replace(objective, mapped=False))


def test_a_large_share_without_a_rule_makes_small_batches() -> None:
    class Wide(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = torch.nn.Parameter(torch.randn(2**12, 2**12) / 64)
            self.head = torch.nn.Linear(2**12, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x @ self.matrix)

    data = torch.randn(5, 2**12), torch.arange(5) % 2
    objective = whence.from_torch(Wide(), whence.CrossEntropy(), data)
    assert objective.batch_size == 2  # rows of 2^24 numbers, of which 2^25 are held


def test_what_torch_cannot_differentiate_twice_is_said() -> None:
    bag = torch.nn.Sequential(torch.nn.EmbeddingBag(10, 4, sparse=True), torch.nn.Linear(4, 3))
    data = torch.randint(10, (30, 3)), torch.arange(30) % 3
    objective = whence.from_torch(bag, whence.CrossEntropy(), data)
    query = data[0][:1], data[1][:1]
    with pytest.raises(UnsupportedModel, match="nn.EmbeddingBag by nn.Embedding and a sum"):
        whence.influence(objective, query)
    assert whence.tracin(objective, query).values.shape == (1, 30)


def test_binary_labels_may_be_a_column() -> None:
    x, y = torch.randn(20, 4), (torch.arange(20) % 2).float()[:, None]
    loss = torch.nn.BCEWithLogitsLoss(reduction="none")
    objective = whence.from_torch(torch.nn.Linear(4, 1), lambda f, t: loss(f, t).sum(1), (x, y))
    assert whence.tracin(objective, (x[:2], y[:2])).values.shape == (2, 20)
