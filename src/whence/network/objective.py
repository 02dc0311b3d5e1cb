r"""Any torch module as an objective: the same products, by differentiation, in micro-batches.

Derivatives along directions are taken in reverse twice: u ↦ Jᵀu is linear, so its own derivative
in u along V is J V; ∇R is a graph, and its derivative along V is ∇²R V. Gradients of each example
factor where a rule agrees with differentiation; others take a mapped pass, or one each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whence.errors import InvalidInput, UnsupportedModel
from whence.network.autodiff import Leaf, add_pullback, along, empty_sums, gradient, pushforward
from whence.network.calls import ModuleCall
from whence.network.checks import check_accepted, check_finite, derivatives_not_finite
from whence.network.coverage import coverage
from whence.network.examples import ModuleExamples
from whence.network.gradients import Contribution
from whence.network.module import FunctionalModule
from whence.network.per_example import PerExample
from whence.network.precision import product_dtype
from whence.network.shared import Shared
from whence.objective.losses import Loss
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.trained import Data, Examples

if TYPE_CHECKING:
    from typing_extensions import Self

_DENSE = 5_000  # parameters up to which the Hessian is formed
BATCH = 1_024  # examples differentiated at once, at most
_FEW = 2  # columns up to which a backward pass each is cheaper than factored gradients
PROBE = 3  # examples on which each rule must agree with differentiation


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ModuleObjective(Objective):
    """R(θ) of a torch module, θ its selected parameters, flat; made by `module_objective`.

    Threads can share it: nothing of it changes, and forward passes follow each other by a lock.

    Args:
        module: The module as a function of θ.
        loss: ℓ.
        train: The training examples.
        weights: wᵢ >= 0, [n].
        params: θ̂, [p].
        l2: The penalty per parameter, [p].
        encoder: Reads a user's data.
        refit_with: Fits it again with other weights: (objective, weights [n]) -> objective.
        reorder_with: Fits it to its own examples in an order drawn by a seed: (objective, seed).
        batch_size: Examples that are differentiated at once; changes memory, not the answer.
        factored: The selected parameters whose per-example gradients factor.
        shared: Those of them of which a pass is given a copy for each example.
        mapped: Whether the others take one pass that is mapped over examples.
        bf16: Whether per-example gradients come from passes in bfloat16.
        convex: Whether R is known to be convex.
        notes: What a reader of the results must know, a sentence each.
        classes: The user's names of the classes.
        stopped: What the estimator says of its own fit, if that stopped early; else empty.
        lifted: Returns changes of θ as changes of the user's own parameters, [p, k] both.
    """

    module: FunctionalModule
    loss: Loss
    train: ModuleExamples
    weights: Tensor
    params: Tensor
    l2: Tensor
    encoder: Callable[[Any, ModuleExamples | None], ModuleExamples]
    refit_with: Callable[[ModuleObjective, Tensor], ModuleObjective]
    reorder_with: Callable[[ModuleObjective, int], ModuleObjective] | None = None
    batch_size: int = BATCH
    factored: frozenset[str] = frozenset()
    shared: Shared = field(default_factory=Shared)
    mapped: bool = False
    bf16: bool = False
    convex: bool = False
    notes: tuple[str, ...] = ()
    classes: tuple[Any, ...] = ()
    stopped: str = ""
    slope: None = None
    lifted: Callable[[Tensor], Tensor] = torch.clone

    def __str__(self) -> str:
        """Return the loss, and which parameters have factored gradients."""
        return f"{self!r}\n{coverage(self.module, self.factored, self.mapped)}"

    @property
    def model(self) -> nn.Module:
        """The copy of the module; its selected parameters are NaN."""
        return self.module.model

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """Name and shape of each selected parameter, in the order of θ."""
        return self.module.shapes

    @property
    def slices(self) -> Mapping[str, slice]:
        """The slice of θ of each selected parameter."""
        return self.module.slices

    @property
    def owners(self) -> Mapping[nn.Module, list[tuple[str, str]]]:
        """The modules with selected parameters: their own name for each, and its name in θ."""
        return self.module.owners

    @property
    def trained_loss(self) -> Loss:
        """ℓ as it was minimized: the same."""
        return self.loss

    def frozen(self) -> tuple[Tensor, ...]:
        """Return the parameters and buffers of the module that are not selected."""
        return self.module.fixed()

    def at(self, params: Tensor) -> Self:
        """Return the same objective expanded at other parameters, [p]."""
        if params.shape != self.params.shape:
            raise InvalidInput(
                f"Expected {len(self.params)} parameters. Got shape {tuple(params.shape)}. "
                "Flatten the selected parameters in the model's order."
            )
        return replace(self, params=params.to(self.params), stopped="")

    def reweighted(self, weights: Tensor) -> Self:
        """Return the same objective with other example weights, [n]."""
        return replace(self, weights=weights)

    def refit(self, weights: Tensor | None = None) -> ModuleObjective:
        """Return the objective at its minimum under other example weights, [n]."""
        return self.refit_with(self, self.weights if weights is None else weights)

    def reordered(self, seed: int) -> ModuleObjective | None:
        """Return the objective at a fit to its examples in another order, where one is known."""
        return None if self.reorder_with is None else self.reorder_with(self, seed)

    def restricted(self, indices: NDArray[np.intp]) -> Self:
        """Return the objective of these training examples alone."""
        return replace(self, train=self.train.subset(indices), weights=self.weights[indices])

    def in_bf16(self) -> ModuleObjective:
        """Return the same objective with per-example gradients from passes in bfloat16.

        On hardware made for it that halves their time, at errors of 1 % or so. A model that does
        not run under autocast, or gives other outputs there, stays as it is.
        """
        if not self._runs_in_bf16:
            return self
        return replace(self, bf16=True, batch_size=2 * self.batch_size)

    def within(self, rtol: float) -> ModuleObjective:
        """Return the objective with bfloat16 gradients if the error allows them, or itself."""
        exact = product_dtype(self.params.dtype, self.params.device, rtol) == self.params.dtype
        return self if exact else self.in_bf16()

    @cached_property
    def _runs_in_bf16(self) -> bool:
        """Whether outputs under autocast are the same but for rounding."""
        few = self.train.subset(np.arange(min(PROBE, len(self.train))))
        return self.per_example.runs_in_bf16(few.inputs)

    def narrowed(self, names: Collection[str]) -> ModuleObjective:
        """Return the same objective in some of its parameters, the others constants at θ̂."""
        if len(names) == len(self.shapes):
            return self
        module = self.module.narrowed(self.params, names)
        where = [self.slices[name] for name in module.shapes]
        return replace(
            self,
            module=module,
            params=torch.cat([self.params[at] for at in where]),
            l2=torch.cat([self.l2[at] for at in where]),
            factored=self.factored & frozenset(module.shapes),
            shared=self.shared.among(module.shapes),
        )

    def flat_directions(self) -> Tensor:
        """Return an empty matrix [p, 0]: no directions are known for an arbitrary module."""
        return self.params.new_zeros(len(self.params), 0)

    def dense_hessian(self) -> Tensor:
        """Return ∇²R(θ̂), [p, p], by p Hessian-vector products; refused above 5,000 parameters."""
        p = len(self.params)
        if p > _DENSE:
            raise UnsupportedModel(
                f"Expected at most {_DENSE} parameters for a dense Hessian. Got {p}. Use an "
                "iterative solver such as whence.linalg.CG(), or select fewer with params=."
            )
        hessian = self.hvp(torch.eye(p, dtype=self.params.dtype, device=self.params.device))
        return (hessian + hessian.T) / 2

    def examples(self, data: Data) -> ModuleExamples:
        """Check and encode a user's (x, y)."""
        if isinstance(data, ModuleExamples):
            return data
        found = self.encoder(data, self.train)
        check_accepted(lambda x: self.run(self.params, x), found, self.train)
        one = self.outputs(found.subset(np.arange(1)))
        self.loss.check_targets(one.expand(len(found), *one.shape[1:]), found.targets)
        return found

    def outputs(self, examples: Examples) -> Tensor:
        """Return f_θ̂(x), [b, ...]."""
        with torch.no_grad():
            return torch.cat([self.run(self.params, x) for _, x, _ in self._batches(examples)])

    def outputs_at(self, examples: Examples, deltas: Tensor) -> Tensor:
        """Return f_{θ̂+δ}(x) for each δ, [b, ..., k]."""
        columns = [self.at(self.params + delta).outputs(examples) for delta in deltas.unbind(1)]
        return torch.stack(columns, -1)

    def gradient_at(self, examples: Examples, weights: Tensor, deltas: Tensor) -> Tensor:
        """Return Σ_b weights[b, k] ∇ℓ(z_b, θ̂ + δ_k), [p, k], one column at a time."""
        pairs = zip(deltas.unbind(1), weights.T.unsqueeze(2), strict=True)
        at = ((self.at(self.params + delta), w) for delta, w in pairs)
        columns = [moved.gradient_sum(examples, self.loss, w) for moved, w in at]
        return torch.cat(columns, 1)

    def jvp(self, examples: Examples, v: Tensor) -> Tensor:
        """Return J V, [b, ..., k]."""
        parts = self._differentiated(examples)
        return torch.cat([pushforward(f, leaves, v).detach() for _, f, leaves, _ in parts])

    def vjp(self, examples: Examples, w: Tensor) -> Tensor:
        """Return Σ_b J_bᵀ W_b for W [b, ..., k], shape [p, k]."""
        total = self.params.new_zeros(w.shape[-1], len(self.params))
        for part, outputs, leaves, _ in self._differentiated(examples, twice=False):
            for row, cotangent in zip(total, w[part].unbind(-1), strict=True):
                if cotangent.any():
                    add_pullback(row, along(outputs, cotangent), leaves)
        return total.T

    def gradient_dot(self, examples: Examples, measure: Measure, v: Tensor) -> Tensor:
        """Return ∇m(z_b)ᵀ V, [b, k]."""
        dots = v.new_zeros(len(examples), v.shape[1])
        v = v.to(torch.bfloat16) if self.bf16 else v
        for part, x, y in self._batches(examples):
            for where, piece in self._pieces(x, y, measure):
                dots[part] += piece.dot(v[where])
        return dots

    def gradient_sum(self, examples: Examples, measure: Measure, w: Tensor) -> Tensor:
        """Return Σ_b W[b, k] ∇m(z_b), [p, k]."""
        if w.shape[1] <= _FEW:
            return self._weighted_gradients(examples, measure, w)
        total = torch.zeros(len(self.params), w.shape[1]).to(self.params)
        for part, x, y in self._batches(examples):
            for where, piece in self._pieces(x, y, measure):
                total[where] += piece.sum(w[part])
        return total

    def pieces(
        self, examples: Examples, measure: Measure
    ) -> Iterator[list[tuple[slice, Contribution]]]:
        """Yield ∇m of each micro-batch in pieces, with places in θ; those of one place add."""
        for _, x, y in self._batches(examples):
            yield list(self._pieces(x, y, measure))

    def hvp(self, v: Tensor) -> Tensor:
        """Return ∇²R(θ̂) V: one forward and one backward pass, and about two more per column."""
        n, columns = len(self.train), v.T.contiguous()
        total = columns * self.l2
        for part, outputs, leaves, y in self._differentiated(self.train):
            with torch.enable_grad():
                mean = self._finite((self.weights[part] * self.loss(outputs, y)).sum() / n)
                slope = gradient(mean, leaves)
            for row, column in zip(total, columns, strict=True):
                add_pullback(row, along(slope, column), leaves)
        return total.T

    def ggnvp(self, v: Tensor) -> Tensor:
        """Return ((1/n) Σ wᵢ Jᵢᵀ ∂²ℓ/∂f² Jᵢ + Ω″) V."""
        n = len(self.train)
        total = v.T.contiguous() * self.l2
        for part, outputs, leaves, y in self._differentiated(self.train):
            tangents = pushforward(outputs, leaves, v)
            curved = self._finite(self.loss.hvp(outputs.detach(), y, tangents))
            curved *= (self.weights[part] / n).reshape(-1, *[1] * (curved.ndim - 1))
            for row, cotangent in zip(total, curved.unbind(-1), strict=True):
                add_pullback(row, along(outputs, cotangent), leaves)
        return total.T

    def input_gradient(self, examples: Examples, v: Tensor) -> Tensor:
        """Return ∂/∂x (g_bᵀ v), in the shape of the inputs, [b, ...]."""
        each, batches = self.per_example, self._batches(examples)
        return torch.cat([each.input_gradient(x, y, self.loss, v) for _, x, y in batches])

    def lift(self, v: Tensor) -> Tensor:
        """Return V in the user's own parameters."""
        return self.lifted(v)

    def traced(
        self, cotangents: Callable[[Tensor, Tensor], Tensor], examples: Examples | None = None
    ) -> Iterator[tuple[slice, list[ModuleCall], Iterable[tuple[Tensor | None, ...]]]]:
        """Yield the calls of layers on each micro-batch, with the output gradients of each.

        Args:
            cotangents: From outputs and targets to r cotangents, [b, ..., r].
            examples: The examples; the training data if `None`.

        Yields:
            The slice of the examples; the calls of modules with selected parameters; for each of
            the r cotangents the gradients in the outputs of every call.
        """
        for part, x, y in self._batches(self.train if examples is None else examples):
            calls, passes = self.per_example.passes(
                x, y, lambda f, t: self._finite(cotangents(f, t))
            )
            yield part, calls, passes

    def cotangent(self, measure: Measure, outputs: Tensor, y: Tensor) -> Tensor:
        """Return ∂m/∂f in the outputs f [b, ...], or raise where it or m is not finite."""
        self._finite(measure(outputs, y))
        return self._finite(measure.gradient(outputs, y))

    def run(self, params: Tensor, inputs: Any) -> Tensor:
        """Return f_θ(x) at any θ, [p]."""
        return self.module(self.module.split(params), inputs)

    @cached_property
    def per_example(self) -> PerExample:
        """The per-example gradients at θ̂."""
        return PerExample(
            module=self.module,
            params=self.params,
            factored=self.factored,
            shared=self.shared,
            bf16=self.bf16,
            mapped=self.mapped,
        )

    def _pieces(self, x: Any, y: Tensor, measure: Measure) -> Iterator[tuple[slice, Contribution]]:
        """Yield pieces of ∇m of the examples of a batch."""
        return self.per_example.pieces(x, y, lambda f, t: self.cotangent(measure, f, t))

    def _batches(self, examples: Examples) -> Iterator[tuple[slice, Any, Tensor]]:
        """Yield micro-batches."""
        if not isinstance(examples, ModuleExamples):
            raise InvalidInput(
                f"Expected examples made by this objective's .examples(data). Got {type(examples)}."
            )
        return examples.batches(self.batch_size)

    def _differentiated(
        self, examples: Examples, *, twice: bool = True
    ) -> Iterator[tuple[slice, Tensor, list[Leaf], Tensor]]:
        """Yield micro-batches with outputs, and the parameters as leaves with their places."""
        for part, x, y in self._batches(examples):
            outputs, leaves = self.module.differentiated(self.params, x, twice=twice)
            yield part, outputs, leaves, y

    def _finite(self, found: Tensor) -> Tensor:
        """Return what was found, or say which training example made it infinite or NaN."""
        if torch.isfinite(found.sum()) or torch.isfinite(found).all():
            return found
        for part, x, y in self._batches(self.train):
            with torch.no_grad():
                check_finite(self.loss(self.run(self.params, x), y), self.train.ids[part])
        raise derivatives_not_finite()

    def _weighted_gradients(self, examples: Examples, measure: Measure, w: Tensor) -> Tensor:
        """Return Σ_b W[b, k] ∇m(z_b), [p, k], by one backward pass per column."""
        total = empty_sums(len(self.params), w.shape[1], self.params)
        for part, x, y in self._batches(examples):
            outputs, leaves = self.module.differentiated(self.params, x, twice=False)
            slopes = self.cotangent(measure, outputs.detach(), y)
            parts = (c.reshape(-1, *[1] * (slopes.ndim - 1)) for c in w[part].unbind(1))
            values = [(k, along(outputs, slopes * c)) for k, c in enumerate(parts) if c.any()]
            del outputs, slopes  # of a language model each may be as large as its table of tokens
            while values:
                k, value = values.pop()
                add_pullback(total[k], value, leaves, last=not values)
        return total.T
