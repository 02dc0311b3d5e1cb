"""Pages in a real browser: Debian's chromium, driven headless, with no network."""

from __future__ import annotations

import importlib.resources
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import whence
from tests.pages.pages import (
    ROW,
    attacked,
    batch,
    explanation,
    images,
    ranked,
    regression,
    result,
    sequences,
    sides,
    with_text,
)
from tests.pages.pages import (
    texts as texts_page,
)
from whence.pages import Item, Listed, Listing, Page, QueryRow, write
from whence.sources.models import fit_table
from whence.sources.tables import read_table

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
_CHROMIUM, _DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
pytestmark = pytest.mark.skipif(
    not (_CHROMIUM.exists() and _DRIVER.exists()),
    reason="no chromium: apt-get install chromium chromium-driver",
)
_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1100,900",
]
PAGES = pytest.mark.parametrize(
    "page",
    [
        explanation(),
        regression(),
        texts_page(),
        sequences(),
        images(),
        batch(),
        ranked(),
        attacked(),
        result(),
    ],
    ids=["row", "number", "texts", "tokens", "images", "many", "ranked", "attack", "result"],
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(_CHROMIUM)
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(_DRIVER)))
    yield driver
    driver.quit()


def resize(browser: Any, width: int, height: int) -> None:
    """Give the window a size before a page opens, which asks only then if it is on a phone."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    comes(lambda: browser.execute_script("return innerWidth"), width)


def show(browser: Any, page: Page, folder: Path, *, width: int = 1100, dark: bool = False) -> None:
    """Open a page, with the logs of what came before emptied."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    resize(browser, width, 900)
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(write(page, folder / "page.html").as_uri())


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def texts(browser: Any, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText.trim())"
    return [str(text) for text in browser.execute_script(script, selector)]


def titles(browser: Any) -> list[str]:
    return texts(browser, "table.rows button.open")


def comes(read: Callable[[], Any], expected: Any, *, seconds: float = 20) -> None:
    """Assert what a browser comes to show, however slow the machine."""
    until = time.monotonic() + seconds
    while (found := read()) != expected and time.monotonic() < until:
        time.sleep(0.02)
    assert found == expected


def expect(browser: Any, selector: str, *expected: str) -> None:
    """Assert the texts of the first elements that a selector finds."""
    comes(lambda: texts(browser, selector)[: len(expected)], list(expected))


def expect_titles(browser: Any, *expected: str) -> None:
    """Assert the first rows of a table."""
    expect(browser, "table.rows button.open", *expected)


def expect_visible(browser: Any, selector: str, visible: bool = True) -> None:
    """Assert whether an element is visible."""
    comes(lambda: find(browser, selector).is_displayed(), visible)


def expect_attribute(browser: Any, selector: str, name: str, expected: str | None) -> None:
    """Assert an attribute of an element."""
    comes(lambda: find(browser, selector).get_attribute(name), expected)


def open_first_row(browser: Any) -> None:
    """Open the first row of a table, where the page has one."""
    if titles(browser):
        find(browser, "button.open").click()
        expect_attribute(browser, "button.open", "aria-expanded", "true")


@PAGES
def test_loads_without_complaint_and_asks_nobody(browser: Any, page: Page, tmp_path: Path) -> None:
    show(browser, page, tmp_path)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
        # The browser's own first page may still be loading when it is left.
        and not event["params"]["documentURL"].startswith("chrome")
    ]
    assert asked
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@PAGES
@pytest.mark.parametrize("width", [360, 1100])
def test_never_scrolls_sideways(browser: Any, page: Page, tmp_path: Path, width: int) -> None:
    long = with_text(page, "a_very_long_name_without_any_place_to_break_it_" * 4)
    for shown in (page, long):
        show(browser, shown, tmp_path, width=width)
        open_first_row(browser)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@PAGES
def test_hostile_text_is_shown_and_never_run(browser: Any, page: Page, tmp_path: Path) -> None:
    for text in ("</script><script>window.hacked = 1</script>", "<img src=x onerror=hacked=1>"):
        show(browser, with_text(page, text), tmp_path)
        open_first_row(browser)
        assert browser.execute_script("return window.hacked") is None
        assert text in find(browser, "h1").text
        assert browser.get_log("browser") == []


def test_sorts(browser: Any, tmp_path: Path) -> None:
    show(browser, batch(60), tmp_path)
    head = "table.rows thead th:nth-child({})"
    expect_titles(browser, "Query 0", "Query 1")
    find(browser, head.format(5) + " button").click()  # loss, the largest first
    expect_titles(browser, "Query 59", "Query 58")
    expect_attribute(browser, head.format(5), "aria-sort", "descending")
    find(browser, head.format(5) + " button").click()
    expect_titles(browser, "Query 0", "Query 1")
    find(browser, head.format(2) + " button").click()  # names: 2 before 10
    expect_attribute(browser, head.format(5), "aria-sort", "none")
    expect_titles(browser, "Query 0", "Query 1", "Query 2")
    find(browser, head.format(6) + " button").click()  # the most helpful effect, 0.5 / (i + 1)
    expect_attribute(browser, head.format(6), "aria-sort", "descending")
    expect_titles(browser, "Query 0", "Query 1")


def test_a_single_row_is_open_and_has_no_search(browser: Any, tmp_path: Path) -> None:
    show(browser, batch(1), tmp_path)
    expect(browser, ".detail h3", "Push to the label", "Push away from it")
    expect_visible(browser, "#search", False)
    expect_visible(browser, "#where", False)
    expect_visible(browser, "#save")


def test_on_a_phone_how_it_was_made_folds(browser: Any, tmp_path: Path) -> None:
    show(browser, explanation(), tmp_path, width=390)
    expect_visible(browser, ".how", False)
    find(browser, ".made summary").click()
    expect_visible(browser, ".how")
    show(browser, explanation(), tmp_path, width=1280)
    expect_visible(browser, ".how")


def test_what_is_not_known_sorts_last_both_ways(browser: Any, tmp_path: Path) -> None:
    show(browser, ranked(10), tmp_path)
    head = "table.rows thead th:nth-child(6)"
    for order in ("descending", "ascending"):
        find(browser, f"{head} button").click()
        expect_attribute(browser, head, "aria-sort", order)
        expect(browser, "table.rows tr:last-child button.open", "Message 5")


def test_searches_filters_and_counts(browser: Any, tmp_path: Path) -> None:
    show(browser, ranked(30), tmp_path)
    find(browser, "#search").send_keys("17. NUMBER")  # words in any order, in any case
    expect(browser, "#count", "1 of 30 rows match")
    assert titles(browser) == ["Message 17"]
    page = batch(60)
    show(browser, page, tmp_path)
    find(browser, "#search").send_keys("nothing like it")
    none = "None of 60 rows matches. Change the search or the filters."
    expect(browser, "#count", none)
    assert titles(browser) == []
    find(browser, "#search").clear()
    find(browser, "#search").send_keys(" ")
    expect(browser, "#count", "60 rows")
    find(browser, "#differ").click()
    expect(browser, "#count", "5 of 60 rows match")  # every thirteenth of 60
    assert titles(browser) == [f"Query {i}" for i in range(0, 60, 13)]
    find(browser, "#differ").click()
    expect(browser, "#count", "60 rows")
    option = "#filters select option:nth-child(3)"
    label = find(browser, option).text
    find(browser, option).click()
    expected = [row.query.title for row in page.rows if row.query.label == label]
    expect(browser, "#count", f"{len(expected)} of 60 rows match")
    assert titles(browser) == expected


def test_ten_thousand_rows_come_a_page_at_a_time(browser: Any, tmp_path: Path) -> None:
    rows = tuple(
        QueryRow(
            query=Item(title=f"Query {i}", label=str(i % 10)),
            value=i / 7,
            text=str(i),
            toward=(),
            against=(),
        )
        for i in range(10_000)
    )
    show(browser, replace(batch(0), rows=rows), tmp_path)
    comes(lambda: len(titles(browser)), 25)
    find(browser, "#last").click()
    expect(browser, "#where", "Page 400 of 400")
    assert titles(browser)[-1] == "Query 9999"
    assert not find(browser, "#next").is_enabled()
    find(browser, "#size option:nth-child(4)").click()
    comes(lambda: len(titles(browser)), 100)
    find(browser, "table.rows thead th:nth-child(4) button").click()
    expect_titles(browser, "Query 9999")
    find(browser, "#search").send_keys("query 77")
    matching = sum("77" in str(i) for i in range(10_000))
    expect(browser, "#count", f"{matching} of 10,000 rows match")


def test_a_search_finds_every_column_and_a_row_shows_all(browser: Any, tmp_path: Path) -> None:
    show(browser, ranked(30), tmp_path)
    find(browser, "#search").send_keys("folder 21")  # the seventh column
    expect(browser, "#count", "1 of 30 rows match")
    find(browser, "button.open").click()
    expect(browser, ".whole th", *ranked(1).columns)


def test_all_columns_and_the_second_unit_are_a_click_away(browser: Any, tmp_path: Path) -> None:
    show(browser, explanation(), tmp_path)
    head = "#effects thead th"
    assert texts(browser, head)[2] == "without it, P(cat) is"
    expect_visible(browser, f"{head}:last-child", False)
    find(browser, "#columns").click()
    expect_visible(browser, f"{head}:last-child")
    expect(browser, f"{head}:last-child", "sex")
    find(browser, "#units").click()
    expect_attribute(browser, "#units", "aria-pressed", "true")
    comes(lambda: texts(browser, head)[2], "without it, the loss, in nats, is")
    assert "1.683" in texts(browser, "#effects tbody tr:nth-child(2) .without")[0]


@pytest.mark.parametrize("width", [900, 1100])
def test_a_table_shows_the_columns_that_have_room(browser: Any, tmp_path: Path, width: int) -> None:
    names = [f"a long name, {i}" for i in range(9)]
    cells = tuple(f"{i}.123456789" for i in range(9))
    row = replace(ROW, item=Item(title="4", cells=cells), differs=(True,) * 9)
    page = explanation(
        columns=tuple(names), visible=6, query=Item(title="", cells=cells), sides=sides(row)
    )
    show(browser, page, tmp_path, width=width)
    box = "document.querySelector('.scroll.wide')"
    missing = f"return {box}.scrollWidth - {box}.clientWidth"
    comes(lambda: browser.execute_script(missing), 0)
    heads = "return [...document.querySelectorAll('#effects thead th')]"
    shown = f"{heads}.filter(e => e.offsetWidth).map(e => e.innerText).slice(4)"
    found = browser.execute_script(shown)
    assert found == names[: len(found)]
    assert 2 <= len(found) < 6
    find(browser, "#columns").click()
    comes(lambda: browser.execute_script(shown), names)


def test_the_proof_opens_from_its_link(browser: Any, tmp_path: Path) -> None:
    show(browser, explanation(), tmp_path)
    expect_visible(browser, ".plot", False)
    find(browser, ".fact a").click()
    expect_visible(browser, ".plot")


def test_a_row_opens_by_keyboard_and_shows_everything(browser: Any, tmp_path: Path) -> None:
    show(browser, batch(3), tmp_path)
    expect_attribute(browser, "button.open", "aria-expanded", "false")
    find(browser, "button.open").send_keys("\n")
    expect_attribute(browser, "button.open", "aria-expanded", "true")
    assert texts(browser, ".behind .effect") == ["-0.500 points", "-0.250 points"]
    find(browser, "button.open").send_keys("\n")
    expect_attribute(browser, "button.open", "aria-expanded", "false")
    assert texts(browser, ".behind .effect") == []


def test_the_theme_follows_the_system_until_chosen(browser: Any, tmp_path: Path) -> None:
    script = "return getComputedStyle(document.body).backgroundColor"
    show(browser, explanation(), tmp_path)
    light = browser.execute_script(script)
    show(browser, explanation(), tmp_path, dark=True)
    dark = browser.execute_script(script)
    assert light != dark
    find(browser, "#theme").click()
    expect(browser, "#theme", "Theme: light")
    assert browser.execute_script(script) == light
    find(browser, "#theme").click()
    expect(browser, "#theme", "Theme: dark")
    find(browser, "#theme").click()
    expect(browser, "#theme", "Theme: system")


# The contrast of every visible text with what is behind it, as WCAG 2 defines it; transparent
# layers are mixed in. Returns what falls short of 4.5.
_CONTRAST = """
const parse = text => {
  const numbers = text.match(/[\\d.]+/g).map(Number);
  if (text.startsWith("color(srgb")) return [...numbers.slice(0, 3).map(v => v * 255), numbers[3] ?? 1];
  return [...numbers.slice(0, 3), numbers[3] ?? 1];
};
const over = (top, below) => [0, 1, 2].map(k => top[3] * top[k] + (1 - top[3]) * below[k]);
const behind = element => {
  const layers = [];
  for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
  return layers.reverse().reduce((color, layer) => over(layer, color), [255, 255, 255]);
};
const light = color => {
  const [r, g, b] = color.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), poor = [];
for (let node; (node = walker.nextNode());) {
  const element = node.parentElement;
  if (!node.data.trim() || element.closest("script, style, noscript, svg, :disabled") || !element.checkVisibility()) continue;
  const back = behind(element), front = over(parse(getComputedStyle(element).color), back);
  const [low, high] = [light(front), light(back)].sort((a, b) => a - b);
  const ratio = (high + .05) / (low + .05);
  if (ratio < 4.5) poor.push([node.data.trim().slice(0, 40), ratio.toFixed(2)]);
}
return poor;
"""  # noqa: E501


# What a screen reader needs, as far as a script can tell.
_ACCESSIBLE = """
const faults = [], all = selector => [...document.querySelectorAll(selector)];
for (const name of ["main", "header", "footer", "h1"]) {
  if (all(name).length !== 1) faults.push(`${all(name).length} × ${name}`);
}
for (const image of all("img")) if (!image.hasAttribute("alt")) faults.push("an image without alt");
for (const field of all("input, select")) if (!field.labels.length) faults.push("a field without a label");
for (const button of all("button")) if (!button.innerText.trim() && !button.hidden) {
  if (button.checkVisibility()) faults.push("a button without a name");
}
const ids = all("[id]").map(e => e.id);
if (new Set(ids).size !== ids.length) faults.push("an id given twice");
for (const e of all("[aria-labelledby]")) for (const id of e.getAttribute("aria-labelledby").split(" ")) {
  if (!document.getElementById(id)) faults.push(`no ${id}`);
}
let level = 0;
for (const heading of all("h1, h2, h3").filter(e => e.checkVisibility())) {
  const next = Number(heading.tagName[1]);
  if (next > level + 1) faults.push(`h${level} then h${next}`);
  level = next;
}
return faults;
"""  # noqa: E501


@PAGES
def test_names_and_landmarks(browser: Any, page: Page, tmp_path: Path) -> None:
    show(browser, page, tmp_path)
    assert browser.execute_script(_ACCESSIBLE) == []


def axe(browser: Any) -> list[tuple[str, str, str]]:
    """Return what axe finds fault with."""
    pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    if not browser.execute_script("return 'axe' in window"):
        script = importlib.resources.files("axe_core_python").joinpath("axe.min.js")
        browser.execute_script(script.read_text("utf-8"))
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    assert found["passes"]
    return [
        (fault["id"], node["html"][:200], node.get("failureSummary", "")[:200])
        for fault in found["violations"]
        for node in fault["nodes"]
    ]


@PAGES
@pytest.mark.parametrize("width", [390, 1280])
def test_reads_well(browser: Any, page: Page, tmp_path: Path, width: int) -> None:
    for dark in (False, True):
        show(browser, page, tmp_path, width=width, dark=dark)
        open_first_row(browser)
        assert browser.execute_script(_CONTRAST) == []
        assert axe(browser) == []


def downloaded(browser: Any, folder: Path, name: str, button: str) -> list[str]:
    """Return the lines of the file that a button saves."""
    behavior = {"behavior": "allow", "downloadPath": str(folder)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
    find(browser, button).click()
    file = folder / name
    comes(lambda: file.exists() and file.stat().st_size > 0, True)
    return file.read_text(encoding="utf-8-sig").splitlines()


def test_labels_are_decided_by_key_and_kept(browser: Any, tmp_path: Path) -> None:
    show(browser, ranked(6), tmp_path)
    body = find(browser, "body")
    expect(browser, "#decided", "Nothing is decided yet.")
    for key in "kd":  # the first two rows
        body.send_keys(key)
    find(browser, "tbody tr:nth-child(3) button.open").send_keys("r")
    find(browser, "tbody tr:nth-child(5) .of-decision button:nth-child(3)").click()
    expect(browser, "#decided", "4 of 6 decided: 1 keep, 1 relabel, 2 drop.")
    body.send_keys("u")
    expect(browser, "#decided", "3 of 6 decided: 1 keep, 1 relabel, 1 drop.")
    browser.refresh()
    expect(browser, "#decided", "3 of 6 decided: 1 keep, 1 relabel, 1 drop.")
    assert downloaded(browser, tmp_path, "decisions.csv", "#decisions") == [
        "id,label,decision,new label",
        "Message 0,spam,keep,spam",
        "Message 1,ham,drop,",
        "Message 2,ham,relabel,spam",
    ]


def test_the_last_decision_is_undone_first_on_a_page_loaded_again(
    browser: Any, tmp_path: Path
) -> None:
    show(browser, ranked(6), tmp_path)
    find(browser, "tbody tr:nth-child(3) button.open").send_keys("d")
    find(browser, "tbody tr:nth-child(1) button.open").send_keys("k")
    expect(browser, "#decided", "2 of 6 decided: 1 keep, 1 drop.")
    browser.refresh()
    expect(browser, "#decided", "2 of 6 decided: 1 keep, 1 drop.")
    find(browser, "body").send_keys("u")
    expect(browser, "#decided", "1 of 6 decided: 1 drop.")


def test_decisions_stay_with_their_rows(browser: Any, tmp_path: Path) -> None:
    page = ranked(6)
    show(browser, page, tmp_path)
    find(browser, "body").send_keys("d")
    expect(browser, "#decided", "1 of 6 decided: 1 drop.")
    corrected = replace(page, rows=page.rows[::-1])  # made again in its place, on the same day
    show(browser, corrected, tmp_path)
    expect(browser, "#decided", "Nothing is decided yet.")
    show(browser, replace(page, created="2001-01-01"), tmp_path)
    expect(browser, "#decided", "1 of 6 decided: 1 drop.")


def test_a_decision_survives_what_the_local_storage_loses(browser: Any, tmp_path: Path) -> None:
    show(browser, ranked(6), tmp_path)
    find(browser, "body").send_keys("d")
    find(browser, "#search").send_keys("message")  # the address changes with it
    comes(lambda: "q=message" in browser.current_url, True)
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    expect(browser, "#decided", "1 of 6 decided: 1 drop.")


@pytest.mark.parametrize(
    "kept", ["{", "null", "[1]", '{"rows": 3}', '{"rows": [3, [0, "burn"], [9, "drop"]]}']
)
def test_what_is_no_decision_is_not_read(browser: Any, tmp_path: Path, kept: str) -> None:
    show(browser, ranked(6), tmp_path)
    find(browser, "body").send_keys("d")
    script = "for (const k of Object.keys(localStorage)) localStorage.setItem(k, arguments[0])"
    browser.execute_script(script + "; history.replaceState(null, '')", kept)
    browser.refresh()
    expect(browser, "#decided", "Nothing is decided yet.")
    assert browser.get_log("browser") == []


def test_two_tabs_of_a_page_decide_together(browser: Any, tmp_path: Path) -> None:
    show(browser, ranked(6), tmp_path)
    first, address = browser.current_window_handle, browser.current_url
    browser.switch_to.new_window("tab")
    try:
        browser.get(address)
        expect(browser, "#decided", "Nothing is decided yet.")
        browser.switch_to.window(first)
        find(browser, "body").send_keys("d")
        browser.switch_to.window(browser.window_handles[-1])
        expect(browser, "#decided", "1 of 6 decided: 1 drop.")
        find(browser, "body").send_keys("k")
        browser.switch_to.window(first)
        expect(browser, "#decided", "2 of 6 decided: 1 keep, 1 drop.")
    finally:
        browser.switch_to.window(browser.window_handles[-1])
        browser.close()
        browser.switch_to.window(first)


def test_what_is_shown_is_saved(browser: Any, tmp_path: Path) -> None:
    for page, first, rows in (
        (explanation(), "push,example,age,sex,label", 4),
        (batch(3), "Query,Label,Model says,P(label)", 4),
        (ranked(5), "Training example,Label,Suggested,Self-influence,Loss,length", 6),
        (result(), "Images,label,order", 12),
    ):
        show(browser, page, tmp_path)
        lines = downloaded(browser, tmp_path, "whence.csv", "#save")
        assert lines[0].startswith(first)
        assert len(lines) == rows
        (tmp_path / "whence.csv").unlink()


def test_a_link_leads_to_what_was_shown(browser: Any, tmp_path: Path) -> None:
    def shown_by_address() -> str:
        return str(browser.current_url.partition("#")[2])

    show(browser, batch(60), tmp_path)
    find(browser, "#differ").click()
    expect(browser, "#count", "5 of 60 rows match")
    find(browser, "table.rows thead th:nth-child(5) button").click()
    find(browser, "#search").send_keys("query")
    comes(shown_by_address, "q=query&sort=-4&mistakes=1")
    find(browser, "tbody tr:nth-child(2) button.open").click()
    comes(shown_by_address, "q=query&sort=-4&mistakes=1&open=40")
    address, shown = browser.current_url, titles(browser)
    browser.get("about:blank")
    browser.get(address)
    expect_titles(browser, *shown)
    assert find(browser, "#search").get_attribute("value") == "query"
    assert find(browser, "#differ").is_selected()
    assert texts(browser, ".detail h3") == ["Push to the label", "Push away from it"]
    show(browser, batch(60), tmp_path)
    find(browser, "#carriers ~ .box a").click()  # the queries of one training example
    # and no "Training example 3" followed by more
    expect(browser, "#count", "10 of 60 rows match")
    show(browser, explanation(), tmp_path)
    find(browser, "#example-4 a").click()
    comes(shown_by_address, "example-4")


@pytest.mark.slow
def test_ten_examples_or_25_rows_fit_2500_pixels(browser: Any, tmp_path: Path) -> None:
    """The Titanic's rows, digits, and either's many predictions, of which a phone shows ten."""
    table = Path(__file__).parents[2] / "examples" / "titanic.csv"
    rows = fit_table(read_table(table, "survived"), hold_out=[17])
    digits, labels = load_digits(return_X_y=True)
    X, y = digits[:400] / 16, labels[:400]
    model = LogisticRegression(tol=1e-6, max_iter=3000).fit(X[1:], y[1:])
    titanic, images = rows.objective, whence.from_sklearn(model, X[1:], y[1:])
    pages = (
        whence.report(titanic, rows.query(list(range(0, 600, 10))), tmp_path / "many.html"),
        whence.report(images, (X[:30], y[:30]), tmp_path / "faces.html", image_shape=(8, 8)),
        whence.find_label_errors(titanic).report(tmp_path / "labels.html"),
        whence.explain(rows.objective, rows.query([17])).report(tmp_path / "rows.html"),
        whence.explain(images, (X[:1], y[:1])).report(
            tmp_path / "digits.html", image_shape=(8, 8), verify=2
        ),
    )
    for width in (1280, 390):
        resize(browser, width, 900)
        for page in pages:
            browser.get(page.as_uri())
            height = browser.execute_script("return document.documentElement.scrollHeight")
            assert height <= 2500, (page.name, width)


def test_tokens_are_colored_by_their_part(browser: Any, tmp_path: Path) -> None:
    show(browser, sequences(), tmp_path)
    assert texts(browser, "mark") == ["cheese", "The", "moon", "is", "cheese"]
    first = find(browser, "mark")
    assert first.get_attribute("title") == "+0.300"
    assert first.value_of_css_property("background-color") != "rgba(0, 0, 0, 0)"


def test_prints_without_tools_and_without_cutting(browser: Any, tmp_path: Path) -> None:
    show(browser, ranked(), tmp_path)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    hidden = browser.execute_script(
        "return ['.tools', '.pager', '#theme'].map(s => getComputedStyle("
        "document.querySelector(s)).display)"
    )
    assert hidden == ["none", "none", "none"]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_prints_the_columns_that_are_shown(browser: Any, tmp_path: Path) -> None:
    names, cells = (tuple(f"{word} {i}" for i in range(30)) for word in ("column", "value"))
    row = replace(ROW, item=Item(title="4", cells=cells), differs=(True,) * 30)
    page = explanation(columns=names, query=Item(title="", cells=cells), sides=sides(row))
    beyond = "return document.documentElement.scrollWidth - innerWidth"
    show(browser, page, tmp_path, width=794)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script(beyond) <= 0
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    find(browser, "#columns").click()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script(beyond) > 0
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_result_shows_the_columns_that_have_room(browser: Any, tmp_path: Path) -> None:
    names = tuple(f"a long name, {i}" for i in range(9))
    item = Item(title="4", cells=tuple(f"{i}.123456789" for i in range(9)))
    rows = Listed(name="4", numbers=("0.5", "2"), item=item, size=0.5, color="toward")
    listing = Listing(
        heading="Rows", noun="example", heads=("without it", "rank"), columns=names, lines=(rows,)
    )
    show(browser, replace(result(), listings=(listing,)), tmp_path, width=900)
    box = "document.querySelector('.scroll.wide')"
    missing = f"return {box}.scrollWidth - {box}.clientWidth"
    comes(lambda: browser.execute_script(missing), 0)


def test_a_text_that_goes_on_has_a_shadow_at_its_edge(browser: Any, tmp_path: Path) -> None:
    row = replace(ROW, item=Item(title="4", text="one line of a text. " * 40), differs=())
    show(browser, explanation(columns=(), sides=sides(row)), tmp_path)
    box = find(browser, ".card .text")
    assert browser.execute_script(
        "return arguments[0].scrollHeight > arguments[0].clientHeight", box
    )
    assert box.value_of_css_property("background-attachment").split(", ")[:2] == ["local", "scroll"]
