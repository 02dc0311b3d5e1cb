"""Diagnoses against dense spectra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import whence
from tests.linear.test_objective import CASES, hessian
from tests.network.zoo import ZOO, objective_of
from whence.curvature.exact import Gradients
from whence.errors import InvalidInput, NotConvergedWarning
from whence.methods import fit_quality as diagnostics
from whence.methods.fit_quality import fit_quality, product_and_fit
from whence.objective.objective import risk_gradient


def test_spectrum_of_a_linear_model() -> None:
    objective = CASES["softmax without intercept"]()
    exact = torch.linalg.eigvalsh(hessian(objective))
    found = whence.spectrum(objective, probes=32)
    assert found.ends.smallest == pytest.approx(float(exact[0]), rel=1e-6)
    assert found.ends.largest == pytest.approx(float(exact[-1]), rel=1e-6)
    assert found.density.trace() == pytest.approx(float(exact.sum()), rel=0.3)


def test_gauss_newton_is_never_negative() -> None:
    objective = objective_of("mlp")
    assert whence.spectrum(objective, matrix="ggn").ends.smallest > 0.1 - 1e-9
    with pytest.raises(InvalidInput, match="Got 'fisher'"):
        whence.spectrum(objective, matrix="fisher")  # type: ignore[arg-type]


def test_a_converged_fit() -> None:
    diagnosis = whence.diagnose(CASES["softmax"]().refit())
    assert diagnosis.minimum
    assert diagnosis.sufficient_damping == 0
    assert "Converged?        yes" in str(diagnosis)
    assert "none is needed" in str(diagnosis)


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


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
@pytest.mark.parametrize("name", ["mlp", "cnn", "gpt2"])
def test_the_quality_of_a_fit_noted_beside_other_products_is_the_same(name: str) -> None:
    alone, beside = objective_of(name), objective_of(name)
    V = torch.randn(len(beside.params), 3, dtype=torch.float64)
    found = product_and_fit(beside, Gradients(beside, beside.train, beside.loss), V)
    expected = alone.gradient_dot(alone.train, alone.loss, V)
    torch.testing.assert_close(found, expected)
    norm, in_examples = fit_quality(alone)
    assert fit_quality(beside) == pytest.approx((norm, in_examples), rel=1e-9)
    leaf = risk_gradient(alone)
    assert norm == pytest.approx(float(leaf.norm()), rel=1e-9)


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_the_quality_of_a_fit_noted_from_factors_is_the_same() -> None:
    alone, beside = objective_of("mlp"), objective_of("mlp")
    scores = whence.influence(beside, beside.train.subset(np.arange(2)), solver=whence.EKFAC())
    assert scores.diagnostics is not None
    norm = float(risk_gradient(alone).norm())
    assert scores.diagnostics.gradient_norm == pytest.approx(norm, rel=1e-9)
    n, gradients = len(alone.train), alone.gradient_columns(alone.train, alone.loss)
    pull = float((alone.weights * gradients).square().sum(0).mean().sqrt()) / n
    assert scores.diagnostics.gradient_in_examples == pytest.approx(norm / pull, rel=1e-9)
    assert diagnostics._FITS[beside] == fit_quality(beside)


def test_a_poor_fit_is_said_once() -> None:
    objective = objective_of("mlp")
    query = objective.train.subset(np.arange(1))
    with pytest.warns(NotConvergedWarning, match="typical") as record:
        whence.influence(objective, query, solver=whence.EKFAC())
    whence.influence(objective, query, solver=whence.EKFAC())  # a warning would be an error
    assert len(record) == 1
    assert record[0].filename == __file__


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_rounded_gradients_tell_the_quality_of_a_poor_fit_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model, data = ZOO["gpt2"]()
    for far, noted in ((0.0, True), (1e9, False)):
        monkeypatch.setattr(diagnostics, "_FAR", far)
        objective = whence.from_torch(model, whence.CrossEntropy(), data)
        rough = objective.halved()
        gradients = Gradients(rough, objective.train, objective.loss)
        product_and_fit(objective, gradients, torch.ones(len(objective.params), 1))
        assert (objective in diagnostics._FITS) == noted
        exact = float(risk_gradient(objective).norm())
        assert fit_quality(objective)[0] == pytest.approx(exact, rel=0.05 if noted else 1e-5)
