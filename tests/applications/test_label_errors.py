"""Label errors: the ranking against its definition, suggestions against refits, gains too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import (
    GammaRegressor,
    HuberRegressor,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.svm import SVC, SVR, LinearSVC

import whence
from whence.applications.label_errors import find_label_errors
from whence.errors import InvalidInput, NotConvergedWarning, UnsupportedModel
from whence.evaluation import detection_curve
from whence.methods import loo_loss

MODEL = LogisticRegression(C=0.3, tol=1e-12, max_iter=10_000, solver="newton-cg")


def flipped_wine() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wine with one label in ten wrong, names as labels, and which."""
    x, y = load_wine(return_X_y=True)
    rng = np.random.default_rng(0)
    wrong = rng.permutation(len(y)) < 18
    y = np.where(wrong, (y + rng.integers(1, 3, len(y))) % 3, y)
    return scale(x), np.array(["barolo", "grignolino", "barbera"])[y], wrong


def test_wrong_labels_come_first_and_right_ones_are_suggested() -> None:
    x, y, wrong = flipped_wine()
    truth = np.array(["barolo", "grignolino", "barbera"])[load_wine().target]
    errors = find_label_errors(whence.from_sklearn(clone(MODEL).fit(x, y), x, y))
    assert detection_curve(errors.scores, wrong).auc > 0.95
    assert str(errors).startswith("178 training examples by held-out loss")
    assert len(str(errors).splitlines()) == 22
    assert repr(errors) == "<LabelErrors: 178 training examples by held-out loss>"
    frame = errors.to_frame()
    assert frame["id"].tolist() == errors.ranking.tolist()
    found = frame[wrong[frame["position"]]]
    assert (found["suggested"] == truth[found["position"]]).mean() > 0.8
    assert (frame["suggested"] != frame["label"]).all()
    told = frame["agrees"].to_numpy(dtype=bool)
    assert told[wrong[frame["position"]]].mean() < 0.1
    assert told[~wrong[frame["position"]]].mean() > 0.9
    assert frame["gain"].isna().all()
    assert "gain" not in str(errors)


@pytest.mark.parametrize("method", ["self_influence", "loss"])
def test_ranked_by_the_definition(method: str) -> None:
    x, y, _ = flipped_wine()
    model = clone(MODEL).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    errors = find_label_errors(objective, method=method, k=5)
    p = model.predict_proba(x)
    losses = -np.log(p[np.arange(len(y)), np.searchsorted(model.classes_, y)])
    own = whence.self_influence(objective)
    expected = own if method == "self_influence" else losses
    np.testing.assert_allclose(errors.scores, expected, atol=1e-12)
    assert (np.diff(expected[errors.ranking]) <= 0).all()
    np.testing.assert_allclose(errors.loss, losses, atol=1e-12)
    assert errors.to_frame()["suggested"].notna().sum() == 5


def test_the_held_out_loss_is_that_of_a_model_trained_without() -> None:
    x, y, wrong = flipped_wine()
    model = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(scale(x), y)
    objective = whence.from_sklearn(model, scale(x), y)
    errors = find_label_errors(objective, method="held_out_loss", penalty="fitted", k=5)
    assert detection_curve(errors.scores, wrong).auc > 0.95
    actual = []
    for at in errors.ranking[:10]:
        keep = np.arange(len(y)) != at
        p = clone(model).fit(scale(x)[keep], y[keep]).predict_proba(scale(x)[[at]])[0]
        actual.append(-np.log(p[np.searchsorted(model.classes_, y[at])]))
    first = errors.ranking[:10]
    np.testing.assert_allclose(errors.scores[first], actual, rtol=0.1)
    assert (np.abs(errors.loss[first] / actual - 1) > 0.1).all()


def held_out_losses(model: LogisticRegression, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The loss of each example under a model refitted without it, the 1/n kept: the same C."""
    losses = []
    for at in range(len(y)):
        keep = np.arange(len(y)) != at
        p = clone(model).fit(x[keep], y[keep]).predict_proba(x[[at]])[0]
        losses.append(-np.log(p[np.searchsorted(model.classes_, y[at])]))
    return np.array(losses)


@pytest.mark.parametrize("kind", ["binary", "wide", "classes", "sparse"])
def test_the_best_penalty_is_where_refits_without_each_predict_best(kind: str) -> None:
    x, y = load_wine(return_X_y=True)
    x, y = scale(x)[::5], y[::5].copy()
    y[[2, 11, 20, 31]] = (y[[2, 11, 20, 31]] + 1) % 3
    if kind != "classes":
        y = (y == 1).astype(int)
    if kind == "wide":
        x = np.hstack([x, np.random.default_rng(0).normal(size=(len(x), 60))])
    rows = sparse.csr_array(np.where(np.abs(x) > 0.5, x, 0)) if kind == "sparse" else x
    n, fitted = len(y), 1e-3
    models = {
        factor: LogisticRegression(
            C=1 / (fitted * factor * n), tol=1e-9, max_iter=10_000, solver="newton-cg"
        ).fit(rows, y)
        for factor in (1.0, 10.0, 100.0, 1e3)
    }
    errors = find_label_errors(whence.from_sklearn(models[1.0], rows, y))
    assert errors.method == "held_out_loss"
    actual = {factor: held_out_losses(model, rows, y) for factor, model in models.items()}
    assert errors.penalty == min(actual, key=lambda factor: float(actual[factor].mean())) > 1
    there = whence.from_sklearn(models[errors.penalty], rows, y)
    np.testing.assert_allclose(errors.objective.params, there.params, atol=0.02)
    twin = find_label_errors(there, penalty="fitted")
    np.testing.assert_allclose(errors.scores, twin.scores, rtol=0.05, atol=0.01)
    np.testing.assert_allclose(errors.scores, actual[errors.penalty], rtol=0.2, atol=0.05)


def test_a_penalty_is_lowered_where_that_predicts_better() -> None:
    x, y = load_wine(return_X_y=True)
    x = scale(x)
    model = LogisticRegression(C=1e-4, tol=1e-10, max_iter=10_000).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    errors = find_label_errors(objective)
    assert errors.penalty < 1
    fitted = find_label_errors(objective, method="held_out_loss", penalty="fitted")
    assert fitted.penalty == 1
    assert errors.scores.mean() < fitted.scores.mean()


def test_weights_of_zero_do_not_choose_the_penalty() -> None:
    x, y, _ = flipped_wine()
    weights = np.where(np.arange(len(y)) % 3 == 0, 0.0, 2.0)
    model = clone(MODEL).fit(x, y, sample_weight=weights)
    kept = weights > 0
    alone = LogisticRegression(C=2 * MODEL.C, tol=1e-12, max_iter=10_000, solver="newton-cg")
    whole = find_label_errors(whence.from_sklearn(model, x, y, sample_weight=weights))
    part = find_label_errors(whence.from_sklearn(alone.fit(x[kept], y[kept]), x[kept], y[kept]))
    assert whole.penalty == part.penalty
    np.testing.assert_allclose(whole.scores[kept], part.scores, rtol=0.02, atol=1e-3)


def test_the_default_for_a_model_without_a_penalty_is_self_influence() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x = scale(x)[:, :2]
    free = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(x, y)
    assert find_label_errors(whence.from_sklearn(free, x, y)).method == "self_influence"


def test_the_default_for_a_hinge_is_the_held_out_loss_at_the_fitted_penalty() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    model = LinearSVC(loss="hinge", C=0.05, tol=1e-8, max_iter=10**6).fit(scale(x)[:90], y[:90])
    objective = whence.from_sklearn(model, scale(x)[:90], y[:90], temperature=0.1)
    errors = find_label_errors(objective)
    assert errors.method == "held_out_loss"
    assert errors.penalty == 1
    with pytest.raises(UnsupportedModel, match="penalty='fitted'"):
        find_label_errors(objective, penalty="best")


def test_a_large_model_is_ranked_by_self_influence(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = flipped_wine()
    objective = whence.from_sklearn(clone(MODEL).fit(x, y), x, y)
    assert find_label_errors(objective, k=0).method == "held_out_loss"
    monkeypatch.setattr("whence.methods.loo_loss._A_MINUTE", 1e6)
    errors = find_label_errors(objective, k=0)
    assert (errors.method, errors.penalty) == ("self_influence", 1)


@pytest.mark.parametrize("kind", ["classes", "hinge", "regression"])
def test_what_takes_a_minute_follows_its_size(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = flipped_wine()
    model = {
        "classes": clone(MODEL),
        "hinge": LinearSVC(loss="hinge", C=0.05, tol=1e-8, max_iter=10**6),
        "regression": Ridge(),
    }[kind]
    y = y if kind == "classes" else x[:, 0] > 0
    objective = whence.from_sklearn(model.fit(x, y), x, y)
    n, p, c = len(x), len(objective.params), 2 if kind == "classes" else 1  # type: ignore[attr-defined]
    monkeypatch.setattr(loo_loss, "_SAMPLE", 50)
    work = 4 * (n * p**2 + p**3) + 2 * p**2 * c * (n + 4 * 50)
    for allowed, expected in ((work, True), (work - 1, False)):
        monkeypatch.setattr(loo_loss, "_A_MINUTE", allowed)
        assert loo_loss.quick(objective) == expected


def test_a_network_held_out_is_asked_as_fitted() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator)
    y = (x[:, 0] > 0).long()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y), l2=1e-2)
    with pytest.warns(NotConvergedWarning):
        errors = find_label_errors(objective, method="held_out_loss")
    own = whence.self_influence(objective)
    np.testing.assert_allclose(errors.self_influence, own, rtol=1e-5)
    each = whence.influence(objective, (x, y), order="newton").values.diagonal()
    np.testing.assert_allclose(errors.scores, errors.loss + each, rtol=1e-4, atol=1e-6)
    assert errors.penalty == 1
    with pytest.raises(UnsupportedModel, match="penalty='fitted'"):
        find_label_errors(objective, penalty="best")


def test_a_large_network_is_ranked_by_its_loss_without_a_solve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 1).long()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    monkeypatch.setattr("whence.methods.loo_loss.SMALL", 10)
    errors = find_label_errors(objective, k=9)
    assert errors.method == "loss"
    assert errors.self_influence is None
    assert "solver=whence.EKFAC()" in errors.diagnostics.notes[-1]
    outputs = model(x)
    expected = torch.nn.functional.cross_entropy(outputs, y, reduction="none").detach().numpy()
    np.testing.assert_allclose(errors.scores, expected, rtol=1e-6)
    first = errors.ranking[:9]
    assert (errors.suggested != y[first]).all()
    other = outputs[first].scatter(1, y[first].unsqueeze(1), -torch.inf).argmax(1)
    assert errors.suggested.tolist() == other.tolist()
    assert len(find_label_errors(objective, k=0).suggested) == 0


def test_suggestions_are_what_a_model_without_the_example_says() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y = scale(x)[:100], y[:100]
    y[[3, 20, 70]] ^= 1
    model = LogisticRegression(C=1000.0, tol=1e-10, max_iter=10_000).fit(x, y)
    # Fitted this closely the model repeats the labels it was given, the wrong ones too.
    assert (model.predict(x) == y).all()
    errors = find_label_errors(
        whence.from_sklearn(model, x, y), method="self_influence", penalty="fitted", k=20
    )
    agree = 0
    first = zip(errors.ranking[:20], errors.suggested.numpy(), errors.agrees, strict=True)
    for at, suggested, agrees in first:
        keep = np.arange(len(y)) != at
        again = clone(model).fit(x[keep], y[keep]).predict(x[[at]])[0]
        agree += int((again == suggested) != agrees)
        assert suggested != y[at]
    assert agree >= 18
    assert {3, 20, 70} <= set(errors.ranking[:20].tolist())
    assert not errors.agrees.all()


def test_gain_is_what_correcting_brings() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x = scale(x)
    train, held = slice(0, 400), slice(400, None)
    y_train = y[train].copy()
    y_train[::25] ^= 1
    model = LogisticRegression(C=0.05, tol=1e-12, max_iter=10_000).fit(x[train], y_train)
    queries = x[held], y[held]
    objective = whence.from_sklearn(model, x[train], y_train)
    errors = find_label_errors(objective, method="self_influence", queries=queries, k=12)
    assert errors.gain is not None
    column = errors.to_frame()["gain"]
    assert "gain" in str(errors)
    np.testing.assert_array_equal(column[:12], errors.gain)
    assert column[12:].isna().all()
    assert len(column) == 400

    def loss(fitted: LogisticRegression) -> float:
        p = fitted.predict_proba(x[held])
        return float(-np.log(p[np.arange(len(p)), y[held]]).mean())

    actual = []
    for at, suggested in zip(errors.ranking[:12], errors.suggested.numpy(), strict=True):
        corrected = y_train.copy()
        corrected[at] = suggested
        actual.append(loss(model) - loss(clone(model).fit(x[train], corrected)))
    changed = np.array(actual) != 0
    assert changed.sum() >= 8
    assert np.corrcoef(errors.gain, actual)[0, 1] > 0.99
    assert np.polyfit(errors.gain[changed], np.array(actual)[changed], 1)[0] == pytest.approx(
        1, abs=0.15
    )


def test_a_page_shows_all_rows_that_it_calls_worth_a_look(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 3))
    y = (x[:, 0] > 0) ^ (generator.random(400) < 0.4)
    model = LogisticRegression(tol=1e-8).fit(x, y)
    errors = whence.find_label_errors(whence.from_sklearn(model, x, y))
    page = errors.report(tmp_path / "page.html").read_text("utf-8")
    assert errors.wrong is not None
    assert errors.wrong.worth_a_look > 100
    assert f"{errors.wrong.worth_a_look} of 400 training examples" in page
    assert "are shown here" not in page
    assert "30 are shown here" in errors.report(tmp_path / "page.html", rows=30).read_text("utf-8")


def test_svm_and_page(tmp_path: Path) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y = scale(x)[:120], np.where(y[:120] == 1, "benign", "malignant")
    y[5] = "benign" if y[5] == "malignant" else "malignant"
    model = LinearSVC(loss="hinge", C=0.05, tol=1e-8, max_iter=10**6).fit(x, y)
    objective = whence.from_sklearn(model, x, y, temperature=0.1)
    errors = find_label_errors(objective, queries=(x[:9], y[:9]))
    texts = [f"tumor <{i}>" for i in range(120)]
    page = errors.report(tmp_path / "page.html", rows=7, texts=texts).read_text()
    top = int(errors.ranking[0])
    assert f"tumor \\u003c{top}\\u003e" in page or f"tumor &lt;{top}&gt;" in page
    assert page.count("Training example ") == 7 or "Training example" in page
    assert "malignant" in page
    with pytest.raises(InvalidInput, match="texts"):
        errors.report(tmp_path / "page.html", texts=["one"])
    with pytest.raises(InvalidInput, match="rows"):
        errors.report(tmp_path / "page.html", rows=0)


def test_refused() -> None:
    x, y = load_diabetes(return_X_y=True)
    regression = whence.from_sklearn(Ridge().fit(x, y), x, y)
    with pytest.raises(UnsupportedModel, match="classifier for method='class_adjusted'"):
        find_label_errors(regression, method="class_adjusted")
    sequences = torch.zeros(6, 4).long(), torch.zeros(6, 4).long()
    torch.manual_seed(0)
    language = whence.from_torch(
        torch.nn.Embedding(3, 3), whence.CrossEntropy(), sequences, l2=1e-2
    )
    with pytest.raises(UnsupportedModel, match="self_influence"):
        find_label_errors(language)
    svm = whence.from_sklearn(LinearSVC(C=0.01).fit(x, y > 140), x, y > 140)
    with pytest.raises(UnsupportedModel, match="probabilities of classes"):
        find_label_errors(svm, method="class_adjusted")
    x, y, _ = flipped_wine()
    objective = whence.from_sklearn(clone(MODEL).fit(x, y), x, y)
    with pytest.raises(InvalidInput, match="method"):
        find_label_errors(objective, method="entropy")
    with pytest.raises(InvalidInput, match="penalty"):
        find_label_errors(objective, penalty="strong")
    with pytest.raises(InvalidInput, match="k >= 0"):
        find_label_errors(objective, k=-1)
    assert len(find_label_errors(objective, k=0).suggested) == 0


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_wrong_labels_of_a_support_vector_machine(kernel: str) -> None:
    """By the held-out margin: self-influence is blind where the hinge is flat."""
    x, y = load_breast_cancer(return_X_y=True)
    x, rng = scale(x)[:300], np.random.default_rng(0)
    flipped = rng.choice(300, 30, replace=False)
    labels = y[:300].copy()
    labels[flipped] = 1 - labels[flipped]
    objective = whence.from_sklearn(SVC(kernel=kernel).fit(x, labels), x, labels)

    def found(**options: Any) -> float:
        first = whence.find_label_errors(objective, k=0, **options).ranking[:30]
        return len(np.intersect1d(first, flipped)) / 30

    assert found() > 0.75
    assert found() > found(method="self_influence") + 0.2


def wrong_numbers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Diabetes with 500 added to one target in ten, and which."""
    x, y = load_diabetes(return_X_y=True)
    wrong = np.random.default_rng(0).permutation(120) < 12
    return x[:120], y[:120] + 500 * wrong, wrong


@pytest.mark.parametrize(
    "model",
    [
        LinearRegression(),
        make_pipeline(StandardScaler(), Ridge()),
        PoissonRegressor(alpha=1e-3, tol=1e-10, max_iter=1000),
        GammaRegressor(alpha=1e-3, tol=1e-10, max_iter=1000),
        HuberRegressor(max_iter=2000),
        SVR(C=100),
        RandomForestRegressor(30, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_wrong_numbers_come_first(model: Any, tmp_path: Path) -> None:
    x, y, wrong = wrong_numbers()
    model = clone(model).fit(x, y)
    errors = find_label_errors(whence.from_sklearn(model, x, y), k=12)
    assert wrong[errors.ranking[:12]].mean() > 0.7
    assert (errors.loss > -1e-9).all()
    if isinstance(model, RandomForestRegressor):
        out_of_bag = whence.DataOOB().fit(errors.objective).self_scores()
        np.testing.assert_array_equal(errors.scores, out_of_bag)
    if isinstance(model, PoissonRegressor):
        mean = errors.objective.outputs(errors.objective.train).exp().flatten().numpy()
        np.testing.assert_allclose(errors.loss, y * np.log(y / mean) - y + mean, atol=1e-8)
    frame = errors.to_frame().head(12)
    assert not frame["agrees"].any()
    assert frame["label"].tolist() == y[errors.ranking[:12]].tolist()
    page = errors.report(tmp_path / "page.html", rows=7).read_text()
    assert "Training examples whose number" in page
    assert "Only where they differ" not in page
    if errors.method == "held_out_loss" and errors.penalty == 1:  # as the user's own fit
        for at, suggested in zip(errors.ranking[:3], errors.suggested[:3], strict=True):
            rest = np.arange(len(y)) != at
            said = clone(model).fit(x[rest], y[rest]).predict(x[[at]])[0]
            assert float(suggested) == pytest.approx(said, rel=0.05)


def test_rare_rows_given_to_the_common_class_are_found_with_classes_weighed_alike() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    kept = np.r_[np.flatnonzero(y == 1), np.flatnonzero(y == 0)[:30]]
    x, y = scale(x)[kept], y[kept].copy()
    hidden = np.flatnonzero(y == 0)[:6]
    y[hidden] = 1
    model = LogisticRegression(tol=1e-8, max_iter=5000).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    alike = find_label_errors(objective, method="class_adjusted")
    plain = find_label_errors(objective, method="held_out_loss")
    found = [np.isin(errors.ranking[:6], hidden).sum() for errors in (alike, plain)]
    assert found[0] >= 4 > found[1]
    p, share = np.exp(-plain.scores), np.where(y == 1, (y == 1).mean(), (y == 0).mean())
    expected = -np.log(p / share / (p / share + (1 - p) / (1 - share)))
    np.testing.assert_allclose(alike.scores, expected, rtol=1e-8)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_the_best_penalty_does_not_depend_on_the_unit_of_the_target(unit: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    y = x @ [2.0, -1.0, 0.0, 0.0] + rng.normal(size=60) / 2
    expected, found = (
        whence.find_label_errors(whence.from_sklearn(Ridge(2.0).fit(x, of), x, of), k=0)
        for of in (y, unit * y)
    )
    assert found.penalty == expected.penalty == 0.1
    np.testing.assert_allclose(found.scores / unit**2, expected.scores, rtol=1e-9)
