"""One explanation: what it ranks, verifies, prints and writes, for every method and measure."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.svm import LinearSVC

import whence
from whence.applications.explanation import Explanation
from whence.errors import InvalidInput, UnsupportedModel
from whence.views.copies import copies_of


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X = X.iloc[:, :10]
    X.index = [f"patient {i}" for i in range(len(X))]
    model = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
    objective = whence.from_sklearn(model.fit(X[:100], y[:100]), X[:100], y[:100])
    return whence.explain(objective, (X[225:226], y[225:226]), k=4)


@pytest.fixture(scope="module")
def page(explanation: Explanation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an explanation, alone in a folder."""
    path = tmp_path_factory.mktemp("page") / "why.html"
    return explanation.report(path, title="Why <this>?", about=("<i>data</i>",))


@pytest.fixture(scope="module")
def diabetes() -> tuple[Ridge, pd.DataFrame, pd.Series]:
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    return Ridge(alpha=0.1).fit(X[:100], y[:100]), X, y


@pytest.fixture(scope="module")
def run() -> tuple[Any, torch.Tensor, torch.Tensor]:
    digits, labels = load_digits(n_class=3, return_X_y=True)
    x, y = torch.tensor(digits / 16, dtype=torch.float32), torch.tensor(labels)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    recipe = whence.Recipe(learning_rate=0.5, batch_size=40, epochs=20, weight_decay=1e-2)
    return whence.train(model, whence.CrossEntropy(), (x[:40], y[:40]), recipe), x, y


def test_sides_are_sorted_and_signed(explanation: Explanation) -> None:
    helpful = [effect.effect for effect in explanation.helpful]
    harmful = [effect.effect for effect in explanation.harmful]
    assert len(helpful) == len(harmful) == 4
    assert helpful == sorted(helpful, reverse=True)
    assert harmful == sorted(harmful)
    assert min(helpful) > 0 > max(harmful)
    assert str(explanation.helpful[0].id).startswith("patient ")


def test_words_do_not_turn_round_with_the_measure(explanation: Explanation) -> None:
    """Which way an example pushes the answer is a fact, whatever scores it."""
    assert explanation.measure == "loss"
    for measure in ("probability", "margin"):
        other = whence.explain(explanation.trained, explanation.query, k=4, measure=measure)
        for side in ("raising", "lowering", "helpful", "harmful"):
            expected = {effect.position for effect in getattr(explanation, side)}
            assert {effect.position for effect in getattr(other, side)} == expected
        pushes = re.findall(r"without (patient \d+), which pushes to “(\d)”", str(other))
        assert dict(pushes) == dict(
            re.findall(r"without (patient \d+), which pushes to “(\d)”", str(explanation))
        )
        assert len(pushes) == 8


def test_probabilities_are_those_of_a_refit_with_the_users_library() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    X = scale(X)
    model = LogisticRegression(tol=1e-10, solver="newton-cholesky").fit(X[:200], y[:200])
    objective = whence.from_sklearn(model, X[:200], y[:200])
    explanation = whence.explain(objective, (X[205], y[205]), k=2)
    printed = re.findall(r"^ +([\d.]+) %  .* without (\d+),", str(explanation), re.M)
    assert len(printed) == 4
    for shown, position in printed:
        keep = np.arange(200) != int(position)
        refit = clone(model).fit(X[:200][keep], y[:200][keep])
        probability = 100 * refit.predict_proba(X[205:206])[0, y[205]]
        unit = 10.0 ** -len(shown.split(".")[1])
        assert float(shown) == pytest.approx(probability, abs=1.01 * unit)


def test_a_regression_says_what_the_prediction_becomes(
    diabetes: tuple[Ridge, pd.DataFrame, pd.Series],
) -> None:
    model, X, y = diabetes
    objective = whence.from_sklearn(model, X[:100], y[:100])
    explanation = whence.explain(objective, (X[100:101], y[100:101]), k=2)
    said = str(explanation)
    assert "nats" not in said
    assert "The prediction is" in said
    position = explanation.raising[0].position
    refit = clone(model).fit(X[:100].drop(index=position), y[:100].drop(index=position))
    expected = f"{refit.predict(X[100:101])[0]:.1f}"
    assert re.search(rf"  {expected}  .* without {position}, which pushes it up", said)
    assert explanation.value == pytest.approx(model.predict(X[100:101])[0])
    pulled = explanation.helpful[0].position  # without it the prediction is further from the label
    refit = clone(model).fit(X[:100].drop(index=pulled), y[:100].drop(index=pulled))
    errors = [abs(m.predict(X[100:101])[0] - y[100]) for m in (refit, model)]
    assert errors[0] > errors[1]


def test_a_log_link_predicts_in_the_unit_of_the_target() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = PoissonRegressor(alpha=1e-3, tol=1e-8, max_iter=10_000, solver="newton-cholesky")
    objective = whence.from_sklearn(model.fit(X[:80], y[:80]), X[:80], y[:80])
    explanation = whence.explain(objective, X[100:101], k=1)
    assert explanation.value == pytest.approx(model.predict(X[100:101])[0])
    assert f"The model predicts {model.predict(X[100:101])[0]:.0f}." in str(explanation)


def test_a_notebook_shows_the_numbers_that_print_shows() -> None:
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(tol=1e-8, max_iter=1000).fit(x[1:], y[1:])
    found = whence.explain(whence.from_sklearn(model, x[1:], y[1:]), (x[:1], y[:1]), k=2)
    card, words = found.card(), str(found)
    (name, now), table = next(iter(card.facts.items())), card.table
    assert f"{name} is {now}. Without" in words
    assert table is not None
    for shown, line in zip(table.itertuples(index=False), words.splitlines()[2:6], strict=True):
        assert line.split("  ")[1] == shown[-1].replace("−", "-")
        assert f"without {shown[0]}, which pushes {shown[2]}" in line


def test_numbers_that_name_rows_are_told_from_positions() -> None:
    """A table that was split keeps its index, and functions take positions."""
    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    order = np.random.default_rng(0).permutation(len(x))
    for rows, expected in ((order[:300], True), (np.arange(300), False)):
        model = LogisticRegression(C=0.01, solver="newton-cholesky", tol=1e-8)
        part, labels = x.iloc[rows, :4], y.iloc[rows]
        objective = whence.from_sklearn(model.fit(part, labels), part, labels)
        found = whence.explain(objective, x.iloc[400:401, :4], k=2)
        assert ("take positions" in str(found)) == expected
        assert ("position" in found.card().table) == expected
        if expected:
            name, position = map(int, re.findall(r"(\d+) is at position (\d+)", str(found))[0])
            assert part.index[position] == name


def test_a_query_without_a_label_explains_the_predicted_class(explanation: Explanation) -> None:
    rows = explanation.query.inputs
    unlabeled = whence.explain(explanation.trained, rows, k=4)
    assert not unlabeled.labeled
    assert "label in the data" not in str(unlabeled)
    said = int(explanation.trained.outputs(explanation.query)[0, 0] > 0)
    assert f"P({explanation.trained.classes[said]}) is" in str(unlabeled)
    same = {e.position for e in (*explanation.raising, *explanation.lowering)}
    assert {e.position for e in (*unlabeled.raising, *unlabeled.lowering)} == same
    one_row = whence.explain(explanation.trained, rows.iloc[0], k=1)
    assert [e.id for e in one_row.raising] == [e.id for e in unlabeled.raising[:1]]
    with_none = whence.explain(explanation.trained, (rows, None), k=1)
    assert not with_none.labeled


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_a_network_takes_queries_without_labels(run: tuple[Any, ...]) -> None:
    recorded, x, _ = run
    objective = recorded.objective()
    said = int(objective.outputs(objective.examples((x[60:61], torch.tensor([0]))))[0].argmax())
    explanation = whence.explain(objective, x[60:61], k=2, solver=whence.EKFAC())
    assert int(explanation.query.targets[0]) == said
    assert f"push to “class {said}”" in str(explanation)
    assert not explanation.labeled


def test_a_margin_is_explained_where_the_hinge_loss_is_zero(tmp_path: Path) -> None:
    X, y = load_breast_cancer(return_X_y=True)
    X = scale(X)
    model = LinearSVC(C=0.01, loss="hinge", tol=1e-8, max_iter=1_000_000, random_state=0)
    objective = whence.from_sklearn(model.fit(X[450:], y[450:]), X[450:], y[450:])
    explanation = whence.explain(objective, (X[:1], y[:1]), k=3)
    assert (
        float(objective.loss(objective.outputs(explanation.query), explanation.query.targets)) < 1
    )
    assert len(explanation.raising) == len(explanation.lowering) == 3
    assert "margin of 0 is" in str(explanation)
    assert "nats" not in str(explanation)
    assert "margin" in explanation.report(tmp_path / "svm.html").read_text(encoding="utf-8")


def test_nothing_to_verify_is_no_error(explanation: Explanation) -> None:
    """One removal has no correlation, and a constant has none."""
    assert np.isnan(explanation.verify(1).r)
    flat = whence.explain(
        explanation.trained, explanation.query, k=2, measure=lambda f, y: 0 * f.sum(1)
    )
    assert flat.raising == flat.lowering == ()
    assert np.isnan(flat.verify(3).slope)


def test_ridge_classifiers_have_margins() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    model = RidgeClassifier().fit(X[:200], y[:200])
    objective = whence.from_sklearn(model, X[:200], y[:200])
    explanation = whence.explain(objective, (X[205], y[205]), k=2)
    decision = model.decision_function(X[205:206])[0] * (1 if y[205] else -1)
    assert explanation.value == pytest.approx(decision)


def test_effects_are_what_retraining_does(explanation: Explanation) -> None:
    shown = [*explanation.helpful, *explanation.harmful]
    where = [effect.position for effect in shown]
    actual = whence.leave_one_out(explanation.trained, where, explanation.query)[0]
    effects = [effect.effect for effect in shown]  # retraining fits the scaler again too
    np.testing.assert_allclose(effects, actual, atol=0.02 * abs(actual).max())


@pytest.mark.parametrize("measure", ["loss", "probability"])
def test_two_answers_are_told_apart_by_what_refits_do(measure: str, tmp_path: Path) -> None:
    X, y = load_digits(n_class=3, return_X_y=True)
    X, y = X[:120] / 16, y[:120]
    model = LogisticRegression(tol=1e-8, max_iter=1000)
    objective = whence.from_sklearn(model.fit(X[1:], y[1:]), X[1:], y[1:])
    this, that = (X[:1], y[:1]), (X[:1], (y[:1] + 1) % 3)
    found = whence.explain(objective, this, against=that, measure=measure, k=2)
    sign = 1 if measure == "loss" else -1
    read = np.log if measure == "loss" else np.asarray

    def difference(fitted: Any) -> float:
        chances = read(fitted.predict_proba(X[:1])[0])
        return -sign * float(chances[y[0]] - chances[(y[0] + 1) % 3])

    assert found.value == pytest.approx(difference(model), rel=1e-6)
    for effect in (*found.helpful, *found.harmful):
        left = np.delete(np.arange(1, 120), effect.position)
        again = clone(model).fit(X[left], y[left])
        assert effect.effect == pytest.approx(difference(again) - found.value, rel=0.01)
    assert sign * found.helpful[0].effect > 0
    assert len(found.verify(5).ids) == 5
    page = found.report(tmp_path / "why.html", verify=0).read_text(encoding="utf-8")
    assert "Why “0” and not “1”?" in page
    assert "of “0” less that of “1”" in str(found)
    assert found.quantity.phrases[0 if measure == "loss" else 1] == "to “1”"


def test_two_queries_of_one_class_are_not_named_by_it(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(tol=1e-8, max_iter=1000).fit(x[2:], y[2:])
    trained = whence.from_sklearn(model, x[2:], y[2:])
    found = whence.explain(trained, (x[:1], y[:1]), against=(x[1:2], y[1:2]), k=2)
    assert "which pushes to the other answer" in str(found)
    page = found.report(tmp_path / "why.html", verify=0).read_text(encoding="utf-8")
    assert "Why this answer and not “0”?" in page


def test_verification_takes_what_is_shown_first(explanation: Explanation) -> None:
    verification = explanation.verify(26)
    assert len(verification.ids) == 26
    shown = {effect.position for effect in (*explanation.raising, *explanation.lowering)}
    assert set(verification.positions[:8].tolist()) == shown
    assert verification.r > 0.999
    largest = [
        each.largest(len(each.positions)).positions[0]
        for each in (explanation.shown, explanation.scores)
    ]
    effects = {e.position: abs(e.effect) for e in (*explanation.raising, *explanation.lowering)}
    first = sorted(effects, key=lambda position: -effects[position])
    order = list(dict.fromkeys([*first, *largest[0].tolist(), *largest[1].tolist()]))
    assert verification.positions.tolist() == order[:26]
    assert f"R = {verification.r:.4f}" in str(verification)
    with pytest.raises(InvalidInput, match="Got 0"):
        explanation.verify(0)


def test_frame(explanation: Explanation) -> None:
    frame = explanation.to_frame()
    assert list(frame.columns) == ["id", "position", "effect", "first"]
    assert len(frame) == 8
    assert frame.effect.is_monotonic_decreasing
    assert explanation.quality is not None
    assert explanation.card().words == (str(explanation).splitlines()[-1],)
    assert "not seen" in explanation.card().words[0]


def test_a_function_as_measure_says_raises_and_lowers(explanation: Explanation) -> None:
    def logit(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return outputs[:, 0]

    other = whence.explain(explanation.trained, explanation.query, k=2, measure=logit)
    assert "which pushes the logit up" in str(other)
    with pytest.raises(InvalidInput, match=r"Use \.raising and \.lowering"):
        _ = other.helpful


METHODS: dict[str, whence.Method] = {
    "influence": whence.Influence(),
    "newton": whence.Influence(order="newton"),
    "relatif": whence.Influence(normalize="parameters"),
    "leave one out": whence.LeaveOneOut(),
    "projected": whence.Projected(),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_explained_and_verified(
    name: str, explanation: Explanation, tmp_path: Path
) -> None:
    method = METHODS[name]
    other = whence.explain(explanation.trained, explanation.query, k=2, method=method)
    assert other.method == method
    verification = other.verify(4)
    page = other.report(tmp_path / "why.html", verify=0, verification=verification)
    assert other.sized == (name in ("influence", "newton", "leave one out"))
    assert ("Without one training example it would be" in str(other)) == other.sized
    if other.sized:
        np.testing.assert_allclose(verification.predicted, verification.actual, rtol=0.1)
    else:
        assert "its size is not known" in str(other)
        frame = other.to_frame()
        assert list(frame) == ["id", "position", "score"]
        assert frame["score"].is_monotonic_decreasing
        assert "read the order and the bars" in page.read_text("utf-8")


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
@pytest.mark.parametrize(
    "method", [whence.Influence(solver=whence.EKFAC()), whence.Metagradient(), whence.TracIn()]
)
def test_a_recorded_training_is_explained_verified_and_put_on_a_page(
    run: tuple[Any, ...], method: Any, tmp_path: Path
) -> None:
    recorded, x, y = run
    explanation = whence.explain(recorded, (x[60:61], y[60:61]), k=2, method=method)
    assert not explanation.sized
    verification = explanation.verify(3)
    again = recorded.refit(1.0 - torch.eye(40)[verification.positions[0]])
    loss = [
        float(model.loss(model.outputs(explanation.query), explanation.query.targets)[0])
        for model in (again, recorded)
    ]
    assert verification.actual[0, 0] == pytest.approx(loss[0] - loss[1], abs=1e-5)
    page = explanation.report(tmp_path / "why.html", verification=verification)
    text = page.read_text(encoding="utf-8")
    assert "Nothing was retrained" not in text
    assert "With 3 retrainings these effects correlate with R" in text
    assert explanation.report(tmp_path / "plain.html").read_text("utf-8").count("not known") > 0


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_a_model_that_cannot_be_refitted_says_so(run: tuple[Any, ...]) -> None:
    recorded, x, y = run
    network = whence.from_torch(recorded.model, whence.CrossEntropy(), (x[:40], y[:40]), l2=1e-2)
    explanation = whence.explain(network, (x[60:61], y[60:61]), k=2, solver=whence.EKFAC())
    with pytest.raises(UnsupportedModel, match="whence.train"):
        explanation.verify(2)


def test_input_attribution_only_where_the_method_follows_inputs(
    explanation: Explanation, tmp_path: Path
) -> None:
    page = explanation.report(tmp_path / "why.html", verify=0).read_text(encoding="utf-8")
    assert "Which values of these rows move the answer" in page
    projected = whence.explain(
        explanation.trained, explanation.query, k=2, method=whence.Projected()
    )
    page = projected.report(tmp_path / "other.html", verify=0).read_text(encoding="utf-8")
    assert "Which values of these rows move the answer" not in page


def columns_of(page: Path) -> list[str]:
    """Return the headings of the aligned table that are columns of the data."""
    html = page.read_text(encoding="utf-8")
    head = re.search(r'id="effects">\s*<thead>(.*?)</thead>', html, re.S)
    assert head is not None
    names = re.findall(r'<th scope="col" dir="auto"[^>]*>([^<]*)</th>', head[1])
    return names


def test_columns_do_not_depend_on_their_units(tmp_path: Path) -> None:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    found = []
    for rows in (X, X.div(X.max())):
        model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10))
        objective = whence.from_sklearn(model.fit(rows[:200], y[:200]), rows[:200], y[:200])
        explanation = whence.explain(objective, (rows[205:206], y[205:206]), k=2)
        found.append(columns_of(explanation.report(tmp_path / "why.html", verify=0)))
    assert len(found[0]) == 30
    assert found[0] == found[1]
    derivative = whence.perturbation(
        objective, [explanation.raising[0].position], explanation.query
    )[0]
    assert found[0][0] in X.columns[np.argsort(-abs(derivative * rows[:200].std().to_numpy()))[:3]]


def test_all_columns_are_on_the_page_and_aligned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(80, 13)), columns=[f"c{j}" for j in range(13)])
    y = (X.c12 > 0).astype(int)
    objective = whence.from_sklearn(LogisticRegression(tol=1e-8).fit(X, y), X, y)
    explanation = whence.explain(objective, (X[:1], y[:1]), k=2)
    page = explanation.report(tmp_path / "why.html", verify=0)
    names = columns_of(page)
    assert sorted(names) == sorted(X.columns)
    assert names[0] == "c12"
    html = page.read_text(encoding="utf-8")
    table = re.search(r'id="effects">(.*?)</table>', html, re.S)
    assert table is not None
    first = re.search(r'<tr class="query-row">.*?</tr>', table[1], re.S)
    assert first is not None
    assert f"{X.c12[0]:.6g}".replace("-", "−") in first[0]


def test_sparse_rows_show_the_columns_that_are_not_zero(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    X = sparse.random(60, 500, density=0.02, format="csr", random_state=0)
    y = rng.integers(0, 2, 60)
    objective = whence.from_sklearn(LogisticRegression(tol=1e-8).fit(X, y), X, y)
    explanation = whence.explain(objective, (X[:1], y[:1]), k=2)
    page = explanation.report(tmp_path / "why.html", verify=0)
    where = [0] + [e.position for e in (*explanation.raising, *explanation.lowering)]
    shown = np.unique(X[where].nonzero()[1])
    assert sorted(columns_of(page)) == sorted(f"column {j}" for j in shown)
    assert f"{500 - len(shown)} more columns are 0" in page.read_text(encoding="utf-8")


def test_page(explanation: Explanation, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "Why &lt;this&gt;?" in text
    assert "&lt;i&gt;data&lt;/i&gt;" in text
    assert "patient" in text
    assert "8 training examples were removed" not in text
    assert "20 training examples were removed one at a time" in text
    assert "would have to be gone before the model said" in text
    assert "examples it has not seen; always saying" in text
    with pytest.raises(InvalidInput, match="Create it first"):
        explanation.report(page.parent / "nowhere" / "why.html", verify=0)
    assert sorted(path.name for path in page.parent.iterdir()) == ["why.html"]


def test_every_point_of_the_curve_was_retrained(explanation: Explanation, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    flip = whence.flip_set(explanation.trained, explanation.query)
    assert f"{len(flip.positions)} of 100" in text
    curve = re.search(r'class="scatter curve".*?</svg>', text, re.S)
    assert curve is not None
    points = re.findall(r"<title>(\d+): ([\d.]+) %</title>", curve[0])
    assert int(points[-1][0]) == len(flip.positions)
    weights = torch.ones(100, dtype=torch.float64)
    removed = int(points[1][0])
    weights[flip.positions[:removed]] = 0
    refit = explanation.trained.refit(weights)
    loss = refit.loss(refit.outputs(explanation.query), explanation.query.targets)
    assert float(points[1][1]) == pytest.approx(100 * float(torch.exp(-loss)), abs=0.1)


def test_no_class_is_removed_whole(tmp_path: Path) -> None:
    """What pushes the answer may be all rows of a class, without which nothing can be fitted."""
    x = np.r_[np.linspace(-2, -1, 30), np.linspace(1, 2, 4)][:, None]
    y = np.repeat(["many", "few"], [30, 4])
    objective = whence.from_sklearn(LogisticRegression(tol=1e-8).fit(x, y), x, y)
    page = whence.explain(objective, (np.array([[1.5]]), ["few"]), k=2).report(
        tmp_path / "why.html"
    )
    text = page.read_text(encoding="utf-8")
    assert re.search(r"without the [123] training rows|of 34", text)


def test_copies_missing_cells_and_known_queries_are_noticed(tmp_path: Path) -> None:
    from sklearn.impute import SimpleImputer

    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(30, 3)), columns=["a", "b", "c"])
    X.loc[4, "b"] = np.nan
    y = (X.a > 0).astype(int)
    X, y = pd.concat([X, X[4:5], X[:1]], ignore_index=True), pd.concat([y, y[4:5], y[:1]])
    y = y.reset_index(drop=True)
    model = make_pipeline(SimpleImputer(), LogisticRegression(tol=1e-8)).fit(X, y)
    objective = whence.from_sklearn(model, X, y)
    explanation = whence.explain(objective, (X[4:5], y[4:5]), k=32)
    text = explanation.report(tmp_path / "why.html", verify=0).read_text(encoding="utf-8")
    assert "The query is in the training data: 4, 30." in text
    assert "b is missing in the query." in text
    both = (
        r"have copies in the training data: (?:(?:0 \(31\)|31 \(0\)|4 \(30\)|30 \(4\))(?:, )?){2}\."
    )
    assert re.search(both, text)


def test_held_out_rows_say_how_good_the_model_is(
    explanation: Explanation, tmp_path: Path, run: tuple[Any, ...]
) -> None:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    path = tmp_path / "why.html"
    held_out = X.iloc[300:400, :10], y[300:400]
    text = explanation.report(path, verify=0, held_out=held_out).read_text(encoding="utf-8")
    objective = explanation.trained
    encoded = objective.examples(held_out)
    right = (objective.outputs(encoded)[:, 0] > 0).numpy() == (encoded.targets > 0).numpy()
    assert f"right on {right.mean() * 100:.0f} of 100 examples it has not seen" in text
    recorded, x, labels = run
    network = whence.explain(recorded, (x[60:61], labels[60:61]), k=1, method=whence.TracIn())
    text = network.report(path).read_text(encoding="utf-8")
    assert "was not measured" in text
    assert "has not seen; always" not in text


def test_bad_requests(explanation: Explanation) -> None:
    trained, query = explanation.trained, explanation.query
    with pytest.raises(InvalidInput, match="Got 0"):
        whence.explain(trained, query, k=0)
    two = trained.train.subset(np.array([0, 1]))
    with pytest.raises(InvalidInput, match="Got 2"):
        whence.explain(trained, two)
    with pytest.raises(InvalidInput, match="without method="):
        whence.explain(trained, query, method=whence.Influence(), damping=0.1)
    many = Ridge().fit(np.eye(4), np.eye(4)[:, :2])
    objective = whence.from_sklearn(many, np.eye(4), np.eye(4)[:, :2])
    with pytest.raises(InvalidInput, match="Got X alone"):
        whence.explain(objective, np.eye(4)[:1])


def test_names_and_labels_are_escaped(explanation: Explanation, tmp_path: Path) -> None:
    trained: Any = explanation.trained
    names = np.array([f"<script>{name}</script>" for name in trained.train.ids], dtype=object)
    hostile = replace(
        trained,
        train=replace(trained.train, ids=names),
        classes=("<script>no</script>", "<script>yes</script>"),
    )
    other = whence.explain(hostile, explanation.query, k=2)
    page = other.report(tmp_path / "why.html", verify=2, query_name="<script>q</script>")
    text = page.read_text("utf-8")
    assert not re.search(r"<script>(patient|no|yes|q)", text)
    assert "<script>" not in other._repr_html_()


def test_refits_lie_in_the_stated_intervals() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y = x[:120, :8], y[:120]
    estimator = make_pipeline(StandardScaler(), LogisticRegression(C=10.0, tol=1e-10))
    model = clone(estimator).fit(x[1:], y[1:])
    explanation = whence.explain(
        whence.from_sklearn(model, x[1:], y[1:]), (x[:1], y[:1]), k=5, measure="margin"
    )
    found = explanation.intervals()
    assert list(found.columns) == ["id", "position", "effect", "low", "high"]
    before = model.decision_function(x[:1])[0] * (2 * y[0] - 1)
    inside = []
    for row in found.itertuples():
        keep = np.delete(np.arange(119), int(row.position)) + 1
        after = clone(estimator).fit(x[keep], y[keep]).decision_function(x[:1])[0] * (2 * y[0] - 1)
        inside.append(row.low <= after - before <= row.high)
    assert np.mean(inside) >= 0.9
    assert ((found["high"] - found["low"]) < found["effect"].abs()).mean() > 0.5
    newton = whence.influence(
        explanation.trained,
        (x[:1], y[:1]),
        order="newton",
        measure="margin",
        indices=found["position"].tolist(),
    ).values[0]
    error = np.maximum(abs(found["effect"] - newton), 1e-3 * found["effect"].abs().max())
    np.testing.assert_allclose(found["high"] - found["effect"], error)
    np.testing.assert_allclose(found["effect"] - found["low"], error)
    assert found["effect"].is_monotonic_decreasing
    ranks = whence.explain(explanation.trained, (x[:1], y[:1]), method=whence.TracIn())
    with pytest.raises(UnsupportedModel, match="Expected refined effects"):
        ranks.intervals()


def test_intervals_of_a_hinge_are_as_wide_as_a_refit_may_be_off() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y = scale(x)[:60, :4], y[:60]
    machine = LinearSVC(loss="hinge", C=0.1, tol=1e-9, max_iter=10**6, random_state=0)
    objective = whence.from_sklearn(machine.fit(x[1:], y[1:]), x[1:], y[1:])
    explanation = whence.explain(objective, (x[:1], y[:1]), k=3, measure="margin")
    found = explanation.intervals()
    error = 1e-3 * found["effect"].abs().max()
    np.testing.assert_allclose(found["high"] - found["effect"], error, rtol=1e-9)
    np.testing.assert_allclose(found["effect"] - found["low"], error, rtol=1e-9)


def test_where_no_single_example_matters_that_is_said() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    twice = np.concatenate([x[:60, :1], x[:60, :1]]), np.concatenate([y[:60], y[:60]])
    trained = whence.from_sklearn(KNeighborsClassifier(1).fit(*twice), *twice)
    found = whence.explain(trained, (x[:1, :1], y[:1]), method=whence.LeaveOneOut(), k=3)
    assert "Without one training example it is the same, whichever is gone." in str(found)


def test_an_order_is_a_list_of_names() -> None:
    x, y = load_iris(return_X_y=True)
    trained = whence.from_sklearn(LogisticRegression(tol=1e-8, max_iter=1000).fit(x, y), x, y)
    found = whence.explain(trained, (x[70:71], y[70:71]), method=whence.Representer(), k=3)
    sides = (found.harmful, found.helpful)
    away, toward = (", ".join(str(effect.id) for effect in side) for side in sides)
    assert f"push away from “1”, the strongest first: {away}\n" in str(found)
    assert f"push to “1”, the strongest first: {toward}\n" in str(found)


def test_rows_that_change_nothing_alone_are_counted(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    model = KNeighborsClassifier(7).fit(x, y)
    found = whence.explain(whence.from_sklearn(model, x, y), (x[70:71], y[70:71]), k=5)
    unmoved = 0
    for row in found.to_frame()["id"]:
        again = clone(model).fit(np.delete(x, row, 0), np.delete(y, row))
        unmoved += np.array_equal(again.predict_proba(x[70:71]), model.predict_proba(x[70:71]))
    words = f"{unmoved} of these 10 change nothing when they alone are removed"
    assert 0 < unmoved < 10
    assert words in str(found)
    assert words in found.report(tmp_path / "why.html").read_text()


def test_a_page_of_a_row_whose_copy_has_a_missing_cell(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = pd.DataFrame({"a": rng.normal(size=40), "b": pd.array(rng.integers(0, 5, 40), "Int64")})
    x.iloc[7] = x.iloc[3]
    x.loc[[3, 7], "b"] = pd.NA
    y = np.where(x["a"] > 0, 1, 0)
    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(x, y)
    trained = whence.from_sklearn(model, x, y)
    assert whence.explain(trained, (x.iloc[[3]], y[[3]])).report(tmp_path / "why.html").exists()
    found = copies_of(trained, trained.outputs(trained.train), trained.train, 3)
    assert found.tolist() == [3, 7]
