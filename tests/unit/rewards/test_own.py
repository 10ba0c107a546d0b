"""Reward functions of the user's own, and tasks from files in rollouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from aha.errors import ConfigError
from aha.references import load_reference
from aha.rewards.rubric import Grader, RubricConfig, grade
from aha.types import Problem

GSM8K = Problem("gsm8k", "math", 1, "en", "What is 6 * 7?", "42", {"question": "What is 6 * 7?"})
GOOD = "<think>6 * 7 = 42</think> <answer>The answer is 42.</answer>"


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(
        "def tagged(prompt, completion, columns):\n    return 1.0 if columns.get('tag') == 'x' else None\n"
        "def broken(prompt, completion, columns):\n    return 1 / 0\n"
        "def large(prompt, completion, columns):\n    return 2.0\n"
        "def slow(prompt, completion, columns):\n    while True: pass\n"
        "value = 3\n"
    )
    return str(path)


def test_tasks_from_files_judge_what_follows_the_thinking() -> None:
    for form, text in (("zero", GOOD), ("chat", "<think>6 * 7 = 42</think>\n\nSo it is \\boxed{42}.")):
        result = grade(GSM8K, text, truncated=False, config=RubricConfig(), form=form)
        assert result is not None and (result.parts["accuracy"], result.reward) == (1.0, 2.0)
    wrong = grade(GSM8K, GOOD.replace("answer is 42", "answer is 43"), truncated=False, config=RubricConfig())
    assert wrong is not None and (wrong.parts["accuracy"], wrong.reward) == (0.0, 1.0)
    inside = grade(GSM8K, "<think>42</think> <answer>unknown</answer>", truncated=False, config=RubricConfig())
    assert inside is not None and inside.parts["accuracy"] == 0.0


def test_own_functions_add_to_the_reward(mine: str) -> None:
    config = RubricConfig(functions={f"{mine}:tagged": 0.5})
    tagged = Problem("rows", "math", 1, "en", "?", "42", {"question": "?", "_columns": {"tag": "x"}})
    result = grade(tagged, GOOD, truncated=False, config=config)
    assert result is not None and (result.parts["tagged"], result.reward) == (1.0, 2.5)
    assert grade(GSM8K, GOOD, truncated=False, config=config) is None, "no verdict drops the sample"


@pytest.mark.parametrize("name", ["broken", "large"])
def test_a_function_that_fails_gives_no_verdict(mine: str, name: str) -> None:
    assert grade(GSM8K, GOOD, truncated=False, config=RubricConfig(functions={f"{mine}:{name}": 1.0})) is None


def test_a_function_that_never_ends_is_stopped(mine: str) -> None:
    grader = Grader(RubricConfig(functions={f"{mine}:slow": 1.0}), seconds_per_item=1.0)
    try:
        assert grader.grade([(GSM8K, GOOD, False)]) == [None]
    finally:
        grader.close()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("{mine}:tagd", "has no 'tagd' \\(did you mean 'tagged'"),
        ("{mine}", "expected module:name"),
        ("nowhere.py:f", "no file 'nowhere.py'"),
        ("no.such:f", "no module named 'no'"),
    ],
)
def test_references_that_lead_nowhere(mine: str, reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_reference(reference.format(mine=mine))


def test_weights_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be below 0"):
        RubricConfig(functions={"a:b": -1.0})
