"""The shrunken datamodel: its laws, and what it finds where the truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.optimize import nnls
from scipy.stats import spearmanr
from torch import Tensor

from whence.methods.datamodel import (
    Asked,
    Fits,
    Shrinkage,
    _Ridge,
    _shrunk,
    effects,
    rank_agreement,
    shrinkage,
)
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


def test_likeness_by_definition() -> None:
    g = torch.Generator().manual_seed(0)
    train = torch.randn(40, 3, generator=g, dtype=torch.float64)
    asked = torch.randn(2, 3, generator=g, dtype=torch.float64)
    found = likeness(asked, train)
    distances = (asked.unsqueeze(1) - train).norm(dim=2)
    half = distances.flatten().sort().values[39] / 2  # of 80 distances, the lower median
    for q in range(2):
        order = distances[q].argsort()
        for rank, i in enumerate(order.tolist()):
            inner, distance = float(asked[q] @ train[i]), float(distances[q, i])
            near = np.exp(-((distance / float(half)) ** 2) / 2)
            expected = [1, 1 + inner / 3, near, float(rank < 14), 5 / (5 + rank), 30 / (30 + rank)]
            assert found[:, q, i].tolist() == pytest.approx(expected)


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


def folds(b: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Which of b fits stay, and which are held back, five times."""
    every = np.arange(b)
    return [(every[every % 5 != part], every[every % 5 == part]) for part in range(5)]


def features(
    fits: Fits, asked: Asked, fitted: np.ndarray, answered: np.ndarray | None = None
) -> np.ndarray:
    """All products similarity × pull of the squared error, [14, q, n], by their definition.

    Similarities of outputs are from some of the fits, and from the answers of as many.
    """
    assert fits.points is not None
    assert asked.points is not None
    answers = asked.outputs[fitted if answered is None else answered]
    together = covariation(answers, fits.train[fitted]).unsqueeze(0)
    alike = torch.cat([likeness(asked.points, fits.points), together])
    q, n = len(asked.targets), len(fits.targets)
    found = np.zeros((7, 2, q, n))
    for at in range(q):
        own = asked.outputs[:, at, 0].mean()
        for i in range(n):
            left_out = fits.train[fits.kept[:, i] == 0, i, 0].mean()
            for pull, output in enumerate((left_out, own)):
                product = (own - asked.targets[at]) * (output - fits.targets[i])
                found[:, pull, at, i] = alike[:, at, i] * product
    return found.reshape(14, q, n)


def ridge(kept: np.ndarray, outcomes: np.ndarray, prior: np.ndarray, strength: float) -> np.ndarray:
    """The prior of one query and the ridge regression of what it leaves over, [n]."""
    z = kept - kept.mean(0)
    squares = z.T @ z + strength * np.linalg.eigvalsh(z @ z.T)[-1] * np.eye(z.shape[1])
    return prior - np.linalg.solve(squares, z.T @ (outcomes - outcomes.mean() + z @ prior))


def test_effects_and_their_errors_by_definition() -> None:
    fits, asked, _ = ridge_fits(b=27, n=15, q=3)
    weights = np.random.default_rng(0).uniform(size=14)
    learned = Shrinkage(weights=torch.from_numpy(weights), strength=0.3)
    found = effects(fits, asked, SquaredError(), learned)
    y, kept = asked.outcomes(SquaredError()).numpy(), fits.kept.numpy()

    def tau(where: np.ndarray) -> np.ndarray:
        prior = np.tensordot(weights, features(fits, asked, where), 1)
        return np.stack([ridge(kept[where], y[where, at], prior[at], 0.3) for at in range(3)])

    np.testing.assert_allclose(found.values, tau(np.arange(27)), atol=1e-8)
    each, predicted = [], np.zeros_like(y)
    for rest, held in folds(27):
        each.append(tau(rest))
        predicted[held] = -(kept[held] - kept.mean(0)) @ each[-1].T
    np.testing.assert_allclose(found.errors, np.sqrt(4 * np.var(each, axis=0)), atol=1e-8)
    expected = [spearmanr(predicted[:, at], y[:, at])[0] for at in range(3)]
    assert found.agreement == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_shrinkage_is_what_predicts_held_back_fits_best(seed: int) -> None:
    fits, _, _ = ridge_fits(b=40, n=12, d=2 + 3 * seed)
    fits.kept[:, 3] = (torch.arange(40) >= 9).double()  # nine fits are too few to divide by five
    fits.train[:, 5] = 1.0  # outcomes that do not vary
    learned = shrinkage(fits, SquaredError())
    kept, rows, actual, parts = fits.kept.numpy(), [], [], []
    for at in np.delete(np.arange(12), [3, 5]).tolist():
        out = np.flatnonzero(kept[:, at] == 0)
        query = Asked(
            outputs=fits.train[out][:, [at]],
            targets=fits.targets[[at]],
            points=None if fits.points is None else fits.points[[at]],
        )
        y = query.outcomes(SquaredError())[:, 0].numpy()
        size, y = y.std(ddof=1), y - y.mean()
        for rest, held in folds(len(out)):
            each = features(fits, query, out[rest], rest)[:, 0] / size
            change = kept[out[held]] - kept[out].mean(0)
            rows.append(-change @ each.T)
            actual.append(y[held] / size)
            parts.append((at, kept[out[rest]], y[rest] / size, each, change))
    weights = nnls(np.concatenate(rows), np.concatenate(actual))[0]
    np.testing.assert_allclose(learned.weights, weights, rtol=1e-6, atol=1e-9)

    def agreement(strength: float | None) -> float:
        predicted = []
        for _, inside, outcomes, each, change in parts:
            prior = weights @ each
            tau = prior if strength is None else ridge(inside, outcomes, prior, strength)
            predicted.append(-change @ tau)
        asked = np.concatenate(
            [np.full(len(y), at) for (at, *_), y in zip(parts, actual, strict=True)]
        )
        p, y = np.concatenate(predicted), np.concatenate(actual)
        return float(np.mean([spearmanr(p[asked == at], y[asked == at])[0] for at in set(asked)]))

    assert learned.strength == max((None, 3.0, 1.0, 0.3, 0.1), key=agreement)


def test_agreement_is_a_mean_rank_correlation_of_what_varies() -> None:
    g = np.random.default_rng(0)
    actual = g.normal(size=(40, 4)) + 5
    predicted = actual + g.normal(size=(40, 4))
    actual[:, 1] = 3 + 1e-12 * g.normal(size=40)
    predicted[:, 2] = 1.0
    mean, error = rank_agreement(predicted, actual)
    assert mean == pytest.approx(
        np.mean([spearmanr(predicted[:, q], actual[:, q])[0] for q in (0, 3)])
    )
    draws = [g.integers(0, 40, 40) for _ in range(500)]
    one, alone = rank_agreement(predicted[:, :1], actual[:, :1])
    assert one == pytest.approx(spearmanr(predicted[:, 0], actual[:, 0])[0])
    bootstrap = np.std([spearmanr(predicted[d, 0], actual[d, 0])[0] for d in draws])
    assert alone == pytest.approx(bootstrap, rel=0.25)
    assert error != alone
    assert rank_agreement(predicted[:, 1:3], actual[:, 1:3]) == (None, 0.0)
