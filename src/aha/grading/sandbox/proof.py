"""The self-test of a sandbox: a trap on the host, a program that tries to get at it, and the judgement.

A backend that starts is not yet isolation: a container may withhold namespaces, a kernel a mount option. So every
sandbox has to show that the program `PROBE`, run in it as any other, cannot read a planted file, reach a listening
socket, write next to the file, or be anybody. The judgement looks at the host's side too, and takes nothing but a
complete report, with the trap's own secret word, for a proof.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import aha
from aha.errors import GradingError
from aha.grading.sandbox.inside.confine import NOBODY
from aha.grading.sandbox.outcome import Ending, Outcome

ENVIRONMENT_NAMES = {
    "PYTHONHASHSEED",
    "PYTHONUTF8",
    "LANG",
    "LC_CTYPE",
    "HOME",
    "TMPDIR",
    "PWD",
    "OPENBLAS_NUM_THREADS",
}

PROBE = """
import json, os, socket, sys, time

trap = json.load(sys.stdin)
reached = {}

def attempt(name, act):
    try:
        act()
        reached[name] = True
    except OSError:
        reached[name] = False

def read(path):
    with open(path, "rb") as file:
        file.read(1)

def write(folder):
    path = os.path.join(folder, "written-from-inside")
    with open(path, "wb") as file:
        file.write(b"x")
    os.remove(path)

def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        connection.connect(address)

for path in trap["read"]:
    attempt("read " + path, lambda: read(path))
for folder in trap["write"]:
    attempt("write to " + folder, lambda: write(folder))
attempt("connect to TCP", lambda: connect(socket.AF_INET, ("127.0.0.1", trap["port"])))
attempt("connect to an abstract socket", lambda: connect(socket.AF_UNIX, chr(0) + trap["abstract"]))
attempt("open a socket to the machine around", lambda: socket.socket(40, socket.SOCK_STREAM))  # vsock: no namespace
attempt("become root", lambda: os.setuid(0))
attempt("change the root folder", lambda: os.chroot("/tmp"))
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
print(json.dumps({"word": trap["word"], "reached": reached, "users": os.getresuid() + os.getresgid(),
                  "groups": os.getgroups(), "names": sorted(os.environ)}))
"""

ENDLESS = """
import os, signal

try:
    os.kill(-1, 0)
    print("not alone", flush=True)
except ProcessLookupError:
    print("alone", flush=True)
for number in range(1, 32):
    try:
        signal.signal(number, signal.SIG_IGN)
    except OSError:
        pass
while True:
    pass
"""
"""Run after `PROBE`: sees whether what that left running is gone, and does not stop."""


class Trap:
    """Something to steal, somewhere to write, somebody to call: as reachable on the host as can be."""

    def __init__(self) -> None:
        self._word = secrets.token_hex(16)
        self._folder = Path(tempfile.mkdtemp(prefix="aha-trap-"))
        self._folder.chmod(0o777)
        self._file = self._folder / "secret"
        self._file.write_text(self._word)
        self._file.chmod(0o644)
        self._abstract = f"aha-trap-{secrets.token_hex(8)}"
        self._listeners = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
        self._listeners[1].bind(f"\0{self._abstract}")
        self._listeners[1].listen()

    def __enter__(self) -> Trap:
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners:
            listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def challenge(self) -> dict[str, Any]:
        """What `PROBE` reads: where to look."""
        return {
            "word": self._word[::-1],
            "read": [
                str(self._file),
                str(aha.__file__),
                "/etc/passwd",
                "/proc/self/environ",
                "/proc/1/environ",
                "/bin/sh",
            ],
            "write": [str(self._folder), "/", "/aha", "/dev", "/etc", "/usr", "/usr/lib", "/var/tmp", "/dev/shm"],
            "port": self._listeners[0].getsockname()[1],
            "abstract": self._abstract,
        }

    def judge(self, outcome: Outcome) -> None:
        """Takes `PROBE`'s report.

        Raises:
            GradingError: it is incomplete, or something was reached.
        """
        challenge = self.challenge()
        try:
            report = json.loads(outcome.stdout)
        except ValueError:
            report = {}
        if outcome.ending is not Ending.EXITED or outcome.exit_code != 0 or report.get("word") != challenge["word"]:
            raise GradingError(f"its self-test did not run: {outcome.stderr.strip()[-200:] or outcome.ending}")
        tried = {f"read {path}" for path in challenge["read"]} | {f"write to {path}" for path in challenge["write"]}
        tried |= {
            "connect to TCP",
            "connect to an abstract socket",
            "become root",
            "open a socket to the machine around",
            "change the root folder",
        }
        escapes = [name for name in tried if report["reached"].get(name) is not False]
        if report["users"] != [NOBODY] * 6 or report["groups"] not in ([], [NOBODY]):
            escapes.append(f"be user {report['users']}")
        if not set(report["names"]) <= ENVIRONMENT_NAMES:
            escapes.append("read the environment")
        for listener in self._listeners:
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()
                escapes.append("be heard on the host")
        if escapes:
            raise GradingError(f"a program in it could {', '.join(sorted(escapes))}")
