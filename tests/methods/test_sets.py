"""Measures of a whole set of queries, against scikit-learn fitted without each row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from whence import measures
from whence.errors import InvalidInput, UnsupportedModel

Array = NDArray[Any]


class Problem:
    """A Gaussian problem of the size that pyinfluence tests its functionals on, with all refits."""

    def __init__(self, n: int, p: int, q: int, noise: float, model: Any, *, classes: bool) -> None:
        rng = np.random.default_rng(0)
        beta = rng.normal(size=p)
        x = rng.normal(size=(n + q, p))
        y = x @ beta + noise * rng.normal(size=n + q)
        y = (y > 0).astype(int) if classes else y
        self.groups = rng.choice(["f", "m"], q)
        x[n:, 0] += self.groups == "f"
        self.x, self.y, self.queries = x[:n], y[:n], (x[n:], y[n:])
        self.model = clone(model).fit(self.x, self.y)
        self.trained = whence.from_sklearn(self.model, self.x, self.y)
        self.rows = range(0, n, 6)
        self.before = self.predicted(self.model)
        self.after = [
            self.predicted(clone(model).fit(np.delete(self.x, i, 0), np.delete(self.y, i)))
            for i in self.rows
        ]

    def predicted(self, model: Any) -> Array:
        """Return what a model predicts of the queries: probabilities of 1, or numbers."""
        x, _ = self.queries
        return model.predict_proba(x)[:, 1] if hasattr(model, "predict_proba") else model.predict(x)

    def actual(self, of: Callable[[Array, Array], float]) -> Array:
        """Return M without each row less M, by scikit-learn: of predictions and targets."""
        _, y = self.queries
        return np.array([of(predicted, y) for predicted in self.after]) - of(self.before, y)


_LOGISTIC = LogisticRegression(tol=1e-10, max_iter=2000)


@pytest.fixture(scope="module")
def logistic() -> Problem:
    return Problem(150, 5, 200, 1.0, _LOGISTIC, classes=True)


@pytest.fixture(scope="module")
def scaled() -> Problem:
    return Problem(150, 4, 100, 1.0, make_pipeline(StandardScaler(), _LOGISTIC), classes=True)


@pytest.fixture(scope="module")
def ridge_problem() -> Problem:
    return Problem(100, 4, 80, 0.3, Ridge(), classes=False)


def gap(p: Array, groups: Array) -> float:
    return float(np.ptp([p[groups == name].mean() for name in np.unique(groups)]))


def cohens_d(p: Array, groups: Array) -> float:
    a, b = p[groups == "f"], p[groups == "m"]
    pooled = ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / (len(p) - 2)
    return float((a.mean() - b.mean()) / np.sqrt(pooled))


# A measure of queries in groups g, and the same by numpy and scikit-learn of p and y.
SMOOTH: dict[str, tuple[Callable[[Array], Any], Callable[[Array, Array, Array], float]]] = {
    "mean loss": (lambda g: "mean loss", lambda p, y, g: log_loss(y, p)),
    "parity": (measures.DemographicParity, lambda p, y, g: gap(p, g)),
    "opportunity": (measures.EqualOpportunity, lambda p, y, g: gap(p[y == 1], g[y == 1])),
    "false positives": (
        lambda g: measures.EqualOpportunity(g, outcome=0),
        lambda p, y, g: gap(p[y == 0], g[y == 0]),
    ),
    "calibration": (measures.Calibration, lambda p, y, g: gap(p - y, g)),
    "signed": (
        lambda g: measures.DemographicParity(g, between=("m", "f")),
        lambda p, y, g: float(p[g == "m"].mean() - p[g == "f"].mean()),
    ),
    "worst": (
        measures.WorstGroup,
        lambda p, y, g: max(log_loss(y[g == name], p[g == name]) for name in ("f", "m")),
    ),
    "d": (measures.CohensD, lambda p, y, g: cohens_d(p, g)),
    "a function": (
        lambda g: lambda f, y: torch.sigmoid(f[:, 0]).square().mean().sqrt(),
        lambda p, y, g: float(np.sqrt((p**2).mean())),
    ),
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("case", ["logistic", "scaled"])
def test_smooth_measures_follow_refits(
    name: str, case: str, request: pytest.FixtureRequest
) -> None:
    problem: Problem = request.getfixturevalue(case)
    make, by_hand = SMOOTH[name]
    measure = make(problem.groups)
    actual = problem.actual(lambda p, y: by_hand(p, y, problem.groups))
    bars = {"first": 0.99, "newton": 0.99, "refined": 0.99999}
    for order, bar in bars.items():
        scores = whence.influence(
            problem.trained, problem.queries, measure=measure, order=order, indices=problem.rows
        )
        assert scores.values.shape == (1, len(actual))
        assert np.corrcoef(scores.values[0], actual)[0, 1] >= bar, order
    np.testing.assert_allclose(scores.values[0], actual, atol=0.03 * abs(actual).max())
    refitted = whence.leave_one_out(problem.trained, [0, 6], problem.queries, measure=measure)
    np.testing.assert_allclose(refitted[0], actual[:2], atol=1e-6)


@pytest.mark.parametrize("case", ["logistic", "scaled"])
def test_rank_statistics_are_evaluated_at_predicted_outputs(
    case: str, request: pytest.FixtureRequest
) -> None:
    problem: Problem = request.getfixturevalue(case)
    x, y = problem.queries
    auroc = problem.actual(lambda p, y: float(roc_auc_score(y, p)))
    for order, bar in {"first": 0.95, "newton": 0.99, "refined": 0.99}.items():
        scores = whence.influence(
            problem.trained, (x, y), measure="auroc", order=order, indices=problem.rows
        )
        assert scores.measure == "AUROC"
        assert np.corrcoef(scores.values[0], auroc)[0, 1] >= bar, order
    right = problem.actual(lambda p, y: accuracy_score(y, p > 0.5))
    refined = whence.influence(
        problem.trained, (x, y), measure="accuracy", order="refined", indices=problem.rows
    )
    np.testing.assert_allclose(refined.values[0], right, atol=1e-12)
    by_user = lambda f, y: roc_auc_score(y.numpy(), f[:, 0].numpy())  # noqa: E731
    named = whence.influence(problem.trained, (x, y), measure="auroc")
    assert str(named).startswith(f"AUROC of all queries without each of {len(problem.x)} of")
    own = whence.influence(problem.trained, (x, y), measure=by_user)
    np.testing.assert_allclose(own.values, named.values, atol=1e-12)


def test_regression(ridge_problem: Problem) -> None:
    groups = ridge_problem.groups
    for measure, by_hand in (
        (measures.CohensD(groups), cohens_d),
        (measures.DemographicParity(groups), gap),
    ):
        actual = ridge_problem.actual(lambda p, y, of=by_hand: of(p, groups))
        found = whence.influence(
            ridge_problem.trained,
            ridge_problem.queries,
            measure=measure,
            indices=ridge_problem.rows,
        )
        assert np.corrcoef(found.values[0], actual)[0, 1] >= 0.99
        newton = whence.influence(
            ridge_problem.trained,
            ridge_problem.queries,
            measure=measure,
            order="newton",
            indices=ridge_problem.rows,
        )
        np.testing.assert_allclose(newton.values[0], actual, atol=1e-9)


def test_the_derivative_is_the_sum_over_queries(logistic: Problem) -> None:
    mean = whence.influence(logistic.trained, logistic.queries, measure="mean loss")
    each = whence.influence(logistic.trained, logistic.queries)
    np.testing.assert_allclose(mean.values[0], each.values.mean(0), atol=1e-14)


def test_several_classes() -> None:
    x, y = load_wine(return_X_y=True)
    x = x[:, [1, 2, 4]]  # columns by which the classes overlap: else the AUROC is 1, and stays 1
    x = (x - x.mean(0)) / x.std(0)
    model = LogisticRegression(C=0.05, tol=1e-10, max_iter=5000)
    train, test = np.arange(0, 178, 2), np.arange(1, 178, 2)
    trained = whence.from_sklearn(clone(model).fit(x[train], y[train]), x[train], y[train])
    groups = x[test, 2] > 0
    parity = measures.DemographicParity(groups, positive=2)
    auroc = measures.AUROC(positive=2)
    rows = range(0, 89, 4)

    def values(fitted: Any) -> list[float]:
        p = fitted.predict_proba(x[test])[:, 2]
        return [gap(p, groups), roc_auc_score(y[test] == 2, p)]

    kept = [np.delete(train, i) for i in rows]
    actual = np.array([values(clone(model).fit(x[k], y[k])) for k in kept])
    actual = (actual - values(clone(model).fit(x[train], y[train]))).T
    for measure, expected, bar in ((parity, actual[0], 0.99), (auroc, actual[1], 0.95)):
        for order in ("first", "refined"):
            scores = whence.influence(
                trained, (x[test], y[test]), measure=measure, order=order, indices=rows
            )
            assert np.corrcoef(scores.values[0], expected)[0, 1] >= bar
    with pytest.raises(InvalidInput, match="positive="):
        whence.influence(trained, (x[test], y[test]), measure="auroc")


def test_groups_edits_and_inputs(logistic: Problem) -> None:
    trained, queries = logistic.trained, logistic.queries
    group = list(range(20))
    parity = measures.DemographicParity(logistic.groups)
    fresh = clone(logistic.model).fit(logistic.x[20:], logistic.y[20:])
    before, after = (
        gap(model.predict_proba(queries[0])[:, 1], logistic.groups)
        for model in (logistic.model, fresh)
    )
    refit = whence.group_effect(trained, group, queries, measure=parity, order="refit")
    assert refit == pytest.approx(after - before, abs=1e-7)
    assert whence.group_effect(trained, group, queries, measure=parity) == pytest.approx(
        refit, rel=0.05
    )
    first = whence.group_effect(trained, group, queries, measure=parity, order="first")
    scores = whence.influence(trained, queries, measure=parity, indices=group)
    assert first == pytest.approx(scores.values.sum(), rel=1e-10)
    flipped = logistic.y.copy()
    flipped[3] = 1 - flipped[3]
    edited = clone(logistic.model).fit(logistic.x, flipped)
    moved = gap(edited.predict_proba(queries[0])[:, 1], logistic.groups) - before
    new = logistic.x[3], flipped[3]
    for order, rel in (("refined", 1e-2), ("refit", 1e-3)):
        found = whence.edit(trained, 3, *new, queries, measure=parity, order=order)
        assert found == pytest.approx(moved, rel=rel)
    slope = whence.perturbation(trained, [3], queries, measure=parity)[0]
    step = 1e-4 * slope / np.linalg.norm(slope)
    nudged = logistic.x.copy()
    nudged[3] += step
    finite = gap(
        clone(logistic.model).fit(nudged, logistic.y).predict_proba(queries[0])[:, 1],
        logistic.groups,
    )
    assert finite - before == pytest.approx(slope @ step, rel=1e-2)


def test_a_removal_curve_splits_the_groups_with_the_queries(logistic: Problem) -> None:
    trained, queries = logistic.trained, logistic.queries
    parity = measures.DemographicParity(logistic.groups)
    curve = whence.removal_curve(trained, queries, measure=parity, fractions=[0.1], seed=1)
    judging = np.random.default_rng(1).permutation(200)[100:]
    p = logistic.model.predict_proba(queries[0][judging])[:, 1]
    assert curve.helpful[0] == pytest.approx(gap(p, logistic.groups[judging]), abs=1e-8)
    assert curve.harmful[1] < curve.random[:, 1].min()
    assert curve.helpful[1] > curve.random[:, 1].max()
    assert str(curve).startswith("Demographic parity gap of other queries")


def test_a_network_through_its_training() -> None:
    torch.manual_seed(0)
    x = torch.randn(130, 3, dtype=torch.float64)
    y = x @ torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)
    y = (y + 0.5 * torch.randn(130, dtype=torch.float64) > 0).long()
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    recipe = whence.Recipe(learning_rate=0.2, batch_size=100, epochs=60, dtype=torch.float64)
    run = whence.train(net.double(), whence.CrossEntropy(), (x[:100], y[:100]), recipe)
    queries, groups = (x[100:], y[100:]), (x[100:, 0] > 0).numpy()
    rows = range(0, 100, 9)
    for measure, bar in (
        (measures.DemographicParity(groups), 0.99),
        (measures.CohensD(groups), 0.99),
        (lambda f, y: (f[:, 1] - f[:, 0]).std(), 0.99),
    ):
        actual = whence.leave_one_out(run, rows, queries, measure=measure)
        found = whence.Metagradient().fit(run).scores(queries, measure=measure, indices=rows)
        assert np.corrcoef(found.values[0], actual[0])[0, 1] >= bar


def test_trees_and_models_known_by_their_predictions(logistic: Problem) -> None:
    x, y, queries = logistic.x, logistic.y, logistic.queries
    parity = measures.DemographicParity(logistic.groups)
    forest = RandomForestClassifier(20, max_depth=3, bootstrap=False, random_state=0).fit(x, y)
    trained = whence.from_sklearn(forest, x, y)
    found = whence.ForestWeights().fit(trained).scores(queries, measure=parity, indices=[4])
    f, without = trained.outputs(trained.examples(queries)), []
    for c in range(f.shape[1]):
        one = whence.ForestWeights().fit(trained)
        scores = one.scores(queries, measure=lambda f, y, c=c: f[:, c], indices=[4])
        without.append(f[:, c].numpy() + scores.values[:, 0])
    p = torch.stack([torch.from_numpy(column) for column in without], 1)
    loss, targets = trained.loss, trained.examples(queries).targets
    expected = parity.value(p, targets, loss) - parity.value(f, targets, loss)
    assert found.values[0, 0] == pytest.approx(float(expected), abs=1e-12)

    boosted = whence.from_sklearn(HistGradientBoostingClassifier(max_iter=10).fit(x, y), x, y)
    own = whence.Boosting(ensemble=0).fit(boosted)
    mean = own.scores(queries, measure="mean loss").values[0]
    np.testing.assert_allclose(mean, own.scores(queries).values.mean(0), atol=1e-9)

    bayes = whence.from_sklearn(GaussianNB().fit(x, y), x, y)
    actual = whence.leave_one_out(bayes, [0, 1, 2], queries, measure="auroc")
    refits = [GaussianNB().fit(np.delete(x, i, 0), np.delete(y, i)) for i in range(3)]
    scores = [roc_auc_score(queries[1], m.predict_proba(queries[0])[:, 1]) for m in refits]
    whole = roc_auc_score(queries[1], GaussianNB().fit(x, y).predict_proba(queries[0])[:, 1])
    np.testing.assert_allclose(actual[0], np.array(scores) - whole, atol=1e-12)
    retrained = whence.Retrained(fits=80).fit(bayes).scores(queries, measure=parity)
    assert (
        np.corrcoef(retrained.values[0, :60], bayes_gap(x, y, queries, logistic.groups))[0, 1] > 0.5
    )

    neighbors = whence.from_sklearn(KNeighborsClassifier(5).fit(x, y), x, y)
    with pytest.raises(UnsupportedModel, match="LeaveOneOut"):
        whence.KNNShapley().fit(neighbors).scores(queries, measure="auroc")


def bayes_gap(x: Array, y: Array, queries: tuple[Array, Array], groups: Array) -> Array:
    def value(rows: Array) -> float:
        return gap(GaussianNB().fit(x[rows], y[rows]).predict_proba(queries[0])[:, 1], groups)

    everyone = np.arange(len(x))
    return np.array([value(np.delete(everyone, i)) for i in range(60)]) - value(everyone)


def test_what_cannot_be_measured(logistic: Problem) -> None:
    trained, (x, y) = logistic.trained, logistic.queries

    def refused(measure: Any, match: str) -> None:
        with pytest.raises(InvalidInput, match=match):
            whence.influence(trained, (x, y), measure=measure, indices=[0])

    refused(measures.DemographicParity(logistic.groups[:7]), "Got 7 groups")
    refused(measures.DemographicParity(np.zeros(200)), "at least two groups")
    refused(measures.DemographicParity([None, *logistic.groups[1:]]), "missing")
    refused(measures.DemographicParity(logistic.groups, between=("m", "x")), "'x'")
    refused(measures.EqualOpportunity(y + 2 * (logistic.groups == "m")), "Got none in group")
    refused(measures.CohensD(np.arange(200) % 3), "Name two")
    refused(lambda f, y: f[y == 7].mean(), "finite")
    refused(measures.OfSet(lambda f, y: f[:, 0]), "one number")
    refused(measures.OfSet(lambda f, y: f.detach().sum()), "differentiable")
    refused(measures.AUROC, "Expected measure")
    refused(lambda f, y: f[:3], "one value per example")
    with pytest.raises(InvalidInput, match="positive class and others"):
        whence.influence(trained, (x[y == 1], y[y == 1]), measure="auroc", indices=[0])
    with pytest.raises(InvalidInput, match="measure of a set"):
        whence.explain(trained, (x[:1], y[:1]), measure=measures.Mean())
