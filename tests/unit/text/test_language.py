"""Two languages, told apart by their script."""

import pytest

from aha.tasks.datasets import open_dataset
from aha.text.language import language_of, words_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is 2+2?", "en"),
        ("2加2等于多少？", "zh"),
        ("小明有3个apple，吃了1个，还剩几个？", "zh"),
        ("Translate 你好 into English, please.", "en"),
        ("2+2", "en"),
        ("Is it so?", "en"),
        (r"求 \frac{\sqrt{x}}{\sqrt{y}} 的值", "zh"),
        ("已知 x+y=3, xy=2, 求 x^2+y^2", "zh"),
        ("", "en"),
    ],
)
def test_the_language_of_most_words(text: str, language: str) -> None:
    assert language_of(text) == language


def test_words() -> None:
    assert words_of("x1 = 你好, well-known!") == ["x", "你", "好", "well", "known"]


def test_rows_from_files_have_the_language_of_their_question() -> None:
    with open_dataset("rows") as task:
        rows = [{"question": question, "answer": "4"} for question in ("What is 2+2?", "2加2等于多少？")]
        assert [task.problem(row, "rows.jsonl", i).language for i, row in enumerate(rows)] == ["en", "zh"]
