"""Growth, forced passes and repairs: every figure worked out by hand from rows."""

from dataclasses import replace

import pytest

from aha.evals.thinking import (
    ThinkingSettings,
    Thought,
    _before_rejection,
    _repairs,
    about_model,
    growth_on_own_problems,
    think_longer,
)
from aha.tasks.families import FAMILIES
from aha.types import Problem

ROW = Thought("k", "sums", 1, 0, 0, True, True, 10, False, False, "")
SETTINGS = ThinkingSettings(levels=(1, 2), one_above=3, half_above=4, passes=1)


def rows(level: int, right: int, of: int, tokens: int, passes: int = 0, family: str = "sums") -> list[Thought]:
    """So many problems with one answer each, some right."""
    return [
        replace(
            ROW, key=f"{family}{level}-{number}", family=family, level=level, passes=passes, correct=number < right,
            thinking_tokens=tokens,
        )
        for number in range(of)
    ]  # fmt: skip


def test_what_one_model_thinks() -> None:
    natural = [*rows(1, 4, 4, 10), *rows(2, 2, 4, 30), *rows(3, 1, 4, 50), *rows(4, 0, 4, 90)]
    forced = [*rows(1, 3, 4, 20, 1), *rows(2, 4, 4, 60, 1), *rows(3, 3, 4, 99, 1), *rows(4, 0, 4, 180, 1)]
    natural[0] = replace(natural[0], well_formed=False, thinking_tokens=1000)
    about = about_model([*natural, *forced], SETTINGS)
    assert about["by_level"]["2"]["accuracy"]["mean"] == 0.5
    assert about["by_level"]["1"]["thinking_tokens"] == 10, "of well-formed answers alone"
    assert about["by_level"]["1"]["well_formed"] == 0.75
    assert about["trained_levels"]["accuracy"]["mean"] == 0.75
    assert about["trained_levels"]["thinking_tokens"] == pytest.approx((3 * 10 + 4 * 30) / 7)
    assert about["beyond_training"] == [0.5, 0.0], "against accuracy at the highest trained level"
    assert about["forced"]["trained_levels"]["1"]["mean"] == pytest.approx(1 / 8)
    assert about["forced"]["one_level_above"]["1"]["mean"] == pytest.approx(0.5)
    assert about["by_level"]["2"]["forced"]["1"]["mean"] == 0.5
    assert about["by_level"]["1"]["think_longer"] == {"right_to_wrong": 0.25, "wrong_to_right": None}
    assert set(about["by_family"]) == {"sums"}


def test_what_thinking_longer_changes() -> None:
    natural, forced = rows(1, 4, 10, 5), rows(1, 4, 10, 9, passes=1)
    forced[0] = replace(forced[0], correct=False)
    forced[8] = replace(forced[8], correct=True)
    forced[9] = replace(forced[9], correct=True)
    assert think_longer([*natural, *forced]) == {"right_to_wrong": 0.25, "wrong_to_right": pytest.approx(1 / 3)}
    assert think_longer(natural) == {"right_to_wrong": None, "wrong_to_right": None}


def test_growth_over_a_runs_own_problems() -> None:
    name = "completions/mean_thinking_tokens"
    lengths = [10.0] * 3 + [20.0] * 5 + [60.0] * 10
    assert growth_on_own_problems({name: length} for length in lengths) == 6.0
    assert growth_on_own_problems([{name: 1.0}] * 5) is None
    assert growth_on_own_problems([{"loss": 1.0}] * 50) is None


BOXES = Problem("boxes", "logic", 1, "en", "?", "b", {"items": [[4, 7], [7, 8]], "target": 5})
SEARCH = "<think>\na4+7=1?5 no\nb7+8=5?5 yes\n</think>\n<answer>b</answer>"
SUMS = Problem("sums", "math", 1, "en", "?", "3", {"items": [[1]], "start": 2, "first": 0, "last": 0})
CHAIN = "<think>\na1+2=4\nWait\na1+2=3\n3 differ\nWait\na1+2=3\n3 same\n</think>\n<answer>3</answer>"


def test_thinking_is_cut_just_before_its_first_rejection() -> None:
    assert _before_rejection(FAMILIES["boxes"], BOXES, SEARCH) == "<think>\na4+7=1?5 "
    chinese = SEARCH.replace(" no", "不对").replace(" yes", "对")
    assert _before_rejection(FAMILIES["boxes"], BOXES, chinese) == "<think>\na4+7=1?5"
    assert _before_rejection(FAMILIES["sums"], SUMS, CHAIN) == "<think>\na1+2=4\nWait\na1+2=3\n3 "
    accepts = SEARCH.replace("a4+7=1?5 no\n", "")
    assert _before_rejection(FAMILIES["boxes"], BOXES, accepts) is None


def test_repairs_are_of_right_answers_in_searches() -> None:
    found = [*rows(2, 3, 4, 9, family="boxes"), *rows(2, 4, 4, 9, family="sums")]
    found = [replace(row, rejects=row.key in ("boxes2-0", "boxes2-1", "sums2-0")) for row in found]
    assert _repairs(found, 2, [True, False, False, False]) == {"repair_share": pytest.approx(2 / 3), "repair_worth": 75}
    assert _repairs(found, 3, []) == {"repair_share": None, "repair_worth": None}
