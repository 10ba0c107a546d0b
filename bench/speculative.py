"""Speculative decoding against plain decoding in our engine, on a trained DeepSeek-V3 with prediction modules.

    python bench/speculative.py MODEL_FOLDER [--batches 1 8 64] [--new-tokens 192] [--draft 1] [--rounds 3]

Held-out problems of the laptop world in R1-Zero's template, two batches of them and at least 16, with completions that
end where they end; tokens checked to be equal first. Timed as whole calls, prefill included, in alternation, in this
process. Prints a Markdown table by temperature and batch: acceptance, tokens that a row makes in a step, tokens per
second and ratios.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from pathlib import Path

for name, value in {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}.items():
    os.environ.setdefault(name, value)

import torch

from aha.inference.engine import Engine
from aha.models.checkpoint.hf import load_pretrained
from aha.models.language_model import LanguageModel
from aha.tasks.families import FAMILIES, draw
from aha.text.templates import zero_prompt
from aha.text.tokenizer import Tokenizer
from aha.types import Completion, Request, SamplingParams


def main() -> None:
    """Measures all points and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a trained model folder")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.6, 1.0], help="0.6 with top-p 0.95")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--new-tokens", type=int, default=192, help="of a completion, at most")
    parser.add_argument("--draft", type=int, default=1, help="tokens drafted in a step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = load_pretrained(options.model), Tokenizer.load(options.model)
    print(f"torch {torch.__version__}, {options.threads} thread(s), {options.draft} token(s) drafted\n")
    print(
        "| temperature | batch | acceptance | tokens per step | plain, tokens/s | speculative, tokens/s "
        "| ratio (min to max) | tokens equal |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for temperature in options.temperatures:
        for batch in options.batches:
            sampling = SamplingParams(
                temperature, 0.95 if temperature == 0.6 else 1.0, options.new_tokens, tokenizer.boundary_ids
            )
            requests = [Request(prompt, sampling) for prompt in make_prompts(tokenizer, max(16, 2 * batch))]
            print(point(model, requests, batch, options.draft, options.rounds), flush=True)


def make_prompts(tokenizer: Tokenizer, count: int) -> list[tuple[int, ...]]:
    """Problems of all families and levels, the same ones in each run."""
    rng = random.Random(0)
    known = list(FAMILIES.values())
    prompts = []
    for number in range(count):
        family = known[number % len(known)]
        problem = draw(rng, family, rng.choice(family.levels), "en", held_out=True)
        prompts.append(tuple(zero_prompt(tokenizer, problem.question)))
    return prompts


def point(model: LanguageModel, requests: list[Request], batch: int, draft: int, rounds: int) -> str:
    """Measures one batch at one temperature; returns its line of the table."""
    sampling = requests[0].sampling
    context = max(len(request.prompt_token_ids) for request in requests) + sampling.max_completion_tokens
    plain = Engine(model, batch, context)
    speculative = Engine(model, batch, context, speculative_tokens=draft)
    expected = tokens(plain.generate(requests))
    equal = tokens(speculative.generate(requests)) == expected
    counts = speculative.drafts
    per_step = 1 + counts.accepted / counts.steps
    acceptance = counts.acceptance_rate
    seconds: dict[Engine, list[float]] = {plain: [], speculative: []}
    for _ in range(rounds):
        for engine, measured in seconds.items():
            started = time.perf_counter()
            engine.generate(requests)
            measured.append(time.perf_counter() - started)
    pairs = sorted(p / s for p, s in zip(seconds[plain], seconds[speculative], strict=True))
    made = sum(map(len, expected))
    plain_speed, speculative_speed = (made / statistics.median(seconds[engine]) for engine in (plain, speculative))
    return (
        f"| {sampling.temperature:g} | {batch} | {acceptance:.1%} | {per_step:.2f} | {plain_speed:,.0f} "
        f"| {speculative_speed:,.0f} | {statistics.median(pairs):.2f}x ({pairs[0]:.2f} to {pairs[-1]:.2f}) "
        f"| {'yes' if equal else 'NO'} |"
    )


def tokens(completions: list[list[Completion]]) -> list[tuple[int, ...]]:
    """Of all samples, in order."""
    return [completion.token_ids for group in completions for completion in group]


if __name__ == "__main__":
    main()
