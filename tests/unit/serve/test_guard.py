"""Every route x every trick is refused; and nothing that is secret is said or logged."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from aha.errors import ConfigError
from aha.serve import pages
from aha.serve.app import create_app
from aha.serve.config import ServeConfig
from aha.serve.guard import HEALTH, Guard
from aha.serve.run import check_exposure
from aha.serve.served import ServedModel

from .conftest import Headers, ask

KEY = "correct-horse-battery"
FAULT = f"a fault with {KEY} in /srv/private"
METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "CONNECT"]
HOST = (b"host", b"server.example")


def bearer(value: str) -> Headers:
    return [HOST, (b"authorization", value.encode())]


TRICKS: dict[str, tuple[Callable[[str], str], Headers, str]] = {
    "no key": (str, [HOST], ""),
    "wrong key": (str, bearer("Bearer wrong"), ""),
    "a part of the key": (str, bearer(f"Bearer {KEY[:-1]}"), ""),
    "more than the key": (str, bearer(f"Bearer {KEY}x"), ""),
    "another scheme": (str, bearer(f"Basic {KEY}"), ""),
    "no scheme": (str, bearer(KEY), ""),
    "key as the user's name": (str, bearer(f"Basic {base64.b64encode(f'{KEY}:'.encode()).decode()}"), ""),
    "key with no colon before it": (str, bearer(f"Basic {base64.b64encode(KEY.encode()).decode()}"), ""),
    "wrong password": (str, bearer(f"Basic {base64.b64encode(b'u:wrong').decode()}"), ""),
    "empty key": (str, bearer("Bearer "), ""),
    "key in another case": (str, bearer(f"Bearer {KEY.upper()}"), ""),
    "two keys, one right": (str, [*bearer("Bearer x"), (b"authorization", f"Bearer {KEY}".encode())], ""),
    "key in another header": (str, [HOST, (b"x-api-key", KEY.encode()), (b"cookie", f"key={KEY}".encode())], ""),
    "key in the query": (str, [HOST], f"api_key={KEY}&key={KEY}&authorization=Bearer%20{KEY}"),
    "slash in host": (str, [(b"host", b"server.example/health?")], ""),
    "question mark in host": (str, [(b"host", b"server.example?/health")], ""),
    "health as host": (str, [(b"host", b"/health")], ""),
    "loopback as host": (str, [(b"host", b"127.0.0.1")], ""),
    "no host": (str, [], ""),
    "forwarded": (str, [HOST, (b"x-forwarded-for", b"127.0.0.1"), (b"x-forwarded-path", b"/health")], ""),
    "original url": (str, [HOST, (b"x-original-url", b"/health"), (b"x-rewrite-url", b"/health")], ""),
    "double slash": (lambda path: "/" + path, [HOST], ""),
    "encoded slash": (lambda path: path[0] + path[1:].replace("/", "%2f"), [HOST], ""),
    "encoded letter": (lambda path: path.replace("v1", "%76%31"), [HOST], ""),
    "upper case": (str.upper, [HOST], ""),
    "trailing dot": (lambda path: path + ".", [HOST], ""),
    "trailing slash": (lambda path: path + "/", [HOST], ""),
    "through health": (lambda path: "/health/.." + path, [HOST], ""),
    "health and a semicolon": (lambda path: "/health;" + path, [HOST], ""),
    "absolute": (lambda path: "http://server.example/health/.." + path, [HOST], ""),
    "null byte": (lambda path: path + "%00", [HOST], ""),
    "backslash": (lambda path: "\\" + path, [HOST], ""),
}


@pytest.fixture
def guarded(models: list[ServedModel]) -> FastAPI:
    return create_app(models, ServeConfig(), KEY)


def routes(app: FastAPI) -> list[str]:
    """All paths that the application knows, but health."""
    return sorted(
        path.replace("{model}", "r1")
        for path in {route.path or "" for route in iter_route_contexts(app.routes)} - {HEALTH}
    )


def test_the_routes_that_tricks_are_tried_on_are_all_there_are(guarded: FastAPI) -> None:
    files = {f"/web/{file.name}" for file in Path(pages.__file__).with_name("web").iterdir() if file.suffix != ".html"}
    described = {path.replace("{model}", "r1") for path in guarded.openapi()["paths"]} - {HEALTH}
    runs = {"/api/runs", "/api/runs/panels", "/api/runs/search", "/api/runs/group"}
    assert set(routes(guarded)) == {
        *described, *files, *runs, "/", "/run", "/openapi.json", "/api/page", "/api/problem", "/api/judge",
    }  # fmt: skip
    for route in routes(guarded):
        assert ask(guarded, "GET", route, bearer(f"Bearer {KEY}"))[0] in (200, 405), route


@pytest.mark.parametrize("trick", TRICKS)
def test_every_route_is_closed_to_every_trick(guarded: FastAPI, trick: str) -> None:
    change, headers, query = TRICKS[trick]
    for route in routes(guarded):
        for method in METHODS:
            for version in ("1.0", "1.1"):
                status, body = ask(guarded, method, change(route), headers, query, version)
                assert status == 401, (trick, route, method)
                assert b"invalid_api_key" in body
                assert KEY.encode() not in body


def test_the_key_opens_and_only_health_is_open(guarded: FastAPI) -> None:
    assert ask(guarded, "GET", "/v1/models", bearer(f"Bearer {KEY}"))[0] == 200
    assert ask(guarded, "GET", "/v1/models", bearer(f"bearer {KEY}"))[0] == 200
    assert ask(guarded, "GET", "/health", [HOST]) == (200, b'{"status":"ok"}')
    assert ask(guarded, "POST", "/health", [HOST])[0] == 401
    for path in ("/health/", "//health", "/%68ealth", "/HEALTH", "/health%2f..", "/health."):
        assert ask(guarded, "GET", path, [HOST])[0] == 401, path


def test_web_sockets_are_refused(guarded: FastAPI) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def try_all() -> None:
        for path in (HEALTH, *routes(guarded)):
            for query in (b"", f"api_key={KEY}&key={KEY}&token={KEY}".encode()):
                for headers in ([], [HOST], bearer(f"Bearer {KEY}")):
                    scope = {"type": "websocket", "path": path, "query_string": query, "headers": headers}
                    await guarded(scope, receive, send)
                    assert sent == [{"type": "websocket.close", "code": 1008}], path
                    sent.clear()

    asyncio.run(try_all())


def test_without_a_key_only_this_machine_is_answered(models: list[ServedModel]) -> None:
    app = create_app(models, ServeConfig())
    for host in (b"127.0.0.1", b"127.0.0.1:8000", b"127.0.0.2", b"localhost:1", b"LOCALHOST", b"[::1]:8000"):
        assert ask(app, "GET", "/v1/models", [(b"host", host)])[0] == 200
    for host in (
        b"evil.example",
        b"127.0.0.1.evil.example",
        b"localhost.evil:80",
        b"",
        b"evil@127.0.0.1",
        b"[::2]",
        b"128.0.0.1",
    ):
        assert ask(app, "GET", "/v1/models", [(b"host", host)])[0] == 403
    assert ask(app, "GET", "/v1/models", [])[0] == 403
    assert ask(app, "GET", "/v1/models", [(b"host", b"127.0.0.1"), (b"host", b"evil")])[0] == 403
    local = (b"host", b"127.0.0.1:8000")
    assert ask(app, "GET", "/v1/models", [local, (b"origin", b"http://127.0.0.1:8000")])[0] == 200
    for origin in (b"http://evil.example", b"null", b"http://127.0.0.1:9999", b"https://127.0.0.1:8000"):
        assert ask(app, "GET", "/v1/models", [local, (b"origin", origin)])[0] == 403


def test_faults_of_ours_show_nothing_and_the_log_has_no_secrets(
    guarded: FastAPI, models: list[ServedModel], caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError(FAULT)

    caplog.set_level(logging.INFO, "aha.serve")
    status, body = ask(Guard(broken, KEY, ServeConfig()), "GET", "/v1/models", bearer(f"Bearer {KEY}"))
    assert status == 500
    assert b"internal error; its number" in body
    ask(guarded, "GET", f"/{KEY}", bearer(f"Bearer {KEY}"), f"key={KEY}")
    ask(guarded, "GET", f"/v1/models/{KEY}", bearer(f"Bearer {KEY}"))
    fault = next(record.getMessage() for record in caplog.records if "failed" in record.getMessage())
    assert re.fullmatch(
        rf"request [0-9a-f]{{16}} failed with RuntimeError at (aha\.serve\.guard:\d+ > )+{__name__}:\d+", fault
    )
    assert "RuntimeError" in caplog.text and "(unknown path) 404" in caplog.text
    assert KEY not in caplog.text + body.decode() and "private" not in caplog.text + body.decode()


def test_tricks_over_a_real_socket(
    guarded: FastAPI, listening: Callable[..., AbstractContextManager[int]], models: list[ServedModel]
) -> None:
    requests = [
        b"GET /v1/models HTTP/1.0\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a/health?\r\n\r\n",
        b"GET //v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1%2fmodels HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a/health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health?/../v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    with listening(guarded) as port:
        for request in requests:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda c=connection: c.recv(65536), b""))
            assert b'"data"' not in answer, request
            assert b"401 Unauthorized" in answer or b'{"status":"ok"}' in answer, (request, answer)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "localhost.evil"])
def test_other_machines_are_let_in_only_with_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match="--api-key or AHA_API_KEY"):
        check_exposure(host, None)
    check_exposure(host, KEY)
    for loopback in ("127.0.0.1", "127.0.0.9", "::1", "localhost"):
        check_exposure(loopback, None)
    for key in ("", " ", "a\nb", "ключ"):
        with pytest.raises(ConfigError, match="visible ASCII"):
            check_exposure("127.0.0.1", key)
