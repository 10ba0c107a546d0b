"""Errors as OpenAI's clients expect them: a status, and a body that says what was wrong with which parameter."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request is refused. The message goes to the client: it holds no path, no key and no internals."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON that is sent."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def too_late(seconds: float) -> ApiError:
    """What a client is told whose request took longer than that."""
    return ApiError(408, f"the request took longer than {seconds:g} seconds", code="deadline_exceeded")


def places_of(error: BaseException) -> str:
    """Where an error came up, outermost first, for the log: modules and lines, no path and nothing of any value."""
    steps = traceback.walk_tb(error.__traceback__)
    return " > ".join(f"{frame.f_globals.get('__name__', '?')}:{line}" for frame, line in steps)
