"""Boosted classifiers that are sure: losses near 0 move little, and by as much as scores say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier

import whence
from tests.trees.models import CLASSES
from whence.methods.mean_derivative import unconfirmed


def _odd() -> tuple[Any, Any]:
    x, y = load_digits(return_X_y=True)
    return x[:240], y[:240] % 2


def test_effects_on_losses_near_zero_have_the_size_of_what_refits_do() -> None:
    """Without random tenths of the rows, the user's own fits move such losses as far as is said."""
    from xgboost import XGBClassifier

    x, y = _odd()
    settings = {"n_estimators": 60, "max_depth": 3, "n_jobs": 1, "random_state": 0}
    model = XGBClassifier(**settings, min_child_weight=0, reg_lambda=0.1).fit(x[40:], y[40:])

    def losses(fitted: Any) -> Any:
        margin = fitted.predict(x[:40], output_margin=True).astype(float) * (2 * y[:40] - 1)
        return np.logaddexp(0, -margin)

    sure = losses(model) < 1e-3
    assert sure.sum() > 20
    trained = whence.from_sklearn(model, x[40:], y[40:])
    scores = whence.Boosting(ensemble=20).fit(trained).scores((x[:40][sure], y[:40][sure]))
    draw = np.random.default_rng(0)
    out = np.zeros((24, 200), dtype=bool)
    for some in out:
        some[draw.choice(200, 20, replace=False)] = True
    fits = [clone(model).fit(x[40:][~some], y[40:][~some]) for some in out]
    actual = np.stack([losses(fitted)[sure] for fitted in fits])
    predicted = out @ scores.values.T
    actual, predicted = actual - actual.mean(0), predicted - predicted.mean(0)
    slopes = (actual * predicted).sum(0) / np.square(predicted).sum(0)
    # 0.33 and 0.005 where losses of halves were followed: effects a hundred times too large.
    assert 0.6 < np.median(slopes) < 4
    assert np.quantile(slopes, 0.3) > 0.3


def test_a_probability_and_a_loss_are_followed_by_the_same_outputs() -> None:
    from xgboost import XGBClassifier

    x, y = _odd()
    model = XGBClassifier(n_estimators=10, max_depth=2, n_jobs=1).fit(x[40:], y[40:])
    trained = whence.from_sklearn(model, x[40:], y[40:])
    found, asked = whence.Boosting(ensemble=4).fit(trained), (x[:40], y[:40])
    loss, probability, margin = (
        found.scores(asked, measure=of).values for of in ("loss", "probability", "margin")
    )
    p = model.predict_proba(x[:40])[np.arange(40), y[:40]][:, None].astype(float)
    np.testing.assert_allclose(loss, -(1 - p) * margin, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(probability, p * (1 - p) * margin, rtol=1e-3, atol=1e-6)


def test_measures_of_all_queries_of_several_classes() -> None:
    """A mean of losses that a user writes moves as the mean of the losses; accuracy is answered."""
    model = GradientBoostingClassifier(n_estimators=6, max_depth=2, random_state=0)
    trained = whence.from_sklearn(model.fit(CLASSES.x, CLASSES.y), CLASSES.x, CLASSES.y)
    found, asked = whence.Boosting(ensemble=4).fit(trained), (CLASSES.x[:30], CLASSES.y[:30])

    def mean_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs, targets.long())

    of_set = found.scores(asked, measure=whence.measures.OfSet(mean_loss))
    of_each = found.scores(asked).values.mean(0)
    np.testing.assert_allclose(of_set.values[0], of_each, atol=1e-9)
    assert found.scores(asked, measure="accuracy").values.shape == (1, len(CLASSES.y))


def test_sizes_that_no_retraining_confirms_are_not_shown(tmp_path: Path) -> None:
    from xgboost import XGBClassifier

    x, y = _odd()
    model = XGBClassifier(n_estimators=10, max_depth=2, n_jobs=1).fit(x[40:], y[40:])
    trained = whence.from_sklearn(model, x[40:], y[40:])
    sized = {}
    for at in (4, 5):
        found = whence.explain(
            trained, (x[at : at + 1], y[at : at + 1]), method=whence.Boosting(ensemble=6), k=2
        )
        assert found.scores.diagnostics is not None
        note = found.scores.diagnostics.notes[-1]
        mean, error = (float(part.split(" ")[0]) for part in note[47:].split(" ± "))
        assert found.sized == (mean > error)
        assert found.scores.order_only != found.sized
        sized[found.sized] = found
    for confirmed, found in sized.items():
        why = "The 6 retrainings do not confirm sizes here"
        assert (why in str(found)) != confirmed
        assert (why in found.scores.caution) != confirmed
        assert (why in found.report(tmp_path / "page.html").read_text()) != confirmed
        assert ("effect" in found.to_frame().columns) == confirmed
    assert set(sized) == {True, False}


def test_what_confirms_sizes() -> None:
    assert "0.10 ± 0.12" in unconfirmed((0.1, 0.12), 60)
    assert unconfirmed((0.3, 0.12), 60) == ""
    assert unconfirmed((float("nan"), float("nan")), 60) == ""
