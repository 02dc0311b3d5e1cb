"""How long a click in `whence explore` takes: the answer to a prediction, over HTTP.

100,000 training rows of 20 numbers, logistic regression, with and without a StandardScaler before
it; 100 predictions. Clicks are counted
once all predictions are scored, the first answer while they are.

Run it with `python -m benchmarks.clicks`; a minute on two cores.
"""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from whence.explorer.server import HEADER, serving
from whence.explorer.session import Subject

N, D, QUERIES, CLICKS = 100_000, 20, 100, 20


def measured(scaled: bool) -> dict[str, float]:
    """Return seconds of the first answer, of later ones and of removing ten rows."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N + QUERIES, D))
    y = (x @ generator.normal(size=D) + generator.logistic(size=len(x)) > 0).astype(int)
    final = LogisticRegression(solver="newton-cholesky", tol=1e-8)
    model = make_pipeline(StandardScaler(), final) if scaled else final
    trained = whence.from_sklearn(model.fit(x[:N], y[:N]), x[:N], y[:N])
    subject = Subject(
        trained=trained,
        queries=trained.examples((x[N:], y[N:])),
        names=tuple(map(str, range(QUERIES))),
        labeled=True,
        about=(),
        origin="",
        command="",
    )
    with serving(subject) as address:
        token = parse_qs(urlparse(address).query)["token"][0]
        base = address.split("/?")[0]

        def seconds(route: str, **asked: object) -> float:
            request = urllib.request.Request(
                f"{base}/api/{route}",
                data=json.dumps(asked).encode(),
                headers={HEADER: token},
            )
            start = time.perf_counter()
            with urllib.request.urlopen(request) as response:
                response.read()
            return time.perf_counter() - start

        first = seconds("answer", query=0)
        seconds("rows")  # needs the scores of all predictions, made in the background
        worked = time.process_time()
        clicks = sorted(seconds("answer", query=q) for q in range(1, CLICKS + 1))
        worked = time.process_time() - worked
        return {
            "first answer, s": first,
            "click, processor time of both ends, s": worked / CLICKS,
            "click, median, s": clicks[CLICKS // 2],
            "click, slowest of 20, s": clicks[-1],
            "remove ten rows and retrain, s": seconds("remove", query=0, positions=list(range(10))),
        }


def main() -> None:
    """Print the numbers and keep them."""
    rows = {name: measured(name == "scaled") for name in ("plain", "scaled")}
    for name, row in rows.items():
        for what, value in row.items():
            print(f"{name:<7} {what:<40} {value:.4f}")
    path = Path(__file__).parent / "results" / "clicks.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
