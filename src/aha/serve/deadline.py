"""Work beside the event loop, within the time that a request may take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from aha.serve.config import ServeConfig
from aha.serve.errors import ApiError

T = TypeVar("T")


async def in_time(config: ServeConfig, work: Callable[[], T], threads: Executor | None = None) -> T:
    """The result of work in a thread. Work that takes too long is not waited for, though nothing can stop it.

    Args:
        config: how long a request may take.
        work: is done in a thread.
        threads: whose; those of the event loop, unless the work may keep others waiting there.

    Raises:
        ApiError: 408, it took longer than a request may.
    """
    try:
        async with asyncio.timeout(config.deadline_seconds):
            return await asyncio.get_running_loop().run_in_executor(threads, work)
    except TimeoutError:
        raise too_late(config.deadline_seconds) from None


def too_late(seconds: float) -> ApiError:
    """What a client is told whose request took longer than that."""
    return ApiError(408, f"the request took longer than {seconds:g} seconds", code="deadline_exceeded")
