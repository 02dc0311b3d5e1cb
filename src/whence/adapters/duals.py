"""Refits of kernel machines whose kernel follows their rows, in dual coefficients.

With γ of the variance of rows, or transformers before the machine, a removal changes the kernel of
all. f(x) = Σ αⱼ k(xⱼ, x) + b is then walked to its minimum with the new kernel matrix from α as it
was, of which few change sides; no coordinates of the new kernel are made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from whence.adapters.fitted import Fitted
from whence.adapters.tables import as_floats
from whence.adapters.targets import target_encoder
from whence.arrays import Floats
from whence.fitting.active_set import Face, empty_face, walk
from whence.fitting.machine import signed_box
from whence.objective.loss import Hinges

_MOST = 2048  # hinges of which the kernel matrix is held
_TOLERANCE = 1e-10  # violation of the optimality conditions, in units of the margin
_ROUNDING = 1e-15  # of one product of the kernel with all coefficients


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Duals:
    """A kernel machine at its minimum.

    Args:
        hinges: Those of all rows for its one output, [1, m]: m is n, or 2n for a regression.
        face: α of all hinges, and which are free.
    """

    hinges: Hinges
    face: Face

    def answers(self, fitted: Fitted, inputs: Any) -> Tensor | None:
        """Return decision values or predictions after a fit to other rows or weights, [q, 1].

        Args:
            fitted: The machine on the changed data; its coefficients are not read.
            inputs: The user's own rows.

        Returns:
            f of each row; `None` where rounding keeps the walk from its end.
        """
        kernel, matrix = fitted.problem.kernel, fitted.matrix
        assert kernel is not None
        beta = np.where(np.tile(fitted.kept, self._copies(fitted)), self.face.beta, 0.0)
        face = self._walked(fitted, beta, self.face)
        if face is None:
            return None
        rows = inputs if fitted.transform is None else fitted.transform.transform(inputs)
        coef = face.beta.reshape(-1, matrix.shape[0]).sum(0)
        support = np.flatnonzero(coef)
        outputs = kernel(as_floats(rows), matrix[support]) @ coef[support] + face.multiplier
        return torch.from_numpy(outputs[:, None])

    def _copies(self, fitted: Fitted) -> int:
        """Return the number of hinges of a row."""
        return int(self.hinges.signs.shape[1] // fitted.matrix.shape[0])

    def _walked(self, fitted: Fitted, beta: Floats, start: Face | None) -> Face | None:
        """Return the minimum for a machine's kernel and weights, from α and what is free there."""
        kernel, matrix = fitted.problem.kernel, fitted.matrix
        assert kernel is not None
        n, copies = matrix.shape[0], self._copies(fitted)
        gram = kernel(matrix, matrix)
        gradient = np.tile(gram @ beta.reshape(copies, n).sum(0), copies)
        gram = gram if copies == 1 else np.tile(gram, (copies, copies))
        corners, signs = self.hinges.corners[0].numpy(), self.hinges.signs[0].numpy()
        weights = np.tile(fitted.row_weights.numpy(), copies)
        cost = weights * self.hinges.factors[0].numpy() / (n * fitted.problem.l2)
        box = signed_box(signs, cost, 0.0)
        size = float(np.ptp(corners)) / 2 or float(np.abs(corners).max())
        rounding = _ROUNDING * float(gram.diagonal().max() * np.linalg.norm(beta))
        tolerance = max(_TOLERANCE * size, rounding)
        if start is None:
            near = empty_face(beta, gradient - corners)
            inside = np.flatnonzero((beta > box.low) & (beta < box.high))
            face = walk(gram, box, near, candidates=inside, tolerance=0.1 * tolerance)
        else:
            near = replace(start, beta=beta, gradient=gradient - corners)
            face = walk(gram, box, near, other=True, tolerance=0.1 * tolerance)
        return face if face.violation <= tolerance else None


def duals_of(fitted: Fitted) -> Duals | None:
    """Return a kernel machine at its minimum, from its library's coefficients.

    Args:
        fitted: The estimator with its data.

    Returns:
        The machine; `None` of any other model, or of too many rows to hold their kernel matrix.
    """
    problem, n = fitted.problem, fitted.matrix.shape[0]
    single = problem.kernel is not None and problem.support is not None and len(problem.coef) == 1
    if not single or not problem.loss.hinged or problem.intercept is None or not fitted.kept.all():
        return None
    encode = target_encoder(fitted.classes, problem.signs, 1)
    hinges = problem.loss.hinges(encode(fitted.labels), 1)
    if hinges is None or hinges.signs.shape[1] > _MOST:
        return None
    coef = np.zeros(n)
    coef[problem.support] = problem.coef[0]
    copies = hinges.signs.shape[1] // n
    beta = coef if copies == 1 else np.concatenate([np.maximum(coef, 0), np.minimum(coef, 0)])
    machine = Duals(hinges=hinges, face=empty_face(beta, beta))
    face = machine._walked(fitted, beta, None)
    return None if face is None else Duals(hinges=hinges, face=face)
