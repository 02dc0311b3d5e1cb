"""Leave-one-out by retraining, against scikit-learn fitted from scratch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

import whence
from tests.fitted import Fitted
from whence.curvature.minimum import gradient
from whence.errors import NotConvergedWarning
from whence.methods import leave_one_out as module
from whence.methods.converged import converged
from whence.methods.fit_quality import FitQuality
from whence.methods.leave_one_out import _nearby
from whence.objective.trained import Trained


def test_equals_refits_from_scratch(fitted: Fitted) -> None:
    where = np.arange(0, 80, 4)
    actual = whence.leave_one_out(fitted.objective, where, fitted.queries)
    before = fitted.losses(fitted.estimator)
    for column, i in enumerate(where):
        refit = fitted.losses(fitted.refit_without(int(i))) - before
        np.testing.assert_allclose(actual[:, column], refit, atol=1e-6)


def test_a_leveraged_point_is_refitted_on_its_own(binary: Fitted) -> None:
    x, y = binary.x.copy(), binary.y.copy()
    x[0], y[0] = 30 * x[0], 1 - y[0]
    estimator = type(binary.estimator)(tol=1e-12, max_iter=10_000, solver="newton-cholesky").fit(
        x, y
    )
    extreme = Fitted(estimator, x, y, binary.queries, np.ones(len(x)))
    actual = whence.leave_one_out(extreme.objective, [0], extreme.queries)[:, 0]
    refit = extreme.losses(extreme.refit_without(0)) - extreme.losses(estimator)
    np.testing.assert_allclose(actual, refit, atol=1e-6)


def test_a_fit_stopped_early_says_so_and_can_be_refitted(binary: Fitted) -> None:
    loose = type(binary.estimator)(tol=1e-1, max_iter=3).fit(binary.x, binary.y)
    objective = whence.from_sklearn(loose, binary.x, binary.y)
    with pytest.warns(NotConvergedWarning, match=r"(?s)as removing .* typical .*refit"):
        whence.influence(objective, binary.queries)
    diagnostics = whence.influence(objective.refit(), binary.queries).diagnostics
    assert diagnostics is not None
    assert diagnostics.gradient_norm < 1e-10


def test_a_model_is_refitted_unless_it_is_at_its_minimum(
    binary: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    loose = type(binary.estimator)(tol=1e-1, max_iter=3).fit(binary.x, binary.y)
    objective = whence.from_sklearn(loose, binary.x, binary.y)
    base = converged(objective)
    assert float(gradient(base).norm()) < 1e-10 < float(gradient(objective).norm())
    assert converged(base) is base
    assert _nearby(base, base, 3) is base
    for far, shared in ((1.0, objective), (1.1, base)):
        quality = FitQuality(gradient_norm=None, in_examples=far)
        monkeypatch.setattr(module, "fit_quality", lambda *_, quality=quality: quality)
        assert _nearby(objective, base, 3) is shared


def test_other_data_than_fitted_on_is_noticed(binary: Fitted) -> None:
    objective = whence.from_sklearn(binary.estimator, binary.x, binary.y[::-1].copy())
    with pytest.warns(NotConvergedWarning, match="exactly what the model was fitted on"):
        whence.influence(objective, binary.queries)


def test_weights_of_few_removals_are_held_at_once(
    binary: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = DecisionTreeClassifier(max_depth=2).fit(binary.x, binary.y)
    trained = whence.from_sklearn(tree, binary.x, binary.y)
    asked = range(0, 80, 10), binary.queries
    whole = whence.leave_one_out(trained, *asked)
    assert whole.any()
    held = []
    refits = type(trained).refits

    def counted(model: Trained, weights: Tensor) -> Iterator[Trained]:
        held.append(len(weights))
        return refits(model, weights)

    monkeypatch.setattr(type(trained), "refits", counted)
    monkeypatch.setattr(module, "_WEIGHTS", 3 * len(binary.x))
    np.testing.assert_array_equal(whence.leave_one_out(trained, *asked), whole)
    assert held == [3, 3, 3]
