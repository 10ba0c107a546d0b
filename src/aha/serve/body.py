"""Reading a request's body within its limits, and noticing that a client has left."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from aha.serve.config import ServeConfig
from aha.serve.errors import ApiError
from aha.serve.sse import until_left

T = TypeVar("T")


async def read_body(http: Request, config: ServeConfig) -> bytes:
    """The JSON of a request, not yet parsed.

    Raises:
        ApiError: 415 for another content type or a compressed body, 413 for too much, 408 for too slow.
    """
    kind, _, parameters = http.headers.get("content-type", "").partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise ApiError(415, "the content type must be application/json", code="unsupported_media_type")
    if http.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "the body must not be compressed", code="unsupported_media_type")
    declared = http.headers.get("content-length", "0")
    if not declared.isascii() or not declared.isdigit() or len(declared) > 18:
        raise ApiError(400, "the content length is not a number")
    if int(declared) > config.body_bytes:
        raise _too_large(config)
    try:
        async with asyncio.timeout(config.body_seconds):
            return await _collect(http, config)
    except TimeoutError:
        message = f"the body did not arrive within {config.body_seconds:g} seconds"
        raise ApiError(408, message, code="body_timeout", headers={"connection": "close"}) from None


async def _collect(http: Request, config: ServeConfig) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await http.receive()
        if message["type"] == "http.disconnect":
            raise ApiError(499, "the client left")
        body += message.get("body", b"")
        if len(body) > config.body_bytes:
            raise _too_large(config)
        more = message.get("more_body", False)
    return bytes(body)


def _too_large(config: ServeConfig) -> ApiError:
    message = f"the body is larger than {config.body_bytes} bytes"
    return ApiError(413, message, code="body_too_large", headers={"connection": "close"})


async def unless_left(http: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work, which is dropped when the client leaves before."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(until_left(http.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(499, "the client left")
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
