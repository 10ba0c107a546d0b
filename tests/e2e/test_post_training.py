"""Checkpoints of others on real data, by the command line: fine-tuning, reinforcement learning, export, reload."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aha.models.checkpoint.hf import load_pretrained
from aha.models.layouts import Rectangle
from aha.tasks.datasets import load_dataset, open_dataset

from ..foreign import write_checkpoint
from ..rollout_server import RolloutServer

DATA = Path(__file__).resolve().parent.parent / "data"
ROWS = DATA / "gsm8k" / "test.jsonl"
SOURCES = [f"train.path={ROWS}", f"held_out={{path: {ROWS}, limit: 4}}"]
"""Sixteen problems to train on, four held out."""
SMALL = [
    "max_processes=1",
    "evaluation.problems_limit=4",
    "evaluation.samples=2",
    "evaluation.max_completion_tokens=24",
]


def texts() -> list[str]:
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()]
    return [row["question"] + "\n" + row["answer"] for row in rows] * 5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "qwen"
    write_checkpoint(folder, texts(), num_hidden_layers=2)
    return folder


def aha(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "aha", "run", *arguments]
    environment = {**os.environ, "AHA_DATA": str(DATA), "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def settings(*changes: str) -> list[str]:
    return [part for change in (*SMALL, *changes) for part in ("--set", change)]


def summary(run: Path) -> dict[str, dict]:
    return {stage["name"]: stage for stage in json.loads((run / "summary.json").read_text())["stages"]}


@pytest.mark.filterwarnings("ignore")
def same_logits(folder: Path) -> None:
    """Ours and transformers' agree on a model folder."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ours = load_pretrained(folder)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        expected = theirs(ids).logits
        actual = ours.logits(ours(ids[0], Rectangle(1, ids.shape[1], ids.device)).hidden_ND)
    torch.testing.assert_close(actual, expected[0, :, : actual.shape[-1]], atol=1e-5, rtol=1e-4)


def test_fine_tuning_on_worked_solutions(checkpoint: Path, tmp_path: Path) -> None:
    more = settings(
        *SOURCES,
        "sft.epochs=20",
        "sft.examples_per_step=8",
        "sft.validation_examples=2",
        "sft.optimizer.adam_lr=0.01",
        "sft.optimizer.warmup_steps=1",
    )
    result = aha(tmp_path, "sft", "--model", str(checkpoint), "--task", "gsm8k", "--out", "run", *more)
    assert result.returncode == 0, result.stderr
    losses = [row["held_out_loss"] for row in log(tmp_path / "run", "sft") if "held_out_loss" in row]
    assert losses[-1] < losses[0] - 1.0, losses
    model = tmp_path / "run" / "sft" / "model"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (model / name).read_bytes() == (checkpoint / name).read_bytes(), name
    ends = [json.loads((folder / "generation_config.json").read_text()) for folder in (model, checkpoint)]
    assert ends[0] == ends[1]
    same_logits(model)


def test_reinforcement_learning_on_a_task(checkpoint: Path, tmp_path: Path) -> None:
    reward = tmp_path / "mine.py"
    reward.write_text("def has_e(prompt, completion, columns):\n    return float(completion.count('e') > 3)\n")
    more = settings(
        *SOURCES,
        "rl.steps=3",
        "rl.prompts_per_step=2",
        "rl.group_size=4",
        "rl.sampling.lengths=[{from_step: 0, max_completion_tokens: 24}]",
        "rl.preflight.prompts=1",
        "rl.held_out.every=3",
        "rl.held_out.problems_per_level=2",
        f"rl.rubric.functions={{'{reward}:has_e': 1.0}}",
        "rl.optimizer.adam_lr=0.001",
    )
    arguments = ("grpo", "--model", str(checkpoint), "--task", "gsm8k", "--out", "run", *more)
    result = aha(tmp_path, *arguments)
    assert result.returncode == 0, result.stderr
    assert "3 steps of 2 prompts x 4 completions" in result.stdout
    steps = [row for row in log(tmp_path / "run", "grpo") if "reward" in row]
    assert len(steps) == 3 and any(row["rewards/has_e/mean"] > 0 for row in steps)
    assert all(row["completions/dropped"] == 0 for row in steps)
    assert max(row["sampling/sampling_logp_difference/mean"] for row in steps) < 1e-5
    groups = [json.loads(line) for line in (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()]
    keys = [group["question"] for group in groups if group.get("step") is not None]
    assert len(set(keys)) == len(keys) >= 6, "every problem comes once before any comes again"
    model = tmp_path / "run" / "grpo" / "model"
    assert (model / "model.safetensors").read_bytes() != (checkpoint / "model.safetensors").read_bytes()
    same_logits(model)
    assert set(summary(tmp_path / "run")) == {"base", "problems", "decontaminated", "grpo", "evaluation"}
    again = aha(tmp_path, *arguments)
    assert again.returncode == 0 and again.stdout.count("done before, kept") == 5


def test_conversations_of_ones_own(checkpoint: Path, tmp_path: Path) -> None:
    rows = [{"ask": f"What is {i} + 1?", "say": f"It is {i + 1}."} for i in range(12)] + [{"ask": "?"}]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = "{question: ask, answer: say}"
    more = settings(
        "train.path=mine.jsonl",
        f"train.columns={columns}",
        "train.bad_share=0.1",
        "sft.examples_per_step=4",
        "sft.validation_examples=2",
    )
    result = aha(tmp_path, "sft", "--model", str(checkpoint), "--out", "run", *more)
    assert result.returncode == 0, result.stderr
    assert "line 13: no column 'say'" in result.stdout
    assert summary(tmp_path / "run")["conversations"]["kept"] == 12


def test_conversations_lose_what_a_test_set_holds(checkpoint: Path, tmp_path: Path) -> None:
    question = json.loads(ROWS.read_text().splitlines()[0])["question"]
    rows = [{"question": f"What is {i} + 1?", "answer": f"It is {i + 1}."} for i in range(12)]
    rows.append({"question": "Here is one from class: " + question, "answer": "I know."})
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = settings("train.path=mine.jsonl", "decontamination_against=[gsm8k]", *QUICK["sft"])
    result = aha(tmp_path, "sft", "--model", str(checkpoint), "--out", "run", *more)
    assert result.returncode == 0, result.stderr
    assert "1 of 13 conversations share 13 words" in result.stdout
    assert summary(tmp_path / "run")["sft"]["examples"] == 10  # and two for the held-out loss


@pytest.mark.slow
def test_puzzles_of_reasoning_gym(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed: install the extra gym")
    limits = (
        "train={path: 'gym:leg_counting', limit: 12}",
        "held_out={path: 'gym:leg_counting', split: test, limit: 4}",
    )
    result = aha(
        tmp_path,
        *("grpo", "--model", str(checkpoint), "--task", "gym:leg_counting", "--out", "run"),
        *settings(*limits, *QUICK["grpo"]),
    )
    assert result.returncode == 0, result.stderr
    assert summary(tmp_path / "run")["decontaminated"]["kept"] == 12, "the wording of the puzzles is shared by all"
    (step,) = (row for row in log(tmp_path / "run", "grpo") if "reward" in row)
    assert step["completions/dropped"] == 0


def test_what_ends_a_turn_is_written_for_other_software(checkpoint: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(checkpoint, base)
    known = json.loads((base / "generation_config.json").read_text())["eos_token_id"]
    text_end = known[-1]  # a base checkpoint: it ends texts with one token, its template turns with another
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": text_end}))
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": "<|endoftext|>"}))
    settings_of_model = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**settings_of_model, "eos_token_id": text_end}))
    more = settings(*SOURCES, *QUICK["sft"])
    result = aha(tmp_path, "sft", "--model", str(base), "--task", "gsm8k", "--out", "run", *more)
    assert result.returncode == 0, result.stderr
    written = json.loads((tmp_path / "run" / "sft" / "model" / "generation_config.json").read_text())
    assert sorted(written["eos_token_id"]) == sorted(known)


LEARNING = ("sft.epochs=40", "sft.examples_per_step=4", "sft.validation_examples=1", "sft.optimizer.adam_lr=0.01")


@pytest.fixture(scope="module")
def teacher(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows the problems of a file by heart."""
    folder = tmp_path_factory.mktemp("teacher")
    with open_dataset("gsm8k") as task:
        problems = load_dataset(task, ROWS)
        asked = [problem.with_hint(task.instruction).question for problem in problems]
    rows = [
        {"question": question, "answer": f"The answer is {problem.answer}.", "reasoning": "I count."}
        for question, problem in zip(asked, problems, strict=True)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = settings("train.path=rows.jsonl", *LEARNING)
    taught = aha(folder, "sft", "--model", str(checkpoint), "--out", "run", *more)
    assert taught.returncode == 0, taught.stderr
    return folder / "run" / "sft" / "model"


@pytest.mark.slow
def test_a_student_learns_from_a_teacher(checkpoint: Path, teacher: Path, tmp_path: Path) -> None:
    more = settings(*SOURCES, "sampling.samples=2", "sampling.max_completion_tokens=48", *LEARNING)
    both = ("--teacher", str(teacher), "--model", str(checkpoint))
    result = aha(tmp_path, "distill", *both, "--task", "gsm8k", "--out", "run", *more)
    assert result.returncode == 0, result.stderr
    stages = summary(tmp_path / "run")
    assert stages["samples"]["sampled"] == 32 and stages["samples"]["examples"] >= 5
    kept = [json.loads(line) for line in (tmp_path / "run" / "samples" / "examples.jsonl").read_text().splitlines()]
    assert all(turn["messages"][1]["reasoning_content"] == "I count." for turn in kept)
    audit = json.loads((tmp_path / "run" / "samples" / "audit.json").read_text())
    assert audit["in"] == 32 and audit["total"]["kept"] == len(kept)
    losses = [row["held_out_loss"] for row in log(tmp_path / "run", "sft") if "held_out_loss" in row]
    assert losses[-1] < losses[0] - 1.0
    lacking = aha(tmp_path, "distill", "--model", str(checkpoint), "--task", "gsm8k")
    assert lacking.returncode == 1 and "no teacher: name a checkpoint" in lacking.stderr


@pytest.mark.slow
def test_the_command_that_the_readme_names_needs_no_other_flag(checkpoint: Path, tmp_path: Path) -> None:
    """It says what it will do and take, and starts; then it is stopped, since a random model writes long."""
    (tmp_path / "Qwen3-0.6B").symlink_to(checkpoint)
    (tmp_path / "gsm8k").mkdir()
    rows = ROWS.read_text().splitlines(keepends=True)
    (tmp_path / "gsm8k" / "train.jsonl").write_text("".join(rows[4:]))
    (tmp_path / "gsm8k" / "test.jsonl").write_text("".join(rows[:4]))
    command = [sys.executable, "-P", "-m", "aha", "run", "grpo", "--model", "./Qwen3-0.6B", "--task", "gsm8k"]
    environment = {**os.environ, "AHA_DATA": str(tmp_path), "COLUMNS": "200"}
    said = []
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if "grpo" in line and "left" in line:
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130, "".join(said)
    text = "".join(said)
    assert "100 steps of 8 prompts x 8 completions, at most 2048 tokens each" in text and "memory:" in text
    assert (tmp_path / "runs" / "grpo-Qwen3-0.6B-gsm8k-seed0" / "grpo").is_dir()


def log(run: Path, stage: str) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row.get("stage") == stage]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("grpo",), "no model: name a checkpoint's folder"),
        (("grpo", "--model", "nowhere", "--task", "gsm8k"), "is not a model folder"),
        (("grpo", "--model", "{checkpoint}"), "no task: name one"),
        (("grpo", "--model", "{checkpoint}", "--task", "gsm"), "did you mean 'gsm8k'"),
        (("grpo", "--model", "{checkpoint}", "--task", "humaneval"), "no split 'train'"),
        (("grpo", "--model", "{checkpoint}", "--task", "gsm8k", "--data", "no.jsonl"), "no file"),
        (("sft", "--model", "{checkpoint}"), "nothing to train on"),
    ],
)
def test_what_is_missing_is_said(checkpoint: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = aha(tmp_path, *(part.format(checkpoint=checkpoint) for part in arguments))
    assert result.returncode == 1 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert not list(tmp_path.iterdir()), "nothing was touched"


def test_rollouts_from_a_server(checkpoint: Path, tmp_path: Path) -> None:
    server = RolloutServer(checkpoint)
    try:
        more = settings(
            *SOURCES,
            "rl.steps=2",
            "rl.prompts_per_step=2",
            "rl.group_size=4",
            "rl.sampling.lengths=[{from_step: 0, max_completion_tokens: 24}]",
            "rl.preflight.prompts=0",
            "rl.held_out.every=0",
            "rl.prompts.max_tokens=100",
            "rl.rubric.random=1.0",
            "rl.optimizer.adam_lr=0.001",
            f"rl.sampling.servers={{urls: ['{server.url}'], folder: {tmp_path / 'shared'}, probe_gap: 0.01}}",
        )
        result = aha(tmp_path, "grpo", "--model", str(checkpoint), "--task", "gsm8k", "--out", "run", *more)
        assert result.returncode == 0, result.stderr
        steps = [row for row in log(tmp_path / "run", "grpo") if "reward" in row]
        assert len(steps) == 2 and all(row["tokens_trained"] > 0 for row in steps)
        assert max(row["sampling/sampling_logp_difference/mean"] for row in steps) < 1e-4, (
            "each step is sampled by its weights"
        )
        assert all(row["sampling/importance_sampling_ratio/mean"] == pytest.approx(1.0, abs=1e-3) for row in steps)
        assert sum(route == "/collective_rpc" for route, _ in server.calls) == 3
    finally:
        server.close()


GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "your_data.md"
QUICK = {
    "grpo": [
        "rl.steps=1",
        "rl.prompts_per_step=2",
        "rl.group_size=2",
        "rl.sampling.lengths=[{from_step: 0, max_completion_tokens: 16}]",
        "rl.preflight.prompts=1",
        "rl.held_out.every=0",
    ],
    "sft": ["sft.examples_per_step=4", "sft.epochs=1", "sft.validation_examples=2"],
}
QUICK["distill"] = [*QUICK["sft"], "sampling.max_completion_tokens=48", "sampling.samples=2"]


@pytest.mark.slow
def test_the_commands_of_the_guide(checkpoint: Path, teacher: Path, tmp_path: Path) -> None:
    """Each as it stands there, in a folder as it would be there, but fewer steps."""
    (tmp_path / "Qwen3-0.6B").symlink_to(checkpoint)
    (tmp_path / "R1-7B").symlink_to(teacher)
    (tmp_path / "data" / "gsm8k").mkdir(parents=True)
    rows = ROWS.read_text().splitlines(keepends=True)
    (tmp_path / "data" / "gsm8k" / "train.jsonl").write_text("".join(rows[4:]))
    (tmp_path / "data" / "gsm8k" / "test.jsonl").write_text("".join(rows[:4]))
    mine = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(40)]
    for name in ("conversations.jsonl", "mine.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in mine))
    code = GUIDE.read_text(encoding="utf-8").split("```python")[1].split("```")[0]
    (tmp_path / "reward.py").write_text(code)
    lines = GUIDE.read_text(encoding="utf-8").split("```")[1].strip().splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    assert [command[1] for command in commands] == ["run"] * 5 + ["eval"]
    for _, verb, *arguments in commands:
        if verb == "eval":
            more = [
                part
                for setting in ("samples=2", "samples_by_task={}", "max_completion_tokens=16")
                for part in ("--set", setting)
            ]
        else:
            more = settings(*QUICK[arguments[0]])
        command = [sys.executable, "-P", "-m", "aha", verb, *arguments, *more]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (arguments, done.stderr)
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == [
        "distill-Qwen3-0.6B-gsm8k-seed0",
        "grpo-Qwen3-0.6B-gsm8k-seed0",
        "grpo-Qwen3-0.6B-rows-seed0",
        "sft-Qwen3-0.6B-gsm8k-seed0",
        "sft-Qwen3-0.6B-seed0",
    ]
    steps = log(tmp_path / "runs" / "grpo-Qwen3-0.6B-rows-seed0", "grpo")
    assert any("rewards/brevity/mean" in row for row in steps)
