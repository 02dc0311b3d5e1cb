"""The linear datamodeling score and its noise ceiling: by hand, against scipy, on linear models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from scipy.stats import spearmanr

from whence.errors import InvalidInput
from whence.evaluation import lds, noise_ceiling
from whence.evaluation.correlation import RankCorrelation, bootstrap, draw


def example(
    seed: int, q: int = 4, n: int = 12, m: int = 15
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return scores [q, n], masks [m, n] and outcomes [3, m, q] that have little in common."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(q, n, generator=g, dtype=torch.float64)
    masks = torch.rand(m, n, generator=g) < 0.5
    return scores, masks, torch.randn(3, m, q, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("seed", [41035, 262143])
def test_equal_subsets_are_ties(seed: int) -> None:
    """Of fifteen drawn subsets two are the same: their predicted sums are equal to the last bit."""
    scores, masks, outcomes = example(seed)
    assert len(torch.unique(masks, dim=0)) < len(masks)
    found = lds(scores, masks, outcomes, resamples=2).per_query
    for q, value in enumerate(found.tolist()):
        predicted = [scores[q, ~mask].sum().item() for mask in masks]
        expected = spearmanr(predicted, outcomes.mean(0)[:, q]).statistic
        assert value == pytest.approx(expected, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_equals_scipy_on_sums_over_the_removed(seed: int) -> None:
    """The score of each query is scipy's Spearman of what the definition says."""
    scores, masks, outcomes = example(seed)
    result = lds(scores, masks, outcomes, resamples=2)
    for q, value in enumerate(result.per_query.tolist()):
        predicted = [scores[q, ~mask].sum().item() for mask in masks]
        expected = spearmanr(predicted, outcomes.mean(0)[:, q]).statistic
        assert value == pytest.approx(expected, abs=1e-12)
    assert result.mean == pytest.approx(result.per_query.mean().item())
    assert (result.subsets, result.seeds) == (15, 3)


def test_sign_and_exactness_on_a_linear_model() -> None:
    """Where the outcome is linear in the weights, removal scores reach exactly 1, negated −1.

    The "model" is the weighted mean (1/n) Σ wᵢ vᵢ, so that removing i changes it by −vᵢ/n.
    """
    g = torch.Generator().manual_seed(0)
    values = torch.randn(3, 40, generator=g, dtype=torch.float64)
    masks = torch.rand(25, 40, generator=g) < 0.5
    retrained = masks.double() @ values.T / 40
    removal_scores = -values / 40
    assert lds(removal_scores, masks, retrained).mean == pytest.approx(1.0)
    assert lds(-removal_scores, masks, retrained).mean == pytest.approx(-1.0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6), offset=st.floats(-100, 100))
def test_unchanged_by_rising_maps_and_reordering(seed: int, scale: float, offset: float) -> None:
    """Only order counts: not the unit, not the subsets' order, not the examples'."""
    scores, masks, outcomes = example(seed)
    expected = lds(scores, masks, outcomes[0], resamples=2).per_query
    g = torch.Generator().manual_seed(seed)
    j, i = torch.randperm(15, generator=g), torch.randperm(12, generator=g)
    rescaled = lds(scale * scores, masks, scale * outcomes[0] + offset, resamples=2)
    reordered = lds(scores[:, i], masks[j][:, i], outcomes[0, j], resamples=2)
    torch.testing.assert_close(rescaled.per_query, expected)
    torch.testing.assert_close(reordered.per_query, expected)


def test_rare_removal_is_summed_exactly() -> None:
    """Ties between subsets get average ranks: worked by hand.

    Predictions are [1, 1, 2], ranks [1.5, 1.5, 3]; outcomes have ranks [1, 2, 3]; the correlation
    is (−0.5·−1 + −0.5·0 + 1·1) / √(1.5 · 2) = 1.5 / √3.
    """
    masks = torch.tensor([[0, 1, 1], [1, 0, 1], [1, 1, 0]]).bool()
    result = lds(torch.tensor([[1.0, 1.0, 2.0]]), masks, torch.tensor([[0.1], [0.2], [0.3]]))
    assert result.mean == pytest.approx(1.5 / 3**0.5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), levels=st.integers(2, 20))
def test_resampled_ranks_equal_ranking_the_resample(seed: int, levels: int) -> None:
    """Correlation under counts equals scipy's on the rows really repeated, ties and all."""
    generator = np.random.default_rng(seed)
    x, y = generator.integers(levels, size=(2, 12, 3)).astype(float)
    counts = np.stack([draw(generator, 12) for _ in range(2)], axis=1)
    fast = RankCorrelation(x, y).under(counts)
    for resample in range(2):
        rows = np.repeat(np.arange(12), counts[:, resample].astype(int))
        for column in range(3):
            a, b, found = x[rows, column], y[rows, column], fast[column, resample]
            if np.ptp(a) == 0 or np.ptp(b) == 0:
                assert np.isnan(found)
            else:
                assert found == pytest.approx(spearmanr(a, b).statistic, abs=1e-9)


@pytest.mark.parametrize("at_once", [1, 7, 2**18])
def test_intervals_do_not_depend_on_how_many_resamples_are_seen_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against quantiles of the mean of rows drawn one resample at a time."""
    monkeypatch.setattr("whence.evaluation.correlation._NUMBERS", 12 * at_once)
    row, generator = np.random.default_rng(1).normal(size=12), np.random.default_rng(0)
    means = [row[generator.integers(12, size=12)].mean() for _ in range(50)]
    ((low, high),) = bootstrap(
        lambda generator: draw(generator, 12),
        [lambda counts: row @ counts / 12],
        resamples=50,
        confidence=0.9,
        seed=0,
    )
    assert (low, high) == pytest.approx(np.quantile(means, [0.05, 0.95]))


def test_interval_covers_and_is_reproducible() -> None:
    """The interval holds the mean, widens with confidence, and depends on the seed alone."""
    scores, masks, _ = example(0, q=20, m=60)
    noise = torch.randn(60, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    outcomes = (~masks).double() @ scores.T + 2 * noise
    first = lds(scores, masks, outcomes, resamples=200)
    again = lds(scores, masks, outcomes, resamples=200)
    narrow = lds(scores, masks, outcomes, resamples=200, confidence=0.5)
    assert first.interval == again.interval
    assert first.interval != lds(scores, masks, outcomes, resamples=200, seed=1).interval
    low, high = first.interval
    assert low < narrow.interval[0] < first.mean < narrow.interval[1] < high


def test_interval_counts_the_choice_of_queries() -> None:
    """Half the queries at 1 and half at −1: the mean of 16 is uncertain by 1/√16."""
    scores, masks, _ = example(0, q=16, m=50)
    outcomes = (~masks).double() @ scores.T * torch.tensor([1.0, -1.0]).repeat(8)
    low, high = lds(scores, masks, outcomes, resamples=500).interval
    assert high - low == pytest.approx(2 * 1.96 / 4, rel=0.2)


def test_interval_has_about_its_coverage() -> None:
    """Over 100 draws of the subsets, the 90 % interval holds the long-run mean 75–100 times."""
    scores = torch.randn(40, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def draw_one(seed: int, m: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return masks and outcomes whose correlation with the score of one example is 0.6."""
        g = torch.Generator().manual_seed(seed)
        masks = torch.rand(m, 40, generator=g) < 0.5
        signal = (~masks).double() @ scores
        noise = torch.randn(m, 15, generator=g, dtype=torch.float64)
        return masks, signal / signal.std() * 0.75 + noise

    shared = scores.T.expand(15, 40)
    truth = lds(shared, *draw_one(999, 20_000), resamples=1).mean
    hits = 0
    for seed in range(100):
        low, high = lds(shared, *draw_one(seed, 50), resamples=100, confidence=0.9).interval
        hits += low <= truth <= high
    assert 75 <= hits <= 100


def test_noise_ceiling_by_hand() -> None:
    """Two seeds whose ranks correlate 0.5: reliability 2·0.5/1.5 = 2/3, ceiling √(2/3)."""
    outcomes = torch.tensor([[[1.0], [2.0], [3.0]], [[1.0], [3.0], [2.0]]])
    ceiling = noise_ceiling(outcomes)
    assert ceiling.agreement == pytest.approx(0.5)
    assert ceiling.mean == pytest.approx((2 / 3) ** 0.5)


def test_noise_ceiling_is_what_the_truth_reaches() -> None:
    """On normal outcomes the estimate agrees with the LDS of the expected outcome itself."""
    g = torch.Generator().manual_seed(0)
    truth = torch.randn(4000, 6, generator=g, dtype=torch.float64)
    for noise, s in ((0.5, 2), (1.0, 3), (2.0, 5), (3.0, 2)):
        outcomes = truth + noise * torch.randn(s, 4000, 6, generator=g, dtype=torch.float64)
        reached = [
            spearmanr(truth[:, q], outcomes.mean(0)[:, q]).statistic for q in range(truth.shape[1])
        ]
        assert noise_ceiling(outcomes).mean == pytest.approx(np.mean(reached), abs=0.03)


def test_noise_ceiling_at_its_ends() -> None:
    """Seeds that agree give 1; seeds that contradict give 0, with the agreement shown."""
    rising = torch.arange(5.0)[:, None]
    assert noise_ceiling(torch.stack([rising, 3 * rising, rising + 1])).mean == pytest.approx(1.0)
    against = noise_ceiling(torch.stack([rising, -2 * rising]))
    assert against.mean == 0.0
    assert against.agreement == pytest.approx(-1.0)


def test_ceiling_needs_a_second_seed() -> None:
    """One seed cannot tell noise from effect, so no ceiling is claimed."""
    scores, masks, outcomes = example(0)
    assert lds(scores, masks, outcomes[0], resamples=2).ceiling is None
    assert lds(scores, masks, outcomes[:1], resamples=2).ceiling is None
    several = lds(scores, masks, outcomes, resamples=2).ceiling
    assert several is not None
    assert several.mean == noise_ceiling(outcomes).mean
    with pytest.raises(InvalidInput, match="at least 2 seeds"):
        noise_ceiling(outcomes[:1])


def test_constant_predictions_count_as_zero_and_are_stated() -> None:
    """The same said of all subsets is no knowledge, even where rounding makes an order."""
    scores, _, outcomes = example(0)
    g = torch.Generator().manual_seed(0)
    masks = torch.stack([torch.randperm(12, generator=g) < 6 for _ in range(15)])
    scores[1] = 0.1  # sums to 0.6 for every half, up to rounding
    with pytest.warns(UserWarning, match=r"queries \[1\] the predictions do not vary"):
        result = lds(scores, masks, outcomes, resamples=20)
    assert result.per_query[1] == 0
    assert result.constant_predictions == (1,)
    assert result.mean == pytest.approx(result.per_query.mean().item())


def test_order_made_by_rounding_is_no_order() -> None:
    """Equal scores on halves of 1,001 examples sum to one number, but for the last bits."""
    g = torch.Generator().manual_seed(0)
    masks = torch.stack([torch.randperm(1001, generator=g) < 500 for _ in range(15)])
    scores = torch.full((1, 1001), 0.1, dtype=torch.float64)
    sums = (~masks).numpy() @ scores.numpy().T
    assert 0 < np.ptp(sums) < 1e-10
    outcomes = torch.randn(15, 1, generator=g)
    with pytest.warns(UserWarning, match="predictions do not vary"):
        assert lds(scores, masks, outcomes, resamples=2).mean == 0


def test_constant_outcomes_are_left_out_and_stated() -> None:
    """Where nothing happened there is nothing to predict."""
    scores, masks, outcomes = example(0)
    outcomes[:, :, 2] = 0.3
    with pytest.warns(UserWarning, match=r"queries \[2\] the actual outcomes do not vary"):
        result = lds(scores, masks, outcomes, resamples=20)
    assert result.per_query[2].isnan()
    assert result.constant_outcomes == (2,)
    assert result.mean == pytest.approx(result.per_query[[0, 1, 3]].mean().item())
    assert result.ceiling is not None
    assert np.isfinite([result.mean, result.ceiling.mean, *result.interval]).all()
    with pytest.raises(InvalidInput, match="Outcomes must vary between subsets"):
        lds(scores, masks, torch.zeros(15, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": torch.zeros(4)}, r"scores must have shape \[q, n\]"),
        ({"scores": torch.full((4, 12), torch.nan)}, "scores must be finite. Got 48 of 48"),
        ({"masks": torch.full((15, 12), 3)}, "masks must be booleans"),
        ({"masks": torch.ones(15, 11).bool()}, "same n training examples"),
        ({"outcomes": torch.zeros(15, 5)}, r"outcomes must have shape \[m, q\] or \[s, m, q\]"),
        ({"outcomes": torch.zeros(4, 15)}, r"outcomes must have shape"),
        ({"resamples": 0}, "resamples must be at least 1"),
        ({"confidence": 1.0}, "confidence must lie strictly between 0 and 1"),
    ],
)
def test_refusals(change: dict[str, object], message: str) -> None:
    """What cannot be compared is refused with what was expected and what came."""
    scores, masks, outcomes = example(0)
    arguments = {"scores": scores, "masks": masks, "outcomes": outcomes} | change
    with pytest.raises(InvalidInput, match=message):
        lds(**arguments)  # type: ignore[arg-type]


def test_two_subsets_are_too_few() -> None:
    """Two points always correlate perfectly."""
    scores, masks, outcomes = example(0, m=2)
    with pytest.raises(InvalidInput, match="at least 3 subsets"):
        lds(scores, masks, outcomes)


def test_accepts_half_precision_and_numpy() -> None:
    """Scores come as models make them."""
    scores, masks, outcomes = example(0)
    rough = scores.bfloat16()
    expected = lds(rough.double(), masks, outcomes, resamples=2).mean
    assert lds(rough, masks.numpy(), outcomes.numpy(), resamples=2).mean == expected


def test_plot_shows_mean_and_ceiling() -> None:
    """The figure is drawn where asked, and says both numbers."""
    result = lds(*example(0), resamples=20)
    ax = result.plot()
    assert isinstance(ax, Axes)
    assert result.ceiling is not None
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        f"mean {result.mean:.3f}",
        f"noise ceiling {result.ceiling.mean:.3f}",
    ]
    assert result.plot(ax) is ax


def test_plot_of_a_ceiling_counts_the_queries_that_have_one() -> None:
    outcomes = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(0))
    outcomes[:, :, 1] = 1.0
    ceiling = noise_ceiling(outcomes)
    ax = ceiling.plot()
    assert sum(bar.get_height() for bar in ax.patches) == 4
    legend = ax.get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == f"noise ceiling {ceiling.mean:.3f}"
    assert ceiling.plot(ax) is ax
