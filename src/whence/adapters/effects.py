"""What a training row does through preprocessing, kernel scale and weights, to first order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.adapters.fitted import Fitted
from whence.adapters.kernel import Kernel, RowSpace
from whence.adapters.tabular import TabularMap, table_of
from whence.adapters.targets import decoded
from whence.linear.objective import LinearExamples, LinearObjective, LinearQuestion
from whence.objective.cache import cached
from whence.preprocessing.columns import Columns
from whence.preprocessing.derivative import Adjoints, Jacobian, jacobian, padded, pulled_back
from whence.preprocessing.pipeline import Differentiable, differentiable
from whence.preprocessing.table import Plain, table
from whence.rows import stack, take

_PASSES = 8  # passes over the rows for each quantity that making a Jacobian may take
_NUMBERS = 2**25  # that a Jacobian holds, and that are held to make it: 256 MB


def preprocessing_of(
    fitted: Fitted, added: tuple[LinearExamples, int] | None = None
) -> Differentiable | None:
    """Return a fit's transformers as a function of which rows are there; `None` without any.

    Args:
        fitted: The estimator with its data.
        added: A row that may be added, behind the others, with the sample weight of that at a
            position.
    """
    if fitted.transform is None:
        return None
    where = np.flatnonzero(fitted.kept)
    rows, labels = take(fitted.rows, where), fitted.labels[where]
    kept = torch.ones(len(where), dtype=torch.float64)
    sample = fitted.weights.sample[torch.from_numpy(where)] if fitted.weighted else None
    if added is not None:
        example, like = added
        rows = stack(rows, example.inputs)
        new = decoded(fitted.classes, fitted.problem.signs, example.targets)
        labels = np.concatenate([labels, new])
        kept = torch.cat([kept, kept.new_zeros(1)])
        if sample is not None:
            sample = torch.cat([sample, fitted.weights.sample[like : like + 1]])
    return differentiable(fitted.transform, rows, labels, kept, sample=sample, folds=fitted.crossed)


def through_features(
    fitted: Fitted,
    preprocessing: Differentiable | None,
    question: LinearQuestion,
    added: tuple[LinearExamples, int] | None = None,
) -> Tensor:
    """Return what a removal does through the features, in the order of the rows, [n, k].

    Args:
        fitted: The estimator with its data.
        preprocessing: Its transformers, made of the same rows and `added`.
        question: The quantities.
        added: A row that may be added; its addition, with the sign of a removal, comes last.
    """
    if (
        preprocessing is not None
        and added is None
        and _jacobian_pays(fitted, preprocessing, question)
    ):
        return _by_jacobian(fitted, preprocessing, question)
    where = torch.from_numpy(np.flatnonzero(fitted.kept))
    kept = torch.ones(len(where), dtype=torch.float64)
    rows: Any = take(fitted.rows, where.numpy())
    if added is not None:
        rows = stack(rows, added[0].inputs)
        kept = torch.cat([kept, kept.new_zeros(1)])
    kept.requires_grad_()
    asked = Plain(question.queries.inputs)
    with torch.enable_grad():
        if preprocessing is None:
            train, queries = Plain(rows).numbers(), asked.numbers()
        else:
            train, queries = preprocessing.step(Plain(rows), asked, kept)
        gradient = _gradient(fitted, question, train, queries, kept, where)
    n, k = len(fitted.labels), gradient.shape[1]
    effects = gradient.new_zeros(n + (added is not None), k)
    effects[where] = gradient[: len(where)]
    if added is not None:
        effects[-1] = gradient[-1]
    return effects


def _jacobian_pays(fitted: Fitted, preprocessing: Differentiable, question: LinearQuestion) -> bool:
    """Return whether the Jacobian of transformers, which is made once, takes no longer."""
    objective, (_, c, k) = question.objective, question.slopes.shape
    n, p = len(objective.train), len(objective.params)
    if k * _PASSES <= p or table_of(objective).space is not None:
        return False
    s = cached(objective, _jacobian_pays, lambda _: _statistics(fitted, preprocessing))
    return s > 0 and s + p <= k * _PASSES and n * (s + c * p) <= _NUMBERS


def _statistics(fitted: Fitted, preprocessing: Differentiable) -> int:
    """Return how many statistics transformers have."""
    there = np.flatnonzero(fitted.kept)
    kept = torch.ones(len(there), dtype=torch.float64)
    found = preprocessing.step.fitted(Plain(take(fitted.rows, there)), kept)
    return sum(part.numel() for part in found.tensors())


def _by_jacobian(fitted: Fitted, preprocessing: Differentiable, question: LinearQuestion) -> Tensor:
    """Return what a removal does through the features, by the Jacobian of the transformers."""
    where, asked = np.flatnonzero(fitted.kept), Plain(question.queries.inputs)

    def make(objective: LinearObjective) -> Jacobian:
        every = torch.eye(len(objective.params), dtype=objective.params.dtype)
        each = replace(question, objective=objective, directions=every)
        adjoints = _adjoints(each, None).of_rows(where)
        kept = torch.ones(len(where), dtype=torch.float64)
        return jacobian(preprocessing.step, Plain(take(fitted.rows, where)), kept, adjoints)

    found = cached(question.objective, _by_jacobian, make)
    theta, v = _theta(question), question.directions
    moved = found.effects(preprocessing.step, asked, question.slopes, theta, v)
    effects = moved.new_zeros(len(fitted.labels), moved.shape[1])
    effects[torch.from_numpy(where)] = moved
    return effects


def through_inputs(
    fitted: Fitted, preprocessing: Differentiable, question: LinearQuestion, where: NDArray[np.intp]
) -> Tensor | None:
    """Return what moving a training input does through the statistics, in the user's columns.

    Args:
        fitted: The estimator with its data.
        preprocessing: Its transformers.
        question: One quantity.
        where: Positions of the rows that move, [m].

    Returns:
        Derivatives, [m, d]; 0 in columns of text, `None` for rows that are no table of numbers.
    """
    kept = np.flatnonzero(fitted.kept)
    rows = table(take(fitted.rows, kept))
    moving = table(take(fitted.rows, where))
    if rows is None or moving is None:
        return None
    ones = torch.ones(len(kept), dtype=torch.float64)
    with torch.enable_grad():
        leaf = rows.cells.clone().requires_grad_()
        asked = Plain(question.queries.inputs)
        train, queries = preprocessing.step(replace(rows, cells=leaf), asked, ones)
        adjoints = _adjoints(question, queries)
        whole = pulled_back(train, queries, adjoints.of_rows(kept), leaf)[..., 0]
        alone = moving.cells.clone().requires_grad_()
        _, direct = preprocessing.step(rows, replace(moving, cells=alone), ones)
        own = pulled_back(direct, None, adjoints.of_rows(where), alone)[..., 0]
    every = whole.new_zeros(len(fitted.labels), whole.shape[1])
    every[torch.from_numpy(kept)] = whole  # a row that is not there moves no statistic
    change = -(every[torch.from_numpy(where)] - own)
    return torch.where(torch.from_numpy(moving.numeric), torch.nan_to_num(change), 0.0)


def _gradient(
    fitted: Fitted,
    question: LinearQuestion,
    train: Columns,
    queries: Columns,
    kept: Tensor,
    where: Tensor,
) -> Tensor:
    """Return −dL of each quantity in `kept`."""
    inputs = table_of(question.objective)
    if inputs.space is not None and inputs.space.kernel.name != "linear":
        pulls, bends = (padded(part[where], len(kept)) for part in _forces(question))
        return _through_kernel(fitted, inputs.space, question, train, queries, kept, pulls, bends)
    adjoints = _adjoints(question, queries).of_rows(where.numpy())
    return pulled_back(train, queries, adjoints.padded(len(kept)), kept)


def _forces(question: LinearQuestion) -> tuple[Tensor, Tensor]:
    """Return wⱼ eⱼ/n, [n, c], and wⱼ Sⱼ uⱼ/n, [n, c, k], of the training rows."""
    objective = question.objective
    train, n = objective.train, len(objective.train)
    outputs = objective.outputs(train)
    shares = (objective.weights / n).unsqueeze(1)
    pulls = shares * objective.loss.gradient(outputs, train.targets)
    tangents = objective.jvp(train, question.directions)
    bends = objective.loss.hvp(outputs, train.targets, tangents)
    return pulls, shares.unsqueeze(2) * bends


def _adjoints(question: LinearQuestion, queries: Columns | None) -> Adjoints:
    """Return the adjoints of a linear model's features, of all its training rows.

    Args:
        question: The quantities.
        queries: φ, needed where the model lies in the span of its rows.
    """
    inputs = table_of(question.objective)
    pulls, bends = _forces(question)
    return Adjoints(
        pulls=pulls,
        bends=bends,
        slopes=question.slopes,
        theta=_theta(question),
        directions=_coefficients(inputs, question.directions) + _outside(inputs, question, queries),
    )


def _theta(question: LinearQuestion) -> Tensor:
    """Return θ as coefficients of the transformed columns, [c, d]."""
    objective = question.objective
    return _coefficients(table_of(objective), objective.params.unsqueeze(1))[..., 0]


def _coefficients(table: TabularMap, v: Tensor) -> Tensor:
    """Return V [p, k] as coefficients of the transformed columns, [c, d, k]."""
    lifted = table.lift(v)
    return lifted[: table.outputs * table.transformed_width].reshape(
        table.outputs, table.transformed_width, -1
    )


def _outside(table: TabularMap, question: LinearQuestion, queries: Columns | None) -> Tensor:
    """Return the part of H⁻¹∇m outside the span of the training rows, where only l2 curves."""
    if table.space is None or queries is None:
        return torch.zeros(1, dtype=torch.float64)
    slopes, objective = question.slopes, question.objective
    q, c, k = slopes.shape
    flat = slopes.reshape(q, c * k)
    whole = torch.from_numpy(
        np.asarray(table.space.kernel.apart(queries.plain).T @ flat.numpy())
    ).reshape(-1, c, k)
    inside = objective.examples(question.queries).features.rmatmul(flat).reshape(-1, c, k)
    spanned = [torch.from_numpy(table.space.lift(inside[:, a].numpy())) for a in range(c)]
    outside = whole.transpose(0, 1) - torch.stack(spanned)
    return outside / objective.l2[: c * table.d].reshape(c, -1)[:, :1].unsqueeze(2)


def _through_kernel(
    fitted: Fitted,
    space: RowSpace,
    question: LinearQuestion,
    train: Columns,
    queries: Columns,
    kept: Tensor,
    pulls: Tensor,
    bends: Tensor,
) -> Tensor:
    """Return −dL for a model of one output in the span of a nonlinear kernel.

    In dual coefficients α and ν, which stay, the outputs, their change along H⁻¹∇m, and the penalty
    αᵀKν all follow the kernel matrix.
    """
    objective, slopes = question.objective, question.slopes[:, 0]
    l2, r = float(objective.l2[0]), len(space.positions)
    alpha = torch.from_numpy(space.dual(objective.params[:r].unsqueeze(1).numpy()))
    seen = torch.from_numpy(
        space.dual(objective.examples(question.queries).features.dense().T.numpy())
    )
    nu = torch.from_numpy(space.dual(question.directions[:r].numpy())) - seen @ slopes / l2
    mu = slopes / l2
    x, asked = train.dense(), queries.dense()
    # Pivots are rows that are there, as all of x but an added row.
    pivots = x[torch.from_numpy(np.searchsorted(np.flatnonzero(fitted.kept), space.positions))]
    gamma = _gamma(fitted, space.kernel, x, kept)
    of_train = kernel_of(space.kernel, gamma, pivots, x)
    of_queries = kernel_of(space.kernel, gamma, pivots, asked)
    of_pivots = kernel_of(space.kernel, gamma, pivots, pivots)
    between = kernel_of(space.kernel, gamma, asked, x)
    f, u = of_train.T @ alpha, of_train.T @ nu + between.T @ mu
    quantity = (slopes * (of_queries.T @ alpha)).sum(0)
    quantity = quantity - (pulls * u + bends[:, 0] * f).sum(0)
    quantity = quantity - l2 * (alpha.T @ (of_pivots @ nu + of_queries @ mu))[0]
    columns = []
    for one in quantity:
        if not one.requires_grad:
            return torch.zeros(len(kept), len(quantity), dtype=kept.dtype)
        (gradient,) = torch.autograd.grad(one, kept, retain_graph=True)
        columns.append(-gradient)
    return torch.stack(columns, 1)


def _gamma(fitted: Fitted, kernel: Kernel, x: Tensor, kept: Tensor) -> Tensor:
    """Return γ, a function of the features where it is scaled by their variance."""
    if getattr(fitted.final, "gamma", None) != "scale":
        return torch.tensor(kernel.gamma, dtype=torch.float64)
    share = kept.unsqueeze(1) / (kept.sum() * x.shape[1])
    mean = (share * x).sum()
    variance = (share * (x - mean).square()).sum()
    rounding = torch.finfo(x.dtype).eps * x.detach().abs().max()
    if variance <= rounding**2:  # nothing varies, nor does it without any row
        return torch.tensor(kernel.gamma, dtype=torch.float64)
    return 1 / (x.shape[1] * variance)


def kernel_of(kernel: Kernel, gamma: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return k(aᵢ, bⱼ), differentiable, [len(a), len(b)].

    Args:
        kernel: "rbf" or "poly".
        gamma: γ.
        a: Rows.
        b: Rows.
    """
    dots = a @ b.T
    if kernel.name == "poly":
        return (gamma * dots + kernel.coef0) ** kernel.degree
    distances = a.square().sum(1).unsqueeze(1) + b.square().sum(1) - 2 * dots
    return torch.exp(-gamma * distances.clamp_min(0))
