"""GSM8K and HumanEval in full through every path, by the command line, and the page of what came out.

    python experiments/real_data.py --data DATA [--out runs/real-data]      DATA: the folder that AHA_DATA would name

No pretrained weights are needed: a Qwen3 of 1M parameters with random weights goes through fine-tuning, reinforcement
learning, evaluation, export and reload, with files as Qwen's checkpoints have them: a byte-level tokenizer trained on
GSM8K's training text, ChatML turns, a padded vocabulary. That shows plumbing, not skill. Each command is a resumable
run, so this can be interrupted. Writes docs/results/real_data.md.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import aha as aha_package
from aha.data.indexed import write_rows
from aha.environment import git_commit
from aha.models.checkpoint.hf import load_pretrained
from aha.models.layouts import Rectangle
from aha.text.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.foreign import write_checkpoint

PAGE = Path(__file__).resolve().parent.parent / "docs" / "results" / "real_data.md"
COUNT = re.compile(r"(\d+) rows, .*accuracy ([\d.]+)%")
SFT = {
    "sft.examples_per_step": 64,
    "sft.epochs": 2,
    "sft.optimizer.adam_lr": 0.003,
    "sft.optimizer.warmup_steps": 20,
    "evaluation.problems_limit": 100,
    "evaluation.samples": 1,
    "evaluation.max_completion_tokens": 200,
}
GRPO = {
    "rl.prompts_per_step": 8,
    "rl.group_size": 8,
    "rl.sampling.lengths": "[{from_step: 0, max_completion_tokens: 200}]",
    "rl.held_out.every": 0,
    "rl.optimizer.adam_lr": 0.0001,
    "evaluation.problems_limit": 100,
    "evaluation.samples": 1,
    "evaluation.max_completion_tokens": 200,
}


def main() -> None:
    """Runs every path and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AHA_DATA"), help="holds gsm8k/ and humaneval/")
    parser.add_argument("--out", type=Path, default=Path("runs/real-data"), help="run folders")
    options = parser.parse_args()
    if options.data is None:
        parser.error("name the folder of gsm8k/ and humaneval/ with --data or AHA_DATA")
    paths = Paths(options.data, options.out)
    commit = str((git_commit(Path(aha_package.__file__).parent) or {}).get("commit"))[:12]
    page = [
        "# Real data through every path",
        "",
        f"`python experiments/real_data.py --data DATA` at commit {commit}. Data: GSM8K (7,473 "
        "and 1,319 problems) and HumanEval (164). The model is a Qwen3 of random weights, with a tokenizer of "
        "Qwen's kind trained on GSM8K's text, ChatML turns and a padded vocabulary: plumbing is shown, not skill.",
        "",
        *gold(paths),
        *trained(paths),
        *evaluated(paths),
        *exported(paths),
    ]
    PAGE.write_text("\n".join(page).rstrip() + "\n", encoding="utf-8")
    print(f"wrote {PAGE}")


class Paths:
    """Where things are read and written."""

    def __init__(self, data: Path, out: Path) -> None:
        self.data, self.out = data.resolve(), out
        self.gsm8k_train, self.gsm8k_test = (data.resolve() / "gsm8k" / f"{name}.jsonl" for name in ("train", "test"))
        self.humaneval = data.resolve() / "humaneval" / "HumanEval.jsonl.gz"
        out.mkdir(parents=True, exist_ok=True)

    def rows(self, path: Path) -> list[dict[str, Any]]:
        """A data file's rows."""
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
        return [json.loads(line) for line in text.splitlines() if line.strip()]


def aha(*arguments: str | Path) -> str:
    """Runs a command of ours, shows what it says, and returns that."""
    words = [str(argument) for argument in arguments]
    print("+ aha " + " ".join(words), flush=True)
    command = [sys.executable, "-m", "aha", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"it failed:\n{done.stdout[-4000:]}")
    return done.stdout


def gold(paths: Paths) -> list[str]:
    """What right and wrong answers score, by `aha grade`."""
    test, programs = paths.rows(paths.gsm8k_test), paths.rows(paths.humaneval)
    cases: list[tuple[str, str, list[dict[str, Any]]]] = [
        ("gsm8k", "worked solutions", [{"completion": r["answer"], "answer": _number(r)} for r in test]),
        (
            "gsm8k",
            "the next problem's solution",
            [{"completion": b["answer"], "answer": _number(a)} for a, b in itertools.pairwise(test)],
        ),
        ("humaneval", "canonical solutions", [_program(row, row["canonical_solution"]) for row in programs]),
        ("humaneval", "an empty body", [_program(row, "    pass\n") for row in programs]),
    ]
    table = ["## Known answers: `aha grade`", "", "| task | completions | right |", "|---|---|---|"]
    for number, (task, name, rows) in enumerate(cases):
        path = paths.out / f"grade-{number}.jsonl"
        write_rows(path, rows)
        said = aha("grade", path, "--task", task, "--data", paths.data, "--out", path.with_suffix(".scores"))
        found = COUNT.search(said)
        assert found is not None, said
        count = int(found[1])
        lines = path.with_suffix(".scores").read_text(encoding="utf-8").splitlines()
        right = sum(json.loads(line)["rewards"]["accuracy"] == 1 for line in lines)
        table.append(f"| {task} | {name} | {right:,} of {count:,} |")
    return [*table, ""]


def _number(row: dict[str, Any]) -> str:
    return str(row["answer"]).rsplit("####", 1)[1].strip()


def _program(row: dict[str, Any], body: str) -> dict[str, Any]:
    return {"problem": row["task_id"], "completion": body}


def _conversation(row: dict[str, Any]) -> dict[str, Any]:
    """A function to complete, and the whole of it."""
    return {"question": row["prompt"], "answer": f"```python\n{row['prompt']}{row['canonical_solution']}```"}


def random_model(paths: Paths) -> Path:
    """The checkpoint that everything starts from: as others make them, but for its random weights."""
    folder = paths.out / "qwen3-random"
    if not (folder / "config.json").is_file():
        rows = paths.rows(paths.gsm8k_train)
        texts = (f"{row['question']}\n{row['answer']}" for row in rows)
        write_checkpoint(folder, texts, "qwen3-mini", max_position_embeddings=2048)
    return folder


def trained(paths: Paths) -> list[str]:
    """Fine-tuning and reinforcement learning on both data sets."""
    table = ["## Training: `aha run sft`, `aha run grpo`", "", "| run | examples, steps | before | after |"]
    table.append("|---|---|---|---|")
    base = random_model(paths)
    humaneval = {"train": f"{{path: {json.dumps(str(paths.humaneval))}}}"}
    programs = paths.out / "humaneval.jsonl"
    write_rows(programs, (_conversation(row) for row in paths.rows(paths.humaneval)))
    tuned = run(paths, "sft", base, "gsm8k", SFT)
    table.append(f"| fine-tuning on GSM8K's solutions | {_examples(tuned)} | {_losses(tuned)} |")
    more = {"sft.epochs": 8, "sft.examples_per_step": 16, "sft.validation_examples": 16}
    coded = run(paths, "sft", base, "", {**SFT, **more}, programs)
    table.append(f"| fine-tuning on HumanEval's functions, as conversations | {_examples(coded)} | {_losses(coded)} |")
    for task, rows_of_task, steps in (("gsm8k", {}, 20), ("humaneval", humaneval, 6)):
        done = run(paths, "grpo", tuned / "sft" / "model", task, {**GRPO, **rows_of_task, "rl.steps": steps})
        rows = [row for row in log(done, "grpo") if "reward" in row]
        gap = max(row["sampling/sampling_logp_difference/mean"] for row in rows)
        dropped = sum(row["completions/dropped"] for row in rows)
        table.append(
            f"| reinforcement learning on {task} | {len(rows)} steps x 64 completions | reward {_mean(rows[:3])} "
            f"| reward {_mean(rows[-3:])}; engine and trainer differ by {gap:.1e} in log-probability at most; "
            f"{dropped:.0f} dropped |"
        )
    return [*table, "", "Fine-tuning: loss per token on conversations left out of it.", ""]


def run(
    paths: Paths, recipe: str, model: Path, task: str, settings: dict[str, Any], conversations: Path | None = None
) -> Path:
    """One run, on a task or on conversations; returns its folder."""
    folder = paths.out / f"{recipe}-{task or 'conversations'}"
    changes = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    asked = ["--task", task, "--data", str(paths.data)] if conversations is None else ["--data", str(conversations)]
    aha("run", recipe, "--model", model, *asked, "--out", folder, *changes)
    return folder


def log(folder: Path, stage: str) -> list[dict[str, Any]]:
    """A stage's rows of metrics."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row.get("stage") == stage]


def _losses(folder: Path) -> str:
    losses = [row["held_out_loss"] for row in log(folder, "sft") if row.get("held_out_loss") is not None]
    return f"{losses[0]:.3f} | {losses[-1]:.3f}"


def _examples(folder: Path) -> str:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    (stage,) = (stage for stage in summary["stages"] if stage["name"] == "sft")
    return f"{stage['examples']:,} examples, {stage['tokens_trained']:,} tokens"


def _mean(rows: list[dict[str, Any]]) -> str:
    return f"{sum(row['reward'] for row in rows) / len(rows):.3f}"


def evaluated(paths: Paths) -> list[str]:
    """Both test sets in full."""
    folders = [paths.out / "sft-gsm8k" / "sft" / "model", paths.out / "grpo-gsm8k" / "grpo" / "model"]
    said = aha(
        *("eval", *folders, "--task", "gsm8k,humaneval", "--data", paths.data, "--style", "chat"),
        *("--out", paths.out / "evaluation"),
        *("--set", "samples=1", "--set", "max_completion_tokens=200"),
    )
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    head = next((i for i, line in enumerate(lines) if "pass@1" in line), 0)
    shown = [line for line in lines[max(0, head - 1) :] if not line.startswith("completions and results")]
    return ["## Both test sets: `aha eval`", "", "```", *shown, "```", ""]


def exported(paths: Paths) -> list[str]:
    """What other software makes of the result."""
    import transformers

    source, folder = paths.out / "grpo-gsm8k" / "grpo" / "model", paths.out / "exported"
    if not folder.exists():
        aha("export", source, "--out", folder, "--precision", "f32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours, text = load_pretrained(source), paths.rows(paths.gsm8k_test)[0]["question"]
    ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        expected = theirs(ids[None]).logits[0]
        found = ours.logits(ours(ids, Rectangle(1, len(ids))).hidden_ND)
    same = Tokenizer.load(source).encode(text) == ids.tolist()
    gap = float((found - expected[:, : found.shape[-1]]).abs().max())
    return [
        "## Export and reload",
        "",
        f"`aha export grpo/model --precision f32`, read by transformers {transformers.__version__}: logits on a test "
        f"question differ by {gap:.1e} at most, token ids are {'the same' if same else 'NOT the same'}.",
    ]


if __name__ == "__main__":
    main()
