"""Which written steps are true: equations by arithmetic, verdicts by what the problem asks for."""

import random

import pytest

from aha.tasks.families import get_family
from aha.tasks.steps import MAX_STEPS, abandoned, read_steps
from aha.types import Problem


def problem(family: str, answer: str, **facts: object) -> Problem:
    return Problem(family, get_family(family).domain, 1, "en", "?", answer, facts)


RIDDLE = problem("riddle", "91", step=7, first=84, last=98, digits=10)
COUNTDOWN = problem("countdown", "(9-5)-3", numbers=[3, 5, 9], target=1)
PROGRAM = problem("program", "add 3", _examples=[[9, 12], [24, 27]], _kind="one", _program=[["add", 3]])
ARITHMETIC = problem("arithmetic", "16", _terms=[3, 20, 7], _ops="+-")


@pytest.mark.parametrize(
    ("asked", "thinking", "true", "wrong_rejected", "rejected"),
    [
        (ARITHMETIC, "3+20=23 check 23-20=3 ok\n23-7=16", [1, 1, 1, 1], 0, 0),
        (ARITHMETIC, "3+20=24 check 24-20=4 Wait, no.\n3+20=23 check 23-20=3 ok", [0, 1, 1, 1, 1, 1], 1, 1),
        (ARITHMETIC, "3+20=23检查23-20=3等等，不对。\n3+20=23", [1, 1, 0, 1], 0, 1),
        (ARITHMETIC, "3+20=24 check 24-20=3 ok", [0, 0, 0], 0, 0),
        (RIDDLE, "84:8+4=12 no\n91:9+1=10 yes", [1, 1, 1, 1], 1, 1),
        (RIDDLE, "84:8+4=10 yes", [0, 0], 0, 0),
        (RIDDLE, "91:9+1=10不行\n98:9+8=17成", [1, 0, 1, 0], 0, 1),
        (RIDDLE, "85:8+5=13 no\n119:1+1+9=11 no\n91: yes", [1, 1, 1, 1, 1], 2, 2),
        (COUNTDOWN, "1+3=4 9-5=4 no\n1+3=4 9-5=4 yes", [1, 1, 0, 1, 1, 1], 0, 1),
        (COUNTDOWN, "9-1=8 5+3=8 no\n9+1=10 5+3=8 no\n", [1, 1, 0, 1, 1, 1], 0, 1),
        (COUNTDOWN, "1+3=4 9+5=14 9-5=4 yes", [1, 1, 1, 1], 0, 0),
        (COUNTDOWN, "1+3=4 no\n", [1], 0, 0),
        (PROGRAM, "Try mul: 12/9=1 check 24*1=24 no\nTry add: 12-9=3 check 24+3=27 yes", [0, 1, 1, 1, 1, 1], 1, 1),
        (PROGRAM, "Try add: 12-9=3 check 24+3=27 no\n", [1, 1, 0], 0, 0),
        (ARITHMETIC, "it is known, and no wonder: yes ok", [], 0, 0),
    ],
)
def test_steps_are_read_and_judged(
    asked: Problem, thinking: str, true: list[int], wrong_rejected: int, rejected: int
) -> None:
    steps = get_family(asked.family).check_steps(asked, thinking)
    assert [step.true for step in steps] == [bool(one) for one in true]
    assert abandoned(steps) == (wrong_rejected, rejected)


@pytest.mark.parametrize("name", ["riddle", "countdown", "program"])
def test_verdicts_of_the_worlds_own_searches_are_true_and_turned_round_they_are_not(name: str) -> None:
    family, rng = get_family(name), random.Random(3)
    judged = 0
    for number in range(60):
        asked = family.sample(rng, 1 if name == "program" else 1 + number % 5, "en")
        thinking = family.solve(asked, rng, "check", "en").thinking
        verdicts = [step for step in family.check_steps(asked, thinking) if step.text in ("yes", "no")]
        judged += len(verdicts)
        assert all(step.true for step in verdicts), (asked, thinking)
        turned = thinking.replace(" yes", " nay").replace(" no", " yes").replace(" nay", " no")
        assert not any(step.true for step in family.check_steps(asked, turned) if step.text in ("yes", "no"))
    assert judged > 60


def test_a_text_without_end_is_read_up_to_a_limit() -> None:
    assert len(read_steps("1+1=2 " * 1000)) == MAX_STEPS
