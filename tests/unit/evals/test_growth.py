"""The rules of what reinforcement learning will do: each on both sides of its bound, and the sentences."""

import random

import pytest

from aha.evals.growth import (
    FEWEST,
    NONE,
    Answer,
    Evidence,
    Kind,
    Share,
    Verdict,
    answer_of,
    in_short,
    judge,
    kind_of,
    overall,
)
from aha.tasks.families import FAMILIES
from aha.text.thinking import parse
from aha.types import Problem

SUM = Problem("sums", "math", 2, "en", "?", "0", {"items": [[5], [3]], "start": 2, "first": 0, "last": 1})
"""5 + 3 from 2 on."""


def some(kind: Kind, right: int, wrong: int, level: int = 2) -> list[Answer]:
    return [Answer("sums", level, kind, number < right, 0.1) for number in range(right + wrong)]


GOOD = some("short", 10, 90) + some("long", 19, 1) + some("malformed", 0, 80)


@pytest.mark.parametrize(
    ("thinking", "kind"),
    [
        ("a5+2=7\nb3+7=0", "long"),
        ("a5+2=7", "long"),
        ("a5+2=8\nWait\na5+2=7\n7 differ", "long"),
        ("Guess 3", "short"),
        ("5 same", "short"),
        ("a5+2=7\nGuess 3", "given_up"),
        ("a5+2=7\n猜3", "given_up"),
    ],
)
def test_kinds_of_answers(thinking: str, kind: Kind) -> None:
    assert kind_of(SUM, parse(f"<think>\n{thinking}\n</think>\n<answer>0</answer>")) == kind
    assert kind_of(SUM, parse(f"<think>\n{thinking}\n</think>\n0")) == "malformed"
    assert kind_of(SUM, parse(f"<think>\n{thinking}\n</think>\n<answer>0</answer>", truncated=True)) == "malformed"


@pytest.mark.parametrize(("family", "chance"), [("sums", 0.1), ("program", 0.1), ("pulses", 0.2), ("cups", 0.2),
                                                ("boxes", 0.25), ("rules", 0.25)])  # fmt: skip
def test_chance_is_the_familys(family: str, chance: float) -> None:
    problem = FAMILIES[family].sample(random.Random(0), 3, "en")
    answer = answer_of(problem, parse("<think>\nGuess 3\n</think>\n<answer>3</answer>"), False)
    assert answer == Answer(family, 3, "short", False, chance)


def test_thinking_grows_where_every_rule_is_kept() -> None:
    fine = Evidence(Share(1, 10), Share(1, 10), Share(1, 20), Share(9, 10), Share(10, 10))
    assert judge(GOOD, [2], fine) == Verdict("grows", (), more_passes_pay=True)
    assert judge(GOOD, [2]) == Verdict("grows", ()), "what was not measured is left out"


def test_short_answers_that_can_be_sharpened() -> None:
    """The bounds are 5 points above a guess, or 40 below the long ones, of which 85% are right."""
    long = some("long", 17, 3)
    at_the_bound = judge(some("short", 15, 85) + long, [2])
    assert at_the_bound.outcome == "grows"
    above = judge(some("short", 46, 54) + long, [2])
    assert above.outcome == "shrinks"
    (reason,) = above.reasons
    assert reason.startswith("short answers are right 46% of the time (a guess 10%, long ones 85%): RL will sharpen")
    assert judge(some("short", 44, 56) + long, [2]).outcome == "grows", "over 40 points below the long ones"


def test_short_answers_to_the_easiest_questions_may_be_right() -> None:
    easy = some("short", 100, 0, level=1)
    assert judge([*easy, *GOOD], [1, 2]).outcome == "grows"
    assert judge([*easy, *some("long", 20, 0, level=1)], [1]).outcome == "shrinks", "where there is only one level"


def test_long_answers_must_be_right_where_the_corpus_has_been() -> None:
    assert judge(some("short", 1, 9) + some("long", 16, 4), [2]).outcome == "grows"
    wrong = judge(some("short", 1, 9) + some("long", 15, 5), [2])
    assert wrong.outcome == "errs"
    assert wrong.reasons[0].startswith("long answers are right in 75% only at the corpus's levels (15 of 20; 80%")
    above = some("long", 0, 20, level=6)
    assert judge([*GOOD, *above], [2]).outcome == "grows", "beyond the corpus they may fail"


def test_long_answers_must_not_be_too_rare() -> None:
    assert judge(some("short", 49, 441) + some("long", 10, 0), [2]).outcome == "grows"
    rare = judge(some("short", 50, 450) + some("long", 10, 0), [2])
    assert rare.outcome == "stays"
    assert rare.reasons[0].startswith("long answers are 2.0% of all (2% is needed)")
    assert judge(some("short", 10, 90), [2]).reasons[0].startswith("long answers are 0.0% of all")


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (Evidence(look_ups=Share(90, 100), steps=Share(90, 100)), ""),
        (Evidence(look_ups=Share(71, 100), steps=Share(90, 100)), "look-ups are right in 71% only"),
        (Evidence(look_ups=Share(90, 100), steps=Share(80, 100)), "single steps are right in 80% only"),
    ],
)
def test_steps_must_be_there(evidence: Evidence, words: str) -> None:
    verdict = judge(GOOD, [2], evidence)
    assert verdict.outcome == ("errs" if words else "grows")
    assert [reason.startswith(words) for reason in verdict.reasons] == ([True] if words else [])
    assert verdict.more_passes_pay is None


@pytest.mark.parametrize(
    ("evidence", "pays", "words"),
    [
        (Evidence(Share(2, 20), Share(4, 21)), True, ""),
        (Evidence(Share(2, 20), Share(4, 20)), False, "its verdicts reject 10% of what is right and accept 20%"),
        (Evidence(Share(9, 9), Share(9, 9)), None, ""),
        (Evidence(right_to_wrong=Share(2, 40)), True, ""),
        (Evidence(right_to_wrong=Share(1, 10)), True, ""),
        (
            Evidence(right_to_wrong=Share(2, 20)),
            False,
            'a forced "Wait" makes 10% of the right long answers wrong',
        ),
    ],
)
def test_more_passes_pay_where_verdicts_and_continuations_hold(
    evidence: Evidence, pays: bool | None, words: str
) -> None:
    verdict = judge(GOOD, [2], evidence)
    assert (verdict.outcome, verdict.reasons) == ("grows", ()), "thinking can grow without"
    assert verdict.more_passes_pay is pays
    assert [reason.startswith(words) for reason in verdict.reasons_against_more] == ([True] if words else [])


def test_the_worst_reason_decides() -> None:
    short, long = some("short", 80, 120), some("long", 2, 8)
    assert judge(short + long, [2]).outcome == "shrinks"
    assert len(judge(short + long, [2]).reasons) == 2
    assert judge(some("short", 50, 950) + long, [2]).outcome == "errs"


def test_too_few_long_answers_say_nothing() -> None:
    few = judge(some("short", 5, 45) + some("long", 0, FEWEST - 1), [2])
    assert few.outcome == "unknown"
    assert few.reasons[0].startswith("long answers at the corpus's levels: 9, too few")
    assert NONE.value is None and Share(9, 9).known is None and Share(5, 10).known == 0.5


def test_all_families_together() -> None:
    verdicts = {
        "sums": Verdict("grows", (), True),
        "cups": Verdict("shrinks", ("a",), False, ("b",)),
        "boxes": Verdict("grows", (), False, ("b",)),
    }
    assert overall(verdicts) == (
        "In RL thinking will grow in sums, boxes; it will shrink in cups. "
        'After RL more passes, as a forced "Wait" makes them, will pay in sums, they will not pay in cups, boxes.'
    )
    assert overall({"rules": Verdict("stays", ("b",))}) == "In RL thinking will not grow in rules."


def test_a_first_look_in_one_sentence() -> None:
    assert in_short(GOOD[:9]) == ""
    assert in_short(GOOD) == (
        "10% of 200 answers are long (95% right), 50% short (10% right; a guess 10%): thinking will grow"
    )
    assert in_short(some("short", 31, 19)).startswith(
        "0% of 50 answers are long (none), 100% short (62% right; a guess 10%): thinking will shrink, "
        "since short answers are right 62% of the time"
    )
    assert "thinking may grow (too few long answers to say)" in in_short(some("short", 2, 18) + some("long", 1, 0))
