"""The default damping beside multiples of the mean eigenvalue, judged by retrainings.

    python -m benchmarks.attribution.damping [setting ...]

Settings are the trainings of a perceptron on scikit-learn's digits that `eigenvalues` varies, and
the leaderboard's cases of random halves that are not convex; those need WHENCE_DATA and their bank
of retrainings. By default all settings of digits: five minutes of one core. What was measured is
kept in results/damping.json and not run again; the table in docs/explanation/methods/kronecker.md
is written from it at the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import whence
from benchmarks.attribution import records
from benchmarks.attribution.cases import CASES, Pair
from benchmarks.attribution.eigenvalues_page import PAGE
from benchmarks.attribution.ladder import Explained
from benchmarks.attribution.paired import Judge, interval
from benchmarks.attribution.perceptrons import BANK, SETTINGS, of_digits
from benchmarks.attribution.records import Row
from benchmarks.between import between
from whence.curvature.damping import mean_eigenvalue
from whence.curvature.exact import GGN
from whence.curvature.kronecker import KroneckerSolver
from whence.evaluation import load_ensemble
from whence.linalg.solver import Solver
from whence.network.objective import ModuleObjective

RESULT = Path(__file__).parent / "results" / "damping.json"
START = "<!-- damping: python -m benchmarks.attribution.damping -->\n"
END = "<!-- end of damping -->\n"
MULTIPLES = 0.001, 0.01, 0.1, 1.0, 10.0
NETWORKS = "mlp", "digits", "resnet", "gpt"
_GAUSS_NEWTON = "Gauss–Newton"
_SOLVERS: dict[str, Solver] = {
    "EKFAC": whence.EKFAC(),
    "KFAC": whence.KFAC(),
    _GAUSS_NEWTON: whence.Cholesky(),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """A trained network, its queries, and the retrainings that judge.

    Attributes:
        objective: R at the end of the training.
        queries: What is asked about.
        judge: The retrainings.
        solvers: The names of what inverts the curvature.
    """

    objective: ModuleObjective
    queries: Any
    judge: Judge
    solvers: tuple[str, ...]

    def lds(self, solver: Solver, damping: float | None) -> tuple[Any, float]:
        """Return the LDS, and in each resample, and the damping."""
        found = whence.influence(
            self.objective, self.queries, solver=solver, damping=damping, curvature="ggn"
        )
        assert found.diagnostics is not None
        return self.judge.lds(found.values), found.diagnostics.damping


def setting(name: str) -> Setting:
    """Return a setting by its name."""
    if name in SETTINGS:
        case = of_digits(SETTINGS[name], BANK / "eigenvalues" / name.replace(" ", "-"))
        return Setting(
            objective=case.objective,
            queries=case.queries,
            judge=case.judge,
            solvers=tuple(_SOLVERS),
        )
    whole = Explained(CASES[name])
    queries: Pair = whole.queries
    bank = load_ensemble(whole.case.folder(whole.case.protocols[0]))
    objective = whole.objective()
    assert isinstance(objective, ModuleObjective)
    return Setting(
        objective=objective,
        queries=queries,
        judge=Judge(bank.masks.numpy(), bank.outcomes.numpy()),
        solvers=("EKFAC", "KFAC"),
    )


def measured(case: Setting) -> Row:
    """Return the LDS of each solver by the rule and at multiples of the mean eigenvalue."""
    found: Row = {}
    for name in case.solvers:
        solver = _SOLVERS[name]
        unit = mean_of(case.objective, solver)
        by_rule, damping = case.lds(solver, None)
        multiples = dict(_multiples(case, solver, unit))
        found[name] = {
            "times the mean": damping / unit,
            "LDS": interval(by_rule),
            "ahead of the mean": interval(by_rule - multiples[1.0]),
            "multiples": {f"{times:g}": float(lds[0]) for times, lds in multiples.items()},
        }
    return found


def _multiples(case: Setting, solver: Solver, unit: float) -> Iterator[tuple[float, Any]]:
    """Yield the LDS at each multiple that rounding lets through."""
    for times in MULTIPLES:
        try:
            yield times, case.lds(solver, times * unit)[0]
        except whence.errors.NotPositiveDefinite:
            continue


def mean_of(objective: ModuleObjective, solver: Solver) -> float:
    """Return the mean eigenvalue of what a solver inverts, the penalty aside."""
    if isinstance(solver, KroneckerSolver):
        return solver.approximate(GGN(objective)).mean_eigenvalue
    return mean_eigenvalue(objective)


def table(found: dict[str, Row]) -> str:
    """Return a line for each setting and solver."""
    heads = " | ".join(f"{times:g} ×" for times in MULTIPLES)
    lines = [
        f"| training | matrix | the rule takes | LDS by the rule | ahead of 1 × | {heads} |",
        "|---|---|---|---|---|" + "---|" * len(MULTIPLES),
    ]
    for setting_name, record in found.items():
        title = CASES[setting_name].label if setting_name in CASES else setting_name
        for name, row in record.items():
            mean, low, high = row["ahead of the mean"]
            cells = [
                title,
                name,
                f"{row['times the mean']:.2g} ×",
                f"**{row['LDS'][0]:.3f}**",
                f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]",
            ]
            at = row["multiples"]
            cells += [f"{at[f'{t:g}']:.3f}" if f"{t:g}" in at else "–" for t in MULTIPLES]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def known() -> dict[str, Row]:
    """Return the committed results, by setting."""
    return records.known(RESULT)


def written(page: str) -> str:
    """Return a page with the table in its place."""
    return between(page, START, END, table(known()))


def main() -> None:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attribution.damping",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    every = (*SETTINGS, *NETWORKS)
    parser.add_argument("settings", nargs="*", help=f"among {', '.join(every)}")
    for name in parser.parse_args().settings or SETTINGS:
        if name not in known():
            records.keep(RESULT, name, measured(setting(name)), every)
        print(table({name: known()[name]}), flush=True)
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
