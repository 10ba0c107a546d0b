"""A whole GRPO step, rollout and update: ours, beside transformers' generation and backward pass by the same rules.

    python bench/gpu/grpo_step.py [--shape qwen3-0.6b|v2-lite] [--layers N] [--prompts 8] [--group 8] [--tokens 256]

Random weights, completions of one length, no KL, one update per rollout. The peer is written here as plainly as a
library has it: `generate` on repeated prompts, one padded forward pass in micro-batches with full logits, the same
loss, fused AdamW. (bench/grpo_step.py measures TRL's trainer itself, on the CPU.) V2-Lite's optimizer state does not
fit one GPU: give it `--layers 4`.
"""

from __future__ import annotations

import argparse
import random
import statistics

import torch
from generation import reference
from shapes import arguments, config_of, dtype_of, heading, random_model, seconds, spread

from aha.inference.engine import Engine
from aha.models.config.base import ModelConfig
from aha.rl.config import LossConfig
from aha.rl.policy import PolicyUpdate
from aha.rl.rollout import assign_advantages
from aha.tasks.families import get_family
from aha.training.distributed import Distributed
from aha.training.optimizer import OptimizerConfig
from aha.types import Request, Rollout, RolloutGroup, SamplingParams


def main() -> None:
    """Measures both and prints the table."""
    parser = arguments(__doc__, "qwen3-0.6b")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of a completion")
    parser.add_argument("--micro-tokens", type=int, default=16_384, help="tokens per forward pass of an update")
    options = parser.parse_args()
    config = config_of(options.shape, options.layers)
    print(heading(options) + f", {options.prompts} x {options.group} x ({options.prompt} + {options.tokens}) tokens\n")
    print("| who | seconds per step (least to most) | peak memory, GiB |\n|---|---|---|")
    results = {}
    for name, measure in (("ours", ours), ("transformers", theirs)):
        if options.device.startswith("cuda"):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        results[name] = measure(config, options)
        peak = torch.cuda.max_memory_allocated() / (1 << 30) if options.device.startswith("cuda") else float("nan")
        print(f"| {name} | {spread(results[name], 3)} | {peak:.1f} |", flush=True)
    print(f"\nratio {statistics.median(results['transformers']) / statistics.median(results['ours']):.1f}x")


def prompts_of(config: ModelConfig, options: argparse.Namespace) -> torch.Tensor:
    """Random prompts, [prompts, tokens]."""
    shape = (options.prompts, options.prompt)
    return torch.randint(3, config.vocab_size, shape, generator=torch.Generator().manual_seed(0))


def reward_of(token_ids: list[int]) -> float:
    """The share of even ids: cheap, and never the same within a group."""
    return sum(1 for token in token_ids if token % 2 == 0) / max(1, len(token_ids))


def ours(config: ModelConfig, options: argparse.Namespace) -> list[float]:
    """Our rollout, advantages and update."""
    model = random_model(config, options.device, dtype_of(options))
    loss, optimizer = LossConfig(micro_tokens=options.micro_tokens), OptimizerConfig(adam_lr=1e-6, muon_lr=0.0)
    update = PolicyUpdate(model, loss, optimizer, 1000, Distributed(device=torch.device(options.device)))
    engine = Engine(model, options.prompts * options.group, max_context=options.prompt + options.tokens)
    prompts = [tuple(row) for row in prompts_of(config, options).tolist()]
    problem = get_family("sums").sample(random.Random(0), 1, "en")
    versions = iter(range(1, 1 << 30))

    def step() -> None:
        version = next(versions)
        sampling = SamplingParams(max_completion_tokens=options.tokens, n=options.group, seed=version)
        groups = []
        for prompt, done in zip(prompts, engine.generate([Request(p, sampling) for p in prompts]), strict=True):
            rollouts = [
                Rollout(c.token_ids, c.logprobs, c.finish_reason, reward=reward_of(list(c.token_ids))) for c in done
            ]
            groups.append(RolloutGroup(problem, prompt, rollouts))
        assign_advantages(groups, divide_by_std=True)
        update.step(groups, options.tokens, on_policy=True)
        engine.load_weights(model.state_dict(), version)

    return seconds(step, options.device, options.repeats)


def theirs(config: ModelConfig, options: argparse.Namespace) -> list[float]:
    """The same step out of transformers' parts."""
    model = reference(config, options.device, dtype_of(options))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=options.device.startswith("cuda"))
    ids = prompts_of(config, options).repeat_interleave(options.group, 0).to(options.device)
    rows = max(1, options.micro_tokens // (options.prompt + options.tokens))

    def step() -> None:
        limits = {"min_new_tokens": options.tokens, "max_new_tokens": options.tokens}
        with torch.inference_mode():
            whole = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, pad_token_id=0, eos_token_id=None, **limits
            )
        whole = whole.clone()
        completions = whole[:, options.prompt :]
        rewards = torch.tensor([reward_of(row) for row in completions.tolist()], device=options.device)
        groups = rewards.view(-1, options.group)
        advantages = ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-6)).flatten()
        optimizer.zero_grad()
        for part in torch.arange(len(whole)).split(rows):
            logits = model(whole[part], attention_mask=torch.ones_like(whole[part])).logits
            scores = logits[:, options.prompt - 1 : -1].float()
            logprobs = scores.log_softmax(-1).gather(-1, completions[part].unsqueeze(-1)).squeeze(-1)
            ratio = (logprobs - logprobs.detach()).exp()
            (-(ratio * advantages[part].unsqueeze(-1)).sum() / completions.numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return seconds(step, options.device, options.repeats)


if __name__ == "__main__":
    main()
