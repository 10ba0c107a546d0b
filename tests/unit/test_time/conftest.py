"""A model that says what a test tells it to, with the engine's own rules about stops and limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from aha.protocols import Generator
from aha.test_time.budget_forcing import end_thinking_at
from aha.test_time.candidates import Candidate, Respondent
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import Tokenizer
from aha.types import Completion, FinishReason, Problem, Request, SamplingParams

from ..generators import GeneratesOnly

Script = Callable[[str, Request, int], str]
"""(the whole prompt as text, the request, the sample's number) to what the model would go on to say, as markup."""


class Scripted(GeneratesOnly):
    """Implements `protocols.Generator`; keeps what it was asked."""

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


Ask = Callable[..., Respondent]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["2+2=4 check 4-2=2 ok. Wait, no. 等等"] * 5, 280)


@pytest.fixture
def ask(tokenizer: Tokenizer) -> Ask:
    def make(script: Script, style: str = "zero", room: int = 240, **other: Any) -> Respondent:
        generator = Scripted(tokenizer, script)
        assert isinstance(generator, Generator)
        sampling = SamplingParams(**{"max_completion_tokens": 120, **other})
        return Respondent(generator, tokenizer, PromptStyle.named(style), sampling, room)

    return make


def problem(question: str = "What is 2+2+1?", answer: str = "5", language: str = "en") -> Problem:
    terms = [int(term) for term in question.removeprefix("What is ").rstrip("?").split("+")]
    facts = {"items": [[term] for term in terms], "start": 0, "first": 0, "last": len(terms) - 1}
    return Problem("sums", "math", 1, language, question, answer, facts)


@pytest.fixture
def five() -> Problem:
    return problem()


@pytest.fixture
def make_problem() -> Callable[..., Problem]:
    return problem


@pytest.fixture
def cut_at() -> Callable[..., Candidate]:
    """One sample, its thinking cut off."""

    def cut(respondent: Respondent, problem: Problem, budget: int, **room: int) -> Candidate:
        ((one,),) = end_thinking_at(respondent, [problem], respondent.samples([problem]), budget, **room)
        return one

    return cut
