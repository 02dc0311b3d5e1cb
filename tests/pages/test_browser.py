"""Pages in a real browser: Debian's chromium, driven headless, with no network."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import whence
from tests.pages.pages import (
    attacked,
    batch,
    explanation,
    images,
    ranked,
    regression,
    result,
    sequences,
    with_text,
)
from tests.pages.pages import (
    texts as texts_page,
)
from whence.pages import Item, Page, QueryRow, write
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


def show(browser: Any, page: Page, folder: Path, *, width: int = 1100, dark: bool = False) -> None:
    """Open a page, with the logs of what came before emptied."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
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


def wait_for_address(browser: Any, text: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 10).until(lambda shown: text in shown.current_url)


def wait_for_count(browser: Any, text: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 10).until(lambda _: text in find(browser, "#count").text)


@PAGES
def test_loads_without_complaint_and_asks_nobody(browser: Any, page: Page, tmp_path: Path) -> None:
    show(browser, page, tmp_path)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    assert [url for url in asked if not url.startswith(("file:", "data:", "chrome:"))] == []


@PAGES
@pytest.mark.parametrize("width", [360, 1100])
def test_never_scrolls_sideways(browser: Any, page: Page, tmp_path: Path, width: int) -> None:
    long = with_text(page, "a_very_long_name_without_any_place_to_break_it_" * 4)
    for shown in (page, long):
        show(browser, shown, tmp_path, width=width)
        for button in browser.find_elements("css selector", "button.open")[:1]:
            button.click()
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@PAGES
def test_hostile_text_is_shown_and_never_run(browser: Any, page: Page, tmp_path: Path) -> None:
    for text in ("</script><script>window.hacked = 1</script>", "<img src=x onerror=hacked=1>"):
        show(browser, with_text(page, text), tmp_path)
        for button in browser.find_elements("css selector", "button.open")[:1]:
            button.click()
        assert browser.execute_script("return window.hacked") is None
        assert text in find(browser, "h1").text
        assert browser.get_log("browser") == []


def test_sorts(browser: Any, tmp_path: Path) -> None:
    show(browser, batch(60), tmp_path)
    head = "table.rows thead th:nth-child({})"
    assert titles(browser)[:2] == ["Query 0", "Query 1"]
    find(browser, head.format(5) + " button").click()  # loss, the largest first
    assert titles(browser)[:2] == ["Query 59", "Query 58"]
    assert find(browser, head.format(5)).get_attribute("aria-sort") == "descending"
    find(browser, head.format(5) + " button").click()
    assert titles(browser)[:2] == ["Query 0", "Query 1"]
    find(browser, head.format(2) + " button").click()  # names: 2 before 10
    assert titles(browser)[:3] == ["Query 0", "Query 1", "Query 2"]
    assert find(browser, head.format(5)).get_attribute("aria-sort") == "none"
    find(browser, head.format(6) + " button").click()  # the most helpful effect, 0.5 / (i + 1)
    assert titles(browser)[:2] == ["Query 0", "Query 1"]


def test_a_single_row_is_open_and_has_no_search(browser: Any, tmp_path: Path) -> None:
    show(browser, batch(1), tmp_path)
    assert texts(browser, ".detail h3") == ["Push to the label", "Push away from it"]
    assert not find(browser, "#search").is_displayed()
    assert not find(browser, "#where").is_displayed()
    assert find(browser, "#save").is_displayed()


def test_on_a_phone_how_it_was_made_folds(browser: Any, tmp_path: Path) -> None:
    show(browser, explanation(), tmp_path, width=390)
    assert not find(browser, ".how").is_displayed()
    find(browser, ".made summary").click()
    assert find(browser, ".how").is_displayed()
    show(browser, explanation(), tmp_path, width=1280)
    assert find(browser, ".how").is_displayed()


def test_what_is_not_known_sorts_last_both_ways(browser: Any, tmp_path: Path) -> None:
    show(browser, ranked(10), tmp_path)
    for _ in range(2):
        find(browser, "table.rows thead th:nth-child(6) button").click()
        assert titles(browser)[-1] == "Message 5"


def test_searches_filters_and_counts(browser: Any, tmp_path: Path) -> None:
    show(browser, ranked(30), tmp_path)
    find(browser, "#search").send_keys("17. NUMBER")  # words in any order, in any case
    wait_for_count(browser, "1 of 30 rows match")
    assert titles(browser) == ["Message 17"]
    page = batch(60)
    show(browser, page, tmp_path)
    find(browser, "#search").send_keys("nothing like it")
    wait_for_count(browser, "None of 60 rows matches")
    assert titles(browser) == []
    find(browser, "#search").clear()
    find(browser, "#search").send_keys(" ")
    wait_for_count(browser, "60 rows")
    find(browser, "#differ").click()
    wait_for_count(browser, "5 of 60 rows match")  # every thirteenth of 60
    assert titles(browser) == [f"Query {i}" for i in range(0, 60, 13)]
    find(browser, "#differ").click()
    option = "#filters select option:nth-child(3)"
    label = find(browser, option).text
    find(browser, option).click()
    expected = [row.query.title for row in page.rows if row.query.label == label]
    wait_for_count(browser, f"{len(expected)} of 60")
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
    assert len(titles(browser)) == 25
    find(browser, "#last").click()
    assert titles(browser)[-1] == "Query 9999"
    assert "Page 400 of 400" in find(browser, "#where").text
    assert not find(browser, "#next").is_enabled()
    find(browser, "#size option:nth-child(4)").click()
    assert len(titles(browser)) == 100
    find(browser, "table.rows thead th:nth-child(4) button").click()
    assert titles(browser)[0] == "Query 9999"
    find(browser, "#search").send_keys("query 77")
    wait_for_count(browser, f"{sum('77' in str(i) for i in range(10_000))} of 10,000")


def test_a_search_finds_every_column_and_a_row_shows_all(browser: Any, tmp_path: Path) -> None:
    show(browser, ranked(30), tmp_path)
    find(browser, "#search").send_keys("folder 21")  # the seventh column
    wait_for_count(browser, "1 of 30 rows match")
    find(browser, "button.open").click()
    assert texts(browser, ".whole th") == list(ranked(1).columns)


def test_all_columns_and_the_second_unit_are_a_click_away(browser: Any, tmp_path: Path) -> None:
    show(browser, explanation(), tmp_path)
    head = "#effects thead th"
    last = find(browser, f"{head}:last-child")
    assert texts(browser, head)[2] == "without it, P(cat) is"
    assert not last.is_displayed()
    find(browser, "#columns").click()
    assert last.is_displayed()
    assert last.text == "sex"
    find(browser, "#units").click()
    assert texts(browser, head)[2] == "without it, the loss, in nats, is"
    assert "1.683" in texts(browser, "#effects tbody tr:nth-child(2) .without")[0]
    assert find(browser, "#units").get_attribute("aria-pressed") == "true"


def test_the_proof_opens_from_its_link(browser: Any, tmp_path: Path) -> None:
    show(browser, explanation(), tmp_path)
    assert not find(browser, ".plot").is_displayed()
    find(browser, ".fact a").click()
    assert find(browser, ".plot").is_displayed()


def test_a_row_opens_by_keyboard_and_shows_everything(browser: Any, tmp_path: Path) -> None:
    show(browser, batch(3), tmp_path)
    button = find(browser, "button.open")
    assert button.get_attribute("aria-expanded") == "false"
    button.send_keys("\n")
    assert button.get_attribute("aria-expanded") == "true"
    assert texts(browser, ".behind .effect") == ["-0.500 points", "-0.250 points"]
    button.send_keys("\n")
    assert texts(browser, ".behind .effect") == []


def test_the_theme_follows_the_system_until_chosen(browser: Any, tmp_path: Path) -> None:
    script = "return getComputedStyle(document.body).backgroundColor"
    show(browser, explanation(), tmp_path)
    light = browser.execute_script(script)
    show(browser, explanation(), tmp_path, dark=True)
    dark = browser.execute_script(script)
    assert light != dark
    find(browser, "#theme").click()
    assert find(browser, "#theme").text == "Theme: light"
    assert browser.execute_script(script) == light
    find(browser, "#theme").click()
    find(browser, "#theme").click()
    assert find(browser, "#theme").text == "Theme: system"


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
        for button in browser.find_elements("css selector", "button.open")[:1]:
            button.click()
        assert browser.execute_script(_CONTRAST) == []
        assert axe(browser) == []


def test_labels_are_decided_by_key_and_kept(browser: Any, tmp_path: Path) -> None:
    downloads = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", downloads)
    show(browser, ranked(6), tmp_path)
    body = find(browser, "body")
    assert "Nothing is decided yet." in find(browser, "#decided").text
    for key in "kd":  # the first two rows
        body.send_keys(key)
    find(browser, "tbody tr:nth-child(3) button.open").send_keys("r")
    find(browser, "tbody tr:nth-child(5) .of-decision button:nth-child(3)").click()
    assert "4 of 6 decided: 1 keep, 1 relabel, 2 drop." in find(browser, "#decided").text
    find(browser, "body").send_keys("u")
    assert "3 of 6 decided" in find(browser, "#decided").text
    browser.refresh()
    assert "3 of 6 decided: 1 keep, 1 relabel, 1 drop." in find(browser, "#decided").text
    find(browser, "#decisions").click()
    from selenium.webdriver.support.ui import WebDriverWait

    file = tmp_path / "decisions.csv"
    WebDriverWait(browser, 10).until(lambda _: file.exists())
    assert file.read_text(encoding="utf-8-sig").splitlines() == [
        "id,label,decision,new label",
        "Message 0,spam,keep,spam",
        "Message 1,ham,drop,",
        "Message 2,ham,relabel,spam",
    ]


def test_what_is_shown_is_saved(browser: Any, tmp_path: Path) -> None:
    downloads = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", downloads)
    from selenium.webdriver.support.ui import WebDriverWait

    for page, first, rows in (
        (explanation(), "push,example,age,sex,label", 4),
        (batch(3), "Query,Label,Model says,P(label)", 4),
        (ranked(5), "Training example,Label,Suggested,Self-influence,Loss,length", 6),
        (result(), "Images,label,order", 12),
    ):
        show(browser, page, tmp_path)
        find(browser, "#save").click()
        file = tmp_path / "whence.csv"
        WebDriverWait(browser, 10).until(lambda _, file=file: file.exists() and file.stat().st_size)
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        assert lines[0].startswith(first)
        assert len(lines) == rows
        file.unlink()


def test_a_link_leads_to_what_was_shown(browser: Any, tmp_path: Path) -> None:
    show(browser, batch(60), tmp_path)
    find(browser, "#differ").click()
    wait_for_count(browser, "5 of 60 rows match")
    find(browser, "table.rows thead th:nth-child(5) button").click()
    find(browser, "#search").send_keys("query")
    wait_for_address(browser, "q=query")
    wait_for_count(browser, "5 of 60 rows match")
    find(browser, "tbody tr:nth-child(2) button.open").click()
    address = browser.current_url
    assert address.endswith("#q=query&sort=-4&mistakes=1&open=40")
    shown = titles(browser)
    browser.get("about:blank")
    browser.get(address)
    assert titles(browser) == shown
    assert find(browser, "#search").get_attribute("value") == "query"
    assert find(browser, "#differ").is_selected()
    assert texts(browser, ".detail h3") == ["Push to the label", "Push away from it"]
    show(browser, batch(60), tmp_path)
    find(browser, "#carriers ~ .box a").click()  # the queries of one training example
    wait_for_count(browser, "10 of 60 rows match")  # and no "Training example 3" followed by more
    show(browser, explanation(), tmp_path)
    find(browser, "#example-4 a").click()
    assert browser.current_url.endswith("#example-4")


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
        device = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
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
