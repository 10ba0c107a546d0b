"""What one process of a group does for `test_spread.py`: the jobs of a file, one after the other, results into files.

    python spread_worker.py FOLDER JOBS.json

A job is a JSON object: `name`, `kind` (pretrain, sft, reward or grpo), `parallel`, and what else its function reads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aha.data.conversations import Conversation, encode
from aha.models.config.presets import preset
from aha.models.language_model import LanguageModel
from aha.models.lora import add_adapters
from aha.models.lora_linear import LoRAConfig
from aha.models.model_from_config import build
from aha.models.reward_model import RewardModel, save_reward_model
from aha.rl.config import LossConfig
from aha.rl.policy import PolicyUpdate
from aha.runs import RunFolder
from aha.stages.pretrain import PretrainConfig, Pretrainer, build_model, make_rows, train_tokenizer
from aha.stages.reward_model import RewardModelConfig, RewardModelTrainer
from aha.stages.sft import SFTConfig, SFTTrainer
from aha.text.templates import CHAT_TEMPLATE
from aha.text.tokenizer import Tokenizer
from aha.training.checkpointer import Checkpointer
from aha.training.distributed import Distributed
from aha.training.optimizer import OptimizerConfig
from aha.training.parallel import ParallelConfig
from aha.training.progress import Progress
from aha.training.stage import StageContext
from aha.training.trained_model import save_trained
from aha.types import FinishReason, Problem, Rollout, RolloutGroup

MODELS: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "moe_intermediate_size": 24,
        "n_routed_experts": 4,
    },
    "qwen3-tiny": {"hidden_size": 33, "num_attention_heads": 5, "num_key_value_heads": 1, "tie_word_embeddings": True},
}  # fmt: skip
TEXTS = ["What is 2+2? The answer is 4. 2+2 is four, and 3+4 is seven."] * 20


def context_of(job: dict[str, Any], config: Any, folder: Path, distributed: Distributed) -> StageContext:
    """A stage's surroundings; `resume` names the job whose checkpoints it finds."""
    run = RunFolder.open(folder)
    own = run.path / job.get("resume", job["name"])
    if distributed.is_first:
        own.mkdir(parents=True, exist_ok=True)
    distributed.barrier()
    logs = run.logs(own.name, enabled=distributed.is_first)
    checkpointer = Checkpointer(own, "identity", distributed, logs, interval_seconds=1e9)
    checkpointer.find()
    logs.open()
    parallel = ParallelConfig.model_validate(job.get("parallel", {}))
    progress = Progress(enabled=False)
    return StageContext(run, "stage", own, config, 0, distributed, checkpointer, logs, progress, (), parallel)


def model_of(job: dict[str, Any], vocab_size: int) -> LanguageModel:
    """The same in every process."""
    family = job.get("model", "tiny")
    rows = vocab_size + job.get("padding", 0)
    model = build(preset(family, vocab_size=rows, initializer_range=0.1, **MODELS[family]))
    model.num_tokens = vocab_size
    model.init_weights(torch.Generator().manual_seed(1))
    model = model.to(getattr(torch, job.get("dtype", "float32")))
    return add_adapters(model, LoRAConfig(r=3, alpha=8.0), seed=2) if job.get("lora") else model


def pretrain(job: dict[str, Any], folder: Path, distributed: Distributed) -> dict[str, Any]:
    """Steps up to `until`, from `resume`'s checkpoint if given; with `save` it ends with one, else with an export."""
    config = PretrainConfig.model_validate(
        {
            "model": {"preset": "tiny", "changes": MODELS["tiny"]},
            "steps": 12, "rows_per_step": 5, "row_tokens": 24, "vocab_size": 400, "tokenizer_documents": 40,
            "micro_rows": 2, "mtp_share": 0.2, "validation_rows": 1, "optimizer": {"warmup_steps": 2},
            **job.get("config", {}),
        }
    )  # fmt: skip
    context = context_of(job, config, folder, distributed)
    tokenizer = train_tokenizer(config, 0)
    model = build_model(config, tokenizer, context)
    trainer = Pretrainer(config, model, make_rows(config, tokenizer, context), context)
    saved = context.checkpointer.load()
    if saved:
        trainer.load_state(saved.tensors, saved.state)
    start = saved.step if saved else 0
    rows = []
    for step in range(start, job["until"]):
        rows.append({**trainer.step(step), "held_out_loss": trainer.validate()})
    if job.get("save"):
        context.checkpointer.save(job["until"], *trainer.state())
    else:
        save_trained(model, folder / f"{job['name']}-model", tokenizer.files(), distributed)
    held = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in model.parameters())
    return {"rows": rows, "held": held, "start": start}


def sft(job: dict[str, Any], folder: Path, distributed: Distributed) -> dict[str, Any]:
    """Ten steps on conversations of different lengths, a few tokens per pass: processes differ in passes."""
    tokenizer = Tokenizer.train(TEXTS, 320, CHAT_TEMPLATE)
    pairs = [(f"What is {i}+{i % 7}?" * (1 + i % 3), f"The answer is {i + i % 7}.") for i in range(30)]
    examples = [encode(tokenizer, Conversation.of(question, answer, question)) for question, answer in pairs]
    config = SFTConfig.model_validate(
        {
            "sources": ({"stage": "data"},), "examples_per_step": job.get("examples_per_step", 5),
            "validation_examples": 3, "micro_tokens": 60,
            "optimizer": {"adam_lr": 1e-3, "muon_lr": job.get("muon_lr", 0.0), "warmup_steps": 0},
            "lora": {"r": 3, "alpha": 8.0} if job.get("lora") else None,
        }
    )  # fmt: skip
    context = context_of(job, config, folder, distributed)
    model = model_of(job, tokenizer.vocab_size)
    model.activation_checkpointing = bool(job.get("activation_checkpointing"))
    trainer = SFTTrainer(config, model, examples, context)
    rows = [{**trainer.step(step), "held_out_loss": trainer.validate()} for step in range(10)]
    save_trained(model, folder / f"{job['name']}-model", tokenizer.files(), distributed)
    return {"rows": rows}


def reward(job: dict[str, Any], folder: Path, distributed: Distributed) -> dict[str, Any]:
    """Steps on pairs of different lengths, a few tokens per pass; the last step has one pair for two processes."""
    tokenizer = Tokenizer.train(TEXTS, 320, CHAT_TEMPLATE)
    config = RewardModelConfig.model_validate(
        {
            "preference": "helpful", "data": "data", "examples_per_step": 5, "micro_tokens": 60, "epochs": 2,
            "optimizer": {"adam_lr": 1e-3, "muon_lr": job.get("muon_lr", 0.0), "warmup_steps": 0},
        }
    )  # fmt: skip
    context = context_of(job, config, folder, distributed)
    rows = [
        {
            "key": str(i), "question": f"What is {i}?" * (1 + i % 3), "held_out": i >= 33,
            "chosen": f"It is {i}.", "rejected": "4", "true_scores": [1, 0],
        }
        for i in range(37)
    ]  # fmt: skip
    model = RewardModel(model_of(job, tokenizer.vocab_size))
    trainer = RewardModelTrainer(config, model, tokenizer, rows, context)
    measured = [{**trainer.step(step), **trainer.measure()} for step in range(trainer.steps)]
    save_reward_model(model, folder / f"{job['name']}-rm", {}, tokenizer.files(), writes=distributed.is_first)
    distributed.barrier()
    return {"rows": measured}


def grpo(job: dict[str, Any], folder: Path, distributed: Distributed) -> dict[str, Any]:
    """Updates on made-up groups: in the second step the second of two processes has none."""
    loss, optimizer = (
        LossConfig(kl_beta=0.05, micro_tokens=20),
        OptimizerConfig(adam_lr=1e-3, muon_lr=0.0, warmup_steps=0),
    )
    parallel = ParallelConfig.model_validate(job.get("parallel", {}))
    model = model_of(job, 96)
    kept = bool(job.get("keep_routing"))
    update = PolicyUpdate(model, loss, optimizer, 10, distributed, parallel, keep_routing=kept)
    problem = Problem("rules", "math", 1, "en", "?", "1")
    rows = []
    for step in range(10):
        groups = []
        for index in range(1 if step == 1 else 3):
            rollouts = [
                Rollout((11 + step, 12 + index, 13 + i), (-4.0,) * 3, FinishReason.STOP, "", {}, float(i), 1.0 - 2 * i)
                for i in range(2)
            ]
            group = RolloutGroup(problem, (10, 20 + step, 30 + index), rollouts)
            if kept:
                group.prompt_experts = made_up_experts(3, model.config.num_moe_layers, step + index)
                for i, rollout in enumerate(rollouts):
                    rollout.experts = made_up_experts(2, model.config.num_moe_layers, step + index + i)
            groups.append(group)
        own = [groups[i] for i in distributed.share(len(groups))]
        rows.append(update.step(own, 12, on_policy=True))
        if step == 5 and not job.get("lora"):
            update.reset_reference()
    return {"rows": rows}


def made_up_experts(tokens: int, layers: int, start: int) -> np.ndarray:
    """Two of four experts for each token, [tokens, layers, 2]."""
    first = (start + np.arange(tokens * layers, dtype=np.int16).reshape(tokens, layers)) % 4
    return np.stack([first, (first + 1) % 4], axis=-1)


def main() -> None:
    folder, jobs = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    torch.set_num_threads(1)
    distributed = Distributed.join("cpu")
    kinds = {"pretrain": pretrain, "sft": sft, "reward": reward, "grpo": grpo}
    for job in jobs:
        result = kinds[job["kind"]](job, folder, distributed)
        (folder / f"{job['name']}.{distributed.rank}.json").write_text(json.dumps(result))
    distributed.barrier()
    distributed.close()


if __name__ == "__main__":
    main()
