"""How a model is asked: the ways, the prompt and request of each, and how what comes back is read as text."""

from __future__ import annotations

from typing import Literal

from aha.text.templates import chat_ends, chat_prompt, plain_prompt, zero_prompt
from aha.text.thinking import Form
from aha.text.tokenizer import Tokenizer
from aha.types import Completion, FinishReason, Message, Problem, Request, SamplingParams

Elicitation = Literal["zero", "zero_think", "direct", "steps", "chat", "chat_direct"]
"""How a model is asked: R1-Zero's template, graded strictly; the same with the think tag prefilled, graded leniently;
a plain question; a plain question with "let's think step by step" (both graded leniently); R1's chat format, inside the
think tag, graded strictly; the chat format without thinking (V3), graded leniently."""
ELICITATIONS: tuple[Elicitation, ...] = ("zero", "zero_think", "direct", "steps", "chat", "chat_direct")
STRICT: dict[Elicitation, Form] = {"zero": "zero", "chat": "chat"}
"""The ways of asking under which only the strict form counts, and which form that is."""
THINKING: dict[Elicitation, Form] = {"zero": "zero", "zero_think": "zero", "chat": "chat"}
"""The ways of asking under which a model thinks between tags, and the form that it does so in."""
PREFILLED: tuple[Elicitation, ...] = ("zero_think", "chat")
"""The ways of asking whose prompt ends inside the thinking."""


def prompt_for(tokenizer: Tokenizer, problem: Problem, elicitation: Elicitation) -> list[int]:
    """The prompt's token ids."""
    if elicitation in ("zero", "zero_think"):
        return zero_prompt(tokenizer, problem.question, think_prefilled=elicitation in PREFILLED)
    if elicitation in ("chat", "chat_direct"):
        return chat_prompt(tokenizer, [Message("user", problem.question)], think_prefilled=elicitation in PREFILLED)
    return plain_prompt(tokenizer, problem.question, elicitation == "steps", problem.language)


def stop_ids(tokenizer: Tokenizer, elicitation: Elicitation) -> tuple[int, ...]:
    """The tokens that end an answer which is asked for in this way."""
    return chat_ends(tokenizer) if elicitation in ("chat", "chat_direct") else tokenizer.eos_ids


def request_for(
    tokenizer: Tokenizer,
    problem: Problem,
    elicitation: Elicitation,
    samples: int,
    seed: int,
    max_completion_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> Request:
    """Asks for samples of one problem, each up to the end of the sentence."""
    sampling = SamplingParams(
        temperature=temperature,
        top_p=top_p,
        max_completion_tokens=max_completion_tokens,
        stop_token_ids=stop_ids(tokenizer, elicitation),
        n=samples,
        seed=seed,
    )
    return Request(tuple(prompt_for(tokenizer, problem, elicitation)), sampling)


def text_of(tokenizer: Tokenizer, completion: Completion) -> tuple[str, bool]:
    """A completion's text without the token that ended it, and whether it was cut off instead."""
    ended = completion.finish_reason is FinishReason.STOP
    return tokenizer.decode(completion.token_ids[:-1] if ended else completion.token_ids), not ended
