"""Sandboxes for tests, proven or skipped, and a trap on the host for hostile programs."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aha.errors import GradingError
from aha.grading.sandbox.backends import BACKENDS
from aha.grading.sandbox.checks import LocalRunner
from aha.grading.sandbox.outcome import SandboxConfig


@pytest.fixture(scope="session", params=["first", *(pytest.param(name, marks=pytest.mark.slow) for name in BACKENDS)])
def runner(request: pytest.FixtureRequest) -> Iterator[LocalRunner]:
    """The first backend that proves itself, and, among the slow tests, each: hostile programs run nowhere else."""
    os.environ["AHA_TEST_SECRET"] = Trap.word
    runner = LocalRunner(SandboxConfig(seconds=4.0, memory_mib=256))
    for sandbox in (runner.programs, runner.tests):
        sandbox._backends = list(BACKENDS) if request.param == "first" else [request.param]
    try:
        runner.programs.start()
    except GradingError as error:
        pytest.skip(str(error))
    yield runner
    runner.close()
    del os.environ["AHA_TEST_SECRET"]


class Trap:
    """A secret file, an environment variable, listeners and a process of the host."""

    word = "xyzzy-" + os.urandom(8).hex()

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="aha-bait-"))
        self.folder.chmod(0o777)
        (self.folder / "secret").write_text(self.word)
        (self.folder / "secret").chmod(0o666)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        port = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", port))
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind("\0" + self.word[::-1])
        self.abstract.listen()
        self.file = socket.socket(socket.AF_UNIX)
        self.file.bind(str(self.folder / "socket"))
        (self.folder / "socket").chmod(0o777)
        self.file.listen()
        self.process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
        self.told = json.dumps({
            "folder": str(self.folder), "secret": str(self.folder / "secret"), "port": port,
            "abstract": self.word[::-1], "pid": self.process.pid, "trainer": os.getpid(),
        })  # fmt: skip

    def is_untouched(self) -> bool:
        """Whether nothing of it was written, called or killed."""
        for listener in (self.tcp, self.udp, self.abstract, self.file):
            listener.setblocking(False)
            try:
                listener.recvfrom(10) if listener is self.udp else listener.accept()
            except BlockingIOError:
                continue
            return False
        names = sorted(path.name for path in self.folder.iterdir())
        intact = (self.folder / "secret").read_text() == self.word
        return names == ["secret", "socket"] and intact and self.process.poll() is None

    def close(self) -> None:
        """Clears up."""
        for listener in (self.tcp, self.udp, self.abstract, self.file):
            listener.close()
        self.process.kill()
        self.process.communicate()
        shutil.rmtree(self.folder)


@pytest.fixture(scope="session")
def trap() -> Iterator[Trap]:
    trap = Trap()
    yield trap
    trap.close()
