"""What stands in for the engine in tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aha.text.tokenizer import Tokenizer
from aha.types import Completion, FinishReason, Problem, Request


class GeneratesOnly:
    """The rest of `protocols.Generator` for a test's generator that has `generate` alone."""

    weights_version = 0

    def stream(self, request: Request) -> Iterator[tuple[int, float]]:
        raise NotImplementedError

    def cancel(self, request_id: str) -> None:
        raise NotImplementedError

    def score(self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        raise NotImplementedError

    def load_weights(self, weights: Mapping[str, Any], version: int) -> None:
        raise NotImplementedError


class Replies(GeneratesOnly):
    """Completes known questions with what `reply` says to problem and seed; `asked` has each question once a request.

    Args:
        tokenizer: of prompts and replies.
        problems: whose questions are known.
        reply: the text after the prompt, from the problem and randomness of the request's seed and the sample.
    """

    def __init__(
        self, tokenizer: Tokenizer, problems: Sequence[Problem], reply: Callable[[Problem, random.Random], str]
    ) -> None:
        self.asked: list[str] = []
        self._tokenizer, self._reply = tokenizer, reply
        self._problems = {problem.question: problem for problem in problems}

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        return [self._complete(request) for request in requests]

    def _complete(self, request: Request) -> list[Completion]:
        prompt = self._tokenizer.decode(request.prompt_token_ids)
        question = max((question for question in self._problems if question in prompt), key=len)
        self.asked.append(question)
        completions = []
        for sample in range(request.sampling.n):
            rng = random.Random(f"{request.sampling.seed} {sample}")
            text = self._reply(self._problems[question], rng)
            ids = (*self._tokenizer.encode_markup(text), self._tokenizer.eos_id)
            completions.append(Completion(ids, (0.0,) * len(ids), FinishReason.STOP))
        return completions


Script = Callable[[str, Request, int], str]
"""(the whole prompt as text, the request, the sample's number) to what the model would go on to say, as markup."""


class Scripted(GeneratesOnly):
    """Says what a test tells it to, with the engine's own rules about stops and limits; keeps what it was asked."""

    def __init__(self, tokenizer: Tokenizer, script: Script, logprob: float = -0.5) -> None:
        self.tokenizer = tokenizer
        self.script = script
        self.logprob = logprob
        self.requests: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        self.requests += requests
        return [[self._complete(request, number) for number in range(request.sampling.n)] for request in requests]

    def _complete(self, request: Request, number: int) -> Completion:
        said = self.script(self.tokenizer.decode(request.prompt_token_ids), request, number)
        limit, stops = request.sampling.max_completion_tokens, request.sampling.stop_token_ids
        assert limit >= 1
        taken: list[int] = []
        for token in self.tokenizer.encode_markup(said):
            taken.append(token)
            ends = any(tuple(taken[-len(stop) :]) == stop for stop in request.sampling.stop_sequences)
            if token in stops or ends:
                return self._done(taken, FinishReason.STOP)
            if len(taken) == limit:
                return self._done(taken, FinishReason.LENGTH)
        raise AssertionError(f"the script ended early: {said!r}")

    def _done(self, taken: list[int], reason: FinishReason) -> Completion:
        return Completion(tuple(taken), (self.logprob,) * len(taken), reason)
