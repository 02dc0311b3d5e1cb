"""The wheel and the source distribution, built twice: both times the same bytes.

Every file gets the time of the commit, so that whoever builds that commit gets the same digests.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"


def commit_time() -> str:
    """Return the time of the last commit, in seconds."""
    command = ["git", "log", "-1", "--format=%ct"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def built(folder: Path, time: str) -> dict[str, str]:
    """Build into a folder; return the SHA-256 digests of what came, by name."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": time}
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    files = sorted(path for path in folder.iterdir() if path.suffix in (".whl", ".gz"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def build(folder: Path = DIST) -> dict[str, str]:
    """Build twice, and keep the first with its digests in SHA256SUMS.

    Args:
        folder: Where the files go.

    Returns:
        The digests, by name.

    Raises:
        SystemExit: If the two differ.
    """
    folder.mkdir(exist_ok=True)
    time = commit_time()
    with tempfile.TemporaryDirectory() as other:
        first, second = built(folder, time), built(Path(other), time)
    if not second.items() <= first.items():
        raise SystemExit(f"Expected two builds of the same bytes. Got {first} and {second}.")
    lines = [f"{second[name]}  {name}\n" for name in second]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    return second


if __name__ == "__main__":
    for name, digest in build().items():
        print(f"{digest}  {name}")
