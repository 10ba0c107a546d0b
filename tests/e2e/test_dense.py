"""A dense model through the real command line: pretraining, GRPO and evaluation run on it as on a DeepSeek-V3."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aha.runs import RunFolder

SETTINGS = {
    "pretrain.model": {
        "preset": "qwen3-tiny",
        "changes": {
            "hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 96, "head_dim": 12,
            "tie_word_embeddings": True,
        },
    },
    "pretrain.steps": 20, "pretrain.rows_per_step": 8, "pretrain.tokenizer_documents": 200,
    "rl.steps": 2, "rl.prompts_per_step": 2, "rl.group_size": 4, "rl.held_out.every": 0, "rl.preflight.prompts": 0,
    "rl.rubric": {"accuracy": 0.0, "format": 0.0, "random": 1.0}, "rl.loss.kl_beta": 0.01,
    "rl.sampling.lengths": [{"from_step": 0, "max_completion_tokens": 24}],
    "evaluation.suites": [{"stage": "r1-zero"}], "evaluation.problems_per_level": 2, "evaluation.samples": 1,
    "evaluation.max_completion_tokens": 24,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "dense"
    command = [sys.executable, "-m", "aha", "run", "r1-zero-smoke", "--out", str(folder), "--processes", "1"]
    for key, value in SETTINGS.items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_it_learns_in_pretraining(run: Path) -> None:
    losses = [row["loss"] for row in RunFolder.open(run).metrics("pretrain") if "loss" in row]
    assert losses[-1] < 0.8 * losses[0]


def test_grpo_moves_it_and_the_engine_agrees_with_the_trainer(run: Path) -> None:
    rows = [row for row in RunFolder.open(run).metrics("r1-zero") if "reward" in row]
    assert all(row["grad_norm"] > 0 and "max_vio" not in row for row in rows)
    assert all(row["sampling/sampling_logp_difference/mean"] < 1e-5 for row in rows)
    before, after = ((run / stage / "model" / "model.safetensors").read_bytes() for stage in ("pretrain", "r1-zero"))
    assert before != after


def test_evaluation_and_report_leave_out_the_experts(run: Path) -> None:
    assert json.loads((run / "evaluation" / "experts.json").read_text())["r1-zero"]["by_domain"] == {}
    command = [sys.executable, "-m", "aha", "report", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "What the experts do" not in (run / "report.html").read_text(encoding="utf-8")


def test_its_folder_is_described(run: Path) -> None:
    command = [sys.executable, "-m", "aha", "model", str(run / "r1-zero" / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "keys and values" in done.stdout
