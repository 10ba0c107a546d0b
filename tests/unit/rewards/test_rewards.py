"""Rewards are finite and in range or the sample is dropped; controls know nothing.

Language is counted as in R1 Eq. 7.
"""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.rewards.rubric import Grader, RubricConfig, add_up, grade
from aha.rewards.rules import language_consistency, random_reward
from aha.tasks.families import FAMILIES
from aha.types import Problem


def problem() -> Problem:
    return FAMILIES["sums"].sample(random.Random(1), 1, "en")


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("check this", "en", 1.0),
        ("检查", "zh", 1.0),
        ("检查 ok", "en", 1 / 3),
        ("check 对", "zh", 1 / 2),
        ("2+2=4", "en", 1.0),
        ("", "zh", 1.0),
    ],
)
def test_language_consistency(text: str, language: str, share: float) -> None:
    assert language_consistency(text, language) == pytest.approx(share)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -0.1, 1.1, 1e30])
def test_a_reward_out_of_range_drops_the_sample(value: float | None) -> None:
    assert add_up({"accuracy": 1.0, "odd": value}, {"accuracy": 1.0, "odd": 0.0}) is None


@given(st.text(max_size=200), st.booleans())
def test_any_text_gets_a_finite_reward(text: str, truncated: bool) -> None:
    result = grade(problem(), text, truncated, RubricConfig(language=1, steps=1, random=1))
    assert result is not None
    assert 0.0 <= result.reward <= 5.0


def test_weights_apply() -> None:
    right = f"<think>{problem().question}</think><answer>{problem().answer}</answer>"
    result = grade(problem(), right, False, RubricConfig(accuracy=0.5, format=0.25))
    assert result is not None
    assert result.reward == 0.75
    assert result.parts["steps"] == 0.0


def test_the_random_reward_is_fair_repeatable_and_blind() -> None:
    flips = [random_reward(problem(), str(number), seed=0) for number in range(2000)]
    assert 0.45 < sum(flips) / len(flips) < 0.55
    assert flips == [random_reward(problem(), str(number), seed=0) for number in range(2000)]
    assert flips != [random_reward(problem(), str(number), seed=1) for number in range(2000)]


def test_the_worker_grades_as_the_function_does() -> None:
    rng = random.Random(0)
    items = []
    for family in FAMILIES.values():
        one = family.sample(rng, 2, "zh")
        solution = family.solve(one, rng, "long", "mixed", 0.5, 0.5)
        items.append((one, f"<think>{solution.thinking}</think>\n<answer>{solution.answer}</answer>", False))
        items.append((one, "\ud800 <think>", True))
    grader = Grader(RubricConfig(), seconds_per_item=10)
    try:
        results = grader.grade(items)
    finally:
        grader.close()
    assert results[::2] == [grade(*item, RubricConfig()) for item in items[::2]]
    assert [result.reward for result in results[::2] if result] == [2.0] * len(FAMILIES)
    assert all(result is not None and result.reward == 0 for result in results[1::2])
