"""Pages: what they say, that they say it safely, and that they need nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.pages.pages import (
    ROW,
    TEXT,
    attacked,
    batch,
    explanation,
    images,
    ranked,
    regression,
    result,
    sequences,
    sides,
    texts,
    with_text,
)
from whence.errors import InvalidInput
from whence.pages import Item, Page, Scatter, Shown, Status, render, write

PAGES = pytest.mark.parametrize(
    "page",
    [
        explanation(),
        regression(),
        texts(),
        sequences(),
        images(),
        batch(),
        ranked(),
        attacked(),
        result(),
    ],
    ids=["row", "number", "texts", "tokens", "images", "many", "ranked", "attack", "result"],
)
_SCRIPT = "<script>alert(1)</script>"


class _Parsed(HTMLParser):
    """What a browser would find: elements with attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[str | None, str]] = []
        self._open: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            kind, text = self.scripts[-1]
            self.scripts[-1] = kind, text + data
        self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return the elements and the names of their attributes: what no text may change."""
        return [(tag, tuple(attributes)) for tag, attributes in self.elements]


def words(page: Page) -> str:
    body = re.sub(r"<(style|script).*?</\1>", "", render(page), flags=re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def test_an_explanation_says_what_the_answer_is_without_each_row() -> None:
    said = words(explanation())
    assert "dog 82 %" in said
    assert "cat 18 % (the label)" in said
    assert "0.6 points is the most." in said
    assert "without it, P(cat) is" in said
    assert "row 17 cat 18.1 %" in said
    assert "push to “dog”" in said
    assert "18.6 % 1.683 retrained 18.7 %" in said
    assert "18.6 % 1.683 ✓ retrained" in said
    assert "R = 0.9990, slope 1.050" in said
    assert "3 more columns are 0 in all of these rows." in said


def test_a_regression_shows_the_number_between_the_training_targets() -> None:
    said = words(regression())
    assert "The model predicts 2.80." in said
    assert "predicted 2.80" in said
    assert "in the data 3.10" in said


def test_sizes_that_are_not_known_are_not_shown() -> None:
    said = words(explanation(sized=False, second=""))
    assert "18.6 %" not in said.replace("✓ retrained", "").split("push to")[1][:20]
    assert "without it" not in said
    assert "read the order and the bars" in said


def test_columns_are_aligned_with_those_of_the_query() -> None:
    """Every row of the table has a cell under every heading."""
    html = render(explanation())
    table = re.search(r'<table class="effects" id="effects">.*?</table>', html, re.S)
    assert table is not None
    rows = re.findall(r"<tr(?: class=\"query-row\"| id=\"[^\"]*\")?>(.*?)</tr>", table[0], re.S)
    assert [len(re.findall(r"<t[hd]", row)) for row in rows] == [6, 6, 6, 6]
    assert re.findall(r'class="(other|same)', table[0]) == ["other", "same"] * 2


@pytest.mark.parametrize("names", [("a b", "a-b", "a.b"), ("7", "7", "7-2")])
def test_examples_of_like_names_have_a_link_each(names: tuple[str, ...]) -> None:
    first, second, third = (replace(ROW, name=name) for name in names)
    html = render(explanation(sides=(*sides(first, second), *sides(third))))
    linked = re.findall(r'<tr id="(example-[^"]*)".*?href="#([^"]*)">([^<]*)</a>', html)
    assert [one for one, _, _ in linked] == [other for _, other, _ in linked]
    assert sorted(name for _, _, name in linked) == sorted(names)
    assert len({one for one, _, _ in linked}) == 3


def test_values_that_move_the_answer_are_told_with_their_sign() -> None:
    html = render(explanation())
    assert '<td class="acting raises s2">+0.250</td>' in html
    assert '<td class="acting lowers s5">−0.500</td>' in html


def test_what_is_shown_is_there_as_a_table_to_save() -> None:
    data = json.loads(_Parsed(render(explanation())).scripts[0][1])
    assert data[0] == [
        "push",
        "example",
        "age",
        "sex",
        "label",
        "without it, P(cat) is",
        "loss, in nats",
        "retrained",
    ]
    assert data[1] == ["", "row 17", "5", "male", "cat", "18.1 %", "1.709", ""]
    assert data[2] == ["to “dog”", "4", "4", "male", "cat", "18.6 %", "1.683", "18.7 %"]
    assert {len(row) for row in data} == {8}
    columns = {len(row) for row in json.loads(_Parsed(render(texts())).scripts[0][1])}
    assert columns == {6}


def test_bars_share_one_scale() -> None:
    html = render(explanation())
    assert re.findall(r'class="size" width="([\d.]+)%"', html) == ["40.0", "100.0"]


def test_words_of_the_query_are_marked_in_the_texts() -> None:
    html = render(texts())
    assert 'a <mark class="same">dog</mark></p>' in html


@PAGES
def test_nothing_is_fetched(page: Page) -> None:
    for tag, attributes in _Parsed(render(page)).elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            link = attributes.get(name)
            assert link is None or link.startswith(("data:", "#")), (tag, name, link)
    assert not re.search(r"url\(|@import", render(page).replace("url(#plot)", ""))


@PAGES
def test_the_policy_allows_what_is_inside_and_nothing_else(page: Page) -> None:
    html = render(page)
    policy = next(
        attributes["content"] or ""
        for _, attributes in _Parsed(html).elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    inside = re.findall(r"<(style|script)>(.*?)</\1>", html, flags=re.S)
    assert inside
    for _, text in inside:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert digest in policy
    assert "style=" not in html  # a style attribute would be refused by the policy


@PAGES
@pytest.mark.parametrize(
    "text",
    [
        _SCRIPT,
        "'\"><img src=x onerror=alert(1)>",
        "</script><script>alert(1)</script>",
        "<!--",
        "{{ 7*7 }}",
        "]]>",
    ],
)
def test_no_text_becomes_markup(page: Page, text: str) -> None:
    hostile, harmless = (
        _Parsed(render(with_text(page, text))),
        _Parsed(render(with_text(page, "x" * len(text)))),
    )
    assert hostile.shape == harmless.shape
    assert [kind for kind, _ in hostile.scripts] == [kind for kind, _ in harmless.scripts]


@given(st.text())
@example("</script>")
@example("<!--<script>")
@example("\ud800 alone")
@example("\u2028\u2029\x00&amp;")
@settings(max_examples=25, deadline=None)
def test_any_text_reaches_the_table_as_it_is(text: str) -> None:
    page = with_text(ranked(2), text)
    kind, data = _Parsed(render(page)).scripts[0]
    assert kind == "application/json"
    read = json.loads(data)
    assert read["items"][0]["text"] == text
    assert read["items"][1]["cells"] == [text] * 7
    assert read["rows"][1][1] == text


@given(st.text(min_size=1).filter(lambda text: "\r" not in text and "\0" not in text))
@settings(max_examples=25, deadline=None)
def test_any_text_is_shown_as_it_is(text: str) -> None:
    page = replace(texts(), sides=sides(_changed(TEXT, text=text)), shared=frozenset())
    assert text in _Parsed(render(page)).text


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=25, deadline=None)
def test_any_text_can_be_written(text: str) -> None:
    for page in (explanation(), ranked(2)):
        render(with_text(page, text)).encode()


def test_text_without_a_utf8_form_is_shown_escaped() -> None:
    html = render(explanation(title="wrongly \udce9 read"))
    assert r"wrongly \udce9 read" in html


def _changed(shown: Shown, **changes: object) -> Shown:
    return replace(shown, item=replace(shown.item, **changes))  # type: ignore[arg-type]


def test_a_page_without_effects_or_checks() -> None:
    html = render(explanation(sides=sides(), scatter=None, statuses=(), curve=None, facts=()))
    assert "None of the training rows does." in render(replace(texts(), sides=sides())).replace(
        "training texts", "training rows"
    )
    assert "How firmly" not in html
    assert "Checked by retraining" not in html
    assert "No diagnostics were recorded" in html


def test_tables_without_rows() -> None:
    for page in (replace(batch(0), examples=()), ranked(0)):
        assert json.loads(_Parsed(render(page)).scripts[0][1])["rows"] == []


def test_each_status_says_its_level() -> None:
    levels: tuple[Any, ...] = ("good", "caution", "bad", "unknown")
    said = words(explanation(statuses=tuple(Status(level=each, title="t") for each in levels)))
    assert "Good: t Caution: t Bad: t Not measured: t" in said


def test_the_numbers_behind_a_status_are_for_experts() -> None:
    html = render(explanation())
    assert "Residual 1e-12." in html.split("Details for experts")[1]
    assert "Details for experts" not in render(explanation(statuses=()))


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 3), (1, 1), (700, 20)])
def test_images_with_their_attribution(shape: tuple[int, ...]) -> None:
    image = np.arange(math.prod(shape), dtype=np.uint64).astype(np.uint8).reshape(shape)
    item = Item(title="t", label="l", image=image, attribution=np.ones(shape))
    html = render(explanation(columns=(), sides=sides(Shown(name="t", item=item, size=1.0))))
    assert html.count("data:image/png;base64,") == 3
    assert 'alt="t, labeled l"' in html


def test_tokens_are_marked_by_what_they_do() -> None:
    moved = _changed(TEXT, tokens=("a ", "bad ", "dog"), attribution=np.array([0.0, 2.0, -1.0]))
    html = render(replace(texts(), sides=sides(moved)))
    assert '<mark class="raises s5" title="+2.000">bad </mark>' in html
    assert re.search(r'<mark class="lowers s[23]" title="−1.000">dog</mark>', html)
    assert ">a dog<" not in html


def test_numbers_that_are_not_finite_stay_out_of_the_drawing() -> None:
    scatter = Scatter(
        predicted=np.array([0.1, math.nan, 0.2]),
        actual=np.array([0.1, 0.2, math.inf]),
        names=(1, 2, 3),
        r=math.nan,
        slope=math.nan,
    )
    html = render(explanation(scatter=scatter))
    assert html.count('r="4.5"') == 1
    assert "2 pairs without a finite number are left out." in html
    assert "R = not known" in html


def test_a_constant_scatter_is_drawn() -> None:
    scatter = Scatter(
        predicted=np.zeros(2), actual=np.zeros(2), names=("a", "b"), r=math.nan, slope=math.nan
    )
    assert "NaN" not in render(explanation(scatter=scatter))


def test_points_lie_where_their_numbers_say() -> None:
    """Equal numbers lie on the identity line, and a larger one lies above it."""
    scatter = Scatter(
        predicted=np.array([-1.0, 1.0, 0.5]),
        actual=np.array([-1.0, 1.0, 0.9]),
        names=(1, 2, 3),
        r=1.0,
        slope=1.0,
    )
    html = render(explanation(scatter=scatter))
    line = re.search(r'class="identity" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', html)
    assert line is not None
    x0, y0, x1, y1 = map(float, line.groups())
    for (x, y), above in zip(
        re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="4.5">', html), (0, 0, 1), strict=True
    ):
        on_line = y0 + (float(x) - x0) * (y1 - y0) / (x1 - x0)
        assert (on_line - float(y) > 1) == bool(above)


def test_the_same_page_is_the_same_file() -> None:
    assert render(batch()) == render(batch())


def test_writes_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "why.html"
    assert write(explanation(), target) == target
    before = target.read_text(encoding="utf-8")
    monkeypatch.setattr("os.replace", _fail)
    with pytest.raises(OSError, match="disk full"):
        write(explanation(title="Other"), target)
    assert target.read_text(encoding="utf-8") == before
    assert [path.name for path in tmp_path.iterdir()] == ["why.html"]


def _fail(*args: object) -> None:
    raise OSError("disk full")


def test_a_link_stays_a_link_and_the_mask_is_kept(tmp_path: Path) -> None:
    real, link = tmp_path / "real.html", tmp_path / "link.html"
    real.touch()
    link.symlink_to(real)
    mask = os.umask(0o077)
    try:
        write(explanation(), link)
    finally:
        os.umask(mask)
    assert link.is_symlink()
    assert real.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert stat.S_IMODE(real.stat().st_mode) == 0o600


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Got the folder"):
        write(explanation(), tmp_path)
    with pytest.raises(InvalidInput, match="Expected a folder that exists"):
        write(explanation(), tmp_path / "missing" / "why.html")
    with pytest.raises(InvalidInput, match="Got the device"):
        write(explanation(), os.devnull)
