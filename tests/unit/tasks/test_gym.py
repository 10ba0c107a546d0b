"""reasoning-gym's puzzles: repeatable, judged in a worker, and no reward for nonsense."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aha.cli import app
from aha.data.reasoning_gym import COMPARED, GRIDS, REFUSED
from aha.data.sources import Source, source_identity
from aha.errors import ConfigError
from aha.recipes.show_task import show_task
from aha.rewards.rubric import RubricConfig, grade
from aha.stages.problems import Problems, ProblemsConfig
from aha.tasks.datasets import find_source, make_dataset, open_dataset, read_problems
from aha.tasks.stored import TRAIN, read_stored
from aha.text.prompt_style import PromptStyle

from ..conftest import MakeContext

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed: install the extra gym")
HOSTILE = ["nan", "0", "True", "None", "inf", "1e999999", "9**9**9**9", "()", "x" * 5000, "answer", "\ud800", "0/0"]


MANY_ANSWERS = {
    "boxnet": (
        {"initial_state": {"0.5_0.5": ["box_red", "target_red"]}},
        '[{"Agent[0.5, 0.5]": "move(box_red, target_red)"}]',
    ),
    "graph_color": ({"puzzle": {"vertices": [0, 1], "edges": [[0, 1]], "color_options": [1, 2]}}, '{"0": 1, "1": 2}'),
    "propositional_logic": ({"premises": ["P", "Q"], "variables": ["P", "Q"]}, "(P ∧ Q)"),
    "rubiks_cube": ({"cube_size": 3, "scramble_moves": "R U"}, "U' R'"),
    "rush_hour": ({"board_config": "o" * 12 + "AA" + "o" * 22}, "A+4"),
}
"""What the judge is told, and one of the right answers."""


@pytest.mark.parametrize(
    "name", ["knights_knaves", "isomorphic_strings", "basic_arithmetic", "coin_flip", "sudoku", *sorted(GRIDS)]
)
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


@pytest.mark.parametrize("name", sorted(MANY_ANSWERS))
def test_puzzles_without_one_gold_answer_are_judged_all_the_same(name: str) -> None:
    metadata, right = MANY_ANSWERS[name]
    with open_dataset(f"gym:{name}") as task:
        row = {"question": "?", "answer": None, "entry": {"answer": None, "metadata": metadata}}
        problem = task.problem(row, "here", 0)
        assert (task.gold(problem), task.solution(problem)) == (None, None)
        assert task.verify(problem, f"The answer is: {right}")
        assert not any(task.verify(problem, wrong) for wrong in task.wrong_answers(problem))


def test_puzzles_without_one_gold_answer_are_shown_and_trained_on(
    make_context: MakeContext, capsys: pytest.CaptureFixture[str]
) -> None:
    show_task("gym:rush_hour", None, 1, "en", 0, None, None, PromptStyle.named("zero"), [])
    shown = capsys.readouterr().out
    assert "no one gold answer is known" in shown and "'None of it' scores 0" in shown
    assert "wrong answers that scored 1 above: 0" in shown and "broken" not in shown
    sources = {"train": Source(path="gym:graph_color", limit=4), "held_out": None}
    config = ProblemsConfig(task="gym:graph_color", held_out_share=0.5, **sources)
    context = make_context("problems", config)
    assert Problems().run(context).summary["solutions"] == 0
    problem = read_stored(context.folder / TRAIN)[0]
    colors = json.dumps(problem.facts["_entry"]["metadata"]["possible_answer"])
    for answer, accuracy in ((colors, 1.0), ("{}", 0.0)):
        text = f"<think>I color.</think> <answer>{answer}</answer>"
        result = grade(problem, text, truncated=False, config=RubricConfig())
        assert result is not None and result.parts["accuracy"] == accuracy


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
@pytest.mark.timeout(1800)
def test_every_gold_answer_is_right() -> None:
    from aha.data.gym_worker import names

    missing = []
    with open_dataset("gym:knights_knaves") as first:
        first.prepare()
        for name in names():
            task = make_dataset(f"gym:{name}")
            task._sandbox = first._sandbox  # one start for all of them
            for problem in read_problems(task, Source(path=f"gym:{name}", limit=2)):
                gold = task.gold(problem)
                if gold is None:
                    missing.append(name)
                else:
                    assert task.verify(problem, f"So be it. The answer is: {gold}"), (name, gold)
    assert sorted(set(missing)) == sorted(MANY_ANSWERS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
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
