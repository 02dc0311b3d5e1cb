"""Methods of modules that read a table once for the batch, and give what was read in another form.

The relative positions of T5 are read as [t, t, heads] and given as [1, heads, t, t]; the prompt of
prompt tuning is read as [1, n, d] and given as [b, n, d]. What such a method gives is listed as the
call of its table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

Hook = Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any], Any], Any]


@dataclass(frozen=True, eq=False)
class Reader(ABC):
    """A method that reads a table.

    Args:
        owner: The module that has the method.
        table: The table.
    """

    method: ClassVar[str]
    owner: nn.Module
    table: nn.Module

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
class RelativePositions(Reader):
    """Of T5 and its kin: [t, t] rows, given as [1, heads, t, t]."""

    method = "compute_bias"

    def listed(self, hook: Hook, read: list[Tensor], found: Tensor) -> Tensor:
        """Return them, expanded along the batch if the table is."""
        if found.ndim != 4 or not read:
            return found
        rows = hook(self.table, (read[0].unsqueeze(0),), {}, found.permute(0, 2, 3, 1))
        return rows.permute(0, 3, 1, 2)  # type: ignore[no-any-return]


@final
class Prompt(Reader):
    """Of prompt tuning: all rows, given as [b, n, d]."""

    method = "get_prompt"

    def listed(self, hook: Hook, read: list[Tensor], found: Tensor) -> Tensor:
        """Return them."""
        rows = torch.arange(found.shape[1], device=found.device).expand(len(found), -1)
        return hook(self.table, (rows,), {}, found)  # type: ignore[no-any-return]


def readers_of(model: nn.Module) -> list[Reader]:
    """Return the methods of modules that read a table once for the batch.

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
    return found


@contextmanager
def watched_readers(readers: Iterable[Reader], hook: Hook) -> Iterator[None]:
    """List each call of some methods while the context lasts."""
    with ExitStack() as stack:
        for reader in readers:
            stack.enter_context(reader.watched(hook))
        yield
