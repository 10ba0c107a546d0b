"""How a generation goes out, whatever was asked: as events while it grows, or whole unless the client leaves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from aha.serve.body import unless_left
from aha.serve.generation import Generation
from aha.serve.schemas import SamplingRequest
from aha.serve.sse import EventStream, json_response

R = TypeVar("R", bound=SamplingRequest)


async def answer(
    http: HttpRequest,
    generation: Generation,
    request: R,
    whole: Callable[[Generation, R], Coroutine[Any, Any, BaseModel]],
    streamed: Callable[[Generation, R], AsyncGenerator[BaseModel, None]],
) -> Response:
    """Sends the answer; what a client has left behind is withdrawn from the model."""
    if request.stream:
        return EventStream(streamed(generation, request), generation.withdraw)
    try:
        return json_response(await unless_left(http, whole(generation, request)))
    finally:
        generation.withdraw()
