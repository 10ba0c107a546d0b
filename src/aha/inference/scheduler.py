"""Which samples run in which cache row: admission of waiting requests, compaction when rows finish."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aha.inference.sampler import stream_key
from aha.types import Completion, FinishReason, Request


@dataclass(slots=True)
class Sample:
    """One sample of a request: waiting, then running in a cache row, then finished. A `protocols.LiveSample`."""

    ticket: int
    """Number of the request in the engine's order of arrival."""
    index: int
    """Which of the request's n samples."""
    request: Request
    key: int
    """Of its random stream."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    forced: deque[int] = field(default_factory=deque)
    """Tokens that come next, whatever the model says."""
    watcher: Callable[[], None] | None = None
    """Called after each new token."""
    prompt_experts: NDArray[np.int16] | None = None
    """[P, L, A], where the request asks for experts."""
    experts: list[NDArray[np.int16]] = field(default_factory=list)
    """[L, A] of each token but the last."""

    @property
    def held(self) -> int:
        """Tokens that a cache holds of it: all but the last."""
        return len(self.request.prompt_token_ids) + len(self.tokens) - 1

    @property
    def last(self) -> int:
        """The last token of prompt and completion."""
        return self.tokens[-1] if self.tokens else self.request.prompt_token_ids[-1]

    def latest(self, count: int) -> list[int]:
        """The last `count` tokens of prompt and completion, or all but the very first."""
        prompt, missing = self.request.prompt_token_ids, count - len(self.tokens)
        return [*prompt[max(1, len(prompt) - missing) :], *self.tokens] if missing > 0 else self.tokens[-count:]

    def watch(self, watcher: Callable[[], None]) -> None:
        """Has `watcher` called after each new token, before it is decided which comes next."""
        self.watcher = watcher

    def force(self, token_ids: Sequence[int]) -> None:
        """Makes these the next tokens; their log-probabilities are the model's."""
        self.forced.extend(token_ids)

    def take_back(self, count: int) -> None:
        """Takes the last `count` tokens away again; a sample that ended with the last of them goes on."""
        kept = len(self.tokens) - count
        for drawn in (self.tokens, self.logprobs, self.top_logprobs):
            del drawn[kept:]
        del self.experts[max(0, kept - 1) :]  # the last token that is left will be seen once more
        if self.finish_reason is FinishReason.STOP:
            self.finish_reason = None

    def end(self, reason: FinishReason) -> None:
        """Ends the sample with what it has. One that has ended already stays as it is."""
        if self.finish_reason is None:
            self.finish_reason = reason

    def append(self, token: int, logprob: float) -> None:
        """Takes a new token, decides whether the sample ends with it, and tells the watcher."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        sampling = self.request.sampling
        if token in sampling.stop_token_ids or self._ends_with_stop_sequence():
            self.finish_reason = FinishReason.STOP
        elif len(self.tokens) >= sampling.max_completion_tokens:
            self.finish_reason = FinishReason.LENGTH
        if self.watcher is not None:
            self.watcher()

    def _ends_with_stop_sequence(self) -> bool:
        return any(
            len(stop) <= len(self.tokens) and tuple(self.tokens[-len(stop) :]) == stop
            for stop in self.request.sampling.stop_sequences
        )

    def completion(self, weights_version: int) -> Completion:
        """The finished sample as a value."""
        assert self.finish_reason is not None
        experts = None
        if self.prompt_experts is not None:
            experts = np.concatenate([self.prompt_experts, *(one[None] for one in self.experts)])
        return Completion(tuple(self.tokens), tuple(self.logprobs), self.finish_reason, weights_version, experts)


class Scheduler:
    """Rows 0 to len(running) - 1 are always in use, without gaps, so that the engine decodes a contiguous block.

    Args:
        max_rows: samples that run at once.
    """

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.waiting: deque[Sample] = deque()
        self.running: list[Sample] = []

    def add(self, ticket: int, request: Request) -> list[Sample]:
        """Queues all samples of a request and returns them in order."""
        samples = [
            Sample(ticket, index, request, stream_key(request.sampling.seed, index))
            for index in range(request.sampling.n)
        ]
        self.waiting.extend(samples)
        return samples

    def admit(self) -> list[list[Sample]]:
        """Moves waiting samples to free rows, first come first served.

        Returns:
            The newly running samples, those that share a prompt together: each list needs one prefill.
        """
        groups: list[list[Sample]] = []
        while self.waiting and len(self.running) < self.max_rows:
            sample = self.waiting.popleft()
            if sample.finish_reason is not None:
                continue
            self.running.append(sample)
            if groups and groups[-1][0].ticket == sample.ticket:
                groups[-1].append(sample)
            else:
                groups.append([sample])
        return groups

    def retire(self) -> list[tuple[int, int]]:
        """Drops finished samples, filling their rows with the last ones.

        Returns:
            Moves (source row, destination row) that the cache has to follow, in order.
        """
        moves: list[tuple[int, int]] = []
        for row in range(len(self.running)):
            while self.running and self.running[-1].finish_reason is not None:
                self.running.pop()
            if row >= len(self.running):
                break
            if self.running[row].finish_reason is not None:
                moves.append((len(self.running) - 1, row))
                self.running[row] = self.running.pop()
        return moves

    def cancel(self, request_id: str) -> None:
        """Ends all samples of a request."""
        for sample in [*self.waiting, *self.running]:
            if sample.request.request_id == request_id:
                sample.end(FinishReason.CANCELLED)
        self.waiting = deque(sample for sample in self.waiting if sample.finish_reason is None)
