"""The tables of KFAC beside EKFAC in docs/explanation/methods/kronecker.md, from their rows.

`python -m benchmarks.attribution.eigenvalues_page` writes them; a test holds the page and the rows
equal.
"""

from __future__ import annotations

from typing import Any

from benchmarks.attribution.eigenvalues import (
    ALL,
    BLOCKS,
    FREE,
    PLAIN,
    W2,
    WEIGHTED,
    WHOLE,
    known,
)
from benchmarks.between import between
from release.build import ROOT

PAGE = ROOT / "docs" / "explanation" / "methods" / "kronecker.md"
START = "<!-- tables: python -m benchmarks.attribution.eigenvalues_page -->\n"
END = "<!-- end of tables -->\n"

_SHOWN = "10 epochs", "40 epochs", W2
_EQUAL, _INPUTS = "EKFAC, examples equal", "KFAC, inputs weighted"

Row = dict[str, Any]


def row_of(
    record: Row, kind: str, source: str = ALL, times: float = 1.0, basis: str = PLAIN
) -> Row:
    """Return a row of a setting."""
    named = {"eigenvalues": kind, "from": source, "damping": times, "basis": basis}
    found: Row = next(row for row in record["rows"] if named.items() <= row.items())
    return found


def ahead(row: Row, of: str = "EKFAC") -> str:
    """Return how far a row is ahead of EKFAC or KFAC, and its interval."""
    mean, low, high = row[f"ahead of {of}"]
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def tables() -> str:
    """Return the tables, and the sentences between them."""
    return "\n\n".join([by_training(), by_change(), by_damping(), sentences()]) + "\n"


def by_training() -> str:
    """Return a line for each training, all at the default damping of EKFAC."""
    lines = [
        "| training | accuracy | examples that carry the curvature | LDS of EKFAC | KFAC ahead"
        " | KFAC, inputs weighted | EKFAC, examples equal | EKFAC, weighted basis"
        " | exact blocks |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, record in known().items():
        cells = [name, f"{record['accuracy']:.4f}", _carrying(record)]
        cells.append(f"{row_of(record, 'EKFAC')['LDS'][0]:.3f}")
        cells += [ahead(row_of(record, kind)) for kind in ("KFAC", _INPUTS, _EQUAL)]
        cells.append(ahead(row_of(record, "EKFAC", basis=WEIGHTED)))
        cells.append("–" if name == W2 else ahead(row_of(record, BLOCKS)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _carrying(record: Row) -> str:
    """Return how many examples carry the curvature, and of how many."""
    return f"{record['examples that carry the curvature']:,.0f} of {record['examples']:,}"


def by_change() -> str:
    """Return how far KFAC is ahead of EKFAC under each change, of some trainings."""
    lines = [f"| KFAC ahead of EKFAC, by | {' | '.join(_SHOWN)} |", "|---|" + "---|" * len(_SHOWN)]
    for what, cells in changes([known()[name] for name in _SHOWN]).items():
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def changes(records: list[Row]) -> dict[str, list[str]]:
    """Return the cells of each change, one for each training."""
    found: dict[str, list[str]] = {}
    for at, record in enumerate(records):
        for what, row in changed(record).items():
            found.setdefault(what, ["–"] * len(records))[at] = ahead(row)
    return {what: found[what] for what in sorted(found, key=_order)}


def changed(record: Row) -> dict[str, Row]:
    """Return the rows of KFAC in the plain basis, by what is changed."""
    found: dict[str, Row] = {}
    for row in record["rows"]:
        if (row["eigenvalues"], row["basis"]) == ("KFAC", PLAIN):
            damping = f"damping {row['damping']:g} ×"
            named = {ALL: damping, FREE: f"{damping}, {FREE}"}
            found[named.get(row["from"], row["from"])] = row
    found["each at its best damping"] = record["best"]["KFAC"]
    found[f"each at its best damping, {FREE}"] = record["best"][f"KFAC, {FREE}"]
    return found


def _order(what: str) -> tuple[int, bool, float]:
    """Return where a change stands: dampings first, in order, then the rest as it comes."""
    if what.startswith("damping "):
        return 0, what.endswith(FREE), float(what.split()[1])
    return (1 if what.startswith("each") else 2), False, 0.0


def by_damping() -> str:
    """Return the LDS of EKFAC at each damping, a line for each training."""
    every = sorted({row["damping"] for record in known().values() for row in record["rows"]})
    heads = [f"{times:g} ×" for times in every]
    lines = [f"| LDS of EKFAC, damping | {' | '.join(heads)} |", "|---|" + "---|" * len(every)]
    for name, record in known().items():
        for source in (ALL, FREE) if name in _SHOWN else (ALL,):
            rows = {
                row["damping"]: row
                for row in record["rows"]
                if (row["eigenvalues"], row["from"], row["basis"]) == ("EKFAC", source, PLAIN)
            }
            cells = [f"{rows[times]['LDS'][0]:.3f}" if times in rows else "–" for times in every]
            title = name if source == ALL else f"{name}, {FREE}"
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sentences() -> str:
    """Return what the exact matrices and the noise say."""
    every, digits = list(known().values()), [r for name, r in known().items() if name != W2]
    like = [row_of(record, "EKFAC")["ahead of KFAC"] for record in every]
    weighted = [row_of(record, _INPUTS)["ahead of EKFAC"] for record in every]
    lead = [record for record in every if row_of(record, "KFAC")["ahead of EKFAC"][1] > 0]
    equal = [row_of(record, _EQUAL)["ahead of KFAC"] for record in lead]
    basis = [row_of(record, "EKFAC", basis=WEIGHTED)["ahead of EKFAC"] for record in every]
    nearer = sum(_near(record, WEIGHTED) > _near(record, PLAIN) for record in digits)
    blocks = {name: _best(r, BLOCKS) for name, r in known().items() if name != W2}
    whole = {name: _best(r, WHOLE) for name, r in known().items() if name != W2}
    noise = max(record["noise of EKFAC's inverse"] for record in every)
    gap = max(record["KFAC's inverse and EKFAC's"] for record in every)
    text = [
        f"Beyond the interval KFAC is ahead of EKFAC in {len(lead)} of {len(every)} trainings",
        f"and behind in {_beyond(like)}; with its inputs weighted it is ahead in",
        f"{_beyond(weighted)} and behind in {_behind(weighted)}. In the {len(lead)}, EKFAC with",
        f"examples equal is ahead of KFAC beyond the interval in {_beyond(equal)}, behind it in",
        f"{_behind(equal)}. The weighted",
        "eigenbasis brings EKFAC's scores nearer to those of the exact blocks in",
        f"{nearer} of {len(digits)} trainings of digits; its LDS is better than in the plain one,",
        f"beyond the interval, in {_beyond(basis)} of {len(every)} and worse in {_behind(basis)}.",
        "Each at its best damping, the exact blocks are ahead of EKFAC beyond the interval in",
        f"{_beyond(list(blocks.values()))} of {len(digits)} and behind it in",
        f"{_behind(list(blocks.values()))} ({_names(blocks)}), the whole Gauss–Newton matrix in",
        f"{_beyond(list(whole.values()))} and {_behind(list(whole.values()))} ({_names(whole)}).",
        f"The inverses by EKFAC of two halves are at most {noise:.1%} from their mean, KFAC's and",
        f"EKFAC's at most {gap:.1%} from theirs: noise is as large as the difference, but either",
        "half gives the same lead, so that it is not what counts.",
    ]
    return " ".join(text)


def _best(record: Row, kind: str) -> list[float]:
    """Return how far a matrix at its best damping is ahead of EKFAC at its own."""
    found: list[float] = record["best"][kind]["ahead of EKFAC"]
    return found


def _names(intervals: dict[str, list[float]]) -> str:
    """Return the trainings whose interval lies below zero."""
    return ", ".join(name for name, (_, _, high) in intervals.items() if high < 0)


def _near(record: Row, basis: str) -> float:
    """Return the correlation of EKFAC's scores with those of the exact blocks."""
    return float(row_of(record, "EKFAC", basis=basis)["R with its blocks"])


def _beyond(intervals: list[list[float]]) -> int:
    """Return how many intervals lie above zero."""
    return sum(low > 0 for _, low, _ in intervals)


def _behind(intervals: list[list[float]]) -> int:
    """Return how many intervals lie below zero."""
    return sum(high < 0 for _, _, high in intervals)


def written(page: str) -> str:
    """Return a page with the tables in their place."""
    return between(page, START, END, tables())


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
