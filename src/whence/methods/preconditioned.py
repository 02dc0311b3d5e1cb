r"""Features of influence: training gradients as they are or projected, and H⁻¹ of the query's.

```
score[q, i] = (wᵢ/n) ⟨P H⁻¹ ∇m_q, P gᵢ⟩
```

H⁻¹ is on the side of the queries, which are few, and in all parameters; so the rows of training
examples do not depend on it. With P random, E PᵀP = I: the score is that of influence, with noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from whence.curvature.damping import CurvatureName
from whence.curvature.prepare import Prepared, prepare
from whence.errors import UnsupportedModel
from whence.linalg.operator import LinearOperator
from whence.linalg.solver import Solver
from whence.linalg.structured import BlockDiagonal, Dense, Reordered, materialize
from whence.methods.features import Block, FeatureMap, Side
from whence.methods.subspace import Features
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.trained import Examples
from whence.scores import Diagnostics

_DENSE = 4_096  # parameters up to which an inverse is held as a matrix


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Preconditioned(FeatureMap):
    """Gradients of training examples, and H⁻¹ times those of queries, both under P.

    Args:
        trained: R at θ̂.
        project: P.
        words: What makes the scores.
        solver: What inverts the curvature; chosen by cost if `None`.
        damping_asked: λ >= 0; by rule if `None`.
        curvature_name: "hessian", "ggn" or "auto".
        inverse: H⁻¹ where it was read back; else it is prepared when it is needed.
    """

    trained: Objective
    project: Features
    words: str
    solver: Solver | None = None
    damping_asked: float | None = None
    curvature_name: CurvatureName = "auto"
    inverse: LinearOperator | None = None

    @property
    def parts(self) -> tuple[tuple[Block, ...], ...]:
        """The blocks of P."""
        return (self.project.blocks,)

    def rows(self, examples: Examples) -> Tensor:
        """Return P ∇ℓ, [b, d]."""
        return self.project(examples, self.trained.loss)

    def queries(self, examples: Examples, measure: Measure) -> Tensor:
        """Return P H⁻¹ ∇m, [q, d]."""
        columns = self.trained.gradient_columns(examples, measure)
        if self.inverse is not None:
            return self.project.of_columns(self.inverse.matmat(columns))
        solved = self._prepared.inverse.solve(columns).value
        return self.project.of_columns(solved)

    @property
    def splits(self) -> bool:
        """Gradients are those at θ̂."""
        return True

    def directions(self, rows: Tensor, side: Side) -> Tensor:
        """Return Pᵀ rows, along which training losses are differentiated."""
        if side == "query":
            raise UnsupportedModel(
                "Expected side='training' of scores whose H⁻¹ is on the side of the queries. Got "
                "side='query'. Use whence.Influence() in memory, or whence.Projected() without a "
                "solver."
            )
        return self.project.back(rows)

    def curvature(self) -> Reordered:
        """Return H⁻¹ as blocks whose numbers can be stored.

        Raises:
            UnsupportedModel: If it is known by products with the training data alone.
        """
        prepared = self._prepared
        closed = prepared.inverse.closed_form
        if closed is not None:
            return closed
        p = len(self.trained.params)
        if p > _DENSE:
            raise UnsupportedModel(
                f"Expected a solver whose inverse can be stored, or at most {_DENSE:,} parameters. "
                f"Got {prepared.solver}, for {p:,} parameters. Pass solver=whence.EKFAC()."
            )
        order = torch.arange(p, device=self.trained.params.device)
        return Reordered(BlockDiagonal((Dense(materialize(prepared.inverse)),)), order)

    def given(self, inverse: LinearOperator) -> Preconditioned:
        """Return the same features by an inverse that was stored."""
        return replace(self, inverse=inverse)

    def measured(self) -> Diagnostics:
        """Return what is inverted, with its damping."""
        notes = self.trained.notes
        if self.inverse is not None:
            return Diagnostics(solver="the inverse curvature that lies in the index", notes=notes)
        prepared = self._prepared
        return Diagnostics(
            solver=prepared.solver,
            curvature=prepared.curvature,
            damping=prepared.damping,
            damping_reason=prepared.damping_reason,
            notes=(*notes, *prepared.notes),
        )

    @property
    def _prepared(self) -> Prepared:
        """The inverse with its reasons; made once per objective."""
        return prepare(
            self.trained,
            1,
            solver=self.solver,
            damping=self.damping_asked,
            curvature=self.curvature_name,
        )
