"""The law of equivalent answers: one canonical text, one verdict; and no look at the right answer."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aha.tasks.families import FAMILIES, GENERAL, get_family
from aha.types import Problem

NAMES = [*FAMILIES, *GENERAL]
GOLD = ("target",)
"""Facts that give the right answer away, or let it be checked, and that the family's answers are not read with."""
noise = st.one_of(st.text(max_size=12), st.text("0123456789+-*/() :;.addsubmulneg", max_size=24))


def drawn(name: str, seed: int) -> Problem:
    family, rng = get_family(name), random.Random(seed)
    return family.sample(rng, rng.choice(family.levels), rng.choice(("en", "zh")))


def ways_to_say(problem: Problem, answer: str) -> list[str]:
    """Texts that may or may not say the same."""
    swapped = answer.translate(str.maketrans("+*", "*+"))
    return [
        answer, f"  {answer}\n", f"({answer})", f"0{answer}", f"{answer};add 0", f"{answer};sub 0;neg;neg",
        answer.replace(":00", ":30"), answer.replace(":", " :"), answer.removesuffix(":00"), swapped,
        f"{answer}+0", answer.replace(";", " ; "), answer[1:], answer[::-1], answer + " " * 90, "",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), texts=st.lists(noise, max_size=6))
def test_equivalent_answers_have_one_verdict(name: str, seed: int, texts: list[str]) -> None:
    problem, family = drawn(name, seed), get_family(name)
    rng = random.Random(seed)
    solved = [family.solve(problem, rng, style, problem.language).answer for style in ("guess", "given_up", "long")]
    said = [way for answer in (problem.answer, *solved) for way in ways_to_say(problem, answer)] + texts
    verdicts: dict[str, bool] = {}
    for text in said:
        canonical, right = family.canonical(problem, text), family.verify(problem, text)
        if canonical is None:
            assert not right, text
        else:
            assert verdicts.setdefault(canonical, right) == right, (text, canonical)
    assert family.canonical(problem, problem.answer) is not None


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), text=noise)
def test_the_right_answer_is_not_looked_at(name: str, seed: int, text: str) -> None:
    problem, family = drawn(name, seed), get_family(name)
    blind = replace(problem, answer="", facts={k: v for k, v in problem.facts.items() if k not in GOLD})
    for said in (text, *ways_to_say(problem, problem.answer)):
        assert family.canonical(blind, said) == family.canonical(problem, said)


@pytest.mark.parametrize("name", list(FAMILIES))
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_all_right_answers_are_equivalent(name: str, seed: int) -> None:
    problem, family = drawn(name, seed), get_family(name)
    rng = random.Random(seed)
    answers = [family.solve(problem, rng, "long", "en", second_pass=rate, slip=rate).answer for rate in (0.0, 0.5, 1.0)]
    assert len({family.canonical(problem, answer) for answer in (problem.answer, *answers)}) == 1


def test_what_is_the_same_and_what_is_not() -> None:
    rng = random.Random(0)
    for name in ("sums", "program", "pulses", "cups"):
        chain = FAMILIES[name].sample(rng, 1, "en")
        said = [FAMILIES[name].canonical(chain, text) for text in (" 007 ", "seven", "7.0", "-7")]
        assert said == ["7", None, None, None]
    for name in ("boxes", "rules"):
        search = FAMILIES[name].sample(rng, 1, "en")
        said = [FAMILIES[name].canonical(search, text) for text in (" b\n", "B", "ab", "2", "")]
        assert said == ["b", None, None, None, None]
    assert GENERAL["facts"].canonical(chain, "  Redton. \n") == "Redton."
    assert GENERAL["facts"].canonical(chain, " \n") is None
