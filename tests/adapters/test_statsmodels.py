"""Models of statsmodels: refits and removals are what statsmodels' own fit gives."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

import whence
from whence.errors import UnsupportedModel
from whence.objective.objective import Objective

sm: Any = pytest.importorskip("statsmodels.api")
smf: Any = pytest.importorskip("statsmodels.formula.api")
ordinal: Any = pytest.importorskip("statsmodels.miscmodels.ordinal_model")
rolling: Any = pytest.importorskip("statsmodels.regression.rolling")

_ROWS = 150


@cache
def affairs() -> pd.DataFrame:
    """Return answers of women about their marriages, in a random order."""
    frame = sm.datasets.fair.load_pandas().data.sample(n=_ROWS + 6, random_state=0)
    frame = frame.reset_index(drop=True)
    frame["any"] = (frame["affairs"] > 0).astype(int)
    frame["children"] = frame["children"].round()
    frame["happy"] = np.minimum(frame["rate_marriage"].round(), 4) - 2
    return frame


def rows(frame: pd.DataFrame) -> pd.DataFrame:
    return sm.add_constant(frame[["age", "religious", "educ"]], has_constant="add")


def fit(name: str, frame: pd.DataFrame) -> Any:
    """Return a model fitted to some rows."""
    x, weights = rows(frame), 1.0 + (frame["age"] > 27)
    offset = np.log(frame["educ"])
    families = sm.families
    tight = {"disp": 0, "tol": 1e-12} if name in ("logit", "poisson", "poisson, exposure") else {}
    if name == "counts with a shape":
        tight = {"disp": 0}
    models: dict[str, Any] = {
        "ols": lambda: sm.OLS(frame["yrs_married"], x),
        "wls": lambda: sm.WLS(frame["yrs_married"], x, weights=weights),
        "logit": lambda: sm.Logit(frame["any"], x),
        "mnlogit": lambda: sm.MNLogit(frame["happy"], x),
        "poisson": lambda: sm.Poisson(frame["children"], x),
        "binomial": lambda: sm.GLM(
            frame["any"], x, family=families.Binomial(), freq_weights=weights
        ),
        "gamma": lambda: sm.GLM(
            frame["yrs_married"], x, family=families.Gamma(families.links.Log())
        ),
        "tweedie": lambda: sm.GLM(
            frame["affairs"], x, family=families.Tweedie(var_power=1.5), var_weights=weights
        ),
        "poisson, exposure": lambda: sm.Poisson(frame["children"], x, exposure=frame["age"]),
        "tweedie, offset": lambda: sm.GLM(
            frame["affairs"], x, family=families.Tweedie(var_power=1.5), offset=offset
        ),
        "normal, offset": lambda: sm.GLM(frame["yrs_married"], x, offset=offset),
        "formula": lambda: smf.ols("yrs_married ~ age + C(happy) + np.log(educ)", frame),
        "quantile": lambda: sm.QuantReg(frame["yrs_married"], x),
        "quantile, formula": lambda: smf.quantreg("yrs_married ~ age + C(happy)", frame),
        "robust": lambda: sm.RLM(frame["yrs_married"], x),
        "robust, options": lambda: sm.RLM(
            frame["yrs_married"], x, M=sm.robust.norms.TukeyBiweight()
        ),
        "gls": lambda: sm.GLS(frame["yrs_married"], x),
        "gls, variances": lambda: sm.GLS(frame["yrs_married"], x, sigma=1 / weights),
        "probit link": lambda: sm.GLM(
            frame["any"], x, family=families.Binomial(families.links.Probit())
        ),
        "counts with a shape": lambda: sm.NegativeBinomial(frame["affairs"], x),
        "counts with zeros": lambda: sm.ZeroInflatedPoisson(frame["affairs"].round(), x),
        "stopped": lambda: sm.Probit(frame["any"], x),
    }
    if name in ("binomial", "gamma", "tweedie", "tweedie, offset", "normal, offset"):
        tight = {"tol": 1e-12}
    if name in ("stopped", "counts with zeros"):
        tight = {"disp": 0, "maxiter": 2 if name == "stopped" else 200}
    if name == "robust, options":
        tight = {"scale_est": sm.robust.scale.HuberScale()}
    if name == "quantile, formula":
        tight = {"q": 0.8}
    if name == "mnlogit":
        tight = {"disp": 0, "method": "newton", "maxiter": 100}
    return models[name]().fit(**tight)


_TARGETS = {
    "logit": "any",
    "binomial": "any",
    "mnlogit": "happy",
    "poisson": "children",
    "probit link": "any",
    "counts with a shape": "affairs",
    "counts with zeros": "affairs",
    "stopped": "any",
    "tweedie": "affairs",
    "poisson, exposure": "children",
    "tweedie, offset": "affairs",
}
_EXACT = (
    "ols",
    "wls",
    "gls",
    "gls, variances",
    "logit",
    "mnlogit",
    "poisson",
    "binomial",
    "gamma",
    "tweedie",
    "formula",
    "poisson, exposure",
    "tweedie, offset",
    "normal, offset",
)
_BY_PREDICTIONS = (
    "quantile",
    "quantile, formula",
    "robust",
    "robust, options",
    "probit link",
    "counts with a shape",
    "counts with zeros",
    "stopped",
)


def queries(name: str) -> tuple[Any, Any]:
    some = affairs()[_ROWS:]
    return (some if "formula" in name else rows(some)), some[_TARGETS.get(name, "yrs_married")]


def said(results: Any, asked: Any) -> np.ndarray:
    return np.asarray(results.predict(asked)).reshape(len(asked), -1)


def says(model: whence.Trained, asked: Any) -> np.ndarray:
    """Return what whence's model says, in the terms of statsmodels."""
    examples = model.examples(asked)
    outputs = model.outputs(examples)
    shares = model.loss.probabilities(outputs)
    if shares is not None:
        return np.asarray(shares[:, 1:] if shares.shape[1] == 2 else shares)
    return np.asarray(model.loss.prediction(outputs, examples.targets)).reshape(-1, 1)


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
@pytest.mark.filterwarnings("ignore:Maximum Likelihood optimization failed")
@pytest.mark.parametrize("name", [*_EXACT, *_BY_PREDICTIONS])
def test_a_refit_is_the_own_fit_of_statsmodels(name: str) -> None:
    frame = affairs()[:_ROWS]
    model = whence.from_statsmodels(fit(name, frame))
    assert isinstance(model, Objective) == (name in _EXACT)
    asked = queries(name)
    np.testing.assert_allclose(says(model, asked), said(fit(name, frame), asked[0]), atol=1e-7)
    weights = model.weights.clone()
    weights[[3, 7, 20]] = 0
    again = fit(name, frame.drop(index=[3, 7, 20]))
    np.testing.assert_allclose(says(model.refit(weights), asked), said(again, asked[0]), atol=1e-5)


@pytest.mark.parametrize("name", _EXACT)
def test_the_refined_order_is_removal(name: str) -> None:
    model = whence.from_statsmodels(fit(name, affairs()[:_ROWS]))
    assert isinstance(model, Objective)
    where = np.arange(0, _ROWS, 11)
    predicted = whence.influence(model, queries(name), order="refined", indices=where).values
    actual = whence.leave_one_out(model, where, queries(name))
    assert np.corrcoef(predicted.ravel(), actual.ravel())[0, 1] > 0.999


@pytest.mark.filterwarnings("ignore:Perfect separation")
@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
def test_what_has_no_treatment_says_what_to_do() -> None:
    frame = affairs()[:_ROWS]
    x = rows(frame)
    with pytest.raises(UnsupportedModel, match="without a penalty"):
        whence.from_statsmodels(sm.OLS(frame["age"], x).fit_regularized(alpha=0.1))
    with pytest.raises(UnsupportedModel, match="without a penalty"):
        whence.from_statsmodels(sm.Logit(frame["any"], x).fit_regularized(alpha=0.1, disp=0))
    near = np.subtract.outer(np.arange(_ROWS), np.arange(_ROWS))
    correlated = sm.GLS(frame["age"], x, sigma=0.5 ** np.abs(near)).fit()
    with pytest.raises(UnsupportedModel, match="Got GLS with a covariance of rows"):
        whence.from_statsmodels(correlated)
    grouped = sm.GEE(frame["age"], x, groups=np.arange(_ROWS) // 5).fit()
    with pytest.raises(UnsupportedModel, match="Got groups and time"):
        whence.from_statsmodels(grouped)
    for chosen in (
        sm.OLS(frame["age"], x).fit_regularized(alpha=1.0, refit=True),
        smf.ols("age ~ educ + religious", frame).fit_regularized(alpha=1.0, refit=True),
        sm.GLM(frame["age"], x).fit_regularized(alpha=1.0, refit=True),
    ):
        with pytest.raises(UnsupportedModel, match="chose them by a penalty"):
            whence.from_statsmodels(chosen)
    offset = sm.Logit(frame["any"], x, offset=0.1 * frame["religious"]).fit(disp=0)
    with pytest.raises(UnsupportedModel, match="Got a Logit"):
        whence.from_statsmodels(offset)
    shares = sm.GLM(frame["any"] * 0.5, x, family=sm.families.Binomial()).fit()
    with pytest.raises(UnsupportedModel, match="of 0 and 1"):
        whence.from_statsmodels(shares)
    counts = smf.poisson("children ~ age + educ", frame)
    for constrained in (counts, smf.glm("children ~ age + educ", frame)):
        with pytest.raises(UnsupportedModel, match="without constraints"):
            whence.from_statsmodels(constrained.fit_constrained("age = 0.01", disp=0))
    emptied = fit("ols", frame)
    emptied.remove_data()
    with pytest.raises(UnsupportedModel, match="remove_data"):
        whence.from_statsmodels(emptied)
    with pytest.raises(UnsupportedModel, match=r"returned.*RollingRegressionResults"):
        whence.from_statsmodels(rolling.RollingOLS(frame["yrs_married"], x, window=50).fit())
    with pytest.raises(UnsupportedModel, match="gives again for the same rows"):
        whence.from_statsmodels(sm.RLM(frame["yrs_married"], x).fit(maxiter=1))
    ordered = ordinal.OrderedModel(frame["happy"], frame[["age"]]).fit(disp=0)
    with pytest.raises(UnsupportedModel, match=r"one prediction for each of 150 rows.*\[150, 4\]"):
        whence.from_statsmodels(ordered)
    with pytest.raises(UnsupportedModel, match="made and fitted again"):
        whence.from_statsmodels(sm.RecursiveLS(frame["yrs_married"], x).fit())
    with pytest.raises(UnsupportedModel, match="returned"):
        whence.from_statsmodels(sm.OLS(frame["age"], x))


def test_a_formula_asks_queries_for_the_columns_that_it_reads() -> None:
    """The target and columns that the formula does not name are no inputs, in queries or edits."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(40, 10, 80), "team": rng.choice(["a", "b"], 80)})
    frame["note"], frame["size"] = "none", np.exp(rng.normal(size=80))
    frame["paid"] = 2 * frame["age"] + rng.normal(size=80)
    results = smf.ols("paid ~ age + C(team) + np.log(size)", frame).fit()
    objective = whence.from_statsmodels(results)
    query = frame[["size", "team", "age"]].iloc[:2], frame["paid"][:2]
    scores = whence.influence(objective, query, order="refined", indices=[3])
    again = smf.ols("paid ~ age + C(team) + np.log(size)", frame.drop(index=3)).fit()
    assert np.allclose(
        scores.values[:, 0],
        [
            ((fit_again - y) ** 2 - (fit - y) ** 2) / 2
            for fit, fit_again, y in zip(
                results.predict(query[0]), again.predict(query[0]), query[1], strict=True
            )
        ],
        rtol=1e-8,
    )
    assert [*objective.train.inputs.columns] == ["age", "team", "size"]


@pytest.mark.filterwarnings("ignore:Maximum Likelihood optimization failed")
def test_a_fit_that_stopped_says_so() -> None:
    frame = affairs()[:_ROWS]
    x, query = rows(frame), (rows(frame)[:2], frame["any"][:2])
    for results in (
        sm.Logit(frame["any"], x).fit(disp=0, maxiter=2),
        sm.GLM(frame["any"], x, family=sm.families.Binomial()).fit(maxiter=2),
    ):
        scores = whence.influence(whence.from_statsmodels(results), query)
        assert "stopped before it converged" in str(scores.diagnostics)
    assert "stopped" not in str(whence.influence(model_of("logit"), query).diagnostics)
    assert any("stopped before" in note for note in model_of("stopped").notes)


def model_of(name: str) -> whence.Trained:
    return whence.from_statsmodels(fit(name, affairs()[:_ROWS]))


def test_rows_of_one_name_and_missing_values() -> None:
    """The rows of a formula are found by their positions, not by an index that repeats."""
    frame = affairs()[:_ROWS].copy()
    frame.loc[[2, 31, 60], "educ"] = np.nan
    frame.index = frame.index // 2
    model = whence.from_statsmodels(smf.ols("yrs_married ~ age + educ", frame).fit())
    there = frame.dropna()
    assert len(model.train) == len(there)
    np.testing.assert_array_equal(model.train.inputs["age"], there["age"])
    weights = model.weights.clone()
    weights[[4, 9]] = 0
    stay = there.iloc[np.setdiff1d(np.arange(len(there)), [4, 9])]
    asked = affairs()[_ROWS:], affairs()["yrs_married"][_ROWS:]
    again = smf.ols("yrs_married ~ age + educ", stay).fit()
    np.testing.assert_allclose(says(model.refit(weights), asked), said(again, asked[0]), atol=1e-8)


@pytest.mark.parametrize("kind", ["OLS", "RLM"])
def test_rows_of_an_array_keep_their_numbers_where_some_are_missing(kind: str) -> None:
    x, y = rows(affairs()).to_numpy(), affairs()["yrs_married"].to_numpy(copy=True)
    y[[2, 5]] = np.nan
    results = getattr(sm, kind)(y, x, missing="drop").fit()
    model = whence.from_statsmodels(results)
    assert model.train.ids[:5].tolist() == [0, 1, 3, 4, 6]
    asked = x[:2], y[:2]
    np.testing.assert_allclose(says(model, asked), said(results, asked[0]), atol=1e-8)


def test_categories_in_an_order_of_their_own() -> None:
    """Classes are named as statsmodels codes them: by the categories, not by the alphabet."""
    frame = affairs()[:_ROWS]
    names = {2: "good", 1: "ok", 0: "bad", -1: "awful", -2: "awful"}
    moods = pd.Series(
        pd.Categorical(frame["happy"].map(names), ["good", "ok", "bad", "awful"]), frame.index
    )
    results = sm.MNLogit(moods, rows(frame)).fit(disp=0, maxiter=100)
    model = whence.from_statsmodels(results)
    shares = pd.DataFrame(
        np.asarray(results.predict(rows(frame))), columns=["good", "ok", "bad", "awful"]
    )
    queries = rows(frame)[:9], moods[:9]
    losses = model.loss(model.outputs(model.examples(queries)), model.examples(queries).targets)
    expected = [-np.log(shares.loc[row, mood]) for row, mood in enumerate(moods[:9])]
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert [model.classes[at] for at in model.train.targets] == moods.tolist()
