"""The explorer's pages and routes, for one person on one machine."""

from __future__ import annotations

import hmac
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from whence.checked import converted, whole
from whence.errors import InvalidInput, UnsupportedModel, WhenceError
from whence.explorer import answers
from whence.explorer.log import log_page, script
from whence.explorer.session import Session, Subject
from whence.explorer.steps import Edit, Relabel, Remove, Step
from whence.pages import ExplorePage, render

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HEADER = "X-Whence-Token"
_ADDRESS = "127.0.0.1"
_STARTING = 30.0  # seconds that the server may take to answer
_LARGEST = 1_000_000  # bytes of a request

Route = Callable[[Session, dict[str, Any]], dict[str, Any]]


@contextmanager
def serving(subject: Subject, *, port: int = 0) -> Iterator[str]:
    """Serve the explorer on this machine alone, and stop on exit.

    Args:
        subject: What is explored.
        port: Where; a free one if 0.

    Yields:
        The address, with the token without which nothing answers.

    Raises:
        UnsupportedModel: If starlette or uvicorn is not installed.
        InvalidInput: If the port is taken.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise UnsupportedModel(
            "Expected the packages of the explorer. Got none. Install them: pip install "
            "'whence-attribution[explore]'."
        ) from error
    token = secrets.token_urlsafe(24)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind((_ADDRESS, port))
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"Expected a free port. Got {port}: {error.strerror}. Leave --port out."
        ) from error
    session = Session(subject)
    app = application(session, token)
    config = uvicorn.Config(app, log_level="error", access_log=False, server_header=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + _STARTING
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        session.score()
        yield f"http://{_ADDRESS}:{listener.getsockname()[1]}/?token={token}"
    finally:
        server.should_exit = True
        thread.join(_STARTING)
        session.close()
        listener.close()


def application(session: Session, token: str) -> Starlette:
    """Return the web application.

    A request must name this machine as its host, so that no page elsewhere reaches it through a
    name of its own, and bring the token: in the address of the page, and in a header of every
    other route, which no other page can send.

    Args:
        session: The exploration.
        token: The secret.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
    from starlette.routing import Route as Path

    headers = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
    }

    def refused() -> Response:
        return PlainTextResponse("Open the address that whence printed.", 403, headers=headers)

    def allowed(given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode(), token.encode())

    def page(request: Request) -> Response:
        if not allowed(request.query_params.get("token")):
            return refused()
        return HTMLResponse(render(_page(session, token)), headers=headers)

    def saved(request: Request) -> Response:
        if not allowed(request.headers.get(HEADER)):
            return refused()
        if request.url.path.endswith(".py"):
            return PlainTextResponse(script(session.state), headers=headers)
        return HTMLResponse(render(log_page(session.state)), headers=headers)

    def api(route: Route) -> Callable[[Request], Any]:
        async def respond(request: Request) -> Response:
            from starlette.concurrency import run_in_threadpool

            if not allowed(request.headers.get(HEADER)):
                return refused()
            try:
                asked = await _asked(request)
                content = await run_in_threadpool(route, session, asked)
            except WhenceError as error:
                return JSONResponse({"error": str(error)}, 400, headers=headers)
            return JSONResponse(content, headers=headers)

        return respond

    return Starlette(
        routes=[
            Path("/", page),
            Path("/log.html", saved),
            Path("/log.py", saved),
            *(Path(f"/api/{name}", api(route), methods=["POST"]) for name, route in _ROUTES),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[_ADDRESS, "localhost"])],
    )


async def _asked(request: Request) -> dict[str, Any]:
    """Return what a request asks, an object of JSON."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST:
            raise InvalidInput(f"Expected at most {_LARGEST:,} bytes. Got more.")
    import json

    try:
        found = json.loads(body or b"{}")
    except ValueError as error:
        raise InvalidInput("Expected JSON. Got something else.") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"Expected an object. Got {type(found).__name__}.")
    return found


def _page(session: Session, token: str) -> ExplorePage:
    """Return the page, whose script asks the routes."""
    subject = session.state.subject
    return ExplorePage(
        title="Explore the model",
        lead=subject.about[0] if subject.about else "",
        statuses=(),
        method="Candidates by influence to first order; those shown are refined where that is "
        "quick. Every step retrains the model.",
        command=subject.command,
        about=subject.about[1:],
        token=token,
        labeled=subject.labeled,
    )


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
    before = session.take(steps, query)
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
    query, before = _int(asked, "query"), session.undo()
    session.score()
    return {
        "before": answers.answer(before, query),
        "after": answers.answer(session.state, query),
        "accuracy": [before.accuracy, session.state.accuracy],
        "steps": answers.steps(session.state),
    }


_ROUTES: tuple[tuple[str, Route], ...] = (
    ("predictions", lambda session, asked: answers.predictions(session.state)),
    ("answer", lambda session, asked: answers.answer(session.state, _int(asked, "query"))),
    (
        "sizes",
        lambda session, asked: answers.sizes(
            session.state, _int(asked, "query"), list(_positions(asked))
        ),
    ),
    ("rows", lambda session, asked: answers.rows(session.state)),
    ("row", _row),
    ("flip", lambda session, asked: answers.flip(session.state, _int(asked, "query"))),
    (
        "groups",
        lambda session, asked: answers.groups(
            session.state, _int(asked, "query"), _int(asked, "column")
        ),
    ),
    ("suspects", lambda session, asked: answers.suspects(session.state)),
    ("remove", _remove),
    ("relabel", _relabel),
    ("edit", _edit),
    ("decide", _decide),
    ("undo", _undo),
)
