"""The command line where names, streams and the environment are not as usual: no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.datasets import load_breast_cancer

from whence.cli import main

_NAMES = {
    "null byte": "a\0b",
    "over-long name": "a" * 300,
    "over-long path": "/".join(["a" * 200] * 40),
}
_PLACES = {
    "source": ("explain", "{name}", "--target", "y", "--row", "3"),
    "page": ("explain", "train.csv", "--target", "y", "--row", "3", "--output", "{name}"),
    "model": ("diagnose", "train.csv", "--target", "y", "--trust", "--model", "{name}"),
    "image": ("explain", "photos", "--image", "{name}"),
    "network": ("explain", "photos", "--row", "3", "--network", "{name}:f"),
    "report": ("report", "train.csv", "--target", "y", "--output", "{name}"),
    "ensemble": ("evaluate", "train.csv", "--target", "y", "--ensemble", "{name}"),
    "save": ("attack", "photos", "--row", "3", "--save", "{name}"),
    "demo": ("demo", "--output", "{name}"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 60 rows, and a folder with two empty class folders."""
    root = tmp_path_factory.mktemp("sources")
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X.iloc[:60, :3].assign(y=y[:60]).to_csv(root / "train.csv", index=False)
    for kind in ("bright", "dark"):
        (root / "photos" / kind).mkdir(parents=True)
    return root


@pytest.mark.parametrize("place", _PLACES)
@pytest.mark.parametrize("name", _NAMES)
def test_impossible_names_get_a_sentence(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
    name: str,
) -> None:
    monkeypatch.chdir(folder)
    typed = [part.format(name=_NAMES[name]) for part in _PLACES[place]]
    monkeypatch.setattr("sys.argv", ["whence", *typed])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (1, 2)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    plain = " ".join(printed.err.replace("│", " ").split())  # as in a box of any width
    assert "Expected" in plain or "embedded null byte" in plain
    assert len(printed.err) < 1500  # the name itself is not repeated at length


_INFLUENCE = ("influence", "train.csv", "-t", "y", "--row", "3", "-k", "1")


@pytest.mark.parametrize(
    ("arguments", "flags", "out"),
    [
        pytest.param(  # slow where torch has not been compiled for -O before
            _INFLUENCE, ("-O",), "pushes to", id="python -O", marks=pytest.mark.slow
        ),
        pytest.param(("--help",), ("-OO",), "label-errors", id="python -OO"),
    ],
)
def test_answers_the_same(
    folder: Path, arguments: tuple[str, ...], flags: tuple[str, ...], out: str
) -> None:
    command = [sys.executable, *flags, "-m", "whence", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert out in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stream", ["a reader that has gone", "closed", "/dev/full"])
def test_output_that_cannot_be_written_gives_no_traceback(folder: Path, stream: str) -> None:
    command = [sys.executable, "-m", "whence", "--help"]
    if stream == "/dev/full":
        if not Path(stream).exists():
            pytest.skip("this system has no /dev/full")
        target = os.open(stream, os.O_WRONLY)
    elif stream == "closed":
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
        target = os.open(os.devnull, os.O_WRONLY)
    else:
        reader, target = os.pipe()
        os.close(reader)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": ""},  # what is buffered is written at the end
            stdout=target,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(target)
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr
    expected = {"a reader that has gone": 1, "closed": 0, "/dev/full": 1}[stream]
    assert done.returncode == expected
    if stream == "/dev/full":
        assert "Got the output: No space left on device." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("explain", "absent.csv", "-t", "y", "--row", "1"), "Got absent.csv"),
        (("explain", "table.csv", "--row", "1"), "--target"),
        (("report", "table.csv", "-t", "y", "-o", "absent/x.html"), "Got absent."),
        (
            ("explain", "table.csv", "-t", "y", "--row", "1", "--model", "m.joblib", "--trust"),
            "Got m.joblib",
        ),
        (("explain", ".", "--image", "absent.png"), "Got absent.png"),
    ],
)
def test_what_is_missing_is_said_before_anything_slow_is_imported(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "table.csv").write_text("x,y\n1,2\n")
    script = (
        "import sys; from whence.cli import main\n"
        f"sys.argv = ['whence', *{arguments!r}]\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert said in done.stderr
    assert done.stdout == "False False\n"
    assert done.returncode in (1, 2)
