"""POST /v1/chat/completions: whole, streamed, or voted on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from aha.serve.answer import answer
from aha.serve.body import read_body
from aha.serve.catalog import Catalog
from aha.serve.deadline import in_time
from aha.serve.generation import FINGERPRINT, Generation, Reply, logprob_of, start_chat
from aha.serve.prompts import chat_ids
from aha.serve.reply import TokenScore
from aha.serve.responses import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChunkChoice,
    Finish,
    MessageDelta,
    Usage,
    Votes,
)
from aha.serve.schemas import ChatRequest, read


class ChatEndpoint:
    """Answers chats for the models of a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def answer(self, http: HttpRequest) -> Response:
        """Handles one request."""
        request = read(ChatRequest, await read_body(http, self._catalog.config))
        model = self._catalog.find(request.model)
        prompt = await in_time(self._catalog.config, lambda: chat_ids(model, request.turns, request.thought))
        generation = start_chat(model, request, prompt)
        return await answer(http, generation, request, self._whole, self._stream)

    async def _whole(self, generation: Generation, request: ChatRequest) -> ChatCompletion:
        replies = await generation.replies()
        finish = generation.finish
        if request.votes is None:
            choices = [_choice(number, reply, finish[number], request) for number, reply in enumerate(replies)]
        else:
            winner, votes = self._vote(replies)
            choices = [_choice(0, replies[winner], finish[winner], request, votes)]
        return ChatCompletion(
            id=generation.id,
            created=generation.created,
            model=request.model,
            system_fingerprint=FINGERPRINT,
            choices=choices,
            usage=generation.usage,
        )

    def _vote(self, replies: Sequence[Reply]) -> tuple[int, Votes]:
        judged = self._catalog.vote([reply.content for reply in replies])
        first = judged.groups[0] if judged.groups else None
        counts = {group.answer: group.count for group in judged.groups}
        votes = Votes(
            answer=first.answer if first else None, count=first.count if first else 0, of=len(replies), counts=counts
        )
        return judged.winner, votes

    async def _stream(self, generation: Generation, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        choices = self._ballot(generation, request) if request.votes else self._choices(generation, request)
        async with contextlib.aclosing(choices):
            async for choice in choices:
                yield _chunk(generation, request, [choice])
        if request.wants_usage:
            yield _chunk(generation, request, [], generation.usage)

    async def _choices(self, generation: Generation, request: ChatRequest) -> AsyncGenerator[ChunkChoice, None]:
        """Every sample's pieces as they come."""
        for index in range(request.samples):
            yield _opening(index)
        async with contextlib.aclosing(generation.deltas()) as deltas:
            async for delta in deltas:
                logprobs = _logprobs(delta.content_scores, delta.reasoning_scores) if request.logprobs else None
                if delta.reasoning or delta.content or delta.content_scores or delta.reasoning_scores:
                    message = MessageDelta(reasoning_content=delta.reasoning or None, content=delta.content or None)
                    yield ChunkChoice(index=delta.index, delta=message, logprobs=logprobs)
                if delta.end is not None:
                    finish = generation.finish[delta.index]
                    yield ChunkChoice(index=delta.index, delta=MessageDelta(), finish_reason=finish)

    async def _ballot(self, generation: Generation, request: ChatRequest) -> AsyncGenerator[ChunkChoice, None]:
        """The reply that won, once all have been heard."""
        yield _opening(0)
        replies = await generation.replies()
        winner, votes = self._vote(replies)
        choice = _choice(0, replies[winner], generation.finish[winner], request, votes)
        message = MessageDelta(reasoning_content=choice.message.reasoning_content, content=choice.message.content)
        yield ChunkChoice(index=0, delta=message, logprobs=choice.logprobs)
        yield ChunkChoice(index=0, delta=MessageDelta(), finish_reason=choice.finish_reason, votes=votes)


def _opening(index: int) -> ChunkChoice:
    return ChunkChoice(index=index, delta=MessageDelta(role="assistant", content=""))


def _chunk(
    generation: Generation, request: ChatRequest, choices: list[ChunkChoice], usage: Usage | None = None
) -> ChatChunk:
    return ChatChunk(
        id=generation.id,
        created=generation.created,
        model=request.model,
        system_fingerprint=FINGERPRINT,
        choices=choices,
        usage=usage,
    )


def _choice(index: int, reply: Reply, finish: Finish, request: ChatRequest, votes: Votes | None = None) -> ChatChoice:
    return ChatChoice(
        index=index,
        message=AssistantMessage(content=reply.content, reasoning_content=reply.reasoning or None),
        logprobs=_logprobs(reply.content_scores, reply.reasoning_scores) if request.logprobs else None,
        finish_reason=finish,
        votes=votes,
    )


def _logprobs(content: Sequence[TokenScore], reasoning: Sequence[TokenScore]) -> ChatLogprobs:
    return ChatLogprobs(
        content=[logprob_of(score) for score in content],
        reasoning_content=[logprob_of(score) for score in reasoning],
    )
