"""The reader's form by rule: one language, the same equations, a summary that is read back."""

import random

import pytest

from aha.grading.interpreter import BINARY
from aha.rewards.rules import language_consistency
from aha.tasks.families import FAMILIES
from aha.tasks.rewriting import one_language, summary
from aha.text.thinking import final_answer
from aha.types import Language, Style

LANGUAGES: tuple[Language, ...] = ("en", "zh")
STYLES: tuple[Style, ...] = ("brief", "full", "check")


@pytest.mark.parametrize("name", FAMILIES)
def test_thinking_becomes_consistent_and_keeps_its_steps(name: str) -> None:
    family = FAMILIES[name]
    rng = random.Random(name)
    for number in range(120):
        language, style = LANGUAGES[number % 2], STYLES[number % 3]
        problem = family.sample(rng, rng.choice(family.levels[:3]), language)
        mixed = family.solve(problem, rng, style, rng.choice(("en", "zh", "mixed")), 0.3).thinking
        rewritten = one_language(mixed, language)
        assert language_consistency(rewritten, language) == 1.0, rewritten
        steps, kept = family.check_steps(problem, mixed), family.check_steps(problem, rewritten)
        assert [(step.true, step.rejects) for step in kept] == [(step.true, step.rejects) for step in steps]
        assert one_language(rewritten, language) == rewritten


def test_a_world_written_text_in_its_own_language_stays() -> None:
    text = "12+7=18 check 18-7=11 Wait, no.\n12+7=19 check 19-7=12 ok"
    assert one_language(text, "en") == text
    assert one_language(text, "zh") == "12+7=18检查18-7=11等等，不对。\n12+7=19检查19-7=12对"
    assert one_language(one_language(text, "zh"), "en") == text


def test_instructions_of_programs_have_no_language() -> None:
    assert language_consistency(" ".join(BINARY), "zh") == 1.0


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("answer", ["42", "11:00", "mul 3;add 5", "(3+4)*2"])
def test_a_summary_is_read_back(answer: str, language: Language) -> None:
    assert final_answer(summary(answer, language)) == answer
