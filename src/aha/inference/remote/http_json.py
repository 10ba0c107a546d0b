"""One JSON request to a server: with a time limit, and with further tries where a failure may pass."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

from aha.errors import GenerationError

FIRST_WAIT = 0.5
"""Seconds before the second try; each further one waits twice as long."""
MOST_BYTES = 1 << 30
"""Of an answer."""


def call(url: str, body: Any, seconds: float, retries: int = 0) -> Any:
    """Posts JSON (or, with nothing to say, gets) and returns the JSON that comes back.

    Args:
        url: of the route.
        body: JSON-able; None asks with GET.
        seconds: limit for each try.
        retries: further tries after a server error, a lost connection or the time limit.

    Raises:
        GenerationError: the server said no, or failed at every try; the message says what it said.
    """
    for attempt in range(retries + 1):
        try:
            return _once(url, body, seconds)
        except _PassingError as error:
            if attempt == retries:
                tries = f" ({retries + 1} tries)" if retries else ""
                raise GenerationError(f"{url}: {error}{tries}; is the server up, and large enough?") from error
            time.sleep(FIRST_WAIT * 2**attempt)
    raise AssertionError("unreachable")


class _PassingError(Exception):
    """A failure that may pass."""


def _once(url: str, body: Any, seconds: float) -> Any:
    data = None if body is None else json.dumps(body).encode()
    method = "GET" if data is None else "POST"
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    deadline = time.monotonic() + seconds
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:
            answer = _read(response, deadline, seconds)
    except urllib.error.HTTPError as error:
        said = " ".join(error.read(2000).decode(errors="replace").split())
        error.close()
        if error.code >= 500 or error.code in (408, 425, 429):
            raise _PassingError(f"status {error.code}: {said[:300]}") from error
        raise GenerationError(f"{url} answers with status {error.code}: {said[:300]}") from error
    except TimeoutError as error:
        raise _PassingError(f"no answer within {seconds:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(str(getattr(error, "reason", None) or error or type(error).__name__)) from error
    if not answer.strip():
        return {}
    try:
        return json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise GenerationError(f"{url} answers with something that is not JSON: {answer[:100]!r}") from error


def _read(response: Any, deadline: float, seconds: float) -> bytes:
    """The whole answer. The time limit holds for all of it: a server may send a byte now and then for ever."""
    parts: list[bytes] = []
    size = 0
    while part := response.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError(f"more than {seconds:g} s")
        if size > MOST_BYTES:
            raise GenerationError(f"an answer of more than {MOST_BYTES >> 20} MiB")
    expected = response.headers.get("Content-Length")
    if expected is not None and size < int(expected):
        raise http.client.IncompleteRead(b"", int(expected) - size)
    return b"".join(parts)
