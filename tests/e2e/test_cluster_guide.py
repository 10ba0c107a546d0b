"""Every command of the guide to clusters, on a recipe of seconds: two processes on one machine, and two "machines"."""

import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aha.runs import RunFolder

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "your_cluster.md"
COMMANDS = [line for line in GUIDE.read_text().splitlines() if line.startswith(("aha run", "torchrun"))]
SETTINGS = {
    "compute.device": "cpu",
    "pretrain.steps": 10,
    "pretrain.log_every": 1,
    "pretrain.rows_per_step": 3,
    "pretrain.row_tokens": 64,
    "pretrain.tokenizer_documents": 300,
    "pretrain.validation_rows": 1,
    "rl.steps": 2,
    "rl.prompts_per_step": 3,
    "rl.loss.kl_beta": 0.01,
    "rl.held_out.every": 0,
    "rl.preflight.prompts": 0,
    "evaluation.problems_per_level": 1,
    "evaluation.samples": 1,
}
PLACES = {"r1-zero-tiny": "r1-zero-smoke", "node0": "127.0.0.1", "--nproc-per-node 8": "--nproc-per-node 1"}


def start(command: str, folder: Path, port: int, **more: object) -> subprocess.Popen[str]:
    """A command as the guide has it, but small and here."""
    for there, here in {**PLACES, "runs/": f"{folder}/", "/shared/": f"{folder}/", "29500": str(port)}.items():
        command = command.replace(there, here)
    words = shlex.split(command)
    words += [word for key, value in {**SETTINGS, **more}.items() for word in ("--set", f"{key}={value}")]
    module = {"aha": "aha", "torchrun": "torch.distributed.run"}[words[0]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", module, *words[1:]],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip


def run(commands: list[str], folder: Path) -> RunFolder:
    """Starts commands at once, waits for all, and opens the run that they made."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = [start(command, folder, port) for command in commands]
    try:
        for process in started:
            output, _ = process.communicate(timeout=200)
            assert process.returncode == 0, output
    finally:
        for process in started:
            process.kill()
    return RunFolder.open(folder / "spread")


def stop_after_a_checkpoint(process: subprocess.Popen[str], stage: Path) -> None:
    """Asks a run to stop in the middle of a stage."""
    parts = "checkpoints/step-*/shard-00001-*.safetensors"
    while not list(stage.glob(parts)):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert list(stage.glob(parts)), "it ended before it was stopped"


def losses(run: RunFolder, stage: str) -> list[float]:
    return [row["loss"] for row in run.metrics(stage) if "loss" in row]


def test_the_guide_has_the_commands_that_are_tested_here() -> None:
    assert [command.split()[:3] for command in COMMANDS] == [
        ["aha", "run", "r1-zero-tiny"],
        ["torchrun", "--nproc-per-node", "2"],
        ["torchrun", "--nnodes", "2"],
        ["torchrun", "--nnodes", "2"],
        ["torchrun", "--nproc-per-node", "1"],
    ]


@pytest.mark.slow
def test_the_commands_of_the_guide_make_the_same_model(tmp_path: Path) -> None:
    """Each in a folder of its own; the last, one plain process, also goes on with what two have begun."""
    groups = [COMMANDS[:1], COMMANDS[1:2], COMMANDS[2:4], COMMANDS[4:]]
    runs = [run(commands, tmp_path / str(number)) for number, commands in enumerate(groups)]
    expected = losses(runs[-1], "pretrain")
    assert len(expected) == 10
    for spread in runs[:-1]:
        assert losses(spread, "pretrain") == pytest.approx(expected, abs=1e-5)
        assert losses(spread, "r1-zero") == pytest.approx(losses(runs[-1], "r1-zero"), abs=1e-4)
    folder = tmp_path / "stopped"
    stop_after_a_checkpoint(start(COMMANDS[0], folder, 0, checkpoint_seconds=0), folder / "spread" / "pretrain")
    resumed = run(COMMANDS[4:], folder)
    assert losses(resumed, "pretrain") == pytest.approx(expected, abs=1e-5)
    assert [run.json("environment")["processes"] for run in runs] == [2, 2, 2, 1]
