"""Pages: what they say, that they say it safely, and that they need nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whence.errors import InvalidInput
from whence.report import ExplanationPage, Item, Light, Scatter, render, write

_SCRIPT = "<script>alert(1)</script>"


def page(**changes: object) -> ExplanationPage:
    helpful = Item(
        title="Training example 4",
        label="cat",
        columns=(("age", "4"),),
        acting=np.array([0.25]),
        effect=0.031,
        actual=0.03,
    )
    harmful = Item(title="Training example 9", label="dog", text="a dog", effect=-0.5)
    made = ExplanationPage(
        title="Why?",
        query=Item(title="The query", label="cat"),
        said="The model says dog.",
        measure="loss",
        unit="nats",
        value=1.92,
        helpful=(helpful,),
        harmful=(harmful,),
        scatter=Scatter(
            predicted=np.array([0.1, -0.2]),
            actual=np.array([0.11, -0.21]),
            names=("a", "b"),
            r=0.999,
            slope=1.05,
        ),
        lights=(Light(level="good", title="Solved?", words="Yes."),),
        method="by hand",
        command="whence demo",
        n=12345,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_effects_in_plain_words() -> None:
    words = " ".join(re.sub(r"<[^>]*>", "", render(page())).split())
    assert "Without this example the loss would rise by 0.031 , from 1.920 to 1.951." in (
        words.replace("0.031,", "0.031 ,")
    )
    assert "the loss would fall by 0.500" in words
    assert "Retrained without it: rose by 0.030." in words
    assert "R = 0.9990 and slope 1.050" in words
    assert "out of 12,345 examples" in words


def test_bars_share_one_scale() -> None:
    widths = re.findall(r"width: ([\d.]+)%", render(page()))
    assert "6.2" in widths
    assert "100.0" in widths


def test_nothing_is_fetched() -> None:
    html = render(page())
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)""", html)
    assert "default-src 'none'" in html


def test_no_text_becomes_markup() -> None:
    item = Item(
        title=_SCRIPT, label=_SCRIPT, text=_SCRIPT, columns=((_SCRIPT, _SCRIPT),), effect=1.0
    )
    html = render(
        page(
            title=_SCRIPT,
            said=_SCRIPT,
            measure=_SCRIPT,
            unit=_SCRIPT,
            query=item,
            helpful=(item,),
            method=_SCRIPT,
            command=_SCRIPT,
            lights=(Light(level="bad", title=_SCRIPT, words=_SCRIPT),),
            scatter=replace(page().scatter, names=(_SCRIPT, _SCRIPT)),  # type: ignore[type-var]
        )
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 15


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@settings(max_examples=25, deadline=None)
@given(
    st.text(min_size=1).filter(lambda text: text.strip() and "\r" not in text and "\0" not in text)
)
def test_any_text_is_shown_as_it_is(text: str) -> None:
    parser = _Texts()
    parser.feed(render(page(harmful=(Item(title="t", label="l", text=text, effect=-1.0),))))
    assert text in "".join(parser.texts)


def test_a_page_without_effects_or_checks() -> None:
    html = render(page(helpful=(), harmful=(), scatter=None, lights=()))
    assert "No training example helped" in html
    assert "No training example harmed" in html
    assert "Checked by retraining" not in html


def test_images_and_what_acts_in_them() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    item = Item(title="t", label="l", image=image, acting=np.eye(4), effect=0.1)
    html = render(page(helpful=(item,)))
    assert html.count("data:image/png;base64,") == 2
    assert 'alt="t, labeled l"' in html


def test_writes_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "why.html"
    write(page(), target)
    before = target.read_text(encoding="utf-8")
    monkeypatch.setattr("os.replace", _fail)
    with pytest.raises(OSError, match="disk full"):
        write(page(title="Other"), target)
    assert target.read_text(encoding="utf-8") == before
    assert [path.name for path in tmp_path.iterdir()] == ["why.html"]


def _fail(*args: object) -> None:
    raise OSError("disk full")


def test_refuses_a_folder_and_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Got the folder"):
        write(page(), tmp_path)
    with pytest.raises(InvalidInput, match="Expected a folder that exists"):
        write(page(), tmp_path / "missing" / "why.html")
