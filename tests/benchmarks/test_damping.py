"""The default damping beside multiples of the mean: the page shows what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.attribution import damping, perceptrons
from benchmarks.attribution.perceptrons import Setting, of_digits


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")  # three epochs
def test_a_setting_is_measured_once_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(perceptrons, "_WIDTHS", (64, 8, 10))
    case = of_digits(Setting(examples=60, epochs=3), tmp_path / "bank", subsets=6)
    page = tmp_path / "page.md"
    page.write_text(damping.START + damping.END, encoding="utf-8")
    monkeypatch.setattr(damping, "RESULT", tmp_path / "damping.json")
    monkeypatch.setattr(damping, "PAGE", page)
    asked: list[Setting] = []

    def made(setting: Setting, directory: Path) -> perceptrons.Case:
        asked.append(setting)
        return case

    monkeypatch.setattr(damping, "of_digits", made)
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["damping", "20 epochs"])
        damping.main()
    assert len(asked) == 1
    record = json.loads((tmp_path / "damping.json").read_text())["20 epochs"]
    assert set(record) == {"EKFAC", "KFAC", "Gauss–Newton"}
    for row in record.values():
        mean, low, high = row["ahead of the mean"]
        assert row["LDS"][0] - mean == pytest.approx(row["multiples"]["1"])
        assert low <= mean <= high
    assert page.read_text(encoding="utf-8").count("| 20 epochs |") == 3
    assert "Gauss–Newton" in capsys.readouterr().out


def test_the_page_shows_the_rows() -> None:
    page = damping.PAGE.read_text(encoding="utf-8")
    assert damping.written(page) == page, "run python -m benchmarks.attribution.damping"


def test_the_rule_loses_nothing_to_the_mean() -> None:
    rows = [row for record in damping.known().values() for row in record.values()]
    assert len(rows) > 20
    assert all(row["ahead of the mean"][0] > -0.002 for row in rows)
