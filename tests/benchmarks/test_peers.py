"""Rows, resuming and the page: all without a peer installed."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import compare, page, rows
from benchmarks.bars import BARS, times_faster
from benchmarks.methods import METHODS, Method
from benchmarks.rows import Row
from benchmarks.workloads.agreement import against, correlation
from benchmarks.workloads.w1 import exact_influence

MACHINE = {
    "processor": "a processor",
    "cores": 2,
    "memory_gb": 16.0,
    "float32_gflops": 250.0,
    "float64_gflops": 120.0,
    "bandwidth_gbs": 10.0,
    "torch": "2.13.0",
}


def row(library: str, method: str, queries: str = "1 query", **values: Any) -> Row:
    agreement = {"pearson": 0.9, "spearman": 0.7, "relative error": 0.3}
    base = Row(
        library=library,
        version="1.0",
        method=method,
        workload="w1",
        queries=queries,
        n_queries=1,
        prepare_s=2.0,
        query_s=1.0,
        peak_mb=900.0,
        accuracy={**agreement, "pearson with retraining": 0.95},
        machine=MACHINE,
        threads=2,
        run_id="one",
    )
    return replace(base, **values)


def test_rows_come_back_and_are_replaced_by_key(tmp_path: Path) -> None:
    path = tmp_path / "w1.jsonl"
    rows.keep(path, row("a", "m"))
    rows.keep(path, row("a", "m", "100 queries"))
    rows.keep(path, row("a", "m", query_s=7.0))
    read = rows.read(path)
    assert {other.key for other in read} == {("a", "m", "1 query"), ("a", "m", "100 queries")}
    assert [other.query_s for other in read if other.queries == "1 query"] == [7.0]
    assert [file.name for file in tmp_path.iterdir()] == ["w1.jsonl"]


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Replace the measuring; return what was asked to be measured."""
    asked: list[tuple[str, str]] = []

    def measure(method: Method, queries: str, **_: Any) -> Row:
        asked.append((method.name, queries))
        if len(asked) == 3:
            raise KeyboardInterrupt
        status = "timeout" if method.name == "slow" else "ok"
        return row(method.library, method.name, queries, status=status)

    methods = [
        Method(workload="w1", library="some", name=name, timeout=1.0) for name in ("slow", "fine")
    ]
    monkeypatch.setattr(compare, "METHODS", methods)
    monkeypatch.setattr(compare, "measure", measure)
    monkeypatch.setattr(compare, "built", lambda *_: None)
    monkeypatch.setattr(compare, "python_of", Path)
    monkeypatch.setattr(compare, "version_of", lambda _: "1.0")
    monkeypatch.setattr(compare.machine, "described", lambda *_: MACHINE)
    monkeypatch.setattr(compare, "results", lambda *_: tmp_path)
    return asked


def run(**options: Any) -> int:
    given = {"libraries": None, "quick": True, "fresh": False, "memory_mb": 0.0, "run_id": "one"}
    return compare.compare(["w1"], **{**given, **options})


def test_an_interrupted_run_goes_on_at_the_row(
    measured: list[tuple[str, str]], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run()
    assert run() == 3
    # After the timeout larger sets were not tried, and nothing was measured twice.
    assert measured == [
        ("slow", "1 query"),
        ("fine", "1 query"),
        ("fine", "100 queries"),
        ("fine", "100 queries"),
        ("fine", "1,000 queries"),
    ]
    kept = {other.key: other for other in rows.read(tmp_path / "w1.jsonl")}
    assert kept["some", "slow", "1,000 queries"].status == "skipped"
    assert kept["some", "fine", "1,000 queries"].machine == MACHINE


def test_another_run_measures_again(measured: list[tuple[str, str]], tmp_path: Path) -> None:
    rows.keep(tmp_path / "w1.jsonl", row("some", "slow", run_id="before"))
    with pytest.raises(KeyboardInterrupt):
        run()
    assert measured[0] == ("slow", "1 query")


def test_the_child_of_a_failing_method_leaves_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "_run", lambda *_: (1, "Traceback ...\nValueError: too small\n"))
    found = compare.measure(
        METHODS[0], "1 query", setting=None, quick=True, memory_mb=0.0, python=Path("python")
    )
    assert (found.status, found.note) == ("failed", "ValueError: too small")
    monkeypatch.setattr(compare, "_run", lambda *_: (None, ""))
    found = compare.measure(
        METHODS[0], "1 query", setting=None, quick=True, memory_mb=0.0, python=Path("python")
    )
    assert (found.status, found.note) == ("timeout", "Stopped after 120 s.")


def test_agreement() -> None:
    truth = np.random.default_rng(0).normal(size=(3, 50))
    same = against(2 * truth, truth, unit=True)
    assert same["pearson"] == pytest.approx(1.0)
    assert same["spearman"] == pytest.approx(1.0)
    assert same["relative error"] == pytest.approx(1.0)
    assert "relative error" not in against(truth, truth, unit=False)
    assert correlation(np.ones(5), truth[0, :5]) == 0.0


def test_exact_influence_is_its_definition() -> None:
    rng = np.random.default_rng(1)
    x, y, coef = rng.normal(size=(12, 3)), np.arange(12) % 2, rng.normal(size=(2, 3))

    def gradient(row: NDArray[Any], label: int, theta: NDArray[Any]) -> NDArray[Any]:
        p = np.exp(theta @ row) / np.exp(theta @ row).sum()
        return np.outer(p - np.eye(2)[label], row).ravel()

    def mean_gradient(theta: NDArray[Any]) -> NDArray[Any]:
        rows = [gradient(r, label, theta) for r, label in zip(x, y, strict=True)]
        return np.mean(rows, axis=0) + 0.01 * theta.ravel()

    step = 1e-6 * np.eye(6)
    hessian = np.stack(
        [
            (mean_gradient(coef + s.reshape(2, 3)) - mean_gradient(coef - s.reshape(2, 3))) / 2e-6
            for s in step
        ]
    )
    g = np.stack([gradient(r, label, coef) for r, label in zip(x, y, strict=True)])
    expected = g[:2] @ np.linalg.solve(hessian, g.T) / 12
    np.testing.assert_allclose(exact_influence(x, y, coef, x[:2], y[:2]), expected, rtol=1e-4)


def test_a_promise_is_held_or_not() -> None:
    ours, theirs = row("whence", "exact"), row("a", "m", query_s=5.0)
    assert times_faster("", ours, theirs, 2.0).held is True
    assert times_faster("", ours, theirs, 3.0).held is False
    assert times_faster("", None, theirs, 3.0).held is None


def test_the_page_is_drawn_from_rows(tmp_path: Path) -> None:
    exact = {"pearson": 1.0, "spearman": 1.0, "relative error": 1e-8}
    exact["pearson with retraining"] = 0.99
    written = [
        row("whence", "exact", "100 queries", accuracy=exact, query_s=1.0),
        row("captum", "TracInCPFast", "100 queries", query_s=0.1, prepare_s=0.1),
        row("kronfluence", "EK-FAC", "100 queries", query_s=10.0),
        row("dattri", "EK-FAC", "100 queries", status="failed", note="It says why.", query_s=None),
    ]
    results, docs = tmp_path / "results", tmp_path / "docs"
    rows.write(results / "w1.jsonl", written)
    growth = {"method": "CG", "axis": "n", "sizes": [1, 10], "seconds": [1, 10]}
    growth |= {"peak_mb": [5, 5]}
    (results / "growth.json").write_text(json.dumps({"series": [growth]}))
    assert page.main(["--results", str(results), "--docs", str(docs)]) == 0
    text = (docs / "explanation" / "benchmarks.md").read_text()
    assert "| **whence** | exact | 2.00 | 1.00 | 1 | 900 | 1.0e-08 |" in text
    assert "dattri EK-FAC, 100 queries: failed. It says why." in text
    assert "captum TracInCPFast took 0.20 s" in text
    assert "| CG | n | 1.00 |" in text
    assert (docs / "images" / "benchmarks-w1.png").stat().st_size > 5000
    assert page.main(["--results", str(results), "--docs", str(docs)]) == 0
    assert (docs / "explanation" / "benchmarks.md").read_text() == text


def test_every_method_has_an_adapter_and_every_workload_its_promises() -> None:
    for method in METHODS:
        adapter = Path(compare.__file__).parent / "peers" / f"{method.library}.py"
        assert f'"{method.name}"' in adapter.read_text()
    assert {method.workload for method in METHODS} == set(compare.WORKLOADS) == set(BARS)
    assert set(BARS) == set(page.TABLES) == set(page.SETUP)


def test_a_run_keeps_its_name_until_the_code_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    monkeypatch.setattr(compare, "_ROOT", tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "code.py").write_text("1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    before = compare.run_name()
    rows.keep(tmp_path / "benchmarks" / "results" / "w1.jsonl", row("a", "m"))
    assert compare.run_name() == before
    (tmp_path / "src" / "code.py").write_text("2\n")
    assert compare.run_name() != before


def test_one_ranking_of_ours_is_held_against_cleanlab() -> None:
    def found(library: str, method: str, seconds: float, *shares: float) -> Row:
        accuracy = {"found at 10%": shares[0], "found at 20%": shares[1]}
        return row(library, method, accuracy=accuracy, query_s=seconds, prepare_s=0.0)

    bars = BARS["w4"](
        [
            found("whence", "self-influence", 2.0, 0.5, 0.9),
            found("whence", "label errors", 5.0, 0.9, 0.8),
            found("cleanlab", "label quality", 10.0, 0.7, 0.85),
            found("pydvl", "self-influence, Nyström", 30.0, 0.6, 0.8),
        ]
    )
    assert [bar.held for bar in bars] == [True, True, True, False]
    assert "15 × (2.00 s; pydvl" in bars[0].measured
    assert all("label errors" in bar.text + bar.measured for bar in bars[1:])
