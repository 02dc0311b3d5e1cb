"""Plots of results, as matplotlib Axes that the caller may change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from whence.applications.explanation import Explanation
from whence.checked import checked, floats
from whence.errors import InvalidInput, meant
from whence.evaluation.agreement import Agreement
from whence.evaluation.figure import axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOWARD, _AGAINST, _UP, _DOWN = "#1b7f64", "#b4233f", "#e07010", "#7c5ce0"  # as on the pages
_COLORS = {"toward": _TOWARD, "against": _AGAINST, "up": _UP, "down": _DOWN}


@checked
def effects(explanation: Explanation, *, ax: Axes | None = None) -> Axes:
    """Draw the change of the answer without each example that pushes it, as a bar.

    The colors say which way an example pushes: green to the label, red away from it; orange up and
    violet down where that is no class.

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
    ax, quantity = axes(ax), explanation.quantity
    now = quantity.read(explanation.value)
    sides = zip(quantity.colors, (explanation.raising, explanation.lowering), strict=True)
    shown = [(effect, _COLORS[color]) for color, side in sides for effect in side]
    sizes = [quantity.read(explanation.value + effect.effect) - now for effect, _ in shown]
    order = np.argsort(sizes, kind="stable")[::-1]
    ax.barh(range(len(shown)), [sizes[i] for i in order], color=[shown[i][1] for i in order])
    ax.set_yticks(range(len(shown)), [str(shown[i][0].id) for i in order])
    ax.invert_yaxis()
    ax.axvline(0, color="0.4", linewidth=0.8)
    unit = " (points)" if quantity.percent else ""
    ax.set_xlabel(f"change of {quantity.name} without it{unit}")
    ax.set_ylabel("training example")
    return ax


@checked
def predicted_against_actual(verification: Agreement, *, ax: Axes | None = None) -> Axes:
    """Draw predicted changes against those of retraining, with the identity and the fitted line.

    Args:
        verification: From `explanation.verify(k)` or `whence.evaluation.loo_correlation`.
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
    return verification.plot(ax)


@checked
def input_attribution(
    image: NDArray[Any], derivative: NDArray[Any], *, ax: Axes | None = None
) -> Axes:
    """Draw an image with its input attribution: red raises the measure, blue lowers it.

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
        >>> ax = whence.plot.input_attribution(np.eye(4), np.diag([1.0, -1.0, 0.5, 0.0]))
        >>> len(ax.images)
        2
    """
    shape = "h, w, 3" if np.ndim(image) == 3 else "h, w"
    picture, change = floats("image", image, shape), floats("derivative", derivative, shape)
    if picture.shape != change.shape:
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


@checked
def leverage_and_residuals(
    diagnostics: pd.DataFrame, *, k: int = 5, ax: Axes | None = None
) -> Axes:
    """Draw the influence plot: studentized residuals over leverage, areas by Cook's distance.

    Lines mark twice and three times the mean leverage, and residuals of ±2.

    Args:
        diagnostics: From `whence.regression_diagnostics`.
        k: How many rows to name, those with the largest Cook's distance.
        ax: Axes to draw on; a new figure by default.

    Returns:
        The axes.

    References:
        Fox (2016), "Applied Regression Analysis and Generalized Linear Models", section 11.4.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import LinearRegression
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(LinearRegression().fit(X, y), X, y)
        >>> ax = whence.plot.leverage_and_residuals(whence.regression_diagnostics(objective), k=3)
        >>> len(ax.texts)
        3
    """
    ax = axes(ax)
    leverage, residuals = diagnostics["leverage"], diagnostics["studentized_external"]
    distance = diagnostics["cooks_distance"]
    areas = 10 + 400 * distance.fillna(0) / max(float(distance.max()), 1e-300)
    ax.scatter(leverage, residuals, s=areas, color=_TOWARD, alpha=0.5, linewidths=0)
    for times in (2, 3):
        ax.axvline(times * float(leverage.mean()), color="0.6", linestyle=":", linewidth=0.8)
    for level in (-2, 0, 2):
        ax.axhline(level, color="0.6", linestyle="-" if level == 0 else ":", linewidth=0.8)
    for at in np.argsort(-distance.fillna(-1).to_numpy(), kind="stable")[:k]:
        ax.annotate(str(diagnostics.index[at]), (leverage.iloc[at], residuals.iloc[at]))
    ax.set_xlabel("leverage")
    ax.set_ylabel("externally studentized residual")
    return ax


@checked
def by_row(
    diagnostics: pd.DataFrame,
    column: str = "cooks_distance",
    *,
    k: int = 5,
    ax: Axes | None = None,
) -> Axes:
    """Draw the index plot: one diagnostic of each row, in the order of the rows.

    Args:
        diagnostics: From `whence.regression_diagnostics`.
        column: One of its columns.
        k: How many rows to name, those of the largest size.
        ax: Axes to draw on; a new figure by default.

    Returns:
        The axes.

    Raises:
        InvalidInput: If there is no such column.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import LinearRegression
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(LinearRegression().fit(X, y), X, y)
        >>> ax = whence.plot.by_row(whence.regression_diagnostics(objective), "dffits")
        >>> len(ax.texts)
        5
    """
    if column not in diagnostics:
        near = meant(str(column), map(str, diagnostics))
        raise InvalidInput(f"Expected one of {list(diagnostics)}. Got {column!r}.{near}")
    ax, values = axes(ax), diagnostics[column].to_numpy()
    ax.vlines(range(len(values)), 0, values, color=_TOWARD, linewidth=0.8)
    ax.axhline(0, color="0.4", linewidth=0.8)
    order = np.argsort(-np.nan_to_num(np.abs(values)), kind="stable")[:k]
    for at in order:
        ax.annotate(str(diagnostics.index[at]), (at, values[at]))
    ax.set_xlabel("training row")
    ax.set_ylabel(column.replace("_", " "))
    return ax
