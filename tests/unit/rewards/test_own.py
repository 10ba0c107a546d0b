"""Reward functions of the user's own, and tasks from files in rollouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from aha.configuration import build_config
from aha.errors import ConfigError, GradingError
from aha.recipes.post_training import PostTrainingGRPOConfig
from aha.recipes.r1 import r1_smoke
from aha.recipes.r1_zero import r1_zero_smoke
from aha.recipes.recipe import identities
from aha.references import load_reference
from aha.rewards.own import RewardFunctionError, functions_identity, own_reward
from aha.rewards.rubric import Grader, RubricConfig, grade
from aha.text.tokenizer import Tokenizer
from aha.types import Problem

DATA = Path(__file__).parents[2] / "data"
GSM8K = Problem("gsm8k", "math", 1, "en", "What is 6 * 7?", "42", {"question": "What is 6 * 7?"})
GOOD = "<think>6 * 7 = 42</think> <answer>The answer is 42.</answer>"


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(
        "def tagged(prompt, completion, columns):\n    return 1.0 if columns.get('tag') == 'x' else None\n"
        "def broken(prompt, completion, columns):\n    return half(0)\n"
        "def large(prompt, completion, columns):\n    return 2.0\n"
        "def slow(prompt, completion, columns):\n    while True: pass\n"
        "value = 3\n"
        "def half(number):\n    return 1 / number\n"
        "def moody(prompt, completion, columns):\n    return half(len(completion) - 1)\n"
        "def worded(prompt, completion, columns):\n    return '1.0'\n"
        "def two(prompt, completion):\n    return 1.0\n"
        "def leaving(prompt, completion, columns):\n    raise SystemExit(3)\n"
        "def given(prompt, completion, columns):\n    return columns['value']\n"
    )
    return str(path)


def test_tasks_from_files_judge_what_follows_the_thinking() -> None:
    for answer_tags, text in ((True, GOOD), (False, "<think>6 * 7 = 42</think>\n\nSo it is \\boxed{42}.")):
        result = grade(GSM8K, text, truncated=False, config=RubricConfig(), answer_tags=answer_tags)
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", r"mine.py:broken' raised ZeroDivisionError: division by zero \(.*mine.py, line 11\)"),
        ("large", r"returned 2.0: it must be a number in \[0, 1\], or None"),
        ("worded", "returned str: it must be a number"),
        ("two", r"cannot be called: TypeError: two\(\) takes 2 positional arguments but 3 were given"),
        ("leaving", r"raised SystemExit: 3 \(.*mine.py, line 19\)"),
        ("broke", "cannot be loaded: .*has no 'broke'"),
    ],
)
def test_a_function_that_fails_says_why(mine: str, name: str, message: str) -> None:
    with pytest.raises(RewardFunctionError, match=message):
        grade(GSM8K, GOOD, truncated=False, config=RubricConfig(functions={f"{mine}:{name}": 1.0}))


def test_a_file_that_is_not_python_says_where(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1\ndef f(:\n")
    with pytest.raises(RewardFunctionError, match=r"cannot be loaded: .*\(mine.py, line 2\)"):
        own_reward(f"{tmp_path / 'mine.py'}:f", GSM8K, GOOD)


@pytest.mark.parametrize("value", [1, True, np.float32(1), np.int64(1), np.bool_(True), np.array(1.0)])
def test_numbers_of_any_kind_are_rewards(mine: str, value: object) -> None:
    problem = Problem("rows", "math", 1, "en", "?", "42", {"_columns": {"value": value}})
    assert own_reward(f"{mine}:given", problem, GOOD) == 1.0


@pytest.mark.parametrize("value", [np.array([0.5, 1.0]), torch.tensor([0.5, 1.0]), 10**400])
def test_what_is_returned_and_is_no_number_is_named(mine: str, value: object) -> None:
    problem = Problem("rows", "math", 1, "en", "?", "42", {"_columns": {"value": value}})
    message = rf"returned {type(value).__name__}, which is no number \(\w+Error: .*\): it must be a number in \[0, 1\]"
    with pytest.raises(RewardFunctionError, match=message):
        own_reward(f"{mine}:given", problem, GOOD)


def test_the_first_failure_of_each_function_is_said_once(mine: str) -> None:
    said: list[str] = []
    grader = Grader(RubricConfig(functions={f"{mine}:moody": 1.0}), 5.0, notify=said.append)
    try:
        batches = [[(GSM8K, text, False) for text in ("ab", "x", "y")], [(GSM8K, "z", False)]]
        assert [[one is None for one in grader.grade(batch)] for batch in batches] == [[False, True, True], [True]]
    finally:
        grader.close()
    assert len(said) == 1 and "ZeroDivisionError" in said[0] and "mine.py, line 11)" in said[0]


def test_a_function_that_always_fails_ends_the_run(mine: str) -> None:
    grader = Grader(RubricConfig(functions={f"{mine}:broken": 1.0}), 5.0)
    try:
        with pytest.raises(GradingError, match=r"ZeroDivisionError.*mine.py, line 11.*none of the first 2 completions"):
            grader.grade([(GSM8K, GOOD, False), (GSM8K, "x", False)])
    finally:
        grader.close()


def test_a_function_that_never_ends_is_stopped_and_said(mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AHA_SANDBOX", "{seconds: 0.5}")
    grader = Grader(RubricConfig(functions={f"{mine}:slow": 1.0}), seconds_per_item=1.0)
    try:
        with pytest.raises(GradingError, match=r"took over 1\.5 seconds, .*; none of the first 1 completions"):
            grader.grade([(GSM8K, GOOD, False)])
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


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ({"a:b": -1.0}, "must not be below 0"),
        ({"a.py:accuracy": 1.0}, "'a.py:accuracy' has the name of a built-in reward: rename the function"),
        ({"a.py:preference": 1.0}, "built-in reward"),
        ({"a.py:score": 1.0, "b.py:score": 1.0}, "2 functions are named 'score': rename all but one of them"),
    ],
)
def test_functions_that_cannot_be_told_apart_are_refused(functions: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(RubricConfig, {"functions": functions})


def test_a_stage_is_redone_when_its_reward_changes(mine: str, base: Tokenizer, tmp_path: Path) -> None:
    path, rubric = Path(mine), RubricConfig(functions={f"{mine}:tagged": 0.5})
    small, whole = r1_zero_smoke(), r1_smoke()
    own = PostTrainingGRPOConfig(
        recipe="grpo", model=str(tmp_path / "run/base/model"), task="gsm8k", data=str(DATA / "gsm8k/test.jsonl")
    )
    with_reward = [
        own.changed(rl={"rubric": rubric}),
        small.changed(rl={"rubric": rubric}),
        whole.changed(reasoning_rl={"rubric": rubric}),
    ]
    before = [identities(config) for config in with_reward]
    path.write_text(path.read_text().replace("'x'", "'y'"))
    after = [identities(config) for config in with_reward]
    for one, other, stage in zip(before, after, ("grpo", "r1-zero", "dev2"), strict=True):
        first = next(iter(one))
        assert one[first] == other[first] and one[stage] != other[stage]
    path.unlink()
    with pytest.raises(ConfigError, match="there is no file"):
        identities(with_reward[0])


def test_functions_of_modules_are_known_by_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = {functions_identity([]), functions_identity(["aha.rewards.own:short_name"])}
    for text in ("a = 1", "a = 2"):
        (tmp_path / "own_reward_module.py").write_text(text)
        seen.add(functions_identity(["own_reward_module:f"]))
    assert len(seen) == 4 and "" in seen
    with pytest.raises(ConfigError, match="no module named 'no_such_module'"):
        functions_identity(["no_such_module:f"])
