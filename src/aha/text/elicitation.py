"""How a model is asked: the ways, the prompt of each, and what each prompt has written already."""

from __future__ import annotations

from typing import Literal

from aha.text.templates import chat_prompt, plain_prompt, zero_prompt
from aha.text.thinking import Form
from aha.text.tokenizer import Tokenizer
from aha.types import Message, Problem

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
