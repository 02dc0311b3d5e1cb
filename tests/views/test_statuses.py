"""What pages say of their numbers, each beside its opposite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import whence
from whence.methods.model_quality import ModelQuality
from whence.methods.wrong_labels import WrongLabels
from whence.views.answer import class_of
from whence.views.statuses import NOT_RETRAINED, RETRAINED, quality_sentence


def test_exact_removals_are_retrained_and_others_are_not(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    for model, said in (
        (KNeighborsClassifier(7).fit(x, y), RETRAINED),
        (LogisticRegression(tol=1e-8, max_iter=1000).fit(x, y), NOT_RETRAINED),
    ):
        explained = whence.explain(whence.from_sklearn(model, x, y), (x[70:71], y[70:71]), k=3)
        page = explained.report(tmp_path / "page.html", verify=0).read_text(encoding="utf-8")
        for status in (RETRAINED, NOT_RETRAINED):
            assert (status.title in page) == (status is said)


def test_retraining_says_more_than_a_residual_that_nobody_measured(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(tol=1e-8, max_iter=1000).fit(x, y)
    explained = whence.explain(whence.from_sklearn(model, x, y), (x[70:71], y[70:71]), k=3)
    assert explained.shown.diagnostics is not None
    diagnostics = replace(explained.shown.diagnostics, residual=None)
    explained = replace(explained, shown=replace(explained.shown, diagnostics=diagnostics))
    unmeasured = "Whether the arithmetic behind the numbers is exact was not measured."
    for verified, said in ((0, True), (3, False)):
        page = explained.report(tmp_path / "page.html", verify=verified)
        assert (unmeasured in page.read_text(encoding="utf-8")) == said


def test_one_row_is_worth_a_look_and_several_are(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(tol=1e-8, max_iter=1000).fit(x, y)
    errors = whence.find_label_errors(whence.from_sklearn(model, x, y))
    for count, figure, words in ((1.0, "1 row", "is worth a"), (2.0, "2 rows", "are worth a")):
        some = replace(errors, wrong=WrongLabels(count=count, error=0.1, n=150))
        page = some.report(tmp_path / "page.html").read_text(encoding="utf-8")
        assert f">{figure}<" in page
        assert f"from the top {words} look" in page


def test_small_errors_of_a_regression_are_written_out() -> None:
    quality = ModelQuality(n=9, how="", error=0.01239, error_of_mean=0.5)
    assert "off by 0.012 (root" in quality_sentence(quality, (), 0)
    assert "would be off by 0.500." in quality_sentence(quality, (), 0)
    assert "off by 0.01239 (root" in quality_sentence(quality, (), 5)


@pytest.mark.parametrize(("output", "said"), [(0.4, 1), (-0.4, 0), (1.5, 1)])
def test_the_class_of_one_output_is_that_of_its_sign(output: float, said: int) -> None:
    assert class_of(torch.tensor([output])) == said
    assert class_of(torch.tensor(np.array([0.0, output]))) == said
