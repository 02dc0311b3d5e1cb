"""A module as a function of its parameters: what is copied, what it costs, what is refused."""

from __future__ import annotations

import warnings
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import whence
from whence.errors import InvalidInput, UnsupportedModel
from whence.network.module import functional
from whence.network.objective import ModuleObjective

pytestmark = pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def data(n: int = 12) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 3


def test_pieces_and_leaves_are_the_parameters() -> None:
    model = layers()
    module, flat = functional(model)
    named = module.split(flat)
    for name, parameter in model.named_parameters():
        assert torch.equal(named[name], parameter)
        assert torch.equal(flat[module.slices[name]].view(parameter.shape), parameter)
    x, _ = data()
    assert torch.equal(module(named, x), model(x))
    leaves = module.leaves(flat)
    assert all(leaf.is_leaf and leaf.requires_grad for leaf in leaves.values())
    assert all(leaf.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()
               for leaf in leaves.values())  # fmt: skip
    filled = module.filled(2 * flat)
    assert torch.equal(filled[0].weight, 2 * model[0].weight)
    assert all(parameter.requires_grad for parameter in filled.parameters())


def test_values_are_held_once() -> None:
    module, flat = functional(layers())
    for parameter in module.model.parameters():
        assert parameter.isnan().all()
        assert parameter.untyped_storage().nbytes() <= 8
    narrowed = module.narrowed(flat, {"0.weight"})
    x, _ = data()
    part = narrowed.split(flat[module.slices["0.weight"]])
    assert torch.equal(narrowed(part, x), module(module.split(flat), x))


class Numbers(TorchDispatchMode):
    """Counts the numbers that operations write, views aside."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = {storage(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        in_place = func.__name__.split(".")[0].endswith("_")
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and (in_place or storage(tensor) not in given):
                self.written += tensor.numel()
        return found


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def test_a_gradient_costs_what_a_backward_pass_costs() -> None:
    deep = nn.Sequential(*[nn.Linear(40, 40) for _ in range(60)])
    x, y = torch.randn(4, 40), torch.randn(4, 40)
    objective = whence.from_torch(deep, whence.SquaredError(), (x, y))
    p, w = len(objective.params), torch.ones(4, 1)
    with Numbers() as plain:
        loss = whence.SquaredError()(deep(x), y).sum()
        torch.autograd.grad(loss, [*deep.parameters()])
    with Numbers() as ours:
        objective.gradient_sum(objective.train, objective.loss, w)
    # One flat vector, set to zero and added to, beside the gradients themselves.
    assert ours.written <= plain.written + 4 * p
    v = torch.randn(p, 1)
    for product in (objective.hvp, objective.ggnvp):
        with Numbers() as ours:
            product(v)
        assert ours.written <= 12 * plain.written
    with Numbers() as made:
        whence.from_torch(deep, whence.SquaredError(), (x, y))
    assert made.written <= 60 * plain.written


def test_sparse_embeddings_are_dense_gradients() -> None:
    class Words(nn.Module):
        def __init__(self, sparse: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.words, self.head = nn.Embedding(9, 4, sparse=sparse), nn.Linear(4, 3)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.words(tokens).mean(1))

    tokens, y = torch.randint(9, (12, 5)), torch.arange(12) % 3
    models = [Words(sparse) for sparse in (True, False)]
    found = [
        whence.influence(
            whence.from_torch(model, whence.CrossEntropy(), (tokens, y), l2=0.1), (tokens, y)
        ).values
        for model in models
    ]
    np.testing.assert_array_equal(*found)
    assert models[0].words.sparse  # the user's own is left as it is
    recipe = whence.Recipe(learning_rate=0.1, batch_size=4, epochs=2)
    ends = [whence.train(m, whence.CrossEntropy(), (tokens, y), recipe).params for m in models]
    assert torch.equal(*ends)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_and_says_so(dtype: torch.dtype) -> None:
    model = layers().to(dtype)
    x, y = data()
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y), l2=0.1)
    assert objective.params.dtype == torch.float32
    assert str(dtype) in " ".join(objective.notes)
    twin = whence.from_torch(layers().to(dtype).float(), whence.CrossEntropy(), (x, y), l2=0.1)
    for ask in (
        lambda o: whence.influence(o, (x[:2], y[:2]), solver=whence.EKFAC()).values,
        lambda o: whence.self_influence(o, solver=whence.KFAC()),
    ):
        np.testing.assert_array_equal(ask(objective), ask(twin))
    recipe = whence.Recipe(learning_rate=0.1, batch_size=4, epochs=2)
    run = whence.train(model, whence.CrossEntropy(), (x, y), recipe)
    assert str(dtype) in " ".join(run.notes)
    assert run.params.dtype == torch.float32


def test_a_training_keeps_the_precision_of_the_model() -> None:
    x, y = data()
    recipe = whence.Recipe(learning_rate=0.1, batch_size=4, epochs=2)
    run = whence.train(layers().double(), whence.CrossEntropy(), (x, y), recipe)
    assert run.params.dtype == torch.float64
    assert run.train.inputs.dtype == torch.float64
    assert run.notes == ()


def test_parameters_that_the_loss_never_uses() -> None:
    class Spare(nn.Module):
        def __init__(self, model: nn.Module, called: bool) -> None:
            super().__init__()
            self.model, self.called = model, called
            self.spare, self.alone = nn.Linear(4, 3), nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            if self.called:
                self.spare(x)
            return self.model(x)

    x, y = data()

    def scores(model: nn.Module, solver: Any) -> Any:
        objective = whence.from_torch(model, whence.CrossEntropy(), (x, y), l2=0.1)
        return whence.influence(objective, (x[:3], y[:3]), solver=solver, damping=0.1).values

    for solver in (whence.EKFAC(), whence.KFAC(), whence.CG()):
        expected = scores(layers(), solver)
        for called in (True, False):
            found = scores(Spare(layers(), called), solver)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_a_module_with_a_reference_of_its_own_to_a_parameter_is_refused() -> None:
    class Aliased(nn.Module):
        def __init__(self, how: str) -> None:
            super().__init__()
            self.layer, self.how = nn.Linear(4, 3), how
            self.kept = [self.layer.weight]

        def forward(self, x: Tensor) -> Tensor:
            if self.how == "product":
                return x @ self.kept[0].T + self.layer.bias
            return self.layer(x) * self.kept[0].sum()

    for how in ("product", "factor"):
        with pytest.raises(InvalidInput, match="reference of its own"):
            whence.from_torch(Aliased(how), whence.CrossEntropy(), data())


def test_modules_that_cannot_be_bound_are_refused_in_words() -> None:
    with pytest.raises(InvalidInput, match="lazy module.*Call the model on a batch"):
        whence.from_torch(nn.LazyLinear(3), whence.CrossEntropy(), data())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        hooked = nn.utils.weight_norm(nn.Linear(4, 3))
    hooked(data()[0])
    with pytest.raises(UnsupportedModel, match="copy.deepcopy.*weight_norm"):
        whence.from_torch(hooked, whence.CrossEntropy(), data())


class Activated(nn.BatchNorm1d):
    """A subclass that computes otherwise, on a small scale."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e-3 * torch.tanh(super().forward(x))


def test_rules_hold_for_exact_types_only() -> None:
    torch.manual_seed(0)
    norm = Activated(8)
    model = nn.Sequential(nn.Linear(4, 8), norm, nn.Linear(8, 3)).double().eval()
    x, y = data()
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    assert "1.weight" not in objective.factored
    assert exact(objective)


@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_rules_are_judged_on_their_own_scale(scale: float) -> None:
    class Scaled(nn.Module):
        """A layer of an exact type whose output is changed behind its back."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.large, self.small = nn.Linear(4, 3), nn.Linear(4, 3)
            self.small.forward = lambda x: nn.functional.linear(2 * x, self.small.weight)  # type: ignore[method-assign]

        def forward(self, x: Tensor) -> Tensor:
            return self.large(x) + scale * self.small(x)

    objective = whence.from_torch(Scaled(), whence.CrossEntropy(), data())
    assert objective.factored == {"large.weight", "large.bias"}
    assert exact(objective)


def test_gradients_that_cancel_do_not_cost_a_rule() -> None:
    class Keys(nn.Module):
        """The bias of the keys of attention has a gradient of nothing but rounding."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.unflatten(1, (-1, 8))
            mixed = nn.functional.scaled_dot_product_attention(
                self.q(tokens), self.k(tokens), self.v(tokens)
            )
            return self.head(mixed.mean(1))

    x = 3 * torch.randn(9, 48, generator=torch.Generator().manual_seed(0))
    objective = whence.from_torch(Keys(), whence.CrossEntropy(), (x, torch.arange(9) % 3))
    assert objective.factored == frozenset(objective.shapes)


def exact(objective: ModuleObjective) -> bool:
    """Whether factored gradients are those of differentiation, parameter by parameter."""
    train = objective.train
    found = objective.gradient_columns(train, objective.loss).T
    truth = objective.per_example.looped(train.inputs, train.targets, objective.loss.gradient)
    return all(
        torch.allclose(
            found[:, at], truth[:, at], rtol=1e-3, atol=1e-4 * float(truth[:, at].abs().max())
        )
        for at in objective.slices.values()
    )


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (lambda f, y: nn.functional.cross_entropy(f @ f.T, torch.arange(len(f)), reduction="none"),
         UnsupportedModel, "depends on one example each"),
        (lambda f, y: (f - f.mean(0)).square().sum(1), UnsupportedModel, "in a batch and 0 alone"),
        (lambda f, y: (f[:, :1] - y).square().mean(1), UnsupportedModel, r"\[b, 1\]"),
        (lambda f, y: f.square().sum(1).cumsum(0), UnsupportedModel, "for example 1 in a batch"),
        (nn.CrossEntropyLoss(), InvalidInput, "one value per example"),
        (nn.CrossEntropyLoss(weight=torch.ones(3).double(), reduction="none"), InvalidInput,
         "weights their dtype"),
    ],
)  # fmt: skip
def test_losses_give_each_example_its_own(loss: Any, error: type[Exception], message: str) -> None:
    recipe = whence.Recipe(learning_rate=0.1, batch_size=4, epochs=2)
    with pytest.raises(error, match=message):
        whence.from_torch(layers(), loss, data())
    with pytest.raises(error, match=message):
        whence.train(layers(), loss, data(), recipe)


def test_outputs_that_depend_on_those_before_are_refused() -> None:
    class Running(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).cumsum(0)

    with pytest.raises(UnsupportedModel, match="alone in its batch"):
        whence.from_torch(Running(), whence.CrossEntropy(), data())


def test_a_model_that_answers_in_another_precision() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).float()

    torch.manual_seed(0)
    x, y = data()
    objective = whence.from_torch(Single().double(), whence.CrossEntropy(), (x, y))
    assert objective.outputs(objective.train).dtype == torch.float64
    assert exact(objective)


@pytest.mark.parametrize("kind", ["torch", "llama", "gemma"])
def test_root_mean_square_norms_factor(kind: str) -> None:
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    torch.manual_seed(0)
    norm = {
        "torch": lambda: nn.RMSNorm(8),
        "llama": lambda: LlamaRMSNorm(8),
        "gemma": lambda: GemmaRMSNorm(8),
    }[kind]()
    model = nn.Sequential(nn.Linear(4, 8), nn.Unflatten(1, (1, 8)), norm, nn.Flatten())
    with torch.no_grad():
        norm.weight.add_(torch.randn(8))
    objective = whence.from_torch(model, whence.SquaredError(), (data()[0], torch.randn(12, 8)))
    assert "2.weight" in objective.factored
    assert exact(objective)


def test_scores_of_a_checkpoint_say_that_only_their_order_is_to_be_read() -> None:
    x, y = data()
    objective = whence.from_torch(layers(), whence.CrossEntropy(), (x, y))
    scores = whence.influence(objective, (x[:2], y[:2]))
    assert scores.order_only
    assert "order only" in repr(scores)
    assert "their sizes are not known" in scores.card().html()
    assert whence.average([scores, scores]).order_only
    assert scores.at(np.arange(3)).order_only
    convex = whence.from_torch(
        nn.Linear(4, 3), whence.CrossEntropy(), (x, y), l2=0.1, convex=True
    ).refit()
    sized = whence.influence(convex, (x[:2], y[:2]))
    assert not sized.order_only
    assert "order only" not in repr(sized)


def test_a_forward_pass_that_another_library_wrapped_computes_with_the_copy() -> None:
    def wrap(module: nn.Module) -> None:
        original = module.forward

        def forward(self: nn.Module, *inputs: Tensor) -> Any:
            return original(*inputs)

        module.forward = MethodType(forward, module)  # type: ignore[method-assign]

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 2)))
    x, y = torch.randn(5, 3), torch.arange(5) % 2
    plain = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    wrap(model[1])
    wrap(model)
    wrap(model)  # as two libraries do, one after the other
    found = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    moved = torch.randn_like(plain.params)
    for at in (plain.params, moved):
        torch.testing.assert_close(
            found.at(at).outputs(found.train), plain.at(at).outputs(plain.train)
        )
    assert found.factored == plain.factored == frozenset(plain.shapes)


def test_outputs_that_depend_on_no_parameter_are_refused() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return x[:, :2]

    x, y = torch.randn(5, 3), torch.arange(5) % 2
    with pytest.raises(UnsupportedModel, match="depend on the selected parameters"):
        whence.from_torch(Constant(), whence.CrossEntropy(), (x, y))
