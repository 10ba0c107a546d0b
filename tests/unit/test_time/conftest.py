"""What test-time methods are tested with: a scripted model, a problem, one sample that is cut off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aha.protocols import Generator
from aha.test_time.budget_forcing import end_thinking_at
from aha.test_time.candidates import Candidate, Respondent
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import Tokenizer
from aha.types import Problem, SamplingParams

from ..generators import Script, Scripted

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
