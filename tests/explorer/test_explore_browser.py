"""The explorer in a real browser: what is clicked is retrained, and nothing in the data is run."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.common.exceptions import StaleElementReferenceException
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import whence
from tests.explorer.data import FLIPPED, N, pipeline, subject, table
from tests.pages.test_browser import (
    _ACCESSIBLE,
    _CONTRAST,
    axe,
    comes,
    expect,
    find,
    pytestmark,
    resize,
    texts,
)
from whence.explorer.server import serving

__all__ = ["pytestmark"]

X, Y = table()


def settled(browser: Any) -> None:
    """Wait until the page has nothing left to do."""
    script = (
        "const d = document.getElementById('explorer').dataset;"
        "return d.busy === 'no' && d.query !== undefined && d.query === d.sized"
    )
    comes(lambda: browser.execute_script(script), True, seconds=60)
    status = find(browser, "#status")
    assert "failed" not in status.get_attribute("class"), status.text


def opened(browser: Any, address: str, *, width: int = 1400) -> None:
    """Open the explorer and wait for its first answer."""
    resize(browser, width, 1000)
    browser.get_log("browser")
    browser.get(address)
    settled(browser)


def click(browser: Any, selector: str) -> None:
    """Click where a hand would, wherever the page has scrolled to."""

    def clicked() -> bool:
        element = find(browser, selector)
        try:
            browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
        except StaleElementReferenceException:  # drawn anew meanwhile: nothing was clicked
            return False
        return True

    comes(clicked, True)
    settled(browser)


def share(browser: Any) -> float:
    """The label's probability, as the middle shows it first with its note."""
    label = browser.execute_script(
        "return [...document.querySelectorAll('#answer .shares li')]"
        ".find(e => e.textContent.includes('label in the data')).textContent"
    )
    return float(label.split("”")[1].split("%")[0])


def percent(x: Any, y: Any, at: int) -> float:
    """The same by a clone of the user's pipeline."""
    model = clone(pipeline()).fit(x, y)
    shares = dict(zip(model.classes_, model.predict_proba(X[N + at : N + at + 1])[0], strict=True))
    return float(100 * shares[Y[N + at]])


def shown(value: float, exact: float) -> bool:
    return abs(value - exact) <= 0.51


def choose(browser: Any, at: int) -> None:
    click(browser, f'#list button[data-query="{at}"]')


def test_left_sorts_filters_and_turns_to_training_rows(browser: Any, shared: str) -> None:
    opened(browser, shared)
    model = clone(pipeline()).fit(X[:N], Y[:N])
    said = model.predict(X[N:])
    assert len(texts(browser, "#list button")) == len(said)
    find(browser, "#mistakes").click()
    wrong = [f"row p{N + i}" for i in np.flatnonzero(said != Y[N:])]
    comes(lambda: texts(browser, "#list .name"), wrong)
    find(browser, "#mistakes").click()
    find(browser, "#order option:nth-child(2)").click()  # least sure of the label first
    shares = [percent(X[:N], Y[:N], i) for i in range(len(said))]
    expect(browser, "#list .name", f"row p{N + int(np.argmin(shares))}")
    find(browser, "#by option:nth-child(2)").click()
    settled(browser)
    first = texts(browser, "#list .name")[:FLIPPED]
    assert len({f"p{i}" for i in range(FLIPPED)} & set(first)) >= FLIPPED // 2
    click(browser, "#list button")
    assert find(browser, "#row h3").text == f"Training row {first[0]}"


def test_ticked_rows_are_removed_for_real_and_come_back(browser: Any, address: str) -> None:
    opened(browser, address)
    choose(browser, 4)
    before = share(browser)
    assert shown(before, percent(X[:N], Y[:N], 4))
    boxes = browser.find_elements("css selector", "#sides input")[:3]
    positions = [int(box.get_attribute("data-position")) for box in boxes]
    for box in boxes:
        box.click()
    comes(lambda: texts(browser, "#ticked")[0].partition(":")[0], "3 rows ticked")
    click(browser, "#remove")
    kept = np.setdiff1d(np.arange(N), positions)
    assert shown(share(browser), percent(X.iloc[kept], Y[kept], 4))
    assert "retrained" in find(browser, "#changed").text
    assert "Removed 3 rows" in find(browser, "#log").text
    click(browser, "#undo")
    assert share(browser) == before
    assert texts(browser, "#log li") == []


def test_a_label_and_a_cell_are_changed_for_real(browser: Any, address: str) -> None:
    opened(browser, address)
    choose(browser, 2)
    click(browser, "#sides .open")
    position = int(find(browser, "#row").get_attribute("data-position"))
    y = Y[:N].copy()
    y[position] = "died" if y[position] == "survived" else "survived"
    options = browser.find_elements("css selector", "#row select option")
    next(option for option in options if option.text == y[position]).click()
    click(browser, "#row select + button")
    assert shown(share(browser), percent(X[:N], y, 2))
    click(browser, "#sides .open")
    second = int(find(browser, "#row").get_attribute("data-position"))
    field = find(browser, "#row input")
    field.clear()
    field.send_keys("79")
    click(browser, "#row input + button")
    x = X[:N].copy()
    x.iloc[second, 0] = 79
    assert shown(share(browser), percent(x, y, 2))
    assert len(texts(browser, "#log li")) == 2


def test_the_fewest_that_flip_flip_it(browser: Any, address: str) -> None:
    opened(browser, address)
    model = clone(pipeline()).fit(X[:N], Y[:N])
    sure = np.abs(model.predict_proba(X[N:])[:, 1] - 0.5)
    at = int(sure.argmin())
    choose(browser, at)
    before = texts(browser, "#answer .shares li")[0]
    click(browser, "#flip")
    assert "the model says" in find(browser, "#ticked").text
    click(browser, "#remove")
    assert texts(browser, "#answer .shares li")[0].split("”")[0] != before.split("”")[0]


def test_a_group_is_ticked(browser: Any, shared: str) -> None:
    opened(browser, shared)
    find(browser, "#column option:nth-child(4)").click()
    settled(browser)
    names = texts(browser, "#groups .name")
    assert set(names) == {"male", "female"}
    click(browser, "#groups button")
    count = int((X["sex"][:N] == names[0]).sum())
    assert f"{count} rows of the group {names[0]} ticked" in find(browser, "#ticked").text


def downloads(browser: Any, folder: Path) -> Callable[[str], str]:
    """Let the browser save files; return what reads one by its name."""
    behavior = {"behavior": "allow", "downloadPath": str(folder)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)

    def read(name: str) -> str:
        path, until = folder / name, time.monotonic() + 30
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.05)
        return path.read_text(encoding="utf-8-sig")

    return read


def test_labels_are_decided_by_key_and_retrained(
    browser: Any, address: str, tmp_path: Path
) -> None:
    read = downloads(browser, tmp_path)
    opened(browser, address)
    click(browser, "#view-labels")
    names = texts(browser, "#suspects th")
    body = find(browser, "body")
    body.send_keys("r", "d", "k", "r", "u")
    expect(browser, "#suspects .decision", "relabel", "drop", "keep", "")
    assert "3 of" in find(browser, "#decided").text
    click(browser, "#export")
    rows = list(csv.reader(read("whence-labels.csv").splitlines()))
    assert rows[0] == ["row", "label", "decision", "new label"]
    assert [row[0] for row in rows[1:]] == names[:3]
    assert [row[2] for row in rows[1:]] == ["relabel", "drop", "keep"]
    click(browser, "#decide")
    y = Y[:N].copy()
    first, second = (int(name.removeprefix("p")) for name in names[:2])
    y[first] = "died" if y[first] == "survived" else "survived"
    kept = np.delete(np.arange(N), second)
    before, after = (
        float((clone(pipeline()).fit(x, labels).predict(X[N:]) == Y[N:]).mean())
        for x, labels in ((X[:N], Y[:N]), (X.iloc[kept], y[kept]))
    )
    assert find(browser, "#verdict").text == (
        f"Retrained: accuracy {before:.1%} on 30 held-out rows → accuracy {after:.1%} on 30 "
        "held-out rows"
    )


def test_the_log_is_saved_as_a_page_and_a_script(
    browser: Any, address: str, tmp_path: Path
) -> None:
    read = downloads(browser, tmp_path)
    opened(browser, address)
    click(browser, "#sides input")
    click(browser, "#remove")
    click(browser, "#save-page")
    click(browser, "#save-script")
    done = find(browser, "#log li").text.split(". ")[0]
    assert "Removed row" in done
    assert done in read("whence-log.html")
    assert "Remove(positions=" in read("whence-log.py")


def test_rows_are_ordered_by_their_numbers(browser: Any, shared: str) -> None:
    opened(browser, shared)
    choose(browser, 7)
    for side in (1, 2):
        shown_numbers = texts(browser, f"#sides section:nth-child({side}) .effect")
        numbers = [float(number.split()[0]) for number in shown_numbers]
        assert numbers in (sorted(numbers), sorted(numbers, reverse=True))
        assert len(numbers) > 1


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_reads_well_and_has_names(browser: Any, shared: str, width: int, dark: bool) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    opened(browser, shared, width=width)
    click(browser, "#sides .open")
    for view in ("#view-explore", "#view-labels"):
        click(browser, view)
        assert axe(browser) == []
        assert browser.execute_script(_CONTRAST) == []
        assert browser.execute_script(_ACCESSIBLE) == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []


def test_hostile_names_are_shown_and_never_run(browser: Any) -> None:
    hostile = "</script><script>window.hacked = 1</script><img src=x onerror=hacked=1>"
    x = X.rename(columns={"age": hostile})
    x["sex"] = x["sex"].replace("male", hostile)
    x.index = [f"{hostile} {name}" for name in x.index]
    y = np.where(Y == "died", hostile, Y).astype(object)
    columns = ColumnTransformer(
        [("n", StandardScaler(), [hostile, "fare"]), ("s", OneHotEncoder(), ["sex"])]
    )
    model = make_pipeline(columns, LogisticRegression(tol=1e-8)).fit(x[:N], y[:N])
    trained = whence.from_sklearn(model, x[:N], y[:N])
    hostile_subject = replace(
        subject(),
        trained=trained,
        queries=trained.examples((x[N:], y[N:])),
        names=tuple(map(str, x.index[N:])),
        about=(hostile,),
    )
    with serving(hostile_subject) as address:
        opened(browser, address)
        click(browser, "#sides .open")
        find(browser, "#column option:nth-child(4)").click()
        settled(browser)
        click(browser, "#sides input")
        click(browser, "#remove")
        click(browser, "#view-labels")
        assert browser.execute_script("return window.hacked") is None
        assert browser.find_elements("css selector", "main img") == []
        assert hostile in find(browser, "header").text
        assert browser.get_log("browser") == []
