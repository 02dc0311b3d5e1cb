"""Draw the pictures of "What is influence?": one small model, one example taken out, all of them.

Run it with `python -m benchmarks.pictures`; seconds on two cores. Its numbers lie in
`benchmarks/results/pictures.json`, the pictures in `docs/images/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

import whence

_IMAGES = Path(__file__).parent.parent / "docs" / "images"
_RESULTS = Path(__file__).parent / "results" / "pictures.json"
_COLORS = {"cat": "#0b7261", "dog": "#b3243f"}
QUERY = np.array([[0.15, 0.1]])


def data() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Forty animals by two measurements; one dog stands among the cats."""
    generator = np.random.default_rng(5)
    cats = generator.normal([-1, -0.6], 0.7, (20, 2))
    dogs = generator.normal([1.1, 0.7], 0.7, (20, 2))
    dogs[0] = [-0.9, -0.3]
    return np.concatenate([cats, dogs]), np.repeat(["cat", "dog"], 20)


def fitted(x: Any, y: Any) -> LogisticRegression:
    """The model of the pictures."""
    return LogisticRegression(tol=1e-10).fit(x, y)


def share(model: LogisticRegression) -> float:
    """P(dog) of the query, in percent."""
    return float(100 * model.predict_proba(QUERY)[0, 1])


def drawn(ax: Axes, x: Any, y: Any, model: LogisticRegression, title: str) -> None:
    """Draw the animals, the query and the line at which the model is in two minds."""
    for name, color in _COLORS.items():
        ax.scatter(x[y == name, 0], x[y == name, 1], s=22, color=color, label=name)
    ax.scatter(
        QUERY[0, 0], QUERY[0, 1], s=150, marker="*", color="#1d2125", label="the query", zorder=3
    )
    across = np.array([-3.0, 3.0])
    a, b = model.coef_[0]
    ax.plot(across, -(model.intercept_[0] + a * across) / b, color="#59616b")
    ax.set(xlim=(-2.8, 2.8), ylim=(-2.4, 2.6), title=title, xticks=[], yticks=[])


def main() -> None:
    """Draw the three pictures and keep their numbers."""
    x, y = data()
    model = fitted(x, y)
    objective = whence.from_sklearn(model, x, y)
    explanation = whence.explain(objective, QUERY, k=5, measure="probability")
    checked = explanation.verify(20)
    strongest = max((*explanation.raising, *explanation.lowering), key=lambda e: abs(e.effect))
    kept = np.delete(np.arange(len(y)), strongest.position)
    without = fitted(x[kept], y[kept])

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    drawn(left, x, y, model, f"with all 40: P(dog) = {share(model):.1f} %")
    drawn(right, x[kept], y[kept], without, f"without one: P(dog) = {share(without):.1f} %")
    right.scatter(*x[strongest.position], s=150, facecolors="none", edgecolors="#1d2125")
    left.scatter(*x[strongest.position], s=150, facecolors="none", edgecolors="#1d2125")
    left.legend(loc="upper left", frameon=False)
    figure.savefig(_IMAGES / "influence-one.png", dpi=110)

    draws: dict[str, Callable[[Axes], object]] = {
        "influence-all": lambda ax: whence.plot.effects(explanation, ax=ax),
        "influence-check": lambda ax: whence.plot.predicted_against_actual(checked, ax=ax),
    }
    for name, draw in draws.items():
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        draw(figure.subplots())
        figure.savefig(_IMAGES / f"{name}.png", dpi=110)

    numbers = {
        "P(dog), all 40, %": share(model),
        "P(dog) without the strongest, %": share(without),
        "the strongest": int(strongest.position),
        "R": checked.r,
        "slope": checked.slope,
    }
    _RESULTS.write_text(json.dumps(numbers, indent=1) + "\n")
    for what, value in numbers.items():
        print(f"{what:<32} {value:.4g}")


if __name__ == "__main__":
    main()
