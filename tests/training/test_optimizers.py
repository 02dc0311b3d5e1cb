"""The adjoint of each update against automatic differentiation of the update itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import vjp, vmap

from whence.training.optimizers import SGD, Adam, Update, clip, clip_adjoint

UPDATES = [
    SGD(momentum=0.0, nesterov=False, weight_decay=0.0),
    SGD(momentum=0.9, nesterov=False, weight_decay=0.1),
    SGD(momentum=0.8, nesterov=True, weight_decay=0.1),
    Adam(betas=(0.9, 0.99), eps=1e-8, eps_root=0.0, weight_decay=0.1, decoupled=False),
    Adam(betas=(0.5, 0.9), eps=1e-2, eps_root=1e-3, weight_decay=0.1, decoupled=True),
]


@pytest.mark.parametrize("update", UPDATES, ids=repr)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), step=st.integers(0, 50))
def test_adjoint_is_the_vjp_of_the_update(update: Update, seed: int, step: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    p, k = 4, 3
    before = torch.randn(update.width, p, generator=generator, dtype=torch.float64)
    if update.width == 3:
        before[2] = before[2].square() + 1e-3
    gradient = torch.randn(p, generator=generator, dtype=torch.float64)
    cotangents = torch.randn(update.width, k, p, generator=generator, dtype=torch.float64)

    after, pull = vjp(lambda s, g: update.forward(s, g, 0.1, step), before, gradient)
    of_before, of_gradient = vmap(pull, in_dims=1, out_dims=(1, 0))(cotangents)

    given_gradient = gradient if update.reads_gradient else None
    found, earlier = update.adjoint(cotangents, before, after, given_gradient, 0.1, step)
    assert torch.allclose(found, of_gradient, rtol=1e-10, atol=1e-12)
    assert torch.allclose(earlier, of_before, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("update", UPDATES, ids=repr)
def test_in_place_is_the_same_update(update: Update) -> None:
    generator = torch.Generator().manual_seed(0)
    expected = update.start(torch.randn(6, generator=generator, dtype=torch.float64))
    state = [vector.clone().reshape(2, 3) for vector in expected]
    for step in range(4):
        gradient = torch.randn(6, generator=generator, dtype=torch.float64)
        before = gradient.clone()
        expected = update.forward(expected, gradient, 0.1, step)
        update.forward_(state, gradient.reshape(2, 3), 0.1, step)
        assert torch.equal(gradient, before)
        assert torch.allclose(torch.stack(state).flatten(1), expected, rtol=1e-14, atol=1e-15)


def test_adam_counts_the_root_of_nothing_as_flat() -> None:
    update = Adam(betas=(0.9, 0.99), eps=1e-8, eps_root=0.0, weight_decay=0.0, decoupled=False)
    before = torch.zeros(3, 2, dtype=torch.float64)
    gradient = torch.tensor([0.0, 1.0], dtype=torch.float64)
    after = update.forward(before, gradient, 0.1, 0)
    cotangents = torch.ones(3, 1, 2, dtype=torch.float64)
    of_gradient, earlier = update.adjoint(cotangents, before, after, gradient, 0.1, 0)
    assert torch.isfinite(of_gradient).all()
    assert torch.isfinite(earlier).all()


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_is_torchs_and_its_adjoint_the_vjp(max_norm: float) -> None:
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(5, generator=generator, dtype=torch.float64)
    cotangents = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    parameter = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_([parameter], max_norm)

    clipped, pull = vjp(lambda g: clip(g, max_norm), gradient)
    assert torch.allclose(clipped, parameter.grad, rtol=1e-12)
    expected = vmap(pull)(cotangents)[0]
    assert torch.allclose(clip_adjoint(cotangents, gradient, max_norm), expected, rtol=1e-12)


def test_clip_treats_each_training_of_a_stack_alone() -> None:
    gradients = torch.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=torch.float64)
    together = clip(gradients, 1.0)
    assert torch.equal(together[0], clip(gradients[0], 1.0))
    assert torch.equal(together[1], gradients[1])
