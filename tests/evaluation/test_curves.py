"""Detection and removal curves: by hand, against scikit-learn, and their laws."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]

from whence.errors import InvalidInput, MissingDependency
from whence.evaluation import brittleness_curve, detection_curve


def test_detection_by_hand() -> None:
    """Flipped labels at places 1 and 3 of 4: one pair in four is out of order."""
    curve = detection_curve(torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([1, 0, 1, 0]))
    assert curve.checked.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.found.tolist() == [0, 0.5, 0.5, 1, 1]
    assert curve.auc == 0.75
    assert [curve.found_at(x) for x in (0, 0.125, 0.3, 1)] == [0, 0.25, 0.5, 1]


def test_ties_are_neither_luck_nor_order() -> None:
    """With one value for all, the curve is the diagonal whatever the order of the data."""
    for flipped in ([1, 1, 0, 0, 0], [0, 0, 0, 1, 1]):
        curve = detection_curve(torch.zeros(5), torch.tensor(flipped))
        assert curve.auc == 0.5
        assert curve.found_at(0.2) == pytest.approx(0.2)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), levels=st.integers(1, 50))
def test_auc_is_that_of_scikit_learn(seed: int, levels: int) -> None:
    """With ties or without; turning the ranking round turns the area round."""
    generator = np.random.default_rng(seed)
    ranking = generator.integers(levels, size=30).astype(float)
    flipped = np.arange(30) < generator.integers(1, 30)
    auc = detection_curve(ranking, flipped).auc
    assert auc == pytest.approx(roc_auc_score(flipped, ranking))
    assert detection_curve(-ranking, flipped).auc == pytest.approx(1 - auc)


def test_detection_refusals() -> None:
    """A curve needs both kinds, one value each, and a fraction that is one."""
    ranking, flipped = torch.arange(4.0), torch.tensor([0, 0, 1, 1])
    with pytest.raises(InvalidInput, match="Got 0 flipped of 4"):
        detection_curve(ranking, torch.zeros(4))
    with pytest.raises(InvalidInput, match="Got 4 flipped of 4"):
        detection_curve(ranking, torch.ones(4))
    with pytest.raises(InvalidInput, match="same n examples. Got 3 and 4"):
        detection_curve(ranking[:3], flipped)
    with pytest.raises(InvalidInput, match="flipped must be booleans"):
        detection_curve(ranking, torch.tensor([2, 3, 0, 1]))
    with pytest.raises(InvalidInput, match=r"fraction must lie in \[0, 1\]. Got 10"):
        detection_curve(ranking, flipped).found_at(10)


def test_removal_by_hand() -> None:
    """Means, trapezoids over uneven steps, and the smallest removal below a threshold."""
    margins = torch.tensor([[2.0, 4.0], [1.0, 3.0], [-1.0, 0.0]])
    curve = brittleness_curve(torch.tensor([0, 10, 40]), margins)
    assert curve.mean.tolist() == [3, 2, -0.5]
    assert curve.area == pytest.approx((10 * 2.5 + 30 * 0.75) / 40)
    assert curve.first_below(0).tolist() == [40, float("inf")]
    assert curve.first_below(2).tolist() == [10, 40]
    assert (curve.low <= curve.mean).all()
    assert (curve.mean <= curve.high).all()


def test_removal_interval_is_that_of_a_mean() -> None:
    """On many queries the interval is close to mean ± 1.96 standard errors."""
    outcomes = torch.randn(2, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    curve = brittleness_curve(torch.tensor([0, 1]), outcomes, resamples=2000)
    error = 1.96 * outcomes.std(dim=1) / 20
    torch.testing.assert_close(curve.high - curve.mean, error, rtol=0.1, atol=0)
    torch.testing.assert_close(curve.mean - curve.low, error, rtol=0.1, atol=0)


def test_removal_refusals() -> None:
    """Numbers removed must rise, and each have its row."""
    for removed in ([0, 0], [1, 0], [0, 1, 2], [-1, 0]):
        with pytest.raises(InvalidInput, match="strictly rising"):
            brittleness_curve(torch.tensor(removed), torch.zeros(2, 3))


def test_plots_leave_pyplot_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves draw what they hold, on a figure of their own; without matplotlib, say so."""
    detection = detection_curve(torch.arange(4.0), torch.tensor([0, 0, 1, 1]))
    removal = brittleness_curve(torch.tensor([0, 5]), torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    ax = detection.plot()
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), detection.found)
    ax = removal.plot()
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), [1.5, 0.5])
    assert removal.plot(ax) is ax
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match="pip install matplotlib"):
        detection.plot()
