"""The shrunken datamodel: its laws, and what it finds where the truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch import Tensor

from whence.methods.datamodel import Asked, Fits, _Ridge, _shrunk, effects, shrinkage
from whence.methods.similarity import coordinates, covariation, likeness
from whence.objective.losses import SquaredError

torch.manual_seed(0)


def ridge_fits(b: int = 60, n: int = 40, d: int = 3, q: int = 6) -> tuple[Fits, Asked, Tensor]:
    """Ridge regressions on random halves, and the outcomes of thirty more."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n + q, d, generator=g, dtype=torch.float64)
    y = x @ torch.randn(d, generator=g, dtype=torch.float64)
    y = y + torch.randn(n + q, generator=g, dtype=torch.float64)
    kept = torch.stack([torch.randperm(n, generator=g) for _ in range(b + 30)]) < n // 2
    kept = kept.double()
    outputs = []
    for mask in kept:
        inside, targets = x[:n][mask > 0], y[:n][mask > 0]
        gram = inside.T @ inside + torch.eye(d, dtype=torch.float64)
        outputs.append(x @ torch.linalg.solve(gram, inside.T @ targets))
    every = torch.stack(outputs).unsqueeze(2)
    fits = Fits(
        kept=kept[:b],
        train=every[:b, :n],
        targets=y[:n],
        points=x[:n],
        loss=SquaredError(),
    )
    asked = Asked(outputs=every[:b, n:], targets=y[n:], points=x[n:])
    held = Asked(outputs=every[b:, n:], targets=y[n:], points=x[n:])
    return fits, asked, torch.cat([kept[b:], held.outcomes(SquaredError())], 1)


def correlation(a: Tensor, b: Tensor) -> float:
    """The mean rank correlation of columns."""
    ranks = [m.argsort(0).argsort(0).double() for m in (a, b)]
    centered = [m - m.mean(0) for m in ranks]
    return float(
        (
            (centered[0] * centered[1]).sum(0) / (centered[0].norm(dim=0) * centered[1].norm(dim=0))
        ).mean()
    )


def test_held_back_fits_are_predicted_as_well_as_it_says() -> None:
    fits, asked, held = ridge_fits()
    found = effects(fits, asked, SquaredError(), shrinkage(fits, SquaredError()))
    predicted = -held[:, :40] @ found.values.T
    actual = correlation(predicted, held[:, 40:])
    assert found.agreement is not None
    assert actual > 0.8
    assert abs(actual - found.agreement) < 3 * max(found.spread, 0.05)


def test_the_prior_beats_a_plain_regression() -> None:
    fits, asked, held = ridge_fits(b=25)
    found = effects(fits, asked, SquaredError(), shrinkage(fits, SquaredError()))
    zero = torch.zeros_like(found.values)
    plain = _shrunk(zero, fits.kept, asked.outcomes(SquaredError()), 0.1)
    learned, regressed = (
        correlation(-held[:, :40] @ tau.T, held[:, 40:]) for tau in (found.values, plain)
    )
    assert learned > regressed + 0.1


def test_more_fits_have_smaller_errors() -> None:
    sizes = []
    for b in (25, 100):
        fits, asked, _ = ridge_fits(b=b)
        found = effects(fits, asked, SquaredError(), shrinkage(fits, SquaredError()))
        sizes.append(float(found.errors.mean() / found.values.std()))
    assert sizes[1] < sizes[0]


def test_the_ridge_in_dual_form_is_the_ridge() -> None:
    g = torch.Generator().manual_seed(2)
    kept = (torch.rand(15, 6, generator=g) < 0.5).double()
    outcomes = torch.randn(15, 2, generator=g, dtype=torch.float64)
    prior = torch.randn(2, 6, generator=g, dtype=torch.float64)
    centered = kept - kept.mean(0)
    largest = torch.linalg.eigvalsh(centered @ centered.T)[-1]
    left = outcomes - outcomes.mean(0) + centered @ prior.T
    eye = torch.eye(6, dtype=torch.float64)
    naive = (
        prior - torch.linalg.solve(centered.T @ centered + 0.5 * largest * eye, centered.T @ left).T
    )
    assert torch.allclose(_shrunk(prior, kept, outcomes, 0.5), naive)
    assert _shrunk(prior, kept, outcomes, None) is prior


def test_a_linear_outcome_is_found_exactly_as_the_ridge_vanishes() -> None:
    g = torch.Generator().manual_seed(3)
    kept = (torch.rand(40, 8, generator=g) < 0.5).double()
    tau = torch.randn(1, 8, generator=g, dtype=torch.float64)
    found = _shrunk(torch.zeros_like(tau), kept, -kept @ tau.T + 3, 1e-12)
    assert torch.allclose(found, tau, atol=1e-6)


def test_outcomes_that_do_not_vary_have_no_effects() -> None:
    fits, asked, _ = ridge_fits(b=25)
    still = Fits(
        kept=fits.kept,
        train=torch.ones_like(fits.train),
        targets=fits.targets,
        points=fits.points,
        loss=SquaredError(),
    )
    same = Asked(outputs=torch.ones_like(asked.outputs), targets=asked.targets, points=asked.points)
    learned = shrinkage(still, SquaredError())
    found = effects(still, same, SquaredError(), learned)
    assert found.agreement is None
    assert float(found.values.abs().max()) < 1e-12


def test_covariation_is_a_root_of_the_covariance() -> None:
    train = torch.randn(30, 50, 2, dtype=torch.float64)
    found = covariation(train[:, :5], train)
    total = torch.zeros(5, 50, dtype=torch.float64)
    for c in range(2):
        f = train[:, :, c] - train[:, :, c].mean(0)
        u, s, _ = torch.linalg.svd(f, full_matrices=False)
        typical = s.square().mean().sqrt()
        total += (f[:, :5].T @ u / (s + typical)) @ (u.T @ f)
    assert torch.allclose(found, total, atol=1e-9)
    assert float(covariation(torch.ones(30, 5, 1), torch.ones(30, 50, 1)).abs().max()) == 0


def test_likeness_is_highest_for_the_example_itself() -> None:
    points = torch.randn(20, 4, dtype=torch.float64)
    alike = likeness(points[:3], points)
    assert alike.shape == (6, 3, 20)
    for kernel in alike[2:]:
        assert (kernel.argmax(1) == torch.arange(3)).all() or (kernel[:, :3].diagonal() == 1).all()


def test_points_of_every_form_of_rows() -> None:
    g = np.random.default_rng(0)
    array = g.normal(size=(12, 3)) * [1, 10, 100]
    first, second = coordinates(array, array[:2])  # type: ignore[misc]
    assert np.allclose(first.mean(0), 0)
    assert np.allclose(first.std(0, correction=0), 1)
    assert torch.equal(second, first[:2])
    frame = pd.DataFrame({"a": [1.0, np.nan, 3.0], "b": ["x", "y", "x"]})
    points, asked = coordinates(frame, frame[::-1])  # type: ignore[misc]
    assert points.shape == (3, 3)
    assert torch.equal(asked, points.flip(0))
    matrix = sparse.random_array((10, 2000), density=0.01, rng=1, format="csr")
    assert coordinates(matrix, matrix[:4])[0].shape == (10, 256)  # type: ignore[index]
    texts = np.array(["one two", "two three", "one two"], dtype=object)
    words = coordinates(texts, texts)[0]  # type: ignore[index]
    assert torch.equal(words[0], words[2])
    assert not torch.equal(words[0], words[1])
    images = torch.randn(6, 2, 3)
    assert coordinates(images, images[:1])[1].shape == (1, 6)  # type: ignore[index]
    assert coordinates(None, None) is None


def test_the_shrinkage_is_learned_from_what_fits_left_out() -> None:
    fits, _, _ = ridge_fits()
    learned = shrinkage(fits, SquaredError())
    assert (learned.weights >= 0).all()
    assert learned.weights.max() > 0
    spoiled = Fits(  # outputs of a fit on what it kept say nothing
        kept=fits.kept,
        train=torch.where(fits.kept.unsqueeze(2) > 0, 1e3 * torch.randn(60, 40, 1), fits.train),
        targets=fits.targets,
        points=fits.points,
        loss=SquaredError(),
    )
    assert torch.allclose(spoiled.left_out, fits.left_out)


def test_the_decomposition_is_of_the_products() -> None:
    rows = torch.randn(7, 30, dtype=torch.float64)
    ridge = _Ridge.of(rows)
    left = torch.randn(7, 2, dtype=torch.float64)
    gram = rows @ rows.T
    damped = gram + 0.3 * torch.linalg.eigvalsh(gram)[-1] * torch.eye(7, dtype=torch.float64)
    assert torch.allclose(ridge.duals(left, 0.3), torch.linalg.solve(damped, left))


@pytest.mark.parametrize("points", [True, False])
def test_inputs_of_no_known_form_leave_the_covariation(points: bool) -> None:
    fits, asked, _ = ridge_fits(b=30)
    if not points:
        fits = Fits(
            kept=fits.kept, train=fits.train, targets=fits.targets, points=None, loss=fits.loss
        )
        asked = Asked(outputs=asked.outputs, targets=asked.targets, points=None)
    learned = shrinkage(fits, SquaredError())
    assert len(learned.weights) == (14 if points else 2)
    assert effects(fits, asked, SquaredError(), learned).values.shape == (6, 40)


def test_fits_that_kept_the_same_say_nothing() -> None:
    duals = _Ridge.of(torch.zeros(4, 9).double()).duals(torch.ones(4, 2).double(), 0.5)
    assert torch.isfinite(duals).all()
