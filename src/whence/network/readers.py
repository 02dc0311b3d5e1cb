"""Uses of parameters that are no call of the module that holds them, listed as one.

The relative positions of T5 are read as [t, t, heads] and given as [1, heads, t, t]; the prompt of
prompt tuning is read as [1, n, d] and given as [b, n, d]; the vectors of IA3 scale what enters or
leaves another layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

Hook = Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any], Any], Any]


@dataclass(frozen=True, eq=False)
class Reader(ABC):
    """A module that uses what another one holds.

    Args:
        owner: The module.
        table: The one that holds the parameters.
    """

    owner: nn.Module
    table: nn.Module

    @abstractmethod
    def watched(self, hook: Hook) -> AbstractContextManager[None]:
        """Return a context that lists each use.

        Args:
            hook: Lists a call, and returns its output.
        """


class ReadingMethod(Reader):
    """One with a method that reads a table."""

    method: ClassVar[str]

    @abstractmethod
    def listed(self, hook: Hook, read: list[Tensor], found: Tensor) -> Tensor:
        """Return what the method gives, its rows listed as a call of the table.

        Args:
            hook: Lists a call, and returns its output.
            read: The rows that the table was asked for.
            found: What the method gives.
        """

    @contextmanager
    def watched(self, hook: Hook) -> Iterator[None]:
        """List each call of the method while the context lasts."""
        own, read = getattr(self.owner, self.method), list[Tensor]()

        def method(*arguments: Any, **named: Any) -> Any:
            read.clear()
            return self.listed(hook, read, own(*arguments, **named))

        handle = self.table.register_forward_pre_hook(lambda _, given: read.append(given[0]))
        setattr(self.owner, self.method, method)
        try:
            yield
        finally:
            delattr(self.owner, self.method)
            handle.remove()


@final
class RelativePositions(ReadingMethod):
    """Of T5 and its kin: [t, t] rows, given as [1, heads, t, t], or as [1, 1, heads, t, t]."""

    method = "compute_bias"

    def listed(self, hook: Hook, read: list[Tensor], found: Tensor) -> Tensor:
        """Return them, expanded along the batch if the table is."""
        if found.ndim not in (4, 5) or not read:
            return found
        between = found.shape[1 : found.ndim - 3]
        each = found.flatten(0, found.ndim - 4).permute(0, 2, 3, 1)
        rows = hook(self.table, (read[0].unsqueeze(0),), {}, each).permute(0, 3, 1, 2)
        return rows.unflatten(0, (-1, *between)) if between else rows  # type: ignore[no-any-return]


@final
class Prompt(ReadingMethod):
    """Of prompt tuning: all rows, given as [b, n, d]."""

    method = "get_prompt"

    def listed(self, hook: Hook, read: list[Tensor], found: Tensor) -> Tensor:
        """Return them."""
        rows = torch.arange(found.shape[1], device=found.device).expand(len(found), -1)
        return hook(self.table, (rows,), {}, found)  # type: ignore[no-any-return]


@final
class Scaling(Reader):
    """Of IA3: a vector times what enters a layer, or times what leaves it."""

    @contextmanager
    def watched(self, hook: Hook) -> Iterator[None]:
        """List each product while the context lasts."""
        owner: Any = self.owner
        scaled = list[Any]()

        def enters(module: nn.Module, given: tuple[Any, ...]) -> None:
            scaled[:] = given[:1]

        def entered(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (hook(self.table, (scaled.pop(),), {}, given[0]), *given[1:])

        def leaves(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            scaled[:] = [output]

        def left(module: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
            return hook(self.table, (scaled.pop(),), {}, output)

        if owner.is_feedforward:
            handles = [
                owner.register_forward_pre_hook(enters),
                owner.base_layer.register_forward_pre_hook(entered),
            ]
        else:
            handles = [
                owner.base_layer.register_forward_hook(leaves),
                owner.register_forward_hook(left),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def readers_of(model: nn.Module) -> list[Reader]:
    """Return the modules that use what others hold, of the kinds that are known.

    Args:
        model: A module of any kind.
    """
    found: list[Reader] = []
    for module in model.modules():
        table = module._modules.get("relative_attention_bias")
        if table is not None and hasattr(module, RelativePositions.method):
            found.append(RelativePositions(module, table))
        prompts = module._modules.get("prompt_encoder")
        if prompts is not None and hasattr(module, Prompt.method):
            prompt = prompts._modules.get(getattr(module, "active_adapter", ""))
            if prompt is not None and type(prompt).__name__ == "PromptEmbedding":
                found.append(Prompt(module, prompt.get_submodule("embedding")))
        scales = module._modules.get("ia3_l")
        if scales is not None and hasattr(module, "is_feedforward"):
            found.append(Scaling(module, scales))
    return found


@contextmanager
def watched_readers(readers: Iterable[Reader], hook: Hook) -> Iterator[None]:
    """List each use of some parameters while the context lasts."""
    with ExitStack() as stack:
        for reader in readers:
            stack.enter_context(reader.watched(hook))
        yield
