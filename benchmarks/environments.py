"""An environment for each library: its own pinned packages over this one's torch.

`requirements/<library>.txt` pins everything that a library needs beyond this environment, and what
it needs in another version (pyDVL needs numpy < 2), so that nothing is resolved anew. The folders
under `environments/` can be deleted at any time.
"""

from __future__ import annotations

import subprocess
import sys
import venv
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
    wanted = f"{sys.executable}\n{requirements.read_text()}"
    if done.exists() and done.read_text() == wanted:
        return python
    venv.EnvBuilder(clear=True, symlinks=True).create(home)
    packages = home / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    # Read last, so that the library's own packages come first.
    shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "shared.pth").write_text("".join(f"{path}\n" for path in shared))
    # --no-deps: the list is complete, and a dependency must not bring another torch.
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    options = ["--no-deps", "--disable-pip-version-check", "-r", str(requirements)]
    subprocess.run([*command, *options], check=True)
    done.write_text(wanted)
    return python


def version_of(library: str) -> str:
    """Return the release that is measured."""
    requirements = _REQUIREMENTS / f"{library}.txt"
    if requirements.exists():
        return requirements.read_text().split("==", 1)[1].splitlines()[0]
    return version(_DISTRIBUTIONS.get(library, library))
