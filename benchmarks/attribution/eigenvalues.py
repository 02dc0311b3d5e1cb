"""Why does KFAC predict retrainings better than EKFAC on some networks? Only eigenvalues differ.

Both are a diagonal in one eigenbasis where layers see one position per example. One thing at a time
is changed there, and each answer is judged by the same retrainings of random halves:

- damping: both at 0.01 to 100 × EKFAC's mean eigenvalue, with the penalty and without; the exact
  Gauss–Newton matrix and its blocks, layer by layer, at the same dampings.
- noise: eigenvalues from fewer examples, from halves of them, from others; mixtures of both.
- Fisher: expected, sampled, empirical.
- weights: KFAC with each example's inputs counted by its curvature, as EKFAC's moments count them;
  EKFAC with all examples' curvature made equal; both in the eigenbasis of inputs so counted.
- training: epochs, weight decay, examples; eigenvalues of ten checkpoints of the training.

    python -m benchmarks.attribution.eigenvalues [setting ...]

A perceptron on scikit-learn's digits, by default in all settings: five minutes of one core. `W2`,
asked by name, is that benchmark's network: its retrainings are made unless they are in its bank,
ten minutes more, and it needs WHENCE_DATA. A setting that is in results/eigenvalues.json is not run
again. `python -m benchmarks.attribution.eigenvalues_page` writes the tables of
docs/explanation/methods/kronecker.md from that file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.attribution import records
from benchmarks.attribution.paired import Array, interval
from benchmarks.attribution.perceptrons import BANK, SETTINGS, Case, of_digits, of_w2
from benchmarks.attribution.records import Row
from benchmarks.attribution.spectra import (
    EIGENVALUES,
    Basis,
    Factors,
    blocks_of,
    ekfac,
    factors,
    kfac,
    matrix,
    quick_scores,
    scores,
    together,
)

RESULT = Path(__file__).parent / "results" / "eigenvalues.json"
W2 = "W2"
ALL, PLAIN, WEIGHTED = "all examples", "plain", "weighted"
FREE = "no penalty"
BLOCKS, WHOLE = "its blocks", "Gauss-Newton"
_BOTH = "KFAC", "EKFAC"
MIXTURES = {f"{share:.0%} EKFAC's, rest KFAC's": share for share in (0.25, 0.5, 0.75)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Variation:
    """Some eigenvalues, and the damping added to them and to the penalty.

    Attributes:
        basis: Which basis they are in: of inputs as they are, or counted by curvature.
        kind: What the eigenvalues are.
        source: What they come from.
        times: The damping in units of EKFAC's mean eigenvalue from the same source.
        unit: That mean.
        values: Λ, the penalty added, [p].
    """

    basis: str
    kind: str
    source: str
    times: float
    unit: float
    values: Tensor

    @property
    def row(self) -> Row:
        """What it is called in results."""
        return named(self.kind, self.source, self.times, self.basis)

    @property
    def inverse(self) -> Tensor:
        """1 / (Λ + penalty + damping), [p]."""
        return 1 / (self.values + self.times * self.unit)


def named(kind: str, source: str, times: float, basis: str) -> Row:
    """Return what an answer is called in results."""
    return {"eigenvalues": kind, "from": source, "damping": times, "basis": basis}


def variations(case: Case, own: Factors, basis: Basis) -> Iterator[Variation]:
    """Yield what other diagonals are tried, in the plain basis."""
    l2 = float(case.objective.l2.mean())
    first, last = kfac(own), ekfac(own)
    for kind, share in MIXTURES.items():
        yield Variation(
            basis=PLAIN,
            kind=kind,
            source=ALL,
            times=1.0,
            unit=float(last.mean()),
            values=torch.lerp(first, last, share) + l2,
        )
    for times in case.dampings:
        yield from of(PLAIN, FREE, own, _BOTH, times, 0.0)
    for source, rotated in sources(case, own, basis):
        yield from of(PLAIN, source, rotated, _BOTH, 1.0, l2)


def of(
    basis: str,
    source: str,
    rotated: Factors,
    kinds: tuple[str, ...],
    times: float,
    penalty: float,
) -> Iterator[Variation]:
    """Yield some kinds of eigenvalues of some â and δ̂."""
    unit = float(ekfac(rotated).mean())
    for kind in kinds:
        values = EIGENVALUES[kind](rotated) + penalty
        yield Variation(
            basis=basis, kind=kind, source=source, times=times, unit=unit, values=values
        )


def sources(case: Case, own: Factors, basis: Basis) -> Iterator[tuple[str, Factors]]:
    """Yield what else eigenvalues come from, with â and δ̂."""
    objective, n = case.objective, len(own)
    for count in case.fewer:
        yield f"{count:,} examples", own.subset(slice(count))
    yield "first half", own.subset(slice(n // 2))
    yield "second half", own.subset(slice(n // 2, n))
    expected = case.directions("expected")
    yield "other examples", factors(objective, case.others, expected).rotated(basis)
    for fisher in ("sampled", "empirical"):
        found = factors(objective, objective.train, case.directions(fisher))
        yield f"{fisher} Fisher", found.rotated(basis)
    if case.path:
        parts = [factors(at, at.train, expected).rotated(basis) for at in case.path]
        yield f"{len(parts)} checkpoints", together(parts)


def answers(case: Case) -> Iterator[tuple[Row, Tensor]]:
    """Yield the scores [q, n] of each variation and of the exact matrices, by name."""
    objective = case.objective
    found = factors(objective, objective.train, case.directions("expected"))
    empirical = case.directions("empirical")  # the gradient of the loss
    train = factors(objective, objective.train, empirical)
    queries = factors(objective, case.queries, empirical)
    l2 = float(objective.l2.mean())
    for name in (PLAIN, WEIGHTED):
        basis = found.basis(weighted=name == WEIGHTED)
        own = found.rotated(basis)
        tried = [
            one
            for times in case.dampings
            for one in of(name, ALL, own, tuple(EIGENVALUES), times, l2)
        ]
        if name == PLAIN:
            tried += variations(case, own, basis)
        inverses = [one.inverse for one in tried]
        sides = queries.rotated(basis), train.rotated(basis)
        if case.rtol is None:
            results = scores(*sides, inverses)
        else:
            results = [quick_scores(*sides, inverse, case.rtol) for inverse in inverses]
        yield from zip((one.row for one in tried), results, strict=True)
    if case.exact:
        yield from exact(case, found, queries.rows(), train.rows())


def exact(case: Case, own: Factors, queries: Tensor, train: Tensor) -> Iterator[tuple[Row, Tensor]]:
    """Yield the scores by the Gauss–Newton matrix itself and by its blocks, which have no basis."""
    whole = matrix(own)
    unit, l2 = float(whole.diagonal().mean()), float(case.objective.l2.mean())
    for kind, G in ((BLOCKS, blocks_of(whole, own.sizes())), (WHOLE, whole)):
        for times in case.exact:
            damped = G.clone()
            damped.diagonal().add_(l2 + times * unit)
            solved = torch.cholesky_solve(queries.T, torch.linalg.cholesky(damped))
            yield named(kind, ALL, times, PLAIN), solved.T @ train.T


def described(case: Case) -> Row:
    """Return what is known of the network, and how much noise its eigenvalues have."""
    objective = case.objective
    own = factors(objective, objective.train, case.directions("expected"))
    own = own.rotated(own.basis())
    first, last = kfac(own), ekfac(own)
    floor = float(objective.l2.mean()) + float(last.mean())
    half = len(own) // 2
    parts = [1 / (ekfac(own.subset(rows)) + floor) for rows in (slice(half), slice(half, None))]
    return {
        "examples": len(own),
        "parameters": len(last),
        "accuracy": case.accuracy(objective.train),
        "accuracy on queries": case.accuracy(case.queries),
        "ceiling": case.ceiling,
        "examples that carry the curvature": own.carrying(),
        "mean eigenvalue, EKFAC": float(last.mean()),
        "mean eigenvalue, KFAC": float(first.mean()),
        "noise of EKFAC's inverse": apart(*parts),
        "KFAC's inverse and EKFAC's": apart(1 / (first + floor), 1 / (last + floor)),
    }


def apart(one: Tensor, other: Tensor) -> float:
    """Return the relative error of the mean of two diagonals, if only noise sets them apart."""
    return float((one - other).norm() / (one + other).norm())


def run(case: Case) -> Row:
    """Return what is known of a network, and a row for each answer."""
    found = list(answers(case))
    judged = [(row, case.judge.lds(values.numpy())) for row, values in found]
    by = {key(row): lds for row, lds in judged}
    truth = {row["damping"]: values for row, values in found if row["eigenvalues"] == BLOCKS}
    rows = []
    for (row, lds), (_, values) in zip(judged, found, strict=True):
        whole = {**row, "LDS": interval(lds)}
        for kind in _BOTH:
            against = by[kind, row["from"], row["damping"], PLAIN]
            whole[f"ahead of {kind}"] = interval(lds - against)
        if row["from"] == ALL and row["damping"] in truth:
            whole["R with its blocks"] = alike(values, truth[row["damping"]])
        rows.append(whole)
    return {**described(case), "best": best(judged), "rows": rows}


def key(row: Row) -> tuple[str, str, float, str]:
    """Return the name of an answer."""
    return row["eigenvalues"], row["from"], row["damping"], row["basis"]


def alike(one: Tensor, other: Tensor) -> float:
    """Return the mean correlation of two scores of a query."""
    pairs = zip(one.numpy(), other.numpy(), strict=True)
    return float(np.mean([np.corrcoef(mine, theirs)[0, 1] for mine, theirs in pairs]))


def best(judged: list[tuple[Row, Array]]) -> dict[str, Row]:
    """Return each kind at its best damping in the plain basis, beside EKFAC at its own."""
    found: dict[tuple[str, str], tuple[float, Array]] = {}
    for row, lds in judged:
        name = row["from"], row["eigenvalues"]
        swept = row["from"] in (ALL, FREE) and row["basis"] == PLAIN and name[1] not in MIXTURES
        if swept and (name not in found or lds[0] > found[name][1][0]):
            found[name] = row["damping"], lds
    return {
        kind if source == ALL else f"{kind}, {source}": {
            "damping": times,
            "LDS": interval(lds),
            "ahead of EKFAC": interval(lds - found[source, "EKFAC"][1]),
        }
        for (source, kind), (times, lds) in found.items()
    }


def known() -> dict[str, Row]:
    """Return the committed results, by setting."""
    return records.known(RESULT)


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attribution.eigenvalues",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", nargs="*", help=f"among {', '.join((*SETTINGS, W2))}")
    for name in parser.parse_args().settings or SETTINGS:
        if name not in known():
            directory = BANK / "eigenvalues" / name.replace(" ", "-")
            case = of_w2() if name == W2 else of_digits(SETTINGS[name], directory)
            records.keep(RESULT, name, records.rounded(run(case)), (*SETTINGS, W2))
        _print(name, known()[name])


def _print(name: str, record: Row) -> None:
    """Print a setting."""
    facts = [
        f"{what} {value:.4g}" for what, value in record.items() if what not in ("best", "rows")
    ]
    print(f"== {name}: " + ", ".join(facts))
    for row in record["rows"]:
        ahead = " ".join(f"{value:+.3f}" for value in row["ahead of EKFAC"])
        like = row.get("R with its blocks", float("nan"))
        print(
            f"{row['damping']:6g} {row['from']:<18}{row['basis']:<10}{row['eigenvalues']:<28}"
            f"{row['LDS'][0]:.3f}  {ahead}  {like:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
