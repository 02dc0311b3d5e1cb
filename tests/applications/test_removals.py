"""Removal curves against scikit-learn fitted on what is left, and scores over several trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

import whence
from whence.errors import InvalidInput


def test_every_point_is_a_refit_on_what_is_left() -> None:
    x, y = load_diabetes(return_X_y=True)
    model = Ridge(alpha=0.1).fit(x[:300], y[:300])
    objective = whence.from_sklearn(model, x[:300], y[:300])
    queries = x[300:340], y[300:340]
    curve = whence.removal_curve(objective, queries, fractions=[0.02, 0.1], seed=3)
    assert curve.removed.tolist() == [0, 6, 30]
    order = np.random.default_rng(3).permutation(40)
    choosing, judging = order[:20], order[20:]
    scores = whence.influence(objective, (queries[0][choosing], queries[1][choosing]))
    ranking = np.argsort(-scores.values.mean(0), kind="stable")
    for at, count in enumerate(curve.removed):
        for side, found in ((ranking, curve.helpful), (ranking[::-1], curve.harmful)):
            kept = np.setdiff1d(np.arange(300), side[:count])
            fresh = clone(model).fit(x[kept], y[kept])
            loss = (fresh.predict(queries[0][judging]) - queries[1][judging]) ** 2 / 2
            assert found[at] == pytest.approx(loss.mean(), rel=1e-8)
    draw = np.random.default_rng(3)
    draw.permutation(40)
    at_random = [draw.permutation(300) for _ in range(5)]
    assert curve.random.shape == (5, 3)
    assert curve.random[:, 0] == pytest.approx(curve.helpful[0])
    for row, column in ((0, 1), (2, 2), (4, 1)):
        kept = np.setdiff1d(np.arange(300), at_random[row][: curve.removed[column]])
        fresh = clone(model).fit(x[kept], y[kept])
        loss = (fresh.predict(queries[0][judging]) - queries[1][judging]) ** 2 / 2
        assert curve.random[row, column] == pytest.approx(loss.mean(), rel=1e-8)
    frame = curve.to_frame()
    np.testing.assert_allclose(frame["fraction"], [0, 0.02, 0.1])
    np.testing.assert_allclose(frame["random_spread"], np.std(curve.random, axis=0, ddof=1))
    assert "random_spread" in str(curve)
    assert str(curve).startswith("Mean loss of other queries")
    first, second, third = (line.get_xydata().T for line in curve.plot().lines[:3])
    np.testing.assert_allclose(first, [[0, 2, 10], curve.helpful])
    np.testing.assert_allclose(second[1], curve.harmful)
    np.testing.assert_allclose(third[1], curve.random.mean(0))


def test_the_solver_and_damping_asked_for_rank_the_removals() -> None:
    """With κ(H + λI) = 5 one step of conjugate gradients leaves < 0.9 of any residual: there it
    stops, at the step of steepest descent."""
    x, y = load_diabetes(return_X_y=True)
    x *= 20
    model = Ridge(alpha=0.1).fit(x[:60], y[:60])
    objective = whence.from_sklearn(model, x[:60], y[:60])
    design = np.c_[x[:100], np.ones(100)]
    residuals = design @ np.r_[model.coef_, model.intercept_] - y[:100]
    hessian = design[:60].T @ design[:60] / 60 + np.diag([*[0.1 / 60] * 10, 0])
    damping = float(np.linalg.eigvalsh(hessian)[-1]) / 4
    order = 60 + np.random.default_rng(0).permutation(40)
    choosing, judging = order[:20], order[20:]
    right = design[choosing].T @ residuals[choosing] / 20
    curved = hessian + damping * np.eye(11)
    step = right * (right @ right) / (right @ curved @ right)
    ranking = np.argsort(-residuals[:60] * (design[:60] @ step), kind="stable")
    usual = whence.removal_curve(objective, (x[60:100], y[60:100]), fractions=[0.1, 0.3])
    damped = whence.removal_curve(
        objective, (x[60:100], y[60:100]), fractions=[0.1, 0.3], damping=damping
    )
    curve = whence.removal_curve(
        objective,
        (x[60:100], y[60:100]),
        fractions=[0.1, 0.3],
        solver=whence.CG(rtol=0.9),
        damping=damping,
    )
    for at, count in enumerate((0, 6, 18)):
        for side, found in ((ranking, curve.helpful), (ranking[::-1], curve.harmful)):
            kept = np.setdiff1d(np.arange(60), side[:count])
            fresh = clone(model).fit(x[kept], y[kept])
            loss = (fresh.predict(x[judging]) - y[judging]) ** 2 / 2
            assert found[at] == pytest.approx(loss.mean(), rel=1e-8)
    exact = np.argsort(-residuals[:60] * (design[:60] @ np.linalg.solve(curved, right)))
    kept = np.setdiff1d(np.arange(60), exact[:18])
    loss = (clone(model).fit(x[kept], y[kept]).predict(x[judging]) - y[judging]) ** 2 / 2
    assert damped.helpful[2] == pytest.approx(loss.mean(), rel=1e-8)
    assert len({usual.helpful[2], damped.helpful[2], curve.helpful[2]}) == 3


@pytest.mark.parametrize("fractions", [[], [0.5, 0.1], [0.0001], [1.0]])
def test_fractions_that_remove_nothing_or_all(fractions: list[float]) -> None:
    x, y = load_diabetes(return_X_y=True)
    objective = whence.from_sklearn(Ridge().fit(x[:100], y[:100]), x[:100], y[:100])
    with pytest.raises(InvalidInput, match="fractions"):
        whence.removal_curve(objective, (x[100:120], y[100:120]), fractions=fractions)
    with pytest.raises(InvalidInput, match="at least 4 queries"):
        whence.removal_curve(objective, (x[100:103], y[100:103]))


def runs(noise: float) -> list[whence.Trained]:
    torch.manual_seed(0)
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 3
    start = torch.nn.Linear(4, 3).double()
    found: list[whence.Trained] = []
    for seed in range(4):
        model = torch.nn.Linear(4, 3).double()
        with torch.no_grad():
            for parameter, own in zip(model.parameters(), start.parameters(), strict=True):
                parameter.copy_(own + noise * torch.randn_like(own))
        recipe = whence.Recipe(
            learning_rate=0.1, batch_size=30, epochs=3, seed=seed, dtype=torch.float64
        )
        found.append(whence.train(model, whence.CrossEntropy(), (x, y), recipe))
    return found


def test_trainings_that_are_the_same_agree_on_everything() -> None:
    same = runs(0.0)
    queries = (torch.ones(2, 4, dtype=torch.float64), torch.tensor([0, 1]))
    found = whence.stability(same, queries, k=5, method=whence.TracIn())
    assert found.again.tolist() == [1, 1]
    assert found.resolved.all()
    np.testing.assert_allclose(found.low, found.high, atol=1e-12)
    assert found.to_frame(1)["sign_is_clear"].all()


def test_a_page_says_whether_other_trainings_name_the_same_examples(tmp_path: Path) -> None:
    query = (torch.ones(1, 4, dtype=torch.float64), torch.tensor([0]))
    for spread, words in ((0.0, "name the same examples"), (5.0, "name other examples")):
        several = runs(spread)
        explained = whence.explain(several[0], query, k=3, method=whence.TracIn())
        found = whence.stability(several, query, k=5, method=whence.TracIn())
        assert bool(found.resolved[0]) == (spread == 0)
        page = explained.report(tmp_path / "page.html", stability=found)
        assert words in page.read_text(encoding="utf-8")
    pair = query[0].repeat(2, 1), torch.tensor([0, 1])
    two = whence.stability(several, pair, method=whence.TracIn())
    with pytest.raises(InvalidInput, match="of one query"):
        explained.report(tmp_path / "page.html", stability=two)


def test_intervals_cover_another_training() -> None:
    several = runs(1.0)
    queries = (torch.randn(3, 4, dtype=torch.float64), torch.tensor([0, 1, 2]))
    found = whence.stability(several, queries, k=5, method=whence.TracIn())
    assert (found.high > found.low).all()
    frame, where = found.to_frame(2), found.mean.largest(5).positions[2]
    np.testing.assert_array_equal(
        frame[["low", "high"]].T, [found.low[2, where], found.high[2, where]]
    )
    assert (frame["sign_is_clear"] == (found.low[2, where] * found.high[2, where] > 0)).all()
    nothing = replace(found, mean=replace(found.mean, values=0 * found.mean.values))
    nothing = replace(nothing, low=0 * found.low, high=0 * found.high)
    assert not nothing.to_frame()["sign_is_clear"].any()
    lists = [whence.tracin(run, queries).largest(5).positions for run in several]
    first = np.argsort(-np.abs(found.mean.values), axis=1, kind="stable")[:, :5]
    shared = [[len({*one[q]} & {*first[q]}) / 5 for q in range(3)] for one in lists]
    np.testing.assert_allclose(found.again, np.mean(shared, axis=0))
    certain = replace(found, again=np.array([0.79, 0.8, 0.9]))
    assert certain.resolved.tolist() == [False, True, True]
    assert str(certain).startswith("Of 3 queries, 2 have a list of 5 that 4 trainings agree on")
    assert found.again.mean() < 1
    each = [whence.tracin(run, queries).values for run in several]
    np.testing.assert_allclose(found.mean.values, np.mean(each, axis=0))
    half = 3.182446305284263 * np.std(each, axis=0, ddof=1) / 2  # t of 3 degrees of freedom
    np.testing.assert_allclose(found.high - found.mean.values, half)
    with pytest.raises(InvalidInput, match="at least 2 models"):
        whence.stability(several[:1], queries)


def test_a_recorded_training_is_repeated_in_the_orders_of_other_seeds() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 3
    start = torch.nn.Linear(4, 3).double()

    def trained(seed: int) -> whence.Run:
        recipe = whence.Recipe(learning_rate=0.1, batch_size=7, epochs=3, seed=seed)
        return whence.train(start, whence.CrossEntropy(), (x, y), recipe)

    found = whence.stability(trained(0), (x[:3], y[:3]), seeds=(7, 9), method=whence.TracIn())
    by_hand = [trained(seed) for seed in (0, 7, 9)]
    expected = whence.stability(by_hand, (x[:3], y[:3]), method=whence.TracIn())
    np.testing.assert_array_equal(found.mean.values, expected.mean.values)
    assert (found.high > found.low).all()
