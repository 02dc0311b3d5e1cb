"""The statistician's diagnostics of linear and generalized linear models, in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.arrays import Floats
from whence.checked import checked
from whence.errors import InvalidInput, UnsupportedModel
from whence.linear.objective import LinearObjective
from whence.linear.wide import columns_of
from whence.objective.loss import Loss, output_hessian
from whence.objective.objective import objective_of
from whence.objective.trained import Trained
from whence.rows import column_names

_ALONE = 1e-10  # 1 − h of a row that alone determines its own prediction
_RANK = 1e-12  # of a singular value, beside the largest


@checked
def regression_diagnostics(objective: Trained) -> pd.DataFrame:
    r"""Return leverage, residuals and what each row does to a regression, a line per training row.

    With x̃ᵢ = √vᵢ xᵢ, vᵢ the weight of row i in the Fisher information, Pearson residuals eᵢ, the
    matrix A = Σ x̃ᵢx̃ᵢᵀ + penalty, s² the dispersion and s₍ᵢ₎² that without row i:

    ```
    leverage              hᵢ = x̃ᵢᵀ A⁻¹ x̃ᵢ
    studentized           eᵢ / (s √(1 − hᵢ))          internally
    studentized_external  tᵢ = eᵢ / (s₍ᵢ₎ √(1 − hᵢ))
    cooks_distance        (β − β₍ᵢ₎)ᵀ X̃ᵀX̃ (β − β₍ᵢ₎) / (p s²)
    dffits                tᵢ √(hᵢ / (1 − hᵢ))
    covratio              det cov(β₍ᵢ₎) / det cov(β)
    dfbetas NAME          (βⱼ − βⱼ₍ᵢ₎) / (s₍ᵢ₎ √((X̃ᵀX̃)⁻¹ⱼⱼ))
    ```

    The sign of DFBETAS and DFFITS is the statistician's: with the row, less without. Least squares
    is exact, with or without an L2 penalty (A, its own covariance A⁻¹X̃ᵀX̃A⁻¹, and the trace of the
    hat matrix in place of p). Of other models β₍ᵢ₎ is one step of Fisher scoring, as in R and in
    statsmodels' `get_influence(observed=False)`, and s² is 1 for counts and classes; COVRATIO
    follows the information of all rows too, to first order. Estimators that divide by the sum of
    sample weights have them with mean 1. A weight divides the variance of its row, as statsmodels'
    `var_weights` do; where it is the number of rows that one stands for, as statsmodels'
    `freq_weights` are, the answer is refused: ask about the rows repeated.

    Args:
        objective: A linear model with one output: least squares, logistic regression of two
            classes, or a Poisson, gamma or Tweedie regression, from `whence.from_sklearn`.

    Returns:
        A frame indexed by the user's names of the rows. `frame.attrs` has the dispersion, the
        degrees of freedom of the model and of the residuals. NaN where a row alone determines its
        own prediction, or has no weight.

    Raises:
        UnsupportedModel: If the model is of another kind, or its weights are numbers of rows.
        InvalidInput: If there are no more rows than parameters.

    Cost:
        One QR factorization of the n rows, O(n p²), and O(n p²) more.

    References:
        Belsley, Kuh & Welsch (1980), chapter 2; Cook & Weisberg (1982), chapters 2 and 5;
        Pregibon (1981) for the one step of generalized linear models.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import LinearRegression
        >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
        >>> frame = whence.regression_diagnostics(
        ...     whence.from_sklearn(LinearRegression().fit(X, y), X, y))
        >>> round(float(frame["leverage"].sum()), 6), int(frame["cooks_distance"].idxmax())
        (11.0, 382)
    """
    model = objective_of(objective)
    model = columns_of(model) or model
    if not isinstance(model, LinearObjective) or model.c != 1 or model.slope is not None:
        raise UnsupportedModel(
            "Expected a linear model with one output and no L1 penalty: least squares, logistic "
            f"regression of two classes, or a Poisson, gamma or Tweedie regression. Got {model!r}."
        )
    if model.statistics is not None and model.statistics.frequencies:
        raise UnsupportedModel(
            "Expected rows that stand for one each. Got freq_weights, numbers of rows: removing "
            "all of them is another question than removing one. Fit the rows repeated: "
            "np.repeat(y, weights), np.repeat(X, weights, axis=0)."
        )
    fit = _fit_of(model)
    names = _names(model)
    columns = {
        "fitted": fit.fitted,
        "residual": fit.residual,
        "leverage": fit.leverage,
        "studentized": fit.studentized(fit.dispersion),
        "studentized_external": fit.studentized(fit.dispersion_without),
        "cooks_distance": fit.cooks_distance,
        "dffits": fit.studentized(fit.dispersion_without) * np.sqrt(fit.leverage / fit.rest),
        "covratio": fit.covratio,
    }
    betas = fit.dfbetas.T
    columns |= {f"dfbetas {name}": row for name, row in zip(names, betas, strict=True)}
    frame = pd.DataFrame(columns, index=pd.Index(model.train.ids))
    frame.attrs = {
        "dispersion": fit.dispersion,
        "df_model": fit.degrees,
        "df_resid": fit.left,
        "parameters": len(names),
    }
    return frame


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class _Fit:
    """A fitted model as weighted least squares at its optimum.

    Args:
        x: The rows of the design matrix, times √v, [n, p].
        e: Pearson residuals, times the square root of the sample weight, [n].
        penalty: What the penalty adds to the diagonal of A, [p].
        rows: The rows of the design matrix as they are, [n, p].
        bends: d log v/df of each row, [n]: how its information follows its linear predictor.
        falls: −de/df of each row, [n]: the square root of the weight for least squares.
        fitted: What the model says, [n].
        residual: The target less that, [n].
        known: Whether the dispersion is 1 and not estimated.
    """

    x: Floats
    e: Floats
    penalty: Floats
    rows: Floats
    bends: Floats
    falls: Floats
    fitted: Floats
    residual: Floats
    known: bool

    @cached_property
    def inverse(self) -> Floats:
        """A⁺, [p, p], from the factor of the rows: A itself would square their condition."""
        return _inverse(np.vstack([self.x, np.diag(np.sqrt(self.penalty))]))[0]

    @cached_property
    def gram(self) -> Floats:
        """X̃ᵀX̃, [p, p]."""
        return np.asarray(self.x.T @ self.x)

    @cached_property
    def steps(self) -> Floats:
        """A⁻¹ x̃ᵢ as rows, [n, p]."""
        return np.asarray(self.x @ self.inverse)

    @cached_property
    def leverage(self) -> Floats:
        """h, [n]."""
        return np.asarray(np.einsum("np,np->n", self.x, self.steps))

    @cached_property
    def spread(self) -> Floats:
        """x̃ᵀ A⁻¹ X̃ᵀX̃ A⁻¹ x̃, [n]: the leverage where there is no penalty."""
        return np.asarray(np.einsum("np,np->n", self.steps @ self.gram, self.steps))

    @cached_property
    def rest(self) -> Floats:
        """1 − h, [n]; NaN where a row alone determines its prediction, or has no weight."""
        rest = 1 - self.leverage
        return np.where((rest > _ALONE) & self.counts, rest, np.nan)

    @cached_property
    def counts(self) -> NDArray[np.bool_]:
        """Which rows have a weight, [n]."""
        return np.asarray(self.x.any(axis=1))

    @cached_property
    def degrees(self) -> float:
        """The trace of the hat matrix: the rank of the design where there is no penalty."""
        return float(self.leverage.sum())

    @cached_property
    def left(self) -> float:
        """n less the degrees of freedom of the model."""
        return float(self.counts.sum()) - self.degrees

    @cached_property
    def dispersion(self) -> float:
        """s²."""
        return 1.0 if self.known else float(self.e @ self.e) / self.left

    @cached_property
    def dispersion_without(self) -> Floats | float:
        """s² without each row, [n]."""
        if self.known:
            return 1.0
        c = self.e / self.rest
        pulled = self.steps @ (self.rows.T @ (self.e * self.falls))
        squares = float(self.e @ self.e) + 2 * c * pulled + c**2 * (self.spread - 1)
        left = self.left - 1 - (self.spread - self.leverage) / self.rest
        return np.where(left > 0.5, squares.clip(0) / np.where(left > 0.5, left, 1), np.nan)

    def studentized(self, dispersion: Floats | float) -> Floats:
        """Return e / √(s² (1 − h)), [n]."""
        return np.asarray(self.e / np.sqrt(dispersion * self.rest))

    @cached_property
    def cooks_distance(self) -> Floats:
        """Cook's distance, [n]."""
        change = np.square(self.e / self.rest) * self.spread
        return np.asarray(change / (self.degrees * self.dispersion))

    @cached_property
    def covratio(self) -> Floats:
        """det cov(β₍ᵢ₎) / det cov(β), [n]."""
        inverse, rank = _inverse(self.x)
        own = np.einsum("np,pq,nq->n", self.x, inverse, self.x)
        growth = (self.dispersion_without / self.dispersion) ** rank
        # The information of every row follows β: log det X̃ᵀX̃ by own, log det A by the leverage.
        bend = self.rows.T @ ((own - 2 * self.leverage) * self.bends)
        return np.asarray(growth * (1 - own) / self.rest**2 * np.exp(-self.changes @ bend))

    @cached_property
    def changes(self) -> Floats:
        """β − β₍ᵢ₎, [n, p]."""
        return np.asarray(self.steps * (self.e / self.rest)[:, None])

    @cached_property
    def dfbetas(self) -> Floats:
        """DFBETAS, [n, p]."""
        errors = np.linalg.norm(self.steps, axis=0)  # of A⁻¹X̃ᵀX̃A⁻¹, the root of the diagonal
        scale = np.sqrt(np.broadcast_to(self.dispersion_without, self.e.shape))[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(errors > 0, self.changes / (scale * errors), np.nan))


def _inverse(rows: Floats) -> tuple[Floats, int]:
    """Return (rowsᵀ rows)⁺, [p, p], and its rank, which no unit of a column changes."""
    upper = np.linalg.qr(rows, mode="r")
    lengths = np.linalg.norm(upper, axis=0)
    units = np.where(lengths > 0, lengths, 1.0)
    sizes = np.linalg.svd(upper / units, compute_uv=False)
    rank = int((sizes > _RANK * sizes.max(initial=0)).sum())
    if rank < len(units):  # the pseudoinverse is of the least norm in the units of the user
        units = np.ones_like(units)
    _, sizes, directions = np.linalg.svd(upper / units)
    scaled = directions[:rank] / sizes[:rank, None] / units
    return np.asarray(scaled.T @ scaled), rank


def _fit_of(model: LinearObjective) -> _Fit:
    """Return a model as weighted least squares."""
    loss, train = model.loss, model.train
    outputs, targets = model.outputs(train), train.targets
    fitted = _mean(loss, outputs)
    if model.hinged or not output_hessian(loss, outputs, fitted).any():
        raise _without_variance(model.trained_loss)
    targets = targets.to(outputs.dtype).reshape(fitted.shape)

    def pearson(f: Tensor) -> Tensor:
        return -loss.gradient(f, train.targets).reshape(-1) / _information(loss, f).sqrt()

    information = _information(loss, outputs).double().numpy()
    weights = model.weights.double().numpy()
    x = train.features.dense().double().numpy()
    if model.constant is not None:
        x = np.hstack([x, np.full((len(x), 1), model.constant)])
    fit = _Fit(
        x=x * np.sqrt(weights * information)[:, None],
        e=pearson(outputs).double().numpy() * np.sqrt(weights),
        penalty=model.l2.double().numpy() * len(x),
        rows=x,
        bends=_slopes(lambda f: _information(loss, f).log(), outputs),
        falls=-_slopes(pearson, outputs) * np.sqrt(weights),
        fitted=fitted.double().numpy(),
        residual=(targets - fitted).double().numpy(),
        known=loss.known_dispersion,
    )
    if fit.left < 1.5:
        raise InvalidInput(
            f"Expected more rows than parameters. Got {int(fit.counts.sum())} rows that count and "
            f"{fit.degrees:.3g} degrees of freedom in the model."
        )
    return fit


def _information(loss: Loss, outputs: Tensor) -> Tensor:
    """Return v: E ∂²ℓ/∂f² at the predicted mean, [n]."""
    found = output_hessian(loss, outputs, _mean(loss, outputs)).reshape(-1)
    return found.clamp_min(torch.finfo(found.dtype).tiny)


def _slopes(function: Callable[[Tensor], Tensor], outputs: Tensor) -> Floats:
    """Return the derivative of a number of each row in its own output, [n]."""
    with torch.enable_grad():
        leaf = outputs.detach().clone().requires_grad_()
        values = function(leaf)
        if not values.requires_grad:
            return np.zeros(len(outputs))
        (slopes,) = torch.autograd.grad(values.sum(), leaf)
    return np.asarray(slopes.reshape(-1).double().numpy())


def _mean(loss: Loss, outputs: Tensor) -> Tensor:
    """Return the mean that a model predicts of each target, [n]."""
    p = loss.probabilities(outputs)
    if p is not None:
        return p[:, 1]
    if loss.regresses:
        return loss.prediction(outputs, outputs)
    raise _without_variance(loss)


def _without_variance(loss: Loss) -> UnsupportedModel:
    """Return the error of a loss that is no likelihood with a mean and a variance."""
    return UnsupportedModel(
        "Expected least squares, logistic regression, or a Poisson, gamma or Tweedie regression. "
        f"Got {loss!r}, which has no variance function. Use whence.influence, or one of these."
    )


def _names(model: LinearObjective) -> list[str]:
    """Return the names of the parameters."""
    inputs, d = model.train.inputs, model.train.features.shape[1]
    columns = column_names(inputs) or ()
    names = [str(name) for name in columns] if len(columns) == d else [f"x{j}" for j in range(d)]
    return names if model.constant is None else [*names, "intercept"]
