"""Being asked to stop, and losing the parent, seen from a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from aha.training.interrupts import StopRequested

STUCK = """
import sys, time
from aha.training.interrupts import StopFlag
flag = StopFlag(grace_seconds=0.1)
flag.install()
flag.busy = len(sys.argv) > 1
print("ready", flush=True)
if flag.busy:
    while not flag.signum:
        time.sleep(0.01)
    time.sleep(0.5)
    print("saved", flush=True)
    flag.busy = False
time.sleep(60)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("busy", [False, True])
def test_a_loop_that_does_not_come_round_is_ended_but_a_save_is_waited_for(signum: int, busy: bool) -> None:
    process = subprocess.Popen([sys.executable, "-c", STUCK, *(["busy"] * busy)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signum)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signum == StopRequested(signum).exit_code
    assert output == ("saved\n" if busy else "")


def test_a_worker_ends_when_its_parent_is_gone() -> None:
    code = "import sys, time, aha.training.interrupts as i; i.exit_with_parent(int(sys.argv[1])); time.sleep(60)"
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code, str(reading)], pass_fds=[reading])
    os.close(reading)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.3)
    os.close(writing)
    assert process.wait(timeout=30) == 1
