"""Popular real tables, as they are shipped, through every command: a sensible model, no traceback.

Small samples of each, every few rows; `make test-slow` runs them whole.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sklearn.datasets
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests.command_line import run
from whence.sources.entry import from_table

_ROWS = 48  # of a sample
# Series of numbers like the others here: they run with the slow tests.
_ALIKE = {f"statsmodels-{name}" for name in ("copper", "danish_data", "engel", "nile", "strikes")}
_ALIKE |= {f"vega-{name}" for name in ("crimea", "driving", "ohlc", "wheat", "us-employment")}


@dataclass(frozen=True)
class Real:
    """A real table, the target that people predict in it, and whether that can be predicted.

    Args:
        name: What it is called.
        target: The column to predict.
        labels: Whether that is a label.
        rows: From the folder of real data sets to the rows: text with a header, or a frame.
        local: Whether it lies in that folder, and in no package.
        slow: Whether a sample of it takes more than a second or two.
    """

    name: str
    target: str
    labels: bool
    rows: Callable[[Path], str | pd.DataFrame]
    local: bool = False
    slow: bool = False


def _shipped(package: str, *path: str) -> Callable[[Path], str]:
    """A text file of a package, as it is."""
    return lambda _: (importlib.resources.files(package).joinpath(*path)).read_text("utf-8")


def _sm(name: str, target: str, labels: bool = False, file: str | None = None) -> Real:
    where = ("statsmodels.datasets", name, f"{file or name}.csv")
    return Real(f"statsmodels-{name}", target, labels, _shipped(*where))


def _vega(name: str, target: str, labels: bool = False) -> Real:
    def rows(_: Path) -> str | pd.DataFrame:
        folder = importlib.resources.files("vega_datasets") / "_data"
        csv = folder / f"{name}.csv"
        if csv.is_file():
            return csv.read_text("utf-8")
        return pd.DataFrame(json.loads((folder / f"{name}.json").read_text("utf-8")))

    return Real(f"vega-{name}", target, labels, rows)


def _sklearn(name: str, target: str = "target", labels: bool = True) -> Real:
    def rows(_: Path) -> pd.DataFrame:
        bunch = getattr(sklearn.datasets, f"load_{name}")(as_frame=True)
        frame: pd.DataFrame = bunch.frame
        return frame

    return Real(f"sklearn-{name}", target, labels, rows, slow=name == "digits")


def _data(name: str, target: str, labels: bool, *path: str) -> Real:
    def rows(folder: Path) -> str:
        with gzip.open(folder.joinpath(*path), "rt", encoding="utf-8") as file:
            return file.read()

    return Real(f"data-{name}", target, labels, rows, local=True, slow=True)


def _titanic(_: Path) -> str:
    return (Path(__file__).parents[2] / "examples" / "titanic.csv").read_text("utf-8")


REAL = [
    Real("titanic", "survived", True, _titanic),
    _sklearn("iris"),
    _sklearn("wine"),
    _sklearn("breast_cancer"),
    _sklearn("digits"),
    _sklearn("diabetes", labels=False),
    _sklearn("linnerud", "Weight", labels=False),
    _sm("anes96", "vote", labels=True),
    _sm("cancer", "cancer"),
    _sm("ccard", "AVGEXP"),
    _sm("committee", "BILLS104"),
    _sm("copper", "WORLDCONSUMPTION"),
    _sm("cpunish", "EXECUTIONS"),
    _sm("danish_data", "lrm", file="data"),
    _sm("elnino", "DEC"),
    _sm("engel", "foodexp"),
    _sm("fair", "affairs"),
    _sm("grunfeld", "invest"),
    _sm("heart", "survival"),
    _sm("longley", "TOTEMP"),
    _sm("macrodata", "realgdp"),
    _sm("modechoice", "choice", labels=True),
    _sm("nile", "volume"),
    _sm("scotland", "YES", file="scotvote"),
    _sm("spector", "GRADE", labels=True),
    _sm("stackloss", "STACKLOSS"),
    _sm("star98", "PR50M"),
    _sm("statecrime", "violent"),
    _sm("strikes", "duration"),
    _sm("sunspots", "SUNACTIVITY"),
    _vega("airports", "latitude"),
    _vega("barley", "yield"),
    _vega("burtin", "Gram_Staining", labels=True),
    _vega("cars", "Miles_per_Gallon"),
    _vega("cars", "Origin", labels=True),
    _vega("crimea", "disease"),
    _vega("driving", "miles"),
    _vega("iowa-electricity", "net_generation"),
    _vega("la-riots", "gender", labels=True),
    _vega("ohlc", "close"),
    _vega("seattle-temps", "temp"),
    _vega("seattle-weather", "weather", labels=True),
    _vega("stocks", "price"),
    _vega("us-employment", "nonfarm"),
    _vega("wheat", "wages"),
    _data("diabetes130", "readmitted", True, "diabetes130", "diabetic_data.csv.gz"),
    _data("agnews", "Class Index", True, "text", "agnews_test.csv.gz"),
    _data("sst2", "column 2", True, "text", "sst2_dev.tsv.gz"),
]


def _written(real: Real, data: Path, folder: Path, rows: int | None) -> Path:
    """Write a table as its package ships it, some of its rows."""
    found = real.rows(data)
    if isinstance(found, pd.DataFrame):
        step = 1 if rows is None else max(1, len(found) // rows)
        path = folder / f"{real.name}.csv"
        found.iloc[::step].to_csv(path, index=False)
        return path
    lines = found.strip("\n").split("\n")
    step = 1 if rows is None else max(1, (len(lines) - 1) // rows)
    tabs = lines[0].count("\t") > lines[0].count(",")
    path = folder / f"{real.name}.{'tsv' if tabs else 'csv'}"
    path.write_text("\n".join([lines[0], *lines[1::step]]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "real",
    [
        pytest.param(real, marks=[pytest.mark.slow] if real.slow or real.name in _ALIKE else [])
        for real in REAL
    ],
    ids=[f"{real.name}-{real.target}" for real in REAL],
)
def test_every_command(
    real: Real, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Commands that ask about the same rows share a model, as calls of the library do.
    monkeypatch.setattr("whence.sources.entry.from_table", cache(from_table))
    data = request.getfixturevalue("whence_data") if real.local else tmp_path
    path = _written(real, data, tmp_path, _ROWS)
    commands: dict[str, tuple[object, ...]] = {
        "explain": ("--row", 3, "-k", 1, "--verify", 0, "-o", tmp_path / "why.html", "--json"),
        "influence": ("--row", 3, "-k", 2, "--json"),
        "verify": ("--row", 3, "-k", 2, "--json"),
        "report": ("--rows", 2, "-k", 1, "-o", tmp_path / "many.html", "--json"),
        "evaluate": ("--rows", 2, "--subsets", 3, "--json"),
        "diagnose": ("--json",),
        "label-errors": ("-k", 3, "-o", tmp_path / "labels.html", "--json"),
    }
    answers = {}
    for command, options in commands.items():
        code, out, err = run(command, path, "-t", real.target, *options)
        assert "Traceback" not in err, err
        assert code == 0, (command, err)
        answers[command] = json.loads(out)
    said = answers["explain"]
    assert f"{real.target} is taken as a {'label' if real.labels else 'quantity'}" in " ".join(
        said["notes"]
    )
    assert isinstance(said["prediction"], str | int | float)
    assert (said["probability"] is not None) == real.labels
    assert said["scores"]
    assert answers["verify"]["removals"]
    assert _is_sensible(said["quality"])


def _is_sensible(quality: dict[str, Any]) -> bool:
    """Return whether a model is not clearly worse than the simplest answer, on a small sample.

    Both shares are of as few rows as are judged: their difference is of 0 within two errors.
    """
    if quality["accuracy"] is not None:
        error = (quality["majority"] * (1 - quality["majority"]) * 2 / quality["n"]) ** 0.5
        return bool(quality["accuracy"] >= quality["majority"] - max(0.15, 2 * error))
    return bool(quality["error"] <= 1.3 * quality["error_of_mean"])


@pytest.mark.slow
def test_titanic_in_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file to a page that nobody needs a nat to read."""
    where = Path(__file__).parents[2] / "examples" / "titanic.csv"
    page = tmp_path / "why.html"
    code, out, err = run("explain", where, "-t", "survived", "--row", 17, "-o", page)
    assert code == 0
    assert "say the same as survived in every row were left out: alive" in err
    assert "The model is right on 82 of 100 examples it has not seen" in out
    text = page.read_text("utf-8")
    digest = hashlib.sha256(where.read_bytes()).hexdigest()
    for words in (
        f"titanic.csv has the SHA-256 digest {digest}.",
        f"whence explain {where} -t survived --row 17 -o {page}",
        "True and False are read as yes and no in adult_male, alone.",
        "is the most that any one of the training rows moves this.",
        "training rows would have to be gone before the model said",
        "Every point was retrained.",
        "have copies in the training data",
        "20 of 20 predictions were confirmed by retraining.",
    ):
        assert words in text, words
    frame = pd.read_csv(where)
    X, y = frame.drop(columns=["survived", "alive"]), frame["survived"]
    for name in ("adult_male", "alone"):
        X[name] = X[name].map({True: "yes", False: "no"})
    numbers = list(X.select_dtypes("number"))
    levels = [name for name in X if name not in numbers]
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        (
            make_pipeline(
                SimpleImputer(strategy="constant", fill_value="missing"),
                OneHotEncoder(handle_unknown="ignore"),
            ),
            levels,
        ),
    )
    model = make_pipeline(columns, LogisticRegression(tol=1e-10, max_iter=5000))
    for without in (199, 226):  # the strongest of either side, by the user's own library
        gone = [17, without]
        fitted = model.fit(X.drop(index=gone), y.drop(index=gone))
        share = 100 * fitted.predict_proba(X.loc[[17]])[0, 1]
        assert re.search(rf">{without}</a></th>.*?>{share:.1f} %<", text), share
