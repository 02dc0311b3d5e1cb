"""`whence.influence` of models without derivatives, and what such models are refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

import whence
from whence.errors import InvalidInput, UnsupportedModel
from whence.methods.choose import default_method

_X = np.random.default_rng(0).normal(size=(60, 3))
_Y = (_X[:, 0] + 0.5 * _X[:, 1] > 0).astype(int)
_FORESTS: list[Any] = [
    RandomForestClassifier(5, random_state=0),
    HistGradientBoostingClassifier(max_iter=5, random_state=0),
]


def _of(estimator: Any, y: Any = _Y) -> Any:
    return whence.from_sklearn(estimator.fit(_X, y), _X, y)


@pytest.mark.parametrize("estimator", [*_FORESTS, GaussianNB()])
@pytest.mark.parametrize("measure", ["loss", "accuracy"])
def test_a_model_without_derivatives_is_scored_by_the_method_of_its_kind(
    estimator: Any, measure: str
) -> None:
    model, queries = _of(estimator), (_X[:20] + 0.1, _Y[:20])
    found = whence.influence(model, queries, measure=measure, indices=[3, 5])
    named = default_method(model).fit(model).scores(queries, measure=measure, indices=[3, 5])
    np.testing.assert_allclose(found.values, named.values)
    assert found.method == named.method


@pytest.mark.parametrize("options", [{"order": "newton"}, {"damping": 0.1}, {"normalize": "loss"}])
def test_options_of_influence_are_refused_of_such_a_model(options: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModel, match="take the method of its kind"):
        whence.influence(_of(_FORESTS[0]), (_X[:2], _Y[:2]), **options)


@pytest.mark.parametrize("estimator", [*_FORESTS, GaussianNB()])
@pytest.mark.parametrize("ask", [whence.diagnose, whence.spectrum, whence.self_influence])
def test_what_needs_derivatives_says_so(estimator: Any, ask: Any) -> None:
    with pytest.raises(UnsupportedModel, match="derivatives in its parameters"):
        ask(_of(estimator))


@pytest.mark.parametrize(
    "estimator", [RandomForestClassifier(3, random_state=0), DecisionTreeClassifier(random_state=0)]
)
def test_a_forest_of_several_labels_is_known_by_its_predictions(estimator: Any) -> None:
    y = np.stack([_Y, _X[:, 2] > 0], 1).astype(int)
    model = _of(estimator, y)
    assert "Expected one target per row. Got 2" in " ".join(model.notes)
    said = model.outputs(model.examples((_X[:4], y[:4])))
    assert said.shape == (4, 2)
    np.testing.assert_array_equal(said.numpy() > 0, estimator.predict(_X[:4]) > 0)


def test_plots_and_trainings_are_told_from_other_results(tmp_path: Path) -> None:
    objective = _of(LogisticRegression())
    scores = whence.influence(objective, (_X[:2], _Y[:2]))
    with pytest.raises(InvalidInput, match="Expected explanation as an Explanation"):
        whence.plot.effects(scores)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="Expected verification as an Agreement"):
        whence.plot.predicted_against_actual(scores)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="Expected directory as the name of a file"):
        whence.Run.from_trainer(scores, objective)  # type: ignore[arg-type]
