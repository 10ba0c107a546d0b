"""A checkpoint's own chat template: rendered in a sandbox, and turned into token ids that no user's text can forge."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from aha.errors import CheckpointError
from aha.text.tokenizer import THINK, Tokenizer
from aha.types import Message


def template_prompt(tokenizer: Tokenizer, messages: Sequence[Message], think_prefilled: bool) -> list[int]:
    """The prompt for the next assistant turn under the tokenizer's template; reasoning of past turns is dropped.

    Where no message holds a control token's text, the ids are those of the rendered text, as other software has them.
    Else the messages' texts are encoded apart from the template's, as plain text.

    Args:
        tokenizer: whose template.
        messages: the conversation so far.
        think_prefilled: end inside the thinking, whether or not the template does so by itself.

    Raises:
        CheckpointError: there is no template, or it does not render.
    """
    hostile = any(token in message.content for message in messages for token in tokenizer.control_tokens)
    marks = [f"mark{secrets.token_hex(8)}mark" if hostile else message.content for message in messages]
    shown = [{"role": message.role, "content": mark} for message, mark in zip(messages, marks, strict=True)]
    text = render(tokenizer.chat_template, shown, tokenizer)
    if text.rstrip().endswith(THINK):
        text = text.rstrip().removesuffix(THINK)
    text += f"{THINK}\n" if think_prefilled else ""
    if not hostile:
        return tokenizer.encode_markup(text)
    ids: list[int] = []
    for message, mark in zip(messages, marks, strict=True):
        before, found, text = text.partition(mark)
        if not found:
            continue  # a template may leave turns out
        ids += [*tokenizer.encode_markup(before), *tokenizer.encode(message.content)]
    return ids + tokenizer.encode_markup(text)


def turn_end(tokenizer: Tokenizer) -> int:
    """The token with which the template ends an assistant's turn; the end of a text where it has none of its own."""
    mark = f"mark{secrets.token_hex(8)}mark"
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": mark}]
    after = render(tokenizer.chat_template, turns, tokenizer, generation=False).rpartition(mark)[2]
    ids = tokenizer.encode_markup(after)
    return ids[0] if ids and ids[0] in tokenizer.boundary_ids else tokenizer.eos_id


def render(template: str, messages: Sequence[dict[str, str]], tokenizer: Tokenizer, generation: bool = True) -> str:
    """Renders a template as transformers does.

    Raises:
        CheckpointError: there is none, or it fails.
    """
    if not template:
        raise CheckpointError("the checkpoint has no chat template: ask it with another form, such as form=zero")
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _refuse
    bos = None if tokenizer.bos_id is None else tokenizer.decode([tokenizer.bos_id])
    try:
        return environment.from_string(template).render(
            messages=messages,
            add_generation_prompt=generation,
            bos_token=bos or "",
            eos_token=tokenizer.decode([tokenizer.eos_id]),
        )
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint's chat template does not render: {error}") from error


def _refuse(message: Any) -> None:
    raise TemplateError(str(message))
