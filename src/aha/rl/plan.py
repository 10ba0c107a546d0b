"""What a run of reinforcement learning is going to do and what it takes, in words, before it starts."""

from __future__ import annotations

from aha.models.language_model import LanguageModel
from aha.rl.config import GRPOConfig

GIB = 1 << 30
TRAINED_BYTES = 12
"""For each trained parameter: a gradient and AdamW's two moments, in fp32; beside narrow weights fp32 masters too."""


def describe_plan(config: GRPOConfig, model: LanguageModel, cells: int, processes: int) -> str:
    """Steps, tokens and memory.

    Args:
        config: of the run.
        model: the policy.
        cells: families or tasks, times levels, that are drawn from.
        processes: how many hold a copy of all this.
    """
    completions = config.steps * config.prompts_per_step * config.group_size
    longest = max(stage.max_completion_tokens for stage in config.lengths)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    training = sum(
        p.numel() * (TRAINED_BYTES + (4 if p.element_size() < 4 else 0)) for p in model.parameters() if p.requires_grad
    )
    has_reference = bool(config.kl_beta) and config.lora is None  # with adapters the base itself is the reference
    copies = weights * (2 if has_reference else 1)
    context = config.max_prompt_tokens + longest
    cache = model.new_cache(1, 8).bytes_per_token * context * config.engine_rows
    parts = [
        f"{config.steps} steps of {config.prompts_per_step} prompts x {config.group_size} completions",
        f"at most {longest} tokens each, {completions * longest / 1e6:.1f}M in all",
        f"{cells} kinds of problems",
        f"memory: {_size(copies)} for weights{' and reference' if has_reference else ''}",
        f"{_size(training)} for gradients and optimizer",
        f"up to {_size(cache)} for the cache of {config.engine_rows} samples",
    ]
    if processes > 1:
        parts.append(f"in each of {processes} processes")
    return f"{', '.join(parts)}; the time that is left is shown after the first steps"


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / (1 << 20):.0f} MiB"
