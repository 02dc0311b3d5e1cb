"""What whence promises about speed beside its peers, checked on the rows of one run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from benchmarks.rows import Row

EKFAC = ("EK-FAC", "EKFAC")
PROJECTED = ("LoGra, sequences", "projected-16")


@dataclass(frozen=True)
class Bar:
    """A promise and what was measured; `held` is `None` where rows are missing."""

    text: str
    wanted: str
    measured: str
    held: bool | None


def pick(
    rows: Iterable[Row],
    queries: str,
    *,
    own: bool,
    methods: Sequence[str] | None = None,
    error: float | None = None,
) -> list[Row]:
    """Return rows that ended well: whence's own or its peers', some methods, or accurate ones."""
    return [
        row
        for row in rows
        if row.status == "ok"
        and row.queries == queries
        and (row.library == "whence") == own
        and (methods is None or row.method in methods)
        and (error is None or row.accuracy.get("relative error", float("inf")) <= error)
    ]


def fastest(rows: Sequence[Row]) -> Row | None:
    """Return the row with the least time in all."""
    return min(rows, key=lambda row: row.seconds, default=None)


def times_faster(text: str, ours: Row | None, theirs: Row | None, factor: float) -> Bar:
    """Check that a row of ours takes at most 1/factor of the time of theirs."""
    wanted = f"≥ {factor:g} ×"
    if ours is None:
        return Bar(text, wanted, "not measured", None)
    if theirs is None:
        return Bar(text, wanted, f"{ours.seconds:.2f} s; no such peer finished", True)
    ratio = theirs.seconds / ours.seconds
    words = f"{ratio:.2g} × ({ours.seconds:.2f} s; {theirs.library} {theirs.method} "
    return Bar(text, wanted, words + f"{theirs.seconds:.2f} s)", ratio >= factor)


def w1(rows: Sequence[Row]) -> list[Bar]:
    """Exact answers at approximate prices."""

    def own(queries: str, method: str) -> Row | None:
        return fastest(pick(rows, queries, own=True, methods=[method]))

    def peer(queries: str, error: float) -> Row | None:
        return fastest(pick(rows, queries, own=False, error=error))

    bars = [
        times_faster(
            "1 query, exact, against any peer within 1e-3",
            own("1 query", "exact"),
            peer("1 query", 1e-3),
            3,
        ),
        times_faster(
            "1 query, exact, against any peer within 0.2",
            own("1 query", "exact"),
            peer("1 query", 0.2),
            1,
        ),
        times_faster(
            "100 queries, exact, against any peer within 0.2",
            own("100 queries", "exact"),
            peer("100 queries", 0.2),
            5,
        ),
        times_faster(
            "1,000 queries, exact, against the fastest EK-FAC peer",
            own("1,000 queries", "exact"),
            fastest(pick(rows, "1,000 queries", own=False, methods=EKFAC)),
            0.5,
        ),
    ]
    for queries in ("1 query", "100 queries", "1,000 queries"):
        theirs = fastest(pick(rows, queries, own=False, methods=EKFAC))
        text = f"{queries}, EKFAC, against the fastest EK-FAC peer"
        bars.append(times_faster(text, own(queries, "EKFAC"), theirs, 2))
    exact = [row for row in rows if row.library == "whence" and row.method == "exact"]
    errors = [row.accuracy["relative error"] for row in exact if "relative error" in row.accuracy]
    peaks = [row.peak_mb for row in exact if row.peak_mb is not None]
    if errors and peaks:
        worst, peak = max(errors), max(peaks)
        bars.append(Bar("exact: relative error", "≤ 1e-4", f"{worst:.1e}", worst <= 1e-4))
        bars.append(Bar("exact: peak memory", "≤ 1.6 GB", f"{peak / 1000:.2f} GB", peak <= 1600))
    return bars


def w2(rows: Sequence[Row]) -> list[Bar]:
    """EKFAC faster and no less accurate; the best method the most accurate of all."""
    queries = "200 queries"
    ours = fastest(pick(rows, queries, own=True, methods=["EKFAC"]))
    theirs = pick(rows, queries, own=False, methods=EKFAC)
    quick = fastest(theirs)
    best = max(theirs, key=lambda row: row.accuracy["LDS"], default=None)
    bars = [
        times_faster("EKFAC against the fastest peer's EK-FAC", ours, quick, 5),
        times_faster("EKFAC against the most accurate peer's EK-FAC", ours, best, 20),
    ]
    if ours is not None and best is not None:
        # As printed: the fourth digit is rounding.
        low, high = (round(row.accuracy["LDS"], 3) for row in (ours, best))
        words = f"{low:.3f} against {high:.3f} ({best.library})"
        bars.append(
            Bar("EKFAC's LDS against the best EK-FAC peer's", "not below", words, low >= high)
        )
    own = max(pick(rows, queries, own=True), key=lambda row: row.accuracy["LDS"], default=None)
    peer = max(pick(rows, queries, own=False), key=lambda row: row.accuracy["LDS"], default=None)
    if own is not None and peer is not None:
        words = (
            f"{own.accuracy['LDS']:.3f} [{own.accuracy['low']:.3f}, {own.accuracy['high']:.3f}] "
            f"({own.method}) against {peer.accuracy['LDS']:.3f} ({peer.library} {peer.method})"
        )
        held = own.accuracy["low"] > peer.accuracy["LDS"]
        bars.append(Bar("best LDS of whence against best of all peers", "above", words, held))
    return bars


def w4(rows: Sequence[Row]) -> list[Bar]:
    """Self-influence of sparse rows, and the flipped labels it finds."""
    means = mean_rows(rows)
    ours = [row for row in means if row.library == "whence"]
    quick = fastest([row for row in ours if row.method == "self-influence"])
    slowest = max(
        (row for row in means if row.library != "whence"), key=lambda row: row.seconds, default=None
    )
    bars = [times_faster("self-influence against the slowest peer", quick, slowest, 10)]
    clean = next((row for row in means if row.library == "cleanlab"), None)
    if clean is None or not ours:
        return bars
    best = max(ours, key=lambda row: sum(row.accuracy.values()))  # one ranking for all shares
    bars.append(times_faster(f"{best.method} against cleanlab", best, clean, 1))
    for name, value in clean.accuracy.items():
        words = f"{best.accuracy[name]:.3f} ({best.method}) against {value:.3f}"
        held = best.accuracy[name] >= value
        bars.append(Bar(f"flips {name} checked, against cleanlab", "not below", words, held))
    return bars


def w5(rows: Sequence[Row]) -> list[Bar]:
    """Retraining against the plain loop, per retraining."""
    bars = []
    for queries, factor in (("leave one out", 10.0), ("halves", 1.5)):
        ours = fastest(pick(rows, queries, own=True))
        theirs = fastest(pick(rows, queries, own=False))
        text = f"{queries}, per retraining, against one after another"
        if ours is None or theirs is None:
            bars.append(Bar(text, f"≥ {factor:g} ×", "not measured", None))
            continue
        each, loop = each_of(ours), each_of(theirs)
        words = f"{loop / each:.2g} × ({each:.3f} s; {theirs.library} {loop:.3f} s)"
        bars.append(Bar(text, f"≥ {factor:g} ×", words, loop / each >= factor))
    return bars


def each_of(row: Row) -> float:
    """Return the query's seconds for each retraining."""
    return (row.query_s or 0.0) / max(row.n_queries, 1)


def mean_rows(rows: Sequence[Row]) -> list[Row]:
    """Return one row per method that ended well on all sets, its numbers the means."""
    means = []
    for key in dict.fromkeys((row.library, row.method) for row in rows):
        group = [row for row in rows if (row.library, row.method) == key]
        if any(row.status != "ok" for row in group):
            continue
        n = len(group)
        means.append(
            replace(
                group[0],
                queries=f"mean of {n}",
                prepare_s=sum(row.prepare_s or 0.0 for row in group) / n,
                query_s=sum(row.query_s or 0.0 for row in group) / n,
                peak_mb=max(row.peak_mb or 0.0 for row in group),
                accuracy={
                    name: sum(row.accuracy[name] for row in group) / n for name in group[0].accuracy
                },
            )
        )
    return means


def w3(rows: Sequence[Row]) -> list[Bar]:
    """EKFAC and projected gradients of sequences."""
    queries = "50 queries"
    bars = []
    pairs = (
        ("EKFAC", ["EK-FAC, sequences"]),
        ("projected", PROJECTED),
        ("projected, linear layers", PROJECTED),  # as many parameters as the peers cover
    )
    for own, theirs in pairs:
        ours = fastest(pick(rows, queries, own=True, methods=[own]))
        peer = fastest(pick(rows, queries, own=False, methods=theirs))
        bars.append(times_faster(f"{own} against the fastest peer of its kind", ours, peer, 2))
        if ours is not None and peer is not None and ours.peak_mb and peer.peak_mb:
            words = f"{ours.peak_mb:,.0f} against {peer.peak_mb:,.0f} MB"
            held = ours.peak_mb <= peer.peak_mb
            text = f"peak memory of {own} against that peer's"
            bars.append(Bar(text, "no more", words, held))
    return bars


def w6(rows: Sequence[Row]) -> list[Bar]:
    """Nothing is promised of images; EKFAC's time is shown."""
    queries = "100 queries"
    ours = fastest(pick(rows, queries, own=True, methods=["EKFAC"]))
    theirs = fastest(pick(rows, queries, own=False, methods=EKFAC))
    return [times_faster("EKFAC against the fastest peer's EK-FAC", ours, theirs, 1)]


def w8(rows: Sequence[Row]) -> list[Bar]:
    """Every effect as it is after refitting, on each table, in no more time than the peers."""

    def fine(library: str, method: str) -> dict[str, Row]:
        kept = (row for row in rows if (row.library, row.method) == (library, method))
        return {row.queries: row for row in kept if row.status == "ok"}

    def together(method: dict[str, Row], tables: set[str]) -> Row | None:
        some = [method[table] for table in method if table in tables]
        total = sum(row.seconds for row in some)
        return replace(some[0], prepare_s=0.0, query_s=total) if some else None

    bars = []
    refined = fine("whence", "rows, refined").values()
    if refined:
        least = min(row.accuracy["pearson"] for row in refined)
        text = f"refined: Pearson with refits on each of {len(refined)} tables"
        bars.append(Bar(text, "≥ 0.99", f"{least:.5f}", least >= 0.99))
    pairs = (
        ("rows, first order", "pyinfluence", "influence functions", 1.0),
        ("rows, first order", "pydvl", "exact Hessian", 1.0),
        ("rows, refits", "pyinfluence", "leave-one-out", 10.0),
    )
    for method, library, theirs, factor in pairs:
        ours, peer = fine("whence", method), fine(library, theirs)
        both = ours.keys() & peer.keys()
        text = f"{method}, {len(both)} tables together, against {library} {theirs}"
        bars.append(times_faster(text, together(ours, both), together(peer, both), factor))
    return bars


BARS = {"w1": w1, "w2": w2, "w3": w3, "w4": w4, "w5": w5, "w6": w6, "w8": w8}
