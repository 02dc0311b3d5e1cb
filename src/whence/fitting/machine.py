"""One output of a true-hinge model: its support vectors, and their active-set updates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from whence.arrays import Floats
from whence.errors import UnsupportedModel, warn_user
from whence.fitting.active_set import Box, Face, empty_face, walk
from whence.linear.features import Features
from whence.linear.objective import LinearObjective
from whence.objective.loss import Hinges
from whence.tiles import tiles

Rows = NDArray[np.intp]

_TOLERANCE = 1e-10  # violation of the optimality conditions, in units of the margin
_CLAIMED = 1e-7  # the same, up to which rounding is not worth a warning
_EPSILON = 1e-15  # rounding of one product, and of the sum of many
_ROUNDING = 4e-15  # of the largest corner: no violation is told from rounding below it
_NEAR = 2048  # rows near the margin whose products are kept
_BAND = 2e-3  # distance from the margin within which a fit may have stopped
_JOINING = 512  # rows that join the near ones at once
_TILE = 256  # removals checked in one product
_ROUNDS = 50  # times that rows may join before giving up


@dataclass(frozen=True, eq=False, kw_only=True)
class Machine:
    """One output at its minimum: β of all hinges, and those near the margin as a face.

    A row has one hinge, or two, of which the second is n places behind the first.

    The intercept b·constant is either part of X diag(1/l2) Xᵀ, or the multiplier of Σ β = 0.
    """

    features: Features
    constant: float | None
    scale: Floats  # 1/l2 of each coefficient, 0 where it may not move, [d]
    intercept_scale: float | None  # 1/l2 of the intercept; None where it has no penalty
    slope: Floats  # [d]
    signs: Floats  # y, [m]
    corners: Floats  # t, [m]: y itself for the hinge of a classifier
    size: float  # half the spread of the corners, by which the tolerance is multiplied
    n: int  # rows
    cost: Floats  # C, [m]
    beta: Floats  # [m]
    near: Rows  # [m]
    gram: Floats  # X diag(1/l2) Xᵀ of the near rows, [m, m]
    face: Face  # over the near rows
    gradient: Floats  # f without its free intercept, less t, [m]
    worst: float = 0.0  # violation of the optimality conditions, where rounding leaves too much

    @property
    def tolerance(self) -> float:
        """The violation of the optimality conditions that is none, or that rounding makes."""
        rounding = _EPSILON * float(self.gram.diagonal().max() * np.linalg.norm(self.beta))
        return max(_TOLERANCE * self.size, rounding)

    def warn_if_unsettled(self) -> None:
        """Warn if the optimality conditions are violated by more than is claimed."""
        if self.worst:
            warn_user(
                f"Expected margins exact to {_TOLERANCE * self.size:.0e}. Got {self.worst:.1e}. "
                "Scale the features to similar ranges, or accept the stated accuracy."
            )

    def hinges(self, rows: Rows) -> list[Rows]:
        """Return the hinges of rows, [1 or 2][k]."""
        return [rows + start for start in range(0, len(self.signs), self.n)]

    @property
    def free_intercept(self) -> bool:
        """Whether there is an intercept without a penalty."""
        return self.constant is not None and self.intercept_scale is None

    @property
    def theta(self) -> Floats:
        """W, and b where there is an intercept, [d] or [d + 1]."""
        return self._theta(self.beta[:, None], np.array([self.face.multiplier]), self.slope)[:, 0]

    def without(self, indices: Rows) -> Floats:
        """Return the change of θ for each row removed alone, [d or d + 1, k].

        Warns:
            NotConvergedWarning: If a walk was given up, once for all.
        """
        width = len(self.scale) + (self.constant is not None)
        changes = np.zeros((width, len(indices)))
        # With nothing free the intercept is the middle of an interval that any row may bound.
        all_matter = self.free_intercept and not len(self.face.free)
        pulls = np.abs(self.beta.reshape(-1, self.n)).sum(0)
        matter = np.flatnonzero((pulls[indices] != 0) | all_matter)
        machine = self
        for tile in tiles(len(matter), budget=_TILE):
            columns = matter[tile]
            changes[:, columns], machine = machine._remove(indices[columns])
        machine.warn_if_unsettled()
        return changes

    def _remove(self, rows: Rows) -> tuple[Floats, Machine]:
        """Return the changes of θ, and the machine with what it learned about nearness."""
        cross = self._products(self.near, rows)
        moved = np.zeros((len(self.near), len(rows)))
        levels = np.empty(len(rows))
        for column, row in enumerate(rows):
            face = self._walk_without(row, cross[:, column])
            moved[:, column] = face.beta - self.face.beta
            levels[column] = face.multiplier
        own, every = self.hinges(rows), np.arange(len(rows))
        touched = np.union1d(self.near, np.concatenate(own))
        change = np.zeros((len(touched), len(rows)))
        change[np.searchsorted(touched, self.near)] = moved
        for hinges in own:
            change[np.searchsorted(touched, hinges), every] = -self.beta[hinges]
        deltas = self._theta(change, levels - self.face.multiplier, None, touched)
        beta = np.repeat(self.beta[:, None], len(rows), 1)
        beta[touched] += change
        gradient = self.gradient[:, None] + self._forward(deltas, intercept=not self.free_intercept)
        violation = self._violations(gradient + levels, beta, self.cost[:, None])
        for hinges in own:
            violation[hinges, every] = 0
        worst = violation.max(0)
        wrong = np.flatnonzero(worst > self.tolerance)
        if not len(wrong):
            return deltas, self
        machine = self._joined(violation[:, wrong].max(1))
        for column in wrong.tolist():
            cost = self.cost.copy()
            for hinges in own:
                cost[hinges[column]] = 0
            alone = machine.reweighted(cost)
            deltas[:, column] = alone.theta - self.theta
            machine = replace(machine, worst=max(machine.worst, alone.worst))
        return deltas, machine

    def _walk_without(self, row: int, products: Floats) -> Face:
        """Return the face without a row; `products` are its with the near rows, [m]."""
        beta, cost = self.face.beta.copy(), self.cost[self.near]
        pull = float(self.beta.reshape(-1, self.n)[:, row].sum())
        gradient = self.face.gradient - products * pull
        total = None if self.face_total is None else self.face_total
        at = np.flatnonzero(self.near % self.n == row)
        if total is not None:  # hinges that are not near no longer count in what the others are
            total += pull - float(beta[at].sum())
        beta[at] = 0
        cost[at] = 0
        start = replace(self.face, beta=beta, gradient=gradient)
        box = signed_box(self.signs[self.near], cost, total)
        return walk(self.gram, box, start, tolerance=0.1 * self.tolerance)

    @property
    def face_total(self) -> float | None:
        """What the near β sum to, or `None` where they need not."""
        return -float(np.delete(self.beta, self.near).sum()) if self.free_intercept else None

    def reweighted(self, cost: Floats) -> Machine:
        """Return the minimum with other costs, [n]."""
        high = np.abs(self.beta) >= self.cost
        beta = np.where(high, self.signs * cost, self.signs * np.minimum(np.abs(self.beta), cost))
        return replace(self, cost=cost, beta=beta)._settled(None)

    def _settled(self, candidates: Rows | None) -> Machine:
        """Return the minimum from where β is: walk, check all rows, let some join, repeat."""
        machine, previous = self, np.inf
        for _ in range(_ROUNDS):
            machine = machine._walked(candidates)
            candidates = None
            violation = machine._violations(
                machine.gradient + machine.face.multiplier, machine.beta, machine.cost
            )
            worst = float(violation.max(initial=0.0))
            outside = violation > machine.tolerance
            outside[machine.near] = False
            if worst <= machine.tolerance or (not outside.any() and worst >= 0.5 * previous):
                break
            previous = np.inf if outside.any() else worst
            machine = machine._joined(violation)
        enough = min(machine.tolerance, _CLAIMED * self.size)
        return replace(machine, worst=worst if worst > enough else 0.0)

    def _walked(self, candidates: Rows | None) -> Machine:
        """Return the minimum over the near rows, the others kept, with a fresh gradient."""
        fresh = self._gradient()
        start = replace(self.face, beta=self.beta[self.near], gradient=fresh[self.near])
        box = signed_box(self.signs[self.near], self.cost[self.near], self.face_total)
        tolerance = 0.1 * self.tolerance
        face = walk(self.gram, box, start, candidates=candidates, tolerance=tolerance)
        beta = self.beta.copy()
        beta[self.near] = face.beta
        machine = replace(self, beta=beta, face=face)
        return replace(machine, gradient=machine._gradient())

    def _joined(self, violation: Floats) -> Machine:
        """Return the machine with the rows that violate most, [n], among the near ones."""
        violation = violation.copy()
        violation[self.near] = 0
        worst = np.argsort(-violation, kind="stable")[:_JOINING]
        new = worst[violation[worst] > self.tolerance]
        if not len(new):
            return self
        near = np.concatenate([self.near, new])
        m = len(self.near)
        gram = np.empty((len(near), len(near)))
        gram[:m, :m] = self.gram
        gram[:, m:] = self._products(near, new)
        gram[m:, :m] = gram[:m, m:].T
        face = replace(self.face, beta=self.beta[near], gradient=self.gradient[near])
        return replace(self, near=near, gram=gram, face=face)

    def _violations(self, slope: Floats, beta: Floats, cost: Floats) -> Floats:
        """Return by how far rows are on the wrong side of the margin, shaped as f − y."""
        signs = self.signs if slope.ndim == 1 else self.signs[:, None]
        beyond, alpha = signs * slope, signs * beta
        return np.maximum(np.where(alpha < cost, -beyond, 0), np.where(alpha > 0, beyond, 0))

    def _gradient(self) -> Floats:
        """Return f without its free intercept, less t, [m]."""
        theta = self._theta(self.beta[:, None], np.zeros(1), self.slope)
        return self._forward(theta, intercept=not self.free_intercept)[:, 0] - self.corners

    def _theta(
        self, beta: Floats, levels: Floats, slope: Floats | None, rows: Rows | None = None
    ) -> Floats:
        """Return θ for β [b, k] of the named rows and the free intercepts [k] in f."""
        features = self.features if rows is None else self.features.rows(rows)
        sums: Floats = features.rmatmul(torch.from_numpy(np.ascontiguousarray(beta))).numpy()
        if slope is not None:
            sums = sums - slope[:, None]
        coef: Floats = self.scale[:, None] * sums
        if self.constant is None:
            return coef
        if self.intercept_scale is None:
            return np.vstack([coef, levels / self.constant])
        return np.vstack([coef, self.intercept_scale * self.constant * beta.sum(0)])

    def _forward(self, theta: Floats, *, intercept: bool) -> Floats:
        """Return X W, with b·constant if asked, [n, k]."""
        coef = np.ascontiguousarray(theta[: len(self.scale)])
        outputs: Floats = self.features.matmul(torch.from_numpy(coef)).numpy()
        if self.constant is not None and intercept:
            outputs = outputs + self.constant * theta[-1]
        return outputs

    def _products(self, rows: Rows, others: Rows) -> Floats:
        """Return X diag(1/l2) Xᵀ between rows, [a, b]; dense rows only in blocks."""
        left = self.features.rows(rows)
        products = np.empty((len(rows), len(others)))
        for tile in tiles(len(others), budget=_TILE):
            block = self.features.rows(others[tile]).dense().numpy()
            scaled = np.ascontiguousarray((block * self.scale).T)
            products[:, tile] = left.matmul(torch.from_numpy(scaled)).numpy()
        if self.constant is not None and self.intercept_scale is not None:
            products += self.intercept_scale * self.constant**2
        return products


def machine(objective: LinearObjective, a: int, cost: Floats) -> Machine:
    """Return output a at its minimum, from θ̂."""
    constant, n = objective.constant, len(objective.train)
    found = hinges_of(objective)
    signs, corners = found.signs[a].numpy(), found.corners[a].numpy()
    copies = len(signs) // n
    features = objective.train.features
    if copies > 1:
        features = features.rows(np.tile(np.arange(n), copies))
    d = features.shape[1]
    coef = slice(a * d, (a + 1) * d)
    l2 = objective.l2.double().numpy()
    movable = np.ones(len(l2), dtype=bool) if objective.free is None else objective.free.numpy()
    if (l2[coef] <= 0).any():
        raise UnsupportedModel(
            "Expected a penalty on every coefficient of a hinge model. Got none on some: the "
            "minimum need not be unique. Fit with an l2 penalty."
        )
    intercept_l2 = float(l2[objective.c * d + a]) if constant is not None else 0.0
    outputs = objective.outputs(objective.train)[:, a].double().numpy()
    slack = signs * (corners - np.tile(outputs, copies))
    size = float(np.ptp(corners)) / 2 or float(np.abs(corners).max())
    near = np.sort(np.argsort(np.abs(slack), kind="stable")[:_NEAR])
    beta = signs * np.where(slack > 0, cost, 0.0)
    candidates = np.flatnonzero((np.abs(slack[near]) < _BAND * size) & (cost[near] > 0))
    beta[near[candidates]] = signs[near[candidates]] * cost[near[candidates]] / 2
    slope = np.zeros(d) if objective.slope is None else objective.slope[coef].double().numpy()
    empty = np.empty((0, 0))
    machine = Machine(
        features=features,
        constant=constant,
        scale=movable[coef] / l2[coef],
        intercept_scale=1 / intercept_l2 if intercept_l2 > 0 else None,
        slope=slope,
        signs=signs,
        corners=corners,
        size=max(size, _ROUNDING / _TOLERANCE * float(np.abs(corners).max())),
        n=n,
        cost=cost,
        beta=beta,
        near=near,
        gram=empty,
        face=empty_face(beta[near], np.zeros(len(near))),
        gradient=np.zeros(len(signs)),
    )
    machine = replace(machine, gram=machine._products(near, near))
    return machine._settled(candidates)


def hinges_of(objective: LinearObjective) -> Hinges:
    """Return the hinges of the training examples for each output."""
    found = objective.trained_loss.hinges(objective.train.targets, objective.c)
    assert found is not None  # asked of objectives that are `hinged` alone
    return found


def signed_box(signs: Floats, cost: Floats, total: float | None) -> Box:
    """Return the constraints of hinges, 0 <= yβ <= C.

    Args:
        signs: y, [m].
        cost: C, [m].
        total: What β sum to, or `None` where they need not.
    """
    bound = signs * cost
    totals = np.empty(0) if total is None else np.array([total])
    return Box(low=np.minimum(bound, 0), high=np.maximum(bound, 0), totals=totals)
