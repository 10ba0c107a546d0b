"""What the scripts of this experiment share: tokenizer, model, sampling, a table of accuracy and thinking by level."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from world import FAMILIES, WORDS, Piece, Problem, Shares, document

from aha.inference.engine import Engine
from aha.models.config.presets import preset
from aha.models.language_model import LanguageModel
from aha.models.model_from_config import build
from aha.text.templates import zero_prompt
from aha.text.tokenizer import END_THINK, THINK, Tokenizer
from aha.training.distributed import Distributed
from aha.types import Request, SamplingParams

FORM = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", re.DOTALL)
PAD_TO = 8
"""Documents are laid out in multiples of so many tokens: neighbours of one length are attended together."""


def train_tokenizer() -> Tokenizer:
    """A tokenizer of this web, the same in every run."""
    rng, shares = random.Random("tokenizer"), replace(Shares(), atoms=0.3)
    return Tokenizer.train(("".join(text for text, _ in document(rng, shares)) for _ in range(6000)), 420)


def encode(tokenizer: Tokenizer, pieces: Sequence[Piece], unforeseeable: float) -> tuple[list[int], list[float]]:
    """Token ids of a document and each token's weight in the loss."""
    ids: list[int] = []
    weights: list[float] = []
    for text, weight in pieces:
        new = tokenizer.encode_markup(text)
        ids += new
        weights += [unforeseeable if weight is None else weight] * len(new)
    return ids, weights


def new_model(tokenizer: Tokenizer, seed: int) -> LanguageModel:
    """DeepSeek-V3 `tiny` without prediction modules, with room for long thinking."""
    changes = {"initializer_range": 0.05, "max_position_embeddings": 2048, "num_nextn_predict_layers": 0}
    model = build(preset("tiny", vocab_size=tokenizer.vocab_size, **changes))
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def save(model: LanguageModel, path: Path, distributed: Distributed) -> None:
    """Writes the weights, from the first process."""
    if distributed.is_first:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)


def load(model: LanguageModel, path: Path) -> LanguageModel:
    """Takes the weights of a file."""
    model.load_state_dict(load_file(path))
    return model


@dataclass
class Judged:
    """What an answer is worth."""

    right: bool
    well_formed: bool
    long: bool
    thinking_tokens: int
    waits: int
    cut: bool


def judge(tokenizer: Tokenizer, problem: Problem, ids: Sequence[int]) -> Judged:
    """Reads a completion strictly."""
    cut = not ids or ids[-1] != tokenizer.eos_id
    text = tokenizer.decode(ids if cut else ids[:-1])
    match = None if cut else FORM.fullmatch(text)
    waits = sum(text.count(words["wait"]) for words in WORDS.values())
    if match is None or not match[1].strip():
        return Judged(False, False, False, 0, waits, cut)
    guessed = any(words["guess"] in match[1] for words in WORDS.values())
    start, end = (list(ids).index(tokenizer.control_id(tag)) for tag in (THINK, END_THINK))
    return Judged(match[2].strip() == problem.answer, True, not guessed or waits > 0, end - start - 1, waits, cut)


class Sampler:
    """Samples this process's share of the prompts."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, distributed: Distributed, rows: int) -> None:
        self.engine = Engine(model, rows, 1000)
        self.tokenizer, self.distributed = tokenizer, distributed

    def prompt(self, problem: Problem) -> tuple[int, ...]:
        """R1-Zero's template around the question."""
        return tuple(zero_prompt(self.tokenizer, problem.question))

    def sample(self, prompts: Sequence[tuple[int, ...]], count: int, limit: int, seed: int) -> list[list[list[int]]]:
        """Token ids of `count` completions of each prompt, at temperature 1."""
        requests = [
            Request(
                prompt,
                SamplingParams(
                    max_completion_tokens=limit,
                    stop_token_ids=(self.tokenizer.eos_id,),
                    n=count,
                    seed=seed * 1_000_003 + number * 2 + self.distributed.rank,
                ),
            )
            for number, prompt in enumerate(prompts)
        ]
        return [[list(one.token_ids) for one in group] for group in self.engine.generate(requests)]


def mean(values: Sequence[float]) -> float:
    """Of none: 0."""
    return sum(values) / len(values) if values else 0.0


def table(sampler: Sampler, levels: Sequence[int], problems: int = 8, samples: int = 4, limit: int = 400) -> None:
    """Prints accuracy, form, thinking and style by family and level, on problems of a seed of their own."""
    started = time.monotonic()
    asked = [
        Problem(family, level, random.Random(f"777:{family}:{level}:{number}"))
        for family in FAMILIES
        for level in levels
        for number in range(problems)
    ]
    own = list(sampler.distributed.share(len(asked)))
    found = sampler.sample([sampler.prompt(asked[number]) for number in own], samples, limit, seed=0)
    everything = sampler.distributed.gather_shares(found)
    cells: dict[tuple[str, int], list[Judged]] = {}
    for problem, group in zip(asked, everything, strict=True):
        for ids in group:
            judged = judge(sampler.tokenizer, problem, ids)
            cells.setdefault((problem.family, problem.level), []).append(judged)
    if not sampler.distributed.is_first:
        return
    print(f"{'family':8}level  right %  formed %  thinking  long %  waits   ({time.monotonic() - started:.0f} s)")
    for (family, level), rows in cells.items():
        thinking = mean([row.thinking_tokens for row in rows if row.well_formed])
        shares = (100 * mean([getattr(row, name) for row in rows]) for name in ("right", "well_formed", "long"))
        right, formed, long = shares
        waits = mean([row.waits for row in rows])
        print(f"{family:8}{level:5}  {right:7.0f}  {formed:8.0f}  {thinking:8.1f}  {long:6.0f}  {waits:5.2f}")
