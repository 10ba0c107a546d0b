"""The two ways to build the wall: bubblewrap, and namespaces by our own hand. Both show a program the same world.

That world: the C libraries, the Python that runs `aha` without its installed packages, this package's `inside`, the
packages of a `Library` where there is one, four devices, an empty /tmp of a few megabytes. No /proc, no /etc, no home,
no shell, no network, no other process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from aha.errors import GradingError
from aha.grading.sandbox.inside.confine import NOBODY
from aha.grading.sandbox.library import PLACE, Library

START_SECONDS = 20.0
LIBRARY_SECONDS = 90.0
"""Time to start where packages are loaded first."""
SCRATCH_BYTES = 16 << 20
PACKAGE = "/aha"
"""Where the sandbox sees `inside`, under its own import path."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_START = (
    f"import sys; sys.path.insert(0, {PACKAGE!r}); sys.path.append({PLACE!r}); "
    "from aha.grading.sandbox.inside.server import main; main(*sys.argv[1:])"
)
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "LANG": "C.UTF-8",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class View:
    """What a program sees of the host, and what it runs as."""

    shown: tuple[tuple[str, str], ...]
    """(path on the host, path inside), read-only."""
    links: tuple[tuple[str, str], ...]
    """(target, path inside): symbolic links, as where /lib leads to usr/lib."""
    emptied: tuple[str, ...]
    """Folders inside that are shown empty: installed packages may hold what a program must not read."""
    devices: tuple[str, ...]
    command: tuple[str, ...]
    environment: dict[str, str]
    scratch_bytes: int = SCRATCH_BYTES
    nobody: int = NOBODY


@dataclass(slots=True)
class Launched:
    """A sandbox that has been started: its control socket, and a handle on its process 1."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    first_process: int | None
    """A pidfd: it cannot come to mean another process."""

    def kill(self) -> None:
        """Kills everything inside, and waits for it up to a second."""
        if self.first_process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.first_process, signal.SIGKILL)
            os.close(self.first_process)
            self.first_process = None
        self.control.close()
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1.0)


def host_view(library: Library | None = None) -> View:
    """The view of this host and this Python, with the packages of a library."""
    python = Path(sys.executable).resolve()
    shown = {str(python): str(python)}
    links = []
    prefix = Path(sys.base_prefix).resolve()
    for folder in map(Path, ("/lib", "/lib64", "/usr/lib", "/usr/lib64", str(prefix / "lib"), str(prefix / "lib64"))):
        if folder.is_symlink() and folder.parent == Path("/"):
            links.append((str(folder.readlink()), str(folder)))
        elif folder.is_dir():
            shown[str(folder)] = str(folder)
    cache = Path("/etc/ld.so.cache")
    if cache.is_file():
        shown[str(cache)] = str(cache)
    inside = Path(__file__).with_name("inside")
    shown[str(inside)] = f"{PACKAGE}/aha/grading/sandbox/inside"
    if library is not None:
        shown |= library.shown(PACKAGE)
    libraries = {Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("platstdlib"))}
    libraries |= set(Path("/usr/lib").glob("python3*")) | set(prefix.glob("lib*/python3*"))
    installed = {library.resolve() / name for library in libraries for name in ("site-packages", "dist-packages")}
    return View(
        shown=tuple(shown.items()),
        links=tuple(links),
        emptied=tuple(
            sorted(str(path) for path in installed if path.is_dir() and any(map(path.is_relative_to, shown)))
        ),
        devices=_DEVICES,
        command=(str(python), "-S", "-B", "-s", "-P", "-c", _START, *_loaded(library)),
        environment=_ENVIRONMENT,
    )


def _loaded(library: Library | None) -> tuple[str, ...]:
    return () if library is None else (library.function, json.dumps(library.warm))


def bubblewrap(view: View, info: int) -> list[str]:
    """The command line of bubblewrap 0.8 or newer.

    Raises:
        GradingError: there is none on PATH, or an older one.
    """
    path = shutil.which("bwrap")
    if path is None:
        raise GradingError("not found on PATH")
    known = subprocess.run([path, "--help"], capture_output=True, text=True, check=False)
    if not all(option in known.stdout + known.stderr for option in ("--disable-userns", "--size", "--as-pid-1")):
        raise GradingError("version 0.8 or newer is needed")
    command = [path, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    command += ["--hostname", "sandbox", "--as-pid-1", "--clearenv", "--info-fd", str(info), "--cap-drop", "ALL"]
    if os.geteuid() == 0:  # no user namespace would leave root's user id inside: the server gives it up instead
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        nobody = str(view.nobody)
        command += ["--unshare-user", "--disable-userns", "--uid", nobody, "--gid", nobody]
    targets = [Path(target) for _, target in view.shown] + [Path(device) for device in view.devices]
    for parent in sorted({parent for target in targets for parent in target.parents} - {Path("/")}):
        command += ["--perms", "0755", "--dir", str(parent)]
    for source, target in view.shown:
        command += ["--ro-bind", source, target]
    for target, link in view.links:
        command += ["--symlink", target, link]
    for folder in view.emptied:
        command += ["--size", "4096", "--tmpfs", folder, "--remount-ro", folder]
    for device in view.devices:
        command += ["--dev-bind", device, device]
    command += ["--perms", "1777", "--size", str(view.scratch_bytes), "--tmpfs", "/tmp", "--remount-ro", "/"]
    for name, value in view.environment.items():
        command += ["--setenv", name, value]
    return [*command, "--chdir", "/tmp", "--", *view.command]


def namespaces(view: View, info: int) -> list[str]:
    """The command line of our own launcher.

    Raises:
        GradingError: this is not Linux.
    """
    if sys.platform != "linux":
        raise GradingError("needs Linux")
    script = Path(__file__).with_name("namespaces.py")
    return [sys.executable, "-I", "-S", "-B", str(script), json.dumps(asdict(view)), str(info)]


BACKENDS: dict[str, Callable[[View, int], list[str]]] = {"bubblewrap": bubblewrap, "namespaces": namespaces}
"""In the order in which they are tried."""


def launch(backend: str, library: Library | None = None) -> Launched:
    """Starts a sandbox and waits until its process 1 serves.

    Raises:
        GradingError: with the reason why it does not.
    """
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with tempfile.TemporaryFile() as messages, theirs:
        try:
            command = BACKENDS[backend](host_view(library), writing)
            process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=messages,
                stderr=messages,
                pass_fds=(writing,),
                start_new_session=True,
                env={"PATH": os.defpath},
            )
        except BaseException:
            ours.close()
            os.close(reading)
            raise
        finally:
            os.close(writing)
        launched = Launched(process, ours, None)
        theirs.close()
        ours.settimeout(START_SECONDS if library is None else LIBRARY_SECONDS)
        try:
            with os.fdopen(reading, "rb") as information:
                launched.first_process = os.pidfd_open(int(json.loads(information.read())["child-pid"]))
            ready = ours.recv(4096)
        except (OSError, ValueError, KeyError):
            ready = b""
        if ready:
            return launched
        launched.kill()
        messages.seek(0)
        said = messages.read(2000).decode(errors="replace").split("\n")
        raise GradingError(next((line for line in reversed(said) if line.strip()), "it did not start"))
