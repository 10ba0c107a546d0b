"""Requests to prompts. Text of clients goes through `Tokenizer.encode` only: no text becomes a control token."""

from __future__ import annotations

from collections.abc import Sequence

from aha.errors import CheckpointError
from aha.serve.errors import ApiError
from aha.serve.schemas import ChatMessage
from aha.serve.served import ServedModel
from aha.text.templates import chat_prompt, start, zero_prompt
from aha.text.tokenizer import END_THINK, THINK
from aha.types import Message


def chat_ids(model: ServedModel, messages: Sequence[ChatMessage], thought: str | None = None) -> list[int]:
    """A conversation in the prompt style of the model.

    Args:
        model: that is asked.
        messages: up to the one to answer.
        thought: thinking that the reply begins with.

    Raises:
        ApiError: it is longer than the model's context, R1-Zero, which knows single questions only, is asked more, a
            model that does not think is given a thought, or the checkpoint's own template refuses the conversation.
    """
    _check_size(model, sum(len(message.text.encode()) for message in messages) + len((thought or "").encode()))
    if thought is not None and not model.style.thinks:
        raise ApiError(400, f"{model.name!r} answers without thinking: there is none to go on with", "messages")
    if model.style.template == "zero":
        question = _single_question(model, messages)
        ids = zero_prompt(model.tokenizer, question, think_prefilled=thought is not None)
    else:
        turns = [_turn(message) for message in messages]
        try:
            ids = chat_prompt(model.tokenizer, turns, think_prefilled=model.style.prefilled)
        except CheckpointError as error:
            message = f"{model.name!r} cannot be asked this: {error}"
            raise ApiError(400, message, "messages", "template_refused") from None
    return _checked(model, ids + model.tokenizer.encode(thought or ""))


def text_ids(model: ServedModel, text: str) -> list[int]:
    """A text to continue.

    Raises:
        ApiError: it is longer than the model's context.
    """
    _check_size(model, len(text.encode()))
    return _checked(model, [*start(model.tokenizer), *model.tokenizer.encode(text)])


def _turn(message: ChatMessage) -> Message:
    if message.role == "user":
        return Message("user", message.text)
    if message.role == "assistant":
        return Message("assistant", without_reasoning(message.text))
    return Message("system", message.text)


def without_reasoning(content: str) -> str:
    """The part of an earlier reply that counts: what follows its thinking, where a client left that in the content.

    Thinking that was stopped before its end is all thinking.
    """
    if END_THINK in content:
        return content.rpartition(END_THINK)[2].lstrip()
    return "" if content.lstrip().startswith(THINK) else content


def _single_question(model: ServedModel, messages: Sequence[ChatMessage]) -> str:
    turns = [message for message in messages if message.role in ("user", "assistant")]
    if len(turns) != 1:
        raise ApiError(
            400,
            f"{model.name!r} answers one question and knows no conversation: send a single user message",
            "messages",
            "single_turn_model",
        )
    return "\n".join(message.text for message in messages if message.text)


def _check_size(model: ServedModel, size: int) -> None:
    """Refuses what cannot fit whatever its tokens are, before it is encoded."""
    longest = max(map(len, model.tokenizer.token_bytes))
    if size > longest * model.generator.max_context:
        raise _too_long(model, f"at least {size // longest}")


def _checked(model: ServedModel, ids: list[int]) -> list[int]:
    if len(ids) >= model.generator.max_context:
        raise _too_long(model, str(len(ids)))
    return ids


def _too_long(model: ServedModel, tokens: str) -> ApiError:
    limit = model.generator.max_context
    return ApiError(
        400,
        f"the prompt has {tokens} tokens, the context of {model.name!r} {limit}: there is no room for a reply",
        code="context_length_exceeded",
    )
