"""A page of records as one HTML file that needs nothing else."""

from __future__ import annotations

import os
import tempfile
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined

from whence.errors import InvalidInput
from whence.report.drawing import heat, picture, scatter_svg
from whence.report.page import ExplanationPage


def render(page: ExplanationPage) -> str:
    """Return a page as HTML: styles, images and drawings inside, every text escaped.

    Args:
        page: What to show.

    Returns:
        The whole document.

    Cost:
        A few kilobytes per image.
    """
    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_template),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        picture=picture, heat=heat, scatter_svg=scatter_svg, style=_template("style.css")
    )
    shown = [*page.helpful, *page.harmful]
    largest = max((abs(item.effect or 0.0) for item in shown), default=0.0)
    return environment.get_template("explanation.html").render(page=page, largest=largest or 1.0)


def write(page: ExplanationPage, path: str | os.PathLike[str]) -> Path:
    """Write a page to a file, whole or not at all.

    Args:
        page: What to show.
        path: The file; an existing one is replaced.

    Returns:
        The path.

    Raises:
        InvalidInput: If the path is a folder, or its folder does not exist.
    """
    target = Path(path)
    if target.is_dir():
        raise InvalidInput(f"Expected a file to write. Got the folder {target}. Add a file name.")
    if not target.parent.is_dir():
        raise InvalidInput(f"Expected a folder that exists. Got {target.parent}. Create it first.")
    content = render(page)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, suffix=".part")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def _template(name: str) -> str:
    """Return the text of a template file beside this module."""
    return (files("whence.report") / "templates" / name).read_text(encoding="utf-8")
