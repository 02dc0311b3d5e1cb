"""Any fitted estimator: its answers are its library's own, and a refit is its library's fit."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_wine
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingRegressor,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import RFECV
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import (
    LarsCV,
    LinearRegression,
    LogisticRegression,
    MultiTaskLasso,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, RegressorChain
from sklearn.naive_bayes import ComplementNB, GaussianNB
from sklearn.neighbors import LocalOutlierFactor, RadiusNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, SVR, NuSVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

import whence
from whence.adapters.anything import Estimator
from whence.errors import InvalidInput, NotConvergedWarning, NotFitted, UnsupportedModel
from whence.methods.choose import default_of

Floats = NDArray[np.float64]


def wine(n: int = 60) -> tuple[Floats, NDArray[Any]]:
    x, y = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:n]
    x = StandardScaler().fit_transform(x)[order, :5]
    return x, np.array(["red", "rosé", "white"])[y[order]]


def vote() -> VotingClassifier:
    parts = [("a", LogisticRegression(random_state=0)), ("b", RadiusNeighborsClassifier(9.0))]
    return VotingClassifier(parts, voting="soft")


def model(estimator: Any, labels: Any = None, **options: Any) -> Estimator:
    x, y = wine()
    y = y if labels is None else labels
    found = whence.from_sklearn(estimator.fit(x, y), x, y, **options)
    assert isinstance(found, Estimator)
    return found


class Nearest:
    """A classifier that knows nothing of scikit-learn but `fit` and `predict`."""

    def fit(self, x: Floats, y: NDArray[Any]) -> Nearest:
        self.x, self.y = x, y
        return self

    def predict(self, x: Floats) -> NDArray[Any]:
        return self.y[np.abs(x[:, None] - self.x).sum(2).argmin(1)]


def test_outputs_are_log_probabilities() -> None:
    x, y = wine()
    found = model(vote())
    expected = np.log(np.maximum(found.fitted.predict_proba(x), 1 / 120))
    assert np.allclose(found.outputs(found.train), expected)
    assert found.classes == ("red", "rosé", "white")
    losses = found.loss(found.outputs(found.train), found.train.targets)
    shares = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    assert np.allclose(losses, -np.log(shares[np.arange(60), np.searchsorted(found.classes, y)]))


def test_two_classes_have_log_probabilities() -> None:
    x, y = wine()
    two = y != "white"
    found = whence.from_sklearn(vote().fit(x[two], y[two]), x[two], y[two])
    shares = np.maximum(found.fitted.predict_proba(x[two]), 1 / (2 * two.sum()))
    assert np.allclose(found.outputs(found.train), np.log(shares))
    assert set(found.train.targets.tolist()) == {0.0, 1.0}


def test_decision_values_where_there_are_no_probabilities() -> None:
    x, _ = wine()
    found = model(SVC(kernel="sigmoid", random_state=0))
    assert np.allclose(found.outputs(found.train), found.fitted.decision_function(x))
    assert any("decision values" in note for note in found.notes)
    pairs = model(SVC(decision_function_shape="ovo", kernel="sigmoid", random_state=0))
    assert any("those of their pairs amount to" in note for note in pairs.notes)
    hard = VotingClassifier([("a", GaussianNB()), ("b", RadiusNeighborsClassifier(9.0))])
    assert any("labels and no probabilities" in note for note in model(hard).notes)


def test_an_object_with_fit_and_predict_alone() -> None:
    x, y = wine()
    found = model(Nearest())
    outputs = found.outputs(found.train)
    assert [found.classes[i] for i in outputs.argmax(1)] == y.tolist()
    without = found.refit(torch.cat([torch.zeros(1), torch.ones(59)]))
    assert without.outputs(found.train.subset(np.array([0]))).shape == (1, 3)
    assert found.outputs(found.examples((x[0], y[0]))).shape == (1, 3)


@pytest.mark.parametrize("estimator", [vote(), SVC(kernel="sigmoid", random_state=0)])
def test_a_refit_is_the_own_fit_on_the_rows_that_stay(estimator: Any) -> None:
    x, y = wine()
    found = model(clone(estimator))
    weights = torch.ones(60)
    weights[[1, 5, 8]] = 0
    kept = weights.numpy() > 0
    again = clone(estimator).fit(x[kept], y[kept])
    expected = found.answer.outputs(again, x)
    assert np.array_equal(found.refit(weights).outputs(found.train), expected)
    assert np.array_equal(found.refit().outputs(found.train), found.outputs(found.train))
    fits = list(found.refits(torch.stack([weights, torch.ones(60)])))
    assert np.array_equal(fits[0].outputs(found.train), expected)


def test_sample_weights_go_to_the_fit() -> None:
    x, y = load_diabetes(return_X_y=True)
    x, y = x[:50], y[:50] / 50
    sample = np.random.default_rng(0).uniform(0.5, 2, 50)
    machine = SVR(kernel="sigmoid")
    fitted = clone(machine).fit(x, y, sample_weight=sample)
    found = whence.from_sklearn(fitted, x, y, sample_weight=sample)
    weights = found.weights.clone()
    weights[7] = 0
    kept = np.arange(50) != 7
    again = clone(machine).fit(x[kept], y[kept], sample_weight=sample[kept])
    assert np.allclose(found.refit(weights).outputs(found.train)[:, 0], again.predict(x))
    plain = model(Nearest())
    with pytest.raises(UnsupportedModel, match=r"takes no sample weights. Got"):
        plain.refit(torch.linspace(0.5, 2, 60))


@pytest.mark.parametrize("name", ["init_score", "base_margin", "baseline"])
def test_a_refit_is_given_what_its_rows_were_fitted_with(name: str) -> None:
    from catboost import CatBoostRegressor
    from lightgbm import LGBMRegressor
    from xgboost import XGBRegressor

    x, y = load_diabetes(return_X_y=True)
    x, y, offset = x[:200], y[:200], 900 * x[:200, 2] + 150
    estimator = {
        "init_score": LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1),
        "base_margin": XGBRegressor(n_estimators=5, n_jobs=1),
        "baseline": CatBoostRegressor(
            iterations=5, verbose=0, allow_writing_files=False, thread_count=1
        ),
    }[name]
    extra: dict[str, Any] = {name: offset}
    fitted = estimator.fit(x, y, **extra)
    found = whence.from_sklearn(fitted, x, y, fit_params={name: offset.tolist()})
    assert any(f"its fit was given {name}" in note for note in found.notes)
    weights = torch.ones(200)
    weights[:40] = 0
    again = type(fitted)(**fitted.get_params()).fit(x[40:], y[40:], **{name: offset[40:]})
    refitted = found.refit(weights).outputs(found.train).numpy()[:, 0]
    np.testing.assert_allclose(refitted, again.predict(x), rtol=1e-12)
    with pytest.warns(NotConvergedWarning, match="takes as fit_params="):
        whence.from_sklearn(fitted, x, y)


def test_what_has_no_value_per_row_is_given_as_it_is() -> None:
    x, y = wine()
    seen: list[Any] = []

    class Told(Nearest):
        def fit(
            self, x: Any, y: Any, word: str = "", many: Any = (), each: Any = (), **rest: Any
        ) -> Any:
            seen.append((word, many, list(each), rest))
            return super().fit(x, y)

    pairs = [[at, at] for at in range(len(y))]
    given = {
        "word": "a" * len(y),
        "many": [(x, y)],
        "each": np.arange(len(y)),
        "none": [],
        "pairs": pairs,
        "named": pd.Series(range(len(y)), index=range(len(y))[::-1]),
    }
    found = whence.from_sklearn(Told().fit(x, y), x, y, fit_params=given)
    seen.clear()
    found.refit(torch.cat([torch.zeros(2), torch.ones(len(y) - 2)]))
    assert seen[0][0] == "a" * len(y)
    assert seen[0][1] is given["many"]
    assert seen[0][2] == list(range(2, len(y)))
    assert seen[0][3]["none"] == []
    assert seen[0][3]["pairs"] == pairs[2:]
    assert seen[0][3]["named"].tolist() == list(range(2, len(y)))
    for name in ("sample_weight", "nearest__sample_weight"):
        with pytest.raises(InvalidInput, match="Got them in fit_params"):
            whence.from_sklearn(found.fitted, x, y, fit_params={name: np.ones(len(y))})
    with pytest.raises(InvalidInput, match="keywords must be strings"):
        whence.from_sklearn(found.fitted, x, y, fit_params={1: 2}).refit()


def test_refits_of_an_outlier_detector_are_given_what_its_fit_was_given() -> None:
    x, _ = wine()
    seen: list[Any] = []

    class Told(IsolationForest):
        def fit(self, x: Any, y: Any = None, sample_weight: Any = None, *, each: Any = None) -> Any:
            seen.append(None if each is None else each.tolist())
            return super().fit(x, y)

    fitted = Told(n_estimators=3, random_state=0).fit(x)
    found = whence.from_sklearn(fitted, x, None, fit_params={"each": np.arange(len(x))})
    assert any("its fit was given each" in note for note in found.notes)
    seen.clear()
    found.refit(torch.cat([torch.zeros(2), torch.ones(len(x) - 2)]))
    assert seen == [list(range(2, len(x)))]


def test_the_last_step_of_a_pipeline_has_the_weights() -> None:
    x, y = load_diabetes(return_X_y=True)
    x, y = x[:50], y[:50] / 50
    sample = np.random.default_rng(0).uniform(0.5, 2, 50)
    pipe = make_pipeline(StandardScaler(), NuSVR()).fit(x, y, nusvr__sample_weight=sample)
    found = whence.from_sklearn(pipe, x, y, sample_weight=sample)
    assert np.allclose(found.refit().outputs(found.train)[:, 0], pipe.predict(x))


def test_a_class_that_is_gone_has_the_least_probability() -> None:
    _, y = wine()
    found = model(vote())
    gone = found.refit(torch.from_numpy((y != "red").astype(float)))
    assert torch.allclose(gone.outputs(found.train)[:, 0].exp(), torch.tensor(1 / 120).double())
    one = found.refit(torch.from_numpy((y == "red").astype(float)))
    assert (one.outputs(found.train).argmax(1) == 0).all()


def test_a_model_without_a_seed_is_fitted_with_one() -> None:
    found = model(AdaBoostClassifier(n_estimators=3))
    assert any("without a seed" in note for note in found.notes)
    a, b = found.refit(), found.refit()
    assert torch.equal(a.outputs(found.train), b.outputs(found.train))
    seeded = model(AdaBoostClassifier(n_estimators=3, random_state=4))
    assert not any("without a seed" in note for note in seeded.notes)
    assert torch.equal(seeded.refit().outputs(found.train), seeded.outputs(found.train))


def test_a_seed_that_the_fit_does_not_use_is_not_asked_for() -> None:
    x, _ = wine()
    numbers = x[:, 3]
    steady = [
        model(SVC(kernel="sigmoid")),
        model(ClassifierChain(LogisticRegression()), (x[:, :2] > 0).astype(int)),
        model(MultiTaskLasso(0.1), x[:, 3:]),
        model(make_pipeline(PCA(2, svd_solver="full"), SVR(kernel="sigmoid")), numbers),
        model(BaggingRegressor(Ridge(solver="sag"), n_estimators=2, random_state=0), numbers),
    ]
    for found in steady:
        assert not any("without a seed" in note for note in found.notes), found
    drawn = [
        model(SGDClassifier(loss="modified_huber")),
        model(ClassifierChain(LogisticRegression(), order="random"), (x[:, :2] > 0).astype(int)),
        model(make_pipeline(PCA(2, svd_solver="randomized"), SVR(kernel="sigmoid")), numbers),
        model(BaggingRegressor(Ridge(), n_estimators=2), numbers),
    ]
    for found in drawn:
        assert any("without a seed" in note for note in found.notes), found
        assert default_of(found)[0] == whence.Retrained()


@pytest.mark.parametrize(
    "wrapped",
    [
        OneVsRestClassifier,
        OneVsOneClassifier,
        CalibratedClassifierCV,
        lambda one: StackingClassifier([("one", one)]),
    ],
)
@pytest.mark.parametrize("solver", ["auto", "randomized"])
def test_a_decomposition_inside_of_folds_draws_where_its_fit_did(wrapped: Any, solver: str) -> None:
    x, y = wine()
    chain = make_pipeline(PCA(2, svd_solver=solver), LogisticRegression())
    fitted = wrapped(chain).fit(x, y)
    notes = whence.from_sklearn(fitted, x, y).notes
    assert any("without a seed" in note for note in notes) == (solver == "randomized")


@pytest.mark.parametrize(
    "estimator", [LarsCV(cv=3), make_pipeline(StandardScaler(), RFECV(Ridge(), cv=3))]
)
def test_what_is_chosen_anew_is_said(estimator: Any) -> None:
    x, y = load_diabetes(return_X_y=True)
    found = whence.from_sklearn(estimator.fit(x[:90], y[:90]), x[:90], y[:90])
    assert any("chosen anew in each refit" in note for note in found.notes)
    own = clone(estimator).fit(x[9:90], y[9:90]).predict(x[:90])
    weights = torch.ones(90)
    weights[:9] = 0
    np.testing.assert_allclose(found.refit(weights).outputs(found.train).numpy()[:, 0], own)


def test_a_fit_that_stops_early_is_said_once() -> None:
    net = MLPClassifier((3,), max_iter=3, early_stopping=True)  # of rows that are not known
    with pytest.warns(Warning, match="Maximum iterations"):
        found = model(net)
    with pytest.warns(NotConvergedWarning, match="Got one that stopped early"):
        found.refit()
    found.refit()


def test_several_labels_of_a_row() -> None:
    x, y = wine()
    labels = np.stack([y == "red", x[:, 0] > 0], 1).astype(int)
    for chain in (ClassifierChain, MultiOutputClassifier):
        estimator = chain(LogisticRegression(random_state=0)).fit(x, labels)
        found = whence.from_sklearn(estimator, x, labels)
        outputs = found.outputs(found.train)
        assert outputs.shape == (60, 2)
        assert np.array_equal(outputs > 0, estimator.predict(x) > 0)
        assert found.outputs(found.examples((x[0], labels[0]))).shape == (1, 2)
        assert len(found.loss(outputs, found.train.targets)) == 60


def test_texts_and_frames() -> None:
    texts = [f"good fine {i % 3}" if i % 2 else f"bad poor {i % 3}" for i in range(20)]
    labels = np.arange(20) % 2
    pipe = make_pipeline(CountVectorizer(token_pattern=r"\S+"), ComplementNB())
    found = whence.from_sklearn(pipe.fit(texts, labels), texts, labels)
    assert isinstance(found, Estimator)
    assert whence.explain(found, (texts[:1], labels[:1]), k=2, method=whence.Retrained(fits=20))
    frame = pd.DataFrame({"color": ["red", "blue"] * 10, "size": np.arange(20.0)})
    frame.index = [f"row {i}" for i in range(20)]
    tabular = make_pipeline(OneHotEncoder(handle_unknown="ignore"), NuSVR())
    table = whence.from_sklearn(tabular.fit(frame, labels), frame, labels)
    assert table.train.ids[3] == "row 3"
    turned = frame[["size", "color"]]
    found_rows = table.outputs(table.examples((turned, labels)))
    assert torch.equal(found_rows, table.outputs(table.train))


def test_options_without_an_exact_treatment_are_accepted_with_a_note() -> None:
    x, y = load_diabetes(return_X_y=True)
    found = whence.from_sklearn(LinearRegression(positive=True).fit(x, y), x, y)
    assert isinstance(found, Estimator)
    assert any("Got positive=True" in note for note in found.notes)


class Transformer(BaseEstimator):  # type: ignore[misc]
    def fit(self, x: Floats, y: Any = None) -> Transformer:
        self.done_ = True
        return self

    def transform(self, x: Floats) -> Floats:
        return x


class Broken(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    def fit(self, x: Floats, y: NDArray[Any]) -> Broken:
        if len(x) < 60:
            raise ValueError("more rows, please")
        self.classes_ = np.unique(y)
        return self

    def predict(self, x: Floats) -> NDArray[Any]:
        return np.full(len(x), self.classes_[0])


class LGBMRanker(Transformer):
    def predict(self, x: Floats) -> Floats:
        return x[:, 0]


def search() -> GridSearchCV:
    return GridSearchCV(LogisticRegression(), {"C": [1.0]}, refit=False, cv=2)


def pairs_of_processes() -> GaussianProcessClassifier:
    return GaussianProcessClassifier(multi_class="one_vs_one", optimizer=None)


QUICK: dict[str, tuple[Any, Any]] = {
    "machine of several classes": (make_pipeline(StandardScaler(), SVC(tol=1e-8)), wine()[1]),
    "discriminant of scaled columns": (
        make_pipeline(StandardScaler(), LinearDiscriminantAnalysis()),
        wine()[1],
    ),
    "transformed target": (
        TransformedTargetRegressor(Ridge(), transformer=StandardScaler()),
        wine()[0][:, 4],
    ),
    "chain": (
        ClassifierChain(LogisticRegression(tol=1e-10)),
        np.stack([wine()[1] == "red", wine()[0][:, 1] > 0], 1).astype(int),
    ),
    "chain of numbers": (RegressorChain(Ridge()), wine()[0][:, 3:]),
}


@pytest.mark.parametrize("name", QUICK)
def test_of_few_rows_quick_fits_are_made_again_for_each(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (estimator, y), x = QUICK[name], wine()[0][:, :3]
    found = whence.from_sklearn(clone(estimator).fit(x[4:], y[4:]), x[4:], y[4:])
    assert isinstance(found, Estimator)
    assert default_of(found)[0] == whence.LeaveOneOut()
    where, queries = [0, 9, 33], (x[:4], y[:4])
    scores = default_of(found)[0].fit(found).scores(queries, measure="loss", indices=where)
    examples = found.examples(queries)
    for column, row in enumerate(where):
        kept = np.delete(np.arange(4, 60), row)
        outputs = found.answer.outputs(clone(estimator).fit(x[kept], y[kept]), x[:4])
        after = found.loss(torch.from_numpy(outputs), examples.targets)
        before = found.loss(found.outputs(examples), examples.targets)
        np.testing.assert_allclose(scores.values[:, column], after - before, atol=1e-9)
    monkeypatch.setattr("whence.adapters.anything._FEW", 55)
    assert isinstance(default_of(found)[0], whence.Retrained)


@pytest.mark.parametrize(
    ("estimator", "error", "message"),
    [
        (NuSVR(), NotFitted, r"Got NuSVR before .fit"),
        (Ridge, NotFitted, r"Got the class Ridge itself"),
        (object(), UnsupportedModel, r"Got object. For a torch module use whence.from_torch"),
        (Transformer().fit(wine()[0]), UnsupportedModel, r"Put it into a Pipeline"),
        (LGBMRanker().fit(wine()[0]), UnsupportedModel, r"which ranks the rows of a group"),
        (LocalOutlierFactor(5).fit(wine()[0]), UnsupportedModel, r"novelty=True"),
        (pairs_of_processes().fit(*wine()), UnsupportedModel, r"multi_class='one_vs_rest'"),
        (search().fit(*wine()), UnsupportedModel, r"refit=False.*set_params\(\*\*\{'C': 1.0\}\)"),
        (search(), NotFitted, r"Got GridSearchCV before .fit"),
    ],
)
def test_what_cannot_be_used(estimator: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        whence.from_sklearn(estimator, *wine())


class Quantiles(BaseEstimator):  # type: ignore[misc]
    """Two quantiles of each target, as XGBoost and quantile forests predict them."""

    def fit(self, X: Any, y: Any) -> Any:
        self.low_, self.high_ = np.quantile(y, [0.2, 0.8])
        return self

    def predict(self, X: Any) -> Any:
        return np.tile([self.low_, self.high_], (len(X), 1))


def test_several_predictions_of_one_target_are_refused() -> None:
    """They were read as those of twice as many rows."""
    x, y = load_diabetes(return_X_y=True)
    with pytest.raises(UnsupportedModel, match="targets, 1. Got 2 by Quantiles.*quantiles"):
        whence.from_sklearn(Quantiles().fit(x, y), x, y)


def test_several_labels_that_are_no_yes_or_no_say_how_to_explain_one() -> None:
    x, y = wine()
    both = np.stack([y, (x[:, 0] > 0).astype(int)], 1)
    forest = RandomForestClassifier(3, random_state=0)
    with pytest.raises(UnsupportedModel, match=r"clone\(model\).fit\(X, y\[:, 0\]\)"):
        whence.from_sklearn(clone(forest).fit(x, both), x, both)
    parts = MultiOutputClassifier(GaussianNB()).fit(x, both)
    with pytest.raises(UnsupportedModel, match=r"model.estimators_\[0\]"):
        whence.from_sklearn(parts, x, both)
    signs = (x[:, :2] > 0).astype(int)
    with pytest.raises(InvalidInput, match="one label per row.*a model to each label"):
        whence.from_sklearn(RidgeClassifier().fit(x, signs), x, signs)


def test_bad_data() -> None:
    x, y = wine()
    found = model(vote())
    with pytest.raises(InvalidInput, match="one target per row"):
        whence.from_sklearn(found.fitted, x, y[:-1])
    with pytest.raises(InvalidInput, match=r"labels among 'red'.*Got 'blue'"):
        found.examples((x[:1], ["blue"]))
    with pytest.raises(InvalidInput, match=r"5 columns.*Got 4"):
        found.examples((x[:1, :4], y[:1]))
    with pytest.raises(InvalidInput, match="pair"):
        found.examples(x)  # type: ignore[arg-type]
    broken = model(Broken())
    with pytest.raises(InvalidInput, match=r"fit on 59 of 60 training rows. Got: more rows"):
        broken.refit(torch.cat([torch.zeros(1), torch.ones(59)]))


@pytest.mark.slow
def test_workers_give_the_same_fits() -> None:
    one, two = model(vote()), model(vote(), workers=2)
    weights = torch.ones(3, 60)
    weights[torch.arange(3), torch.arange(3)] = 0
    for a, b in zip(one.refits(weights), two.refits(weights), strict=True):
        assert torch.equal(a.outputs(one.train), b.outputs(two.train))


def test_every_use_takes_it(tmp_path: Path) -> None:
    x, y = wine()
    found = model(vote())
    method = whence.Retrained(fits=20)
    explanation = whence.explain(found, (x[:1], y[:1]), k=2, method=method)
    assert explanation.report(tmp_path / "why.html", verify=0).stat().st_size > 1000
    errors = whence.find_label_errors(found, k=2)
    assert sorted(errors.ranking) == list(range(60))
    assert whence.group_effect(found, [1, 2], (x[:2], y[:2]), method=method).shape == (2,)


def test_fits_on_a_ray_cluster_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def mapped(function: Any, items: Any, *, workers: int, backend: str) -> Any:
        asked.append((workers, backend))
        return map(function, items)

    monkeypatch.setattr("whence.adapters.anything.map_shards", mapped)
    one, cluster = model(vote()), model(vote(), workers=2, backend="ray")
    weights = torch.ones(3, 60)
    for a, b in zip(one.refits(weights), cluster.refits(weights), strict=True):
        assert torch.equal(a.outputs(one.train), b.outputs(cluster.train))
    assert asked == [(1, "process"), (2, "ray")]


@pytest.mark.parametrize(
    "detector",
    [
        IsolationForest(n_estimators=5, random_state=0),
        OneClassSVM(kernel="sigmoid", nu=0.2),
        LocalOutlierFactor(5, novelty=True),
        make_pipeline(StandardScaler(), LocalOutlierFactor(5, novelty=True)),
    ],
    ids=lambda one: type(one).__name__,
)
def test_the_score_of_a_row_by_refits_of_its_detector(detector: Any) -> None:
    x = wine()[0]
    fitted = clone(detector).fit(x[5:])
    found = whence.from_sklearn(fitted, x[5:], None)
    assert isinstance(found, Estimator)
    weights = torch.ones(55)
    weights[[3, 9]] = 0
    again = clone(detector).fit(np.delete(x[5:], [3, 9], 0))
    asked = found.examples((x[:5], np.zeros(5)))
    assert np.allclose(found.refit(weights).outputs(asked)[:, 0], again.score_samples(x[:5]))
    scores = whence.LeaveOneOut().fit(found).scores((x[:5], np.zeros(5)), indices=[3])
    alone = clone(detector).fit(np.delete(x[5:], 3, 0))
    expected = fitted.score_samples(x[:5]) - alone.score_samples(x[:5])
    assert np.allclose(scores.values[:, 0], expected)
    explanation = whence.explain(found, x[:1], k=2, method=whence.Retrained(fits=20))
    assert "predicts" in str(explanation)


class Halved(BaseEstimator):  # type: ignore[misc]
    """A sampler as imbalanced-learn has them: every second row of the commonest class is left."""

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        names, counts = np.unique(y, return_counts=True)
        common = np.flatnonzero(y == names[counts.argmax()])
        stays = np.setdiff1d(np.arange(len(y)), common[::2])
        return X[stays], y[stays]


class Resampled(Pipeline):  # type: ignore[misc]
    """A pipeline as imbalanced-learn has it: of a sampler and a classifier."""

    def fit(self, X: Any, y: Any) -> Any:
        self.steps[1][1].fit(*self.steps[0][1].fit_resample(X, y))
        return self

    def predict_proba(self, X: Any) -> Any:
        return self.steps[1][1].predict_proba(X)


@pytest.mark.parametrize(
    "last", [LogisticRegression(), DecisionTreeClassifier(max_depth=3, random_state=0)]
)
def test_a_pipeline_that_samples_rows_is_fitted_again_by_its_own_library(last: Any) -> None:
    X, y = load_wine(return_X_y=True)
    X, y = X[:120, :3], (y[:120] > 0).astype(int)
    sampled = Resampled([("halved", Halved()), ("last", last)])
    model = whence.from_sklearn(clone(sampled).fit(X, y), X, y)
    assert any("Got Halved, which makes other rows" in note for note in model.notes)
    again = clone(sampled).fit(np.delete(X, 3, 0), np.delete(y, 3))
    weights = model.weights.clone()
    weights[3] = 0
    shares = model.refit(weights).outputs(model.train).exp()
    np.testing.assert_allclose(shares, again.predict_proba(X).clip(0.5 / len(y)), rtol=1e-9)


@pytest.mark.parametrize("searched", [False, True])
def test_ctrl_c_that_the_library_makes_a_warning_of_ends_the_call(
    searched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = load_wine(return_X_y=True)
    model = MLPClassifier((3,), max_iter=3, random_state=0)
    asked = GridSearchCV(model, {"alpha": [0.1, 1.0]}, cv=2) if searched else model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained = whence.from_sklearn(asked.fit(X, y), X, y)

    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sklearn.neural_network._multilayer_perceptron.gen_batches", pressed)
    with pytest.raises(KeyboardInterrupt):
        whence.LeaveOneOut().fit(trained).scores((X[:2], y[:2]), indices=[3, 4])
