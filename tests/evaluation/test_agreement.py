"""Leave-one-out correlation: by hand, against scipy, and where it is undefined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress, pearsonr, spearmanr

from whence.errors import InvalidInput
from whence.evaluation import loo_correlation
from whence.evaluation.agreement import agreement
from whence.evaluation.correlation import draw, pearson, slope
from whence.evaluation.expected import ExpectedChanges


def pairs(seed: int, q: int = 3, k: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predicted and actual changes [q, k] that agree in part."""
    g = torch.Generator().manual_seed(seed)
    predicted = torch.randn(q, k, generator=g, dtype=torch.float64)
    noise = torch.randn(q, k, generator=g, dtype=torch.float64)
    return predicted, 1.7 * predicted + noise


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), unit=st.sampled_from([1e-170, 1e-9, 1.0, 1e9, 1e160]))
def test_equals_scipy_in_any_unit(seed: int, unit: float) -> None:
    """Pearson, Spearman and slope, pooled and per query, are scipy's."""
    p, a = pairs(seed)
    result = loo_correlation(p * unit, a * unit, resamples=1)
    assert result.pearson == pytest.approx(pearsonr(p.ravel(), a.ravel()).statistic)
    assert result.spearman == pytest.approx(spearmanr(p.ravel(), a.ravel()).statistic)
    assert result.slope == pytest.approx(linregress(p.ravel(), a.ravel()).slope)
    for q in range(3):
        assert result.pearson_per_query[q].item() == pytest.approx(pearsonr(p[q], a[q]).statistic)
        assert result.spearman_per_query[q].item() == pytest.approx(spearmanr(p[q], a[q]).statistic)
        assert result.slope_per_query[q].item() == pytest.approx(linregress(p[q], a[q]).slope)


def test_by_hand() -> None:
    """Predicted (0, 1, 2), actual (0, 3, 0): slope 0, and with (0, 1, 5): 2.5, R = 5/√28."""
    assert loo_correlation(torch.tensor([[0.0, 1, 2]]), torch.tensor([[0.0, 3, 0]])).slope == 0
    result = loo_correlation(torch.tensor([[0.0, 1, 2]]), torch.tensor([[0.0, 1, 5]]))
    assert result.slope == pytest.approx(2.5)
    assert result.pearson == pytest.approx(5 / 28**0.5)
    assert result.spearman == pytest.approx(1.0)


def test_slope_beside_a_large_offset_is_exact() -> None:
    """y = 1e15 + 2x in whole numbers, all of them exact; the mean of x is none."""
    x = np.array([[0.0], [1], [3], [7], [12], [20], [33]])
    assert slope(x, 1e15 + 2 * x) == pytest.approx(2.0, rel=1e-12)


def test_slope_tells_size_where_correlation_does_not() -> None:
    """Half-sized predictions correlate perfectly, with slope 2 and no uncertainty."""
    p, _ = pairs(0)
    result = loo_correlation(p / 2, p)
    assert result.pearson == pytest.approx(1.0)
    assert result.slope == pytest.approx(2.0)
    assert result.slope_interval == pytest.approx((2.0, 2.0))


def test_correlation_under_counts_equals_repeating_rows() -> None:
    """Resampling by counts is resampling."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 9, 2))
    counts = draw(generator, 9)
    rows = np.repeat(np.arange(9), counts.astype(int))
    np.testing.assert_allclose(pearson(x, y, counts), pearson(x[rows], y[rows]))
    np.testing.assert_allclose(slope(x, y, counts), slope(x[rows], y[rows]))


@pytest.mark.parametrize("q", [1, 5])
def test_intervals_hold_their_values(q: int) -> None:
    """With one query or several, each interval surrounds its value and has a width."""
    result = loo_correlation(*pairs(3, q=q, k=30), resamples=200)
    for value, (low, high) in (
        (result.pearson, result.pearson_interval),
        (result.spearman, result.spearman_interval),
        (result.slope, result.slope_interval),
    ):
        assert low < value < high


def test_constant_queries_are_stated() -> None:
    """No prediction counts 0, no change is NaN and named; the pooled values stay."""
    p, a = pairs(0)
    p[0], a[2] = 0.1, 0.0
    with pytest.warns(UserWarning, match="do not vary") as record:
        result = loo_correlation(p, a, resamples=20)
    assert [str(warning.message).split(" do not")[0] for warning in record] == [
        "In queries [0] the predictions",
        "In queries [2] the actual outcomes",
    ]
    assert (result.constant_predictions, result.constant_outcomes) == ((0,), (2,))
    assert result.pearson_per_query[0] == result.spearman_per_query[0] == 0
    assert np.isnan(result.slope_per_query[0])
    assert np.isnan(result.pearson_per_query[2])
    assert np.isnan(result.spearman_per_query[2])
    assert result.slope_per_query[2] == 0
    assert np.isfinite(result.pearson)


def test_refusals() -> None:
    """Unequal shapes, one removal, no variation, and values that are not numbers."""
    p, a = pairs(0)
    with pytest.raises(InvalidInput, match="same shape"):
        loo_correlation(p, a[:, :5])
    with pytest.raises(InvalidInput, match="at least k = 2"):
        loo_correlation(p[:, :1], a[:, :1])
    with pytest.raises(InvalidInput, match="all 30 actual changes are 0"):
        loo_correlation(p, torch.zeros(3, 10))
    a[0, 0] = torch.nan
    with pytest.raises(InvalidInput, match="Got 1 of 30 entries NaN"):
        loo_correlation(p, a)


def test_plot_draws_pairs_identity_and_fit() -> None:
    """The points are the pairs, and the fitted line has the slope reported."""
    p, a = pairs(0)
    result = loo_correlation(p, a, resamples=2)
    points, identity, fit = result.plot().get_lines()
    np.testing.assert_array_equal(points.get_xdata(), p.ravel())
    np.testing.assert_array_equal(points.get_ydata(), a.ravel())
    np.testing.assert_array_equal(identity.get_xdata(), identity.get_ydata())
    rise, run = np.diff(fit.get_ydata()), np.diff(fit.get_xdata())
    assert (rise / run).item() == pytest.approx(result.slope)


@pytest.mark.parametrize("equal", ["retrained", "predicted"])
def test_equal_changes_are_said_to_have_no_correlation(equal: str) -> None:
    changes = np.array([[1.0, 2.0, 3.0]]), np.zeros((1, 3))
    predicted, actual = changes if equal == "retrained" else changes[::-1]
    found = agreement(predicted, actual, ids=np.arange(3), positions=np.arange(3))
    said = "predicted vs retrained on 3 removals: no correlation, because all"
    assert str(found) == f"{said} {equal} changes are equal"
    assert "nan" not in found._repr_html_()


@pytest.mark.parametrize(
    ("mean", "predicted", "said"),
    [
        ([[0.0, 1, 2]], [[0.0, 1, 5]], "R = 0.9449, slope = 0.357"),
        ([[2.0, 2, 2]], [[0.0, 1, 5]], "no correlation, because all mean changes are equal"),
        ([[0.0, 1, 5]], [[2.0, 2, 2]], "no correlation, because all predicted changes are equal"),
    ],
)
def test_what_is_said_of_mean_changes(mean: Any, predicted: Any, said: str) -> None:
    """By hand: R = 5 / √28, slope 5 / 14."""
    error = np.full((1, 3), 0.25)
    found = ExpectedChanges(mean=np.array(mean), error=error, spread=0.5, subsets=8)
    line = found.said(np.array(predicted))
    assert line.startswith(f"predicted vs the mean over 8 random parts of the data: {said};")
    assert line.endswith("± 0.25, and single retrainings differ from them by 0.5")
