"""What every request passes first: key, host, limits, a number, the log; and what nothing passes: a stack trace.

It denies by default and decides on the path that was sent, before anything is routed, decoded or built from headers.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import logging
import secrets
import time
from collections.abc import Collection

from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aha.serve.config import ServeConfig
from aha.serve.errors import ApiError, places_of, too_late

logger = logging.getLogger("aha.serve")

HEALTH = "/health"
SEND_SECONDS = 60.0
"""How long a client may take to accept a piece of an answer."""
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""For browsers: scripts and styles are this server's own files, nothing is fetched from elsewhere, and no text ever
becomes markup or script, whatever the page's code does with it."""
ANSWER_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
]
CHALLENGE = 'Basic realm="aha: any user name, and the API key as the password", charset="UTF-8"'
"""Makes a browser ask for the key and send it for all files of the page. Programs know the bearer form without it."""


class Guard:
    """Wraps the application, as its outermost layer: FastAPI's own ways to check keys begin after routing.

    With a key, everything but `GET /health` needs it, the pages and their files too. Without one the server is for this
    machine alone: a request must name a loopback host. A web page of another origin is refused in both cases: what a
    browser adds by itself (its being on this machine, or the key that it remembers) must not serve others.

    Bodies are read here, within their limits: FastAPI bounds neither their time nor their depth. Then the application
    works until its client leaves, or until the deadline has passed with no word of an answer.

    Args:
        app: what to protect.
        api_key: None for none.
        config: limits.
    """

    def __init__(self, app: ASGIApp, api_key: str | None, config: ServeConfig) -> None:
        self._app = app
        self._digest = hashlib.sha256(api_key.encode()).digest() if api_key is not None else None
        self._config = config

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
        error: ApiError | None = None

        async def numbered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = [(b"x-request-id", number.encode()), *ANSWER_HEADERS]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                raise ConnectionError("the client accepts nothing any more") from None

        try:
            self._check(scope)
            await self._answer_in_time(scope, receive, numbered)
        except ApiError as refused:
            error = refused
        except ConnectionError:
            logger.info("request %s: the client is gone", number)
        except asyncio.CancelledError:
            logger.warning("request %s was cut off", number)
            error = ApiError(503, "the server is stopping", code="stopping")
        except Exception as fault:  # noqa: BLE001 - whatever it is, the client learns its number and no more
            logger.error("request %s failed with %s at %s", number, type(fault).__name__, places_of(fault))
            error = ApiError(500, f"internal error; its number in the server's log is {number}", code="internal_error")
        if error is not None and not status:
            await JSONResponse(error.body(), error.status, error.headers)(scope, receive, numbered)
        path = getattr(scope.get("route"), "path", "(unknown path)")
        milliseconds = 1000 * (time.monotonic() - started)
        logger.info("%s %s %s %d %.0f ms", number, _method(scope), path, status, milliseconds)

    async def _answer_in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the application answer, if it begins to before the deadline; streams end themselves when it has come."""

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                deadline.reschedule(None)
            await send(message)

        try:
            async with asyncio.timeout(self._config.deadline_seconds) as deadline:
                if scope["method"] == "POST":
                    body = await read_body(scope, receive, self._config)
                    await self._unless_left(scope, body, receive, noting)
                else:
                    await self._app(scope, receive, noting)
        except TimeoutError:
            raise too_late(self._config.deadline_seconds) from None

    async def _unless_left(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Lets the application work on a body; its work is dropped when the client leaves before the end."""
        given = ended = False

        async def replay() -> Message:
            nonlocal given
            if given:
                await asyncio.wait({leaving})
                return {"type": "http.disconnect"}
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def noting(message: Message) -> None:
            nonlocal ended
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        leaving = asyncio.ensure_future(_until_left(receive))
        working = asyncio.ensure_future(self._app(scope, replay, noting))
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not (working.done() or ended):
                raise ApiError(499, "the client left")
            await working
        finally:
            for task in (working, leaving):
                task.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)

    def _check(self, scope: Scope) -> None:
        """Raises ApiError unless the request may pass."""
        if self._digest is None:
            _check_local(scope)
            return
        raw = scope.get("raw_path") or scope["path"].encode()
        if scope["path"] == HEALTH and raw == HEALTH.encode() and scope["method"] in ("GET", "HEAD"):
            return
        scheme, key = _credentials(scope)
        matches = hmac.compare_digest(hashlib.sha256(key).digest(), self._digest)  # tells neither length nor content
        if not matches or scheme not in ("bearer", "basic"):
            message = "a valid API key is required: send `Authorization: Bearer KEY`"
            raise ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": CHALLENGE})
        if scheme == "basic":
            _check_origin(scope, ("http", "https"))  # TLS may end before this server


async def read_body(scope: Scope, receive: Receive, config: ServeConfig) -> bytes:
    """The JSON of a request.

    Raises:
        ApiError: 415 for another content type or a compressed body, 413 for too much, 408 for too slow, 400 for what is
            no JSON.
    """
    headers = Headers(scope=scope)
    kind, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise ApiError(415, "the content type must be application/json", code="unsupported_media_type")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "the body must not be compressed", code="unsupported_media_type")
    declared = headers.get("content-length", "0")
    if not declared.isascii() or not declared.isdigit() or len(declared) > 18:
        raise ApiError(400, "the content length is not a number")
    try:
        async with asyncio.timeout(config.body_seconds):
            body = await _collect(receive, config.body_bytes, int(declared))
    except TimeoutError:
        message = f"the body did not arrive within {config.body_seconds:g} seconds"
        raise ApiError(408, message, code="body_timeout", headers={"connection": "close"}) from None
    try:
        from_json(body, allow_inf_nan=False)  # stricter than FastAPI's parser: in depth, and in what is Unicode
    except ValueError as error:
        raise ApiError(400, f"invalid JSON: {error}") from None
    return body


async def _collect(receive: Receive, limit: int, declared: int) -> bytes:
    body, more = bytearray(), True
    while more and max(len(body), declared) <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(499, "the client left")
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if max(len(body), declared) > limit:
        close = {"connection": "close"}
        raise ApiError(413, f"the body is larger than {limit} bytes", code="body_too_large", headers=close)
    return bytes(body)


async def _until_left(receive: Receive) -> None:
    """Returns when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _check_local(scope: Scope) -> None:
    hosts = Headers(scope=scope).getlist("host")
    host = hosts[0].lower() if len(hosts) == 1 else ""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if not is_loopback(name):
        message = "without an API key this server answers on localhost and loopback addresses only"
        raise ApiError(403, message, code="wrong_host")
    _check_origin(scope, ("http",))


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own; names other than localhost are taken to be not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_origin(scope: Scope, schemes: Collection[str]) -> None:
    headers = Headers(scope=scope)
    own = {f"{scheme}://{host.lower()}" for scheme in schemes for host in headers.getlist("host")}
    if not {origin.lower() for origin in headers.getlist("origin")} <= own:
        raise ApiError(403, "requests from web pages of another origin are refused", code="wrong_origin")


def _credentials(scope: Scope) -> tuple[str, bytes]:
    """Scheme and key of the one authorization header; of a browser's, the password."""
    given = Headers(scope=scope).getlist("authorization")
    scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "basic":
        return scheme.lower(), key.strip(" ").encode("latin-1")
    try:
        return "basic", base64.b64decode(key.strip(" "), validate=True).partition(b":")[2]
    except ValueError:
        return "", b""


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in ("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE") else "(other)"
