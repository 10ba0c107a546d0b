"""The smallest whole run through the real command line: the loss falls, the reward rises, the report opens."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aha.runs import RunFolder


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    command = [sys.executable, "-m", "aha", "run", "r1-zero-smoke", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_loss_falls(smoke: Path) -> None:
    rows = [row for row in RunFolder.open(smoke).metrics("pretrain") if "loss" in row]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]


def test_the_reward_rises(smoke: Path) -> None:
    rewards = [row["reward"] for row in RunFolder.open(smoke).metrics("r1-zero") if "reward" in row]
    assert sum(rewards[-10:]) / 10 > sum(rewards[:5]) / 5 + 0.3


def test_engine_and_trainer_agree_at_every_step(smoke: Path) -> None:
    rows = [row for row in RunFolder.open(smoke).metrics("r1-zero") if "reward" in row]
    assert all(row["sampling/sampling_logp_difference/mean"] < 1e-5 for row in rows)


def test_the_summary_has_what_was_promised(smoke: Path) -> None:
    summary = json.loads((smoke / "summary.json").read_text())
    assert {"recipe", "commit", "seed", "wall_seconds", "peak_memory_bytes", "stages"} <= summary.keys()
    for name in ("pretrain", "r1-zero"):
        stage = next(stage for stage in summary["stages"] if stage["name"] == name)
        promised = {
            "parent",
            "minutes",
            "tokens_trained",
            "pass_at_1",
            "by_family",
            "format_rate",
            "true_step_rate",
            "mean_completion_tokens",
            "reflections_per_answer",
        }
        assert promised <= stage.keys()
        assert {"mean", "low", "high", "problems", "samples"} == stage["pass_at_1"].keys()


def test_the_report_is_one_file_without_a_network(smoke: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aha", "report", str(smoke)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    page = (smoke / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    for word in ('src="', "<script", "@import", "<link", 'href="http'):
        assert word not in page


def test_transformers_opens_the_result(smoke: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    from aha.models.checkpoint.hf import load_pretrained
    from aha.models.layouts import Ragged

    folder = smoke / "r1-zero" / "model"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("What is 7+15-4?", return_tensors="pt")["input_ids"]
    ours = load_pretrained(folder)
    with torch.no_grad():
        logits = ours.logits(ours(ids[0], Ragged([ids.shape[1]])).hidden_ND)
        assert torch.allclose(theirs(ids).logits[0], logits, atol=1e-5)


def test_the_same_command_again_says_it_is_done(smoke: Path) -> None:
    command = [sys.executable, "-m", "aha", "run", "r1-zero-smoke", "--out", str(smoke)]
    before = (smoke / "summary.json").read_bytes()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, check=False)
    assert done.returncode == 0
    assert (smoke / "summary.json").read_bytes() == before
