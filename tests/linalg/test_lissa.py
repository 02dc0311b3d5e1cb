"""LiSSA: its expectation, its own account of its noise, and what it says when it diverges."""

from __future__ import annotations

import resource

import pytest
import torch

from whence.errors import Diverged, InvalidInput, NotPositiveDefinite
from whence.linalg import BlockDiagonal, Cholesky, Dense, Diagonal, LiSSA, materialize, sample


def naive_lissa(A, v, depth, scale, generator):
    """Koh and Liang (2017), section 3: H̃_j v = v + (I − S_j / scale) H̃_{j−1} v."""
    h = v.clone()
    for _ in range(depth):
        h = v + h - sample(A, generator) @ h / scale
    return h / scale


@pytest.fixture(scope="module")
def A(random, rank_ones):
    """Least squares with 40 rows of 6 features, batches of 4, damped."""
    return rank_ones(random(40, 6), batch=4).damped(0.5)


def test_is_the_paper_recursion(A, random):
    b = random(6)
    solution = LiSSA(depth=37, scale=9.0, seed=5).prepare(A).solve(b)
    expected = naive_lissa(A, b, 37, 9.0, torch.Generator().manual_seed(5))
    torch.testing.assert_close(solution.value, expected)
    assert solution.iterations == 37
    assert solution.standard_error is None


def test_mean_over_seeds_is_the_exact_answer(A, random):
    """Each entry within three standard errors, the mean of 200 seeds; bias made negligible."""
    B = random(6, 2)
    exact = torch.linalg.solve(materialize(A), B)
    draws = torch.stack(
        [LiSSA(depth=200, scale=12.0, seed=s).prepare(A).solve(B).value for s in range(200)]
    )
    error = draws.std(dim=0) / 200**0.5
    z = (draws.mean(dim=0) - exact) / error
    assert float(error.max()) < 0.1 * float(exact.abs().max())  # the test has power
    assert float(z.abs().max()) < 3


def test_standard_error_is_honest(A, random):
    """The stated error, from 10 repeats, is of the size of the spread over seeds."""
    b = random(6)
    solver = [
        LiSSA(depth=40, repeats=10, scale=12.0, seed=s).prepare(A).solve(b) for s in range(40)
    ]
    spread = torch.stack([s.value for s in solver]).std(dim=0)
    stated = torch.stack([s.standard_error for s in solver]).mean(dim=0)
    assert stated.shape == b.shape
    ratio = stated / spread
    assert float(ratio.min()) > 0.6
    assert float(ratio.max()) < 1.6


def test_repeats_are_averaged(A, random):
    b = random(6)
    generator = torch.Generator().manual_seed(2)
    runs = torch.stack([naive_lissa(A, b, 30, 9.0, generator) for _ in range(4)])
    solution = LiSSA(depth=30, repeats=4, scale=9.0, seed=2).prepare(A).solve(b)
    torch.testing.assert_close(solution.value, runs.mean(dim=0))
    torch.testing.assert_close(solution.standard_error, runs.std(dim=0) / 2)


def test_columns_do_not_depend_on_their_company(A, random):
    B = random(6, 5)
    inverse = LiSSA(depth=50, seed=1).prepare(A)
    together = inverse.solve(B).value
    torch.testing.assert_close(inverse.solve(B[:, 3]).value, together[:, 3])
    torch.testing.assert_close(inverse.solve(B.flip(1)).value.flip(1), together)


def test_residual_is_against_the_full_operator(A, random):
    b = random(6)
    solution = LiSSA(depth=50, repeats=2, scale=12.0).prepare(A).solve(b)
    true = float((b - materialize(A) @ solution.value).norm() / b.norm())
    assert solution.residual == pytest.approx(true)


def test_scale_covers_samples(random, rank_ones):
    """Single rows have far larger eigenvalues than their mean: a scale from the mean diverges."""
    A = rank_ones(random(200, 30), batch=1).damped(0.1)
    largest_of_mean = float(torch.linalg.eigvalsh(materialize(A))[-1])
    inverse = LiSSA(depth=200).prepare(A)
    assert inverse.scale > 5 * largest_of_mean
    assert bool(torch.isfinite(inverse.solve(random(30)).value).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_too_small_a_scale_is_told_with_one_that_works(random, rank_ones, dtype):
    A = rank_ones(random(200, 30, dtype=dtype), batch=1).damped(0.1)
    with pytest.raises(Diverged, match=r"at scale 2;.*Use scale=[\d.]+ or more") as caught:
        LiSSA(depth=500, scale=2.0).prepare(A).solve(random(30, dtype=dtype))
    named = float(str(caught.value).split("Use scale=")[1].split(" ")[0])
    LiSSA(depth=500, scale=named).prepare(A).solve(random(30, dtype=dtype))


def test_negative_curvature_is_told_with_the_damping(symmetric, random):
    A = Dense(symmetric(torch.tensor([-1.0, 1.0, 2.0, 4.0])))
    with pytest.raises(Diverged, match=r"Use damping 1.05e\+00 or more"):
        LiSSA(depth=500).prepare(A).solve(random(4))


def test_nothing_positive_to_scale_by():
    with pytest.raises(NotPositiveDefinite, match="positive eigenvalue"):
        LiSSA(depth=5).prepare(Diagonal(torch.tensor([-1.0, -2.0])))
    with pytest.raises(NotPositiveDefinite, match="positive eigenvalue"):
        LiSSA(depth=5, preconditioner=Diagonal(torch.ones(2))).prepare(Diagonal(torch.zeros(2)))


def test_curvature_of_any_size_sets_a_scale():
    x = (
        LiSSA(depth=100).prepare(Diagonal(torch.tensor([0.1, 0.2]).double()))
        @ torch.ones(2).double()
    )
    torch.testing.assert_close(x, torch.tensor([10.0, 5.0]).double())


def test_steps_that_add_up_are_no_divergence():
    """Without curvature x_j is the sum of j + 1 steps, that grow to 1 / (1 − μ) of the first."""
    A, b = Diagonal(torch.full((3,), 1e-9).double()), torch.ones(3).double()
    x = LiSSA(depth=500, scale=1.0, momentum=0.95).prepare(A).solve(b).value
    assert float(x[0]) == pytest.approx(sum((1 - 0.95**j) / 0.05 for j in range(1, 502)), rel=1e-3)


def test_a_short_series_that_diverges_is_told_too():
    A = Diagonal(torch.tensor([1.0, 50.0]))
    with pytest.raises(Diverged, match="by step 5 at scale 1"):
        LiSSA(depth=5, scale=1.0).prepare(A).solve(torch.ones(2))


def test_growth_without_a_cause_that_is_seen_asks_for_a_larger_scale():
    inverse = LiSSA(depth=5, scale=2.0).prepare(Diagonal(torch.tensor([1.0, 0.5])))
    assert "Use scale=8, or a larger batch" in str(inverse._diverged(3))


def test_samples_of_combinations_are_unbiased(random, rank_ones):
    """Sums, multiples, products, transposes and blocks are sampled part by part."""
    A, B = rank_ones(random(20, 3), batch=5), rank_ones(random(20, 3, seed=1), batch=5)
    mixed = BlockDiagonal(((2.0 * A + B).T.damped(0.1), A @ B))
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([materialize(sample(mixed, generator)) for _ in range(2000)])
    error = draws.std(dim=0) / 2000**0.5
    gap = (draws.mean(dim=0) - materialize(mixed)).abs()
    assert bool((gap <= 4 * error + 1e-12).all())
    assert bool((error[:3, :3] > 0).all())
    assert bool((error[3:, 3:] > 0).all())


def test_memory_is_flat(random):
    """200 steps on an operator that is part of a graph: a kept graph would hold 160 MB."""
    d = Diagonal(torch.linspace(1, 2, 1000, dtype=torch.float64).requires_grad_())
    A = d @ d  # whose derivative needs the product between the two: 0.8 MB a step
    B = random(1000, 100)
    LiSSA(depth=20, repeats=2).prepare(A).solve(B)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    LiSSA(depth=200, repeats=2).prepare(A).solve(B)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # KiB


def naive_preconditioned(A, M, b, depth, scale, momentum, generator):
    """x ← x + d, d ← momentum d + M (b − S x)/scale, from zero; every x."""
    x, d, path = torch.zeros_like(b), torch.zeros_like(b), []
    for step in range(depth + 1):
        product = sample(A, generator) @ x if step else torch.zeros_like(b)
        d = momentum * d + M @ (b - product) / scale
        x = x + d
        path.append(x)
    return torch.stack(path[1:])


@pytest.mark.parametrize("averaged", [False, True])
def test_preconditioned_recursion_with_momentum(A, random, symmetric, averaged):
    M = Dense(symmetric(torch.linspace(0.5, 1.5, 6)))
    b = random(6)
    solver = LiSSA(depth=31, scale=20.0, seed=5, preconditioner=M, momentum=0.5, averaged=averaged)
    path = naive_preconditioned(A, M, b, 31, 20.0, 0.5, torch.Generator().manual_seed(5))
    expected = path[15:].mean(0) if averaged else path[-1]
    torch.testing.assert_close(solver.prepare(A).solve(b).value, expected)


def test_a_good_preconditioner_shortens_the_series(symmetric, random):
    eigenvalues = torch.logspace(-3, 1, 20, dtype=torch.float64)
    A, rough = (Dense(symmetric(eigenvalues * f)) for f in (1.0, torch.linspace(0.7, 1.5, 20)))
    M = Cholesky().prepare(rough)
    b = random(20)
    assert LiSSA(depth=400).prepare(A).solve(b).residual > 0.1
    inverse = LiSSA(depth=40, preconditioner=M).prepare(A)
    solution = inverse.solve(b)
    assert solution.residual < 1e-6
    products = torch.linalg.eigvals(torch.linalg.solve(materialize(rough), materialize(A))).real
    assert float(products.max()) <= inverse.scale <= 1.3 * float(products.max())


def test_averaging_takes_out_noise(random, rank_ones):
    A = rank_ones(random(60, 6), batch=4).damped(0.5)
    b = random(6)
    exact = torch.linalg.solve(materialize(A), b)
    errors = [
        torch.stack(
            [
                LiSSA(depth=200, averaged=averaged, seed=seed).prepare(A).solve(b).value - exact
                for seed in range(10)
            ]
        ).norm()
        for averaged in (False, True)
    ]
    assert float(errors[1]) < 0.5 * float(errors[0])


def test_batch_size_is_the_solvers_to_choose(random, rank_ones):
    X, b = random(40, 6), random(6)
    asked = LiSSA(depth=30, scale=9.0, batch_size=4).prepare(rank_ones(X, batch=1).damped(0.5))
    given = LiSSA(depth=30, scale=9.0).prepare(rank_ones(X, batch=4).damped(0.5))
    torch.testing.assert_close(asked.solve(b).value, given.solve(b).value)


def test_divergence_with_a_preconditioner_names_a_scale_that_works(random, rank_ones):
    A = rank_ones(random(200, 30), batch=1).damped(0.1)
    M = Cholesky().prepare(Dense(materialize(A)))
    with pytest.raises(Diverged, match=r"Use scale=[\d.]+ or more") as caught:
        LiSSA(depth=500, scale=2.0, preconditioner=M).prepare(A).solve(random(30))
    named = float(str(caught.value).split("Use scale=")[1].split(" ")[0])
    LiSSA(depth=500, scale=named, preconditioner=M).prepare(A).solve(random(30))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth=0"),
        ({"depth": 1, "repeats": 0}, "repeats=0"),
        ({"depth": 1, "scale": 0.0}, "Got 0.0"),
        ({"depth": 1, "scale": float("nan")}, "Got nan"),
        ({"depth": 1, "momentum": 1.0}, "momentum=1.0"),
        ({"depth": 1, "batch_size": 0}, "batch_size=0"),
        ({"depth": 1, "preconditioner": 3}, "Got 3"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InvalidInput, match=message):
        LiSSA(**options)


def test_a_sample_may_be_one_example(random, rank_ones):
    X, b = random(40, 6), random(6)
    one = LiSSA(depth=30, scale=30.0, batch_size=1).prepare(rank_ones(X, batch=4).damped(0.5))
    own = LiSSA(depth=30, scale=30.0).prepare(rank_ones(X, batch=1).damped(0.5))
    torch.testing.assert_close(one.solve(b).value, own.solve(b).value)


def test_a_depth_must_be_given() -> None:
    with pytest.raises(InvalidInput, match=r"depth >= 1.*Got depth=0"):
        LiSSA()
