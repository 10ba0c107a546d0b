"""Prompt styles by name, and the requests and replies of the one way to ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from aha.errors import ConfigError
from aha.text.asker import Asker
from aha.text.prompt_style import PROMPT_STYLES, STYLE_NAMES, PromptStyle
from aha.text.tokenizer import Tokenizer
from aha.types import Completion, FinishReason, Problem, Request, SamplingParams

PROBLEM = Problem("sums", "math", 1, "en", "What is 2+2+1?", "5")


class Echo:
    """Says 5 to everything: first with its end, then cut off."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.requests = tokenizer, list[Request]()

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        self.requests += requests
        five = tuple(self.tokenizer.encode("5"))
        ended = Completion((*five, self.tokenizer.eos_id), (-1.0,) * (len(five) + 1), FinishReason.STOP)
        return [[ended, Completion(five, (-1.0,) * len(five), FinishReason.LENGTH)] for _ in requests]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["What is 2+2+1? 5"], 270)


def asker(tokenizer: Tokenizer, style: str) -> Any:
    return Asker(Echo(tokenizer), tokenizer, PromptStyle.named(style))  # type: ignore[arg-type]


def test_styles_have_the_names_that_settings_know() -> None:
    assert tuple(style.name for style in PROMPT_STYLES) == STYLE_NAMES
    assert len({style.title for style in PROMPT_STYLES}) == len(PROMPT_STYLES)
    assert [style.name for style in PROMPT_STYLES if not style.answer_tags] == ["chat"]


def test_a_wrong_name_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"prompt style 'chatt' \(did you mean 'chat'\?\): expected one of zero, .*"):
        PromptStyle.named("chatt")
    with pytest.raises(ConfigError, match=r"expected one of chat, zero$"):
        PromptStyle.named("steps", among=("chat", "zero"))


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_a_request_has_the_style_s_prompt_and_stops(tokenizer: Tokenizer, style: str) -> None:
    own = asker(tokenizer, style)
    request = own.request(PROBLEM, SamplingParams(0.5, 0.9, 7, stop_token_ids=(3,), n=2), seed=11, after=(4, 5))
    assert request.prompt_token_ids == (*own.style.prompt(tokenizer, PROBLEM), 4, 5)
    assert request.sampling == SamplingParams(0.5, 0.9, 7, (*own.style.stops(tokenizer), 3), n=2, seed=11)
    assert own.style.prompt(tokenizer, PROBLEM.question) == own.style.prompt(tokenizer, PROBLEM)
    assert own.style.longest_prompt(tokenizer, [PROBLEM]) == len(own.style.prompt(tokenizer, PROBLEM))
    assert own.style.longest_prompt(tokenizer, []) == 1


def test_replies_are_texts_without_their_end(tokenizer: Tokenizer) -> None:
    own = asker(tokenizer, "direct")
    replies = own.ask([PROBLEM, "And 1+1?"], SamplingParams(n=2), [7, 8])
    assert [[(one.text, one.truncated) for one in group] for group in replies] == [[("5", False), ("5", True)]] * 2
    assert [request.sampling.seed for request in own.generator.requests] == [7, 8]
    with pytest.raises(ValueError, match="zip"):
        own.ask([PROBLEM], SamplingParams(), [])
