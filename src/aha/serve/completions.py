"""POST /v1/completions: a text is continued as it is, whole or streamed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from aha.serve.answer import answer
from aha.serve.body import read_body
from aha.serve.catalog import Catalog
from aha.serve.deadline import in_time
from aha.serve.generation import FINGERPRINT, Generation, finite, start_completion, text_of
from aha.serve.prompts import text_ids
from aha.serve.reply import TokenScore
from aha.serve.responses import TextChoice, TextCompletion, TextLogprobs, Usage
from aha.serve.schemas import CompletionRequest, read
from aha.serve.served import ServedModel


class CompletionEndpoint:
    """Continues texts with the models of a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def answer(self, http: HttpRequest) -> Response:
        """Handles one request."""
        request = read(CompletionRequest, await read_body(http, self._catalog.config))
        model = self._catalog.find(request.model)
        prompts = await in_time(self._catalog.config, lambda: _encode(model, request.prompts))
        generation = start_completion(model, request, prompts)
        return await answer(http, generation, request, _whole, _stream)


def _encode(model: ServedModel, prompts: Sequence[str]) -> list[list[int]]:
    return [text_ids(model, prompt) for prompt in prompts]


async def _whole(generation: Generation, request: CompletionRequest) -> TextCompletion:
    replies = await generation.replies()
    choices = [
        TextChoice(
            index=number,
            text=reply.content,
            logprobs=_logprobs(reply.content_scores, 0) if request.logprobs is not None else None,
            finish_reason=generation.finish[number],
        )
        for number, reply in enumerate(replies)
    ]
    return _completion(generation, request, choices, generation.usage)


async def _stream(generation: Generation, request: CompletionRequest) -> AsyncGenerator[TextCompletion, None]:
    offsets = [0] * len(generation.job.readers)
    async with contextlib.aclosing(generation.deltas()) as deltas:
        async for delta in deltas:
            logprobs = None
            if request.logprobs is not None and delta.content_scores:
                logprobs = _logprobs(delta.content_scores, offsets[delta.index])
                offsets[delta.index] += sum(len(token) for token in logprobs.tokens)
            finish = generation.finish[delta.index] if delta.end is not None else None
            choice = TextChoice(index=delta.index, text=delta.content, logprobs=logprobs, finish_reason=finish)
            yield _completion(generation, request, [choice])
    if request.wants_usage:
        yield _completion(generation, request, [], generation.usage)


def _completion(
    generation: Generation, request: CompletionRequest, choices: list[TextChoice], usage: Usage | None = None
) -> TextCompletion:
    return TextCompletion(
        id=generation.id,
        created=generation.created,
        model=request.model,
        system_fingerprint=FINGERPRINT,
        choices=choices,
        usage=usage,
    )


def _logprobs(scores: Sequence[TokenScore], offset: int) -> TextLogprobs:
    """The lists, with each token's place in the text of all tokens."""
    result = TextLogprobs()
    for score in scores:
        result.tokens.append(text_of(score.data))
        result.token_logprobs.append(finite(score.logprob))
        result.top_logprobs.append({text_of(data): finite(value) for data, value in score.top})
        result.text_offset.append(offset)
        offset += len(result.tokens[-1])
    return result
