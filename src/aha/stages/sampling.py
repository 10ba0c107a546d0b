"""Sampling conversations from a model: what the cold start, the rejection sampling and the reward models share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aha.protocols import Generator
from aha.text.elicitation import PREFILLED, request_for, text_of
from aha.text.thinking import Form, Parsed, parse
from aha.text.tokenizer import Tokenizer
from aha.types import Problem


@dataclass(frozen=True, slots=True)
class Sampled:
    """One completion of a problem, parsed."""

    problem: Problem
    parsed: Parsed
    tokens: int


def sample(
    generator: Generator,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    seeds: Sequence[int],
    form: Form,
    samples: int,
    temperature: float,
    max_completion_tokens: int,
) -> list[list[Sampled]]:
    """Completes each problem `samples` times under a form's prompt; result[i] belongs to problem i."""
    requests = [
        request_for(tokenizer, problem, form, samples, seed, max_completion_tokens, temperature)
        for problem, seed in zip(problems, seeds, strict=True)
    ]
    results = []
    for problem, completions in zip(problems, generator.generate(requests), strict=True):
        group = []
        for completion in completions:
            text, truncated = text_of(tokenizer, completion)
            parsed = parse(text, think_prefilled=form in PREFILLED, truncated=truncated, form=form)
            group.append(Sampled(problem, parsed, len(completion.token_ids)))
        results.append(group)
    return results
