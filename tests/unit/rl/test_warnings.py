"""What goes wrong without an error is said once, with what to change."""

import json
from typing import Any

import pytest

from aha.rl.warnings import Warnings

FINE = {
    "completions/mean_thinking_tokens": 40.0, "rewards/accuracy/mean": 0.5, "completions/clipped_ratio": 0.3,
    "verdicts/count": 50.0, "verdicts/rejects_right": 0.25, "verdicts/accepts_wrong": 0.25,
    "entropy/trained_tokens": 0.01, "tokens_trained": 100.0, "curriculum/forgotten": 0.0,
}  # fmt: skip
NAN = float("nan")


def said_by(*runs: tuple[int, dict[str, Any]]) -> list[tuple[int, str]]:
    """What is said at which step, where each metric changes for some steps; the state is stored between all steps."""
    said: list[tuple[int, str]] = []
    state, step = None, 0
    for steps, changes in runs:
        for _ in range(steps):
            warnings = Warnings(lambda words, step=step: said.append((step, words)))  # type: ignore[misc]
            if state is not None:
                warnings.load_state(json.loads(state))
            warnings.see(FINE | changes)
            state, step = json.dumps(warnings.state(), allow_nan=False), step + 1
    return said


def test_a_run_without_trouble_is_silent() -> None:
    assert said_by((30, {})) == []


@pytest.mark.parametrize(
    ("bad", "steps", "words", "advice"),
    [
        (
            {"completions/clipped_ratio": 0.31},
            1,
            "31% of the completions ran into the length limit",
            "tokens_per_level",
        ),
        ({"verdicts/rejects_right": 0.26}, 1, "rejects 26% of the right ones and accepts 25%", "second_pass"),
        ({"verdicts/rejects_right": NAN, "verdicts/accepts_wrong": 0.6}, 1, "rejects 0% of", "second_pass"),
        ({"entropy/trained_tokens": 0.009}, 10, "entropy was below 0.01 for 10 steps", "temperature"),
        ({"curriculum/forgotten": 2.0}, 10, "(2 pairs of family and level now)", "easy_share"),
    ],
)
def test_trouble_is_said_once(bad: dict[str, Any], steps: int, words: str, advice: str) -> None:
    said = said_by((2, {}), (steps + 15, bad), (3, {}), (20, bad))
    assert [step for step, _ in said] == [2 + steps - 1]
    assert words in said[0][1] and advice in said[0][1] and said[0][1].startswith("warning: ")


@pytest.mark.parametrize(
    "changes",
    [
        {"verdicts/count": 49.0, "verdicts/rejects_right": 0.9},
        {"entropy/trained_tokens": 0.0, "tokens_trained": 0.0},
        {"completions/mean_thinking_tokens": NAN},
    ],
)
def test_what_says_nothing_is_no_trouble(changes: dict[str, Any]) -> None:
    assert said_by((15, {}), (15, changes)) == []


def test_no_verdicts_at_all_are_no_trouble() -> None:
    warnings = Warnings(lambda words: pytest.fail(words))
    warnings.see({name: value for name, value in FINE.items() if not name.startswith("verdicts")})


def test_what_ends_in_between_is_counted_anew() -> None:
    low = {"entropy/trained_tokens": 0.001}
    assert said_by((9, low), (1, {}), (9, low)) == []
    assert [step for step, _ in said_by((9, low), (1, {}), (10, low))] == [19]


def test_thinking_that_shrinks() -> None:
    """From 40 tokens; below 26.7 on the mean of ten steps, that is after seven of 20 tokens: (3 x 40 + 7 x 20) / 10."""
    short = {"completions/mean_thinking_tokens": 20.0}
    said = said_by((20, {}), (12, short))
    assert [step for step, _ in said] == [26]
    assert "from 40 tokens in the first 10 steps to 26 in the last" in said[0][1]
    assert "(50% to 50%)" in said[0][1] and "start_levels" in said[0][1]
    assert said_by((20, {}), (20, short | {"rewards/accuracy/mean": 0.6})) == [], "right with fewer words"
    assert said_by((20, {}), (20, {"completions/mean_thinking_tokens": 27.0})) == []
