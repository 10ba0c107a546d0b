"""Completions that are made to think on: the same tokens as at test time, and who sampled which."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from aha.files import derive_seed
from aha.rl.rollout import rollout_row, sample_groups, think_on
from aha.tasks.families import FAMILIES
from aha.test_time.budget_forcing import WAIT, think_at_least, wait_tokens
from aha.test_time.candidates import Respondent
from aha.text.asker import Asker
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import END_THINK, EOS, Tokenizer
from aha.types import Completion, FinishReason, Language, Problem, Request, RolloutGroup, SamplingParams

from ..generators import GeneratesOnly

ANSWER = f"\n<answer>8</answer>{EOS}"
PROBLEM = Problem("sums", "math", 2, "en", "Cards 5a 3b. Start with 0, add a to b. Last digit?", "8", {})


class Says(GeneratesOnly):
    """Says a sample's text, up to stops and limits; log-probabilities count the tokens of the request downwards."""

    def __init__(self, tokenizer: Tokenizer, says: Callable[[str, int], str]) -> None:
        self.tokenizer, self.says = tokenizer, says
        self.requests: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        self.requests += requests
        return [[self._one(request, number) for number in range(request.sampling.n)] for request in requests]

    def _one(self, request: Request, number: int) -> Completion:
        said = self.tokenizer.encode_markup(self.says(self.tokenizer.decode(request.prompt_token_ids), number))
        stops = [place for place, one in enumerate(said) if one in request.sampling.stop_token_ids]
        ids = said[: stops[0] + 1] if stops else said
        whole = len(ids) <= request.sampling.max_completion_tokens
        ids = ids[: request.sampling.max_completion_tokens]
        reason = FinishReason.STOP if stops and whole else FinishReason.LENGTH
        return Completion(tuple(ids), tuple(-1.0 - place for place in range(len(ids))), reason)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["Cards 5a 3b\na5+0=5\nb3+5=8\nWait\n8 same\n等等\n8一样\n"] * 5, 300)


def sampled(tokenizer: Tokenizer, says: Callable[[str, int], str], limit: int, n: int = 1) -> tuple[RolloutGroup, Says]:
    """One group, made to think on."""
    generator = Says(tokenizer, says)
    asker, sampling = Asker(generator, tokenizer, PromptStyle.named("zero")), [SamplingParams(0.7, 1.0, limit, n=n)]
    groups = sample_groups(asker, [PROBLEM], sampling, [5])
    think_on(asker, groups, sampling, [5], [True])
    return groups[0], generator


def test_the_end_of_the_thinking_is_taken_back_and_wait_put_in(tokenizer: Tokenizer) -> None:
    def says(prompt: str, number: int) -> str:
        if prompt.endswith("Wait\n"):
            return f"8 same\n{END_THINK}{ANSWER}"
        return f"<think>\na5+0=5\nb3+5=8\n{END_THINK}\n<answer>3</answer>{EOS}"

    group, generator = sampled(tokenizer, says, limit=90)
    (one,) = group.rollouts
    assert one.text == f"<think>\na5+0=5\nb3+5=8\nWait\n8 same\n{END_THINK}\n<answer>8</answer>"
    assert tokenizer.decode(one.completion_token_ids).startswith(one.text) and one.finish_reason is FinishReason.STOP
    begun = len(tokenizer.encode_markup("<think>\na5+0=5\nb3+5=8\n"))
    wait = len(tokenizer.encode("Wait\n"))
    assert one.forced == range(begun, begun + wait)
    assert tokenizer.decode(one.completion_token_ids[begun : begun + wait]) == "Wait\n"
    more = len(one.completion_token_ids) - begun - wait
    expected = [-1.0 - place for place in range(begun)] + [0.0] * wait + [-1.0 - place for place in range(more)]
    assert list(one.old_logprobs) == expected
    assert one.sampled_tokens == begun + more
    first, second = generator.requests
    assert second.sampling.max_completion_tokens == 90 - begun - wait, "the limit holds for all of it"
    assert (second.sampling.n, second.sampling.temperature) == (1, 0.7)
    assert second.sampling.seed == derive_seed(5, "think on", 0)
    assert second.prompt_token_ids == (*first.prompt_token_ids, *one.completion_token_ids[: begun + wait])
    (row,) = rollout_row(3, group)["completions"]
    assert row["forced"] == [begun, begun + wait] and row["tokens"] == len(one.completion_token_ids)


def test_only_what_has_ended_its_thinking_in_time_thinks_on(tokenizer: Tokenizer) -> None:
    """A limit of 60: a thinking of which less than 20 tokens would be left, one without end, none at all."""
    long = "a5+0=5\n" * 30

    def thought(tokens: int) -> str:
        ids = tokenizer.encode_markup("<think>" + long)[:tokens]
        return tokenizer.decode(ids)

    just = 60 - 20 - len(wait_tokens(tokenizer, tokenizer.encode_markup(thought(30)), "en"))
    texts = [thought(just), thought(just + 1), "<think>" + long, "8" * 5, "<answer>8</answer>"]

    def says(prompt: str, number: int) -> str:
        if "Wait" in prompt:
            return f"\n8 same{END_THINK}{ANSWER}"
        text = texts[number]
        return text + (f"{END_THINK}{ANSWER}" if number < 2 else f"{END_THINK}{EOS}" if number == 4 else EOS)

    group, generator = sampled(tokenizer, says, limit=60, n=5)
    assert [bool(one.forced) for one in group.rollouts] == [True, False, False, False, False]
    assert len(generator.requests) == 2 and generator.requests[1].sampling.max_completion_tokens == 20
    rows = rollout_row(0, group)["completions"]
    assert ["forced" in row for row in rows] == [True, False, False, False, False]
    assert all(one.sampled_tokens == len(one.completion_token_ids) for one in group.rollouts[1:])


@pytest.mark.parametrize("before", ["a5+0=5\n", "a5+0=5"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_training_puts_in_what_test_time_does(tokenizer: Tokenizer, before: str, language: Language) -> None:
    problem = Problem("sums", "math", 2, language, PROBLEM.question, "8", {})

    def says(prompt: str, number: int) -> str:
        if WAIT[language] in prompt:
            return ANSWER if prompt.endswith(END_THINK) else f"8 same\n{END_THINK}{ANSWER}"
        return f"<think>\n{before}{END_THINK}{ANSWER}"

    style, sampling = PromptStyle.named("zero"), SamplingParams(max_completion_tokens=100)
    asker = Asker(Says(tokenizer, says), tokenizer, style)
    groups = sample_groups(asker, [problem], [sampling], [0])
    think_on(asker, groups, [sampling], [0], [True])
    respondent = Respondent(Says(tokenizer, says), tokenizer, style, sampling, room=200)
    least = len(tokenizer.encode_markup(f"<think>\n{before}")) + 2
    ((one,),) = think_at_least(respondent, [problem], least)
    (rollout,) = groups[0].rollouts
    assert rollout.text == one.text and rollout.forced and one.forced_tokens == len(rollout.forced)
    line = {"en": "Wait", "zh": "等等"}[language]
    expected = f"{before}{line}\n" if before.endswith("\n") else f"{before}{' ' if language == 'en' else ''}{line}"
    assert one.text.startswith(f"<think>\n{expected}8 same")


def test_in_the_laptop_world_a_second_pass_begins_with_these_tokens() -> None:
    """Read in one piece or put together from the first pass, the forced line and the rest: the same tokens."""
    rng, languages = random.Random(0), ("en", "zh")
    solved: list[tuple[Language, str]] = []
    for number in range(120):
        language: Language = languages[number % 2]
        problem = list(FAMILIES.values())[number % len(FAMILIES)].sample(rng, rng.randint(1, 4), language)
        family = FAMILIES[problem.family]
        solved.append((language, family.solve(problem, rng, "long", language, second_pass=1.0).thinking))
    tokenizer = Tokenizer.train([thinking for _, thinking in solved], 400)
    for language, thinking in solved:
        first, rest = thinking.split(f"\n{WAIT[language]}\n", 1)
        begun = tokenizer.encode(first + "\n")
        whole = [*begun, *wait_tokens(tokenizer, begun, language), *tokenizer.encode(rest)]
        assert whole == tokenizer.encode(thinking)
