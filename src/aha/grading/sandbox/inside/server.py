"""Process 1 of the sandbox: forks one process per program, and leaves nothing of it behind.

It holds no secret and no judgement. The parent hands it the four file descriptors of a program (standard input, output
and error, and a channel), and talks to the program over these; the source, the calls and the answers never pass
through here. Being process 1 of its PID namespace it is immune to every signal from inside, and `kill(-1)` reaches all
that a program has started. When the control socket closes, process 1 ends, and the kernel kills everything else.
"""

from __future__ import annotations

import bisect  # noqa: F401 - what programs often import is loaded once, before they are forked
import collections  # noqa: F401
import contextlib
import copy  # noqa: F401
import dataclasses  # noqa: F401
import datetime  # noqa: F401
import decimal  # noqa: F401
import functools  # noqa: F401
import gc
import hashlib  # noqa: F401
import heapq  # noqa: F401
import itertools  # noqa: F401
import json
import math  # noqa: F401
import operator  # noqa: F401
import os
import re  # noqa: F401
import select
import shutil
import signal
import socket
import statistics  # noqa: F401
import string  # noqa: F401
import sys
import typing

from aha.grading.sandbox.inside import programs
from aha.grading.sandbox.inside.confine import drop_rights, filter_system_calls, limit_resources

SCRATCH = "/tmp"  # the sandbox's own
MAX_LEFTOVERS = 64
_CHANNEL = 3


def main(function: str = "", warm: str = "[]") -> None:
    """Serves until the control socket on standard input closes.

    Args:
        function: ``module:function`` that programs call; loaded here, once.
        warm: arguments of a first call to it, a JSON list.
    """
    if os.getpid() != 1:  # kill(-1) below must never meet anybody else's processes
        sys.exit("this is the first process of a sandbox, and nothing else")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.setsid()  # else a program's kill(0) would reach what started the sandbox
    drop_rights()
    filtered = filter_system_calls()
    control = socket.socket(fileno=os.dup(0))
    nowhere = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    if function:
        with contextlib.suppress(Exception):
            programs.loaded(function)(*json.loads(warm))
        for entry in list(os.scandir(SCRATCH)):  # what its packages leave there, such as caches
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.remove(entry.path)  # noqa: PTH107
    control.send(json.dumps({"ready": True, "filtered": filtered}).encode())
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 4096, 4)
        if not message:
            os._exit(0)
        request = json.loads(message)
        if "stop" in request or len(descriptors) != 4:  # a stop that came after the end
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        control.send(json.dumps(_serve(control, request, descriptors)).encode())


def _serve(control: socket.socket, request: dict[str, typing.Any], descriptors: list[int]) -> dict[str, typing.Any]:
    """Runs one program to its end or to the parent's word, and clears up after it."""
    try:
        child = os.fork()
    except OSError as error:
        for descriptor in descriptors:
            os.close(descriptor)
        return {"id": request["id"], "failed": f"fork: {error.strerror}"}
    if child == 0:
        control.close()
        _become(descriptors, request["limits"])
    for descriptor in descriptors:
        os.close(descriptor)
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(control, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if ended in ready:
            break
        message = control.recv(4096)
        if not message:
            os._exit(0)
        if json.loads(message).get("stop") == request["id"]:
            break
    os.close(ended)
    status = _kill_all(child)
    return {"id": request["id"], "status": status, "dirty": not _scratch_is_clear()}


def _kill_all(child: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    status = 0
    while True:
        try:
            process, how = os.waitpid(-1, 0)
        except ChildProcessError:
            return os.waitstatus_to_exitcode(status)
        if process == child and (os.WIFEXITED(how) or os.WIFSIGNALED(how)):
            status = how


def _scratch_is_clear() -> bool:
    """Deletes the plain files that a program left; more than these, and the sandbox is replaced."""
    try:
        with os.scandir(SCRATCH) as entries:
            left = [entry.path for entry, _ in zip(entries, range(MAX_LEFTOVERS + 1), strict=False)]
        if len(left) > MAX_LEFTOVERS:
            return False
        for path in left:
            os.remove(path)  # noqa: PTH107 - a program may have left any name
    except OSError:
        return False
    return True


def _become(descriptors: list[int], limits: dict[str, int]) -> typing.NoReturn:
    """Turns the forked process into the program's."""
    os.setsid()
    for source, target in zip(descriptors, (100, 101, 102, 103), strict=True):
        os.dup2(source, target)
    os.closerange(3, 100)
    for target in range(4):
        os.dup2(100 + target, target, inheritable=target < _CHANNEL)
    os.closerange(4, 256)
    limit_resources(**limits)
    sys.stdin = os.fdopen(0, encoding="utf-8", errors="replace")
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")
    sys.argv = ["program.py"]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    code = 1
    try:
        code = programs.run(programs.Channel(socket.socket(fileno=_CHANNEL)))
    except EOFError:
        code = 0
    finally:
        os._exit(code)
