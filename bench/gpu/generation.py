"""Offline generation: tokens per second of our engine and of `transformers.generate`, in one run.

    python bench/gpu/generation.py [--shape qwen3-0.6b|v2-lite] [--batch 64] [--prompt 128] [--new-tokens 256]

Random weights, different ones in each, since only the clock is read; every completion has the full length. Needs
transformers (the extra `[bench]`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
import transformers
from shapes import arguments, config_of, dtype_of, heading, random_model, seconds, spread

from aha.inference.engine import Engine
from aha.models.config.base import ModelConfig
from aha.types import Request, SamplingParams


def main() -> None:
    """Measures both and prints the table."""
    parser = arguments(__doc__, "qwen3-0.6b")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--new-tokens", type=int, default=256)
    options = parser.parse_args()
    config, dtype = config_of(options.shape, options.layers), dtype_of(options)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(3, config.vocab_size, (options.batch, options.prompt), generator=generator)
    print(heading(options) + f", {options.batch} x ({options.prompt} + {options.new_tokens}) tokens\n")
    ours = our_seconds(config, prompts, options)
    model, ids = reference(config, options.device, dtype), prompts.to(options.device)

    @torch.inference_mode()
    def generate() -> None:
        mask = torch.ones_like(ids)
        limits = {"min_new_tokens": options.new_tokens, "max_new_tokens": options.new_tokens}
        model.generate(ids, attention_mask=mask, do_sample=True, pad_token_id=0, eos_token_id=None, **limits)

    theirs = seconds(generate, options.device, options.repeats, warm_up=1)
    tokens = options.batch * options.new_tokens
    print("| who | tokens/s (least to most) |\n|---|---|")
    for name, times in (("ours", ours), ("transformers", theirs)):
        print(f"| {name} | {spread([tokens / one for one in times], 0)} |")
    print(f"\nratio {sum(theirs) / sum(ours):.1f}x")


def our_seconds(config: ModelConfig, prompts: torch.Tensor, options: argparse.Namespace) -> list[float]:
    """Times of our engine."""
    model = random_model(config, options.device, dtype_of(options))
    engine = Engine(model, options.batch, max_context=options.prompt + options.new_tokens)
    sampling = SamplingParams(temperature=1.0, max_completion_tokens=options.new_tokens)
    requests = [Request(tuple(row), sampling) for row in prompts.tolist()]
    return seconds(lambda: engine.generate(requests), options.device, options.repeats, warm_up=1)


def reference(config: ModelConfig, device: str, dtype: torch.dtype) -> transformers.PreTrainedModel:
    """The same architecture in transformers, with weights of its own."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config.to_hf_dict()), encoding="utf-8")
        theirs = transformers.AutoConfig.from_pretrained(folder)
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(theirs, dtype=dtype).eval()


if __name__ == "__main__":
    main()
