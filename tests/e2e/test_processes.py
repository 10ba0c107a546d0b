"""One process and two train on the same global batch: the same losses, over the real command line."""

import subprocess
import sys
from pathlib import Path

import pytest

from aha.runs import RunFolder

STEPS = 20


def pretrain_losses(folder: Path, processes: int, **parallel: object) -> list[float]:
    settings = {
        "pretrain.steps": STEPS,
        "pretrain.log_every": 1,
        "pretrain.rows_per_step": 4,
        "pretrain.validation_rows": 0,
        "rl.steps": 1,
        "rl.held_out.every": 0,
        "rl.preflight.prompts": 0,
        "evaluation.problems_per_level": 1,
        "evaluation.samples": 1,
        **{f"parallel.{name}": value for name, value in parallel.items()},
    }
    command = [sys.executable, "-m", "aha", "run", "r1-zero-smoke", "--out", str(folder), "--processes", str(processes)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [row["loss"] for row in RunFolder.open(folder).metrics("pretrain") if "loss" in row]


def test_one_process_and_two_agree(tmp_path: Path) -> None:
    """Two that each hold the model, and two that it is spread over."""
    one, two = (pretrain_losses(tmp_path / str(count), count) for count in (1, 2))
    spread = pretrain_losses(tmp_path / "spread", 2, fsdp=True, expert_parallel=2)
    assert len(one) == len(two) == len(spread) == STEPS
    assert two == pytest.approx(one, abs=1e-5)
    assert spread == pytest.approx(one, abs=1e-5)
