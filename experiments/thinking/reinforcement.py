"""GRPO on that base: a window of levels that rises, rewards normalised one by one, forced "Wait"."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from shared import Judged, Sampler, judge, load, mean, new_model, save, table, train_tokenizer
from world import FAMILIES, WORDS, Problem

from aha.models.layouts import PromptGroup, SharedPrefix
from aha.rl.advantage import group_advantages
from aha.text.tokenizer import END_THINK
from aha.training.distributed import Distributed
from aha.training.logprobs import chunked_logprobs
from aha.training.optimizer import OptimizerConfig
from aha.training.parallel import ParallelConfig
from aha.training.update import PassReport, Update

MICRO_TOKENS = 12_000
ROOM = 60
"""Tokens that a completion must have left for a forced continuation."""


def arguments() -> argparse.Namespace:
    """The settings; each is one of the things that decided it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=Path("runs/thinking/base.safetensors"))
    parser.add_argument("--out", type=Path, default=Path("runs/thinking/rl.safetensors"))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--prompts", type=int, default=8, help="per step and process")
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--adam", type=float, default=1.5e-4)
    parser.add_argument("--limit", type=int, default=200, help="tokens of a completion")
    parser.add_argument("--format", type=float, default=0.2, help="weight of the form, which is only centred")
    parser.add_argument("--easy", type=float, default=0.25, help="share of prompts at levels 1 and 2")
    parser.add_argument("--top", type=int, default=6, help="highest level; the window opens at 4 and rises at 80%%")
    parser.add_argument("--forced", type=float, default=0.25, help="share of prompts whose thinking must go on")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


@dataclass
class Completion:
    """Token ids, those that were put in by force, and what it is worth."""

    ids: list[int]
    forced: range
    judged: Judged
    advantage: float = 0.0


Part = list[tuple[tuple[int, ...], list[Completion]]]


class Trainer:
    """Samples, judges and updates."""

    def __init__(self, options: argparse.Namespace, distributed: Distributed) -> None:
        self.options, self.distributed = options, distributed
        self.tokenizer = train_tokenizer()
        self.model = load(new_model(self.tokenizer, options.seed), options.base)
        self.sampler = Sampler(self.model, self.tokenizer, distributed, options.prompts * options.group)
        optimizer = OptimizerConfig(
            adam_lr=options.adam, muon_lr=0.0, weight_decay=0.0, warmup_steps=3, decay_from=0.6, final_lr=0.2
        )
        self.update = Update(
            self.model, optimizer, options.steps, distributed, ParallelConfig(), bias_update_rate=0.001
        )
        self.top = dict.fromkeys(FAMILIES, 4)
        self.accuracy: dict[tuple[str, int], float] = {}

    def step(self, step: int) -> list[Judged]:
        """One step; what all processes' completions are worth."""
        rng = random.Random(f"rl:{self.options.seed}:{step}:{self.distributed.rank}")
        problems = [self._problem(rng) for _ in range(self.options.prompts)]
        groups = self._completions(problems, rng, step)
        for group in groups:
            self._weigh(group)
        tokens = torch.tensor([sum(len(one.ids) for group in groups for one in group)])
        self.distributed.all_reduce_sum([tokens])
        parts = list(self._parts(problems, groups))
        self.update.step(parts, lambda part: self._backward(part, int(tokens)))
        self.sampler.engine.load_weights(self.model.state_dict(), step + 1)
        cells = [[p.family, p.level, mean([c.judged.right for c in g])] for p, g in zip(problems, groups, strict=True)]
        for family, level, right in (
            tuple(cell) for rank in self.distributed.all_gather_object(cells) for cell in rank
        ):
            self.accuracy[family, level] = 0.8 * self.accuracy.get((family, level), right) + 0.2 * right
        for family in FAMILIES:
            if self.accuracy.get((family, self.top[family]), 0.0) > 0.8 and self.top[family] < self.options.top:
                self.top[family] += 1
        own = [vars(one.judged) for group in groups for one in group]
        return [Judged(**row) for rank in self.distributed.all_gather_object(own) for row in rank]

    def _problem(self, rng: random.Random) -> Problem:
        family = rng.choice(FAMILIES)
        easy = rng.random() < self.options.easy
        return Problem(family, rng.randint(1, 2) if easy else rng.randint(3, self.top[family]), rng)

    def _completions(self, problems: list[Problem], rng: random.Random, step: int) -> list[list[Completion]]:
        """Of each problem; of some the first end of thinking is taken back and "Wait" put in, as at test time."""
        seed = step + 1 + 100_000 * self.options.seed
        prompts = [self.sampler.prompt(problem) for problem in problems]
        sampled = self.sampler.sample(prompts, self.options.group, self.options.limit, seed)
        end = self.tokenizer.control_id(END_THINK)
        forced = {}
        for number, problem in enumerate(problems):
            if rng.random() >= self.options.forced:
                continue
            wait = self.tokenizer.encode(WORDS[problem.language]["wait"] + "\n")
            for index, ids in enumerate(sampled[number]):
                if end in ids and len(ids) < self.options.limit - ROOM:
                    begun = ids[: ids.index(end)]
                    forced[number, index] = begun + wait, range(len(begun), len(begun) + len(wait))
        continued = self.sampler.sample(
            [prompts[number] + tuple(begun) for (number, _), (begun, _) in forced.items()],
            1,
            self.options.limit,
            seed + 6,
        )
        places = {key: span for key, (_, span) in forced.items()}
        for (number, index), (ids,) in zip(forced, continued, strict=True):
            sampled[number][index] = forced[number, index][0] + ids
        return [
            [
                Completion(ids, places.get((number, index), range(0)), judge(self.tokenizer, problem, ids))
                for index, ids in enumerate(sampled[number])
            ]
            for number, problem in enumerate(problems)
        ]

    def _weigh(self, group: list[Completion]) -> None:
        """Accuracy divided by its deviation, form only centred; what the limit has cut gets no blame."""
        right = group_advantages([float(one.judged.right) for one in group])
        formed = mean([one.judged.well_formed for one in group])
        for one, accuracy in zip(group, right, strict=True):
            one.advantage = accuracy + self.options.format * (one.judged.well_formed - formed)
            if one.judged.cut:
                one.advantage = max(0.0, one.advantage)

    def _parts(self, problems: list[Problem], groups: list[list[Completion]]) -> Iterator[Part]:
        """Prompts with those completions that move the weights, as many as go through the model at once."""
        part: Part = []
        size = 0
        for problem, group in zip(problems, groups, strict=True):
            kept = sorted((one for one in group if one.advantage), key=lambda one: len(one.ids))
            if not kept:
                continue
            part.append((self.sampler.prompt(problem), kept))
            size += sum(len(one.ids) for one in kept)
            if size >= MICRO_TOKENS:
                yield part
                part, size = [], 0
        if part:
            yield part

    def _backward(self, part: Part, tokens: int) -> PassReport:
        ids = torch.tensor(
            [token for prompt, kept in part for ids in (prompt, *(c.ids for c in kept)) for token in ids]
        )
        layout = SharedPrefix([PromptGroup(len(prompt), [len(c.ids) for c in kept]) for prompt, kept in part])
        hidden, targets = self.model(ids, layout), ids[layout.completion_N]
        logprobs, _ = chunked_logprobs(
            hidden.hidden_ND[layout.predicts_N], self.model.head_weight, targets, entropy=False
        )
        weights = [
            0.0 if place in one.forced else one.advantage
            for _, kept in part
            for one in kept
            for place in range(len(one.ids))
        ]
        loss = -(logprobs * torch.tensor(weights)).sum() / tokens
        (loss + hidden.balance_loss * len(targets) / tokens).backward()
        return PassReport({"loss": loss.detach()}, hidden.router_counts)


def main() -> None:
    """Trains, saves and measures."""
    torch.set_num_threads(1)
    options, distributed, started = arguments(), Distributed.join("cpu"), time.monotonic()
    trainer = Trainer(options, distributed)
    for step in range(options.steps):
        rows = trainer.step(step)
        if (step % 10 == 9 or step < 2) and distributed.is_first:
            thinking = mean([row.thinking_tokens for row in rows if row.well_formed])
            right, formed, long = (mean([getattr(r, name) for r in rows]) for name in ("right", "well_formed", "long"))
            print(
                f"step {step + 1}: right {right:.2f} formed {formed:.2f} thinking {thinking:.1f} long {long:.2f} top "
                f"{list(trainer.top.values())} {time.monotonic() - started:.0f} s",
                flush=True,
            )
    save(trainer.model, options.out, distributed)
    table(trainer.sampler, levels=(1, 2, 3, 4, 5, 6, 7, 8, 10, 12))
    distributed.close()


if __name__ == "__main__":
    main()
