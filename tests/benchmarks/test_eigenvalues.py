"""KFAC beside EKFAC: the diagonals are the library's, the differences the same retrainings'."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import whence
from benchmarks.attribution import eigenvalues, eigenvalues_page, perceptrons
from benchmarks.attribution.paired import Judge, interval
from benchmarks.attribution.perceptrons import Case, Setting, of_digits
from benchmarks.attribution.spectra import Factors
from whence.evaluation import lds


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    directory = tmp_path_factory.mktemp("retrainings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perceptrons, "_WIDTHS", (64, 8, 10))
        found = of_digits(Setting(examples=60, epochs=3), directory, subsets=6)
    return replace(found, dampings=(1.0,), fewer=(20,), exact=(1.0,))


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")  # three epochs
@pytest.mark.parametrize("kind", ["KFAC", "EKFAC", "Gauss-Newton"])
def test_the_scores_are_those_of_the_library(case: Case, kind: str) -> None:
    named = eigenvalues.named(kind, eigenvalues.ALL, 1.0, eigenvalues.PLAIN)
    found = next(values for row, values in eigenvalues.answers(case) if row == named)
    known = eigenvalues.described(case)
    solver = {"KFAC": whence.KFAC(), "EKFAC": whence.EKFAC()}.get(kind, whence.Cholesky())
    expected = whence.influence(
        case.objective,
        case.queries,
        solver=solver,
        curvature="ggn",
        damping=known["mean eigenvalue, EKFAC"],
    )
    got = found.numpy() / len(case.objective.train)
    error = np.linalg.norm(got - expected.values) / np.linalg.norm(expected.values)
    assert error < 1e-6


def test_quick_scores_are_as_close_as_they_say(case: Case) -> None:
    exact, quick = (
        {
            eigenvalues.key(row): values
            for row, values in eigenvalues.answers(replace(case, exact=(), rtol=rtol))
        }
        for rtol in (None, 1e-3)
    )
    for name, values in exact.items():
        assert 0 < float((quick[name] - values).norm() / values.norm()) < 1e-2, name


def test_an_lds_is_that_of_the_library_and_differences_are_of_the_same_resamples() -> None:
    generator = np.random.default_rng(0)
    masks = generator.random((12, 30)) < 0.5
    outcomes = generator.normal(size=(2, 12, 7))
    scores = generator.normal(size=(7, 30))
    judge = Judge(masks, outcomes)
    found = judge.lds(scores)
    assert found[0] == pytest.approx(lds(scores, masks, outcomes).mean)
    low, high = interval(found)[1:]
    assert low < found[0] < high
    assert interval(found - judge.lds(2 * scores)) == [0.0, 0.0, 0.0]


def test_examples_made_equal_have_equal_curvature() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, outputs = (
        torch.rand(9, 3, generator=generator),
        torch.rand(9, 2, 4, generator=generator),
    )
    before = Factors((inputs,), (outputs,))
    after = before.equal()
    assert before.carrying() < 8.9
    assert after.carrying() == pytest.approx(9)
    total = [float((each.outputs[0] ** 2).sum()) for each in (before, after)]
    assert total[0] == pytest.approx(total[1])


def test_a_setting_is_run_once(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def of_digits(setting: Setting, directory: Path) -> Case:
        asked.append(directory.name)
        return case

    monkeypatch.setattr(eigenvalues, "RESULT", tmp_path / "eigenvalues.json")
    monkeypatch.setattr(eigenvalues, "of_digits", of_digits)
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["eigenvalues", "20 epochs"])
        eigenvalues.main()
    assert asked == ["20-epochs"]
    record = json.loads((tmp_path / "eigenvalues.json").read_text())["20 epochs"]
    assert record["examples"] == 60
    rows = {eigenvalues.key(row): row for row in record["rows"]}
    assert rows["EKFAC", "10 checkpoints", 1.0, "plain"]["ahead of EKFAC"] == [0.0, 0.0, 0.0]
    assert rows["its blocks", "all examples", 1.0, "plain"]["R with its blocks"] == pytest.approx(1)
    assert "KFAC" in capsys.readouterr().out


def test_the_page_shows_the_rows() -> None:
    page = eigenvalues_page.PAGE.read_text(encoding="utf-8")
    assert eigenvalues_page.written(page) == page, (
        "run python -m benchmarks.attribution.eigenvalues_page"
    )


def lead(name: str, source: str = eigenvalues.ALL, times: float = 1.0) -> list[float]:
    """How far KFAC is ahead of EKFAC, and the interval."""
    row = eigenvalues_page.row_of(eigenvalues.known()[name], "KFAC", source, times)
    found: list[float] = row["ahead of EKFAC"]
    return found


def test_what_the_page_says_in_words_holds_in_the_rows() -> None:
    known = eigenvalues.known()
    assert set(known) == {*perceptrons.SETTINGS, eigenvalues.W2}
    longer = [known[f"{epochs} epochs"] for epochs in (5, 10, 20, 40, 80, 160)]
    carrying = [record["examples that carry the curvature"] for record in longer]
    assert carrying == sorted(carrying, reverse=True)
    means = [lead(f"{epochs} epochs")[0] for epochs in (10, 20, 40, 80, 160)]
    assert means == sorted(means)
    assert lead("10 epochs")[2] <= 0.001
    assert lead("10 epochs", times=0.1)[2] < 0
    for name in ("40 epochs", eigenvalues.W2):
        sources = ("first half", "second half", "other examples")
        fishers = ("sampled Fisher", "empirical Fisher")
        assert all(lead(name, source)[1] > 0 for source in (*sources, *fishers)), name
        shares = [
            eigenvalues_page.row_of(known[name], kind)["ahead of EKFAC"][0]
            for kind in eigenvalues.MIXTURES
        ]
        assert lead(name)[0] > shares[0] > shares[1] > shares[2] > 0
        for kind in ("KFAC", f"KFAC, {eigenvalues.FREE}"):
            assert known[name]["best"][kind]["ahead of EKFAC"][1] > 0, kind
    assert lead("40 epochs", "10 checkpoints")[1] > 0
    for name, record in known.items():
        like = eigenvalues_page.row_of(record, "KFAC, inputs weighted")["ahead of EKFAC"][0]
        assert (like < 0) == (name != "5 epochs"), name
        if lead(name)[1] > 0:
            inputs, equal = (
                eigenvalues_page.row_of(record, kind)
                for kind in ("KFAC, inputs weighted", "EKFAC, examples equal")
            )
            assert inputs["ahead of EKFAC"][2] < 0, name
            assert equal["ahead of KFAC"][1] > 0, name


def test_a_tenth_of_the_damping_gains_on_long_trainings_and_loses_more_on_the_shortest() -> None:
    gains = {
        name: [
            eigenvalues_page.row_of(record, "EKFAC", times=times)["LDS"][0] for times in (0.1, 1.0)
        ]
        for name, record in eigenvalues.known().items()
    }
    change = {name: tenth - whole for name, (tenth, whole) in gains.items()}
    assert change["5 epochs"] == min(change.values()) < -max(change.values())
    assert 0.04 < max(change.values()) < 0.05
    assert abs(change[eigenvalues.W2]) < 0.01
