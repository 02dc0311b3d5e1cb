"""Sums over who is at risk, as they are defined."""

from __future__ import annotations

import numpy as np
import pytest

from whence.fitting.partial_likelihood import log_at_risk


@pytest.mark.parametrize("late", [False, True])
def test_the_sum_at_risk_is_over_those_who_have_entered_and_not_left(late: bool) -> None:
    rng = np.random.default_rng(0)
    time = rng.integers(4, 9, 30).astype(float)
    entry = time - rng.integers(1, 4, 30) if late else None
    logs, at = rng.normal(size=30), np.arange(0.0, 11.0)
    found = log_at_risk(at, time, entry, logs)
    for moment, value in zip(at, found, strict=True):
        there = time >= moment
        if entry is not None:
            there &= entry < moment
        if there.any():
            assert value == pytest.approx(np.log(np.exp(logs[there]).sum()))
        else:
            assert value == -np.inf
