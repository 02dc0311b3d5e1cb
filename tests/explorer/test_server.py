"""Only whoever has the token, and asks this machine by its own name, gets an answer."""

from __future__ import annotations

import html
import http.client
import json
import runpy
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from tests.explorer.data import subject, written
from whence.errors import InvalidInput
from whence.explorer.server import HEADER, serving

LOGS = ("log_page", "log_script")


def parts(address: str) -> tuple[str, str]:
    """The address without the token, and the token."""
    found = urlparse(address)
    return f"http://{found.netloc}", parse_qs(found.query)["token"][0]


def asked(url: str, body: Any = None, **headers: str) -> tuple[int, str]:
    """Status and text of an answer; dashes of header names are underscores."""
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data=data, headers=named)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_every_route_wants_the_token(shared: str) -> None:
    base, token = parts(shared)
    names = ("predictions", "answer", "sizes", "rows", "row", "flip", "groups", "suspects")
    for name in (*names, "remove", "relabel", "edit", "decide", "undo", *LOGS):
        body = {"query": 0, "position": 0, "column": 0, "positions": [1]}
        assert asked(f"{base}/api/{name}", body)[0] == 403
        assert asked(f"{base}/api/{name}", body, **{HEADER: token[:-1]})[0] == 403
        assert asked(f"{base}/api/{name}?token={token}", body)[0] == 403
    for path in ("/", "/?token=x"):
        assert asked(base + path)[0] == 403
    assert asked(shared)[0] == 200
    assert asked(f"{base}/api/predictions", {}, **{HEADER: token})[0] == 200


def test_another_host_is_refused_though_it_has_the_token(shared: str) -> None:
    base, token = parts(shared)
    assert asked(shared, Host="evil.example")[0] == 400
    assert asked(f"{base}/api/rows", {}, Host="evil.example", **{HEADER: token})[0] == 400
    assert asked(shared, Host="localhost")[0] == 200


def test_it_listens_on_this_machine_alone(shared: str) -> None:
    port = int(urlparse(shared).port or 0)
    others = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None)}
    for other in others - {"127.0.0.1", "::1"}:
        family = socket.AF_INET6 if ":" in str(other) else socket.AF_INET
        with socket.socket(family) as knocking:
            knocking.settimeout(2)
            assert knocking.connect_ex((str(other), port)) != 0


def test_the_page_forbids_what_it_does_not_need(shared: str) -> None:
    page = html.unescape(asked(shared)[1])
    assert "default-src 'none'" in page
    assert "connect-src 'self'" in page
    assert "unsafe-inline" not in page


@pytest.mark.parametrize(
    ("route", "body", "said"),
    [
        ("answer", {"query": 99}, "Expected a prediction"),
        ("answer", {"query": "0"}, "Expected query as a whole number"),
        ("answer", {}, "Expected query as a whole number"),
        ("answer", [1], "Expected an object"),
        ("row", {"position": -1}, "Expected a training row"),
        ("remove", {"query": 0, "positions": "all"}, "Expected positions as a list"),
        ("remove", {"query": 0, "positions": []}, "Expected rows of the training data"),
        ("relabel", {"query": 0, "position": 1, "label": "lost"}, "Expected one of died"),
        ("decide", {"query": 0}, "Expected a decision"),
        ("decide", {"query": 0, "relabel": "all"}, "Expected relabel as a list"),
    ],
)
def test_bad_requests_get_a_sentence(shared: str, route: str, body: Any, said: str) -> None:
    base, token = parts(shared)
    status, text = asked(f"{base}/api/{route}", body, **{HEADER: token})
    assert status == 400
    assert said in json.loads(text)["error"]


def test_a_port_serves_again_as_soon_as_it_is_free() -> None:
    explored = subject()
    with serving(explored) as address:
        port = int(urlparse(address).port or 0)
        waiting = http.client.HTTPConnection("127.0.0.1", port)  # as a browser keeps one open
        waiting.request("GET", address.removeprefix(parts(address)[0]))
        assert waiting.getresponse().read()
    with serving(explored, port=port) as again:
        assert asked(again)[0] == 200
    waiting.close()


def test_a_server_that_does_not_start_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    with pytest.raises(InvalidInput, match="Expected the server to answer"), serving(subject()):
        pass


def test_a_taken_port_is_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(InvalidInput, match="Expected a free port"),
            serving(subject(), port=taken.getsockname()[1]),
        ):
            pass


def test_the_command_serves_and_its_script_repeats_the_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = written(tmp_path)
    command = ["-m", "whence", "explore", str(table), "-t", "outcome", "--rows", "30"]
    with subprocess.Popen(
        [sys.executable, *command, "--no-browser"], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        base, token = parts(running.stdout.readline().split()[-1])
        given = {HEADER: token}
        for name, body in (
            ("remove", {"query": 2, "positions": [1, 7]}),
            ("edit", {"query": 2, "position": 3, "column": 0, "value": "44"}),
            ("relabel", {"query": 3, "position": 5, "label": "died"}),
        ):
            assert asked(f"{base}/api/{name}", body, **given)[0] == 200
        log = json.loads(asked(f"{base}/api/predictions", {}, **given)[1])["steps"]
        page, script = (
            json.loads(asked(f"{base}/api/{log}", {}, **given)[1])["text"] for log in LOGS
        )
        running.terminate()
    (tmp_path / "log.py").write_text(script, encoding="utf-8")
    runpy.run_path(str(tmp_path / "log.py"), run_name="__main__")
    printed = capsys.readouterr().out
    for step in log:
        for part in (step["words"], f"before: {step['before']}", f"after:  {step['after']}"):
            assert part in printed
        assert step["after"] in page
    assert len(log) == 3
