r"""Kronecker-factored curvature of a module: KFAC, EKFAC, and their inverses in closed form.

A layer that multiplies, s = W ā (ā = a with a 1 for the bias), has per-example gradients
Σ_t δ_t ā_tᵀ. Taking ā and δ as independent, its block of the Gauss–Newton matrix is

```
KFAC:   G ⊗ A,  G = E Σ_t δ_t δ_tᵀ,  A = E mean_t ā_t ā_tᵀ          = (Q_G ⊗ Q_A) (λ_G λ_Aᵀ) (·)ᵀ
EKFAC:  (Q_G ⊗ Q_A) Λ (·)ᵀ,  Λ = E (Q_Gᵀ (Σ_t δ_t ā_tᵀ) Q_A)²       the true second moments there
```

E runs over the training examples and over directions u of the outputs with E uuᵀ = ∂²ℓ/∂f²: all of
them (one per class), one random draw, or the loss's own gradient (the empirical Fisher). Parameters
that do not multiply (norms, embeddings, fused experts) get their exact block when small, and their
exact diagonal otherwise.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch

from whence.checked import checked
from whence.curvature.directions import Directions, Fisher
from whence.curvature.exact import Curvature
from whence.curvature.factors import (
    Layer,
    Others,
    Sharing,
    Trace,
    add_factors,
    add_second_moments,
    multiplying_layers,
    positions_of,
)
from whence.curvature.inverse import KroneckerInverse
from whence.curvature.precision import kronecker_rtol
from whence.curvature.trust_region import of_approximation
from whence.errors import InvalidInput, UnsupportedModel
from whence.linalg.direct import require_positive
from whence.linalg.operator import LinearOperator
from whence.linalg.solver import Solver
from whence.linalg.structured import BlockDiagonal, Reordered
from whence.network.calls import ModuleCall
from whence.network.objective import ModuleObjective
from whence.network.precision import product_dtype
from whence.objective.cache import cached
from whence.tiles import drawn

_CLASSES = 32  # outputs up to which the expectation over directions is taken exactly
_REUSED = 2**25  # numbers of activations and output gradients up to which they are reused
_INT32 = 2**31  # parameters from which their positions take 64 bits
_POSITIONS = 32  # seen by a layer for each of its inputs or outputs, which make its eigenbasis


class KroneckerSolver(Solver):
    """A solver that inverts an approximation of a module's curvature in closed form."""

    approximates: ClassVar[bool] = True

    @abstractmethod
    def made(self, objective: ModuleObjective) -> Approximation:
        """Return the Kronecker approximation of a module's Gauss–Newton matrix.

        Args:
            objective: R of a torch module at θ̂.
        """

    @abstractmethod
    def error(self, dtype: torch.dtype) -> float:
        """Return the relative error allowed in a precision."""

    def approximate(self, curvature: LinearOperator) -> Approximation:
        """Return the Kronecker approximation of a curvature, penalty included; made once.

        Args:
            curvature: A `Hessian` or `GGN` of a torch module.

        Returns:
            The approximation.

        Raises:
            UnsupportedModel: If the curvature does not belong to a torch module.
            InvalidInput: If a factor is not finite; the module is named.
        """
        objective = _module_of(curvature)
        return cached(objective, (KroneckerSolver, self), self.made)

    def prepare(self, A: LinearOperator) -> KroneckerInverse:
        """Return the inverse of the Kronecker approximation of A, damped as A is.

        Args:
            A: A `Hessian` or `GGN` of a torch module, perhaps damped.

        Returns:
            The inverse, in closed form.

        Raises:
            UnsupportedModel: If A does not belong to a torch module.
            NotPositiveDefinite: If an eigenvalue is zero and A is not damped.
        """
        curvature, damping = A.undamped()
        return self.inverse(self.approximate(curvature), damping)

    def inverse(self, approximation: Approximation, damping: float) -> KroneckerInverse:
        """Return (A + λ I)⁻¹ of an approximation A.

        Args:
            approximation: A.
            damping: λ >= 0.

        Returns:
            The inverse, in closed form.

        Raises:
            NotPositiveDefinite: If an eigenvalue is zero under the damping.
        """
        damped = approximation.operator.damped(damping)
        smallest, largest = approximation.operator.extremes()
        require_positive(damped, smallest + damping, largest + damping)
        return KroneckerInverse(
            operator=damped,
            closed=approximation.operator.map_spectrum(lambda x: (x + damping).reciprocal()),
            layers=approximation.layers,
            rtol=self.error(damped.dtype),
        )

    def default_damping(self, A: LinearOperator) -> tuple[float, str]:
        """Return the least damping that keeps the predicted decrease of the loss within a half.

        Args:
            A: A `Hessian` or `GGN` of a torch module.

        Returns:
            λ, from a hundredth of the mean eigenvalue without the penalty to three times it, and
            what it is.

        Cost:
            Beside the approximation, as `whence.curvature.trust_region.slope`.
        """
        found, name = self.approximate(A), type(self).__name__
        return cached(
            _module_of(A),
            (KroneckerSolver.default_damping, self),
            lambda twin: of_approximation(twin, found.operator, found.mean_eigenvalue, name),
        )


def _module_of(curvature: LinearOperator) -> ModuleObjective:
    """Return the objective of a torch module that a curvature belongs to.

    Raises:
        UnsupportedModel: If there is none.
    """
    objective = curvature.objective if isinstance(curvature, Curvature) else None
    if not isinstance(objective, ModuleObjective):
        raise UnsupportedModel(
            f"Expected a torch module for KFAC and EKFAC. Got {curvature!r}, of another model. "
            "Models linear in their parameters are solved exactly: leave KFAC and EKFAC out."
        )
    return objective


@dataclass(frozen=True, kw_only=True)
class _Computed(KroneckerSolver):
    """What `EKFAC` and `KFAC` share: their options, and the sums over the training data.

    Attributes:
        corrected: Whether the eigenvalues are the true second moments in the eigenbasis.
    """

    corrected: ClassVar[bool]

    fisher: Fisher | None = None
    sharing: Sharing = "expand"
    seed: int = 0
    rtol: float | None = None

    def __post_init__(self) -> None:
        """Check the error."""
        if self.rtol is not None and not 0 < self.rtol < 1:
            raise InvalidInput(f"Expected 0 < rtol < 1. Got {self.rtol}. The default is 1e-2.")

    def made(self, objective: ModuleObjective) -> Approximation:
        """Return the Kronecker approximation of a module's Gauss–Newton matrix, computed anew.

        Args:
            objective: R of a torch module at θ̂.
        """
        return approximation(
            objective,
            corrected=self.corrected,
            fisher=self.fisher,
            sharing=self.sharing,
            seed=self.seed,
            rtol=self.error(objective.params.dtype),
        )

    def error(self, dtype: torch.dtype) -> float:
        """Return the relative error allowed in a precision: `rtol`, or its default."""
        return kronecker_rtol(dtype) if self.rtol is None else self.rtol


@final
@checked
@dataclass(frozen=True, kw_only=True)
class EKFAC(_Computed):
    """Invert the Gauss–Newton matrix in its Kronecker eigenbasis, eigenvalues corrected.

    By itself it is the solver of `whence.influence(..., solver=EKFAC())`; as
    `CG(preconditioner=EKFAC())` it starts an iteration that ends at the exact answer.

    Args:
        fisher: "expected" takes all directions of the outputs, "sampled" one random one per example
            (with new draws for the eigenvalues, since a shared draw is biased), "empirical" the
            gradients of the training losses, which vanish as a model overfits. `None`: "expected"
            up to 32 outputs where every layer sees one position per example, otherwise "sampled":
            there a backward pass per direction is most of the cost.
        sharing: How the positions of one example that share a weight make the eigenbasis: "expand"
            takes each as an example, "reduce" sums δ and averages a over them first. The
            eigenvalues are the true ones either way.
        seed: Of the sampled directions.
        rtol: The relative root mean square error allowed in scores, beside that of EKFAC itself,
            which is far larger: 1e-2 in float32 and 1.5e-8 in float64 if `None`. From 1e-2 on,
            products and the passes of models of sequences and images are in bfloat16 on hardware
            made for it, if the model's outputs stay the same. In float64, or below 1e-2, only
            scores through layers with one position per example have an error beyond rounding.

    Cost:
        A pass over the training data for the eigenvalues, and one for the eigenbasis over so many
        examples that every layer sees 32 positions for each of its inputs or outputs, whichever are
        more; each with one backward pass per direction. Where both would be the same and see no
        more than 2²⁵ numbers, it is one pass, whose activations and output gradients are reused.
        The eigendecomposition of an [in + 1] and an [out] matrix per layer; 2 p numbers of memory.

    References:
        George et al. (2018), "Fast Approximate Natural Gradient Descent in a Kronecker-factored
        Eigenbasis", section 3; Grosse et al. (2023), "Studying Large Language Model
        Generalization with Influence Functions", section 3.1; Eschenhagen et al. (2023),
        "Kronecker-Factored Approximate Curvature for Modern Neural Network Architectures".

    Examples:
        >>> import torch, whence
        >>> data = torch.randn(50, 4), torch.arange(50) % 3
        >>> recipe = whence.Recipe(learning_rate=0.5, batch_size=50, epochs=200)
        >>> run = whence.train(torch.nn.Linear(4, 3), whence.CrossEntropy(), data, recipe)
        >>> objective = whence.from_torch(run.model, whence.CrossEntropy(), data)
        >>> query = (data[0][:2], data[1][:2])
        >>> whence.influence(objective, query, solver=whence.EKFAC(), damping=0.1).values.shape
        (2, 50)
    """

    corrected: ClassVar[bool] = True


@final
@checked
@dataclass(frozen=True, kw_only=True)
class KFAC(_Computed):
    """Invert the Gauss–Newton matrix as a Kronecker product per layer.

    Args:
        fisher: As for `EKFAC`.
        sharing: How positions that share a weight are combined: "expand" is exact where each has
            its own loss and the layer is linear, "reduce" where outputs are averaged over them.
        seed: Of the sampled directions.
        rtol: As for `EKFAC`.

    Cost:
        One pass over the training data with one backward pass per direction.

    References:
        Martens & Grosse (2015), section 3; Eschenhagen et al. (2023), "Kronecker-Factored
        Approximate Curvature for Modern Neural Network Architectures", section 3.
    """

    corrected: ClassVar[bool] = False


@final
@dataclass(frozen=True, eq=False)
class Approximation:
    """The Kronecker approximation of a module's Gauss–Newton matrix.

    Args:
        operator: The matrix, penalty included, [p, p]; its first blocks are those of `layers`.
        layers: The layers whose blocks are Kronecker-factored.
        mean_eigenvalue: The trace without the penalty, over the number of parameters that the data
            reach.
    """

    operator: Reordered
    layers: tuple[Layer, ...]
    mean_eigenvalue: float


def approximation(
    objective: ModuleObjective,
    *,
    corrected: bool,
    fisher: Fisher | None,
    sharing: Sharing,
    seed: int,
    rtol: float,
) -> Approximation:
    """Return the Kronecker approximation of the Gauss–Newton matrix, penalty included.

    Args:
        objective: R of a torch module at θ̂.
        corrected: EKFAC; else KFAC.
        fisher: "expected", "sampled", "empirical", or `None` to choose by the number of outputs.
        sharing: "expand" or "reduce".
        seed: Of the sampled directions.
        rtol: The relative error that the eigenvalues of layers with many positions may have: from
            1e-2 on, their products may be rounded to bfloat16.

    Returns:
        The operator, [p, p], which knows its spectrum, and its layers.

    Raises:
        InvalidInput: If a factor is not finite; the module is named.
    """
    few = objective.train.subset(np.arange(1))
    width = objective.outputs(few)[0].numel()
    layers = multiplying_layers(objective)
    rest = [name for name in objective.shapes if not any(name in layer.names for layer in layers)]
    empirical = Directions(objective.loss, "empirical", seed=0)
    ((_, uses, passes),) = objective.traced(empirical, few)
    some, sequences = _enough(objective, layers, uses, next(iter(passes), ()))
    chosen = fisher or ("expected" if width <= _CLASSES and not sequences else "sampled")
    kind = product_dtype(objective.params.dtype, objective.params.device, rtol)
    rough = objective.within(rtol) if corrected and sequences else objective
    of_factors = some if corrected else objective
    first, second = (Directions(objective.loss, chosen, seed + i) for i in range(2))
    traces: Iterable[Trace] = of_factors.traced(first)
    same = corrected and chosen != "sampled" and not sequences and of_factors is rough
    numbers = sum(use.inputs.numel() + width * use.shape.numel() for use in uses)
    if reused := same and len(objective.train) * numbers <= _REUSED:
        traces = [(part, seen, list(passes)) for part, seen, passes in traces]
    add_factors(of_factors, layers, traces, sharing)
    for layer in layers:
        layer.rotate()
    others = Others(objective, rest)
    if corrected or others.factored:
        traces = traces if reused else rough.traced(second)
        add_second_moments(rough, layers if corrected else [], others, traces, kind)
    if corrected:
        for layer in layers:
            layer.average_null_spaces()
    others.differentiate(Directions(objective.loss, "sampled", seed + 2))
    blocks = [*(layer.block() for layer in layers), *others.blocks()]
    trace = sum(float(block.eigenvalues().sum(dtype=torch.float64)) for block in blocks)
    reached = sum(layer.reached for layer in layers) + others.reached
    index = torch.int32 if len(objective.params) < _INT32 else torch.int64
    order = torch.empty_like(objective.params, dtype=index)
    start = 0
    for places in (*(layer.places() for layer in layers), *others.places()):
        order[start : start + len(places)] = places
        start += len(places)
    l2 = float(objective.l2.mean())
    # In place: the eigenvalues are as many as parameters, and are held once.
    operator = Reordered(BlockDiagonal(tuple(blocks)), order).map_spectrum(lambda x: x.add_(l2))
    return Approximation(operator, tuple(layers), max(trace, 0.0) / max(reached, 1))


def _enough(
    objective: ModuleObjective,
    layers: list[Layer],
    uses: list[ModuleCall],
    deltas: tuple[torch.Tensor | None, ...],
) -> tuple[ModuleObjective, bool]:
    """Return the objective on a sample with enough positions per layer for an eigenbasis.

    Any basis is as good as its eigenvalues, and those are corrected on all examples. Beside it,
    whether some layer sees several positions of an example.
    """
    n = len(objective.train)
    seen, several = positions_of(layers, uses, deltas)
    count = max(
        (-(-_POSITIONS * max(layer.inputs, layer.outputs) // seen[layer]) for layer in seen),
        default=n,
    )
    if count >= n:
        return objective, several
    return objective.restricted(drawn(n, count)), several
