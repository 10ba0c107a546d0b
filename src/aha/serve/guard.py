"""What every request passes first: the key, the host, a number, the log; and what nothing passes: a stack trace.

It denies by default and decides on the path that was sent, before anything is routed, decoded or built from headers.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
import traceback
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aha.serve.errors import ApiError, internal_error
from aha.serve.sse import error_response

logger = logging.getLogger("aha.serve")

HEALTH = "/health"
SEND_SECONDS = 60.0
"""How long a client may take to accept a piece of an answer."""
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Guard:
    """Wraps the application.

    With a key, everything but `GET /health` needs it. Without one the server is for this machine alone: a request must
    name a loopback host, and must not come from a web page of another origin.

    Args:
        app: what to protect.
        api_key: None for none.
        known_paths: that may be named in the log.
    """

    def __init__(self, app: ASGIApp, api_key: str | None, known_paths: Collection[str] = ()) -> None:
        self._app = app
        self._digest = hashlib.sha256(api_key.encode()).digest() if api_key is not None else None
        self._known_paths = frozenset(known_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request in, or answers in the application's place."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        number, started = secrets.token_hex(8), time.monotonic()
        status = 0

        async def numbered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = [
                    (b"x-request-id", number.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"cache-control", b"no-store"),
                ]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                raise ConnectionError("the client accepts nothing any more") from None

        try:
            self._check(scope)
            await self._app(scope, receive, numbered)
        except ApiError as error:
            await error_response(error)(scope, receive, numbered)
        except asyncio.CancelledError:
            logger.warning("request %s was cut off", number)
            if not status:
                await error_response(ApiError(503, "the server is stopping", code="stopping"))(scope, receive, numbered)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client learns its number and no more
            frames = "".join(traceback.format_tb(error.__traceback__))
            logger.error("request %s failed with %s at\n%s", number, type(error).__name__, frames)
            if not status:
                await error_response(internal_error(number))(scope, receive, numbered)
        path = scope["path"] if scope["path"] in self._known_paths else "(unknown path)"
        milliseconds = 1000 * (time.monotonic() - started)
        logger.info("%s %s %s %d %.0f ms", number, _method(scope), path, status, milliseconds)

    def _check(self, scope: Scope) -> None:
        """Raises ApiError unless the request may pass."""
        if self._digest is None:
            _check_local(scope)
            return
        raw = scope.get("raw_path") or scope["path"].encode()
        if scope["path"] == HEALTH and raw == HEALTH.encode() and scope["method"] in ("GET", "HEAD"):
            return
        if not self._has_key(scope):
            message = "a valid API key is required: send `Authorization: Bearer KEY`"
            raise ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})

    def _has_key(self, scope: Scope) -> bool:
        """Compares digests, so that neither length nor content of the key shows in the time it takes."""
        given = _headers(scope, b"authorization")
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        matches = hmac.compare_digest(hashlib.sha256(key.strip(b" ")).digest(), self._digest or b"")
        return matches and scheme.lower() == b"bearer"


def _check_local(scope: Scope) -> None:
    hosts = _headers(scope, b"host")
    host = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
    name = host[: host.index("]") + 1] if "]" in host else host.partition(":")[0]
    if name not in LOOPBACK_HOSTS:
        raise ApiError(403, "without an API key this server answers on 127.0.0.1 and localhost only", code="wrong_host")
    for origin in _headers(scope, b"origin"):
        if origin.decode("latin-1").lower() != f"http://{host}":
            raise ApiError(403, "requests from web pages of another origin are refused", code="wrong_origin")


def _headers(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key.lower() == name]


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in ("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE") else "(other)"
