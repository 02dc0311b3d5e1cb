"""Per-example gradients of a module: from the calls of its layers, mapped, or one at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves, tree_map

from whence.errors import InvalidInput, UnsupportedModel
from whence.network.autodiff import along, gradient
from whence.network.calls import ModuleCall
from whence.network.gradients import Contribution, Rows
from whence.network.layers import contribution, watched_calls
from whence.network.module import FunctionalModule
from whence.network.shared import Shared, calls_of
from whence.objective.losses import Loss

_BF16_AGREEMENT = 0.05  # of the largest output, between bfloat16 and the model's own precision

UNMAPPED = (RuntimeError, ValueError, TypeError, IndexError)  # what torch says of no mapping

Cotangents = Callable[[Tensor, Tensor], Tensor]


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class PerExample:
    """The gradients of each example of a batch at one θ.

    Parameters of layers with a rule take one forward and one backward pass of the batch. The other
    parameters, unless no example of the batch reaches them, are differentiated by a pass that
    `torch.func.vmap` maps over the examples, or one example at a time.

    Args:
        module: f.
        params: θ, [p].
        factored: The selected parameters whose layers have a rule.
        shared: Those of them of which a pass is given a copy for each example.
        bf16: Whether forward passes are in bfloat16, by torch's autocast.
        mapped: Whether passes can be mapped over examples.
    """

    module: FunctionalModule
    params: Tensor
    factored: frozenset[str]
    shared: Shared
    bf16: bool
    mapped: bool = False

    def outputs(self, inputs: Any, given: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return f_θ(x) of a pass whose gradients are not differentiated again, [b, ...].

        Args:
            inputs: x of a batch.
            given: What stands in place of some parameters, by name.
        """
        values = {**self.module.split(self.params), **(given or {})}
        with torch.autocast(self.params.device.type, torch.bfloat16, enabled=self.bf16):
            # Fused attention kernels of a GPU sum in any order.
            exact = self.params.device.type != "cpu"
            outputs: Tensor = self.module(values, inputs, twice=exact)
        return outputs.to(self.params.dtype)

    def runs_in_bf16(self, inputs: Any) -> bool:
        """Return whether the outputs of a pass in bfloat16 are the same but for rounding."""
        with torch.no_grad():
            exact = replace(self, bf16=False).outputs(inputs)
            try:
                rough = replace(self, bf16=True).outputs(inputs)
            except (RuntimeError, TypeError, ValueError):  # its own code is particular about dtypes
                return False
        return bool((exact - rough).abs().max() <= _BF16_AGREEMENT * exact.abs().max())

    def input_gradient(self, x: Any, y: Tensor, loss: Loss, v: Tensor) -> Tensor:
        """Return ∂/∂x (g_bᵀ v), in the shape of the one floating-point input, [b, ...].

        Args:
            x: Inputs of the batch.
            y: Targets of the batch.
            loss: ℓ.
            v: A direction in θ, [p].
        """
        floating = [leaf for leaf in tree_leaves(x) if leaf.is_floating_point()]
        if len(floating) != 1:
            raise UnsupportedModel(
                f"Expected one floating-point input to differentiate in. Got {len(floating)}. "
                "Tokens are discrete: use whence.edit, or pass their embeddings as inputs."
            )
        x = tree_map(lambda t: t.clone().requires_grad_() if t.is_floating_point() else t, x)
        (moving,) = (leaf for leaf in tree_leaves(x) if leaf.is_floating_point())
        with torch.enable_grad():
            outputs, leaves = self.module.differentiated(self.params, x, twice=True)
            slope = gradient(loss(outputs, y).sum(), leaves)
            mixed: Tensor
            (mixed,) = torch.autograd.grad(slope @ v, moving, materialize_grads=True)
        return mixed

    def watched(self, b: int) -> AbstractContextManager[list[ModuleCall]]:
        """Return a context that lists the calls of layers on a batch of b examples."""
        owners = self.module.owners
        expanded = [m for m, held in owners.items() if any(n in self.shared.read for _, n in held)]
        return watched_calls(owners, b, expanded, self.module.readers)

    def passes(
        self, x: Any, y: Tensor, cotangents: Cotangents
    ) -> tuple[list[ModuleCall], Iterator[tuple[Tensor | None, ...]]]:
        """Return the calls of layers on one batch, and the output gradients of each cotangent.

        Both are in the precision of the pass, layer by layer: to widen them takes longer than to
        multiply them.

        Args:
            x: Inputs of the batch.
            y: Targets of the batch.
            cotangents: From outputs and targets to r cotangents, [b, ..., r].
        """
        with torch.enable_grad():
            leaves = self.shared.leaves(self.module.split(self.params), len(y))
            with self.module.lock, self.watched(len(y)) as calls:
                outputs = self.outputs(x, leaves)
            calls += calls_of(leaves)
            drawn = cotangents(outputs.detach(), y).unbind(-1)
            if not outputs.requires_grad or not calls:  # no layer with selected parameters counts
                return [], iter(())
            values = [along(outputs, cotangent) for cotangent in drawn]
        edges = [call.edge for call in calls]
        return calls, (
            tuple(
                None if delta is None else delta.reshape(call.shape)
                for call, delta in zip(calls, found, strict=True)
            )
            for found in (
                torch.autograd.grad(one, edges, retain_graph=r < len(values), allow_unused=True)
                for r, one in enumerate(values, 1)
            )
        )

    def pieces(
        self, x: Any, y: Tensor, cotangent: Cotangents
    ) -> Iterator[tuple[slice, Contribution]]:
        """Yield pieces of the per-example gradients of a batch, with their places in θ.

        Args:
            x: Inputs of the batch.
            y: Targets of the batch.
            cotangent: From outputs and targets to ∂m/∂f, in the shape of the outputs.
        """
        if self.factored:
            yield from self._factored(x, y, cotangent)
        rest = [name for name in self.module.shapes if name not in self.factored]
        if rest and (found := self._reached(x, y, cotangent, rest)):
            matrix = self.each(x, y, cotangent, found)
            sizes = [self.module.shapes[name].numel() for name in found]
            for name, columns in zip(found, torch.split(matrix, sizes, 1), strict=True):
                yield self.module.slices[name], Rows(columns)

    def each(self, x: Any, y: Tensor, cotangent: Cotangents, names: list[str]) -> Tensor:
        """Return Jᵀu of each example of a batch in some parameters, [b, ·].

        Args:
            x: Inputs of the batch.
            y: Targets of the batch.
            cotangent: From outputs and targets to u, in the shape of the outputs.
            names: The parameters, in the order of θ.
        """
        if self.mapped and len(y) > 1:
            try:
                return self.at_once(x, y, cotangent, names)
            except UNMAPPED:  # of other batches it depends on their values what the module does
                pass
        return self.looped(x, y, cotangent, names)

    def at_once(self, x: Any, y: Tensor, cotangent: Cotangents, names: list[str]) -> Tensor:
        """Return the same from one pass that is mapped over the examples, or raise `UNMAPPED`.

        Args:
            x: Inputs of the batch.
            y: Targets of the batch.
            cotangent: From outputs and targets to u, in the shape of the outputs.
            names: The parameters, in the order of θ.
        """
        pieces = self.module.split(self.params.detach())
        with torch.no_grad():
            slopes = cotangent(self.module(pieces, x, twice=True), y)

        def of_one(x: Any, slope: Tensor) -> dict[str, Tensor]:
            alone = tree_map(lambda part: part.unsqueeze(0), x)
            _, pulled = torch.func.vjp(  # type: ignore[misc]
                lambda held: self.module({**pieces, **held}, alone, twice=True),
                {name: pieces[name] for name in names},
            )
            (found,) = pulled(slope.unsqueeze(0))
            return found  # type: ignore[no-any-return]

        with warnings.catch_warnings():  # some operations are looped over, within the pass
            warnings.filterwarnings("ignore", message="There is a performance drop")
            found = torch.func.vmap(of_one)(x, slopes)
        return torch.cat([found[name].flatten(1) for name in names], 1)

    def looped(
        self, x: Any, y: Tensor, cotangent: Cotangents, names: list[str] | None = None
    ) -> Tensor:
        """Return Jᵀu of each example of a batch, differentiated alone, [b, p].

        Args:
            x: Inputs of the batch.
            y: Targets of the batch.
            cotangent: From outputs and targets to u, in the shape of the outputs.
            names: The parameters to differentiate in, in the order of θ; all if `None`.
        """
        chosen = [*self.module.shapes] if names is None else names
        sizes = [self.module.shapes[name].numel() for name in chosen]
        rows = self.params.new_zeros(len(y), sum(sizes))
        for b, row in enumerate(rows):
            one = slice(b, b + 1)
            found = self.alone(tree_map(lambda t, s=one: t[s], x), y[one], cotangent, chosen)
            for piece, place in zip(found.values(), torch.split(row, sizes), strict=True):
                place += piece.reshape(-1)
        return rows

    def alone(
        self, x: Any, y: Tensor, cotangent: Cotangents, names: list[str] | None = None
    ) -> dict[str, Tensor]:
        """Return the gradient of the sum of a batch by differentiation, by parameter.

        Args:
            x: Inputs of the batch: of one example.
            y: Targets of the batch.
            cotangent: From outputs and targets to u, in the shape of the outputs.
            names: The parameters to differentiate in; all if `None`.
        """
        chosen = [*self.module.shapes] if names is None else names
        found = self._differentiated(x, y, cotangent, chosen)
        return {
            name: self.params.new_zeros(self.module.shapes[name]) if piece is None else piece
            for name, piece in zip(chosen, found, strict=True)
        }

    def visit_alone(
        self,
        x: Any,
        y: Tensor,
        cotangent: Cotangents,
        names: Sequence[str],
        visit: Callable[[str, Tensor], None],
        *,
        twice: bool = True,
    ) -> None:
        """Call a function with the gradient of the sum of a batch, a parameter at a time.

        Each gradient is freed after its call: together they are as large as θ. A tied weight has
        one for each use; those of tables may be sparse in their rows.

        Args:
            x: Inputs of the batch: of one example.
            y: Targets of the batch.
            cotangent: From outputs and targets to u, in the shape of the outputs.
            names: The parameters to differentiate in.
            visit: Called for each use of a parameter that the outputs depend on, in any order.
            twice: Whether by operations that can be differentiated twice, not those of `passes`.
        """
        with torch.enable_grad():
            values = self.module.split(self.params)
            outputs, leaves = self.module.apart(values, names, x, twice=twice)
            if not outputs.requires_grad:
                return
            value = along(outputs, cotangent(outputs.detach(), y))
        del outputs

        def freed(name: str) -> Callable[[Tensor], None]:
            def on_gradient(leaf: Tensor) -> None:
                found, leaf.grad = leaf.grad, None
                if found is not None:  # a function of the user's own may say that it has none
                    visit(name, found)

            return on_gradient

        for use, leaf in leaves.items():
            hook = freed(self.module.uses[use])
            leaf.register_post_accumulate_grad_hook(hook)
        torch.autograd.backward(value, inputs=list(leaves.values()))

    def depends(self, x: Any) -> bool:
        """Return whether the outputs of a batch depend on any selected parameter."""
        nothing = self.params.new_empty(0)  # is stored, as nothing is differentiated
        with saved_tensors_hooks(lambda _: nothing, lambda stored: stored):
            return self._outputs_of(x, [*self.module.shapes])[0].requires_grad

    def _reached(self, x: Any, y: Tensor, cotangent: Cotangents, names: list[str]) -> list[str]:
        """Return those of some parameters on which the measure of any example depends."""
        if len(y) == 1:
            return names
        found = self._differentiated(x, y, cotangent, names)
        return [name for name, piece in zip(names, found, strict=True) if piece is not None]

    def _differentiated(
        self, x: Any, y: Tensor, cotangent: Cotangents, names: list[str]
    ) -> Sequence[Tensor | None]:
        """Return Σ_b Jᵀu in some parameters, the others constants; `None` where it is constant."""
        outputs, leaves = self._outputs_of(x, names)
        if not outputs.requires_grad:
            return [None] * len(names)
        with torch.enable_grad():
            value = along(outputs, cotangent(outputs.detach(), y))
            return torch.autograd.grad(value, [*leaves.values()], allow_unused=True)

    def _outputs_of(self, x: Any, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return f of a batch as a function of some parameters, and these as leaves."""
        pieces = self.module.split(self.params)
        with torch.enable_grad():
            leaves = {name: pieces[name].detach().requires_grad_() for name in names}
            return self.module({**pieces, **leaves}, x, twice=True), leaves

    def _factored(
        self, x: Any, y: Tensor, cotangent: Cotangents
    ) -> Iterator[tuple[slice, Contribution]]:
        """Yield the gradients of parameters with a rule, call by call."""
        calls, passes = self.passes(x, y, lambda f, t: cotangent(f, t).unsqueeze(-1))
        for call, delta in zip(calls, next(passes, ()), strict=True):
            if delta is None:
                continue
            for own, name in call.names:
                if name in self.factored:
                    piece = contribution(call, own, delta, len(y))
                    if piece is None:
                        raise InvalidInput(
                            f"Expected {type(call.module).__name__} to get one row of input per "
                            f"example, as in the probe. Got shape {tuple(call.inputs.shape)} for "
                            f"{len(y)} examples. Report this model to whence."
                        )
                    yield self.module.slices[name], piece
