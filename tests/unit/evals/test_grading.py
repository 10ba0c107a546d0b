"""How completions are graded under each style of asking, and what is summed up of general tasks."""

import random

import pytest

from aha.evals.readability import longest_paragraph, repetition_rate
from aha.evals.runner import Sample, grade_sample, summarize, summarize_general
from aha.tasks.families import get_general
from aha.tasks.general.requests import REFUSAL
from aha.text.prompt_style import PromptStyle
from aha.types import Problem

PROBLEM = Problem(
    "sums", "math", 1, "en", "What is 2+2+1?", "5", {"items": [[2], [2], [1]], "start": 0, "first": 0, "last": 2}
)


def graded(text: str, style: str, problem: Problem = PROBLEM, truncated: bool = False) -> Sample:
    return grade_sample(problem, 0, text, 9, truncated, PromptStyle.named(style))


@pytest.mark.parametrize(
    ("text", "style", "correct", "summary"),
    [
        ("<think>2+2=4</think><answer>5</answer>", "zero", True, False),
        ("\n2+2=4\n4+1=5\n</think>\n\nThe answer is 5.", "chat", True, True),
        ("\n2+2=4\n4+1=5\n</think>\n\n5", "chat", False, False),
        ("2+2=4\nThe answer is 5.", "chat", False, False),
        ("The answer is 5.", "chat_direct", True, True),
        ("5", "chat_direct", True, False),
        ("The answer is 6.", "chat_direct", False, True),
    ],
)
def test_reasoning(text: str, style: str, correct: bool, summary: bool) -> None:
    sample = graded(text, style)
    assert (sample.correct, sample.summary) == (correct, summary)
    assert sample.score == float(correct)


def test_readability() -> None:
    sample = graded("\n2+2=4 检查4-2=2\n2+2=4\n2+2=4\n</think>\n\n答案是5。", "chat")
    assert sample.repetition == pytest.approx(1 / 3)
    assert sample.language_consistency == 0.0
    assert not sample.answer_in_language
    assert sample.correct
    assert repetition_rate("") == 0.0
    assert longest_paragraph("ab\nabcd\n") == 4


def test_only_answers_that_are_shown_have_a_language() -> None:
    unformed, formed = graded("2+2=4", "zero"), graded("<think>2+2=4</think><answer>5</answer>", "zero")
    foreign = graded("<think>2+2=4</think><answer>五</answer>", "zero")
    assert (unformed.answer_in_language, formed.answer_in_language, foreign.answer_in_language) == (None, True, False)
    assert summarize([unformed, unformed])["answer_in_language_rate"] is None
    assert summarize([unformed, formed, foreign])["answer_in_language_rate"] == 0.5


def test_general_tasks_are_scored_by_the_world_and_leniently_where_no_form_was_taught() -> None:
    rng = random.Random(0)
    family = get_general("facts")
    problem = family.sample(rng, 1, "en")
    best = family.respond(problem, rng)
    assert graded(best, "chat_direct", problem).score == 1.0
    assert graded(f"\nthinking\n</think>\n\n{best}", "chat", problem).score == 1.0
    assert graded(best, "chat", problem).score == 0.0, "the chat form is asked for"
    assert graded(best, "zero", problem).score == 1.0, "nobody taught R1-Zero the form for such questions"
    assert graded(f"<think>x</think><answer>{best}</answer>", "zero", problem).score == 1.0


def test_refusals_of_both_kinds_are_told_apart() -> None:
    rng = random.Random(0)
    family = get_general("requests")
    harmless, harmful = (family.sample(rng, level, "en") for level in family.levels)
    refusal = family.respond(harmful, rng)
    samples = [graded(refusal, "chat_direct", problem) for problem in (harmless, harmful)]
    samples += [graded(family.respond(harmless, rng), "chat_direct", harmless)]
    summary = summarize_general(samples)
    assert summary["harmful_refused"]["mean"] == summary["harmful_explained"]["mean"] == 1.0
    assert summary["harmless_refused"]["mean"] == 0.5
    assert summary["helpful"]["mean"] == 0.5
    assert summary["score"] == summary["by_family"]["requests"] == pytest.approx(2 / 3)


def test_a_refusal_without_its_reason_or_without_end_is_not_explained() -> None:
    problem = get_general("requests").sample(random.Random(0), 2, "en")
    bare = [REFUSAL["en"] + ".", REFUSAL["en"] + ": it is" + " very" * 20 + " bad."]
    summary = summarize_general([graded(text, "chat_direct", problem) for text in bare])
    assert summary["harmful_refused"]["mean"] == 1.0
    assert summary["harmful_explained"]["mean"] == 0.0


def test_domains_and_levels_are_reported_with_votes() -> None:
    texts = ["<think>a</think><answer>5</answer>"] * 3 + ["<think>a</think><answer>6</answer>"]
    samples = [
        grade_sample(PROBLEM, index, text, 9, False, PromptStyle.named("zero")) for index, text in enumerate(texts)
    ]
    cell = summarize(samples)["by_domain_level"]["math"]["1"]
    assert cell == {"pass_at_1": 0.75, "cons_at_k": 1.0, "pass_at_k": 1.0}
