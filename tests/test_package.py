"""The package: its public names, what importing it costs, its dependencies, its wheel."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest
from sklearn.datasets import load_breast_cancer

import whence
from tests import reference
from tests.stub import PATH, stub

_REPOSITORY = Path(__file__).parent.parent
_HEAVY = ("torch", "sklearn", "pandas", "numpy", "scipy")
_TREES = ("lightgbm", "xgboost", "catboost")
_OPTIONAL = ("transformers", "datasets", "ray", "matplotlib", "typer", "jinja2", "PIL", *_TREES)
_ENTRY = re.compile(r"^`whence\.([\w.]+)`$", re.MULTILINE)
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}  # else named as their module


def loaded(program: str, names: tuple[str, ...]) -> list[str]:
    """Return which modules a program has imported at its end, in a process of its own."""
    program += f"\nimport sys; print('\\nloaded', *[m for m in {names!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1].split()[1:]


def documented() -> list[str]:
    """Return what the reference documents, without the leading "whence."."""
    pages = (_REPOSITORY / "docs" / "reference").rglob("*.md")
    return [name for page in pages for name in _ENTRY.findall(page.read_text(encoding="utf-8"))]


def test_import_loads_nothing_heavy() -> None:
    assert loaded("import whence; dir(whence); whence.__version__", _HEAVY) == []


@pytest.mark.parametrize("typed", [(), ("--help",), ("--version",), ("explain", "--help")])
def test_help_and_version_load_nothing_heavy(typed: tuple[str, ...]) -> None:
    program = f"import runpy, sys; sys.argv = ['whence', *{typed!r}]\n"
    program += "try:\n    runpy.run_module('whence', run_name='__main__')\n"
    program += "except SystemExit as stop:\n    assert not stop.code, stop.code"
    assert loaded(program, _HEAVY) == []


def test_public_names_are_what_dir_lists() -> None:
    importlib.import_module("whence.cli")  # binds `whence.cli`, which is not public
    assert dir(whence) == sorted(whence.__all__)
    for name in ("cli", "demo", "workers", "applications", "nothing"):
        assert name not in dir(whence)
    with pytest.raises(AttributeError, match="'from_sklean'. Did you mean whence.from_sklearn?"):
        whence.from_sklean  # type: ignore[attr-defined] # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        whence.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_every_public_name_has_a_docstring_and_its_own_name() -> None:
    for name in set(whence.__all__) - {"__version__"}:
        value = getattr(whence, name)
        assert value.__doc__, name
        assert value.__name__.rpartition(".")[2] == name


def test_the_reference_documents_the_public_names_and_no_others() -> None:
    public = set(whence.__all__) - {"__version__", "errors"}  # errors are a table of the list
    assert {name.partition(".")[0] for name in documented()} >= public
    assert {name for name in documented() if "." not in name} <= public


def test_the_reference_is_what_the_docstrings_say() -> None:
    found = reference.pages()
    for path, text in found.items():
        assert path.exists(), f"{path.name}: run `make reference`"
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make reference`"
    assert set((reference.FOLDER / "api").glob("*.md")) == set(found) - {
        reference.FOLDER / "index.md"
    }


@pytest.mark.parametrize("name", documented())
def test_what_the_reference_documents_exists(name: str) -> None:
    value: object = whence
    place = "whence"
    for part in name.split("."):
        place = f"{place}.{part}"
        try:
            value = getattr(value, part)
        except AttributeError:
            assert isinstance(value, ModuleType)
            value = importlib.import_module(place)
    assert value.__doc__


def test_the_stub_is_what_the_table_says() -> None:
    assert PATH.read_text(encoding="utf-8") == stub(), "run `make stub`"


def imported() -> set[str]:
    """Return the distributions outside the standard library that src imports when it runs."""
    modules = set()
    for path in (_REPOSITORY / "src").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for_types = {
            node
            for branch in ast.walk(tree)
            if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
            for node in ast.walk(branch)
        }
        for node in set(ast.walk(tree)) - for_types:
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module or "")
            elif isinstance(node, ast.Call) and "import_module" in vars(node.func).values():
                modules |= {part.value for part in node.args if isinstance(part, ast.Constant)}
    tops = {module.partition(".")[0] for module in modules}
    tops -= {"whence", "experiments", *sys.stdlib_module_names}
    return {_DISTRIBUTIONS.get(top, top) for top in tops}


def test_dependencies_are_what_src_imports() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    project = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w.-]", each)[0].lower() for each in requirements}

    assert project["name"] == "whence-attribution"
    needed = names(project["dependencies"])
    extras = project["optional-dependencies"]
    users = extras.keys() - {"bench", "dev", "docs", "experiments"}
    optional = {name for extra in users for name in names(extras[extra])} - needed
    assert imported() - optional == needed


_NEWER = {  # than what pyproject.toml asks for, and since when it is there
    "datetime.UTC": "Python 3.11",
    "enum.StrEnum": "Python 3.11",
    "sklearn.frozen": "scikit-learn 1.6",
    "sklearn.utils._missing": "scikit-learn 1.5",
    "tomllib": "Python 3.11",
    "typing.Self": "Python 3.11",
    "typing.override": "Python 3.12",
}


def test_src_imports_nothing_newer_than_it_asks_for() -> None:
    """`make compat` runs the oldest versions; this names what they were found without."""
    for path in (_REPOSITORY / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            within = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            named = [each.name for each in getattr(node, "names", []) if hasattr(each, "asname")]
            found = {*within, *named, *(f"{module}.{name}" for module in within for name in named)}
            assert not found & _NEWER.keys(), path


def test_one_version() -> None:
    citation = (_REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {whence.__version__}" in citation
    assert "whence-attribution" in citation


# One process of the installed package says where it lies, what its public names load, and why.
_AWAY = f"""
import runpy, sys
from whence import *
print(__version__, influence.__module__, plot.__name__, attacks.__name__)
print("loaded", *[name for name in {_OPTIONAL!r} if name in sys.modules])
print(sys.modules["whence"].__file__)
sys.argv = ["whence", *"explain train.csv -t y --row 3 -o why.html --verify 2".split()]
try:
    runpy.run_module("whence", run_name="__main__", alter_sys=True)
finally:
    print("loaded", *[name for name in ("sympy", "IPython") if name in sys.modules])
"""


def test_the_wheel_works_away_from_the_repository(tmp_path: Path) -> None:
    """And its public names load nothing optional."""
    pytest.importorskip("hatchling", reason="the wheel is built by hatchling, without network")
    installed = tmp_path / "installed"
    # Builds the wheel, which alone is installed.
    install = ["install", str(_REPOSITORY), "--no-build-isolation", "--target", str(installed)]
    options = ["--no-deps", "--no-index", "--no-compile"]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *install, *options], check=True, cwd=tmp_path)
    assert (installed / "bin" / "whence").exists()
    assert (installed / "whence" / "py.typed").exists()
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X.iloc[:60, :3].assign(y=y[:60]).to_csv(tmp_path / "train.csv", index=False)
    # Without `site` no editable installation is seen, so that the repository is not importable.
    paths = os.pathsep.join([str(installed), sysconfig.get_paths()["purelib"]])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-S", "-c", _AWAY]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    _, names, where, *said, later = done.stdout.splitlines()
    assert names == later == "loaded"
    assert where.startswith(str(installed))
    assert "The model says" in "\n".join(said)
    assert whence.__version__ in (tmp_path / "why.html").read_text(encoding="utf-8")
