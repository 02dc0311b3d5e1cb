"""Proportional hazards: refits and removals are what lifelines and scikit-survival fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from whence.adapters.survival import Cox, Hazard
from whence.errors import InvalidInput, NotFitted, UnsupportedModel
from whence.fitting.partial_likelihood import PartialLikelihood

lifelines: Any = pytest.importorskip("lifelines")
lifelines_data: Any = pytest.importorskip("lifelines.datasets")

_TIGHT = {"precision": 1e-13}
_COLUMNS = ["fin", "age", "race", "prio"]


@pytest.fixture(scope="module")
def survival() -> Any:
    """Return scikit-survival's linear models, which some versions of Python have no wheel for."""
    return pytest.importorskip("sksurv.linear_model")


@pytest.fixture(scope="module")
def rossi() -> pd.DataFrame:
    """Return prisoners and the week of their next arrest; many ties."""
    frame = lifelines_data.load_rossi().sample(n=160, random_state=0).reset_index(drop=True)
    frame["many"] = 1.0 + (frame["age"] > 24)
    frame["start"] = np.minimum(np.arange(160.0) % 12, frame["week"] - 1)
    return frame[[*_COLUMNS, "week", "arrest", "many", "start"]]


def columns_of(options: dict[str, Any]) -> list[str]:
    """Return the columns of a fit with these options."""
    extra = [name for name in ("many", "start") if name in options.values()]
    return [*_COLUMNS, "week", "arrest", *extra]


def lifelines_fit(frame: pd.DataFrame, penalizer: float = 0.0, **options: Any) -> Any:
    return lifelines.CoxPHFitter(penalizer=penalizer).fit(
        frame[columns_of(options)],
        "week",
        "arrest",
        fit_options=_TIGHT,
        robust="weights_col" in options,
        **options,
    )


def structured(frame: pd.DataFrame) -> Any:
    return np.array(
        list(zip(frame["arrest"] > 0, frame["week"], strict=True)),
        dtype=[("arrested", bool), ("week", float)],
    )


def sksurv_fit(survival: Any, frame: pd.DataFrame, ties: str, alpha: float) -> Any:
    model = survival.CoxPHSurvivalAnalysis(alpha=alpha, ties=ties, tol=1e-14)
    return model.fit(frame[_COLUMNS].astype(float), structured(frame))


def asked(frame: pd.DataFrame) -> tuple[Any, Any]:
    return frame[:6], frame[["week", "arrest"]][:6]


def naive(beta: torch.Tensor, part: PartialLikelihood) -> torch.Tensor:
    """−log L + penalty, term by term."""
    x, w = torch.from_numpy(part.x), torch.tensor(part.weights)
    risk, total = w * torch.exp(x @ beta), beta.new_zeros(())
    for time in np.unique(part.time[part.event]):
        late = np.zeros(len(x), dtype=bool) if part.entry is None else part.entry >= time
        at = torch.from_numpy((part.time >= time) & ~late)
        dead = torch.from_numpy((part.time == time) & part.event)
        m = int(dead.sum())
        total = total - (w[dead] * (x[dead] @ beta)).sum()
        for rank in range(m):
            share = rank / m if part.efron else 0.0
            total = total + w[dead].mean() * (risk[at].sum() - share * risk[dead].sum()).log()
    return total + 0.5 * (torch.from_numpy(part.penalty) * beta.square()).sum()


@pytest.mark.parametrize(("efron", "late"), [(True, False), (False, False), (True, True)])
def test_the_likelihood_is_the_sum_of_its_terms(
    efron: bool, late: bool, rossi: pd.DataFrame
) -> None:
    part = PartialLikelihood(
        x=rossi[_COLUMNS].to_numpy(float) / 10,
        time=(rossi["week"] // 10).to_numpy(float),
        event=(rossi["arrest"] > 0).to_numpy(),
        weights=rossi["many"].to_numpy(),
        efron=efron,
        penalty=np.full(4, 0.3),
        entry=(rossi["week"] // 10).to_numpy() - 1.0 - np.arange(160) % 3 if late else None,
    )
    beta = torch.tensor([0.2, -0.4, 0.3, 0.5], dtype=torch.float64, requires_grad=True)
    value = naive(beta, part)
    (gradient,) = torch.autograd.grad(value, beta)
    hessian = torch.autograd.functional.hessian(lambda b: naive(b, part), beta.detach())
    at = beta.detach().numpy()
    assert part.value(at) == pytest.approx(float(value.detach()))
    found = part.derivatives(at)
    np.testing.assert_allclose(found[0], gradient, rtol=1e-9)
    np.testing.assert_allclose(found[1], hessian, rtol=1e-9)


OPTIONS: dict[str, tuple[float, dict[str, Any]]] = {
    "plain": (0.0, {}),
    "penalty": (0.1, {}),
    "weights": (0.0, {"weights_col": "many"}),
    "strata": (0.1, {"strata": ["race"]}),
    "late entry": (0.0, {"entry_col": "start"}),
    "both": (0.1, {"strata": ["race", "fin"], "entry_col": "start", "weights_col": "many"}),
    "clusters": (0.1, {"cluster_col": "start"}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_removals_are_refits_by_lifelines(name: str, rossi: pd.DataFrame) -> None:
    penalizer, options = OPTIONS[name]
    fitter = lifelines_fit(rossi, penalizer, **options)
    model = whence.from_lifelines(fitter, rossi[columns_of(options)])
    np.testing.assert_allclose(model.refit().beta, fitter.params_, atol=1e-7)
    where, names = [3, 20, 77], fitter.params_.index
    actual = whence.leave_one_out(model, where, asked(rossi), measure="prediction")
    for column, row in enumerate(where):
        again = lifelines_fit(rossi.drop(index=row), penalizer, **options)
        change = rossi[names][:6].to_numpy(float) @ (again.params_ - fitter.params_).to_numpy()
        np.testing.assert_allclose(actual[:, column], change, atol=1e-7)


@pytest.mark.parametrize("name", ["plain", "strata", "late entry", "both"])
def test_a_row_is_compared_with_those_at_risk_with_it(name: str, rossi: pd.DataFrame) -> None:
    penalizer, options = OPTIONS[name]
    frame = rossi[columns_of(options)]
    model = whence.from_lifelines(lifelines_fit(rossi, penalizer, **options), frame)
    outputs, week = model.outputs(model.train).numpy(), frame["week"].to_numpy()
    kinds = [frame[kind].to_numpy() for kind in options.get("strata", [])]
    late = frame["start"].to_numpy() if "entry_col" in options else np.full(160, -1.0)
    for row in range(160):
        beside = (late < week[row]) & (week >= week[row])
        for kind in kinds:
            beside &= kind == kind[row]
        risk = (model.weights.numpy() * np.exp(outputs[:, 0]))[beside].sum()
        assert outputs[row, 1] == pytest.approx(np.log(risk))
    frame = frame.assign(race=9, fin=9, week=60)[:2]  # of no stratum, after the last week
    alone = model.outputs(model.examples((frame, [[60.0, 1.0]] * 2))).numpy()
    np.testing.assert_array_equal(alone[:, 0], alone[:, 1])


@pytest.mark.parametrize(("ties", "alpha"), [("breslow", 0.0), ("efron", 0.5)])
def test_removals_are_refits_by_scikit_survival(
    ties: str, alpha: float, survival: Any, rossi: pd.DataFrame
) -> None:
    fitted = sksurv_fit(survival, rossi, ties, alpha)
    x = rossi[_COLUMNS].astype(float)
    model = whence.from_sklearn(fitted, x, structured(rossi))
    assert isinstance(model, Cox)
    queries = x[:6], structured(rossi[:6])
    examples = model.examples(queries)
    np.testing.assert_allclose(model.outputs(examples)[:, 0], fitted.predict(x[:6]))
    scores = whence.LeaveOneOut().fit(model).scores(queries, measure="prediction", indices=[3, 20])
    for column, row in enumerate([3, 20]):
        again = sksurv_fit(survival, rossi.drop(index=row), ties, alpha)
        change = again.predict(x[:6]) - fitted.predict(x[:6])
        np.testing.assert_allclose(scores.values[:, column], change, atol=1e-6)
    event = rossi.index[rossi["arrest"] > 0][:1]
    explanation = whence.explain(model, (x.loc[event], structured(rossi.loc[event])), k=3)
    assert explanation.verify(5).r > 0.999


def test_the_loss_is_a_rows_part_of_the_likelihood(rossi: pd.DataFrame) -> None:
    model = whence.from_lifelines(lifelines_fit(rossi), rossi[columns_of({})])
    outputs, targets = model.outputs(model.train), model.train.targets
    losses = model.loss(outputs, targets)
    assert isinstance(model.loss, Hazard)
    assert not losses[targets[:, 1] == 0].any()
    part = PartialLikelihood(
        x=model.matrix,
        time=targets[:, 0].numpy(),
        event=targets[:, 1].numpy() > 0,
        weights=np.ones(len(targets)),
        efron=False,
        penalty=np.zeros(4),
    )
    assert float(losses.sum()) == pytest.approx(part.value(model.beta))


def test_what_has_no_treatment_says_what_to_do(rossi: pd.DataFrame) -> None:
    frame = rossi[columns_of({})]
    with pytest.raises(NotFitted, match="before"):
        whence.from_lifelines(lifelines.CoxPHFitter(), frame)
    lasso = lifelines.CoxPHFitter(penalizer=0.1, l1_ratio=0.5).fit(frame, "week", "arrest")
    with pytest.raises(UnsupportedModel, match="l1_ratio=0"):
        whence.from_lifelines(lasso, frame)
    strata = lifelines_fit(rossi, strata=["race"])
    with pytest.raises(InvalidInput, match="with 'race'"):
        whence.from_lifelines(strata, frame.drop(columns="race"))
    with pytest.raises(UnsupportedModel, match="CoxPHFitter of lifelines"):
        whence.from_lifelines(lifelines.KaplanMeierFitter(), frame)
    model = whence.from_lifelines(lifelines_fit(rossi), frame)
    with pytest.raises(InvalidInput, match="0 or 1"):
        model.examples((frame[:2], np.array([[1.0, 4.0], [1.0, 7.0]])))
    with pytest.raises(InvalidInput, match="time, event"):
        model.examples((frame[:2], np.array([1.0, 4.0])))
    censored = model.weights * (model.train.targets[:, 1] == 0)
    with pytest.raises(InvalidInput, match="at least one event"):
        model.refit(censored)


@pytest.mark.filterwarnings("ignore:Newton-Raphson failed", "ignore:Optimization did not")
def test_a_fit_that_stopped_says_so(survival: Any, rossi: pd.DataFrame) -> None:
    frame, stopped = rossi[columns_of({})], "stopped before the maximum"
    for options, said in (({}, False), ({"max_steps": 2}, True)):
        fitter = lifelines.CoxPHFitter().fit(frame, "week", "arrest", fit_options=options)
        assert any(stopped in note for note in whence.from_lifelines(fitter, frame).notes) == said
    x, y = rossi[_COLUMNS].astype(float), structured(rossi)
    for steps, said in ((100, False), (2, True)):
        fit = survival.CoxPHSurvivalAnalysis(n_iter=steps).fit(x, y)
        assert any(stopped in note for note in whence.from_sklearn(fit, x, y).notes) == said


def test_other_models_of_survival_are_told_apart(survival: Any, rossi: pd.DataFrame) -> None:
    x, y = rossi[_COLUMNS].astype(float), structured(rossi)
    scaled = make_pipeline(StandardScaler(), survival.CoxPHSurvivalAnalysis()).fit(x, y)
    with pytest.raises(InvalidInput, match="CoxPHSurvivalAnalysis for targets .* Got a Pipeline"):
        whence.from_sklearn(scaled, x, y)


@pytest.mark.filterwarnings("ignore:Column")  # lifelines finds its variance low
@pytest.mark.parametrize("move", ["small", "large", "shifted"])
def test_a_column_of_any_unit(rossi: pd.DataFrame, move: str) -> None:
    frame, times = rossi.astype(float), {"small": 1e-9, "large": 1e9, "shifted": 1.0}[move]
    frame["age"] = frame["age"] * times + (1e6 if move == "shifted" else 0.0)
    model = whence.from_lifelines(lifelines_fit(frame), frame[columns_of({})])
    plain = rossi.astype(float)
    # The library's own fit in its own unit: lifelines itself loses digits in others.
    for index in (3, 30):
        weights = model.weights.clone()
        weights[index] = 0
        beta = lifelines_fit(plain.drop(index=index)).params_.to_numpy().copy()
        beta[_COLUMNS.index("age")] /= times
        refit = model.refit(weights)
        assert isinstance(refit, Cox)
        np.testing.assert_allclose(refit.beta, beta, rtol=1e-6)
