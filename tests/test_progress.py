"""Long calls show how far they are: in a terminal and a notebook, and nowhere else."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from whence import progress as bars
from whence.methods.model_quality import model_quality
from whence.sources.entry import Asked, from_table

_SOURCE = Path(__file__).parent.parent / "src" / "whence"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def at_terminal(monkeypatch: pytest.MonkeyPatch, delay: float = 0.0) -> Terminal:
    """Make standard error a terminal; in a test itself, since pytest changes it after fixtures."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(bars, "_DELAY", delay)
    return stream


def shown(stream: io.StringIO) -> set[str]:
    """What the bars of a stream are of."""
    return set(re.findall(r"([a-z][a-z ]*):\s+\d+%", stream.getvalue()))


def model() -> tuple[whence.Trained, tuple[np.ndarray, np.ndarray]]:
    X, y = load_breast_cancer(return_X_y=True)
    fitted = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8)).fit(X[:100], y[:100])
    return whence.from_sklearn(fitted, X[:100], y[:100]), (X[413:414], y[413:414])


def test_long_calls_show_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_terminal(monkeypatch)
    objective, query = model()
    whence.explain(objective, query, k=2)
    assert "removals" in shown(terminal)
    whence.influence(objective, query, order="newton", indices=[1, 2])
    whence.find_label_errors(objective)
    assert "penalties" in shown(terminal)
    whence.leave_one_out(objective, [1, 2], query)
    assert "retraining" in shown(terminal)


def test_reading_and_fitting_show_a_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X[:60].assign(y=y[:60]).to_csv(tmp_path / "cells.csv", index=False)
    terminal = at_terminal(monkeypatch)
    found = from_table(tmp_path / "cells.csv", "y", asked=Asked(row="3"))
    model_quality(found.objective)
    steps = re.findall(r"\r([a-z ]+(?:\.csv)?) … 00:0\d", terminal.getvalue())
    assert list(dict.fromkeys(steps)) == [
        "reading cells.csv",
        "fitting logistic regression",
        "judging the model",
    ]


def test_a_clock_ticks_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_terminal(monkeypatch, delay=0.02)
    monkeypatch.setattr(bars, "_TICK", 0.02)
    until = time.monotonic() + 30
    with bars.clock("waiting"):
        while terminal.getvalue().count("waiting … 00:0") < 2 and time.monotonic() < until:
            time.sleep(0.01)
    assert terminal.getvalue().count("waiting … 00:0") >= 2
    assert terminal.getvalue().endswith("\r")
    assert terminal.getvalue().split("\r")[-2].strip() == ""


def test_a_file_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(bars, "_DELAY", 0.0)
    objective, query = model()
    whence.leave_one_out(objective, [1, 2], query)
    with bars.clock("waiting"):
        pass
    assert stream.getvalue() == ""


def test_a_call_of_minutes_says_how_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(bars.time, "monotonic", lambda: now)
    for paces, said in (
        ([2.0] * 100, ["waiting: about 3 min for 100."]),
        ([0.5] * 100, []),
        ([20.0] * 4, ["waiting: about 1 min for 4."]),
        ([5.0] + [0.1] * 60, []),  # the first has something to load
    ):
        for _ in bars.progress(paces, desc="waiting"):
            now += _
        assert capsys.readouterr().err.splitlines() == said
        now = 0.0
        with bars.progress(total=len(paces) + 50, desc="waiting", initial=50) as bar:
            for pace in paces:
                now += pace
                bar.update()
        assert capsys.readouterr().err.splitlines() == said
        now = 0.0


def test_derivatives_of_retrainings_and_members_show_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = load_breast_cancer(return_X_y=True)
    X, y = X[:80, :4], y[:80]
    terminal = at_terminal(monkeypatch)
    boosted = HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(X, y)
    model = whence.from_sklearn(boosted, X, y)
    whence.Boosting(ensemble=4).fit(model).scores((X[:2], y[:2]))
    assert {"fitting halves", "derivatives of retrainings"} <= shown(terminal)
    votes = VotingClassifier([("a", GaussianNB()), ("b", GaussianNB())], voting="soft")
    whence.Composition().fit(whence.from_sklearn(votes.fit(X, y), X, y)).scores((X[:2], y[:2]))
    assert {"retraining members", "composing"} <= shown(terminal)


def test_a_short_call_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_terminal(monkeypatch, delay=60.0)
    objective, query = model()
    whence.leave_one_out(objective, [1, 2], query)
    assert terminal.getvalue() == ""


def test_one_module_alone_makes_bars() -> None:
    makers = {
        path.relative_to(_SOURCE).as_posix()
        for path in _SOURCE.rglob("*.py")
        if re.search(r"^\s*(from|import) tqdm", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert makers == {"progress.py"}


def test_a_notebook_without_widgets_is_no_complaint() -> None:
    code = "import sys, whence.progress; print('ipywidgets' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr
