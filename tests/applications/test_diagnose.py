"""Diagnoses against dense spectra."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import whence
from tests.linear.test_objective import CASES, hessian
from tests.network.zoo import SIZE, objective_of
from whence.applications.diagnose import Diagnosis
from whence.curvature import minimum as curvature_minimum
from whence.curvature.exact import GGN
from whence.curvature.prepare import prepare
from whence.errors import InvalidInput, NotConvergedWarning
from whence.linalg import materialize
from whence.methods.finishing import finishing_effect
from whence.methods.fit_quality import FitQuality, fit_quality, warn_if_unfinished
from whence.objective.objective import Objective


def test_spectrum_of_a_linear_model() -> None:
    objective = CASES["softmax without intercept"]()
    exact = torch.linalg.eigvalsh(hessian(objective))
    found = whence.spectrum(objective, probes=32)
    assert found.ends.smallest == pytest.approx(float(exact[0]), rel=1e-6)
    assert found.ends.largest == pytest.approx(float(exact[-1]), rel=1e-6)
    assert found.density.trace() == pytest.approx(float(exact.sum()), rel=0.3)
    assert repr(found).endswith(f"eigenvalues from {exact[0]:.3g} to {exact[-1]:.3g}>")
    assert found.card().facts["products"] == f"{found.ends.iterations}"


def test_gauss_newton_is_never_negative() -> None:
    objective = objective_of("mlp")
    assert whence.spectrum(objective, matrix="ggn").ends.smallest > 0.1 - 1e-9
    with pytest.raises(InvalidInput, match="Got 'fisher'"):
        whence.spectrum(objective, matrix="fisher")  # type: ignore[arg-type]


def test_steps_and_starts_of_a_spectrum() -> None:
    objective = objective_of("mlp")
    exact = torch.linalg.eigvalsh(materialize(GGN(objective)))
    full = whence.spectrum(objective, matrix="ggn", iterations=10**6, probes=1)
    assert full.ends.iterations <= len(exact)
    assert full.ends.largest == pytest.approx(float(exact[-1]), rel=1e-9)
    assert full.ends.smallest == pytest.approx(float(exact[0]), rel=1e-9)
    few = whence.spectrum(objective, matrix="ggn", iterations=2, probes=3)
    assert few.ends.iterations == 2
    for estimate, error in (
        (few.ends.smallest, few.ends.smallest_error),
        (few.ends.largest, few.ends.largest_error),
    ):
        assert float(exact[0]) < estimate < float(exact[-1])
        assert float((exact - estimate).abs().min()) <= error
    assert len(few.density.nodes) == 3 * 2  # of each start as many as steps


def test_a_converged_fit() -> None:
    diagnosis = whence.diagnose(CASES["softmax"]().refit())
    assert diagnosis.minimum
    assert diagnosis.sufficient_damping == 0
    assert "Converged?        yes" in str(diagnosis)
    assert diagnosis.damping == 0
    assert "none: the objective is convex; of the Hessian" in str(diagnosis)


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_a_saddle_names_the_damping_that_mends_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    data = torch.randn(40, 3).double(), torch.randint(2, (40,))
    objective = whence.from_torch(model, whence.CrossEntropy(), data)
    diagnosis = whence.diagnose(objective)
    exact = torch.linalg.eigvalsh(objective.dense_hessian())
    assert not diagnosis.minimum
    assert diagnosis.smallest == pytest.approx(float(exact[0]), rel=1e-4)
    damped = objective.dense_hessian() + diagnosis.sufficient_damping * torch.eye(len(exact))
    assert float(torch.linalg.eigvalsh(damped)[0]) > 0
    assert "no: the smallest eigenvalue" in str(diagnosis)


@pytest.mark.parametrize(
    ("far", "minimum", "damping", "firm"),
    [(0.0, True, 0.0, True), (0.5, True, 0.0, False), (5.0, True, 0.0, False)]
    + [(0.0, False, 0.0, False), (0.0, True, 0.1, False)],
)
def test_a_page_trusts_influence_where_nothing_is_amiss(
    far: float, minimum: bool, damping: float, firm: bool, tmp_path: Path
) -> None:
    diagnosis = Diagnosis(
        gradient_norm=1e-3,
        gradient_in_examples=far,
        smallest=0.1,
        largest=2.0,
        minimum=minimum,
        sufficient_damping=0.3,
        curvature="Hessian",
        damping=damping,
        damping_reason="as asked",
    )
    page = diagnosis.report(tmp_path / "page.html").read_text("utf-8")
    assert ("Influence can be trusted on this model" in page) == firm
    assert ("It is at a minimum." in page) == minimum
    assert ("It is at no minimum." in page) != minimum
    assert ("The curvature is damped." in page) == (damping > 0)
    assert ("No damping is needed." in page) == (damping == 0)
    assert ("or more" in page) != minimum
    assert ("1.00e-01, as asked" in page) == (damping > 0)
    fit = "converged" if far == 0 else "nearly converged" if far == 0.5 else "not converged"
    assert f"The fit is {fit}." in page


def test_a_direction_without_curvature_is_a_minimum_that_needs_damping() -> None:
    """A column of zeros, as differentiation sees it: nothing names the direction."""
    torch.manual_seed(0)
    x, y = torch.randn(30, 3).double(), torch.randn(30, 1).double()
    x[:, 1] = 0
    solution = torch.linalg.lstsq(x[:, [0, 2]], y).solution.flatten()
    model = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.stack([solution[0], torch.tensor(0.3), solution[1]])[None])
    objective = whence.from_torch(model, whence.SquaredError(), (x, y))
    diagnosis = whence.diagnose(objective)
    assert diagnosis.minimum
    assert diagnosis.sufficient_damping > 0


def gradients(objective: Objective) -> Tensor:
    """(wᵢ/n) gᵢ as columns, [p, n]."""
    weights = objective.weights / len(objective.train)
    return objective.gradient_columns(objective.train, objective.loss) * weights


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
@pytest.mark.parametrize("solver", [None, whence.EKFAC()])
@pytest.mark.parametrize("name", ["mlp", "cnn", "gpt2"])
def test_the_quality_of_a_fit_is_its_newton_decrement(name: str, solver: Any) -> None:
    objective = objective_of(name)
    prepared = prepare(objective, 1, solver=solver, damping=0.5)
    inverse = materialize(prepared.inverse)
    each = gradients(objective)
    slope = each.sum(1) + objective.l2 * objective.params
    typical = float((each * (inverse @ each)).sum(0).mean().sqrt())
    found = fit_quality(objective, prepared)
    assert found.gradient_norm == pytest.approx(float(slope.norm()), rel=1e-9)
    expected = float((slope @ inverse @ slope).sqrt()) / typical
    assert found.in_examples == pytest.approx(expected, rel=0.4)  # eight random sums


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_a_sample_tells_the_size_of_a_typical_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for most in (SIZE, SIZE // 2):
        monkeypatch.setattr(curvature_minimum, "_TYPICAL", most)
        objective = objective_of("mlp")
        found.append(fit_quality(objective, prepare(objective, 1, damping=0.5)))
    assert found[0].gradient_norm == pytest.approx(found[1].gradient_norm, rel=1e-9)
    assert found[0].in_examples == pytest.approx(found[1].in_examples, rel=0.5)
    assert found[0].in_examples != found[1].in_examples


def unfinished(scale: float) -> Any:
    """An unpenalized logistic model some way from its optimum, its first column in other units."""
    x, y = load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x[:, :4])
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(x, y)
    model.coef_ += 0.3
    model.coef_[0, 0] /= scale
    x[:, 0] *= scale
    return whence.from_sklearn(model, x, y), x[:5], y[:5]


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_convergence_does_not_depend_on_the_units_of_columns() -> None:
    found, norms = [], []
    for scale in (1.0, 1e4):
        objective, x, y = unfinished(scale)
        measured = whence.influence(objective, (x, y)).diagnostics
        decrement = fit_quality(objective, prepare(objective, 1)).in_examples
        found.append((measured.gradient_in_examples, measured.unfinished, decrement))
        norms.append(measured.gradient_norm)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
    assert norms[1] > 100 * norms[0]


@pytest.mark.parametrize("order", ["first", "newton"])
@pytest.mark.parametrize("indices", [None, [3, 8]])
def test_what_finishing_would_change_stands_beside_what_is_shown(
    order: Any, indices: list[int] | None
) -> None:
    objective, x, y = unfinished(1.0)
    with pytest.warns(NotConvergedWarning, match="times the largest effect shown"):
        scores = whence.influence(objective, (x, y), order=order, indices=indices)
    finished = objective.refit()
    queries = objective.examples((x, y))
    step = (objective.params - finished.params).unsqueeze(1)
    change = objective.gradient_dot(queries, objective.loss, step).norm()
    sizes = np.linalg.norm(scores.values, axis=0)
    assert scores.diagnostics.unfinished == pytest.approx(float(change) / sizes.max(), rel=0.5)
    typical = float(change) / np.sqrt((sizes**2).mean())
    assert scores.diagnostics.gradient_in_examples == pytest.approx(typical, rel=0.5)
    assert scores.diagnostics.fit == "not converged"
    assert whence.influence(finished, (x, y), order=order).diagnostics.fit == "converged"


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
@pytest.mark.parametrize("name", ["mlp", "bert"])
def test_sums_of_scores_say_the_same_as_the_gradient(name: str) -> None:
    objective = objective_of(name)
    query = objective.train.subset(np.arange(3))
    options = {"solver": whence.EKFAC(), "damping": 0.5}
    found = whence.influence(objective, query, **options)
    prepared = prepare(objective, 3, **options)
    exact = finishing_effect(objective, prepared, query, objective.loss).norm()
    sizes = np.linalg.norm(found.values, axis=0)
    assert found.diagnostics.gradient_norm is None  # no pass over the data was spent on it
    assert not any("bfloat16" in note for note in found.diagnostics.notes)
    assert found.diagnostics.unfinished == pytest.approx(float(exact) / sizes.max(), rel=1e-6)
    some = whence.influence(objective, query, indices=[0, 2], **options)
    expected = float(exact) / sizes[[0, 2]].max()
    assert some.diagnostics.unfinished == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("load", "n", "most", "stopped", "told"),
    [
        (load_breast_cancer, 300, 100, True, True),
        (load_breast_cancer, 300, 1_000, True, True),
        (load_breast_cancer, 300, 2_000, True, False),  # within a hundredth of what is shown
        (load_digits, 130, 1_000, False, True),  # scikit-learn has arrived; what is shown has not
        (load_iris, 120, 100, False, False),
    ],
)
def test_a_fit_is_told_to_be_unfinished_by_what_is_shown(
    load: Any, n: int, most: int, stopped: bool, told: bool
) -> None:
    x, y = load(return_X_y=True)
    if load is not load_breast_cancer:
        order = np.random.default_rng(1).permutation(len(y))
        x, y = x[order], y[order]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = LogisticRegression(max_iter=most).fit(x[:n], y[:n])
    assert [warning.category for warning in said] == [ConvergenceWarning] * stopped
    objective = whence.from_sklearn(model, x[:n], y[:n])
    asked = np.arange(n, len(y))[100:150] if load is load_breast_cancer else slice(n, n + 30)
    queries = objective.examples((x[asked], y[asked]))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scores = whence.influence(objective, queries)
    assert [warning.category for warning in said] == [NotConvergedWarning] * told
    finished = objective.refit()
    losses = [objective.loss(of.outputs(queries), queries.targets) for of in (objective, finished)]
    change = float((losses[1] - losses[0]).norm())
    largest = np.linalg.norm(scores.values, axis=0).max()
    assert (change > 0.4 * largest) == told


@pytest.mark.parametrize(
    ("in_examples", "of_largest", "warns"),
    [(1.0, None, False), (1.1, None, True), (5.0, 0.5, False), (0.4, 0.51, True)],
)
def test_a_fit_is_poor_that_would_move_further_than_what_is_shown(
    in_examples: float, of_largest: float | None, warns: bool
) -> None:
    objective = CASES["softmax"]()
    quality = FitQuality(gradient_norm=0.1, in_examples=in_examples, of_largest=of_largest)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warn_if_unfinished(objective, quality)
    assert len(said) == warns


def test_a_poor_fit_is_said_once() -> None:
    objective = objective_of("mlp")
    query = objective.train.subset(np.arange(1))
    with pytest.warns(NotConvergedWarning, match="typical") as record:
        whence.influence(objective, query, solver=whence.EKFAC())
    whence.influence(objective, query, solver=whence.EKFAC())  # a warning would be an error
    assert len(record) == 1
    assert record[0].filename == __file__
