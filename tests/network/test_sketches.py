"""Large matrices are compared by a few products: with the gradients whole, and where rules fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import whence
from whence.network.gradients import Lookup, Outer
from whence.network.sketches import Sketch

Forward = Callable[[nn.Linear, Tensor], Tensor]


@pytest.mark.parametrize(("m", "d"), [(40, 50), (7, 50), (40, 9), (7, 9)])
def test_a_sketch_is_linear_and_the_same_of_factors_and_of_sparse_gradients(m: int, d: int) -> None:
    torch.manual_seed(0)
    like = torch.zeros(0, dtype=torch.float64)
    sketch = Sketch.of_size(m, d, like)
    left, right = (torch.randn(3, 5, n, dtype=torch.float64) for n in (m, d))
    whole = left.mT @ right
    found = Outer(left, right).between(sketch.left, sketch.right)
    for row, gradient in zip(found, whole, strict=True):
        torch.testing.assert_close(row, sketch.of(gradient.flatten()))
    if m <= 16 and d <= 16:
        torch.testing.assert_close(found, whole.flatten(1))
    table = nn.Embedding(m, d, sparse=True, dtype=torch.float64)
    read = torch.randint(m, (1, 6))
    out = table(read)
    (sparse,) = torch.autograd.grad(out.square().sum(), table.weight)
    rows = Lookup(read, 2 * out.detach(), m).between(sketch.left, sketch.right)[0]
    assert sparse.is_sparse
    torch.testing.assert_close(sketch.of(sparse), rows)
    torch.testing.assert_close(sketch.of(sparse.to_dense()), rows)


def scaled(layer: nn.Linear, x: Tensor) -> Tensor:
    return nn.functional.linear(1.02 * x, layer.weight, layer.bias)


def one_output(layer: nn.Linear, x: Tensor) -> Tensor:
    times = torch.ones(layer.out_features)
    times[3] = 2.0
    return times * nn.functional.linear(x, layer.weight) + layer.bias


def last_position(layer: nn.Linear, x: Tensor) -> Tensor:
    times = torch.ones(x.shape[1], 1)
    times[-1] = 0.0
    return nn.functional.linear(times * x, layer.weight, layer.bias)


@pytest.mark.parametrize(
    ("forward", "right"),
    [(scaled, False), (one_output, False), (last_position, False), (nn.Linear.forward, True)],
)
def test_rules_that_fail_for_a_large_layer_are_found(forward: Forward, right: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.head = nn.Linear(60, 80), nn.Linear(80, 3)
            self.first.forward = lambda x: forward(self.first, x)  # type: ignore[method-assign]

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.first(x).tanh().mean(1))

    x, y = torch.randn(9, 4, 60), torch.arange(9) % 3
    objective = whence.from_torch(Model(), whence.CrossEntropy(), (x, y))
    assert ("first.weight" in objective.factored) == right
    assert "head.weight" in objective.factored
    eye = torch.eye(9)
    found = objective.gradient_sum(objective.train, objective.loss, eye).T
    for b, row in enumerate(found):
        alone = objective.gradient_sum(objective.train, objective.loss, eye[:, b : b + 1])[:, 0]
        torch.testing.assert_close(row, alone, rtol=1e-3, atol=1e-5)


def test_a_tied_table_is_judged_by_the_sum_of_its_uses() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table, self.head = nn.Embedding(40, 24), nn.Linear(24, 40)
            self.head.weight = self.table.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.table(x).mean(1))

    x, y = torch.randint(40, (6, 5)), torch.arange(6)
    objective = whence.from_torch(Tied(), whence.CrossEntropy(), (x, y))
    assert objective.factored == {"table.weight", "head.bias"}


def test_losses_of_many_outputs_are_those_of_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(5, 4, 6)[:, :-1], torch.randint(6, (5, 3))
    targets[1, 2] = -100
    loss = whence.CrossEntropy()
    values, slopes = loss(outputs, targets), loss.gradient(outputs, targets)
    monkeypatch.setattr("whence.objective.losses._TILE", 20)
    assert torch.equal(loss(outputs, targets), values)
    assert torch.equal(loss.gradient(outputs, targets), slopes)
    assert loss.gradient(outputs[:0], targets[:0]).shape == (0, 3, 6)
