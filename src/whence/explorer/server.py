"""The explorer's page and routes served to one person on one machine."""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from whence.errors import InvalidInput, UnsupportedModel, WhenceError
from whence.explorer.routes import ROUTES, Route
from whence.explorer.session import Session, Subject
from whence.pages import ExplorePage, render

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HEADER = "X-Whence-Token"
_ADDRESS = "127.0.0.1"
_STARTING = 30.0  # seconds that the server may take to answer
_LARGEST = 1_000_000  # bytes of a request


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
        InvalidInput: If the port is taken, or the server does not start.
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
    if os.name == "posix":  # connections of an explorer that was just stopped hold its port a while
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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
        if not server.started:
            raise InvalidInput(
                f"Expected the server to answer within {_STARTING:.0f} seconds. Got no answer. "
                "Start it again."
            )
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
            *(Path(f"/api/{name}", api(route), methods=["POST"]) for name, route in ROUTES.items()),
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
    )
