"""Runs the application on a socket until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from aha.errors import ConfigError
from aha.serve.config import ServeConfig
from aha.serve.guard import is_loopback

HEADER_BYTES = 32 * 1024
LAST_SECONDS = 5
"""For answers that are on their way when all work has ended; then connections are cut."""


def check_exposure(host: str, api_key: str | None) -> None:
    """Refuses to be reachable from elsewhere without a key.

    Raises:
        ConfigError: with what to do.
    """
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key.strip(" ")):
        raise ConfigError("the API key must be visible ASCII characters, and not be empty")
    if api_key is None and not is_loopback(host):
        raise ConfigError(
            f"--host {host} makes the server reachable from other machines: set a key with --api-key or AHA_API_KEY"
        )


def listen(host: str, port: int) -> socket.socket:
    """Binds a socket; port 0 takes a free one.

    Raises:
        ConfigError: the address is in use, or is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ConfigError(f"cannot listen on {host} port {port}: {reason}; choose another with --port") from None


def run(app: ASGIApp, listening: socket.socket, config: ServeConfig, end_work: Callable[[], None]) -> int:
    """Serves until SIGINT or SIGTERM. Returns the signal's number.

    Args:
        app: the application.
        listening: a bound socket.
        config: limits.
        end_work: called when running requests had `stop_seconds` to end; those that are left then get an error.
    """
    stopped_by = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal stopped_by
        stopped_by = number

    # uvicorn has its own meanwhile, and raises the signal again at its end
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        make_server(app, config, end_work).run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return stopped_by


def make_server(app: ASGIApp, config: ServeConfig, end_work: Callable[[], None]) -> uvicorn.Server:
    """The HTTP server around the application, with its limits. For `end_work` see `run`."""

    class Patient(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            timer = asyncio.get_running_loop().call_later(config.stop_seconds, end_work)
            await super().shutdown(sockets)
            timer.cancel()

    return Patient(
        uvicorn.Config(
            app,
            loop="asyncio",
            http=_protocol(config.idle_seconds),
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=config.stop_seconds + LAST_SECONDS,
            h11_max_incomplete_event_size=HEADER_BYTES,
        )
    )


def _protocol(idle_seconds: float) -> type[H11Protocol]:
    """HTTP whose connections are closed when no request arrives for some time, however slowly its headers trickle."""

    class Impatient(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            super().connection_lost(exc)

        def _wait(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_later(idle_seconds, self._expire)

        def _expire(self) -> None:
            busy = self.cycle is not None and not self.cycle.response_complete
            if not busy and not self.transport.is_closing():
                self.transport.close()

    return Impatient
