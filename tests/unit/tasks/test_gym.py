"""reasoning-gym's puzzles: repeatable, judged in a worker, and no reward for nonsense."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aha.cli import app
from aha.data.reasoning_gym import COMPARED, REFUSED
from aha.data.sources import Source, source_identity
from aha.errors import ConfigError
from aha.tasks.datasets import find_source, make_dataset, open_dataset, read_problems

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed: pip install 'aha[gym]'")
HOSTILE = ["nan", "0", "True", "None", "inf", "1e999999", "9**9**9**9", "()", "x" * 5000, "answer", "\ud800", "0/0"]


@pytest.mark.parametrize("name", ["knights_knaves", "isomorphic_strings", "basic_arithmetic", "coin_flip", "sudoku"])
def test_gold_answers_are_right_and_wrong_ones_are_not(name: str) -> None:
    with open_dataset(f"gym:{name}") as task:
        source = find_source(task, "test").model_copy(update={"limit": 6})
        problems = list(read_problems(task, source))
        assert len({problem.key for problem in problems}) == 6
        for problem in problems:
            assert task.verify(problem, f"I think so. The answer is: {task.gold(problem)}")
            assert not any(task.verify(problem, wrong) for wrong in task.wrong_answers(problem))
        again = list(read_problems(task, source))
        assert again == problems, "puzzles do not depend on the process that makes them"


def test_splits_share_no_seed() -> None:
    with open_dataset("gym:chain_sum") as task:
        train, test = (
            {problem.question for problem in read_problems(task, Source(path="gym:chain_sum", split=split, limit=20))}
            for split in ("train", "test")
        )
    assert not train & test
    assert source_identity(Source(path="gym:chain_sum")) != source_identity(Source(path="gym:chain_sum", split="test"))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_judges_that_execute_answers_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="executes the text of an answer"):
        make_dataset(f"gym:{name}")


def test_help_says_that_some_are_refused() -> None:
    shown = CliRunner().invoke(app, ["task", "--help"], env={"COLUMNS": "300"}).output
    assert len(REFUSED) == 9 and "(nine datasets of reasoning-gym, whose judges execute answers, are refused)" in shown


def test_unknown_puzzles_are_said() -> None:
    with open_dataset("gym:knights") as task, pytest.raises(ConfigError, match="is there such a dataset"):
        list(read_problems(task, Source(path="gym:knights", limit=1)))


@pytest.mark.parametrize("name", sorted(COMPARED))
def test_judges_that_pay_for_nonsense_are_not_asked(name: str) -> None:
    task = make_dataset(f"gym:{name}")
    problem = task.problem({"question": "?", "answer": "Yes", "entry": {"answer": "Yes"}}, "here", 0)
    assert task.verify(problem, "The answer is: yes.")
    assert not any(task.verify(problem, text) for text in HOSTILE)


@pytest.mark.slow
def test_no_dataset_runs_or_rewards_hostile_text(tmp_path: Path) -> None:
    from aha.data.gym_worker import names

    canary = tmp_path / "canary"
    attacks = [*HOSTILE, f"__import__('os').system('touch {canary}')", f"[open('{canary}', 'w')]"]
    paid = []
    with open_dataset("gym:knights_knaves") as first:
        first.prepare()
        for name in names():
            task = make_dataset(f"gym:{name}")
            task._sandbox = first._sandbox  # one start for all of them
            (problem,) = read_problems(task, Source(path=f"gym:{name}", limit=1))
            for text in attacks:
                try:
                    right = task.verify(problem, text)
                except Exception as error:
                    assert "no verdict" in str(error), (name, error)
                    continue
                if right and text.strip().casefold() != problem.answer.strip().casefold():
                    paid.append((name, text[:40]))
    assert not canary.exists() and not os.path.lexists(canary)
    assert not paid
