"""Decoding speed: our engine against `transformers.generate`, on the same tiny DeepSeek-V3 weights.

    python bench/decode.py [--contexts 64 512 2048] [--batches 1 8 64] [--new-tokens 48] [--rounds 3] [--threads 1]

Greedy, fixed length, tokens checked to be equal first. Timed after prefill: a long run minus a short one of the same
call, in alternation, each engine in this process under the same thread policy. Prints a Markdown table of tokens per
second and ratios. Needs the extra `[bench]`.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

for name, value in {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}.items():
    os.environ.setdefault(name, value)

import torch
import transformers

from aha.inference.engine import Engine
from aha.models.checkpoint.hf import save_pretrained
from aha.models.config.presets import tiny
from aha.models.deepseek_v3 import DeepseekV3
from aha.types import Request, SamplingParams

SHORT = 4
"""New tokens of the short run, which holds the prefill and what a call costs once."""


def main() -> None:
    """Measures all points and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, nargs="+", default=[64, 512, 2048])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--new-tokens", type=int, default=36)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    longest = max(options.contexts) + options.new_tokens + SHORT
    model = DeepseekV3(tiny(640, max_position_embeddings=longest))
    model.init_weights(torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, Path(folder) / "model")
        theirs = transformers.DeepseekV3ForCausalLM.from_pretrained(Path(folder) / "model", dtype=torch.float32).eval()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {options.threads} thread(s)\n")
    print("| context | batch | ours, tokens/s | transformers, tokens/s | ratio (min to max) | tokens equal |")
    print("|---|---|---|---|---|---|")
    ratios: dict[tuple[int, int], float] = {}
    for context in options.contexts:
        for batch in options.batches:
            ratios[context, batch] = point(model, theirs, context, batch, options.new_tokens, options.rounds)
    overall = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios.values()))
    print(f"\ngeometric mean {overall:.1f}x, least {min(ratios.values()):.1f}x")


def point(
    model: DeepseekV3, theirs: transformers.PreTrainedModel, context: int, batch: int, new_tokens: int, rounds: int
) -> float:
    """Measures one context and batch size; returns the median ratio."""
    prompts = torch.randint(16, 640, (batch, context), generator=torch.Generator().manual_seed(context + batch))
    engine = Engine(model, max_rows=batch, max_context=context + new_tokens)

    def ours(count: int) -> list[list[int]]:
        sampling = SamplingParams(temperature=0.0, max_completion_tokens=count)
        done = engine.generate([Request(tuple(row), sampling) for row in prompts.tolist()])
        return [list(completions[0].token_ids) for completions in done]

    @torch.inference_mode()
    def reference(count: int) -> list[list[int]]:
        out = theirs.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=False,
            min_new_tokens=count,
            max_new_tokens=count,
            pad_token_id=2,
            eos_token_id=None,
        )
        return out[:, context:].tolist()

    equal = ours(new_tokens) == reference(new_tokens)
    ours_seconds, their_seconds = [], []
    for _ in range(rounds):
        ours_seconds.append(decode_seconds(ours, new_tokens))
        their_seconds.append(decode_seconds(reference, new_tokens))
    tokens = batch * (new_tokens - SHORT)
    pairs = sorted(t / o for o, t in zip(ours_seconds, their_seconds, strict=True))
    ratio = statistics.median(pairs)
    print(
        f"| {context} | {batch} | {tokens / statistics.median(ours_seconds):,.0f} "
        f"| {tokens / statistics.median(their_seconds):,.0f} | {ratio:.1f}x ({pairs[0]:.1f} to {pairs[-1]:.1f}) "
        f"| {'yes' if equal else 'NO'} |",
        flush=True,
    )
    return ratio


def decode_seconds(generate: Callable[[int], list[list[int]]], new_tokens: int) -> float:
    """Time of the tokens after the first few: a long run minus a short one."""
    started = time.perf_counter()
    generate(SHORT)
    middle = time.perf_counter()
    generate(new_tokens)
    return max(1e-9, (time.perf_counter() - middle) - (middle - started))


if __name__ == "__main__":
    main()
