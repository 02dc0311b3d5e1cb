"""Break src at random places, one at a time, and see whether the nearest tests notice.

python -m tests.mutation --count 60 --seed 0

A mutation is a small change: a comparison, a sign, a constant off by one, min for max, a condition
negated, a clamp or a transpose dropped, the first argument returned. Messages and annotations are
left alone; so are seeds of random numbers and private constants with a name, such as _FEW = 8: one
more is another choice, as good, and so is whether what equals such a bound is within it. Each is
written into a copy of the tree. There the files of tests run of which a test executes the changed
function, as a run of the unbroken package has recorded, those tests first, until one fails; changes
of what importing executes run all tests of the package, those of what nothing executes none. Those
that no test notices are printed: each is a missing test, or a change that changes no answer.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a process with threads cannot be copied

import coverage
import pytest

from tests.mutants import record

_REPOSITORY = Path(__file__).resolve().parent.parent
_IMPORTED = ("matplotlib.pyplot", "pandas", "scipy.stats", "sklearn.svm")
_OURS = {"", str(_REPOSITORY), str(_REPOSITORY / "src")}
_LOG = ".log"
_REFERENCE = "tests/test_package.py::test_the_reference_is_what_the_docstrings_say"
_OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--no-header")
_TESTS = {  # of each package, beside the doctests of the file
    "adapters": (
        "tests/adapters",
        "tests/linear",
        "tests/objective",
        "tests/trees/test_model.py",
    ),
    "applications": (
        "tests/applications",
        "tests/methods/test_stopped_fits.py",
        "tests/pages/test_numbers.py",
        "tests/test_result.py",
        "tests/test_uses.py",
    ),
    "checked": (
        "tests/fuzz/test_arguments.py",
        "tests/test_calls.py",
        "tests/test_written.py",
        "tests/applications/test_label_columns.py",
        "tests/methods/test_changes.py",
        "tests/methods/test_sets.py",
    ),
    "cli": (
        "tests/test_cli.py",
        "tests/test_cli_environment.py",
        "tests/test_cli_index.py",
        "tests/test_cli_mistakes.py",
        "tests/test_cli_options.py",
        "tests/test_cli_output.py",
        "tests/test_cli_usage.py",
    ),
    "curvature": ("tests/curvature", "tests/methods/test_loose_intercepts.py"),
    "evaluation": (
        "tests/evaluation",
        "tests/applications/test_chance.py",
        "tests/applications/test_evaluate.py",
        "tests/test_uses.py",
    ),
    "explorer": ("tests/explorer",),
    "fitting": (
        "tests/fitting",
        "tests/linear",
        "tests/adapters/test_nu_machines.py",
        "tests/adapters/test_options.py",
        "tests/adapters/test_sklearn.py",
        "tests/adapters/test_survival.py",
        "tests/methods/test_leave_one_out.py",
    ),
    "index": ("tests/index",),
    "linalg": ("tests/linalg",),
    "linear": ("tests/linear", "tests/adapters/test_sklearn.py"),
    "methods": (
        "tests/methods",
        "tests/adapters/test_composed.py",
        "tests/adapters/test_refits.py",
        "tests/applications/test_diagnose.py",
        "tests/applications/test_label_errors.py",
        "tests/applications/test_together.py",
        "tests/index/test_index.py",
        "tests/test_uses.py",
        "tests/training/test_trained.py",
        "tests/trees/test_changes.py",
        "tests/trees/test_methods.py",
    ),
    "network": (
        "tests/network",
        "tests/adapters/test_architectures.py",
        "tests/adapters/test_torch.py",
        "tests/adapters/test_transformers.py",
    ),
    "objective": ("tests/objective", "tests/linear", "tests/network", "tests/fitting"),
    "pages": ("tests/pages", "tests/views", "tests/applications/test_report.py"),
    "preprocessing": (
        "tests/preprocessing",
        "tests/adapters/test_composed.py",
        "tests/adapters/test_named_folds.py",
    ),
    "sources": ("tests/sources", "tests/test_cli.py", "tests/test_cli_options.py"),
    "storage": ("tests/test_storage.py", "tests/evaluation/test_ensemble.py"),
    "training": ("tests/training", "tests/methods/test_metagradient.py"),
    "trees": ("tests/trees",),
    "views": (
        "tests/views",
        "tests/pages",
        "tests/applications/test_explain.py",
        "tests/applications/test_report.py",
        "tests/test_result.py",
        "tests/test_uses.py",
    ),
}
_SMALL = 10  # a larger whole number is mostly the size of a block, which changes no answer
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ORDERS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_OPERATIONS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}
_SWAPS = {"min": "max", "minimum": "maximum", "argmin": "argmax", "amin": "amax"}
_SWAPS |= {new: old for old, new in _SWAPS.items()}
_CLAMPS = ("clamp", "clamp_min", "clamp_max", "clip")
_NUMERIC = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)
_NOT_ARITHMETIC = (ast.Constant, ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp)


@dataclass(frozen=True)
class Mutation:
    """A change of one expression.

    Args:
        path: The file, below the repository.
        line: Where the expression starts.
        kind: What is changed, in words.
        start: The first byte of the expression.
        end: The byte after its last.
        before: The expression.
        after: What stands in its place.
    """

    path: str
    line: int
    kind: str
    start: int
    end: int
    before: str
    after: str

    @property
    def package(self) -> str:
        """The package whose tests are the nearest."""
        return Path(self.path).parts[2]

    def applied(self, source: bytes) -> bytes:
        """Return the file with the change."""
        return source[: self.start] + f"({self.after})".encode() + source[self.end :]

    def __str__(self) -> str:
        """Return where and what, in a line."""
        return f"{self.path}:{self.line}: {self.kind}: {self.before}  ->  {self.after}"


def mutations(path: Path) -> list[Mutation]:
    """Return all mutations of a file that are still Python and differ from it."""
    source = path.read_bytes()
    offsets = [0]
    for text in source.split(b"\n"):
        offsets.append(offsets[-1] + len(text) + 1)
    found = []
    for node, kind, new in _changes(ast.parse(source)):
        after = ast.unparse(new)
        before = ast.unparse(node)
        if after == before or node.end_lineno is None or node.end_col_offset is None:
            continue
        found.append(
            Mutation(
                path=path.relative_to(_REPOSITORY).as_posix(),
                line=node.lineno,
                kind=kind,
                start=offsets[node.lineno - 1] + node.col_offset,
                end=offsets[node.end_lineno - 1] + node.end_col_offset,
                before=before,
                after=after,
            )
        )
    return found


def _changes(node: ast.AST, first: str | None = None) -> Iterator[tuple[ast.expr, str, ast.expr]]:
    """Yield (expression, kind, new expression) for what can be changed at or below a node.

    Messages, annotations, seeds, named constants and what only type checkers read are left alone.
    `first` is the name of the first argument of the function around the node.
    """
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert) or _chosen(node):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.FunctionDef):
        names = [each.arg for each in node.args.args if each.arg not in ("self", "cls")]
        first = names[0] if names else None
    if isinstance(node, ast.Return) and node.value is not None and first is not None:
        yield node.value, "returns its first argument", ast.Name(first)
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield node.test, "negated condition", ast.UnaryOp(ast.Not(), node.test)
    if isinstance(node, ast.expr):
        yield from _of_expression(node)
    skipped, seeds = {"annotation", "returns", "decorator_list"}, _seeds(node)
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in skipped and child not in seeds:
                yield from _changes(child, first)


def _seeds(node: ast.AST) -> list[ast.expr | None]:
    """Return the defaults of the arguments of a function that are seeds."""
    if not isinstance(node, ast.arguments):
        return []
    ordered = [*node.posonlyargs, *node.args]
    pairs = [
        *zip(ordered[len(ordered) - len(node.defaults) :], node.defaults, strict=True),
        *zip(node.kwonlyargs, node.kw_defaults, strict=True),
    ]
    return [default for argument, default in pairs if argument.arg == "seed"]


def _chosen(node: ast.AST) -> bool:
    """Return whether a node gives a seed, or a number of many that would do as well, its name."""
    match node:
        case ast.Call(func=ast.Attribute(attr="manual_seed" | "default_rng")):
            return True
        case ast.keyword(arg="seed" | "random_state") | ast.AnnAssign(target=ast.Name(id="seed")):
            return True
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            numbers = all(isinstance(part, _NUMERIC) for part in ast.walk(value))
            return numbers and name.startswith("_") and name.isupper()
    return False


def _bounded(node: ast.AST) -> bool:
    """Return whether a named constant of the module is in an expression."""
    names = (part.id for part in ast.walk(node) if isinstance(part, ast.Name))
    return any(name.isupper() and len(name) > 1 for name in names)


def _of_expression(node: ast.expr) -> Iterator[tuple[ast.expr, str, ast.expr]]:
    """Yield the changes of one expression itself."""
    new = copy.deepcopy(node)
    match node, new:
        case ast.Compare(ops=[operator]), ast.Compare():
            if not (isinstance(operator, _ORDERS) and _bounded(node)):
                new.ops = [_COMPARISONS[type(operator)]()]
                yield node, "comparison", new
        case ast.BinOp(), ast.BinOp():
            sides = (node.left, node.right)
            texts = any(isinstance(side, _NOT_ARITHMETIC[1:]) for side in sides)
            if type(node.op) in _OPERATIONS and not texts:
                new.op = _OPERATIONS[type(node.op)]()
                yield node, "operation", new
        case ast.BoolOp(), ast.BoolOp():
            new.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield node, "and for or", new
        case ast.UnaryOp(op=ast.Not() | ast.USub()), ast.UnaryOp():
            yield node, "dropped not or minus", node.operand
        case ast.Constant(value=int(number)), ast.Constant():
            if not isinstance(number, bool) and abs(number) <= _SMALL:
                new.value = number + 1
                yield node, "off by one", new
        case ast.Call(func=ast.Attribute(attr=name)), ast.Call(func=ast.Attribute()):
            if name in _SWAPS:
                new.func.attr = _SWAPS[name]
                yield node, "min for max", new
            if name in _CLAMPS:
                owner = node.func.value
                library = isinstance(owner, ast.Name) and owner.id in ("np", "torch")
                if node.args or not library:
                    yield node, "dropped clamp", node.args[0] if library else owner
        case ast.Call(func=ast.Name(id=name)), ast.Call(func=ast.Name()):
            if name in _SWAPS:
                new.func.id = _SWAPS[name]
                yield node, "min for max", new
        case ast.Attribute(attr="T" | "mT"), ast.Attribute():
            yield node, "dropped transpose", node.value


class Chosen:
    """A plugin of pytest: some files, and in each the named tests before the others."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.tests = frozenset(tests)

    def pytest_configure(self) -> None:
        """A failure is enough: hypothesis need not look for a smaller example of it."""
        hypothesis = importlib.import_module("hypothesis")  # here, so that pytest can rewrite it
        phases = hypothesis.Phase.explicit, hypothesis.Phase.generate
        hypothesis.settings.register_profile("once", hypothesis.settings(), phases=phases)
        hypothesis.settings.load_profile("once")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: item.nodeid not in self.tests)  # stable: files as they come


def run(tree: Path, arguments: Sequence[str], timeout: float, tests: Sequence[str] = ()) -> int:
    """Return the exit status of tests in a tree, minus a signal if they take too long.

    They run in a copy of this process, which has imported all but whence and its tests.
    """
    process = os.fork()
    if not process:
        code = 99
        try:
            os.setsid()  # so that the workers of a test are stopped with it
            os.chdir(tree)
            sys.path[:] = [str(tree / "src"), str(tree), *(p for p in sys.path if p not in _OURS)]
            sys.modules.pop("tests", None)
            os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            sys.dont_write_bytecode = True  # a stale file of the same size would hide a mutation
            with (tree / _LOG).open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            code = int(pytest.main([*_OPTIONS, *arguments], plugins=[Chosen(tests)]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    late = threading.Timer(timeout, os.killpg, (process, signal.SIGKILL))
    late.start()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    finally:
        late.cancel()
        late.join()


@dataclass(frozen=True)
class Executed:
    """Which tests execute which lines of a tree, as an unbroken run recorded."""

    tree: Path
    data: coverage.CoverageData

    @classmethod
    def by(cls, package: str, tree: Path) -> Executed:
        """Run the tests of a package and record them."""
        path = tree / f".coverage-{package}"
        os.environ["COVERAGE_FILE"] = str(path)
        recorded = ["--cov=whence", "--cov-context=test", "--cov-report="]
        if run(tree, [*recorded, *_TESTS[package], f"src/whence/{package}"], 3600):
            sys.exit(f"The tests of {package} fail unbroken:\n{(tree / _LOG).read_text()}")
        data = coverage.CoverageData(str(path))
        data.read()
        return cls(tree, data)

    def tests(self, mutation: Mutation) -> list[str] | None:
        """Return the tests that execute the expression, else its function.

        None of them where importing does; `None` where nothing does.
        """
        contexts = self.data.contexts_by_lineno(str(self.tree / mutation.path))
        source = (self.tree / mutation.path).read_bytes()
        lines = [(mutation.line, mutation.line + mutation.before.count("\n"))]
        lines += [
            (node.body[0].lineno, node.end_lineno or 0)
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef)
            and node.body[0].lineno <= mutation.line <= (node.end_lineno or 0)
        ]
        imported = False
        for first, last in lines:
            names = {name for n in range(first, last + 1) for name in contexts.get(n, ())}
            if found := sorted({name.rpartition("|")[0] for name in names if name}):
                return found
            imported |= "" in names  # what is executed outside of tests
        return [] if imported else None


def noticed(tree: Path, mutation: Mutation, executed: Executed, timeout: float) -> str:
    """Return "caught", "timeout" or "survived" for a mutation written into a tree."""
    tests = executed.tests(mutation)
    if tests is None:
        return "survived"
    every = sorted({test.partition("::")[0] for test in tests})
    near = f"test_{Path(mutation.path).stem}.py"
    files = sorted(every, key=lambda name: (Path(name).name != near, name != mutation.path))
    if not files:  # of the arguments of public functions the reference shows the defaults
        files = [mutation.path, _REFERENCE, *_TESTS[mutation.package]]
        files.append(f"src/whence/{mutation.package}")
    file = tree / mutation.path
    source = file.read_bytes()
    try:
        file.write_bytes(mutation.applied(source))
        status = run(tree, files, timeout, tests)
    finally:
        file.write_bytes(source)
    return "timeout" if status == -signal.SIGKILL else "caught" if status else "survived"


def sampled(packages: Sequence[str], count: int, seed: int) -> list[Mutation]:
    """Return so many mutations of the packages, drawn without replacement."""
    folders = [_REPOSITORY / "src" / "whence" / package for package in packages]
    every = [
        m for folder in folders for file in sorted(folder.rglob("*.py")) for m in mutations(file)
    ]
    return random.Random(seed).sample(every, min(count, len(every)))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--packages", nargs="+", choices=sorted(_TESTS), default=sorted(_TESTS))
    parser.add_argument("--only", choices=sorted(_TESTS), help="try those drawn in this package")
    parser.add_argument("--list", action="store_true", help="print the mutations and stop")
    parser.add_argument("--record", action="store_true", help="write into tests/mutants.json")
    asked = parser.parse_args()
    drawn = sampled(asked.packages, asked.count, asked.seed)
    drawn = [m for m in drawn if asked.only in (None, m.package)]
    if asked.list:
        print(*drawn, sep="\n")
        return
    for name in (*_IMPORTED, "torch.func"):
        importlib.import_module(name)  # so that the copies of this process need not
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve() / "tree"
        ignored = shutil.ignore_patterns(".*", "__pycache__", "site", "dist", "*.png")
        shutil.copytree(_REPOSITORY, tree, ignore=ignored)
        known = {}
        for mutation in drawn:
            package = mutation.package
            if package not in known:
                start = time.perf_counter()
                executed = Executed.by(package, tree)
                known[package] = executed, 60 + 3 * (time.perf_counter() - start)
                print(f"{package}: {time.perf_counter() - start:.0f} s unbroken", flush=True)
            verdicts.append(noticed(tree, mutation, *known[package]))
            print(f"{verdicts[-1]:8}  {mutation}", flush=True)
    survivors = [m for m, v in zip(drawn, verdicts, strict=True) if v == "survived"]
    print(
        f"\n{len(survivors)} survived:" if survivors else "\nnone survived", *survivors, sep="\n  "
    )
    caught = len(drawn) - len(survivors)
    late = verdicts.count("timeout")
    print(f"{caught} of {len(drawn)} caught ({caught / len(drawn):.0%}), {late} by their time")
    for package in known if asked.record else ():
        record(
            package,
            asked.seed,
            sum(m.package == package for m in drawn),
            [str(m) for m in survivors if m.package == package],
        )


if __name__ == "__main__":
    main()
