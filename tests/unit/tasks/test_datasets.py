"""Tasks from files: gold answers score 1, wrong ones 0, bad files are named by line.

The full sets are read from the folder that AHA_DATA names; without it those tests are skipped.
"""

import gzip
import itertools
import json
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from aha.errors import CannotGradeError, ConfigError, GradingError, UnknownNameError
from aha.evals.runner import evaluate
from aha.grading.sandbox import backends
from aha.grading.sandbox.outcome import SandboxConfig, default_sandbox
from aha.protocols import DatasetTask
from aha.rewards.rubric import Grader, RubricConfig
from aha.tasks import datasets
from aha.tasks.datasets import DATASETS, judge_of, load_dataset, make_dataset, open_dataset
from aha.tasks.gsm8k import Gsm8k
from aha.tasks.humaneval import HumanEval
from aha.tasks.own_rows import OwnRows
from aha.tasks.stored import write_problems
from aha.types import Problem, SamplingParams

DATA = Path(__file__).parents[2] / "data"
FULL = Path(os.environ["AHA_DATA"]) if os.environ.get("AHA_DATA") else None


def ready(task: DatasetTask) -> None:
    """Skips where this machine cannot grade the task."""
    try:
        task.prepare()
    except GradingError as error:
        pytest.skip(str(error))


def full(name: str) -> Path:
    if FULL is None or not (FULL / name).exists():
        pytest.skip(f"the full set is read from AHA_DATA/{name}")
    return FULL


@pytest.mark.parametrize("name", list(DATASETS))
def test_gold_answers_score_1_and_wrong_ones_0(name: str) -> None:
    with open_dataset(name) as task:
        assert isinstance(task, DatasetTask)
        ready(task)
        problems = load_dataset(task, DATA)
        assert len({problem.key for problem in problems}) == len(problems) >= 3
        for problem in problems[:12]:
            assert task.verify(problem, task.gold(problem)), problem.facts["_id"]
            paid = [wrong for wrong in task.wrong_answers(problem) if task.verify(problem, wrong)]
            assert not paid, (problem.facts["_id"], paid)


@pytest.mark.parametrize("name", ["gsm8k", "math", "choice"])
def test_a_gold_answer_is_enough(name: str) -> None:
    with open_dataset(name) as task:
        ready(task)
        for problem in load_dataset(task, DATA)[:3]:
            known = task.from_answer(problem.answer)
            assert task.verify(known, task.gold(problem))
        for bad in ("", " "):
            with pytest.raises(ValueError):
                task.from_answer(bad)
    with open_dataset("humaneval") as task, pytest.raises(ValueError, match="by its id"):
        task.from_answer("return 1")


def test_gsm8k_in_full() -> None:
    """1,319 of 1,319; the next problem's gold answer is right by coincidence only: where the numbers are the same."""
    task = Gsm8k()
    path = full("gsm8k/test.jsonl") / "gsm8k/test.jsonl"
    problems = load_dataset(task, path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(problems) == 1319
    assert sum(task.verify(problem, row["answer"]) for problem, row in zip(problems, rows, strict=True)) == 1319
    assert sum(task.verify(problem, task.gold(problem)) for problem in problems) == 1319
    paid = sum(task.verify(one, task.gold(other)) for one, other in itertools.pairwise(problems))
    same = sum(one.answer == other.answer for one, other in itertools.pairwise(problems))
    print(f"the next problem's gold answer is right {paid} times of {len(problems) - 1}")
    assert paid == same < 30


def test_gsm8k_training_set_in_full() -> None:
    task = Gsm8k()
    problems = load_dataset(task, full("gsm8k/train.jsonl") / "gsm8k/train.jsonl")
    assert sum(task.verify(problem, task.gold(problem)) for problem in problems) == len(problems) == 7473


def test_humaneval_in_full() -> None:
    """Canonical solutions 164 of 164, in three forms; prompts without a body 0 of 164."""
    data = full("humaneval/HumanEval.jsonl.gz")
    with open_dataset("humaneval") as task:
        ready(task)
        problems = load_dataset(task, data)
        assert len(problems) == 164
        assert [p.facts["_id"] for p in problems if not task.verify(p, task.gold(p))] == []
        assert [p.facts["_id"] for p in problems if task.verify(p, "    pass\n")] == []
        assert [p.facts["_id"] for p in problems if task.verify(p, p.facts["prompt"])] == []
        fenced = [f"Here it is:\n```python\n{p.facts['prompt']}{p.answer}\n```\nDone." for p in problems[:40]]
        assert all(task.verify(problem, text) for problem, text in zip(problems, fenced, strict=False))


def test_humaneval_programs_are_put_together() -> None:
    task = HumanEval()
    problem = next(p for p in load_dataset(task, DATA) if p.facts["_id"] == "HumanEval/32")
    whole = "def find_zero(xs):\n    return poly(xs, 0)\n"
    assert task.program(problem, "    return 1\n") == problem.facts["prompt"] + "    return 1\n"
    assert task.program(problem, whole).endswith("\n\n" + whole)
    bare = replace(problem, facts={**problem.facts, "prompt": "def find_zero(xs):\n"})
    names: dict[str, Any] = {"poly": lambda xs, at: xs[at]}
    exec(task.program(bare, whole), names)
    assert names["find_zero"]([7]) == 7, "a prompt without a docstring has no body of its own"
    assert task.extract(f"First:\n```\nx = 1\n```\nthen\n```python\n{whole}```\n") == whole
    assert task.extract(whole) == whole


def test_a_program_that_never_ends_is_wrong_and_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox's limit is above the grader's own: it still has the time to say so."""
    monkeypatch.setenv("AHA_SANDBOX", "{seconds: 6}")
    with open_dataset("humaneval") as task:
        ready(task)
        problem = load_dataset(task, DATA)[0]
    grader = Grader(RubricConfig(), seconds_per_item=5)
    try:
        programs = (problem.facts["prompt"] + body for body in (problem.answer, "    while True:\n        pass\n"))
        completions = [f"<think>so</think>\n<answer>```python\n{program}\n```</answer>" for program in programs]
        results = grader.grade([(problem, completion, False) for completion in completions])
    finally:
        grader.close()
    assert [result and result.parts["accuracy"] for result in results] == [1.0, 0.0]


def test_code_is_not_graded_without_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[str]:
        raise GradingError("not here")

    for name in list(backends.BACKENDS):
        monkeypatch.setitem(backends.BACKENDS, name, broken)
    task = HumanEval()
    problem = load_dataset(task, DATA)[0]
    with pytest.raises(GradingError, match="install bubblewrap"):
        task.verify(problem, task.gold(problem))


def test_an_evaluation_refuses_what_cannot_be_graded(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[str]:
        raise GradingError("not here")

    for name in list(backends.BACKENDS):
        monkeypatch.setitem(backends.BACKENDS, name, broken)
    monkeypatch.setattr(datasets, "_judges", {})
    problem = load_dataset(HumanEval(), DATA)[0]
    with pytest.raises(CannotGradeError, match="install bubblewrap"):
        evaluate(NotAsked(), [problem], SamplingParams(), 0)  # type: ignore[arg-type]
    with pytest.raises(CannotGradeError):
        judge_of("humaneval")


class NotAsked:
    """Neither a model nor a tokenizer is needed to see that nothing can be graded."""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", SandboxConfig()),
        ("http://127.0.0.1:9", SandboxConfig(url="http://127.0.0.1:9")),
        ("{seconds: 9, memory_mib: 1024}", SandboxConfig(seconds=9, memory_mib=1024)),
    ],
)
def test_the_sandbox_is_named_by_a_variable(
    said: str, expected: SandboxConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AHA_SANDBOX", said)
    assert default_sandbox() == expected
    task = make_dataset("humaneval")
    assert isinstance(task, HumanEval) and task.config == expected


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for said in ("fast", "{speed: 9}", "[", "{seconds: -1}"):
        monkeypatch.setenv("AHA_SANDBOX", said)
        with pytest.raises(ConfigError, match=r"AHA_SANDBOX \(--sandbox\)"):
            default_sandbox()


def test_a_remote_sandbox_that_does_not_answer_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AHA_SANDBOX", "http://127.0.0.1:9")
    with pytest.raises(CannotGradeError, match="gave no result"), open_dataset("humaneval") as task:
        task.prepare()


def test_a_data_file_may_be_named_directly_and_be_gzipped(tmp_path: Path) -> None:
    text = (DATA / "gsm8k/test.jsonl").read_text(encoding="utf-8")
    with gzip.open(tmp_path / "mine.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    assert len(load_dataset(Gsm8k(), tmp_path / "mine.jsonl.gz")) == 20


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("gsm8k", ['{"question": "a", "answer": "#### 1"}', "{"], "line 2: not JSON"),
        ("gsm8k", ["[1]"], "line 1: must be a JSON object"),
        ("gsm8k", ['{"question": "a", "answer": "#### many"}'], "line 1: answer: 'many' is not a number"),
        ("gsm8k", ['{"answer": "1"}'], "line 1: no column 'question'; it has 'answer'"),
        ("gsm8k", ['{"question": "", "answer": "1"}'], "'question' must be a text"),
        ("gsm8k", [""], "holds no problems"),
        ("math", ['{"problem": "a", "solution": "b"}'], "neither an 'answer' nor a"),
        ("choice", ['{"question": "a", "choices": ["b"]}'], "2 to 26"),
        ("choice", ['{"question": "a", "choices": ["b", "c"], "answer": "d"}'], "must be a choice's letter"),
        ("choice", ['{"question": "a", "choices": ["b", "b"], "answer": "b"}'], "must be a choice's letter"),
        ("humaneval", ['{"task_id": "a", "prompt": "b"}'], "no column 'entry_point'"),
    ],
)
def test_bad_files_are_named_by_line(tmp_path: Path, name: str, lines: list[str], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    with open_dataset(name) as task, pytest.raises(ConfigError, match=message.replace("(", r"\(")) as error:
        load_dataset(task, path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["gsm8k", "math", "rows"])
def test_answers_may_be_numbers(tmp_path: Path, name: str) -> None:
    rows = [{"question": "a", "problem": "a", "answer": 42}, {"question": "b", "problem": "b", "answer": 3.5}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with open_dataset(name) as task:
        ready(task)
        problems = load_dataset(task, tmp_path / "rows.jsonl")
        assert [problem.answer for problem in problems] == ["42", "3.5"]
        assert all(task.verify(problem, task.gold(problem)) for problem in problems)
        assert task.solution(problems[0]) is None, "a number alone is no worked solution"


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("May 5", "may  5", "June 5"),
        ("Yes, 3 of them", "yes, 3 of them.", "No, 3 of them"),
        ("42", "The answer is 42 apples", "43"),
        (r"\frac{1}{2}", "0.5", "2"),
        ("5元", "5元", "6元"),
    ],
)
def test_a_gold_answer_with_words_is_a_text(gold: str, right: str, wrong: str) -> None:
    task = OwnRows()
    problem = task.from_answer(gold)
    assert task.verify(problem, right) and not task.verify(problem, wrong)
    assert task.canonical(problem, right) != task.canonical(problem, wrong)


def test_rows_have_levels_as_their_format_writes_them_and_golds_that_say_something(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,answer,level\na,1,3\nb,2,9\nc,3,\n")
    assert [problem.level for problem in load_dataset(OwnRows(), path)] == [3, 1, 1]
    path.write_text("question,answer\na,*\n")
    with pytest.raises(ConfigError, match="has nothing that could be compared"):
        load_dataset(OwnRows(), path)


def test_columns_that_json_has_no_form_for(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    rows = [{"question": str(number), "made": {"on": [datetime(2025, 1, number)]}} for number in (1, 2)]
    path = tmp_path / "rows.parquet"
    pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(rows), path)
    problems = load_dataset(OwnRows(), path)
    assert problems[1].facts["_columns"]["made"] == {"on": ["2025-01-02T00:00:00"]}
    assert write_problems(tmp_path / "out.jsonl", problems) == 2
    rows = [{"question": "a", "images": [{"bytes": b"x"}]}]
    pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(rows), path)
    with pytest.raises(ConfigError, match=r"rows\.parquet, row 1: column 'images' holds bytes, .*store it as text"):
        load_dataset(OwnRows(), path)


def test_missing_data_and_names_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AHA_DATA", raising=False)
    with pytest.raises(ConfigError, match="--data or AHA_DATA"):
        load_dataset(Gsm8k(), None)
    with pytest.raises(ConfigError, match="no file"):
        load_dataset(Gsm8k(), tmp_path)
    (tmp_path / "broken.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(ConfigError, match="cannot read"):
        load_dataset(Gsm8k(), tmp_path / "broken.jsonl.gz")
    with pytest.raises(UnknownNameError, match="did you mean 'gsm8k'"), open_dataset("gms8k"):
        pass


def test_the_same_question_is_the_same_problem() -> None:
    first, second = (
        Problem("gsm8k", "math", 1, "en", "q", "1", {"question": "q", "_id": f"gsm8k/{number}"}) for number in (1, 2)
    )
    assert first.key == second.key
