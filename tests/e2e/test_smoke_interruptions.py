"""The whole smoke recipe (pretraining, reinforcement learning, evaluation), killed at ten random moments."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

NOT_COMPARED = {"timings.jsonl", "cost.json", "summary.json", "environment.json", "report.html", ".lock"}
KILLS = 10


def start(out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "aha", "run", "r1-zero-smoke", "--out", str(out)]
    return subprocess.Popen([*command, "--set=checkpoint_seconds=2"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(out: Path) -> None:
    process = start(out)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors.decode()


def files(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in NOT_COMPARED
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_ten_random_moments_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    finish(tmp_path / "whole")
    rng = random.Random(2026)
    for _ in range(KILLS):
        process = start(tmp_path / "killed")
        time.sleep(rng.uniform(4.0, 25.0))
        if process.poll() is None:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            victims = [process.pid, *map(int, children)] if rng.random() < 0.5 else [process.pid]
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=60)
    finish(tmp_path / "killed")
    whole, killed = files(tmp_path / "whole"), files(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    assert [name for name in whole if whole[name] != killed[name]] == []
