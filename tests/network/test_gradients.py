"""Products of factored gradients, in the precision of the factors, beside the gradients whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import whence
from whence.network.experts import Routed
from whence.network.gradients import Contribution, Lookup, Outer, Rows


def of_kind(kind: str, positions: int, dtype: torch.dtype) -> tuple[Contribution, Tensor]:
    """Some gradients of five examples, and the same as a matrix in float64."""
    generator = torch.Generator().manual_seed(positions)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    if kind == "rows":
        matrix = normal(5, 12)
        return Rows(matrix), matrix.double()
    if kind == "outer":
        left, right = normal(5, positions, 3), normal(5, positions, 4)
        whole = torch.einsum("btm,btd->bmd", left.double(), right.double())
        return Outer(left, right), whole.flatten(1)
    if kind == "routed":
        # The second matrix of three is used by no example, the third by three of the five.
        first, last = (Outer(normal(b, positions, 3), normal(b, positions, 4)) for b in (5, 3))
        some = torch.tensor([0, 2, 3])
        whole = torch.zeros(5, 3, 12, dtype=torch.float64)
        for number, where, outer in ((0, torch.arange(5), first), (2, some, last)):
            each = torch.einsum("btm,btd->bmd", outer.left.double(), outer.right.double())
            whole[where, number] = each.flatten(1)
        stacked = ((0, torch.arange(5), first), (2, some, last))
        return Routed(stacked, 5, 3, (3, 4)), whole.flatten(1)
    read = torch.randint(0, 6, (5, positions), generator=generator)
    left = normal(5, positions, 2)
    whole = torch.zeros(5, 6, 2, dtype=torch.float64)
    for b in range(5):
        whole[b].index_add_(0, read[b], left[b].double())
    return Lookup(read, left, 6), whole.flatten(1)


@pytest.mark.parametrize("kind", ["rows", "outer", "lookup", "routed"])
@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("k", [2, 20])
@pytest.mark.parametrize("narrow", [False, True])
def test_products_are_those_of_the_whole_gradients(
    kind: str, positions: int, k: int, narrow: bool
) -> None:
    # What is small is widened after a pass: only outer products come in bfloat16.
    half = narrow and kind in ("outer", "routed")
    dtype = torch.bfloat16 if half else torch.float32
    piece, whole = of_kind(kind, positions, dtype)
    v, w = torch.randn(whole.shape[1], k), torch.rand(5, k)
    rtol = 2e-2 if half else 1e-5
    for given in [v.bfloat16(), v] if narrow else [v]:
        for found, exact in (
            (piece.dot(given), whole @ v.double()),
            (piece.sum(w), whole.T @ w.double()),
            (piece.squares(w[:, 0]), whole.square().T @ w[:, 0].double()),
        ):
            loose = 2e-2 if narrow else rtol
            gap = float((found.double() - exact).norm())
            assert gap <= loose * float(exact.norm())
        assert piece.sum(w).dtype == piece.squares(w[:, 0]).dtype == torch.float32
    if (matrix := piece.two_sided()) is not None:
        left, right = (torch.randn(length, 2).to(dtype) for length in matrix.sides)
        found = matrix.between(left, right).double()
        each = whole.reshape(5, *matrix.sides)
        exact = (left.double().T @ each @ right.double()).flatten(1)
        assert float((found - exact).norm()) <= rtol * float(exact.norm())


def test_modules_that_act_in_place_on_the_first_outputs_are_recorded() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(7, 3), torch.arange(7) % 2
    changed = nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    objective = whence.from_torch(changed, whence.CrossEntropy(), (x, y))
    assert objective.factored == frozenset(objective.shapes)
    found = objective.gradient_columns(objective.train, objective.loss)
    exact = objective.per_example.looped(x, y, objective.loss.gradient)
    torch.testing.assert_close(found.T, exact)


def test_outputs_that_depend_on_no_selected_module_send_nothing_back() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.shift = nn.Linear(3, 2), nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).detach() + self.shift

    x, y = torch.randn(6, 3), torch.arange(6) % 2
    objective = whence.from_torch(Constant(), whence.CrossEntropy(), (x, y))
    narrowed = objective.narrowed({"layer.weight"})
    ((_, uses, passes),) = narrowed.traced(lambda f, t: f.unsqueeze(-1))
    assert uses == []
    assert list(passes) == []
    found = objective.gradient_columns(objective.train, objective.loss)
    torch.testing.assert_close(found.T, objective.per_example.looped(x, y, objective.loss.gradient))


def test_a_module_that_calls_linear_on_its_weight_factors_whatever_it_returns() -> None:
    class Router(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            found = nn.functional.linear(x, self.weight, self.bias)
            return found.softmax(-1), found

    class Routing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router, self.last = Router(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            share, found = self.router(x)
            return self.last(share * found)

    torch.manual_seed(0)
    x, y = torch.randn(6, 3), torch.arange(6) % 2
    objective = whence.from_torch(Routing(), whence.CrossEntropy(), (x, y))
    assert objective.factored == frozenset(objective.shapes)
    found = objective.gradient_columns(objective.train, objective.loss)
    torch.testing.assert_close(found.T, objective.per_example.looped(x, y, objective.loss.gradient))


def test_padding_of_a_table_that_scales_what_it_reads_has_no_gradient() -> None:
    class Scaled(nn.Embedding):
        def forward(self, tokens: Tensor) -> Tensor:
            return 3 * super().forward(tokens)

    torch.manual_seed(0)
    model = nn.Sequential(Scaled(9, 4, padding_idx=0), nn.Flatten(), nn.Linear(20, 3)).double()
    tokens, y = torch.randint(1, 9, (6, 5)), torch.arange(6) % 3
    tokens[:, 3:] = 0
    objective = whence.from_torch(model, whence.CrossEntropy(), (tokens, y))
    assert objective.factored == frozenset(objective.shapes)
    found = objective.gradient_columns(objective.train, objective.loss).T
    for row, x, label in zip(found, tokens, y, strict=True):
        loss = nn.functional.cross_entropy(model(x[None]), label[None])
        exact = torch.autograd.grad(loss, list(model.parameters()))
        torch.testing.assert_close(row, torch.cat([piece.flatten() for piece in exact]))


def test_a_module_with_a_vector_alone_need_not_scale_by_it() -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3))

        def forward(self, x: Tensor) -> Tensor:
            return x * (x[:, :3] @ self.weight)[:, None]

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), Shift(), nn.Linear(4, 2)).double()
    data = torch.randn(6, 4).double(), torch.arange(6) % 2
    objective = whence.from_torch(model, whence.CrossEntropy(), data)
    found = objective.gradient_columns(objective.train, objective.loss).T
    for row, x, y in zip(found, *data, strict=True):
        loss = nn.functional.cross_entropy(model(x[None]), y[None])
        exact = torch.autograd.grad(loss, list(model.parameters()))
        torch.testing.assert_close(row, torch.cat([piece.flatten() for piece in exact]))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 6, 3, groups=2, stride=2, padding=1),
        nn.Conv1d(4, 4, 2, groups=4, padding="same", padding_mode="circular"),
        nn.Conv2d(4, 8, 3, groups=4, dilation=2, padding=2, bias=False),
        nn.Conv2d(4, 6, (3, 2), groups=2, padding="valid"),
        nn.Conv2d(4, 3, 3, padding="same", padding_mode="reflect"),
        nn.Conv2d(4, 3, (5, 3), padding="same"),
    ],
    ids=str,
)
def test_convolutions_with_groups_and_any_padding_factor(layer: nn.Module) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.last = layer, nn.LazyLinear(3)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.last(self.layer(x).tanh().flatten(1))
            return found

    torch.manual_seed(0)
    x = torch.randn(5, 4, *[6] * (1 if "Conv1d" in str(layer) else 2), dtype=torch.float64)
    model = Pooled().double()
    model(x)
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, torch.arange(5) % 3))
    assert objective.factored == frozenset(objective.shapes)
    found = objective.gradient_columns(objective.train, objective.loss)
    exact = objective.per_example.looped(x, objective.train.targets, objective.loss.gradient)
    torch.testing.assert_close(found.T, exact, rtol=1e-10, atol=1e-12)


class Positions(nn.Module):
    """Learned positions, a token that stands first, a scale of channels and one of all."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.positions = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(4, 3))
        self.scale, self.whole = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(()))
        self.mixing, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x + self.positions
        hidden = self.mixing(hidden * self.scale).tanh().mean(1) * self.whole
        found: Tensor = self.last(hidden + self.token)
        return found


@pytest.mark.parametrize("n", [1, 4, 7])
@pytest.mark.parametrize("batch", [None, 1, 3])
def test_parameters_that_enter_by_broadcasting_have_a_gradient_per_example(
    n: int, batch: int | None
) -> None:
    """Also where there are as many examples as positions, or one."""
    torch.manual_seed(0)
    x, y = torch.randn(n, 4, 3, dtype=torch.float64), torch.arange(n) % 2
    model = Positions().double()
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y), batch_size=batch)
    assert (objective.factored == frozenset(objective.shapes)) == (n > 1)
    other = torch.randn(9, 4, 3, dtype=torch.float64), torch.arange(9) % 2
    for data in ((x, y), other):
        examples = objective.examples(data)
        found = objective.gradient_columns(examples, objective.loss)
        exact = objective.per_example.looped(*data, objective.loss.gradient)
        torch.testing.assert_close(found.T, exact, rtol=1e-10, atol=1e-12)
    narrowed = objective.narrowed({"positions", "last.weight"})
    found = narrowed.gradient_columns(narrowed.train, narrowed.loss)
    exact = narrowed.per_example.looped(x, y, narrowed.loss.gradient)
    torch.testing.assert_close(found.T, exact, rtol=1e-10, atol=1e-12)
