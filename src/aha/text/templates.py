"""Prompt templates, as token ids: R1-Zero's plain conversation and DeepSeek-R1's chat format.

Text of users is always encoded with `Tokenizer.encode`, so it can never become a control token; only the templates'
own words go through `encode_markup`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aha.text.template_prompts import template_prompt, turn_end
from aha.text.tokenizer import ANSWER, ASSISTANT, BOS, END_ANSWER, END_THINK, EOS, THINK, USER, Tokenizer
from aha.types import Message

ZERO_HEAD = (
    f"A conversation between User and Assistant. The Assistant first thinks inside {THINK} {END_THINK}, "
    f"then answers inside {ANSWER} {END_ANSWER}.\nUser:"
)
"""After R1 Table 1: how to think is deliberately left open. Shortened, since a laptop pays for every prompt token."""
ZERO_TAIL = "\nAssistant:"

CHAT_TEMPLATE = (
    "{{ '" + BOS + "' }}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'system' %}{{ message['content'] }}"
    "{%- elif message['role'] == 'user' %}{{ '" + USER + "' + message['content'] }}"
    "{%- elif message['role'] == 'assistant' %}"
    "{{ '" + ASSISTANT + "' + message['content'].split('" + END_THINK + "')[-1] + '" + EOS + "' }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '" + ASSISTANT + THINK + "\\n' }}{%- endif %}"
)
"""The serving form for other software: history without reasoning, `<think>` prefilled."""


def zero_document(question: str, reply: str) -> str:
    """A whole R1-Zero conversation as markup, for corpora that this package writes itself."""
    return f"{ZERO_HEAD} {question}{ZERO_TAIL}{reply}"


def zero_prompt(tokenizer: Tokenizer, question: str, think_prefilled: bool = False) -> list[int]:
    """The R1-Zero prompt. With `think_prefilled` it ends inside the thinking (to elicit it from a base model)."""
    ids = [*start(tokenizer), *tokenizer.encode_markup(ZERO_HEAD), *tokenizer.encode(" " + question)]
    ids += tokenizer.encode_markup(ZERO_TAIL)
    return [*ids, *tokenizer.encode_markup(THINK)] if think_prefilled else ids


def start(tokenizer: Tokenizer) -> list[int]:
    """The token that starts a text, where the vocabulary has one."""
    return [] if tokenizer.bos_id is None else [tokenizer.bos_id]


def plain_prompt(tokenizer: Tokenizer, question: str, step_by_step: bool = False, language: str = "en") -> list[int]:
    """A question as on the web, asked directly or with the request to think step by step (chain of thought)."""
    ask, reply = ("Q: ", "\nA:") if language == "en" else ("问：", "\n答：")
    steps = (" Let's think step by step.\n" if language == "en" else "我们一步一步想。\n") if step_by_step else ""
    return [
        *start(tokenizer),
        *tokenizer.encode(ask + question),
        *tokenizer.encode(reply + steps),
    ]


def chat_prompt(tokenizer: Tokenizer, messages: Sequence[Message], think_prefilled: bool = True) -> list[int]:
    """DeepSeek-R1's serving form: reasoning of past turns is dropped, the new turn starts inside `<think>`.

    A checkpoint of somebody else's is asked in its own template.
    """
    if not tokenizer.is_own:
        return template_prompt(tokenizer, messages, think_prefilled)
    ids = start(tokenizer)
    for message in messages:
        if message.role == "system":
            ids += tokenizer.encode(message.content)
        elif message.role == "user":
            ids += [tokenizer.control_id(USER), *tokenizer.encode(message.content)]
        else:
            ids += [tokenizer.control_id(ASSISTANT), *tokenizer.encode(message.content), tokenizer.eos_id]
    ids.append(tokenizer.control_id(ASSISTANT))
    if think_prefilled:
        ids += [tokenizer.control_id(THINK), *tokenizer.encode("\n")]
    return ids


def chat_ends(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens that end an assistant's turn: those that end a text and, of a template of somebody else's, its own.

    Base checkpoints often end texts with one token and turns, in the template that they carry, with another.
    """
    if tokenizer.is_own or tokenizer.template is None:
        return tokenizer.eos_ids
    return tuple(dict.fromkeys((*tokenizer.eos_ids, turn_end(tokenizer))))


def with_chat_ends(settings: Mapping[str, Any] | None, tokenizer: Tokenizer) -> Mapping[str, Any] | None:
    """The settings of `generation_config.json` for a model that has learnt to end turns: other software stops there.

    Args:
        settings: the checkpoint's; None where it has none.
        tokenizer: of the checkpoint.
    """
    ends = chat_ends(tokenizer)
    if ends == tokenizer.eos_ids:
        return settings
    return {**(settings or {}), "eos_token_id": list(ends)}


def chat_example(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    """DeepSeek-R1's training form, or the checkpoint's own template: the last assistant turn keeps its reasoning.

    Returns:
        Token ids and the loss mask: 1 on the last assistant turn and its end, 0 before.

    Raises:
        ValueError: the conversation does not end with an assistant turn.
    """
    if not messages or messages[-1].role != "assistant":
        raise ValueError("a training conversation must end with an assistant turn")
    last = messages[-1]
    prompt = chat_prompt(tokenizer, messages[:-1], think_prefilled=False)
    target: list[int] = []
    if last.reasoning_content is not None:
        target += [*tokenizer.encode_markup(THINK), *tokenizer.encode("\n" + last.reasoning_content + "\n")]
        target += [*tokenizer.encode_markup(END_THINK), *tokenizer.encode("\n\n")]
    target += [*tokenizer.encode(last.content), tokenizer.eos_id if tokenizer.is_own else turn_end(tokenizer)]
    return prompt + target, [0] * len(prompt) + [1] * len(target)
