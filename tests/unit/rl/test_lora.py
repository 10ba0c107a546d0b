"""GRPO on adapters: they alone move, the reference is the base and no copy, the engine follows, exports are merged."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from aha.compute import ComputeConfig
from aha.inference.engine import Engine
from aha.models.checkpoint.adapter import load_adapter
from aha.models.checkpoint.hf import load_pretrained
from aha.models.layouts import PromptGroup, Ragged, SharedPrefix
from aha.models.lora import add_adapters
from aha.models.lora_linear import LoRAConfig
from aha.rewards.rubric import RubricConfig
from aha.rl.config import GRPOConfig, LengthStage
from aha.rl.policy import PolicyUpdate
from aha.rl.trainer import ReinforcementLearning
from aha.runs import read_jsonl
from aha.text.tokenizer import Tokenizer
from aha.training.optimizer import OptimizerConfig
from aha.training.parallel import ParallelConfig
from aha.types import FinishReason, Problem, Rollout, RolloutGroup

from ..conftest import MakeContext, nested

LORA = LoRAConfig(r=4, alpha=8.0)


def config(**changes: object) -> GRPOConfig:
    settings = {
        "steps": 2, "prompts_per_step": 2, "group_size": 4, "held_out.every": 0, "preflight.prompts": 0,
        "loss.kl_beta": 0.05,
        "sampling.lengths": (LengthStage(from_step=0, max_completion_tokens=12),), "lora": LORA,
        "rubric": RubricConfig(accuracy=0.0, format=0.0, random=1.0),
        "optimizer": OptimizerConfig(adam_lr=0.05, muon_lr=0.0, weight_decay=0.1, warmup_steps=0),
    }  # fmt: skip
    return GRPOConfig.model_validate(nested({**settings, **changes}))


def test_a_run_moves_only_adapters_and_exports_them_merged_and_alone(
    make_context: MakeContext, base: Tokenizer
) -> None:
    context = make_context("r1-zero", config(), ("base",))
    ReinforcementLearning(Engine).run(context)
    context.logs.close()
    rows = [row for row in read_jsonl(context.folder / "metrics.jsonl") if "reward" in row]
    assert len(rows) == 2
    assert all(row["sampling/sampling_logp_difference/mean"] < 1e-5 and row["grad_norm"] > 0 for row in rows)
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert rows[1]["kl"] > 1e-5
    before = load_file(context.run.path / "base" / "model" / "model.safetensors")
    after = load_file(context.model_folder / "model.safetensors")
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert "model.layers.0.self_attn.q_a_proj.weight" in changed
    assert not [name for name in changed if "norm" in name or "embed" in name or "experts.0" in name or "gate." in name]
    merged = load_pretrained(context.model_folder)
    beside = load_adapter(load_pretrained(context.run.path / "base" / "model"), context.folder / "model-adapter")
    ids = torch.randint(9, 300, (15,))
    one, two = (model.logits(model(ids, Ragged([15])).hidden_ND) for model in (merged, beside))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_the_reference_is_the_base_and_no_copy_of_it(make_context: MakeContext, base: Tokenizer) -> None:
    """The same losses and divergences as with a copied reference and the same adapters."""
    context = make_context("r1-zero", config(), ("base",))
    model = add_adapters(load_pretrained(context.run.path / "base" / "model"), LORA, seed=3)
    frozen = {name: p.clone() for name, p in model.named_parameters() if "lora_" not in name}
    update = PolicyUpdate(model, config().loss, config().optimizer, 2, context.distributed)
    assert update.reference is None
    problem = Problem("rules", "math", 1, "en", "?", "1")
    rollouts = [
        Rollout((11, 12, 13 + i), (-5.0,) * 3, FinishReason.STOP, "", reward=float(i), advantage=1.0 - 2 * i)
        for i in range(2)
    ]
    group = RolloutGroup(problem, (10, 20, 30), rollouts)
    first = update.step([group], 12, on_policy=True)
    second = update.step([group], 12, on_policy=True)
    assert first["kl"] == pytest.approx(0.0, abs=1e-6)
    assert second["kl"] > 1e-4
    update.reference = load_pretrained(context.run.path / "base" / "model")
    third = update._reference_logprobs(*_inputs(group))
    update.reference = None
    torch.testing.assert_close(third, update._reference_logprobs(*_inputs(group)), atol=1e-5, rtol=0)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, frozen[name]) if name in frozen else parameter.abs().sum() > 0


def _inputs(group: RolloutGroup) -> tuple[torch.Tensor, SharedPrefix, torch.Tensor, torch.Tensor]:
    layout = SharedPrefix([PromptGroup(3, [3, 3])])
    ids = torch.tensor([*group.prompt_token_ids, *(t for r in group.rollouts for t in r.completion_token_ids)])
    return ids, layout, layout.predicts_N, ids[layout.completion_N]


def test_settings_that_contradict_adapters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lora\.dropout = 0\.1: must be 0"):
        config(lora=LoRAConfig(dropout=0.1))
    with pytest.raises(ValueError, match="reference_reset_steps: must be 0 with lora"):
        config(**{"loss.reference_reset_steps": 5})


def test_bfloat16_with_activations_computed_again(make_context: MakeContext, base: Tokenizer) -> None:
    """Engine and trainer share the rounded weights; steps too small for bfloat16 add up in the masters."""
    made = make_context("r1-zero", config(lora=None), ("base",))
    parallel = ParallelConfig(activation_checkpointing=True)
    context = replace(made, compute=ComputeConfig(dtype="bfloat16"), parallel=parallel)
    ReinforcementLearning(Engine).run(context)
    context.logs.close()
    rows = [row for row in read_jsonl(context.folder / "metrics.jsonl") if "reward" in row]
    assert all(row["sampling/sampling_logp_difference/mean"] < 0.02 and row["grad_norm"] > 0 for row in rows)
    after = load_file(context.model_folder / "model.safetensors")
    before = load_file(context.run.path / "base" / "model" / "model.safetensors")
    assert not torch.equal(after["lm_head.weight"].float(), before["lm_head.weight"].bfloat16().float())
