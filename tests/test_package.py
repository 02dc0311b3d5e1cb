"""The face of the package: what is public, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import whence

_OPTIONAL = ("transformers", "datasets", "ray", "matplotlib", "typer", "jinja2", "PIL")


def test_import_loads_nothing_optional() -> None:
    program = f"import sys, whence; print([m for m in {_OPTIONAL!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_public_names_are_complete() -> None:
    public = [
        name
        for name, value in vars(whence).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    assert set(public) <= set(whence.__all__)


def test_every_public_name_is_documented() -> None:
    undocumented = [name for name in whence.__all__ if not getattr(whence, name).__doc__]
    assert undocumented == []
