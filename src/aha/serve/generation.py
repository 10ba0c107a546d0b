"""From a validated request to deltas: limits, seeds, readers; and what both endpoints do with the result."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aha import __version__
from aha.serve.budget import steering_of
from aha.serve.errors import ApiError
from aha.serve.reply import Delta, End, ReplyReader, TokenScore
from aha.serve.responses import CompletionTokens, Finish, TokenLogprob, TopLogprob, Usage
from aha.serve.schemas import ChatRequest, CompletionRequest, SamplingRequest
from aha.serve.served import ServedModel
from aha.serve.worker import Job, follow
from aha.text.incremental import RawText, splitter_for
from aha.types import FinishReason, Request, SamplingParams

CHAT_TEMPERATURE, CHAT_TOP_P = 0.6, 0.95
"""DeepSeek-R1's own settings, where a chat request names none. Plain continuations are sampled as they are."""
LOWEST_TEMPERATURE, LOWEST_TOP_P = 0.01, 1e-4
"""Below these a request is greedy, in effect; the numbers would only lose their precision."""


@dataclass
class Generation:
    """A request on its way: its identity, and its job."""

    model: ServedModel
    job: Job
    prompt_tokens: int
    id: str
    created: int = field(default_factory=lambda: int(time.time()))
    ends: dict[int, End] = field(default_factory=dict)

    @property
    def head(self) -> dict[str, Any]:
        """What every answer of it, and every piece of a stream, begins with."""
        fingerprint = f"aha-{__version__}"
        return {"id": self.id, "created": self.created, "model": self.model.name, "system_fingerprint": fingerprint}

    @property
    def finish(self) -> dict[int, Finish]:
        """How each sample ended."""
        return {index: "length" if end.reason is FinishReason.LENGTH else "stop" for index, end in self.ends.items()}

    @property
    def usage(self) -> Usage:
        """Of all samples that have ended."""
        completion = sum(end.completion_tokens for end in self.ends.values())
        reasoning = sum(end.reasoning_tokens for end in self.ends.values())
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=completion,
            total_tokens=self.prompt_tokens + completion,
            completion_tokens_details=CompletionTokens(reasoning_tokens=reasoning),
        )

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """What each step adds. Leaving early withdraws the request."""
        async with contextlib.aclosing(follow(self.model.worker, self.job, self.model.config.deadline_seconds)) as news:
            async for delta in news:
                if delta.end is not None:
                    self.ends[delta.index] = delta.end
                yield delta

    def withdraw(self) -> None:
        """Ends what still runs."""
        self.model.worker.withdraw(self.job)

    async def replies(self) -> list[Reply]:
        """All samples, whole, in order."""
        replies = [Reply() for _ in self.job.readers]
        async with contextlib.aclosing(self.deltas()) as deltas:
            async for delta in deltas:
                replies[delta.index].add(delta)
        return replies


@dataclass
class Reply:
    """One sample, whole."""

    reasoning: str = ""
    content: str = ""
    reasoning_scores: list[TokenScore] = field(default_factory=list)
    content_scores: list[TokenScore] = field(default_factory=list)

    def add(self, delta: Delta) -> None:
        """Takes a delta."""
        self.reasoning += delta.reasoning
        self.content += delta.content
        self.reasoning_scores += delta.reasoning_scores
        self.content_scores += delta.content_scores


def start_chat(model: ServedModel, request: ChatRequest, prompt: Sequence[int]) -> Generation:
    """Queues a chat request.

    Raises:
        ApiError: the queue is full, the server is stopping, or a model that does not think is to think on.
    """
    if not model.style.thinks and request.thinking is not None and request.thinking.min_tokens:
        message = f"{model.name!r} answers without thinking: there is none to prolong"
        raise ApiError(400, message, "thinking.min_tokens")
    count = request.votes or request.samples
    sampling = _sampling(
        model, request, request.limit, [prompt], count, CHAT_TEMPERATURE, CHAT_TOP_P, request.top_logprobs or 0
    )
    readers = [
        ReplyReader(
            index,
            model.tokenizer,
            splitter_for(model.tokenizer, think_prefilled=request.thought is not None or model.style.prefilled),
            request.stops,
            begun=bool(request.thought),
            logprobs=bool(request.logprobs),
            steering=steering_of(request, model.tokenizer, sampling.max_completion_tokens),
        )
        for index in range(count)
    ]
    return _start(model, "chatcmpl", [prompt], sampling, readers)


def start_completion(model: ServedModel, request: CompletionRequest, prompts: Sequence[Sequence[int]]) -> Generation:
    """Queues texts to continue.

    Raises:
        ApiError: the queue is full, or the server is stopping.
    """
    sampling = _sampling(
        model, request, request.max_tokens or 16, prompts, request.samples, 1.0, 1.0, request.logprobs or 0
    )
    readers = [
        ReplyReader(
            index,
            model.tokenizer,
            RawText(model.tokenizer),
            request.stops,
            trim=False,
            logprobs=request.logprobs is not None,
        )
        for index in range(len(prompts) * request.samples)
    ]
    return _start(model, "cmpl", prompts, sampling, readers)


def _sampling(
    model: ServedModel,
    request: SamplingRequest,
    limit: int | None,
    prompts: Sequence[Sequence[int]],
    n: int,
    temperature: float,
    top_p: float,
    top_logprobs: int,
) -> SamplingParams:
    """The engine's settings. A limit beyond the context is cut to it: the reply then ends with `length`."""
    room = model.generator.max_context - max(map(len, prompts))
    temperature = temperature if request.temperature is None else request.temperature
    raw = request.top_p if request.top_p is not None else top_p
    chat = isinstance(request, ChatRequest)
    return SamplingParams(
        temperature=temperature if temperature >= LOWEST_TEMPERATURE else 0.0,
        top_p=max(raw, LOWEST_TOP_P),
        max_completion_tokens=room if limit is None else min(limit, room),
        stop_token_ids=model.stop_token_ids if chat else model.tokenizer.eos_ids,
        n=n,
        seed=secrets.randbits(63) if request.seed is None else request.seed,
        top_logprobs=top_logprobs,
    )


def _start(
    model: ServedModel,
    kind: str,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingParams,
    readers: Sequence[ReplyReader],
) -> Generation:
    identity = f"{kind}-{secrets.token_hex(12)}"
    requests = [
        Request(tuple(prompt), replace(sampling, seed=sampling.seed + number), f"{identity}-{number}")
        for number, prompt in enumerate(prompts)
    ]
    job = Job(requests, readers)
    model.worker.submit(job)
    return Generation(model, job, sum(map(len, prompts)), identity)


def logprob_of(score: TokenScore) -> TokenLogprob:
    """A token's log-probability as it is sent."""
    return TokenLogprob(
        token=text_of(score.data),
        logprob=finite(score.logprob),
        bytes=list(score.data),
        top_logprobs=[
            TopLogprob(token=text_of(data), logprob=finite(value), bytes=list(data)) for data, value in score.top
        ],
    )


def finite(logprob: float) -> float:
    """JSON has no minus infinity; OpenAI sends this number for what cannot be."""
    return max(logprob, -9999.0)


def text_of(data: bytes) -> str:
    """A token by itself, which need not be a whole character."""
    return data.decode(errors="replace")
