"""Worker processes that can be killed, for graders and templates: whatever a completion holds, nobody waits for it.

A worker is a fresh Python process that imports one function by name and answers JSON lines. If an item takes longer
than its limit the process is killed and replaced, that item has no verdict (None: the sample is dropped), and the
rest go on.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

from aha.errors import GradingError

START_SECONDS = 60.0
"""Time a worker may take to import its function."""


class KillableWorker:
    """One killable process around a function. Threads may share it: their items are graded one after another.

    Args:
        target: ``module:function``; called with an item's JSON values as positional arguments, returns a JSON value.
        seconds_per_item: limit for one item, of wall-clock time.
    """

    def __init__(self, target: str, seconds_per_item: float = 2.0) -> None:
        self.target = target
        self.seconds_per_item = seconds_per_item
        self.kills = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._turn = threading.Lock()

    def grade(self, items: Sequence[Sequence[Any]]) -> list[Any | None]:
        """Grades items in order; None where the function raised, ran too long, or its process died."""
        with self._turn:  # an answer must not go to another thread's item
            return self._grade(items)

    def _grade(self, items: Sequence[Sequence[Any]]) -> list[Any | None]:
        results: list[Any | None] = []
        while len(results) < len(items):
            process = self._ensure_started()
            pending = items[len(results) :]
            writer = threading.Thread(target=_write, args=(process, pending), daemon=True)
            writer.start()
            for _ in pending:
                try:
                    line = self._answers.get(timeout=self.seconds_per_item)
                except queue.Empty:
                    line = b""
                results.append(json.loads(line)["result"] if line else None)
                if not line:
                    self.kills += 1
                    self.close()
                    break
            writer.join()
        return results

    def _ensure_started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        command = [sys.executable, "-m", "aha.workers", self.target]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self._process, self._answers = process, queue.Queue()
        threading.Thread(target=_read, args=(process, self._answers), daemon=True).start()
        try:
            ready = self._answers.get(timeout=START_SECONDS)
        except queue.Empty:
            ready = b""
        if not ready:
            self.close()
            raise GradingError(f"the grader {self.target} did not start; see the messages above")
        return process

    def close(self) -> None:
        """Kills the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):  # what was still buffered for the dead process
                    pipe.close()
            self._process = None

    def __enter__(self) -> KillableWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _write(process: subprocess.Popen[bytes], items: Sequence[Sequence[Any]]) -> None:
    assert process.stdin is not None
    try:
        for item in items:
            process.stdin.write(json.dumps(list(item)).encode() + b"\n")
        process.stdin.flush()
    except (OSError, ValueError):
        pass  # the process was killed: `grade` notices by itself


def _read(process: subprocess.Popen[bytes], answers: queue.Queue[bytes]) -> None:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            answers.put(line)
    except ValueError:
        pass  # closed by `close`
    answers.put(b"")


def serve(target: str) -> None:
    """The worker's loop: one JSON list of arguments a line in, one JSON object a line out."""
    module, _, name = target.partition(":")
    function = cast(Callable[..., Any], getattr(importlib.import_module(module), name))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the graded code prints goes to stderr, never into an answer
    out.write(b"ready\n")
    out.flush()
    for line in sys.stdin.buffer:
        try:
            result = function(*json.loads(line))
        except Exception:  # noqa: BLE001 - grading: a failure is data, the sample is dropped
            result = None
        out.write(json.dumps({"result": result}).encode() + b"\n")
        out.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
