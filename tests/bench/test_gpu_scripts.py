"""The GPU measurements run from beginning to end on a CPU, at shapes that say nothing about speed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "bench" / "gpu"
SMALL = ["--shape", "tiny", "--device", "cpu", "--repeats", "1"]
RUNS = {
    "moe": ["--tokens", "64"],
    "mla_decode": ["--layers", "2", "--contexts", "64", "--batches", "1", "2"],
    "generation": ["--layers", "2", "--batch", "2", "--prompt", "4", "--new-tokens", "3"],
    "grpo_step": ["--layers", "2", "--prompts", "2", "--group", "2", "--prompt", "4", "--tokens", "6"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_script_measures_and_prints_its_table(name: str) -> None:
    if name in ("generation", "grpo_step"):
        pytest.importorskip("transformers")
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *SMALL, *RUNS[name]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if re.match(r"\| \w.*\d", line)]
    assert len(rows) == {"moe": 1}.get(name, 2), done.stdout


def test_every_script_is_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == RUNS.keys() | {"shapes"}
