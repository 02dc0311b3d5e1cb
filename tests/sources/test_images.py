"""Images of every kind are read as their range says, upright and on white, or refused."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from whence.errors import InvalidInput
from whence.sources import images
from whence.sources.images import fit_images, read_image, read_images

SIZE = 16
RAMP = np.linspace(0, 1, SIZE * SIZE).reshape(SIZE, SIZE)


def levels(bits: int) -> NDArray[Any]:
    """Return a ramp over the whole range of unsigned integers."""
    return (RAMP * (2**bits - 1)).round().astype(np.uint8 if bits == 8 else np.uint16)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def png(color: int, depth: int, rows: list[bytes], *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG file, which Pillow writes in fewer kinds than it reads."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", SIZE, len(rows), depth, color, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    inside = [(b"IHDR", head), *chunks, (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in inside)


def tiff(bits: int, photometric: int, content: bytes) -> bytes:
    """Return a gray TIFF file."""
    tags = {
        **{256: SIZE, 257: SIZE, 258: bits, 259: 1, 262: photometric},
        **{273: 8, 277: 1, 278: SIZE, 279: len(content)},
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(content)) + content + directory


def twelve_bits() -> bytes:
    """Return rows of 12 bits per pixel, two pixels in three bytes."""
    pairs = levels(12).reshape(-1, 2).tolist()
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)


DEEP: dict[str, tuple[Callable[[], bytes], float]] = {
    "a.png": (lambda: png(0, 16, [row.astype(">u2").tobytes() for row in levels(16)]), 1 / 65535),
    "b.png": (
        lambda: png(2, 16, [np.stack([r] * 3, 1).astype(">u2").tobytes() for r in levels(16)]),
        1 / 255,  # Pillow reads colors of 16 bits in 8
    ),
    "a.tif": (lambda: tiff(16, 1, levels(16).tobytes()), 1 / 65535),
    "b.tif": (lambda: tiff(16, 0, (65535 - levels(16)).tobytes()), 1 / 65535),
    "c.tif": (lambda: tiff(12, 1, twelve_bits()), 1 / 4095),
    "d.tif": (lambda: tiff(8, 0, (255 - levels(8)).tobytes()), 1 / 255),
    "a.pgm": (lambda: b"P5 16 16 65535\n" + levels(16).astype(">u2").tobytes(), 1 / 65535),
    "b.pgm": (lambda: b"P5 16 16 4095\n" + levels(12).astype(">u2").tobytes(), 1 / 4095),
    "c.pgm": (lambda: b"P5 16 16 255\n" + levels(8).tobytes(), 1 / 255),
}


@pytest.mark.parametrize("name", DEEP)
def test_the_range_is_that_of_the_type(tmp_path: Path, name: str) -> None:
    content, step = DEEP[name]
    (tmp_path / name).write_bytes(content())
    found = read_image(tmp_path / name, size=SIZE)
    assert (found.shape, found.dtype) == ((3, SIZE, SIZE), torch.float32)
    for channel in found:
        np.testing.assert_allclose(channel, 2 * RAMP - 1, rtol=0, atol=2 * step)
    if step < 1 / 255:
        assert len(found.unique()) == SIZE * SIZE


def test_scaling_goes_by_the_values_and_not_by_the_type(tmp_path: Path) -> None:
    """An image of 8 bits, and the same with 16 or as numbers in [0, 1], give one result."""
    rng = np.random.default_rng(0)
    few = rng.integers(0, 256, (40, 60), dtype=np.uint8)
    same = [few, few.astype(np.uint16) * 257, (few / 255).astype(np.float32)]
    paths = [saved(tmp_path / f"{i}.tif", Image.fromarray(a)) for i, a in enumerate(same)]
    first, *others = (read_image(path, size=SIZE) for path in paths)
    for other in others:
        assert float((other - first).abs().max()) < 2 / 255
        assert float(other.abs().max()) <= 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (255 * RAMP, "floating-point numbers lie in [0, 1]. Got {path}, from 0 to 255"),
        (RAMP - 0.5, "lie in [0, 1]. Got {path}, from -0.5 to 0.5"),
        (np.where(RAMP == 0, np.nan, RAMP), "lie in [0, 1]. Got {path}, from nan"),
        ((1000 * RAMP - 500).astype(np.int32), "sign or 32 bits: -500 to 500"),
        ((1000 * RAMP - 500).astype(np.int16), "sign or 32 bits: -500 to 500"),
    ],
)
def test_numbers_without_a_range_are_refused(
    tmp_path: Path, content: NDArray[Any], message: str
) -> None:
    path = tmp_path / "a.tif"
    if content.dtype == np.int16:
        path.write_bytes(tiff(16, 1, content.tobytes()))
        path.write_bytes(signed(path.read_bytes()))
    else:
        single = content.astype(np.float32) if content.dtype == np.float64 else content
        saved(path, Image.fromarray(single))
    with pytest.raises(InvalidInput) as caught:
        read_image(path, size=SIZE)
    assert message.format(path=path) in str(caught.value)


def signed(content: bytes) -> bytes:
    """Return a TIFF file whose numbers have a sign: tag 339, in place of 277, says so."""
    return content.replace(struct.pack("<HHII", 277, 4, 1, 1), b"").replace(
        struct.pack("<HHII", 279, 4, 1, 2 * SIZE**2) + bytes(4),
        struct.pack("<HHII", 279, 4, 1, 2 * SIZE**2)
        + struct.pack("<HHII", 339, 3, 1, 2)
        + bytes(4),
    )


def flat(red: int, green: int, blue: int) -> Tensor:
    """Return an image of one color."""
    color = torch.tensor([red, green, blue]) / 127.5 - 1
    return color.reshape(3, 1, 1).expand(3, SIZE, SIZE)


def test_palettes(tmp_path: Path) -> None:
    image = Image.new("P", (SIZE, SIZE), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    for name in ("a.png", "a.gif"):
        found = read_image(saved(tmp_path / name, image), size=SIZE)
        torch.testing.assert_close(found, flat(200, 100, 50))


def test_cmyk(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0)))
    torch.testing.assert_close(read_image(path, size=SIZE), flat(255, 0, 0))


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    """Whatever color lies hidden there."""
    shades = {
        "rgba": Image.new("RGBA", (SIZE, SIZE), (200, 0, 0, 0)),
        "la": Image.new("LA", (SIZE, SIZE), (10, 0)),
        "p": Image.new("P", (SIZE, SIZE), 0),
        "l": Image.new("L", (SIZE, SIZE), 7),
        "rgb": Image.new("RGB", (SIZE, SIZE), (1, 2, 3)),
    }
    keys: dict[str, Any] = {"p": 0, "l": 7, "rgb": (1, 2, 3)}
    for name, image in shades.items():
        more = {"transparency": keys[name]} if name in keys else {}
        path = saved(tmp_path / f"{name}.png", image, **more)
        torch.testing.assert_close(read_image(path, size=SIZE), flat(255, 255, 255))
    half = saved(tmp_path / "half.png", Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 128)))
    torch.testing.assert_close(read_image(half, size=SIZE), flat(127, 127, 127))
    key = (b"tRNS", struct.pack(">H", 0))
    deep = png(0, 16, [row.astype(">u2").tobytes() for row in levels(16)], key)
    (tmp_path / "deep.png").write_bytes(deep)
    found = read_image(tmp_path / "deep.png", size=SIZE)
    assert float(found[0, 0, 0]) == 1
    assert float(found[0, 0, 1]) < -0.9


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "deep.png"])
def test_images_stand_upright(tmp_path: Path, name: str, orientation: int) -> None:
    """The corner that the camera noted as the first becomes the upper left one."""
    corners = np.zeros((SIZE, SIZE), np.uint16 if "deep" in name else np.uint8)
    half = SIZE // 2
    corners[:half, :half], corners[:half, half:], corners[half:, :half] = 200, 150, 100
    if "deep" in name:
        corners *= 257
    exif = Image.Exif()
    exif[274] = orientation
    found = read_image(saved(tmp_path / name, Image.fromarray(corners), exif=exif), size=SIZE)
    expected: dict[int, list[int]] = {
        **{1: [200, 150, 100, 0], 2: [150, 200, 0, 100], 3: [0, 100, 150, 200]},
        **{4: [100, 0, 200, 150], 5: [200, 100, 150, 0], 6: [100, 200, 0, 150]},
        **{7: [0, 150, 100, 200], 8: [150, 0, 200, 100]},
    }
    at = [(3, 3), (3, 12), (12, 3), (12, 12)]
    seen = [(float(found[0, row, column]) + 1) * 127.5 for row, column in at]
    np.testing.assert_allclose(seen, expected[orientation], rtol=0, atol=8)


def test_exif_data_that_cannot_be_read_turn_nothing(tmp_path: Path) -> None:
    image = Image.new("RGB", (SIZE, SIZE), (200, 100, 50))
    path = saved(tmp_path / "a.png", image, exif=b"Exif\0\0no such thing")
    torch.testing.assert_close(read_image(path, size=SIZE), flat(200, 100, 50))


def test_only_the_first_frame_is_read_and_said_so(tmp_path: Path) -> None:
    colors = [(200, 100, 50), (0, 0, 0), (9, 9, 9)]
    first, *others = (Image.new("RGB", (SIZE, SIZE), color) for color in colors)
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    saved(tmp_path / "cat" / "still.png", first)
    for name in ("a.gif", "b.webp", "c.tif", "d.png"):
        options: dict[str, Any] = {"lossless": True} if name == "b.webp" else {}
        path = tmp_path / "dog" / name
        saved(path, first, save_all=True, append_images=others, **options)
        torch.testing.assert_close(read_image(path, size=SIZE), flat(200, 100, 50))
    # A picture with a preview beside it, as cameras write, is one picture.
    saved(tmp_path / "dog" / "e.jpg", first, format="MPO", save_all=True, append_images=others)
    found = read_images(tmp_path, size=SIZE)
    assert found.notes[-1] == f"Only the first frame was read of 4 files: {Path('dog', 'a.gif')}."


def test_a_gigapixel_image_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    large = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head
    large += struct.pack(">I", zlib.crc32(b"IHDR" + head)) + struct.pack(">I", 0) + b"IDAT"
    (tmp_path / "a.png").write_bytes(large)
    small = saved(tmp_path / "b.png", Image.new("L", (SIZE, SIZE)))
    monkeypatch.setattr(images, "_LARGEST", SIZE * SIZE - 1)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    for path, pixels in ((tmp_path / "a.png", "1600000000 pixels"), (small, "16 × 16 pixels")):
        with pytest.raises(InvalidInput, match=f"at most .* Got .*{pixels}.* Scale it down"):
            read_image(path, size=SIZE)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "PPM", "TIFF", "WEBP"])
def test_truncated_images_are_refused(tmp_path: Path, kind: str) -> None:
    """Whatever the length left: refused, or nothing of the picture is missing."""
    rng = np.random.default_rng(0)
    path = tmp_path / "a.bin"
    image = Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    content = io.BytesIO()
    image.save(content, kind)
    path.write_bytes(content.getvalue())
    whole = read_image(path, size=SIZE)
    refused = 0
    with path.open("r+b") as file:
        for length in range(len(content.getvalue()) - 1, -1, -1):
            file.truncate(length)
            try:
                assert torch.equal(read_image(path, size=SIZE), whole)
            except InvalidInput as error:
                refused += "a.bin, which cannot be read" in str(error)
    assert refused > 0.9 * len(content.getvalue())


@pytest.mark.parametrize("name", ["a.tif", "a.png", "b.gif", "b.jpg", "b.webp", "b.bmp", "a.pgm"])
def test_damaged_images_are_read_or_refused(tmp_path: Path, name: str) -> None:
    """A format without checksums cannot tell a changed pixel; nothing else comes of damage."""
    path = tmp_path / name
    if name in DEEP:
        path.write_bytes(DEEP[name][0]())
    else:
        saved(path, Image.fromarray(levels(8)))
    whole = path.read_bytes()
    drawn = random.Random(0)
    for _ in range(300):
        changed = bytearray(whole)
        for at in drawn.sample(range(min(len(whole), 400)), 2):
            changed[at] = drawn.randrange(256)
        path.write_bytes(changed)
        try:
            found = read_image(path, size=SIZE)
        except InvalidInput:
            continue
        assert found.shape == (3, SIZE, SIZE)
        assert float(found.abs().max()) <= 1


def test_every_image_of_a_folder_can_be_asked_for_by_its_number(tmp_path: Path) -> None:
    for at, name in enumerate("aabb"):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("L", (8, 8), 60 * at).save(tmp_path / name / f"{at}.png")
    fitted = fit_images(read_images(tmp_path, size=8))
    pixels, labels = fitted.query(range(4))
    gray = 2 * torch.arange(4) * 60 / 255 - 1
    torch.testing.assert_close(pixels, gray.reshape(4, 1, 1, 1).expand(4, 3, 8, 8))
    assert labels.tolist() == list("aabb")
    for row in (-1, 4):
        with pytest.raises(InvalidInput, match=f"numbered from 0 to 3 .* Got {row}"):
            fitted.query([row])
