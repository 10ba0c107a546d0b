"""The allocator: what it spends, on whom, and never more than there is."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.test_time.adaptive import allocate


@dataclass
class Drawn:
    """One sample."""

    vote: str | None
    tokens: int


class Questions:
    """Question i answers with the i-th list, over and over."""

    def __init__(self, votes: Sequence[Sequence[str | None]], tokens: int = 10) -> None:
        self.votes, self.tokens = votes, tokens
        self.counts = [0] * len(votes)
        self.calls: list[tuple[list[int], int]] = []

    def draw(self, chosen: Sequence[int], limit: int) -> list[Drawn]:
        self.calls.append((list(chosen), limit))
        drawn = []
        for question in chosen:
            own = self.votes[question]
            fits = self.tokens <= limit
            drawn.append(Drawn(own[self.counts[question] % len(own)] if fits else None, min(self.tokens, limit)))
            self.counts[question] += 1
        return drawn


def test_what_disagrees_gets_more() -> None:
    questions = Questions([["a"], ["a", "b"], ["a"], ["a", "b", "c"]])
    allocate(questions.draw, 4, 400, 10)
    easy, hard = questions.counts[0] + questions.counts[2], questions.counts[1] + questions.counts[3]
    assert hard > 2 * easy
    assert min(questions.counts) >= 2
    assert sum(questions.counts) == 40, "the total is spent to the last token"


def test_without_answers_a_question_is_as_much_in_doubt_as_at_a_tie() -> None:
    questions = Questions([[None], ["a", "b"], ["a"]])
    allocate(questions.draw, 3, 600, 10)
    nothing, tie, agreed = questions.counts
    assert min(nothing, tie) > 2 * agreed
    assert max(nothing, tie) < 2 * min(nothing, tie)


def test_what_is_left_is_spent_on_a_shorter_sample() -> None:
    questions = Questions([["a"], ["b"]])
    drawn = allocate(questions.draw, 2, 25, 10)
    assert [one.tokens for own in drawn for one in own] == [10, 5, 10]
    assert [one.vote for own in drawn for one in own] == ["a", None, "b"]


def test_a_total_too_small_for_all_serves_the_first() -> None:
    questions = Questions([["a"]] * 5)
    drawn = allocate(questions.draw, 5, 20, 10)
    assert [len(own) for own in drawn] == [1, 1, 0, 0, 0]
    assert [len(own) for own in allocate(questions.draw, 5, 0, 10)] == [0] * 5
    assert allocate(questions.draw, 0, 100, 10) == []


def test_there_is_a_most_for_each() -> None:
    questions = Questions([["a"], ["a", "b"]])
    drawn = allocate(questions.draw, 2, 10_000, 10, most=7)
    assert [len(own) for own in drawn] == [7, 7]


def test_numbers_that_make_no_sense_are_refused() -> None:
    for wrong in ({"total": -1}, {"limit": 0}, {"first": 0}, {"most": 0}):
        with pytest.raises(ValueError, match="expected at least"):
            allocate(Questions([["a"]]).draw, **{"questions": 1, "total": 10, "limit": 1, **wrong})


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=4), min_size=1, max_size=9),
    st.integers(0, 900),
    st.integers(1, 40),
    st.integers(1, 60),
    st.integers(1, 4),
)
def test_the_accounts_are_exact(votes: list[list[str | None]], total: int, cost: int, limit: int, first: int) -> None:
    questions = Questions(votes, min(cost, limit))
    drawn = allocate(questions.draw, len(votes), total, limit, first)
    spent = sum(one.tokens for own in drawn for one in own)
    assert spent == total, "never more, and never less while somebody may still be asked"
    assert questions.counts == [len(own) for own in drawn]
    for chosen, cap in questions.calls:
        assert len(set(chosen)) == len(chosen)
        assert cap <= limit
    again = Questions(votes, min(cost, limit))
    assert allocate(again.draw, len(votes), total, limit, first) == drawn
