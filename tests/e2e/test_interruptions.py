"""The promise of a run: killed at any moment, the same command ends with the same bytes.

Two real processes of a toy stage, and one of a real pretraining and GRPO.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NOT_COMPARED = {"timings.jsonl", "cost.json", "summary.json", "environment.json", "report.html", ".lock"}
"""Files that hold times, memory, versions, and the name of the run folder."""
STEPS = 100


def command(out: Path, *more: str) -> list[str]:
    settings = [
        f"--set={stage}.{key}" for stage in ("grow", "polish") for key in (f"steps={STEPS}", "step_seconds=0.005")
    ]
    return [sys.executable, "-P", "-m", "aha", "run", "toy_recipe:toy", "--out", str(out), *settings, *more]


def environment() -> dict[str, str]:
    paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(out, *more), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(out: Path, *more: str) -> str:
    process = start(out, *more)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output + errors


def rows(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_rows(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Waits until so many rows of metrics are written."""
    deadline = time.monotonic() + 60
    while rows(out) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The process ids of the worker processes."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def files(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name not in NOT_COMPARED
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    finish(out)
    assert rows(out) == 2 * STEPS
    return out


def test_killed_three_times_it_ends_with_the_same_bytes(uninterrupted: Path, tmp_path: Path) -> None:
    out, rng = tmp_path / "run", random.Random(7)
    for victim in ("launcher", "worker", "all"):
        process = start(out)
        reached = rows(out)
        wait_for_rows(out, min(reached + 5 + rng.randrange(50), 2 * STEPS - 5), process)
        children = workers(process)
        targets = {"launcher": [process.pid], "worker": [children[rng.randrange(2)]], "all": [process.pid, *children]}
        for pid in targets[victim]:
            os.kill(pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == (1 if victim == "worker" else -signal.SIGKILL)
        if victim == "worker":
            assert "was killed by SIGKILL" in errors
            assert errors.count("\n") == 1
    finish(out)
    assert files(out) == files(uninterrupted)


def train(out: Path, dies_at: str = "") -> subprocess.Popen[str]:
    """A real pretraining and GRPO in one process, to the end or to a step at which it kills itself."""
    command = [sys.executable, "-P", "-m", "aha", "run", "mortal_recipe:mortal", "--out", str(out)]
    alone = {**environment(), "RANK": "0", "WORLD_SIZE": "1", "DIES_AT": dies_at}
    return subprocess.Popen(command, env=alone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ends(process: subprocess.Popen[str], code: int) -> None:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == code, output


def test_pretraining_and_grpo_killed_three_times_end_with_the_same_weights(tmp_path: Path) -> None:
    """The last time after the reference was reset: what the policy is held close to is neither base nor policy."""
    whole = train(tmp_path / "whole")
    for moment in ("pretrain:3", "r1-zero:1", "r1-zero:3"):
        ends(train(tmp_path / "killed", dies_at=moment), -signal.SIGKILL)
    ends(train(tmp_path / "killed"), 0)
    ends(whole, 0)
    expected, found = files(tmp_path / "whole"), files(tmp_path / "killed")
    assert found["r1-zero/model/model.safetensors"] == expected["r1-zero/model/model.safetensors"]
    assert found == expected
    rows = [json.loads(line) for line in expected["r1-zero/metrics.jsonl"].splitlines()]
    assert all(row["grad_norm"] > 0 for row in rows) and any(row["kl"] > 0 for row in rows)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_it_saves_and_says_how_to_go_on(
    uninterrupted: Path, tmp_path: Path, signum: int, code: int
) -> None:
    out = tmp_path / "run"
    process = start(out, "--set=checkpoint_seconds=3600")
    wait_for_rows(out, 20, process)
    process.send_signal(signum)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert errors.splitlines() == [f"aha: stopped; the same command continues {out}"]
    saved = list((out / "grow" / "checkpoints").iterdir())
    assert len(saved) == 1, "it was asked to stop and must have saved, though no checkpoint was due"
    if signum == signal.SIGINT:
        return  # once is enough
    output = finish(out)
    assert f"grow: continues after step {int(saved[0].name.removeprefix('step-'))}" in output
    expected = files(uninterrupted)
    assert {name: data for name, data in files(out).items() if name in expected} == expected


def test_a_run_in_use_is_refused_at_once_and_not_disturbed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(out, "--set=grow.steps=100000")
    wait_for_rows(out, 1, process)
    for more in ((), ("--fresh",)):
        second = subprocess.run(command(out, *more), env=environment(), capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert second.stderr.startswith(f"aha: error: folder '{out}' is in use by process {process.pid}")
        assert second.stderr.count("\n") == 1
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143, "the owner went on undisturbed until it was asked to stop"


@pytest.mark.parametrize("rank", [0, 1, 99])
def test_when_a_stage_says_no_one_line_says_why(tmp_path: Path, rank: int) -> None:
    process = start(tmp_path / "run", f"--set=grow.fail_on_rank={rank}", "--set=grow.steps=4")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == f"aha: error: rank {0 if rank == 99 else rank} sees nothing to learn\n"


def test_a_bug_shows_one_traceback_and_ends_all_processes(tmp_path: Path) -> None:
    process = start(tmp_path / "run", "--set=grow.break_on_rank=1", "--set=grow.steps=4")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.count("Traceback (most recent call last)") == 1
    assert errors.rstrip().endswith("RuntimeError: a bug")


def test_the_resolved_configuration_runs_again_to_the_same_bytes(uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    again = [sys.executable, "-P", "-m", "aha", "run", str(uninterrupted / "config.yaml"), "--out", str(out)]
    subprocess.run(again, env=environment(), check=True, capture_output=True, timeout=120)
    assert files(out) == files(uninterrupted)
    output = subprocess.run(again, env=environment(), check=True, capture_output=True, text=True, timeout=120).stdout
    assert output.count(": done before, kept") == 2
    assert files(out) == files(uninterrupted)


def test_torchrun_joins_the_same_code(uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    finished = subprocess.run(
        [*launcher, *command(out)[2:]], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert files(out) == files(uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_random_times_it_ends_with_the_same_bytes(uninterrupted: Path, tmp_path: Path, seed: int) -> None:
    out, rng = tmp_path / "run", random.Random(seed)
    for _ in range(5):
        process = start(out)
        time.sleep(rng.uniform(0.1, 8.0))
        victims = [process.pid] if process.poll() is None else []
        if victims and rng.random() < 0.5:
            victims += workers(process)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=60)
    finish(out)
    assert files(out) == files(uninterrupted)
