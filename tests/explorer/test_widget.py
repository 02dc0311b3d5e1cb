"""The explorer in a notebook: the same script, whose questions a kernel answers by messages."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from sklearn.base import clone

from tests.explorer.data import N, pipeline, subject, table
from tests.pages.test_browser import axe, pytestmark
from whence.errors import UnsupportedModel
from whence.explorer.widget import widget

pytest.importorskip("anywidget", reason="the extra explore is not installed")
__all__ = ["pytestmark"]

X, Y = table()

# A notebook as far as the script sees one: a model with messages, in which the test reads
# what is sent.
_NOTEBOOK = """
const [script, done] = arguments, heard = new Set();
document.body.innerHTML = '<main><header>notebook</header><h1>A notebook</h1><div id="cell"></div></main>';
document.title = "notebook";
document.documentElement.lang = "en";
window.sent = [];
window.hear = message => heard.forEach(listener => listener(message));
const model = { send: message => sent.push(message),
  on: (name, listener) => heard.add(listener), off: (name, listener) => heard.delete(listener) };
import(URL.createObjectURL(new Blob([script], { type: "text/javascript" }))).then(module => {
  window.leave = module.default.render({ model, el: document.getElementById("cell") });
  done();
}, error => done(String(error)));
"""  # noqa: E501


class Notebook:
    """The widget in a browser, its messages carried by the test."""

    def __init__(self, browser: Any) -> None:
        self.browser, self.shown, self.answers = browser, widget(subject()), []
        self.shown.send = lambda content, buffers=None: self.answers.append(content)
        browser.get("about:blank")
        assert browser.execute_async_script(_NOTEBOOK, self.shown._esm) is None
        self.settle()

    @property
    def root(self) -> Any:
        return self.browser.find_element("css selector", "#cell > div").shadow_root

    def find(self, selector: str) -> Any:
        return self.root.find_element("css selector", selector)

    def settle(self) -> None:
        """Answer what is asked until the script is idle."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for asked in self.browser.execute_script("return sent.splice(0)"):
                self.shown._handle_custom_msg(asked, [])
            for answer in self.answers:
                self.browser.execute_script("hear(JSON.parse(arguments[0]))", json.dumps(answer))
            self.answers.clear()
            state = self.find("#explorer").get_dom_attribute
            busy, query, sized = (state(f"data-{name}") for name in ("busy", "query", "sized"))
            if busy == "no" and query is not None and query == sized:
                return
        raise AssertionError("the explorer did not come to rest")

    def click(self, selector: str) -> None:
        element = self.find(selector)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()
        self.settle()


@pytest.fixture(scope="module")
def notebook(browser: Any) -> Notebook:
    return Notebook(browser)


def share(root: Any) -> float:
    """The label's probability that the middle shows first."""
    items = [item.text for item in root.find_elements("css selector", "#answer .shares li")]
    label = next(item for item in items if "label in the data" in item)
    return float(label.split("”")[1].split("%")[0])


def percent(kept: np.ndarray[Any, Any], at: int) -> float:
    """The same by a clone of the user's pipeline, fitted on some rows."""
    model = clone(pipeline()).fit(X.iloc[kept], Y[kept])
    shares = dict(zip(model.classes_, model.predict_proba(X[N + at : N + at + 1])[0], strict=True))
    return float(100 * shares[Y[N + at]])


def test_rows_are_removed_for_real(notebook: Notebook) -> None:
    notebook.click('#list button[data-query="4"]')
    assert abs(share(notebook.root) - percent(np.arange(N), 4)) <= 0.51
    boxes = notebook.root.find_elements("css selector", "#sides input")[:3]
    gone = [int(box.get_attribute("data-position")) for box in boxes]
    for box in boxes:
        box.click()
    notebook.click("#remove")
    assert abs(share(notebook.root) - percent(np.setdiff1d(np.arange(N), gone), 4)) <= 0.51
    assert notebook.find("#log").text.startswith("Removed 3 rows")
    notebook.click("#undo")
    assert abs(share(notebook.root) - percent(np.arange(N), 4)) <= 0.51


def test_what_is_refused_is_told(notebook: Notebook) -> None:
    notebook.click("#sides .open")
    notebook.find("#row input").clear()
    notebook.find("#row input").send_keys("old")
    notebook.click("#row input + button")
    assert notebook.find("#status").text == "Expected a number for this column. Got 'old'."


@pytest.mark.parametrize("background", ["white", "rgb(20, 20, 20)"])
def test_it_takes_the_colors_of_the_notebook(notebook: Notebook, background: str) -> None:
    browser = notebook.browser
    browser.execute_script("document.body.style.background = arguments[0]", background)
    expected = "light" if background == "white" else "dark"
    script = "return document.querySelector('#cell > div').style.colorScheme"
    until = time.monotonic() + 5
    while browser.execute_script(script) != expected and time.monotonic() < until:
        time.sleep(0.02)
    assert browser.execute_script(script) == expected
    browser.execute_script("document.querySelector('header').style.color = 'gray'")
    assert [fault for fault in axe(browser) if "cell" in str(fault)] == []
    assert browser.get_log("browser") == []


_CELL = """
import sys
sys.path[:0] = {path!r}
import whence
from tests.explorer.data import N, fitted, table
X, y = table()
whence.explore(fitted(X[:N], y[:N]), (X[N:], y[N:]))
"""


@pytest.mark.slow
def test_a_cell_shows_it_and_its_kernel_answers(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    from jupyter_core.utils import run_sync
    from nbclient import NotebookClient

    cell = nbformat.v4.new_code_cell(_CELL.format(path=sys.path))
    client = NotebookClient(
        nbformat.v4.new_notebook(cells=[cell]), resources={"metadata": {"path": str(tmp_path)}}
    )
    with client.setup_kernel():
        client.execute_cell(cell, 0)
        (output,) = cell.outputs
        assert output.data["text/plain"] == "Explorer of 30 predictions"
        widget = output.data["application/vnd.jupyter.widget-view+json"]["model_id"]
        for body in ({"query": 3}, {"query": 99}):
            content = {"method": "custom", "content": {"id": "7", "name": "answer", "body": body}}
            kernel = client.kc
            message = kernel.session.msg("comm_msg", {"comm_id": widget, "data": content})
            kernel.shell_channel.send(message)
            while (heard := run_sync(kernel.get_iopub_msg)(timeout=60))["msg_type"] != "comm_msg":
                pass
            said = heard["content"]["data"]["content"]
            if body["query"] == 3:
                assert said["content"]["name"] == f"query p{N + 3}"
            else:
                assert said == {"id": "7", "error": "Expected a prediction from 0 to 29. Got 99."}


@pytest.mark.slow
def test_in_jupyterlab(browser: Any, tmp_path: Path) -> None:
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    cell = nbformat.v4.new_code_cell(_CELL.format(path=sys.path))
    cells = [cell, nbformat.v4.new_code_cell("kept = 1")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, tmp_path / "explore.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    options = ["--IdentityProvider.token=t", "--LabApp.news_url=None", f"--notebook-dir={tmp_path}"]
    lab = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
    try:
        opened(browser, f"http://127.0.0.1:{port}/lab/tree/explore.ipynb?token=t")
        in_lab(browser)
    finally:
        lab.terminate()
        lab.wait()


def opened(browser: Any, address: str) -> None:
    """Open an address as soon as its server answers."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with suppress(OSError), urllib.request.urlopen(address):
            break
        time.sleep(0.2)
    browser.get(address)


def in_lab(browser: Any) -> None:
    """Run the cell, remove a row by clicks, and type in a field without a key reaching the cell."""

    def find(selector: str) -> Any:
        return browser.find_element("css selector", selector)

    def wait(until: Any) -> Any:
        return WebDriverWait(browser, 120, ignored_exceptions=[WebDriverException]).until(
            lambda _: until()
        )

    def root() -> Any:
        return find(".jp-OutputArea [data-lm-suppress-shortcuts]").shadow_root

    def inside(selector: str) -> Any:
        return root().find_element("css selector", selector)

    def click(selector: str) -> None:
        script = "arguments[0].scrollIntoView({block: 'center'})"
        wait(lambda: (browser.execute_script(script, inside(selector)), inside(selector).click()))

    wait(lambda: find(".jp-Notebook .jp-Cell .cm-content").click() is None)
    find(".jp-Notebook .jp-Cell .cm-content").send_keys(Keys.SHIFT + Keys.ENTER)
    wait(lambda: inside("#explorer").get_dom_attribute("data-sized"))
    before = share(root())
    gone = int(inside("#sides input").get_attribute("data-position"))
    click("#sides input")
    click("#remove")
    wait(lambda: inside("#log li"))
    at = int(inside("#explorer").get_dom_attribute("data-query"))
    kept = np.setdiff1d(np.arange(N), [gone])
    assert abs(before - percent(np.arange(N), at)) <= 0.51
    wait(lambda: abs(share(root()) - percent(kept, at)) <= 0.51)
    click("#sides .open")
    field = wait(lambda: inside("#row input"))
    field.send_keys("dd")
    assert field.get_property("value").endswith("dd")
    assert len(browser.find_elements("css selector", ".jp-Notebook .jp-CodeCell")) == 2


def test_without_anywidget_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(UnsupportedModel, match="Expected anywidget"):
        widget(subject())
