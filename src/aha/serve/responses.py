"""What is answered, in OpenAI's shapes with DeepSeek's `reasoning_content`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Finish = Literal["stop", "length"]


def _is_none(value: object) -> bool:
    """For what OpenAI's servers leave out rather than send as null."""
    return value is None


class CompletionTokens(BaseModel):
    """Of which kind the generated tokens were."""

    reasoning_tokens: int


class Usage(BaseModel):
    """Tokens read and written. Each prompt counts once, however many samples it has."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    completion_tokens_details: CompletionTokens


class TopLogprob(BaseModel):
    """A likely token."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token that was taken, and the likely ones in its place."""

    top_logprobs: list[TopLogprob] = []


class ChatLogprobs(BaseModel):
    """By part of the reply, tags of the thinking included, the end of the turn left out."""

    content: list[TokenLogprob] = []
    reasoning_content: list[TokenLogprob] = []


class Votes(BaseModel):
    """Extension: how a vote went."""

    answer: str | None
    """The most frequent answer; null where no sample named one."""
    count: int
    """Samples that named it."""
    of: int
    counts: dict[str, int]


class AssistantMessage(BaseModel):
    """A reply, whole."""

    role: Literal["assistant"] = "assistant"
    content: str
    reasoning_content: str | None = None
    refusal: None = None


class ChatChoice(BaseModel):
    """One sample."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: Finish
    votes: Votes | None = Field(None, exclude_if=_is_none)


class Answer(BaseModel):
    """What all answers, and all events of streams, begin with."""

    id: str
    created: int
    model: str
    system_fingerprint: str


class ChatCompletion(Answer):
    """The answer of POST /v1/chat/completions."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]
    usage: Usage


class MessageDelta(BaseModel):
    """What a chunk adds to a reply."""

    role: Literal["assistant"] | None = Field(None, exclude_if=_is_none)
    content: str | None = Field(None, exclude_if=_is_none)
    reasoning_content: str | None = Field(None, exclude_if=_is_none)


class ChunkChoice(BaseModel):
    """What a chunk adds to one sample."""

    index: int
    delta: MessageDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: Finish | None = None
    votes: Votes | None = Field(None, exclude_if=_is_none)


class ChatChunk(Answer):
    """One event of a streamed chat."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChunkChoice]
    usage: Usage | None = None


class TextLogprobs(BaseModel):
    """The older form of log-probabilities, in parallel lists."""

    tokens: list[str] = []
    token_logprobs: list[float] = []
    top_logprobs: list[dict[str, float]] = []
    text_offset: list[int] = []


class TextChoice(BaseModel):
    """One continuation, or what a chunk adds to it."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: Finish | None = None


class TextCompletion(Answer):
    """The answer of POST /v1/completions, or one event of its stream."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[TextChoice]
    usage: Usage | None = None


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "aha"
    style: str
    """Extension: its prompt style: chat, chat_direct or zero."""
    context_tokens: int
    """Extension: prompt and completion together, at most."""


class ModelList(BaseModel):
    """The answer of GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ErrorDetail(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every error."""

    error: ErrorDetail
