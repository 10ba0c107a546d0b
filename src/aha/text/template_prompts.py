"""A checkpoint's own chat template: rendered in a sandbox, and turned into token ids that no user's text can forge."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Sequence

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
    text = _render(tokenizer, shown)
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


@functools.lru_cache(maxsize=8)
def turn_end(tokenizer: Tokenizer) -> int:
    """The token with which the template ends an assistant's turn; the end of a text where it has none of its own."""
    mark = f"mark{secrets.token_hex(8)}mark"
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": mark}]
    after = _render(tokenizer, turns, generation=False).rpartition(mark)[2]
    ids = tokenizer.encode_markup(after)
    return ids[0] if ids and ids[0] in tokenizer.boundary_ids else tokenizer.eos_id


def _render(tokenizer: Tokenizer, messages: Sequence[dict[str, str]], generation: bool = True) -> str:
    if tokenizer.template is None:
        raise CheckpointError("the checkpoint has no chat template: ask it in another prompt style, such as zero")
    return tokenizer.template.render(messages, generation)
