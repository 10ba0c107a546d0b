"""The API of OpenAI's clients: chats and plain continuations, whole, streamed or voted on, and the list of models."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Security
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer

from aha.serve.errors import ApiError
from aha.serve.generation import Generation, finite, logprob_of, start_chat, start_completion, text_of
from aha.serve.judging import judge
from aha.serve.prompts import chat_ids, text_ids
from aha.serve.reply import TokenScore
from aha.serve.responses import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChunkChoice,
    MessageDelta,
    ModelCard,
    ModelList,
    TextChoice,
    TextCompletion,
    TextLogprobs,
    Votes,
)
from aha.serve.schemas import ChatRequest, CompletionRequest
from aha.serve.served import ServedModel

STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
Choices = AsyncGenerator[ChunkChoice, None] | AsyncGenerator[TextChoice, None]


async def _at_end() -> AsyncIterator[ExitStack]:
    """What is to be done when the answer has been sent, or its client has left."""
    with ExitStack() as stack:
        yield stack


AtEnd = Annotated[ExitStack, Depends(_at_end)]


def completion_routes(models: Mapping[str, ServedModel]) -> APIRouter:
    """The routes below /v1."""
    # For the description only: the guard checks the key before anything is routed.
    router = APIRouter(prefix="/v1", dependencies=[Security(HTTPBearer(auto_error=False))])

    def find(name: str) -> ServedModel:
        if name not in models:
            known = ", ".join(models) or "none"
            raise ApiError(404, f"there is no such model; this server has {known}", "model", "model_not_found")
        return models[name]

    @router.get("/models", name="models")
    async def listed() -> ModelList:
        return ModelList(data=[model.card for model in models.values()])

    @router.get("/models/{model}", name="model")
    async def card(model: str) -> ModelCard:
        return find(model).card

    @router.post("/chat/completions", response_model=ChatCompletion, responses=STREAMED)
    async def chat(request: ChatRequest, at_end: AtEnd) -> ChatCompletion | StreamingResponse:
        model = find(request.model)
        prompt = await asyncio.to_thread(chat_ids, model, request.turns, request.thought)
        generation = start_chat(model, request, prompt)
        at_end.callback(generation.withdraw)
        if request.stream:
            return _stream(generation, ChatChunk, _chat_pieces(generation, request), request.wants_usage)
        return await _chat(generation, request)

    @router.post("/completions", response_model=TextCompletion, responses=STREAMED)
    async def completion(request: CompletionRequest, at_end: AtEnd) -> TextCompletion | StreamingResponse:
        model = find(request.model)
        prompts = await asyncio.to_thread(lambda: [text_ids(model, prompt) for prompt in request.prompts])
        generation = start_completion(model, request, prompts)
        at_end.callback(generation.withdraw)
        if request.stream:
            return _stream(generation, TextCompletion, _text_pieces(generation, request), request.wants_usage)
        return await _text(generation, request)

    return router


def _stream(
    generation: Generation, chunk: type[ChatChunk] | type[TextCompletion], choices: Choices, with_usage: bool
) -> StreamingResponse:
    """Choices as server-sent events, then `[DONE]`. An error on the way becomes the last event before that."""

    async def events() -> AsyncIterator[str]:
        try:
            async with contextlib.aclosing(choices):
                async for choice in choices:
                    yield f"data: {chunk(**generation.head, choices=[choice]).model_dump_json()}\n\n"
            if with_usage:
                last = chunk(**generation.head, choices=[], usage=generation.usage)
                yield f"data: {last.model_dump_json()}\n\n"
        except ApiError as error:
            yield f"data: {json.dumps(error.body())}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def _chat(generation: Generation, request: ChatRequest) -> ChatCompletion:
    """All samples, or the one that the vote chose."""
    replies = await generation.replies()
    shown, votes = range(len(replies)), None
    if request.votes:
        judged = judge([reply.content for reply in replies])
        counts = {group.answer: group.count for group in judged.groups}
        answer, count = next(iter(counts.items()), (None, 0))
        shown = range(judged.winner, judged.winner + 1)
        votes = Votes(answer=answer, count=count, of=len(replies), counts=counts)
    choices = [
        ChatChoice(
            index=index,
            message=AssistantMessage(
                content=replies[number].content, reasoning_content=replies[number].reasoning or None
            ),
            logprobs=_chat_logprobs(request, replies[number].content_scores, replies[number].reasoning_scores),
            finish_reason=generation.finish[number],
            votes=votes,
        )
        for index, number in enumerate(shown)
    ]
    return ChatCompletion(**generation.head, choices=choices, usage=generation.usage)


async def _chat_pieces(generation: Generation, request: ChatRequest) -> AsyncGenerator[ChunkChoice, None]:
    """Every sample's pieces as they come; of a vote the reply that won, once all have been heard."""
    for index in range(1 if request.votes else request.samples):
        yield ChunkChoice(index=index, delta=MessageDelta(role="assistant", content=""))
    if request.votes:
        (won,) = (await _chat(generation, request)).choices
        message = MessageDelta(reasoning_content=won.message.reasoning_content, content=won.message.content)
        yield ChunkChoice(index=0, delta=message, logprobs=won.logprobs)
        yield ChunkChoice(index=0, delta=MessageDelta(), finish_reason=won.finish_reason, votes=won.votes)
        return
    async with contextlib.aclosing(generation.deltas()) as deltas:
        async for delta in deltas:
            if delta.reasoning or delta.content or delta.content_scores or delta.reasoning_scores:
                message = MessageDelta(reasoning_content=delta.reasoning or None, content=delta.content or None)
                logprobs = _chat_logprobs(request, delta.content_scores, delta.reasoning_scores)
                yield ChunkChoice(index=delta.index, delta=message, logprobs=logprobs)
            if delta.end is not None:
                finish = generation.finish[delta.index]
                yield ChunkChoice(index=delta.index, delta=MessageDelta(), finish_reason=finish)


def _chat_logprobs(
    request: ChatRequest, content: Sequence[TokenScore], reasoning: Sequence[TokenScore]
) -> ChatLogprobs | None:
    if not request.logprobs:
        return None
    return ChatLogprobs(
        content=[logprob_of(score) for score in content],
        reasoning_content=[logprob_of(score) for score in reasoning],
    )


async def _text(generation: Generation, request: CompletionRequest) -> TextCompletion:
    choices = [
        TextChoice(
            index=number,
            text=reply.content,
            logprobs=_text_logprobs(reply.content_scores, 0) if request.logprobs is not None else None,
            finish_reason=generation.finish[number],
        )
        for number, reply in enumerate(await generation.replies())
    ]
    return TextCompletion(**generation.head, choices=choices, usage=generation.usage)


async def _text_pieces(generation: Generation, request: CompletionRequest) -> AsyncGenerator[TextChoice, None]:
    offsets = [0] * len(generation.job.readers)
    async with contextlib.aclosing(generation.deltas()) as deltas:
        async for delta in deltas:
            logprobs = None
            if request.logprobs is not None and delta.content_scores:
                logprobs = _text_logprobs(delta.content_scores, offsets[delta.index])
                offsets[delta.index] += sum(len(token) for token in logprobs.tokens)
            finish = generation.finish[delta.index] if delta.end is not None else None
            yield TextChoice(index=delta.index, text=delta.content, logprobs=logprobs, finish_reason=finish)


def _text_logprobs(scores: Sequence[TokenScore], offset: int) -> TextLogprobs:
    """The lists, with each token's place in the text of all tokens."""
    result = TextLogprobs()
    for score in scores:
        result.tokens.append(text_of(score.data))
        result.token_logprobs.append(finite(score.logprob))
        result.top_logprobs.append({text_of(data): finite(value) for data, value in score.top})
        result.text_offset.append(offset)
        offset += len(result.tokens[-1])
    return result
