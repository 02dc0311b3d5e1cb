"""What a user gets back: a line in a terminal, a short card in a notebook, never an array."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    import pandas as pd

_ROWS = 20  # of a table on a card


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Card:
    """What a notebook shows of a result.

    Args:
        title: The result in a sentence.
        facts: Figures by name.
        table: Rows to show, the first twenty of them; `None` for none.
        words: What else is to be said, a sentence each.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    table: pd.DataFrame | None = None
    words: tuple[str, ...] = ()

    def html(self) -> str:
        """Return the card as HTML, every text escaped."""
        parts = [f"<p><strong>{escape(self.title)}</strong></p>"]
        if self.facts:
            cells = (
                f'<span style="display:inline-block;margin:0 1.5em .5em 0">'
                f'<span style="opacity:.7">{escape(name)}</span><br>'
                f"<strong>{escape(value)}</strong></span>"
                for name, value in self.facts.items()
            )
            parts.append(f"<p>{''.join(cells)}</p>")
        parts += [f"<p>{escape(sentence)}</p>" for sentence in self.words]
        if self.table is not None:
            shown = self.table.head(_ROWS)
            parts.append(str(shown.to_html(index=False, float_format="{:.4g}".format)))
            if len(self.table) > _ROWS:
                parts.append(f"<p>{len(self.table) - _ROWS:,} more rows in <code>to_frame()</code>")
        return (
            '<div style="border:1px solid #8886;border-radius:8px;padding:.6em 1em;'
            f'max-width:60em;overflow-x:auto">{"".join(parts)}</div>'
        )


class Result(ABC):
    """A result that prints in a line and shows as a card; its arrays are its attributes.

    A dataclass that is one is declared with `repr=False`.

    Examples:
        >>> class Answer(Result):
        ...     def card(self) -> Card:
        ...         return Card(title="42 of 100", facts={"p": "<0.1"})
        >>> Answer()
        <Answer: 42 of 100>
        >>> print(Answer())
        42 of 100
        >>> "&lt;0.1" in Answer()._repr_html_()
        True
    """

    @abstractmethod
    def card(self) -> Card:
        """Return what a notebook shows."""

    def __str__(self) -> str:
        """Return the title of the card: the result in a sentence."""
        return self.card().title

    def __repr__(self) -> str:
        """Return the same with the name of the class."""
        return f"<{type(self).__name__}: {self.card().title}>"

    def _repr_html_(self) -> str:
        """Return the card, for a notebook."""
        return self.card().html()
