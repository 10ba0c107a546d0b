"""What a run of reinforcement learning is going to do and what it takes, in words, before it starts."""

from __future__ import annotations

from aha.models.config.parameter_count import describe
from aha.models.language_model import LanguageModel
from aha.rl.config import GRPOConfig
from aha.training.plan import LATER, in_words, training_bytes, weights_bytes


def describe_plan(config: GRPOConfig, model: LanguageModel, cells: int, processes: int) -> str:
    """Steps, tokens and memory.

    Args:
        config: of the run.
        model: the policy.
        cells: families or tasks, times levels, that are drawn from.
        processes: how many hold a copy of all this.
    """
    completions = config.steps * config.prompts_per_step * config.group_size
    longest = config.longest
    has_reference = bool(config.loss.kl_beta) and config.lora is None  # with adapters the base itself is the reference
    copies = weights_bytes(model) * (2 if has_reference else 1)
    context = config.prompts.max_tokens + longest
    sizes = describe(model.config, model.embed_tokens.weight.element_size())
    cache = sizes.cache_bytes_per_token * context * config.sampling.engine_rows
    growing = f" ({config.sampling.tokens_per_level} more for each level)" if config.sampling.tokens_per_level else ""
    parts = [
        f"{config.steps} steps of {config.prompts_per_step} prompts x {config.group_size} completions",
        f"at most {longest} tokens each{growing}, {completions * longest / 1e6:.1f}M in all",
        f"{cells} kinds of problems",
        f"memory: {in_words(copies)} for weights{' and reference' if has_reference else ''}",
        f"{in_words(training_bytes(model))} for gradients and optimizer",
        f"up to {in_words(cache)} for the cache of {config.sampling.engine_rows} samples",
    ]
    if processes > 1:
        parts.append(f"in each of {processes} processes")
    return f"{', '.join(parts)}; {LATER}"
