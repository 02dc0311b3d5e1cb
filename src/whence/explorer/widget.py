"""The explorer below a cell of a notebook, whose kernel answers its script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whence.checked import converted
from whence.errors import InvalidInput, UnsupportedModel, WhenceError
from whence.explorer.routes import ROUTES
from whence.explorer.session import Session, Subject
from whence.pages import explorer_module

if TYPE_CHECKING:
    from anywidget import AnyWidget


def widget(subject: Subject) -> AnyWidget:
    """Return the explorer as a widget of a notebook.

    Args:
        subject: What is explored.

    Raises:
        UnsupportedModel: If anywidget is not installed.
    """
    try:
        from anywidget import AnyWidget
    except ImportError as error:
        raise UnsupportedModel(
            "Expected anywidget, which shows the explorer in a notebook. Got none. Install it: pip "
            "install 'whence-attribution[explore]'; or open a browser: notebook=False."
        ) from error

    class Explorer(AnyWidget):
        _esm = explorer_module()

        def __repr__(self) -> str:
            return f"Explorer of {len(subject.queries):,} predictions"

    session = Session(subject)
    shown = Explorer()
    shown.on_msg(lambda _, asked, __: shown.send(_answered(session, asked)))
    session.score()
    return shown


def _answered(session: Session, asked: dict[str, Any]) -> dict[str, Any]:
    """Answer a message: what its route returns, or in words what is wrong with it."""
    id, name = asked.get("id"), str(asked.get("name"))
    try:
        if name not in ROUTES:
            raise InvalidInput(f"Expected one of {', '.join(ROUTES)}. Got {name!r:.60}.")
        body = converted("body", asked.get("body"), dict[str, Any])
        return {"id": id, "content": ROUTES[name](session, body)}
    except WhenceError as error:
        return {"id": id, "error": str(error)}
    except Exception as error:  # else the page would wait for ever; a server answers 500
        return {"id": id, "error": f"{type(error).__name__}: {error}"}
