"""Rejection sampling: every sample has one fate, and the audit counts it; summaries by V3 must say the same."""

import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from aha.rewards.rules import language_consistency
from aha.stages.rejection_sampling import (
    FilterConfig,
    RejectionSampling,
    RejectionSamplingConfig,
    is_summary,
    judge_readable,
    select,
    to_row,
    training_problems,
)
from aha.tasks.families import FAMILIES, is_held_out
from aha.text.thinking import parse
from aha.text.tokenizer import Tokenizer
from aha.training.stage import StageContext
from aha.types import Problem

from ..conftest import MakeContext
from ..generators import Replies
from .killed import whole_and_killed

PROBLEM = Problem(
    "sums", "math", 1, "en", "What is 2+2+1?", "5", {"items": [[2], [2], [1]], "start": 0, "first": 0, "last": 2}
)


def row(thinking: str = "2+2=4\n4+1=5", answer: str = "5", **other: Any) -> dict[str, Any]:
    text = f"{thinking}\n</think>\n\nThe answer is {answer}."
    made = to_row(PROBLEM, parse(text, think_prefilled=True, answer_tags=False), 20)
    return {**made, **other}


def test_each_rule_drops_what_it_is_for() -> None:
    rows = [
        row(),
        row(),
        row("4+1=5"),
        row("2+2=4\n5"),
        row(answer="6"),
        row("2+2=4检查4-2=2对\n4+1=5"),
        row("2+2=4\n2+2=4\n2+2=4\n4+1=5"),
        row("2+2=4" + " and" * 60),
        row("1+4=5", judged_right=False),
        row(well_formed=False),
    ]
    filters = FilterConfig(min_language=0.9, max_repetition=0.2, max_paragraph=160, per_problem=2)
    kept, audit = select(rows, filters)
    assert [r["thinking"] for r in kept] == ["2+2=4\n4+1=5", "4+1=5"]
    assert audit["total"] == {
        "format": 1,
        "wrong": 1,
        "language": 1,
        "repetition": 1,
        "long paragraph": 1,
        "judge": 1,
        "duplicate": 1,
        "enough of this problem": 1,
        "kept": 2,
    }
    assert sum(audit["total"].values()) == audit["in"] == len(rows)
    assert audit["by_cell"] == {"sums 1": audit["total"]}


def test_a_duplicate_does_not_get_past_the_judge() -> None:
    """What V3 judges wrong is gone with all its copies, and each answer is put before it once."""
    rows = [row(), row(), row("1+4=5"), row(answer="6"), row("well" * 60)]
    asked: list[tuple[Problem, str]] = []

    def judge(items: Sequence[tuple[Problem, str]]) -> list[bool]:
        asked.extend(items)
        return [False] * len(items)

    judge_readable(rows, FilterConfig(), judge)
    kept, audit = select(rows, FilterConfig())
    assert asked == [(PROBLEM, "5")]
    assert kept == []
    assert (audit["total"]["judge"], audit["total"]["wrong"], audit["total"]["long paragraph"]) == (3, 1, 1)


def test_the_same_thinking_in_two_languages_is_a_duplicate() -> None:
    kept, _ = select([row("a2+2=4\n4 same"), row("a2+2=4\n4一样")], FilterConfig())
    assert len(kept) == 1


def test_a_summary_must_say_the_same_in_the_same_language() -> None:
    assert is_summary("The answer is 5.", PROBLEM, "5")
    assert not is_summary("The answer is 6.", PROBLEM, "5")
    assert not is_summary("答案是5。", PROBLEM, "5")
    assert not is_summary("5", PROBLEM, "5")
    assert not is_summary("", PROBLEM, "5")
    assert not is_summary("well " * 20 + "The answer is 5.", PROBLEM, "5")


def test_training_problems_are_many_and_none_is_held_out() -> None:
    config = RejectionSamplingConfig(prompts=300)
    problems = training_problems(config, seed=3)
    assert len(problems) > 280
    assert len({problem.key for problem in problems}) == len(problems)
    assert not any(is_held_out(problem) for problem in problems)
    assert {problem.family for problem in problems} == FAMILIES.keys()
    assert problems == training_problems(config, seed=3)


def test_rows_survive_json_and_know_what_is_right() -> None:
    rng = random.Random(0)
    for name, family in FAMILIES.items():
        problem = family.sample(rng, 1, "zh")
        solution = family.solve(problem, rng, "long", "zh", 0.5, 0.5)
        text = f"{solution.thinking}\n</think>\n\n答案是{solution.answer}。"
        made = to_row(problem, parse(text, think_prefilled=True, answer_tags=False), 9)
        assert made["right"], (name, text)
        assert Problem(**made["problem"]).key == problem.key
        assert made["problem"] == asdict(problem)
        assert language_consistency(made["thinking"], "zh") == 1.0


def solve(problem: Problem, rng: random.Random) -> str:
    """A solution, now and then with a wrong answer."""
    solution = FAMILIES[problem.family].solve(problem, rng, "long", problem.language)
    answer = solution.answer if rng.random() < 0.7 else "no"
    return f"{solution.thinking}\n</think>\n\nThe answer is {answer}."


def test_a_killed_run_ends_with_the_same_bytes_and_asks_nothing_twice(
    make_context: MakeContext, base: Tokenizer
) -> None:
    config = RejectionSamplingConfig(prompts=12, samples=3, prompts_at_once=4, levels=(1,))

    def started() -> tuple[StageContext, Replies]:
        context = make_context("data", config, ("base",))
        return context, Replies(base, training_problems(config, context.derive_seed("problems")), solve)

    summary, everything = whole_and_killed(RejectionSampling, started, ("examples.jsonl", "audit.json"))
    assert summary["examples"] > 0
    assert len(everything) == 12
