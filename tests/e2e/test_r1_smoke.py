"""Every stage of R1's recipe in one small run through the real command line, interrupted on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aha.recipes.registry import resolve
from aha.runs import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
RUN = [sys.executable, "-m", "aha", "run", "r1-smoke"]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, stopped once in its first minute and once after: the same command continues it."""
    folder = tmp_path_factory.mktemp("runs") / "r1-smoke"
    for seconds in (40.0, 90.0):
        process = subprocess.Popen([*RUN, "--out", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) in (0, 143)
    done = subprocess.run([*RUN, "--out", str(folder)], capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_all_stages_are_done_and_their_models_are_measured(smoke: Path) -> None:
    summary = json.loads((smoke / "summary.json").read_text())
    rows = {row["name"]: row for row in summary["stages"]}
    assert rows.keys() == {spec.name for spec in resolve("r1-smoke").stages()}
    for model in ("pretrain", "v3", "r1-zero", "dev1", "dev2", "dev3", "r1", "qwen3", "llama"):
        assert 0.0 <= rows[model]["pass_at_1"]["mean"] <= 1.0
        assert "score" in rows[model]["general"]


def test_something_was_learned(smoke: Path) -> None:
    run = RunFolder.open(smoke)
    rewards = [row["reward"] for row in run.metrics("r1-zero") if "reward" in row]
    assert sum(rewards[-10:]) / 10 > sum(rewards[:3]) / 3 + 0.1
    for stage in ("v3", "dev1", "dev3", "qwen3", "llama"):
        losses = [row["held_out_loss"] for row in run.metrics(stage) if "held_out_loss" in row]
        assert losses[-1] < 0.9 * losses[0], stage
    rows = {row["name"]: row for row in run.json("summary")["stages"]}
    # In 40 steps the form is learnt; ten problems are too few to see more, which is what `r1-tiny` is for.
    assert rows["r1-zero"]["format_rate"] > rows["pretrain"]["format_rate"] + 0.05
    assert rows["dev3"]["general"]["score"] > rows["r1-zero"]["general"]["score"]


def test_the_audit_counts_every_sample(smoke: Path) -> None:
    for stage in ("cold-start-data", "dev3-data", "distillation-data"):
        audit = json.loads((smoke / stage / "audit.json").read_text())
        assert sum(audit["total"].values()) == audit["in"] > 0
        examples = (smoke / stage / "examples.jsonl").read_text().splitlines()
        assert len(examples) == audit["total"]["kept"] == sum(audit["summaries"].values())


def test_students_open_in_transformers(smoke: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    from aha.models.checkpoint.hf import load_pretrained
    from aha.models.layouts import Ragged

    for student, kind in (("qwen3", "Qwen3ForCausalLM"), ("llama", "LlamaForCausalLM")):
        folder = smoke / student / "model"
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        assert type(theirs).__name__ == kind
        text = "What is 7+15-4?" + "\n7+15=22\n22-4=18" * 20
        ids = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
        ours = load_pretrained(folder)
        with torch.no_grad():
            logits = ours.logits(ours(ids[0], Ragged([ids.shape[1]])).hidden_ND)
            torch.testing.assert_close(theirs(ids).logits[0], logits, atol=1e-5, rtol=1e-5)


def test_the_report_and_the_comparison(smoke: Path) -> None:
    page = (smoke / "report.html").read_text(encoding="utf-8")
    for words in ("The comparison", "One prompt through all models", "Rejection sampling", "Distillation", "<svg"):
        assert words in page
    for word in ('src="', "<script", "@import", "<link", 'href="http'):
        assert word not in page
    command = [sys.executable, "-m", "aha", "compare", str(smoke), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {row["model"] for row in json.loads(done.stdout)} >= {"r1", "qwen3", "llama"}


def test_changing_one_setting_redoes_only_what_depends_on_it(smoke: Path) -> None:
    command = [*RUN, "--out", str(smoke), "--set", "distillation.epochs=1"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=900, check=True, env={**os.environ, "COLUMNS": "200"}
    )
    for kept in ("pretrain", "r1", "distillation-data", "qwen3-base"):
        assert f"{kept}: done before, kept" in done.stdout
    for redone in ("qwen3", "llama", "evaluation"):
        assert f"{redone}: starts" in done.stdout
