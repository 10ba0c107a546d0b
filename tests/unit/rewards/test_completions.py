"""Completions from a file: what counts as the answer, what a row must have, and `aha grade` itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aha.errors import ConfigError, GradingError
from aha.recipes.show_task import show_task
from aha.rewards.completions import answer_of, grade_file
from aha.tasks.datasets import open_dataset
from aha.tasks.families import FAMILIES, held_out_suite
from aha.tasks.gsm8k import Gsm8k
from aha.text.prompt_style import PromptStyle

from ...foreign import write_tokenizer

DATA = Path(__file__).parents[2] / "data"
STRICT = "<think>I count.</think>\n<answer>{}</answer>"


@pytest.mark.parametrize(
    ("completion", "answer", "well_formed"),
    [
        (STRICT.format("18"), "18", True),
        ("The answer is 18.", "The answer is 18.", False),
        ("I count.</think>\n18", "\n18", False),
        ("<think>x</think>So \\boxed{18}", "So \\boxed{18}", False),
        ("x</think><answer>18</answer> bye", "18", False),
        ("<think>#### 18", None, False),
        ("<answer>17</answer><answer>18</answer>", None, False),
        ("<answer>18", None, False),
        ("</answer>18<answer>1</answer>", None, False),
        ("<think>#### 18</think>", "", False),
    ],
)
def test_what_answers(completion: str, answer: str | None, well_formed: bool) -> None:
    assert answer_of(completion) == (answer, well_formed)
    assert answer_of(completion, strict=True) == ((answer, True) if well_formed else (None, False))
    assert answer_of(completion, truncated=True) == (None, False)


def graded(
    tmp_path: Path, name: str, rows: list[object], **options: bool
) -> list[tuple[float | None, dict[str, float]]]:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    if name in FAMILIES:
        return [(r.reward, dict(r.rewards)) for r in grade_file(path, name, None, None, **options)]
    with open_dataset(name) as task:
        return [(r.reward, dict(r.rewards)) for r in grade_file(path, name, task, DATA, **options)]


def test_rows_name_a_problem_or_a_gold_answer(tmp_path: Path) -> None:
    rows: list[object] = [
        {"completion": STRICT.format(18), "problem": "gsm8k/0"},
        {"completion": "It is 18", "answer": "so\n#### 18"},
        {"completion": STRICT.format(17), "answer": "18"},
        {"completion": "<think>18", "answer": "18"},
        {"completion": STRICT.format(18), "answer": "18", "finish_reason": "length"},
        {"completion": STRICT.format(18), "answer": 18},
    ]
    parts = [(2.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (2.0, 1.0, 1.0)]
    assert graded(tmp_path, "gsm8k", rows) == [(r, {"accuracy": a, "format": f}) for r, a, f in parts]
    assert [reward for reward, _ in graded(tmp_path, "gsm8k", rows, strict=True)] == [2.0, 0.0, 1.0, 0.0, 0.0, 2.0]


def test_choices_and_families(tmp_path: Path) -> None:
    rows: list[object] = [{"completion": "Carbon dioxide", "problem": "choice/0"}, {"completion": "C", "answer": "B"}]
    assert [reward for reward, _ in graded(tmp_path, "choice", rows)] == [1.0, 0.0]
    (problem,) = held_out_suite(["rules"], (2,), 1, seed=0)
    fields = {name: getattr(problem, name) for name in problem.__slots__}
    rows = [{"completion": STRICT.format(text), "problem": fields} for text in (problem.answer, "1")]
    assert [reward for reward, _ in graded(tmp_path, "rules", rows)] == [2.0, 1.0]


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("gsm8k", {"answer": "1"}, "line 2: 'completion' must be a text; the row has 'answer'"),
        ("gsm8k", {}, "line 2: 'completion' must be a text; the row has nothing"),
        ("gsm8k", {"completion": 3, "answer": "1"}, "line 2: 'completion' must be a text$"),
        ("gsm8k", {"completion": "1"}, "line 2: neither 'problem' nor 'answer'"),
        ("gsm8k", {"completion": "1", "answer": [3]}, "^[^,]*, line 2: 'answer' must be a text.*or a number"),
        ("gsm8k", {"completion": "1", "answer": "many"}, "line 2: answer: 'many' is not a number"),
        ("gsm8k", {"completion": "1", "problem": "gsm8k/99"}, "no problem 'gsm8k/99' .did you mean"),
        ("gsm8k", {"completion": "1", "problem": {"family": "gsm8k"}}, "'problem' is not a problem"),
        ("gsm8k", "nonsense", "line 2: not JSON"),
        ("humaneval", {"completion": "1", "answer": "1"}, "name it by its id"),
        ("rules", {"completion": "1", "answer": "1"}, "must hold it all"),
    ],
)
def test_bad_rows_are_named_by_line(tmp_path: Path, name: str, row: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        graded(tmp_path, name, ["", row])


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"'.*rows\.jsonl' has no rows: it must hold at least one"):
        graded(tmp_path, "gsm8k", [text])


def aha(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aha", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"completion": STRICT.format(18), "problem": "gsm8k/0"}))
    done = aha("grade", "--task", "gsm8k", str(path), "--data", str(DATA))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "row": 1, "problem": "gsm8k/0", "reward": 2.0, "rewards": {"accuracy": 1.0, "format": 1.0}, "why": "",
    }  # fmt: skip
    assert done.stderr.strip() == "1 rows, 0 without a verdict, accuracy 100.0%, format 100.0%, mean reward 2.0000"
    out = tmp_path / "scores.jsonl"
    again = aha("grade", "--task", "gsm8k", str(path), "--data", str(DATA), "--out", str(out))
    assert (out.read_text(), again.stdout) == (done.stdout, done.stderr)
    wrong = aha("grade", "--task", "gsm8", str(path))
    assert (wrong.returncode, "did you mean 'gsm8k'" in wrong.stderr) == (1, True)


def test_a_task_is_shown_with_its_scores() -> None:
    done = aha("task", "gsm8k", "--data", str(DATA), "-n", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the gold answer scores 1") == 3
    assert "scores 1" not in done.stdout.replace("the gold answer scores 1", "")
    assert "wrong answers that scored 1 above: 0" in done.stdout
    family = aha("task", "rules", "--level", "2")
    assert family.returncode == 0 and "level 2" in family.stdout, family.stderr
    assert family.stdout.count("the gold answer scores 1") == 2 and "User: " in family.stdout


def test_a_task_is_shown_as_a_model_sees_it_with_a_reward_of_ones_own(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "model", ["What is 2+2?"] * 20)
    (tmp_path / "mine.py").write_text("def short(prompt, completion, columns): return float(len(completion) < 3)\n")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "What is 2 + 2?", "answer": "4"}))
    arguments = ("task", "rows", "--data", str(tmp_path / "rows.jsonl"), "--model", str(tmp_path / "model"))
    done = aha(*arguments, "--style", "chat", "--reward", f"{tmp_path / 'mine.py'}:short")
    assert done.returncode == 0, done.stderr
    assert "| <|im_start|>assistant" in done.stdout and "| <think>" in done.stdout
    assert "the gold answer scores 1, short: 1" in done.stdout
    unknown = aha("task", "rules", "--style", "chat")
    assert unknown.returncode == 1 and "--model DIR" in unknown.stderr


def test_a_task_that_pays_wrong_answers_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(Gsm8k, "verify", lambda self, problem, answer: True)
    with pytest.raises(GradingError, match="wrong answers score 1"):
        show_task("gsm8k", None, 1, "en", 0, DATA, None, PromptStyle.named("zero"), [])
    assert "scores 1" in capsys.readouterr().out
