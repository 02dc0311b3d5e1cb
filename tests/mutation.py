"""Break src at random places, one at a time, and see whether the nearest tests notice.

python -m tests.mutation --count 60 --seed 0 --jobs 1

A mutation is a small change: a comparison, a sign, a constant off by one, min for max, a condition
negated, a clamp or a transpose dropped, the first argument returned. Each is written into a copy of
the tree, in which the tests of its package and the doctests of its file run until one fails. Those
that no test notices are printed: each is a missing test, or a change that changes no answer.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_REPOSITORY = Path(__file__).parent.parent
_TESTS = {  # of each package, beside the doctests of the file
    "applications": ("tests/applications",),
    "curvature": ("tests/curvature",),
    "fitting": ("tests/fitting", "tests/linear", "tests/methods/test_leave_one_out.py"),
    "linalg": ("tests/linalg",),
    "linear": ("tests/linear", "tests/adapters/test_sklearn.py"),
    "methods": ("tests/methods",),
    "network": ("tests/network", "tests/adapters/test_torch.py"),
    "objective": ("tests/objective", "tests/linear", "tests/network"),
    "training": ("tests/training", "tests/methods/test_metagradient.py"),
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
_OPERATIONS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}
_SWAPS = {"min": "max", "minimum": "maximum", "argmin": "argmax", "amin": "amax"}
_SWAPS |= {new: old for old, new in _SWAPS.items()}
_CLAMPS = ("clamp", "clamp_min", "clamp_max", "clip")
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

    Messages, annotations and what only type checkers read are left alone. `first` is the name of
    the first argument of the function around the node.
    """
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert):
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
    skipped = {"annotation", "returns", "decorator_list"}
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in skipped:
                yield from _changes(child, first)


def _of_expression(node: ast.expr) -> Iterator[tuple[ast.expr, str, ast.expr]]:
    """Yield the changes of one expression itself."""
    new = copy.deepcopy(node)
    match node, new:
        case ast.Compare(ops=[operator]), ast.Compare():
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


def command(package: str, path: str | None = None) -> list[str]:
    """Return what runs the tests of a package, those nearest to a file first."""
    tests = list(_TESTS[package])
    if path is None:
        tests.append(f"src/whence/{package}")
    else:
        near = f"tests/{package}/test_{Path(path).stem}.py"
        tests = [*([near] if (_REPOSITORY / near).exists() else []), path, *tests]
    options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--no-header"]
    return [sys.executable, "-m", "pytest", *options, *tests]


def run(tree: Path, arguments: Sequence[str], timeout: float) -> int | None:
    """Return the exit status of tests in a tree; `None` if they take longer than the timeout."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",  # a stale file of the same size would hide a mutation
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        arguments,
        cwd=tree,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that the workers of a test are stopped with it
    )
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def noticed(tree: Path, mutation: Mutation, timeout: float) -> str:
    """Return "caught", "timeout" or "survived" for a mutation written into a tree."""
    file = tree / mutation.path
    source = file.read_bytes()
    try:
        file.write_bytes(mutation.applied(source))
        status = run(tree, command(mutation.package, mutation.path), timeout)
    finally:
        file.write_bytes(source)
    return "timeout" if status is None else "caught" if status else "survived"


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
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--packages", nargs="+", choices=sorted(_TESTS), default=sorted(_TESTS))
    parser.add_argument("--list", action="store_true", help="print the mutations and stop")
    asked = parser.parse_args()
    drawn = sampled(asked.packages, asked.count, asked.seed)
    if asked.list:
        print(*drawn, sep="\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        trees: queue.Queue[Path] = queue.Queue()
        ignored = shutil.ignore_patterns(".*", "__pycache__", "site", "dist", "*.png")
        for job in range(asked.jobs):
            tree = Path(folder) / str(job)
            shutil.copytree(_REPOSITORY, tree, ignore=ignored)
            trees.put(tree)
        limits = {}
        for package in sorted({mutation.package for mutation in drawn}):
            start = time.perf_counter()
            if run(Path(folder) / "0", command(package), 3600):
                sys.exit(f"The tests of {package} fail without a mutation: {command(package)}")
            limits[package] = 60 + 3 * (time.perf_counter() - start)
            print(f"{package}: {time.perf_counter() - start:.0f} s unbroken", flush=True)

        def judge(mutation: Mutation) -> str:
            tree = trees.get()
            try:
                verdict = noticed(tree, mutation, limits[mutation.package])
            finally:
                trees.put(tree)
            print(f"{verdict:8}  {mutation}", flush=True)
            return verdict

        with ThreadPoolExecutor(asked.jobs) as pool:
            verdicts = list(pool.map(judge, drawn))
    survivors = [m for m, v in zip(drawn, verdicts, strict=True) if v == "survived"]
    print(
        f"\n{len(survivors)} survived:" if survivors else "\nnone survived", *survivors, sep="\n  "
    )
    caught = len(drawn) - len(survivors)
    late = verdicts.count("timeout")
    print(f"{caught} of {len(drawn)} caught ({caught / len(drawn):.0%}), {late} by their time")


if __name__ == "__main__":
    main()
