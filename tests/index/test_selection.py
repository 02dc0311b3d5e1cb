"""Selection against the formula on scores in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import whence
from whence.errors import InvalidInput


def test_selection_is_the_largest_mean_over_tasks(tmp_path: Path) -> None:
    """Two tasks, a removed example, and a target that was trained on."""
    torch.manual_seed(0)
    x, y = torch.randn(60, 5), torch.arange(60) % 3
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    method = whence.TracIn(cosine=True, size=8)
    index = whence.Index.build(objective, tmp_path, method=method, rows="float32", shard_rows=25)
    targets = torch.cat([x[7:8], torch.randn(4, 5)]), torch.tensor([int(y[7]), 0, 1, 2, 0])
    scores = method.fit(objective).scores(targets).values
    tasks = ["a", "b", "a", "b", "b"]
    means = np.stack([scores[[0, 2]].mean(0), scores[[1, 3, 4]].mean(0)])
    expected = means.max(0)
    order = np.argsort(-expected)
    gone = int(order[order != 7][3])
    index.remove([gone])
    left = [i for i in order.tolist() if i != gone]
    chosen = whence.select(index, targets, 20, tasks=tasks)
    assert chosen.ids.tolist() == left[:20]
    np.testing.assert_allclose(chosen.scores, expected[left[:20]], atol=1e-5)
    np.testing.assert_allclose(chosen.cosines, scores[:, left[:20]].max(0), atol=1e-5)
    assert chosen.nearest.tolist() == scores[:, left[:20]].argmax(0).tolist()
    frame = whence.select(index, targets, 59).to_frame().set_index("id")
    assert frame.index.tolist() == [i for i in np.argsort(-scores.mean(0)).tolist() if i != gone]
    assert frame.loc[7, "near_duplicate"]
    assert frame.loc[7, "nearest_target"] == 0
    assert frame["near_duplicate"].sum() == (scores.max(0) >= 0.99)[frame.index].sum()
    assert "nearly the same as a target" in repr(chosen)
    with pytest.raises(InvalidInput, match="Expected 1 <= k <= 59"):
        whence.select(index, targets, 60)
    with pytest.raises(InvalidInput, match="one task per target. Got 1 for 5"):
        whence.select(index, targets, 3, tasks=["a"])
