"""An environment for each library: its own pinned packages over this one's torch.

`requirements/<library>.txt` pins everything that a library needs beyond this environment, and what
it needs in another version (pyDVL needs numpy < 2), so that nothing is resolved anew. One that does
not run under this Python names its own in the first line (`# Python 3.9`), and shares nothing. The
folders under `environments/` can be deleted at any time.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

_HERE = Path(__file__).parent
_REQUIREMENTS, _ENVIRONMENTS = _HERE / "requirements", _HERE / "environments"
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "whence": "whence-attribution"}


def python_of(library: str) -> Path:
    """Return the interpreter that can import a library, its environment made if need be."""
    requirements = _REQUIREMENTS / f"{library}.txt"
    if not requirements.exists():
        return Path(sys.executable)  # whence and scikit-learn are here already
    home = _ENVIRONMENTS / library
    python = home / "bin" / "python"
    done = home / "installed.txt"
    base = interpreter(requirements.read_text())
    wanted = f"{base}\n{requirements.read_text()}"
    if done.exists() and done.read_text() == wanted:
        return python
    subprocess.run(
        [base, "-m", "venv", "--clear", "--without-pip", "--symlinks", str(home)], check=True
    )
    if base == sys.executable:
        # Read last, so that the library's own packages come first.
        sites = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        (own,) = (home / "lib").glob("python*/site-packages")
        (own / "shared.pth").write_text("".join(f"{path}\n" for path in sites))
    # --no-deps: the list is complete, and a dependency must not bring another torch.
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    options = ["--no-deps", "--disable-pip-version-check", "-r", str(requirements)]
    subprocess.run([*command, *options], check=True)
    done.write_text(wanted)
    return python


def interpreter(requirements: str) -> str:
    """Return the Python that a library runs under: the one it names first, or this one.

    Raises:
        FileNotFoundError: If this machine has no such Python.
    """
    named = re.match(r"# Python (\d+\.\d+)\n", requirements)
    if named is None:
        return sys.executable
    found = shutil.which(f"python{named[1]}")
    if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
        return found
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{named[1]}.*/bin/python"))
    if not pyenv:
        raise FileNotFoundError(
            f"Expected Python {named[1]} on the path or under ~/.pyenv. Got none."
        )
    return str(pyenv[-1])


def version_of(library: str) -> str:
    """Return the release that is measured."""
    requirements = _REQUIREMENTS / f"{library}.txt"
    if requirements.exists():
        return requirements.read_text().split("==", 1)[1].splitlines()[0]
    return version(_DISTRIBUTIONS.get(library, library))
