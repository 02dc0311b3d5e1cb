"""Long experiments, item by item: what is done is on disk, and is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.koh_liang_2017.record import RESULTS
from whence.storage import make_folder, write_bytes
from whence.workers import map_shards


def each(
    name: str,
    keys: Sequence[str],
    make: Callable[[str], dict[str, Any]],
    *,
    settings: str,
    folder: Path | None = None,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """Return `make(key)` for every key, from `<folder>/<name>.jsonl` where it is there.

    The file is written whole after each item. Lines of other settings, and a last line cut short,
    are made again. The folder is `results/partial` if `None`. Several workers are processes: `make`
    must then be a function at the top of a module, or a `partial` of one.
    """
    folder = RESULTS / "partial" if folder is None else folder
    make_folder(folder)
    path = folder / f"{name}.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    items = [json.loads(line) for line in lines if line.endswith("\n")]
    done = {item["key"]: item["value"] for item in items if item["settings"] == settings}
    missing = [key for key in keys if key not in done]
    made = map_shards(make, missing, workers=min(workers, max(1, len(missing))))
    for key, value in zip(missing, tqdm(made, name, len(missing), disable=None), strict=True):
        done[key] = value
        items.append({"settings": settings, "key": key, "value": value})
        text = "".join(json.dumps(item) + "\n" for item in items)
        write_bytes(path, text.encode())
    return [done[key] for key in keys]
