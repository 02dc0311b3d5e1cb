"""Figures of what whence finds, as matplotlib Axes to go on with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from whence.applications.explain import Explanation, Verification
from whence.errors import InvalidInput
from whence.evaluation.figure import axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HELPED, _HARMED = "#1b7f64", "#b4233f"  # as on the pages


def effects(explanation: Explanation, *, ax: Axes | None = None) -> Axes:
    """Draw the effect of each helpful and harmful example as a bar.

    Args:
        explanation: From `whence.explain`.
        ax: Axes to draw on; a new figure by default.

    Returns:
        The axes.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X[1:], y[1:])
        >>> objective = whence.from_sklearn(model, X[1:], y[1:])
        >>> ax = whence.plot.effects(whence.explain(objective, (X[:1], y[:1]), k=3))
        >>> len(ax.patches)
        6
    """
    ax = axes(ax)
    shown = [*explanation.helpful, *explanation.harmful[::-1]]
    sizes = [effect.effect for effect in shown]
    colors = [_HELPED if size > 0 else _HARMED for size in sizes]
    ax.barh(range(len(shown)), sizes, color=colors)
    ax.set_yticks(range(len(shown)), [str(effect.id) for effect in shown])
    ax.invert_yaxis()
    ax.axvline(0, color="0.4", linewidth=0.8)
    unit = " (nats)" if explanation.scores.measure == "loss" else ""
    ax.set_xlabel(f"change of the {explanation.scores.measure} without it{unit}")
    ax.set_ylabel("training example")
    return ax


def predicted_against_actual(verification: Verification, *, ax: Axes | None = None) -> Axes:
    """Draw predicted effects against those of retraining, with the identity line.

    Args:
        verification: From `explanation.verify(k)`.
        ax: Axes to draw on; a new figure by default.

    Returns:
        The axes.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X[1:], y[1:])
        >>> objective = whence.from_sklearn(model, X[1:], y[1:])
        >>> verification = whence.explain(objective, (X[:1], y[:1]), k=3).verify(10)
        >>> whence.plot.predicted_against_actual(verification).get_ylabel()
        'change after retraining'
    """
    ax = axes(ax)
    both = np.concatenate([verification.predicted, verification.actual])
    ends = float(both.min()), float(both.max())
    ax.plot(ends, ends, color="0.6", linewidth=1, label="identity")
    label = f"R {verification.r:.4f}, slope {verification.slope:.3f}"
    ax.scatter(verification.predicted, verification.actual, s=14, label=label)
    ax.set_xlabel("predicted change")
    ax.set_ylabel("change after retraining")
    ax.legend()
    return ax


def acting(image: NDArray[Any], derivative: NDArray[Any], *, ax: Axes | None = None) -> Axes:
    """Draw an image with what in it acts on a prediction: red raises the measure, blue lowers it.

    Args:
        image: Gray [h, w] or color [h, w, 3].
        derivative: From `whence.perturbation`, [h, w] or [h, w, 3]; channels are added.
        ax: Axes to draw on; a new figure by default.

    Returns:
        The axes.

    Raises:
        InvalidInput: If the two do not have the same shape.

    Examples:
        >>> import numpy as np, whence
        >>> ax = whence.plot.acting(np.eye(4), np.diag([1.0, -1.0, 0.5, 0.0]))
        >>> len(ax.images)
        2
    """
    picture, change = np.asarray(image, dtype=float), np.asarray(derivative, dtype=float)
    if picture.shape != change.shape or picture.ndim not in (2, 3):
        raise InvalidInput(
            "Expected an image [h, w] or [h, w, 3] and a derivative of the same shape. "
            f"Got {picture.shape} and {change.shape}. Reshape the derivative as the image is."
        )
    ax = axes(ax)
    gray = picture if picture.ndim == 2 else picture.mean(2)
    total = change if change.ndim == 2 else change.sum(2)
    largest = float(np.abs(total).max()) or 1.0
    ax.imshow(gray, cmap="gray")
    strength = np.abs(total) / largest
    ax.imshow(total, cmap="coolwarm", vmin=-largest, vmax=largest, alpha=0.85 * strength)
    ax.set_axis_off()
    return ax
