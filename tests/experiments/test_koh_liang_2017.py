"""The experiments of the paper, in their quick form, on bundled data."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from experiments.koh_liang_2017 import record, resume
from experiments.koh_liang_2017.__main__ import EXPERIMENTS, main


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [experiment.id for experiment in EXPERIMENTS])
def test_quick(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENCE_DATA", str(tmp_path / "no data"))
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(resume, "RESULTS", tmp_path)
    main([name, "--quick"])
    written = json.loads((tmp_path / "quick" / f"{name}.json").read_text())
    assert (written["id"], written["quick"]) == (name, True)
    assert written["bars"]
    assert all(math.isfinite(bar["value"]) for bar in written["bars"])
    assert (tmp_path / "quick" / f"{name}.png").stat().st_size > 5000


def test_done_items_are_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "RESULTS", tmp_path)
    asked: list[str] = []

    def make(key: str) -> dict[str, str]:
        asked.append(key)
        if key == "c" and len(asked) == 3:
            raise KeyboardInterrupt
        return {"is": key}

    with pytest.raises(KeyboardInterrupt):
        resume.each("some", ["a", "b", "c"], make, settings="1")
    path = tmp_path / "partial" / "some.jsonl"
    path.write_text(path.read_text()[:-5])  # a last line cut short
    found = resume.each("some", ["a", "b", "c"], make, settings="1")
    assert [item["is"] for item in found] == ["a", "b", "c"]
    assert asked == ["a", "b", "c", "b", "c"]
    resume.each("some", ["a"], make, settings="2")
    assert asked[-1] == "a"


def test_every_committed_result_is_of_a_full_run() -> None:
    known = {experiment.id for experiment in EXPERIMENTS}
    for path in record.RESULTS.glob("*.json"):
        content = json.loads(path.read_text())
        assert content["id"] in known
        assert not content["quick"]
        assert path.with_suffix(".png").exists()
