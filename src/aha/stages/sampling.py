"""Sampling conversations from a model: what the cold start, the rejection sampling and the reward models share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aha.protocols import Generator
from aha.text.templates import chat_prompt, zero_prompt
from aha.text.thinking import Form, Parsed, parse
from aha.text.tokenizer import Tokenizer
from aha.types import FinishReason, Message, Problem, Request, SamplingParams


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
        Request(
            tuple(form_prompt(tokenizer, problem, form)),
            SamplingParams(
                temperature=temperature,
                max_completion_tokens=max_completion_tokens,
                stop_token_ids=(tokenizer.eos_id,),
                n=samples,
                seed=seed,
            ),
        )
        for problem, seed in zip(problems, seeds, strict=True)
    ]
    results = []
    for problem, completions in zip(problems, generator.generate(requests), strict=True):
        group = []
        for completion in completions:
            ended = completion.finish_reason is FinishReason.STOP
            ids = completion.token_ids
            text = tokenizer.decode(ids[:-1] if ended else ids)
            parsed = parse(text, think_prefilled=form == "chat", truncated=not ended, form=form)
            group.append(Sampled(problem, parsed, len(ids)))
        results.append(group)
    return results


def form_prompt(tokenizer: Tokenizer, problem: Problem, form: Form) -> list[int]:
    """The prompt of a form: R1-Zero's template, or the chat format inside the think tag."""
    if form == "zero":
        return zero_prompt(tokenizer, problem.question)
    return chat_prompt(tokenizer, [Message("user", problem.question)], think_prefilled=True)
