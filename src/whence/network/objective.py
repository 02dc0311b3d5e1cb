r"""Any torch module as an objective: the same products, by differentiation, in micro-batches.

Derivatives along directions are taken in reverse twice: u ↦ Jᵀu is linear, so its own derivative
in u along V is J V; ∇R is a graph, and its derivative along V is ∇²R V. Both work wherever the
module can be differentiated twice, and all columns of V share one forward and one backward pass.
Per-example gradients factor where `layers.contribution` has a rule that was seen to agree with
differentiation on this model; the other parameters are differentiated one example at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map

from whence.errors import InvalidInput, UnsupportedModel
from whence.network.autodiff import along, backward, call, forward, unfused_recurrence
from whence.network.checks import check_finite
from whence.network.gradients import Contribution, Rows
from whence.network.layers import Use, contribution, recorded
from whence.network.precision import product_dtype
from whence.objective.losses import Loss
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.trained import Examples

_DENSE = 5_000  # parameters up to which the Hessian is formed
BATCH = 1_024  # examples differentiated at once, at most
_FEW = 2  # columns up to which a backward pass each is cheaper than factored gradients
PROBE = 3  # examples on which each rule must agree with differentiation
_HALF_AGREEMENT = 0.05  # of the largest output, between bfloat16 and the model's own precision


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ModuleExamples(Examples):
    """Examples as a module takes them.

    Args:
        inputs: A tensor [b, ...], or tensors in any nesting of tuples, lists and dicts.
        targets: Targets, [b] or [b, ...].
        ids: The user's names, [b].
    """

    inputs: Any
    targets: Tensor
    ids: NDArray[Any]

    def subset(self, indices: NDArray[np.intp]) -> ModuleExamples:
        """Return the examples at these positions."""
        where = torch.as_tensor(indices, device=self.targets.device)
        return ModuleExamples(
            inputs=tree_map(lambda part: part[where], self.inputs),
            targets=self.targets[where],
            ids=self.ids[indices],
        )

    def batches(self, size: int) -> Iterator[tuple[slice, Any, Tensor]]:
        """Yield slices of at most `size` examples with their inputs and targets."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield part, tree_map(lambda tensor, s=part: tensor[s], self.inputs), self.targets[part]


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ModuleObjective(Objective):
    """R(θ) of a torch module, θ its selected parameters, flat; made by `module_objective`.

    Args:
        model: A copy of the module; its other parameters are constants.
        shapes: Name and shape of each selected parameter, in the order of θ.
        loss: ℓ.
        train: The training examples.
        weights: wᵢ >= 0, [n].
        params: θ̂, [p].
        l2: The penalty per parameter, [p].
        encode: Checks and encodes a user's queries.
        refit_with: Fits it again with other weights: (objective, weights [n]) -> objective.
        batch_size: Examples that are differentiated at once; changes memory, not the answer.
        factored: The selected parameters whose per-example gradients factor.
        spread: Those of them whose module is called once for all examples of a batch.
        half: Whether per-example gradients come from passes in bfloat16, by torch's autocast.
        convex: Whether R is known to be convex.
        notes: What a reader of the results must know, a sentence each.
        classes: The user's names of the classes.
    """

    model: nn.Module
    shapes: Mapping[str, torch.Size]
    loss: Loss
    train: ModuleExamples
    weights: Tensor
    params: Tensor
    l2: Tensor
    encode: Callable[[Any], ModuleExamples]
    refit_with: Callable[[ModuleObjective, Tensor], Objective]
    batch_size: int = BATCH
    factored: frozenset[str] = frozenset()
    spread: frozenset[str] = frozenset()
    half: bool = False
    convex: bool = False
    notes: tuple[str, ...] = ()
    classes: tuple[Any, ...] = ()
    slope: None = None

    @property
    def trained_loss(self) -> Loss:  # type: ignore[override]
        """ℓ as it was minimized: the same."""
        return self.loss

    def at(self, params: Tensor) -> ModuleObjective:
        """Return the same objective expanded at other parameters, [p]."""
        if params.shape != self.params.shape:
            raise InvalidInput(
                f"Expected {len(self.params)} parameters. Got shape {tuple(params.shape)}. "
                "Flatten the selected parameters in the model's order."
            )
        return replace(self, params=params.to(self.params))

    def reweighted(self, weights: Tensor) -> ModuleObjective:
        """Return the same objective with other example weights, [n]."""
        return replace(self, weights=weights)

    def refit(self, weights: Tensor | None = None) -> Objective:
        """Return the objective at its minimum under other example weights, [n]."""
        return self.refit_with(self, self.weights if weights is None else weights)

    def restricted(self, indices: NDArray[np.intp]) -> ModuleObjective:
        """Return the objective of these training examples alone."""
        train, weights = self.train.subset(indices), self.weights[torch.as_tensor(indices)]
        return replace(self, train=train, weights=weights)

    def halved(self) -> ModuleObjective:
        """Return the same objective with per-example gradients from passes in bfloat16.

        Where the hardware is made for it that halves their time; each gradient is off by 1 % or
        so, and the memory of a batch holds twice the examples. A model that does not run under
        autocast, or gives other outputs there, stays as it is.
        """
        if not self._bears_autocast:
            return self
        return replace(self, half=True, batch_size=2 * self.batch_size)

    def within(self, rtol: float) -> ModuleObjective:
        """Return the objective with gradients as rough as an error allows: `halved`, or itself."""
        dtype = self.params.dtype
        return self if product_dtype(dtype, self.params.device, rtol) == dtype else self.halved()

    @cached_property
    def _bears_autocast(self) -> bool:
        """Whether outputs under autocast are the same but for rounding."""
        few = self.train.subset(np.arange(min(PROBE, len(self.train)))).inputs
        with torch.no_grad():
            exact = self.run(self.params, few)
            try:
                rough = replace(self, half=True)._first_order(self.params, few)
            except (RuntimeError, TypeError, ValueError):  # its own code is particular about dtypes
                return False
        return bool((exact - rough).abs().max() <= _HALF_AGREEMENT * exact.abs().max())

    def narrowed(self, names: Collection[str]) -> ModuleObjective:
        """Return the same objective in some of its parameters, the others constants at θ̂."""
        if len(names) == len(self.shapes):
            return self
        model = copy.deepcopy(self.model)
        own = dict(model.named_parameters())
        for name, at in self.slices.items():
            own[name].data.copy_(self.params[at].view(self.shapes[name]))
        kept = {name: shape for name, shape in self.shapes.items() if name in names}
        where = [self.slices[name] for name in kept]
        return replace(
            self,
            model=model,
            shapes=kept,
            params=torch.cat([self.params[at] for at in where]),
            l2=torch.cat([self.l2[at] for at in where]),
            factored=self.factored & frozenset(kept),
            spread=self.spread & frozenset(kept),
        )

    def flat_directions(self) -> Tensor:
        """Return no directions: none are known of an arbitrary module, [p, 0]."""
        return self.params.new_zeros(len(self.params), 0)

    def dense_hessian(self) -> Tensor:
        """Return ∇²R(θ̂), [p, p], column by column.

        Cost: p Hessian-vector products; refused above 5,000 parameters.
        """
        p = len(self.params)
        if p > _DENSE:
            raise UnsupportedModel(
                f"Expected at most {_DENSE} parameters for a dense Hessian. Got {p}. Use an "
                "iterative solver such as whence.linalg.CG(), or select fewer with params=."
            )
        hessian = self.hvp(torch.eye(p, dtype=self.params.dtype, device=self.params.device))
        return (hessian + hessian.T) / 2

    def examples(self, data: Any) -> ModuleExamples:
        """Check and encode a user's (x, y)."""
        return data if isinstance(data, ModuleExamples) else self.encode(data)

    def outputs(self, examples: Examples) -> Tensor:
        """Return f_θ̂(x), [b, ...]."""
        with torch.no_grad():
            parts = [self.run(self.params, x) for _, x, _ in self._batches(examples)]
        return torch.cat(parts)

    def outputs_at(self, examples: Examples, deltas: Tensor) -> Tensor:
        """Return f_{θ̂+δ}(x) for each δ, [b, ..., k]."""
        columns = [self.at(self.params + delta).outputs(examples) for delta in deltas.unbind(1)]
        return torch.stack(columns, -1)

    def gradient_at(self, examples: Examples, weights: Tensor, deltas: Tensor) -> Tensor:
        """Return Σ_b weights[b, k] ∇ℓ(z_b, θ̂ + δ_k), [p, k], one column at a time."""
        columns = [
            self.at(self.params + delta).gradient_sum(examples, self.loss, w.unsqueeze(1))
            for delta, w in zip(deltas.unbind(1), weights.unbind(1), strict=True)
        ]
        return torch.cat(columns, 1)

    def jvp(self, examples: Examples, v: Tensor) -> Tensor:
        """Return J V, [b, ..., k]."""
        parts = []
        for _, x, _ in self._batches(examples):
            with self.attached() as leaf:
                outputs = self.run(leaf, x)
                parts.append(torch.stack(forward(outputs, leaf, v), -1))
        return torch.cat(parts)

    def vjp(self, examples: Examples, w: Tensor) -> Tensor:
        """Return Σ_b J_bᵀ W_b for W [b, ..., k], shape [p, k]."""
        total = self.params.new_zeros(w.shape[-1], len(self.params))
        for part, x, _ in self._batches(examples):
            with self.attached() as leaf:
                outputs = self.run(leaf, x)
                for row, cotangent in zip(total, w[part].unbind(-1), strict=True):
                    if cotangent.any():
                        row += backward(outputs, leaf, cotangent)
        return total.T

    def gradient_dot(self, examples: Examples, measure: Measure, v: Tensor) -> Tensor:
        """Return ∇m(z_b)ᵀ V, [b, k]."""
        dots = v.new_zeros(len(examples), v.shape[1])
        v = v.to(torch.bfloat16) if self.half else v
        for part, x, y in self._batches(examples):
            for where, piece in self._gradients(x, y, measure):
                dots[part] += piece.dot(v[where])
        return dots

    def gradient_sum(self, examples: Examples, measure: Measure, w: Tensor) -> Tensor:
        """Return Σ_b W[b, k] ∇m(z_b), [p, k]."""
        if w.shape[1] <= _FEW:
            return self._weighted_gradients(examples, measure, w)
        total = torch.zeros(len(self.params), w.shape[1]).to(self.params)
        for part, x, y in self._batches(examples):
            for where, piece in self._gradients(x, y, measure):
                total[where] += piece.sum(w[part])
        return total

    def pieces(
        self, examples: Examples, measure: Measure
    ) -> Iterator[list[tuple[slice, Contribution]]]:
        """Yield ∇m of each micro-batch in pieces, each with its place in θ; those in one place add.

        Args:
            examples: The examples.
            measure: m.

        Yields:
            The pieces of the next micro-batch: together, all selected parameters that m depends on.
        """
        for _, x, y in self._batches(examples):
            yield list(self._gradients(x, y, measure))

    def gradient_products(
        self, examples: Examples, measure: Measure, v: Tensor, w: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return G V and Gᵀ W in one pass over the examples."""
        dots = self.params.new_zeros(len(examples), v.shape[1])
        total = self.params.new_zeros(len(self.params), w.shape[1])
        v = v.to(torch.bfloat16) if self.half else v
        for part, x, y in self._batches(examples):
            for where, piece in self._gradients(x, y, measure):
                along, summed = piece.products(v[where], w[part])
                dots[part] += along
                total[where] += summed
        return dots, total

    def hvp(self, v: Tensor) -> Tensor:
        """Return ∇²R(θ̂) V: one forward and one backward pass, and about two more per column."""
        n = len(self.train)
        total = (self.l2.unsqueeze(1) * v).T.contiguous()
        for part, x, y in self._batches(self.train):
            with self.attached() as leaf:
                losses = self.loss(self.run(leaf, x), y)
                mean = self._finite((self.weights[part] * losses).sum() / n)
                (gradient,) = torch.autograd.grad(mean, leaf, create_graph=True)
                if gradient.requires_grad:
                    for row, column in zip(total, v.unbind(1), strict=True):
                        row += backward(gradient, leaf, column)
        return total.T

    def ggnvp(self, v: Tensor) -> Tensor:
        """Return ((1/n) Σ wᵢ Jᵢᵀ ∂²ℓ/∂f² Jᵢ + Ω″) V."""
        n = len(self.train)
        total = (self.l2.unsqueeze(1) * v).T.contiguous()
        for part, x, y in self._batches(self.train):
            with self.attached() as leaf:
                outputs = self.run(leaf, x)
                tangents = torch.stack(forward(outputs, leaf, v), -1)
                curved = self._finite(self.loss.hvp(outputs.detach(), y, tangents))
                curved *= (self.weights[part] / n).reshape(-1, *[1] * (curved.ndim - 1))
                for row, cotangent in zip(total, curved.unbind(-1), strict=True):
                    row += backward(outputs, leaf, cotangent)
        return total.T

    def input_gradient(self, examples: Examples, v: Tensor) -> Tensor:
        """Return ∂/∂x (g_bᵀ v), in the shape of the inputs, [b, ...]."""
        parts = []
        for _, x, y in self._batches(examples):
            floating = [leaf for leaf in tree_leaves(x) if leaf.is_floating_point()]
            if len(floating) != 1:
                raise UnsupportedModel(
                    f"Expected one floating-point input to differentiate in. Got {len(floating)}. "
                    "Tokens are discrete: use whence.edit, or pass their embeddings as inputs."
                )
            x = tree_map(lambda t: t.clone().requires_grad_() if t.is_floating_point() else t, x)
            (moving,) = (leaf for leaf in tree_leaves(x) if leaf.is_floating_point())
            with self.attached() as leaf:
                losses = self.loss(self.run(leaf, x), y)
                (gradient,) = torch.autograd.grad(losses.sum(), leaf, create_graph=True)
                (mixed,) = torch.autograd.grad(gradient @ v, moving)
            parts.append(mixed)
        return torch.cat(parts)

    def lift(self, v: Tensor) -> Tensor:
        """Return V: the user's own parameters."""
        return v

    def traced(
        self, cotangents: Callable[[Tensor, Tensor], Tensor], examples: Examples | None = None
    ) -> Iterator[tuple[slice, list[Use], Iterator[tuple[Tensor | None, ...]]]]:
        """Yield, for each micro-batch of the training data, what its modules saw and got back.

        Args:
            cotangents: From outputs [b, ...] and targets to r cotangents of each, [b, ..., r].
            examples: Other examples instead.

        Yields:
            The slice of examples; the uses of the modules with selected parameters; and for each of
            the r cotangents the derivatives in the output of every use.
        """
        for part, x, y in self._batches(self.train if examples is None else examples):
            uses, passes = self.passes(x, y, lambda f, t: self._finite(cotangents(f, t)))
            yield part, uses, passes

    def cotangent(self, measure: Measure, outputs: Tensor, y: Tensor) -> Tensor:
        """Return ∂m/∂f, or raise where it or m is not finite.

        Args:
            measure: m.
            outputs: f, [b, ...].
            y: Targets.
        """
        self._finite(measure(outputs, y))
        return self._finite(measure.gradient(outputs, y))

    def passes(
        self, x: Any, y: Tensor, cotangents: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[list[Use], Iterator[tuple[Tensor | None, ...]]]:
        """Return what the modules saw of one batch, and what each cotangent sends back to them.

        Both are in the precision of the pass, module by module: to widen them takes longer than to
        multiply them.

        Args:
            x: Inputs of the batch.
            y: Targets of the batch.
            cotangents: As for `traced`.
        """
        with self.attached(twice=False):
            with self.recording(len(y)) as uses:
                outputs = self._first_order(self.params, x)
            drawn = cotangents(outputs.detach(), y).unbind(-1)
            pulled = [along(outputs, cotangent) for cotangent in drawn]
        if not outputs.requires_grad:  # they depend on no module with selected parameters
            return [], iter(())
        edges = [use.edge for use in uses]
        return uses, (
            torch.autograd.grad(one, edges, retain_graph=r < len(pulled), allow_unused=True)
            for r, one in enumerate(pulled, 1)
        )

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each selected parameter stands in θ."""
        places, start = {}, 0
        for name, shape in self.shapes.items():
            places[name] = slice(start, start + shape.numel())
            start += shape.numel()
        return places

    @cached_property
    def owners(self) -> dict[nn.Module, list[tuple[str, str]]]:
        """The modules that hold selected parameters: their own name for each, and its name in θ."""
        named = dict(self.model.named_parameters())
        known = {id(named[name]): name for name in self.shapes}
        owners: dict[nn.Module, list[tuple[str, str]]] = {}
        for module in self.model.modules():
            for own, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                if id(parameter) in known:
                    owners.setdefault(module, []).append((own, known[id(parameter)]))
        return owners

    def recording(self, b: int) -> AbstractContextManager[list[Use]]:
        """Return the record of a batch of b examples."""
        spread = [m for m, held in self.owners.items() if any(n in self.spread for _, n in held)]
        return recorded(list(self.owners), b, spread)

    def _batches(self, examples: Examples) -> Iterator[tuple[slice, Any, Tensor]]:
        """Yield micro-batches."""
        if not isinstance(examples, ModuleExamples):
            raise InvalidInput(
                f"Expected examples made by this objective's .examples(data). Got {type(examples)}."
            )
        return examples.batches(self.batch_size)

    def _finite(self, found: Tensor) -> Tensor:
        """Return what was found, or say which training example made it infinite or NaN."""
        if torch.isfinite(found.sum()) or torch.isfinite(found).all():
            return found
        for part, x, y in self._batches(self.train):
            with torch.no_grad():
                check_finite(self.loss(self.run(self.params, x), y), self.train.ids[part])
        raise InvalidInput(
            "Expected finite derivatives. Got NaN or infinity, though every training loss is "
            "finite. Check the queries, the gradient of the loss, and the scale of the inputs."
        )

    def run(self, params: Tensor, inputs: Any) -> Tensor:
        """Return f_θ(x)."""
        pieces = {name: params[at].view(self.shapes[name]) for name, at in self.slices.items()}
        return call(self.model, pieces, inputs)

    def _first_order(self, params: Tensor, inputs: Any) -> Tensor:
        """Return f_θ(x) for a pass that gives per-example gradients, by bfloat16 if so asked."""
        with torch.autocast(params.device.type, torch.bfloat16, enabled=self.half):
            outputs = self.run(params, inputs)
        return outputs.to(params.dtype)

    @contextmanager
    def attached(self, *, twice: bool = True) -> Iterator[Tensor]:
        """Yield θ̂ as a leaf to differentiate in, where everything differentiates twice, or once."""
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            # Fused attention differentiates only once, and on a GPU sums in any order.
            if twice or self.params.device.type != "cpu":
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if any(isinstance(module, nn.RNNBase) for module in self.model.modules()):
                stack.enter_context(unfused_recurrence())
            yield self.params.detach().requires_grad_()

    def _gradients(
        self, x: Any, y: Tensor, measure: Measure
    ) -> Iterator[tuple[slice, Contribution]]:
        """Yield pieces of the per-example gradients of a batch, and where they stand in θ."""
        if self.factored:
            yield from self._contributions(x, y, measure, self.factored)
        rest = [name for name in self.shapes if name not in self.factored]
        if rest:
            matrix = self.looped(x, y, lambda f, t: self.cotangent(measure, f, t))
            for name in rest:
                where = self.slices[name]
                yield where, Rows(matrix[:, where])

    def _contributions(
        self, x: Any, y: Tensor, measure: Measure, names: frozenset[str]
    ) -> Iterator[tuple[slice, Contribution]]:
        """Yield the factored gradients of the named parameters, use by use."""
        uses, passes = self.passes(x, y, lambda f, t: self.cotangent(measure, f, t).unsqueeze(-1))
        for use, delta in zip(uses, next(passes, ()), strict=True):
            if delta is None:
                continue
            for own, name in self.owners[use.module]:
                if name in names:
                    piece = contribution(use, own, delta, len(y))
                    if piece is None:
                        raise InvalidInput(
                            f"Expected {type(use.module).__name__} to see one row per example, as "
                            f"it did in the probe. Got input shape {tuple(use.inputs.shape)} for "
                            f"{len(y)} examples. Report this model to whence."
                        )
                    yield self.slices[name], piece

    def looped(self, x: Any, y: Tensor, cotangents: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return Jᵀu of each example of a batch, differentiated alone, [b, p].

        Args:
            x: Inputs of the batch.
            y: Targets of the batch.
            cotangents: From outputs and targets to u, in the shape of the outputs.
        """
        rows = []
        for b in range(len(y)):
            one = slice(b, b + 1)
            with self.attached() as leaf:
                outputs = self.run(leaf, tree_map(lambda t, s=one: t[s], x))
                rows.append(backward(outputs, leaf, cotangents(outputs.detach(), y[one])))
        return torch.stack(rows)

    def _weighted_gradients(self, examples: Examples, measure: Measure, w: Tensor) -> Tensor:
        """Return Σ_b W[b, k] ∇m(z_b), [p, k], by one backward pass per column."""
        total = self.params.new_zeros(w.shape[1], len(self.params))
        for part, x, y in self._batches(examples):
            with self.attached(twice=False) as leaf:
                outputs = self.run(leaf, x)
                cotangent = self.cotangent(measure, outputs.detach(), y)
                for row, weight in zip(total, w[part].unbind(1), strict=True):
                    if weight.any():
                        scaled = cotangent * weight.reshape(-1, *[1] * (cotangent.ndim - 1))
                        row += backward(outputs, leaf, scaled)
        return total.T
