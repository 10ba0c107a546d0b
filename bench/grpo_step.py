"""One GRPO step: ours against TRL's `GRPOTrainer`, on the same tiny DeepSeek-V3 weights, prompts and settings.

    python bench/grpo_step.py [--prompts 4] [--group 8] [--tokens 64] [--steps 6] [--model DIR]

Each trainer runs in a process of its own with one thread, on the CPU, in fp32: the same reward function of the
completion's ids, no KL, one update per rollout. With random weights all completions have the same length; with a
trained model (`--model runs/r1-zero-tiny-seed0/r1-zero/model`) they end where they end. Timed after two warm-up steps.
Prints a Markdown table of seconds per step and peak memory. Needs the extra `[bench]`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

WARM_UP = 2
QUESTIONS = [
    "What is 7+15-4?",
    "Compute 8*3-5+12-9.",
    "Make 24 from 2,5,7.",
    "A bus goes 8 km per hour for 2 hours, then 4 km more. How many km in all?",
    "Two trains 56 km apart go towards each other at 7 and 1 km per hour. After how many hours do they meet?",
    "Write a program: multiply, then add. 5->16; 6->19",
    "A multiple of 4 from 281 to 296, digit sum 13. Which number?",
    "Find the value of 19-6+3.",
]
THREADS = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}


def main() -> None:
    """Runs both trainers in turn and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=4, help="questions per step")
    parser.add_argument("--group", type=int, default=8, help="completions per question")
    parser.add_argument("--tokens", type=int, default=64, help="completion length")
    parser.add_argument("--steps", type=int, default=6, help="timed steps")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each trainer, in alternation")
    parser.add_argument("--only", choices=["ours", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help="a trained model folder: completions then end where they end")
    parser.add_argument("--fixed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measured = (ours if options.only == "ours" else trl)(options)
        measured["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("RESULT " + json.dumps(measured))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or Path(folder) / "model"
        if options.model is None:
            make_model(model)
        results: dict[str, list[dict[str, float]]] = {"ours": [], "trl": []}
        for _ in range(options.rounds):
            for name in results:
                results[name].append(run(name, model, fixed=options.model is None))
    print(
        f"{options.prompts} prompts x {options.group} completions x {options.tokens} tokens, median of "
        f"{options.rounds}\n"
    )
    print("| trainer | seconds per step (min to max) | peak memory, MiB |")
    print("|---|---|---|")
    for name, rows in results.items():
        seconds = sorted(row["seconds"] for row in rows)
        memory = statistics.median(row["peak_mib"] for row in rows)
        print(f"| {name} | {statistics.median(seconds):.3f} ({seconds[0]:.3f} to {seconds[-1]:.3f}) | {memory:,.0f} |")
    ratios = [t["seconds"] / o["seconds"] for o, t in zip(results["ours"], results["trl"], strict=True)]
    print(f"\nratio {statistics.median(ratios):.1f}x ({min(ratios):.1f} to {max(ratios):.1f})")


def run(name: str, model: Path, fixed: bool) -> dict[str, float]:
    """One trainer in a fresh process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only", name, "--model", str(model)]
    command += ["--fixed"] if fixed else []
    done = subprocess.run(command, env={**os.environ, **THREADS}, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(lines[-1].removeprefix("RESULT ")))


def make_model(folder: Path) -> None:
    """Random weights and a tokenizer, in Hugging Face layout."""
    import torch

    from aha.models.checkpoint.hf import save_pretrained
    from aha.models.config.presets import tiny
    from aha.models.deepseek_v3 import DeepseekV3
    from aha.tasks.corpus import CorpusConfig, document, text_of
    from aha.text.templates import CHAT_TEMPLATE
    from aha.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.train((text_of(document(CorpusConfig(), 0, i)) for i in range(4000)), 640, CHAT_TEMPLATE)
    model = DeepseekV3(tiny(tokenizer.vocab_size, num_nextn_predict_layers=0))
    model.init_weights(torch.Generator().manual_seed(0))
    save_pretrained(model, folder, tokenizer_files=tokenizer.files())


def reward_of(token_ids: list[int]) -> float:
    """The share of even ids: cheap, and never the same within a group."""
    return sum(1 for token in token_ids if token % 2 == 0) / max(1, len(token_ids))


def ours(options: argparse.Namespace) -> dict[str, float]:
    """The stage's own trainer: rollout, grading in a worker process, advantages, update, metrics and logs."""
    import torch

    torch.set_num_threads(1)
    import random
    from dataclasses import replace
    from types import SimpleNamespace

    from aha.inference.engine import Engine
    from aha.models.checkpoint.hf import load_pretrained
    from aha.rl.config import GRPOConfig, LengthStage, SamplingConfig
    from aha.rl.trainer import GRPOTrainer
    from aha.runs import JsonlLog
    from aha.tasks.families import get_family
    from aha.text.tokenizer import Tokenizer
    from aha.training.distributed import Distributed
    from aha.training.parallel import ParallelConfig
    from aha.types import Problem, RolloutGroup

    class FixedLengthEngine(Engine):
        """Goes on after an end token, as TRL's side is told to with `min_new_tokens`."""

        def generate(self, requests: Any) -> Any:
            return super().generate([replace(r, sampling=replace(r.sampling, stop_token_ids=())) for r in requests])

    class SameQuestionsAndRewards(GRPOTrainer):
        """Grades as in training, then rewards as TRL's side does."""

        def _problems(self, step: int, round_number: int) -> list[Problem]:
            problem = get_family("sums").sample(random.Random(0), 1, "en")
            return [replace(problem, question=question) for question in QUESTIONS[: options.prompts]]

        def _grade(self, groups: list[RolloutGroup]) -> None:
            super()._grade(groups)
            for group in groups:
                for rollout in group.rollouts:
                    rollout.reward = reward_of(list(rollout.completion_token_ids))

    config = GRPOConfig(
        steps=options.steps + WARM_UP,
        prompts_per_step=options.prompts,
        group_size=options.group,
        sampling=SamplingConfig(lengths=(LengthStage(from_step=0, max_completion_tokens=options.tokens),)),
    )
    model, tokenizer = load_pretrained(options.model), Tokenizer.load(options.model)
    with tempfile.TemporaryDirectory() as folder:
        context = SimpleNamespace(
            name="bench",
            distributed=Distributed(),
            parallel=ParallelConfig(),
            progress=SimpleNamespace(say=print),
            derive_seed=lambda *parts: int(parts[1]) if len(parts) > 1 else 0,
            timings=JsonlLog(Path(folder) / "timings.jsonl"),
            rollouts=JsonlLog(Path(folder) / "rollouts.jsonl"),
        )
        make_engine = FixedLengthEngine if options.fixed else Engine
        trainer = SameQuestionsAndRewards(config, model, tokenizer, context, make_engine)  # type: ignore[arg-type]
        seconds = []
        try:
            for step in range(options.steps + WARM_UP):
                started = time.perf_counter()
                trainer.step(step)
                seconds.append(time.perf_counter() - started)
        finally:
            trainer.grader.close()
    return {"seconds": statistics.median(seconds[WARM_UP:])}


def trl(options: argparse.Namespace) -> dict[str, float]:
    """TRL's GRPOTrainer with the same settings."""
    import torch

    torch.set_num_threads(1)
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from aha.text.templates import ZERO_HEAD, ZERO_TAIL
    from aha.text.tokenizer import BOS

    stamps: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: object, **kwargs: object) -> None:
            stamps.append(time.perf_counter())

        def on_train_end(self, *args: object, **kwargs: object) -> None:
            stamps.append(time.perf_counter())

    def rewards(completion_ids: list[list[int]], **_: object) -> list[float]:
        return [reward_of(ids) for ids in completion_ids]

    texts = [f"{BOS}{ZERO_HEAD} {question}{ZERO_TAIL}" for question in QUESTIONS[: options.prompts]]
    data = Dataset.from_list([{"prompt": text} for text in texts] * (options.steps + WARM_UP))
    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out,
            use_cpu=True,
            bf16=False,
            fp16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            logging_steps=1000,
            max_steps=options.steps + WARM_UP,
            num_generations=options.group,
            per_device_train_batch_size=options.prompts * options.group,
            max_completion_length=options.tokens,
            generation_kwargs={"min_new_tokens": options.tokens} if options.fixed else None,
            beta=0.0,
            loss_type="dapo",
            learning_rate=2e-4,
            temperature=1.0,
            shuffle_dataset=False,
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=str(options.model), args=config, reward_funcs=rewards, train_dataset=data, callbacks=[Clock()]
        )
        trainer.train()
    steps = [later - earlier for earlier, later in pairwise(stamps)]
    return {"seconds": statistics.median(steps[WARM_UP:])}


if __name__ == "__main__":
    main()
