"""Which written steps are true: lines by the list and the step, verdicts by what the problem asks for."""

import random

import pytest

from aha.tasks.families import SEARCHES, get_family
from aha.tasks.steps import abandoned
from aha.types import Problem


def problem(family: str, answer: str, **facts: object) -> Problem:
    return Problem(family, get_family(family).domain, 1, "en", "?", answer, facts)


SUMS = problem("sums", "3", items=[[5], [3], [1]], start=4, first=0, last=2)
PROGRAM = problem("program", "1", items=[["+", 9], ["*", 3]], start=8, first=0, last=1)
CUPS = problem("cups", "3", items=[[1, 5], [3, 4]], start=4, first=1, last=1)
BOXES = problem("boxes", "b", items=[[4, 7], [7, 8]], target=5)
RULES = problem("rules", "b", items=[["+", 4], ["*", 7]], start=2, target=4)


@pytest.mark.parametrize(
    ("asked", "thinking", "true", "wrong_rejected", "rejected"),
    [
        (SUMS, "a5+4=9\nb3+9=2\nc1+2=3", [1, 1, 1], 0, 0),
        (SUMS, "a5=9\nb3=2\nc1=3", [1, 1, 1], 0, 0),
        (SUMS, "a5+4=8\nb4+8=2\nd1+2=3", [0, 0, 0], 0, 0),
        (SUMS, "c1+2=4\nWait\nc1+2=3\n3 differ\nWait\nc1+2=3\n3 same", [0, 1, 1, 1, 1], 1, 1),
        (SUMS, "c1+2=3\n等等\nc1+2=4\n4不同\n等等\nc1+2=4\n4一样", [1, 0, 0, 0, 0], 0, 1),
        (SUMS, "c1+2=3\nWait\nc1+2=3\n3 same", [1, 1, 1], 0, 0),
        (PROGRAM, "a+9 8=7\nb*3 7=1", [1, 1], 0, 0),
        (PROGRAM, "a*9 8=2\nb*3 7=2", [0, 0], 0, 0),
        (CUPS, "b34 4=3", [1], 0, 0),
        (CUPS, "b34 5=3\na15 4=4", [0, 1], 0, 0),
        (BOXES, "a4+7=1?5 no\nb7+8=5?5 yes", [1, 1, 1, 1], 1, 1),
        (BOXES, "a4+7=1 no\nb7+8=5 yes\nWait\nb8+7=5 yes", [1, 1, 1, 1, 1, 1], 1, 1),
        (BOXES, "a4+7=5?5 yes\nWait\na7+4=1?5 no\nb7+8=5?5对", [0, 0, 1, 1, 1, 1], 1, 1),
        (BOXES, "b7+8=5?6 no\nc1+2=3?5 no", [0, 0, 0, 1], 0, 1),
        (RULES, "a+4 2=6?4不对\nb*7 2=4?4对", [1, 1, 1, 1], 1, 1),
        (RULES, "a+4 3=7?4 no", [0, 1], 0, 0),
        (SUMS, "it is known, and no wonder: same, yes\nx\n=3\nWait", [], 0, 0),
    ],
)
def test_steps_are_read_and_judged(
    asked: Problem, thinking: str, true: list[int], wrong_rejected: int, rejected: int
) -> None:
    steps = get_family(asked.family).check_steps(asked, thinking)
    assert [step.true for step in steps] == [bool(one) for one in true]
    assert abandoned(steps) == (wrong_rejected, rejected)


@pytest.mark.parametrize("name", SEARCHES)
def test_verdicts_of_the_worlds_own_searches_are_true_and_turned_round_they_are_not(name: str) -> None:
    family, rng = get_family(name), random.Random(3)
    judged = 0
    for number in range(60):
        asked = family.sample(rng, 1 + number % 5, "en")
        thinking = family.solve(asked, rng, "long", "en").thinking
        verdicts = [step for step in family.check_steps(asked, thinking) if step.accepts is not None]
        judged += len(verdicts)
        assert all(step.true for step in verdicts), (asked, thinking)
        turned = thinking.replace(" yes", " nay").replace(" no", " yes").replace(" nay", " no")
        assert not any(step.true for step in family.check_steps(asked, turned) if step.accepts is not None)
    assert judged > 60
