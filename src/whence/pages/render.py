"""A page of records as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from whence.pages import words
from whence.pages.drawing import heat, picture, strength
from whence.pages.explore import ExplorePage
from whence.pages.page import Page
from whence.pages.scripts import script_json
from whence.pages.text import marked
from whence.storage import clear_leftovers, file_to_write, write_bytes
from whence.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

_SCRIPTS = (
    "theme",
    "csv",
    "share",
    "decide",
    "table",
    "explain",
    "explore",
    "explore_page",
    "result",
)


def render(page: Page) -> str:
    """Return a page as HTML: styles, scripts, images and drawings inside, every text escaped.

    The page asks for nothing over a network and forbids itself to, by its content security policy.

    Args:
        page: What to show.

    Returns:
        The whole document.

    Cost:
        A few kilobytes per image; about 0.3 kB per row of a table beside its own text and images.
    """
    from markupsafe import Markup

    style = "".join(_asset(name) for name in page.styles)
    scripts = {name: _asset(f"{name}.js") for name in _SCRIPTS}
    html = (
        _environment()
        .get_template(page.template)
        .render(
            page=page,
            version=page.version or __version__,
            style=Markup(style),
            policy=_policy(style, *scripts.values(), asks=page.asks),
            **{name: Markup(text) for name, text in scripts.items()},
            **page.context(),
        )
    )
    # A lone surrogate, as a wrongly decoded file may hold, has no UTF-8: it is shown as \udXXX.
    return html.encode("utf-8", "backslashreplace").decode("utf-8")


def explorer_module() -> str:
    """Return the explorer for a notebook: its script as a module, with its elements and styles."""
    page = _environment().get_template("explorer.html").render()
    style = "".join(_asset(name) for name in ExplorePage.styles)
    scripts = "".join(_asset(f"{name}.js") for name in ("csv", "explore", "explore_widget"))
    return f"const page = {script_json(page)}, style = {script_json(style)};\n{scripts}"


def write(page: Page, path: str | os.PathLike[str]) -> Path:
    """Write a page to a file, whole or not at all.

    Args:
        page: What to show.
        path: The file; an existing one is replaced.

    Returns:
        The path.

    Raises:
        InvalidInput: If the path is a folder or a device, or its folder does not exist.
        NotWritten: If the disk is full or the folder read-only.
    """
    target = file_to_write(Path(path))
    content = render(page).encode()
    clear_leftovers(target.resolve().parent)
    write_bytes(target, content)
    return target


@cache
def _environment() -> Environment:
    """Return the template engine: it escapes everything, and every name must exist."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # paid by pages alone

    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_asset),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        picture=picture,
        heat=heat,
        strength=strength,
        marked=marked,
        number=words.number,
        signed=words.signed,
        decimals_of=words.decimals_of,
    )
    return environment


def _policy(style: str, *scripts: str, asks: bool) -> str:
    """Return a content security policy that allows these texts and inline images, no more."""
    allowed = " ".join(_digest(script) for script in scripts)
    own = "connect-src 'self'; " if asks else ""
    return (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {allowed}; "
        f"{own}base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    """Return a text's digest as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    """Return the text of a template file beside this module."""
    return (files("whence.pages") / "templates" / name).read_text(encoding="utf-8")
