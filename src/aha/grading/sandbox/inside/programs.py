"""One program in its own process: a script, a function that answers calls, a function's tests, an installed function.

The two sides of a test never share a process, nor even a sandbox. A program's function answers calls with values; the
tests see only these values, as data. So a program can say anything about what its function returns, but it holds
neither the expected outputs nor the verdict.
"""

from __future__ import annotations

import builtins
import importlib
import json
import os
import random
import socket
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

from aha.grading.sandbox.inside.values import decode, encode

_HEADER_BYTES = 4


class Channel:
    """Messages over a socket, each a JSON value behind its length."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, message: Any) -> None:
        """Sends one message."""
        body = json.dumps(message).encode()
        self._connection.sendall(len(body).to_bytes(_HEADER_BYTES, "big") + body)

    def receive(self) -> Any:
        """Waits for one message.

        Raises:
            EOFError: there will be none.
        """
        return json.loads(self._read(int.from_bytes(self._read(_HEADER_BYTES), "big")))

    def _read(self, count: int) -> bytes:
        parts = b""
        while len(parts) < count:
            part = self._connection.recv(min(count - len(parts), 1 << 20))
            if not part:
                raise EOFError
            parts += part
        return parts


def run(channel: Channel) -> int:
    """Does what the first message asks for, and returns the exit code."""
    request = channel.receive()
    {"script": _script, "calls": _answer_calls, "check": _check, "installed": _call_installed}[request["mode"]](
        channel, request
    )
    return 0


def _execute(source: str, name: str) -> dict[str, Any]:
    """Runs a source text as a module of its own, and returns its names."""
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module
    exec(compile(source, f"<{name}>", "exec"), module.__dict__)  # noqa: S102 - what the sandbox is for
    return module.__dict__


def _script(channel: Channel, request: dict[str, Any]) -> None:
    channel._connection.close()
    try:
        _execute(request["source"], "__main__")
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()
        code: object = 0
    except SystemExit as stop:
        code = stop.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:  # noqa: BLE001 - a program's failure is its result
        own = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, own.tb_next if own else None)  # without the lines of this file
        code = 1
    _leave(code if isinstance(code, int) else 0)


def _answer_calls(channel: Channel, request: dict[str, Any]) -> None:
    try:
        function: Callable[..., Any] = _execute(request["source"], "program")[request["entry_point"]]
    except BaseException as error:  # noqa: BLE001 - a program's failure is its result
        channel.send({"error": _describe(error)})
        _leave(1)
    channel.send({"defined": True})
    while True:
        arguments, named = decode(channel.receive()["call"])
        try:
            answer: dict[str, Any] = {"value": encode(function(*arguments, **named))}
        except BaseException as error:  # noqa: BLE001 - a program's failure is its result
            answer = {"error": _describe(error)}
        channel.send(answer)


def loaded(function: str) -> Callable[..., Any]:
    """A function of an installed module, by ``module:function``."""
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _call_installed(channel: Channel, request: dict[str, Any]) -> None:
    try:
        answer = {"value": loaded(request["function"])(*request["arguments"])}
    except BaseException as error:  # noqa: BLE001 - what it was called with is anybody's
        answer = {"error": _describe(error)}
    channel.send(answer)
    _leave(0)


def _check(channel: Channel, request: dict[str, Any]) -> None:
    def broken(error: BaseException) -> NoReturn:
        channel.send({"broken": ": ".join(_describe(error))})
        _leave(1)

    def candidate(*arguments: Any, **named: Any) -> Any:
        try:
            call = encode((arguments, named))
        except (TypeError, ValueError) as error:
            broken(error)
        channel.send({"call": call})
        answer = channel.receive()
        if "error" in answer:
            name, text = answer["error"]
            kind = getattr(builtins, name, None)
            # A StopIteration would end a test's loop over its cases, and so pass those that come after it.
            if isinstance(kind, type) and issubclass(kind, Exception) and kind is not StopIteration:
                raise kind(text)
            raise RuntimeError(text)
        return decode(answer["value"])

    try:
        random.seed(0)
        names = _execute(request["prompt"], "check")
        names[request["entry_point"]] = candidate
        exec(compile(request["test"], "<test>", "exec"), names)  # noqa: S102 - what the sandbox is for
        check = names["check"]
    except BaseException as error:  # noqa: BLE001 - it is for the parent to say what is wrong
        broken(error)
    try:
        check(candidate)
        channel.send({"passed": True, "why": ""})
    except BaseException as error:  # noqa: BLE001 - a failure of the tests is their verdict
        channel.send({"passed": False, "why": ": ".join(_describe(error))})
    _leave(0)


def _describe(error: BaseException) -> tuple[str, str]:
    try:
        return type(error).__name__, str(error)[:500]
    except Exception:  # noqa: BLE001 - an exception of the program's own making
        return "Exception", ""


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001 - a program may leave its streams in any state
            code = code or 1
    os._exit(code & 0xFF)
