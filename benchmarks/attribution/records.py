"""Results by setting, in a file that is written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def known(path: Path) -> dict[str, Row]:
    """Return the results in a file, by setting; none if there is no file."""
    found: dict[str, Row] = json.loads(path.read_text()) if path.exists() else {}
    return found


def keep(path: Path, name: str, record: Row, order: Iterable[str]) -> None:
    """Write the results with one setting more, a line each, in an order of the settings."""
    content = {**known(path), name: record}
    unfinished = path.with_suffix(".tmp")
    lines = [f"{json.dumps(one)}: {json.dumps(content[one])}" for one in order if one in content]
    unfinished.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    os.replace(unfinished, path)


def rounded(record: Row) -> Row:
    """Return a record with five digits of each number."""
    found: Row = json.loads(
        json.dumps(record), parse_float=lambda text: float(f"{float(text):.5g}")
    )
    return found
