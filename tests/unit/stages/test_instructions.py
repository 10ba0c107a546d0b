"""Conversations that the world writes, and V3's exercises: each a function of its number, right as often as asked."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from aha.configuration import build_config
from aha.errors import ConfigError
from aha.stages import assistant
from aha.stages.assistant import NO, YES, Assistant, compare_prompt, exercise, judge_prompt, sum_up_prompt
from aha.stages.instructions import InstructionsConfig, instructions
from aha.tasks.families import GENERAL, draw, get_family, get_general, is_held_out
from aha.tasks.general.requests import refuses
from aha.text.templates import CHAT_TEMPLATE
from aha.text.thinking import final_answer
from aha.text.tokenizer import ASSISTANT, USER, Tokenizer
from aha.types import Completion, FinishReason, Problem, Request

from ..generators import GeneratesOnly


def test_the_same_number_is_the_same_conversation() -> None:
    config = InstructionsConfig(count=50, short=0.5, brief=0.5, exercises=0.5)
    written = list(instructions(config, seed=1))
    assert written == list(instructions(config, seed=1)) != list(instructions(config, seed=2))
    assert {c.about["source"] for c in written} >= {"general", "short", "brief"}


@pytest.mark.parametrize("refusals", [0.0, 1.0])
def test_refusals_are_as_frequent_as_asked(refusals: float) -> None:
    config = InstructionsConfig(count=120, general_families=("requests",), refusals=refusals, quality=1.0)
    harmful = [c for c in instructions(config, 0) if c.about["level"] == 2]
    assert len(harmful) > 30
    for conversation in harmful:
        response = conversation.messages[-1].content
        assert (refuses(response, "en") or refuses(response, "zh")) == bool(refusals)


def test_thinking_comes_only_where_it_is_asked_for() -> None:
    for thinking in (True, False):
        config = InstructionsConfig(count=60, short=0.3, thinking=thinking)
        for conversation in instructions(config, 0):
            last = conversation.messages[-1]
            assert (last.reasoning_content is not None) == (thinking and conversation.about["source"] == "general")


def test_short_answers_are_right_and_name_the_answer() -> None:
    for conversation in instructions(InstructionsConfig(count=60, general=0.0, short=1.0), 0):
        assert final_answer(conversation.messages[-1].content) != ""


def test_nothing_to_write_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to write"):
        build_config(InstructionsConfig, {"general": 0.0})


def test_exercises_say_what_the_world_says() -> None:
    rng = random.Random(0)
    verdicts: list[str] = []
    for _ in range(60):
        judged = exercise(rng, "judge", "en", (1, 2))
        verdicts.append(judged.messages[-1].content)
        compared = exercise(rng, "compare", "en", (1,))
        assert compared.messages[-1].content in ("A", "B")
        summed = exercise(rng, "sum_up", "zh", (1,))
        assert final_answer(summed.messages[-1].content) in summed.messages[0].content
    assert {YES, NO} == set(verdicts)
    assert verdicts.count(YES) > 12
    assert verdicts.count(NO) > 6


class Scripted(GeneratesOnly):
    """A generator that answers prompts by a function of their text."""

    def __init__(self, tokenizer: Tokenizer, answers: Mapping[str, str], ends: bool = True) -> None:
        self.tokenizer, self.answers, self.ends = tokenizer, answers, ends

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        results = []
        for request in requests:
            text = self.tokenizer.decode(request.prompt_token_ids)
            question = text.split(USER)[1].split(ASSISTANT)[0]
            ids = (*self.tokenizer.encode(self.answers[question]), *((self.tokenizer.eos_id,) if self.ends else ()))
            reason = FinishReason.STOP if self.ends else FinishReason.LENGTH
            results.append([Completion(ids, (0.0,) * len(ids), reason)])
        return results


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["Judge: yes no A B The answer is 4."] * 5, 300, CHAT_TEMPLATE)


def test_v3_is_asked_and_read(tokenizer: Tokenizer) -> None:
    rng = random.Random(0)
    problem = get_family("sums").sample(rng, 1, "en")
    fact: Problem = get_general("facts").sample(rng, 1, "en")
    answers = {
        sum_up_prompt(problem, "4"): "The answer is 4.",
        judge_prompt(problem, "4"): YES,
        judge_prompt(problem, "5"): NO,
        compare_prompt(fact, "a", "b"): "A",
        compare_prompt(fact, "b", "a"): "B",
        compare_prompt(fact, "c", "d"): "A",
        compare_prompt(fact, "d", "c"): "A",
    }
    v3 = Assistant(Scripted(tokenizer, answers), tokenizer)
    assert v3.sum_up([(problem, "4")]) == ["The answer is 4."]
    assert v3.judge([(problem, "4"), (problem, "5")]) == [True, False]
    assert v3.compare([(fact, "a", "b"), (fact, "c", "d")]) == [1.0, 0.5], "orders that disagree are no verdict"
    assert Assistant(Scripted(tokenizer, answers, ends=False), tokenizer).sum_up([(problem, "4")]) == [""]


@pytest.mark.parametrize(("there", "back"), [("yes", "no"), ("yes", "A"), ("A", "no"), ("yes", "B"), ("B", "B")])
def test_what_is_no_verdict_prefers_nothing(tokenizer: Tokenizer, there: str, back: str) -> None:
    fact = get_general("facts").sample(random.Random(0), 1, "en")
    answers = {compare_prompt(fact, "a", "b"): there, compare_prompt(fact, "b", "a"): back}
    assert Assistant(Scripted(tokenizer, answers), tokenizer).compare([(fact, "a", "b")]) == [0.5]


def test_exercises_are_about_the_families_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = set()

    def noted(rng: random.Random, family: Any, *others: Any, **more: Any) -> Problem:
        drawn.add(family.name)
        return draw(rng, family, *others, **more)

    monkeypatch.setattr(assistant, "draw", noted)
    config = InstructionsConfig(count=60, general=0.0, exercises=1.0, families=("cups",), general_families=("facts",))
    assert len(list(instructions(config, 0))) == 60
    assert drawn == {"cups", "facts"}


def test_conversations_are_of_the_training_side() -> None:
    keys = {c.about["key"] for c in instructions(InstructionsConfig(count=200), 5)}
    rng = random.Random(1)
    for name, family in GENERAL.items():
        for _ in range(100):
            problem = family.sample(rng, rng.choice(family.levels), "en")
            assert not (is_held_out(problem) and problem.key in keys), name
