"""What a thinking says about itself: verdicts on attempts, and giving up."""

import pytest

from aha.rewards.reflection import gives_up, reflection
from aha.rewards.rubric import Grader, RubricConfig, grade
from aha.text.thinking import parse
from aha.types import Problem

FACTS = {"items": [(5,), (3,)], "start": 0, "first": 0, "last": 1}
PROBLEM = Problem("sums", "math", 2, "en", "Cards 5a 3b. Start with 0, add a to b. Last digit?", "8", FACTS)
RIGHT, WRONG = "a5+0=5\nb3+5=8\n", "a5+0=5\nb3+5=7\n"


def completion(thinking: str, answer: str = "8") -> str:
    return f"<think>\n{thinking}</think>\n<answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("thinking", "attempts"),
    [
        (RIGHT, (0, 0, 0, 0)),
        (f"{RIGHT}Wait\n{RIGHT}8 same\n", (1, 0, 0, 0)),
        (f"{RIGHT}Wait\n{WRONG}7 differ\n", (1, 1, 0, 0)),
        (f"{WRONG}Wait\n{WRONG}7 same\n", (0, 0, 1, 1)),
        (f"{WRONG}Wait\n{RIGHT}8 differ\n", (0, 0, 1, 0)),
        (f"{WRONG}Wait\n{RIGHT}8 differ\nWait\n{RIGHT}8 same\n", (1, 0, 1, 0)),
    ],
)
def test_attempts_and_what_became_of_them(thinking: str, attempts: tuple[int, int, int, int]) -> None:
    names = ("right_attempts", "right_rejected", "wrong_attempts", "wrong_accepted")
    found = reflection(PROBLEM, parse(completion(thinking)))
    assert tuple(found[name] for name in names) == attempts and found["gives_up"] == 0


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [("a5+0=5\nGuess 4\n\n", True), ("a5+0=5\n猜4", True), ("Guess 4", False), ("\nGuess 4\n", False),
     ("Guess 4\na5+0=5", False), ("a5+0=5\nb3+5=8", False), ("", False)],
)  # fmt: skip
def test_giving_up_is_a_guess_after_work(thinking: str, expected: bool) -> None:
    assert gives_up(thinking) == expected


def test_it_comes_with_the_grade_and_earns_nothing() -> None:
    said = completion(f"{RIGHT}Wait\n{RIGHT}8 same\n")
    one, plain = grade(PROBLEM, said, False, RubricConfig()), grade(PROBLEM, completion(RIGHT), False, RubricConfig())
    assert one is not None and plain is not None and one.reward == plain.reward == 2.0
    assert one.reflection["right_attempts"] == 1 and plain.reflection["right_attempts"] == 0
    unformed = grade(PROBLEM, said + "!", False, RubricConfig())
    assert unformed is not None and unformed.reflection == {}
    grader = Grader(RubricConfig())
    try:
        assert grader.grade([(PROBLEM, said, False), (PROBLEM, said + "!", False)]) == [one, unformed]
    finally:
        grader.close()
