"""Numbers, boxes and letters in text: one answer or none, and nothing for nonsense."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.grading.math_answers import boxed, letter, number, number_answer, same_number, stated
from aha.workers import KillableWorker

NONSENSE = [
    "", " ", "?", "nan", "inf", "-inf", "None", "True", "yes", "####", r"\boxed{}", r"\boxed{5", "answer is",
    "1e999999", "9**9**9**9", "__import__('os').system('true')", "(" * 2000, "{" * 2000, "9" * 2000, "-" * 2000,
    r"\frac{1}{0}", "1/0", "٣", "５", "1,2,3", "0 or 1", "\x00", "\ud800", "<answer>", "= = =",
    r"\boxed{\boxed{\boxed{}}}", r"\infty",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("18 eggs", 18),
        ("$1,080.50", Fraction(2161, 2)),
        (r"\$18", 18),
        ("75%", 75),
        (r"75\%", 75),
        ("3/4", Fraction(3, 4)),
        ("1 1/2", Fraction(3, 2)),
        (r"$\dfrac{3}{4}$", Fraction(3, 4)),
        (r"\frac34", Fraction(3, 4)),
        (r"\frac1{12}", Fraction(1, 12)),
        (r"\frac{1}2", Fraction(1, 2)),
        (r"18\text{ dollars}", 18),
        ("-5", -5),
        ("−5", -5),
        (".5", Fraction(1, 2)),
        ("3 + 4 = 7", 7),
        ("x = 18", 18),
        ("**18**", 18),
        ("**Answer:** 18", 18),
        ("**The answer is 18**", 18),
        (r"The answer is \(18\).", 18),
        ("She pays **$18** in all.", 18),
        ("She pays 18 in all.", 18),
        ("18.00", 18),
        ("18 (eggs)", 18),
        ("18 miles/hour", 18),
        ("是18个", 18),
        ("1{,}080", 1080),
    ],
)
def test_numbers_are_read_exactly(text: str, value: Fraction | int) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "17 or 18",
        "17, 18",
        "18k",
        "2 dozen",
        "3 million",
        "1e5",
        "5^2",
        "5*x",
        "2**3",
        "a*18*b",
        "x5",
        "5/x",
        r"\sqrt{4}",
        r"\frac123",
        r"\frac12\frac12",
        "5π",
        "1,08",
        "1.2.3",
        "2-3",
        "12:30",
        "9" * 41,
        *NONSENSE,
    ],
)
def test_what_is_not_one_number_is_none(text: str) -> None:
    assert number(text) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("thus\n#### 18", "18"),
        ("#### 17\n#### 18\nbye", "18"),
        (r"so \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{5} and again \boxed{ 5 }", "5"),
        (r"\boxed{5} or \boxed{6}", None),
        ("The answer is 18.", "18."),
        ("Answer: 17\nFinal answer: 18", "18"),
        ("答案是18", "18"),
        ("18", None),
    ],
)
def test_what_is_stated(text: str, answer: str | None) -> None:
    assert stated(text) == answer


def test_boxes_balance() -> None:
    assert boxed(r"\boxed{a{b}c} \fbox{d} \boxed{e") == ["a{b}c", "d"]


def test_the_last_line_counts_where_nothing_is_stated() -> None:
    assert number_answer("She has 3 and 4.\nSo 7 in all.") == 7
    assert number_answer(r"\boxed{3} \boxed{4}" + "\n7") is None
    assert same_number("7.0", "3 + 4 = 7\n#### 7")
    assert not same_number("7.01", "#### 7")


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B) a dog", "B"),
        (r"\boxed{\text{(B)}}", "B"),
        ("The answer is (C) 12", "C"),
        ("Answer: **D**", "D"),
        ("I think B", "B"),
        ("a dog", "B"),
        ("A or B", None),
        ("A, B", None),
        ("(A) (B)", None),
        (r"\boxed{A}\boxed{B}", None),
        ("A dog is B", "B"),
        ("E", None),
        ("b", None),
        ("AB", None),
        *[(text, None) for text in NONSENSE],
    ],
)
def test_letters(text: str, chosen: str | None) -> None:
    assert letter(text, {"A": "cat", "B": "a dog", "C": "12", "D": "x"}) == chosen


@given(st.text(max_size=300))
def test_any_text_is_answered(text: str) -> None:
    for read in (number_answer, letter, stated, boxed):
        read(text)


def test_long_texts_are_answered_soon() -> None:
    """Each of these would take minutes if reading were quadratic; the limit of the test run would end it."""
    for piece in (r"\boxed{", "answer is ", "#### ", "1 ", "(A", "= ", "\\text{", "$", "{", "1,"):
        text = piece * 200_000
        for read in (number_answer, letter, stated, boxed):
            read(text)


LATEX = [
    (r"\frac{1}{2}", "0.5", True),
    (r"3\sqrt{2}", r"\sqrt{18}", True),
    ("(x-1)(x+1)", "x^2-1", True),
    (r"\text{Tuesday}", "Tuesday", True),
    ("5", "6", False),
    ("5", "5, 6", False),
    ("5", r"5 \text{ or } 6", False),
    ("5", r"\{5, 6\}", False),
    ("5", "[0, 10]", False),
    ("5", "5}{6", False),
    ("5", r"6}\boxed{5", False),
    ("5", "x", False),
    *[("5", text, False) for text in NONSENSE if text not in ("９",)],
]


def test_latex_by_math_verify_and_nothing_for_nonsense() -> None:
    pytest.importorskip("math_verify")
    with KillableWorker("aha.grading.latex_answers:same_latex", seconds_per_item=6.0) as worker:
        items = [[gold, text.encode(errors="replace").decode()] for gold, text, _ in LATEX]
        results = worker.grade(items)
    for (gold, text, expected), result in zip(LATEX, results, strict=True):
        assert (result is True) == expected, (gold, text, result)
    assert sum(result is None for result in results) <= 3
