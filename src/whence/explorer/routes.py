"""What the script of the explorer can ask, by name: a server or a notebook's kernel answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from whence.checked import converted, whole
from whence.errors import InvalidInput
from whence.explorer import answers
from whence.explorer.log import log_page, script
from whence.explorer.session import Session, State
from whence.explorer.steps import Edit, Relabel, Remove, Step
from whence.pages import render

Route = Callable[[Session, dict[str, Any]], dict[str, Any]]


def _int(asked: dict[str, Any], name: str) -> int:
    """Return a whole number that was asked about."""
    return whole(name, asked.get(name))


def _positions(asked: dict[str, Any], name: str = "positions") -> tuple[int, ...]:
    """Return positions that were asked about."""
    found: tuple[int, ...] = converted(name, asked.get(name, []), tuple[int, ...])
    return found


def _row(session: Session, asked: dict[str, Any]) -> dict[str, Any]:
    """Answer what is asked about one training row."""
    position, n = _int(asked, "position"), len(session.state.model.train)
    if not 0 <= position < n:
        raise InvalidInput(f"Expected a training row from 0 to {n - 1}. Got {position}.")
    return answers.row(session.state, position)


def _taken(session: Session, steps: list[Step], asked: dict[str, Any]) -> dict[str, Any]:
    """Take steps and answer what came of them."""
    query = _int(asked, "query")
    return _after(session, session.take(steps, query), query)


def _after(session: Session, before: State, query: int) -> dict[str, Any]:
    """Answer what the session is now, beside what it was."""
    session.score()
    return {
        "before": answers.answer(before, query),
        "after": answers.answer(session.state, query),
        "accuracy": [before.accuracy, session.state.accuracy],
        "steps": answers.steps(session.state),
    }


def _remove(session: Session, asked: dict[str, Any]) -> dict[str, Any]:
    """Remove the ticked rows."""
    return _taken(session, [Remove(positions=_positions(asked))], asked)


def _relabel(session: Session, asked: dict[str, Any]) -> dict[str, Any]:
    """Give a row another label."""
    step = Relabel(positions=(_int(asked, "position"),), labels=(str(asked.get("label")),))
    return _taken(session, [step], asked)


def _edit(session: Session, asked: dict[str, Any]) -> dict[str, Any]:
    """Give a row another cell."""
    step = Edit(
        position=_int(asked, "position"),
        column=_int(asked, "column"),
        value=str(asked.get("value", "")),
    )
    return _taken(session, [step], asked)


def _decide(session: Session, asked: dict[str, Any]) -> dict[str, Any]:
    """Retrain with the decisions on labels: some rows relabeled, some dropped."""
    relabeled = converted("relabel", asked.get("relabel", []), tuple[dict[str, Any], ...])
    steps: list[Step] = []
    if relabeled:
        positions = tuple(_int(each, "position") for each in relabeled)
        labels = tuple(str(each.get("label")) for each in relabeled)
        steps.append(Relabel(positions=positions, labels=labels))
    if dropped := _positions(asked, "drop"):
        steps.append(Remove(positions=dropped))
    if not steps:
        raise InvalidInput("Expected a decision to relabel or to drop a row. Got none.")
    return _taken(session, steps, asked)


def _undo(session: Session, asked: dict[str, Any]) -> dict[str, Any]:
    """Go back by a step."""
    query = _int(asked, "query")
    return _after(session, session.undo(), query)


ROUTES: dict[str, Route] = {
    "predictions": lambda session, asked: answers.predictions(session.state),
    "answer": lambda session, asked: answers.answer(session.state, _int(asked, "query")),
    "sizes": lambda session, asked: answers.sizes(
        session.state, _int(asked, "query"), list(_positions(asked))
    ),
    "rows": lambda session, asked: answers.rows(session.state),
    "row": _row,
    "flip": lambda session, asked: answers.flip(session.state, _int(asked, "query")),
    "groups": lambda session, asked: answers.groups(
        session.state, _int(asked, "query"), _int(asked, "column")
    ),
    "suspects": lambda session, asked: answers.suspects(session.state),
    "remove": _remove,
    "relabel": _relabel,
    "edit": _edit,
    "decide": _decide,
    "undo": _undo,
    "log_page": lambda session, asked: {"text": render(log_page(session.state))},
    "log_script": lambda session, asked: {"text": script(session.state)},
}
