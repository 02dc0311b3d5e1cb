"""Diagnoses against dense spectra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import whence
from tests.linear.test_objective import CASES, hessian
from tests.network.zoo import SIZE, objective_of
from whence.errors import InvalidInput, NotConvergedWarning
from whence.methods import fit_quality as quality
from whence.methods.fit_quality import fit_quality


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
@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
@pytest.mark.parametrize("name", ["mlp", "cnn", "gpt2"])
def test_the_quality_of_a_fit_is_that_of_all_gradients(name: str) -> None:
    objective = objective_of(name)
    n = len(objective.train)
    each = objective.gradient_columns(objective.train, objective.loss) * objective.weights / n
    norm = float((each.sum(1) + objective.l2 * objective.params).norm())
    typical = float(each.square().sum(0).mean().sqrt())
    found = fit_quality(objective)
    assert found[0] == pytest.approx(norm, rel=1e-9)
    assert found[1] == pytest.approx(norm / typical, rel=0.3)  # 16 random signs


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_a_sample_tells_the_size_of_a_typical_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit_quality(objective_of("mlp"))
    monkeypatch.setattr(quality, "_TYPICAL", SIZE // 2)
    norm, in_examples = fit_quality(objective_of("mlp"))
    assert norm == pytest.approx(whole[0], rel=1e-9)
    assert in_examples == pytest.approx(whole[1], rel=0.5)
    assert in_examples != whole[1]


def test_a_poor_fit_is_said_once() -> None:
    objective = objective_of("mlp")
    query = objective.train.subset(np.arange(1))
    with pytest.warns(NotConvergedWarning, match="typical") as record:
        whence.influence(objective, query, solver=whence.EKFAC())
    whence.influence(objective, query, solver=whence.EKFAC())  # a warning would be an error
    assert len(record) == 1
    assert record[0].filename == __file__
