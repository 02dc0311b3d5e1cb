"""Readers of users' files: whatever the bytes are, a table or an image, or a sentence about them.

`WHENCE_FUZZ=1000000 pytest tests/fuzz/test_files.py` goes on for longer.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import Ridge

from whence.errors import WhenceError
from whence.sources.entry import load_model
from whence.sources.images import read_image
from whence.sources.tables import read_table
from whence.storage import read_arrays, read_manifest, write_arrays, write_manifest

EXAMPLES = int(os.environ.get("WHENCE_FUZZ", "40"))

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="WHENCE_FUZZ" not in os.environ,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def _picture(kind: str, mode: str, **options: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        pixels = np.random.default_rng(0).integers(0, 255, (12, 12, 3), dtype=np.uint8)
        content = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(content, kind, **options)
        return content.getvalue()

    return make


def _frame() -> pd.DataFrame:
    return pd.DataFrame({"a": [0.5, 1, 2, 3], "b": list("xyxy"), "y": [0, 1, 0, 1]})


def _parquet() -> bytes:
    content = io.BytesIO()
    _frame().to_parquet(content)
    return content.getvalue()


def _model() -> bytes:
    content = io.BytesIO()
    joblib.dump(Ridge().fit(np.eye(3), np.arange(3.0)), content)
    return content.getvalue()


@cache
def whole(name: str) -> bytes:
    return FILES[name]()


FILES: dict[str, Callable[[], bytes]] = {
    "a.png": _picture("PNG", "RGB"),
    "palette.png": _picture("PNG", "P"),
    "a.jpg": _picture("JPEG", "RGB"),
    "cmyk.jpg": _picture("JPEG", "CMYK"),
    "a.gif": _picture("GIF", "P"),
    "a.bmp": _picture("BMP", "RGB"),
    "a.tif": _picture("TIFF", "F"),
    "packed.tif": _picture("TIFF", "RGB", compression="tiff_lzw"),
    "a.webp": _picture("WEBP", "RGB"),
    "a.csv": lambda: _frame().to_csv(index=False).encode(),
    "a.parquet": _parquet,
}

damage = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 10**6), st.integers(0, 7)),
    st.tuples(st.just("cut"), st.integers(0, 10**6), st.just(0)),
    st.tuples(st.just("byte"), st.integers(0, 10**6), st.integers(0, 255)),
    st.tuples(st.just("insert"), st.integers(0, 10**6), st.integers(0, 255)),
)


def damaged(content: bytes, steps: list[tuple[str, int, int]]) -> bytes:
    found = bytearray(content)
    for kind, at, value in steps:
        where = at % max(1, len(found))
        if kind == "cut":
            del found[where:]
        elif kind == "insert":
            found.insert(where, value)
        elif found:
            found[where] = value if kind == "byte" else found[where] ^ 1 << value
    return bytes(found)


def read(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.suffix in (".csv", ".parquet"):
            assert len(read_table(path, "y").X) > 0
        else:
            image = read_image(path, size=8)
            assert image.shape == (3, 8, 8)
            assert bool(torch.isfinite(image).all())


def said(call: Callable[[], object]) -> str:
    """Return what whence says of a file; that it got something, where it says nothing."""
    try:
        call()
    except WhenceError as error:
        return str(error)
    return "Got a file"


@pytest.mark.parametrize("name", FILES)
@given(steps=st.lists(damage, max_size=3))
@fuzzed
def test_damaged_files(
    tmp_path_factory: pytest.TempPathFactory, name: str, steps: list[tuple[str, int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(damaged(whole(name), steps))
    assert "Got" in said(lambda: read(path))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.csv", "a.parquet"])
@given(content=st.binary(max_size=60))
@fuzzed
def test_foreign_bytes(tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    assert "Got" in said(lambda: read(path))


@given(steps=st.lists(damage, min_size=1, max_size=2))
@fuzzed
def test_damaged_files_of_our_own_are_never_believed(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    archive, manifest = folder / "own.npz", folder / "own.json"
    write_arrays(archive, "me", x=np.arange(4.0))
    write_manifest(manifest, "training", {"n": 3})
    for path, get, expected in (
        (archive, lambda: read_arrays(archive, "me")["x"].tolist(), [0, 1, 2, 3]),
        (manifest, lambda: read_manifest(manifest, "training"), {"n": 3}),
    ):
        path.write_bytes(damaged(path.read_bytes(), steps))
        found: list[object] = []
        words = said(lambda get=get, found=found: found.append(get()))  # type: ignore[misc]
        assert found in ([], [expected])  # a flip of a flip is none
        assert found or str(folder) in words


@given(steps=st.lists(damage, max_size=2))
@fuzzed
def test_a_damaged_model_gets_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "model.joblib"
    path.write_bytes(damaged(_model(), steps))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "Got" in said(lambda: load_model(path, trust=True))
