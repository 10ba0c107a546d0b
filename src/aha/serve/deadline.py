"""Work beside the event loop, within the time that a request may take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from aha.serve.config import ServeConfig
from aha.serve.errors import ApiError

T = TypeVar("T")


async def in_time(config: ServeConfig, work: Callable[[], T]) -> T:
    """The result of work in a thread. Work that takes too long is not waited for, though nothing can stop it.

    Raises:
        ApiError: 408, it took longer than a request may.
    """
    try:
        async with asyncio.timeout(config.deadline_seconds):
            return await asyncio.to_thread(work)
    except TimeoutError:
        raise too_late(config.deadline_seconds) from None


def too_late(seconds: float) -> ApiError:
    """What a client is told whose request took longer than that."""
    return ApiError(408, f"the request took longer than {seconds:g} seconds", code="deadline_exceeded")
