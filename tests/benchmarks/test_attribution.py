"""The quick form of the leaderboard, whole: retrainings, methods, page and figure; and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.attribution.__main__ as board
from benchmarks.attribution import cases, gpt, resnet, smoothness
from benchmarks.attribution.table import write_page

METHODS = ["gradient dot product", "EKFAC, expected", "metagradient"]


def test_quick_form_fills_a_page_and_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases.quick(cases.CASES["digits"])
    results, ensemble = tmp_path / "results", tmp_path / "ensemble"
    record = board.run(case, METHODS, results, ensemble, apart=False)
    assert list(record["protocols"]) == ["random halves", "1% removed", "5% removed", "20% removed"]
    assert record["protocols"]["random halves"]["ceiling"] is not None
    assert record["protocols"]["1% removed"]["ceiling"] is None
    assert list(record["rows"]) == ["training", *METHODS]
    row = record["rows"]["metagradient"]
    assert row["seconds"] > 0
    assert row["peak_gib"] > 0.05
    assert row["queries"] == 8
    # Short enough a training that the walk back predicts it nearly perfectly.
    assert row["lds"]["1% removed"]["mean"] > 0.9

    page = write_page(results, list(cases.CASES), tmp_path / "docs")
    text = page.read_text()
    assert text.count("| EKFAC, expected |") == 3
    assert case.title in text
    assert (tmp_path / "docs" / "images" / "leaderboard.png").stat().st_size > 10_000

    def refused(*_: Any) -> dict[str, Any]:
        raise AssertionError("measured again")

    monkeypatch.setattr(board, "measure", refused)
    again = board.run(case, METHODS, results, ensemble, apart=False)
    assert again == record == json.loads((results / "digits.json").read_text())


def test_every_method_and_reason_is_known() -> None:
    for case in cases.CASES.values():
        assert set(case.left_out) | set(case.too_long) <= set(board.METHODS)
        assert len({protocol.kept for protocol in case.protocols}) == len(case.protocols)


@pytest.mark.parametrize("network", [resnet.model, gpt.model], ids=["resnet", "gpt"])
def test_networks_start_from_their_seed(network: Any) -> None:
    first, again, other = (
        torch.cat([p.flatten() for p in network(seed).parameters()]) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_character_sees_only_those_before_it() -> None:
    model = gpt.model(0)
    x = torch.randint(65, (2, gpt.CONTEXT), generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 50] = (changed[:, 50] + 1) % 65
    with torch.no_grad():
        before, after = model(x), model(changed)
    assert torch.allclose(before[:, :50], after[:, :50], atol=1e-5)
    assert not torch.allclose(before[:, 50:], after[:, 50:], atol=1e-3)


def test_smoothness_of_a_short_training() -> None:
    accuracy, one, five, lds_one, lds_five = (
        float(cell) for cell in smoothness.row(torch.nn.GELU, {"epochs": 2}, subsets=4)
    )
    assert 0 <= accuracy <= 1
    # Two epochs are nearly one step of a quadratic, which first order predicts.
    assert min(one, five) > 0.9
    assert min(lds_one, lds_five) > 0.8
    kinds = [type(layer).__name__ for layer in smoothness.network(torch.nn.GELU)]
    assert kinds == ["Linear", "GELU", "Linear", "GELU", "Linear"]
