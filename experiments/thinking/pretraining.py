"""A base for the thinking experiment: many small steps, short lists first, little weight on what cannot be foretold."""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import replace
from pathlib import Path

import torch
from shared import PAD_TO, Sampler, encode, new_model, save, table, train_tokenizer
from torch import Tensor
from world import Shares, document

from aha.models.layouts import Ragged
from aha.text.tokenizer import Tokenizer
from aha.training.distributed import Distributed
from aha.training.logprobs import chunked_logprobs
from aha.training.optimizer import OptimizerConfig
from aha.training.parallel import ParallelConfig
from aha.training.update import PassReport, Update

LONGEST_DOCUMENT, LONGEST_GAP = 450, 128


def arguments() -> argparse.Namespace:
    """The settings; each is one of the things that decided it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/thinking/base.safetensors"))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--tokens", type=int, default=1024, help="per step and process: small steps learn look-ups")
    parser.add_argument("--unforeseeable", type=float, default=0.1, help="loss weight of operands, questions, guesses")
    parser.add_argument("--short-first", type=float, default=0.3, help="share of steps with short lists, mostly atoms")
    parser.add_argument("--gaps", type=float, default=0.4, help="share of documents whose positions jump once")
    parser.add_argument("--muon", type=float, default=0.02)
    parser.add_argument("--adam", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def batch(
    options: argparse.Namespace, tokenizer: Tokenizer, step: int, rank: int
) -> tuple[Tensor, Tensor, Tensor, Ragged]:
    """Inputs, targets, loss weights and layout of one process's documents in a step."""
    rng, shares = random.Random(f"{options.seed}:{step}:{rank}"), Shares()
    if step < options.short_first * options.steps:
        shares = replace(shares, atoms=0.8, longest=5)
    documents: list[tuple[list[int], list[float], int]] = []
    while sum(length for _, _, length in documents) < options.tokens:
        ids, weights = encode(tokenizer, document(rng, shares), options.unforeseeable)
        ids, weights = ids[:LONGEST_DOCUMENT], weights[:LONGEST_DOCUMENT]
        documents.append((ids, weights, -(-(len(ids) - 1) // PAD_TO) * PAD_TO))
    documents.sort(key=lambda one: one[2])
    inputs: list[int] = []
    targets: list[int] = []
    weighed: list[float] = []
    jumps: list[int] = []
    for ids, weights, length in documents:
        padding = length - len(ids) + 1
        start, gap = length, 0
        if rng.random() < options.gaps:
            start, gap = rng.randrange(1, len(ids)), rng.randint(1, LONGEST_GAP)
        jumps += ([0] * start + [gap] * length)[:length]
        inputs += ids[:-1] + [tokenizer.eos_id] * padding
        targets += ids[1:] + [tokenizer.eos_id] * padding
        weighed += weights[1:] + [0.0] * padding
    layout = Ragged([length for _, _, length in documents])
    layout.positions_N = layout.positions_N + torch.tensor(jumps)
    layout.longest += LONGEST_GAP + 1
    return torch.tensor(inputs), torch.tensor(targets), torch.tensor(weighed), layout


def main() -> None:
    """Trains, saves and measures."""
    torch.set_num_threads(1)
    options, distributed, tokenizer = arguments(), Distributed.join("cpu"), train_tokenizer()
    model = new_model(tokenizer, options.seed)
    optimizer = OptimizerConfig(adam_lr=options.adam, muon_lr=options.muon)
    update = Update(model, optimizer, options.steps, distributed, ParallelConfig(), bias_update_rate=0.001)
    started, tokens = time.monotonic(), 0

    def backward(part: tuple[Tensor, Tensor, Tensor, Ragged]) -> PassReport:
        inputs, targets, weights, layout = part
        hidden = model(inputs, layout)
        logprobs, _ = chunked_logprobs(hidden.hidden_ND, model.head_weight, targets, entropy=False)
        loss = -(logprobs * weights).sum() / weights.sum() / distributed.world_size
        (loss + hidden.balance_loss / distributed.world_size).backward()
        return PassReport({"loss": loss.detach()}, hidden.router_counts)

    for step in range(options.steps):
        part = batch(options, tokenizer, step, distributed.rank)
        stepped = update.step([part], backward)
        tokens += len(part[0]) * distributed.world_size
        if (step + 1) % 200 == 0 and distributed.is_first:
            seconds = time.monotonic() - started
            print(
                f"step {step + 1}: loss {stepped.sums['loss']:.3f}, {tokens / 1e6:.2f}M tokens, {seconds:.0f} s",
                flush=True,
            )
    save(model, options.out, distributed)
    table(Sampler(model, tokenizer, distributed, 160), levels=(1, 2, 3, 4, 5, 6, 8, 10, 12))
    distributed.close()


if __name__ == "__main__":
    main()
