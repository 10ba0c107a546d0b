"""The reader's form by rule: one language, the same equations, a summary that is read back."""

import random

import pytest

from aha.rewards.rules import language_consistency
from aha.tasks.families import FAMILIES
from aha.tasks.rewriting import one_language, summary
from aha.text.thinking import final_answer
from aha.types import Language, Style

LANGUAGES: tuple[Language, ...] = ("en", "zh")
STYLES: tuple[Style, ...] = ("guess", "given_up", "long")


@pytest.mark.parametrize("name", FAMILIES)
def test_thinking_becomes_consistent_and_keeps_its_steps(name: str) -> None:
    family = FAMILIES[name]
    rng = random.Random(name)
    for number in range(120):
        language, style = LANGUAGES[number % 2], STYLES[number % 3]
        problem = family.sample(rng, rng.choice(family.levels[:3]), language)
        mixed = family.solve(problem, rng, style, rng.choice(("en", "zh", "mixed")), 0.6, 0.6).thinking
        rewritten = one_language(mixed, language)
        assert language_consistency(rewritten, language) == 1.0, rewritten
        steps, kept = family.check_steps(problem, mixed), family.check_steps(problem, rewritten)
        assert [(step.true, step.accepts) for step in kept] == [(step.true, step.accepts) for step in steps]
        assert one_language(rewritten, language) == rewritten


def test_a_world_written_text_in_its_own_language_stays() -> None:
    text = "a7+2=8\nWait\na7+2=9\n9 differ\nWait\na7+2=9\n9 same"
    assert one_language(text, "en") == text
    assert one_language(text, "zh") == "a7+2=8\n等等\na7+2=9\n9不同\n等等\na7+2=9\n9一样"
    assert one_language(one_language(text, "zh"), "en") == text


def test_single_letters_have_no_language() -> None:
    assert language_consistency("a5+3=8 b c", "zh") == 1.0
    assert language_consistency("a5+3=8 b same", "zh") == 0.0


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("answer", ["42", "b", "11:00", "(3+4)*2"])
def test_a_summary_is_read_back(answer: str, language: Language) -> None:
    assert final_answer(summary(answer, language)) == answer
