"""Starting the local worker processes of a run and looking after them. No torch here: the launcher stays small.

`aha run` calls this in the process that the user started. The workers get torchrun's variables (RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR, MASTER_PORT), so that the code they run is the code that runs under `torchrun`. A fresh process
per worker, even for one, is what lets the thread and memory settings below take effect: they are read before torch is
imported.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from aha.environment import available_cores

PARENT_PIPE = "AHA_PARENT_PIPE"
"""Names the pipe by which a worker sees that its launcher is gone."""

WORKER_SETTINGS = {
    # One thread per process that sleeps while it waits: spinning barriers cost tens of times on a busy machine.
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
    # Keep freed blocks instead of returning them to the system: otherwise every large temporary is mapped and zeroed
    # anew, which costs element-wise operations a factor of 2 to 5.
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "PYTHONHASHSEED": "0",
    "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
}
"""Environment of the workers. A variable that the user has set wins, except for the hash seed."""


def is_worker() -> bool:
    """Whether this process is one of a group already started, by `launch` or by torchrun."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def default_processes(limit: int, device: str = "auto") -> int:
    """One process per GPU where GPUs are to be used, else one per core, at most `limit`."""
    gpus = 0 if device == "cpu" else _visible_gpus()
    return max(1, min(limit, gpus or available_cores()))


def _visible_gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() and name.strip() != "-1"])
    return len([path for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)])


def launch(
    command: Sequence[str], processes: int, inherit: Sequence[int] = (), environment: Mapping[str, str] | None = None
) -> int:
    """Runs `processes` copies of a command as one group and returns the exit code of the whole.

    SIGTERM and SIGINT are passed on as SIGTERM; a second one kills at once. When one worker fails the others are
    killed.

    Args:
        command: the program and its arguments.
        processes: how many workers.
        inherit: file descriptors that the workers keep open, such as the run folder's lock.
        environment: variables on top of this process's own and `WORKER_SETTINGS`.

    Returns:
        0 when all ended well; 143 or 130 after SIGTERM or SIGINT; else 1 or the failing worker's own code.
    """
    reading, writing = os.pipe()
    shared = {
        **{key: os.environ.get(key, value) for key, value in WORKER_SETTINGS.items()},
        "PYTHONHASHSEED": "0",
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        PARENT_PIPE: str(reading),
        **(environment or {}),
    }
    group = _Group()
    with group:
        try:
            for rank in range(processes):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                group.start(command, {**os.environ, **shared, **own}, (*inherit, reading))
            os.close(reading)
            return group.wait()
        finally:
            group.kill()
            os.close(writing)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Group:
    """The running workers; as a context, the signals that this process receives go to them."""

    def __init__(self) -> None:
        self.workers: list[subprocess.Popen[bytes]] = []
        self.received = 0
        self._previous: dict[int, Any] = {}

    def start(self, command: Sequence[str], environment: Mapping[str, str], inherit: Sequence[int]) -> None:
        # A session of their own keeps the terminal's Ctrl-C from reaching the workers a second time, beside ours.
        worker = subprocess.Popen(
            command, env=environment, pass_fds=inherit, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self.workers.append(worker)
        if self.received:
            worker.terminate()

    def __enter__(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._previous[signum] = signal.signal(signum, self._receive)

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        repeated = self.received != 0
        self.received = self.received or signum
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGKILL if repeated else signal.SIGTERM)

    def kill(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()

    def wait(self) -> int:
        while True:
            codes = [worker.poll() for worker in self.workers]
            failed = [(rank, code) for rank, code in enumerate(codes) if code not in (None, 0)]
            if failed and not self.received:
                return self._report(*failed[0])
            if all(code is not None for code in codes):
                return 128 + self.received if self.received and any(codes) else 0
            time.sleep(0.02)

    def _report(self, rank: int, code: int) -> int:
        """The exit code for a worker that failed; says what happened where the worker could not say so itself."""
        if code > 0:
            return code
        name = signal.Signals(-code).name
        memory = " (the system kills processes so when memory runs out)" if -code == signal.SIGKILL else ""
        advice = "the same command continues from the last checkpoint"
        print(f"aha: error: worker {rank} was killed by {name}{memory}; {advice}", file=sys.stderr)
        return 1
