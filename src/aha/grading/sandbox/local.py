"""A sandbox on this machine: started once, proven, then one program after the other, each a forked process.

The parent, here, keeps the time: at a program's limit it tells process 1 to kill it, and if that is not done within
`GRACE_SECONDS` it kills the whole sandbox from outside and starts another. Each program has pipes and a channel of its
own, made for it and closed after it, and the word of its end carries a nonce that it never saw.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from aha.errors import CannotGradeError, GradingError
from aha.grading.sandbox.backends import BACKENDS, Launched, launch
from aha.grading.sandbox.library import Library
from aha.grading.sandbox.outcome import Ending, Outcome, SandboxConfig
from aha.grading.sandbox.proof import ENDLESS, PROBE, Trap

GRACE_SECONDS = 0.5
STDERR_BYTES = 8192
FILE_BYTES = 8 << 20
ENDLESS_SECONDS = 0.2
INSTALL_HINT = (
    "install bubblewrap 0.8 or newer (apt-get install bubblewrap, dnf install bubblewrap), allow user namespaces "
    "(sysctl kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0, as root), "
    "or name a remote sandbox by its URL (--sandbox)"
)


class Program:
    """A program that runs. Made by `Sandbox.open`; everything that comes out of it is hostile until shown otherwise."""

    def __init__(self, sandbox: Sandbox, launched: Launched, stdin: str, seconds: float) -> None:
        self._sandbox, self._launched = sandbox, launched
        self._nonce = secrets.token_hex(16)
        self._deadline = time.monotonic() + seconds
        self._ending: Ending | None = None
        self._end: dict[str, Any] | None = None
        self._outcome: Outcome | None = None
        self._most = {"stdout": sandbox.config.output_kib << 10, "channel": sandbox.config.output_kib << 10}
        self._received = {"stdout": bytearray(), "stderr": bytearray(), "channel": bytearray()}
        self._channel, theirs = socket.socketpair()
        self._channel.setblocking(False)
        output, output_theirs = os.pipe()
        errors, errors_theirs = os.pipe()
        with os.fdopen(os.memfd_create("stdin"), "w+b") as text:
            text.write(stdin.encode(errors="replace"))
            text.seek(0)
            self._files = {output: "stdout", errors: "stderr", self._channel.fileno(): "channel"}
            order = {"id": self._nonce, "limits": sandbox.limits(seconds)}
            descriptors = [text.fileno(), output_theirs, errors_theirs, theirs.fileno()]
            with contextlib.suppress(OSError):  # noticed below: the control socket is at its end
                socket.send_fds(launched.control, [json.dumps(order).encode()], descriptors)
        os.close(output_theirs)
        os.close(errors_theirs)
        theirs.close()
        for descriptor in (output, errors):
            os.set_blocking(descriptor, False)

    def send(self, message: Any) -> None:
        """Sends a JSON value to the program; in vain if it does not listen."""
        body = json.dumps(message).encode()
        left = memoryview(len(body).to_bytes(4, "big") + body)
        while left and self._ending is None and self._end is None:
            try:
                left = left[self._channel.send(left) :]
            except BlockingIOError:
                self._wait(sending=True)
            except OSError:
                return

    def receive(self) -> Any | None:
        """The next JSON value from the program's channel, or None when there will be none."""
        buffer = self._received["channel"]
        while True:
            ended = self._ending is not None or self._end is not None or self._channel.fileno() not in self._files
            if ended:
                self._drain()
            if len(buffer) >= 4 and len(buffer) >= 4 + (size := int.from_bytes(buffer[:4], "big")):
                body = bytes(buffer[4 : 4 + size])
                del buffer[: 4 + size]
                try:
                    return json.loads(body)
                except (ValueError, RecursionError):
                    return None
            if ended:
                return None
            self._wait()

    def finish(self, at_once: bool = False) -> Outcome:
        """Waits for the program's end, or ends it at once, and clears up; again, it gives the same outcome.

        Raises:
            GradingError: the sandbox broke down for no fault of the program's.
        """
        if self._outcome is None:
            try:
                self._outcome = self._conclude(at_once)
            finally:
                self._channel.close()
                for descriptor, name in self._files.items():
                    if name != "channel":
                        os.close(descriptor)
        return self._outcome

    def _conclude(self, at_once: bool) -> Outcome:
        if at_once and self._ending is None and self._end is None:
            self._stop(Ending.EXITED)
        while self._end is None and self._ending is None:
            self._wait()
        limit = time.monotonic() + GRACE_SECONDS
        while self._end is None and time.monotonic() < limit:
            self._wait(limit)
        if self._end is None or self._end.get("dirty") or self._end.get("failed"):
            self._sandbox.close()
        self._drain()
        if self._end is not None and self._end.get("failed"):
            raise GradingError(f"the sandbox broke down: {self._end['failed']}")
        ending = self._ending or Ending.EXITED
        code = self._end.get("status") if ending is Ending.EXITED and self._end is not None else None
        texts = {name: bytes(data).decode(errors="replace") for name, data in self._received.items()}
        return Outcome(ending, code, texts["stdout"], texts["stderr"])

    def _stop(self, ending: Ending) -> None:
        self._ending = ending
        with contextlib.suppress(OSError):
            self._launched.control.send(json.dumps({"stop": self._nonce}).encode())

    def _wait(self, limit: float | None = None, sending: bool = False) -> None:
        """Waits for the next thing to happen, until the program's own limit or another, and takes note of it."""
        poll = select.poll()
        for descriptor, name in self._files.items():
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if sending and name == "channel" else 0))
        poll.register(self._launched.control, select.POLLIN)
        left = (self._deadline if limit is None else limit) - time.monotonic()
        events = poll.poll(max(0.0, left * 1000)) if left > 0 else []
        if not events and self._ending is None:
            self._stop(Ending.TIME)
        for descriptor, event in events:
            if descriptor == self._launched.control.fileno():
                self._hear_the_end()
            elif event & ~select.POLLOUT:
                self._read(descriptor)

    def _hear_the_end(self) -> None:
        try:
            message = self._launched.control.recv(4096)
        except OSError:
            message = b""
        if not message:
            self._end = {"failed": "process 1 is gone"}
            return
        end = json.loads(message)
        if end.get("id") == self._nonce:
            self._end = end

    def _read(self, descriptor: int) -> bool:
        """Reads what there is, up to a block; false at the end of it."""
        name = self._files[descriptor]
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            del self._files[descriptor]
            if name != "channel":
                os.close(descriptor)
            return False
        kept = self._received[name]
        if name == "stderr":
            kept += data[: STDERR_BYTES - len(kept)]
        elif len(kept) + len(data) > self._most[name]:
            kept += data[: self._most[name] - len(kept)]
            if self._ending is None:
                self._stop(Ending.OUTPUT)
            return False
        else:
            kept += data
        return True

    def _drain(self) -> None:
        for descriptor in list(self._files):
            while descriptor in self._files and self._read(descriptor):
                pass


class Sandbox:
    """One sandbox, restarted when need be. Runs one program at a time; threads take turns.

    Args:
        config: limits.
        backends: names of `backends.BACKENDS` to try, in order.
        library: installed packages that programs may import; `call` needs one.
    """

    def __init__(
        self,
        config: SandboxConfig | None = None,
        backends: Sequence[str] = tuple(BACKENDS),
        library: Library | None = None,
    ) -> None:
        self.config = config or SandboxConfig()
        self.library = library
        self.backend: str | None = None
        self.starts = 0
        self._backends = backends
        self._launched: Launched | None = None
        self.turn = threading.RLock()

    def start(self) -> None:
        """Starts the first backend that proves itself; does nothing where one has.

        Raises:
            CannotGradeError: none does; the message says why and how to get one.
        """
        if self._launched is not None:
            return
        reasons = []
        for backend in self._backends if self.backend is None else (self.backend,):
            try:
                self._launched = launch(backend, self.library)
                self.starts += 1
                if self.backend is None:
                    self._prove()
                self.backend = backend
                return
            except (GradingError, OSError) as error:
                reasons.append(f"{backend}: {error}")
                self.close()
        raise CannotGradeError(f"no isolation for programs proved itself here ({'; '.join(reasons)}); {INSTALL_HINT}")

    def _prove(self) -> None:
        with Trap() as trap:
            probe = self._open({"mode": "script", "source": PROBE}, json.dumps(trap.challenge()), 10.0)
            trap.judge(probe.finish())
        started = time.monotonic()
        endless = self._open({"mode": "script", "source": ENDLESS}, "", ENDLESS_SECONDS).finish()
        if endless.ending is not Ending.TIME or time.monotonic() - started > ENDLESS_SECONDS + 2 * GRACE_SECONDS:
            raise GradingError("a program outlived its time limit")
        if endless.stdout.strip() != "alone":
            raise GradingError("a program's processes outlived it")

    def limits(self, seconds: float) -> dict[str, int]:
        """The arguments of `confine.limit_resources` for one program."""
        return {
            "cpu_seconds": int(seconds) + 2,
            "memory_bytes": self.config.memory_mib << 20,
            "file_bytes": FILE_BYTES,
            "processes": self.config.processes + 2,  # process 1 and the program's first
        }

    def run(self, source: str, stdin: str = "", seconds: float | None = None) -> Outcome:
        """Runs a program as `python program.py < stdin` would.

        Raises:
            GradingError: there is no proven isolation, or it broke down for no fault of the program's.
        """
        with self.turn:
            return self.open({"mode": "script", "source": source}, stdin, seconds).finish()

    def call(self, *arguments: Any, seconds: float | None = None) -> Any:
        """What the library's function returns for JSON values, as JSON; each call is a program of its own.

        Raises:
            GradingError: it raised, took too long or ended; or there is no proven isolation.
        """
        assert self.library is not None
        with self.turn:
            program = self.open(
                {"mode": "installed", "function": self.library.function, "arguments": arguments}, "", seconds
            )
            answer = program.receive()
            outcome = program.finish(at_once=True)
        if not isinstance(answer, dict) or "value" not in answer:
            ended = f"it reached the {outcome.ending}" if outcome.ending is not Ending.EXITED else "it ended"
            error = answer.get("error") if isinstance(answer, dict) else None
            raise GradingError(f"{self.library.function}: {error or ended}")
        return answer["value"]

    def open(self, request: dict[str, Any], stdin: str = "", seconds: float | None = None) -> Program:
        """Starts a program to talk to: `inside.programs` has the requests. `Program.finish` must follow."""
        self.start()
        return self._open(request, stdin, seconds or self.config.seconds)

    def _open(self, request: dict[str, Any], stdin: str, seconds: float) -> Program:
        if self._launched is None:
            raise GradingError("the sandbox ended during its self-test")
        program = Program(self, self._launched, stdin, seconds)
        program.send(request)
        return program

    def close(self) -> None:
        """Kills the sandbox, if there is one."""
        if self._launched is not None:
            self._launched.kill()
            self._launched = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
