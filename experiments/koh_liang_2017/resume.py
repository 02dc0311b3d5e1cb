"""Long experiments, item by item: what is done is on disk, and is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from experiments.koh_liang_2017.record import RESULTS


def each(
    name: str, keys: Sequence[str], make: Callable[[str], dict[str, Any]], *, settings: str
) -> list[dict[str, Any]]:
    """Return `make(key)` for every key, from `results/partial/<name>.jsonl` where it is there.

    Lines of other settings, and a last line cut short, are made again.
    """
    path = RESULTS / "partial" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done: dict[str, dict[str, Any]] = {}
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    for line in lines:
        if line.endswith("\n"):
            item = json.loads(line)
            if item["settings"] == settings:
                done[item["key"]] = item["value"]
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]))
    for key in tqdm(keys, desc=name, disable=None):
        if key not in done:
            done[key] = make(key)
            line = json.dumps({"settings": settings, "key": key, "value": done[key]})
            with path.open("a") as file:
                file.write(line + "\n")
    return [done[key] for key in keys]
