"""The claims of README and site, each with the file its numbers come from and the command for it.

A claim is a text with gaps; its numbers are computed from committed results. The filled text
stands in the page word for word: `tests/test_evidence.py` holds it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from release.build import ROOT

_PEERS = "python -m benchmarks peers"
_EK = "EK-FAC"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim.

    Args:
        page: The page it stands on, from the root of the repository.
        text: What it says; `{}` where a number stands.
        numbers: Returns the numbers, as they are written.
        sources: The files that they come from; none for what a test holds.
        section: The name of the marker after which the command wrote them, of a source that has
            other parts; all of it if "".
        command: The command that proves it.
    """

    page: str
    text: str
    command: str
    numbers: Callable[[], tuple[str, ...]] = tuple
    sources: tuple[str, ...] = ()
    section: str = ""

    def filled(self) -> str:
        """Return the text with the numbers of the committed results."""
        return self.text.format(*self.numbers())


@cache
def lines(workload: int) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the rows of a workload by library, method and queries."""
    path = ROOT / f"benchmarks/results/w{workload}.jsonl"
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {(row["library"], row["method"], row["queries"]): row for row in rows}


@cache
def content(path: str) -> Any:
    """Return a committed JSON file."""
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


def seconds(workload: int, *name: str) -> float:
    """Return the preparation and the query of a row, in seconds."""
    row = lines(workload)[name[0], name[1], name[2]]
    return float(row["prepare_s"] + row["query_s"])


def accuracy(workload: int, *name: str, of: str) -> float:
    """Return a measure of a row."""
    return float(lines(workload)[name[0], name[1], name[2]]["accuracy"][of])


def short(value: float) -> str:
    """Return seconds in two figures."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def times(value: float) -> str:
    """Return a ratio in two figures."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def error(value: float) -> str:
    """Return an error in one figure."""
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e-{int(exponent[1:])}"


def _w1(queries: str) -> tuple[float, float]:
    ours = "whence", "exact", queries
    return seconds(1, *ours), accuracy(1, *ours, of="relative error")


def _one_query() -> tuple[str, ...]:
    mine, off = _w1("1 query")
    within = [
        seconds(1, *name)
        for name, row in lines(1).items()
        if name[0] != "whence"
        and name[2] == "1 query"
        and row["accuracy"].get("relative error", 1) < 1e-3
    ]
    return f"{mine:.1f}", error(off), times(min(within) / mine)


def _hundred() -> tuple[str, ...]:
    mine, off = _w1("100 queries")
    within = [
        seconds(1, *name)
        for name, row in lines(1).items()
        if name[0] != "whence"
        and name[2] == "100 queries"
        and row["accuracy"].get("relative error", 1) < 0.2
    ]
    return f"{mine:.1f}", error(off), times(min(within) / mine)


def _thousand() -> tuple[str, ...]:
    _, off = _w1("1,000 queries")
    memory = lines(1)["whence", "exact", "1,000 queries"]["peak_mb"] / 1000
    there = "kronfluence", _EK, "1,000 queries"
    return (
        error(off),
        f"{memory:.1f}",
        f"{seconds(1, *there):.1f}",
        f"{accuracy(1, *there, of='pearson'):.2f}",
    )


def _mlp() -> tuple[str, ...]:
    mine, there = ("whence", "EKFAC", "200 queries"), ("curvlinops", _EK, "200 queries")
    return (
        f"{seconds(2, *mine):.1f}",
        f"{accuracy(2, *mine, of='LDS'):.3f}",
        times(seconds(2, *there) / seconds(2, *mine)),
        f"{accuracy(2, *there, of='LDS'):.3f}",
    )


def _source() -> tuple[str, ...]:
    mine = "whence", "SOURCE, 3 segments", "200 queries"
    others = [
        row["accuracy"]["LDS"]
        for name, row in lines(2).items()
        if name[0] != "whence" and "LDS" in row["accuracy"]
    ]
    lds = accuracy(2, *mine, of="LDS")
    return f"{seconds(2, *mine):.0f}", f"{lds:.3f}", f"{max(others):.3f}"


def _leave_one_out() -> tuple[str, ...]:
    rows = lines(5)
    ours, theirs = (
        rows["whence", "leave-one-out", "leave one out"],
        rows["sklearn", "warm refits", "leave one out"],
    )
    each = [(row["prepare_s"] + row["query_s"]) / row["n_queries"] for row in (ours, theirs)]
    whole = ours["prepare_s"] + ours["query_s"]
    return f"{ours['n_queries']}", f"{whole:.0f}", times(each[1] / each[0])


def _gpt(method: str) -> tuple[str, ...]:
    mine = seconds(3, "whence", method, "50 queries")
    there = {
        "EKFAC": ("kronfluence", "EK-FAC, sequences"),
        "projected": ("bergson", "projected-16"),
    }
    other = seconds(3, *there[method], "50 queries")
    found = [short(mine), times(other / mine)]
    if method == "projected":
        linear = seconds(3, "whence", "projected, linear layers", "50 queries")
        found += [f"{linear:.1f}", times(other / linear)]
    return tuple(found)


def _mails() -> tuple[str, ...]:
    mine = min(seconds(4, "whence", "self-influence", f"flips {i}") for i in range(3))
    return (f"{mine:.1f}",)


def _labels() -> tuple[str, ...]:
    rows = [lines(4)["whence", "label errors", f"flips {i}"] for i in range(3)]
    theirs = [lines(4)["cleanlab", "label quality", f"flips {i}"] for i in range(3)]

    def mean(of: list[dict[str, Any]], share: int) -> float:
        return 100 * sum(row["accuracy"][f"found at {share}%"] for row in of) / len(of)

    def took(of: list[dict[str, Any]]) -> float:
        return sum(row["prepare_s"] + row["query_s"] for row in of) / len(of)

    found = [f"{mean(rows, 10):.0f}", f"{mean(rows, 20):.0f}", f"{mean(rows, 30):.1f}"]
    other = [f"{mean(theirs, share):.0f}" for share in (10, 20, 30)]
    return f"{took(rows):.1f}", *found, *other, f"{took(theirs):.0f}"


def _orders(at: int) -> tuple[str, ...]:
    row = content("benchmarks/results/orders.json")["logistic"][at]
    parts = [row[name] for name in ("first", "newton", "refined")]
    pairs = [
        f"{part[key]:{form}}" for part in parts for key, form in (("R", ".4f"), ("slope", ".3f"))
    ]
    return (row["data"], *pairs, f"{row['leave_one_out']:.0e}")


def _interval(at: int) -> tuple[str, ...]:
    row = content("benchmarks/results/intervals.json")[at]
    width = f"{100 * row['median half width']:.1f}"
    return row["pipeline"], str(row["effects"]), f"{row['refits inside']:.0%}", width


_FLIPPED = "benchmarks/results/label_detection.json"
_RANKINGS = (
    "held-out loss, best",
    "held-out loss, fitted",
    "self-influence, fitted",
    "loss, fitted",
)
_LABELED = {  # a row of the page, and what the command calls it
    "Enron, 1,200 mails, 1e-4 (too weak)": "Enron, 1,200 mails, too weak",
    "Enron, 1,200 mails, 1e-2": "Enron, 1,200 mails, well chosen",
    "digits, 1e-5 (too weak)": "digits, too weak",
    "digits, 1e-2": "digits, well chosen",
    "breast cancer, 1e-5 (too weak)": "breast cancer, too weak",
    "breast cancer, 1e-2": "breast cancer, well chosen",
}


def _found(data: str) -> list[list[float]]:
    """Return the shares of flipped labels that four rankings find, [4, 3]."""
    shares = {row["ranking"]: row["found"] for row in content(_FLIPPED) if row["data"] == data}
    return [shares[ranking] for ranking in _RANKINGS]


def _found_row(name: str) -> tuple[str, ...]:
    """Return a row of the page, the first of the largest first shares in bold."""
    rows = _found(_LABELED[name])
    best = max(range(len(rows)), key=lambda at: rows[at][0])
    cells = [[f"{share:.3f}" for share in row] for row in rows]
    cells[best][0] = f"**{cells[best][0]}**"
    return name, *(" ".join(cell) for cell in cells)


def _found_first() -> tuple[str, ...]:
    best, fitted, *_ = _found("Enron, 1,200 mails, too weak")
    return f"{best[0]:.0%}".replace("%", " %"), f"{fitted[0]:.0%}".replace("%", " %")


def _measured(of: Callable[[str], bool], order: str) -> float:
    """Return the least R of an order over the problems, of the measures of a kind."""
    problems = content("benchmarks/results/measures.json").values()
    return min(
        orders[order]["R"]
        for measures in problems
        if isinstance(measures, dict)
        for name, orders in measures.items()
        if isinstance(orders, dict) and of(name)
    )


def _smooth_and_ranks() -> tuple[str, ...]:
    def ranks(name: str) -> bool:
        return name == "AUROC"

    def smooth(name: str) -> bool:
        return not ranks(name)

    return (
        _at_least(_measured(smooth, "first"), 3),
        _at_least(_measured(ranks, "first"), 3),
        _at_least(_measured(smooth, "newton"), 4),
        _at_least(_measured(ranks, "newton"), 3),
    )


def _at_least(value: float, digits: int) -> str:
    """Return a number rounded down."""
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"


def _clicks() -> tuple[str, ...]:
    rows = content("benchmarks/results/clicks.json")
    plain, scaled = rows["plain"], rows["scaled"]
    each = "click, median, s", "click, slowest of 20, s"
    return (
        f"{1e3 * plain[each[0]]:.1f}",
        *(f"{1e3 * row[key]:.0f}" for row, key in ((plain, each[1]), (scaled, each[0]))),
        f"{1e3 * scaled[each[1]]:.0f}",
    )


def _peer(text: str, numbers: Callable[[], tuple[str, ...]], workload: int) -> Claim:
    return Claim(
        page="docs/explanation/cost.md",
        text=text,
        numbers=numbers,
        sources=(f"benchmarks/results/w{workload}.jsonl",),
        command=f"{_PEERS} w{workload}",
    )


def _tested(page: str, text: str, test: str) -> Claim:
    return Claim(page=page, text=text, command=f"python -m pytest {test}")


CLAIMS: tuple[Claim, ...] = (
    *(
        Claim(
            page="docs/explanation/cost.md",
            text="| {} | {}, {} | {}, {} | {}, {} | {} |",
            numbers=partial(_orders, at),
            sources=("benchmarks/results/orders.json",),
            command="python -m benchmarks.orders",
        )
        for at in range(3)
    ),
    Claim(
        page="docs/explanation/cost.md",
        text="newton less refitting is {} of the change at most",
        numbers=lambda: (
            f"{max(_leaves(content('benchmarks/results/orders.json')['ridge'])):.0e}",
        ),
        sources=("benchmarks/results/orders.json",),
        command="python -m benchmarks.orders",
    ),
    _peer("{} s | relative error {}; the next within 1e-3 takes {} × as long", _one_query, 1),
    _peer("{} s | relative error {}; the next within 0.2 takes {} × as long", _hundred, 1),
    _peer(
        "relative error {}, in {} GB; the fastest EK-FAC elsewhere takes {} s for Pearson {}",
        _thousand,
        1,
    ),
    _peer("Hessian and factor included | {} s |", lambda: (f"{_w1('1,000 queries')[0]:.1f}",), 1),
    _peer("by `EKFAC` | {} s | LDS {}; the next EK-FAC takes {} × as long for {}", _mlp, 2),
    _peer("its training included | {} s | LDS {}; the best elsewhere {}", _source, 2),
    _peer(
        "{} leave-one-out retrainings to gradient norm 1e-10 | {} s | {} × as fast as scikit-learn",
        _leave_one_out,
        5,
    ),
    _peer("by `EKFAC` | {} s | {} × as fast as the next EK-FAC", lambda: _gpt("EKFAC"), 3),
    _peer(
        "all parameters | {} s | {} × as fast as the next, which covers the linear layers; "
        "for those alone {} s, {} ×",
        lambda: _gpt("projected"),
        3,
    ),
    _peer("never dense | {} s |", _mails, 4),
    _peer(
        "{} s | {} / {} / {} % found in the first 10 / 20 / 30 %; cleanlab {} / {} / {} % in {} s",
        _labels,
        4,
    ),
    Claim(
        page="docs/explanation/cost.md",
        text="takes {} × its floating-point operations at that rate",
        numbers=lambda: (f"{content('benchmarks/results/products.json')['times the floor']:.1f}",),
        sources=("benchmarks/results/products.json",),
        command="python -m benchmarks.products",
    ),
    *(
        Claim(
            page="docs/how-to/diagnostics.md",
            text="| {} | {} | {} | {} % |",
            numbers=partial(_interval, at),
            sources=("benchmarks/results/intervals.json",),
            command="python -m benchmarks.intervals",
        )
        for at in range(len(content("benchmarks/results/intervals.json")))
    ),
    *(
        Claim(
            page="docs/how-to/labels.md",
            text="| {} | {} | {} | {} | {} |",
            numbers=partial(_found_row, name),
            sources=(_FLIPPED,),
            command="python -m experiments.label_detection",
        )
        for name in _LABELED
    ),
    Claim(
        page="docs/reference/api/find_label_errors.md",
        text="holds {} of the flips instead of {}",
        numbers=_found_first,
        sources=(_FLIPPED,),
        command="python -m experiments.label_detection",
    ),
    Claim(
        page="docs/how-to/measures.md",
        text="agree with first order at R {} or better for smooth measures and {} for the AUROC; "
        'with `order="newton"` at {} and {}',
        numbers=_smooth_and_ranks,
        sources=("benchmarks/results/measures.json",),
        command="python -m benchmarks.measures",
    ),
    Claim(
        page="docs/how-to/explore.md",
        text="in {} ms (median of 20; {} ms at most), with a `StandardScaler` before it in {} ms "
        "({} ms at most)",
        numbers=_clicks,
        sources=("benchmarks/results/clicks.json",),
        command="python -m benchmarks.clicks",
    ),
    Claim(
        page="docs/explanation/cost.md",
        text="All influences of 55,000 MNIST rows on one query take about {} on two cores, "
        "on 1,000 queries {}",
        numbers=lambda: tuple(_words(_w1(of)[0]) for of in ("1 query", "1,000 queries")),
        sources=("benchmarks/results/w1.jsonl",),
        command=f"{_PEERS} w1",
    ),
    _tested(
        "README.md",
        "predicted vs retrained on 20 removals: R = 1.0000, slope = 1.000",
        "tests/test_documentation.py",
    ),
    _tested(
        "docs/explanation/cost.md",
        "a score is the predicted change of the query's loss, in nats, if the training example is "
        "removed",
        "tests/methods/test_leave_one_out.py tests/methods/test_influence.py",
    ),
    _tested(
        "docs/explanation/reliability.md",
        "The tests flip every bit of small files and 2,000 of larger ones, and cut them to every",
        "tests/test_storage.py tests/training/test_run.py tests/fuzz/test_files.py",
    ),
    Claim(
        page="docs/explanation/reliability.md",
        text="Violations: 0.",
        command="make crash",
        sources=("docs/explanation/reliability.md",),
        section="make crash",
    ),
    Claim(
        page="docs/explanation/reliability.md",
        text="differences above 1e-9 of the largest score: 0.",
        command="make threads",
        sources=("docs/explanation/reliability.md",),
        section="threads",
    ),
    _tested(
        "docs/explanation/reliability.md",
        "compare every solver, method, training, index and page with the CPU",
        "tests/network/test_devices.py",
    ),
    Claim(
        page="docs/explanation/versions.md",
        text="| checks that hold |",
        command="make compat",
        sources=("benchmarks/results/compat.json",),
    ),
    _tested(
        "SECURITY.md",
        "a model file (`--model`) | read only with `--trust`",
        "tests/test_security.py",
    ),
    _tested("SECURITY.md", "nothing is unpickled", "tests/test_storage.py"),
    _tested(
        "SECURITY.md",
        "escaped on every page; a page loads nothing from elsewhere",
        "tests/pages tests/test_security.py",
    ),
    _tested(
        "docs/how-to/models.md",
        "python -m tests.models_table",
        "tests/adapters/test_models_table.py",
    ),
)

# Pages whose numbers are all written by one command from committed files.
GENERATED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "docs/explanation/benchmarks.md",
        "make bench",
        tuple(f"benchmarks/results/w{i}.jsonl" for i in range(1, 7)),
    ),
    (
        "docs/explanation/leaderboard.md",
        "python -m benchmarks.attribution",
        tuple(
            f"benchmarks/attribution/results/{name}.json"
            for name in ("logistic", "digits", "mlp", "smooth-mlp", "cnn", "resnet", "gpt")
        ),
    ),
    (
        "docs/explanation/methods/kronecker.md",
        "python -m benchmarks.attribution.eigenvalues",
        ("benchmarks/attribution/results/eigenvalues.json",),
    ),
    (
        "docs/explanation/methods/kronecker.md",
        "python -m benchmarks.attribution.damping",
        ("benchmarks/attribution/results/damping.json",),
    ),
    (
        "docs/explanation/methods/trees.md",
        "python -m benchmarks.trees_page",
        (
            "benchmarks/results/w7.jsonl",
            "benchmarks/results/w7_labels.jsonl",
            "benchmarks/results/w7_tree_influence.jsonl",
        ),
    ),
    (
        "docs/how-to/index-on-disk.md",
        "python -m benchmarks.index",
        ("benchmarks/results/index.json",),
    ),
    (
        "docs/how-to/transformers.md",
        "python -m benchmarks.facts",
        ("benchmarks/results/facts.json",),
    ),
    ("docs/explanation/reliability.md", "python -m tests.mutants", ("tests/mutants.json",)),
    ("docs/how-to/models.md", "python -m tests.models_table", ("tests/models_table.py",)),
    ("docs/reference/cli.md", "make docs", ("src/whence/cli/__init__.py",)),
    (
        "experiments/koh_liang_2017/README.md",
        "make paper",
        tuple(
            f"experiments/koh_liang_2017/results/{name}.json"
            for name in (
                "a",
                "f1",
                "f2a",
                "f2b",
                "f2c",
                "f3",
                "f4",
                "f5a",
                "f5b",
                "f5c",
                "f5d",
                "s53",
                "s54",
            )
        ),
    ),
)


def _words(value: float) -> str:
    """Return seconds as a sentence says them."""
    return {1: "a second", 10: "ten"}.get(round(round(value, 1)), f"{value:.0f} seconds")


def _leaves(value: Any) -> list[float]:
    """Return the numbers in a nesting of lists and dicts."""
    if isinstance(value, dict):
        return [leaf for each in value.values() for leaf in _leaves(each)]
    if isinstance(value, list):
        return [leaf for each in value for leaf in _leaves(each)]
    return [float(value)] if isinstance(value, int | float) else []
