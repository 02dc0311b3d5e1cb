"""Which method of which library is asked what, and how its setting is chosen.

Settings multiply the workload's unit of damping (W1: the penalty; W2: the mean eigenvalue of the
Gauss–Newton matrix, the penalty added) unless the adapter says otherwise. Each method that has a
setting is tried at three of them, on queries (and for W2 retrained halves) that are not scored:
`python -m benchmarks tune` keeps the best in `results/settings.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

_CHOSEN = Path(__file__).parent / "results" / "settings.json"

DAMPINGS = (0.1, 1.0, 10.0)
NEAR = (0.3, 1.0, 3.0)  # of a penalty that is part of the problem


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of a library in a workload.

    Attributes:
        workload: Its id.
        library: The adapter, `benchmarks.peers.<library>`.
        name: A key of the adapter's `METHODS`.
        settings: The search; the first is used until it was made. None: nothing to choose.
        unit: Whether its scores are in nats, so that their size can be held against the truth.
        timeout: Seconds for one set of queries.
    """

    workload: str
    library: str
    name: str
    settings: tuple[float, ...] = ()
    unit: bool = True
    timeout: float

    def setting(self) -> float | None:
        """Return the setting that the search chose, else the middle one."""
        chosen = json.loads(_CHOSEN.read_text()) if _CHOSEN.exists() else {}
        default = self.settings[len(self.settings) // 2] if self.settings else None
        value: float | None = chosen.get(f"{self.workload} {self.library} {self.name}", default)
        return value


TIMEOUTS = {
    "w1": 120.0,
    "w2": 200.0,
    "w3": 300.0,
    "w4": 120.0,
    "w5": 300.0,
    "w6": 300.0,
    "w8": 60.0,
}


def _methods(workload: str, rows: list[tuple[str, str, tuple[float, ...], bool]]) -> list[Method]:
    return [
        Method(
            workload=workload,
            library=library,
            name=name,
            settings=settings,
            unit=unit,
            timeout=TIMEOUTS[workload],
        )
        for library, name, settings, unit in rows
    ]


METHODS = [
    *_methods(
        "w1",
        [
            ("whence", "exact", (), True),
            ("whence", "EKFAC", NEAR, True),
            ("kronfluence", "EK-FAC", NEAR, True),
            ("kronfluence", "K-FAC", NEAR, True),
            ("curvlinops", "EK-FAC", NEAR, True),
            ("curvlinops", "CG", (1.0,), True),
            ("pydvl", "Nyström, rank 100", NEAR, True),
            ("pydvl", "block CG", (1.0,), True),
            ("captum", "TracInCPFast", (), False),
            ("captum", "Arnoldi", NEAR, True),
            ("traker", "TRAK-512", (0.0, 0.1, 1.0), False),
            ("dattri", "CG, 10 steps", (1.0,), True),
            ("dattri", "CG, 100 steps", (1.0,), True),
            ("dattri", "EK-FAC", NEAR, True),
            ("dattri", "TRAK-512", (0.0, 0.1, 1.0), False),
        ],
    ),
    *_methods(
        "w2",
        [
            ("whence", "EKFAC", DAMPINGS, True),
            ("whence", "KFAC", DAMPINGS, True),
            ("whence", "SOURCE, 3 segments", (), True),
            ("whence", "EKFAC, 5 trainings", DAMPINGS, True),
            ("whence", "EKFAC, then batches", (1.0,), True),
            ("whence", "CG from EKFAC, 5 steps", (1.0,), True),
            ("whence", "projected", (), True),
            ("kronfluence", "EK-FAC", DAMPINGS, True),
            ("kronfluence", "K-FAC", DAMPINGS, True),
            ("curvlinops", "EK-FAC", DAMPINGS, True),
            ("curvlinops", "K-FAC", DAMPINGS, True),
            ("pydvl", "EK-FAC", DAMPINGS, True),
            ("pydvl", "Nyström, rank 100", DAMPINGS, True),
            ("captum", "TracInCPFast", (), False),
            ("traker", "TRAK-512", (0.0, 0.1, 1.0), False),
            ("dattri", "EK-FAC", DAMPINGS, True),
            ("dattri", "TRAK-512", (0.0, 0.1, 1.0), False),
            ("dattri", "LoGra", (256.0, 1024.0, 4096.0), False),
        ],
    ),
    *_methods(
        "w3",
        [
            ("whence", "EKFAC", (1.0,), True),
            ("whence", "projected", (), True),
            ("whence", "projected, linear layers", (), True),
            ("kronfluence", "EK-FAC, sequences", (1.0,), True),
            ("dattri", "LoGra, sequences", (256.0,), False),
            ("bergson", "projected-16", (), False),
        ],
    ),
    *_methods(
        "w6",
        [
            ("whence", "EKFAC", (1.0,), True),
            ("whence", "projected", (), True),
            ("kronfluence", "EK-FAC", (1.0,), True),
            ("captum", "TracInCPFast", (), False),
            ("traker", "TRAK-512", (0.0,), False),
        ],
    ),
    *_methods(
        "w4",
        [
            ("whence", "self-influence", (), False),
            ("whence", "label errors", (), False),
            ("whence", "label errors, held out", (), False),
            ("cleanlab", "label quality", (), False),
            ("kronfluence", "self-influence, EK-FAC", (1.0,), False),
            ("kronfluence", "self-influence, diagonal", (1.0,), False),
            ("pydvl", "self-influence, Nyström", (1.0,), False),
            ("captum", "self-influence, TracInCPFast", (), False),
            ("traker", "self-influence, TRAK-512", (0.0,), False),
        ],
    ),
    *_methods(
        "w5",
        [
            ("whence", "leave-one-out", (), False),
            ("sklearn", "warm refits", (), False),
            ("whence", "ensemble", (), False),
            ("torch", "one after another", (), False),
        ],
    ),
    *_methods(
        "w8",
        [
            ("whence", "rows, first order", (), True),
            ("whence", "rows, newton", (), True),
            ("whence", "rows, refined", (), True),
            ("whence", "rows, refits", (), True),
            ("pyinfluence", "influence functions", (), True),
            ("pyinfluence", "leave-one-out", (), True),
            ("pydvl", "exact Hessian", (), True),
        ],
    ),
]
