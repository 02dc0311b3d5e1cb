"""Trees through every use: an answer, or a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

import whence
from tests.test_uses import USES, data
from whence.errors import WhenceError

MODELS = {
    "boosting": GradientBoostingClassifier(n_estimators=5, max_depth=2, random_state=0),
    "forest": RandomForestClassifier(n_estimators=10, random_state=0),
}
METHODS: dict[str, dict[str, Any]] = {
    "boosting": {
        "halves": whence.Boosting(ensemble=4),
        "BoostIn": whence.BoostIn(),
        "out of bag": whence.DataOOB(ensemble=4),
        "forest weights": whence.ForestWeights(),
    },
    "forest": {
        "default": None,
        "out of bag": whence.DataOOB(),
        "BoostIn": whence.BoostIn(),
    },
}


def refused(model: str, method: str, use: str) -> bool:
    """Whether a model, a method and a use do not go together."""
    return (
        use == "strongest"  # trees have no derivative in their inputs
        or (method == "out of bag" and use != "label errors")
        or (method == "forest weights")
        or (method == "BoostIn" and model == "forest")
    )


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("model", "method"), [(model, method) for model in MODELS for method in METHODS[model]]
)
def test_an_answer_or_a_sentence(model: str, method: str, use: str, tmp_path: Path) -> None:
    x, y = data()
    trained = whence.from_sklearn(MODELS[model].fit(x[6:], y[6:]), x[6:], y[6:])
    queries, scorer = (x[:6], y[:6]), METHODS[model][method]
    if refused(model, method, use):
        with pytest.raises(WhenceError, match=r"Expected .*Got"):
            USES[use](trained, queries, scorer, tmp_path)
    else:
        USES[use](trained, queries, scorer, tmp_path)
