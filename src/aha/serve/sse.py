"""How answers are sent: as one JSON body, or as server-sent events that end when the client leaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from aha.serve.errors import ApiError

HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]


def json_response(body: BaseModel) -> Response:
    """A whole answer."""
    return Response(body.model_dump_json(), media_type="application/json")


def error_response(error: ApiError) -> Response:
    """A refusal."""
    content = json.dumps(error.body(), ensure_ascii=True)
    return Response(content, error.status, error.headers, media_type="application/json")


class EventStream(Response):
    """Sends models as `data:` events, then `data: [DONE]`. An error on the way becomes the last event before that.

    Args:
        events: what to send.
        close: called at the end, whether or not anything was sent.
    """

    def __init__(self, events: AsyncGenerator[BaseModel, None], close: Callable[[], None]) -> None:
        super().__init__()
        self._events = events
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends all there is, or as much as the client stays for."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await self._send_or_leave(receive, send)
        finally:
            self._close()

    async def _send_or_leave(self, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(until_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self._events.aclose()
        if not sending.cancelled() and (error := sending.exception()):
            raise error

    async def _send(self, send: Send) -> None:
        async def event(data: str) -> None:
            body = f"data: {data}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})

        with contextlib.suppress(OSError):  # the connection is gone
            try:
                async for item in self._events:
                    await event(item.model_dump_json())
            except ApiError as error:
                await event(json.dumps(error.body()))
            await event("[DONE]")
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until_left(receive: Receive) -> None:
    """Returns when the client has closed its connection."""
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()
