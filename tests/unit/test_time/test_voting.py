"""Votes: ties, weights, what disagrees, and what no answer is worth."""

import math
import random
from typing import Any

import pytest

from aha.test_time.candidates import Candidate, read
from aha.test_time.voting import (
    confidence,
    doubt,
    majority,
    majority_vote,
    weighted_majority,
)
from aha.types import Problem


def candidate(vote: str | None, tokens: int = 10, mean_logprob: float = -1.0, answer: str = "") -> Candidate:
    return Candidate("text", answer or vote or "", vote, tokens, 1, mean_logprob, False, 1, "thinking", "shown")


def test_majority() -> None:
    assert majority(["a", "b", "b", None, None, None]) == "b"
    assert majority(["b", "a"]) == "b", "ties go to the first"
    assert majority([None]) is None
    assert majority([]) is None


def test_weights_decide_and_ties_go_to_the_first() -> None:
    assert weighted_majority(["a", "b", "b"], [1.0, 0.4, 0.4]) == "a"
    assert weighted_majority(["a", "b", "b"], [0.8, 0.4, 0.4]) == "a"
    assert weighted_majority(["a", "b", None], [0.1, 0.2, 9.0]) == "b"
    assert weighted_majority(["a", "b"], [math.nan, 0.0]) == "a"
    assert weighted_majority([None, None], [1.0, 1.0]) is None
    with pytest.raises(ValueError, match="weight -1"):
        weighted_majority(["a"], [-1.0])
    with pytest.raises(ValueError, match="zip"):
        weighted_majority(["a"], [])


def test_equal_weights_are_a_majority() -> None:
    for votes in (["a", "b", "b"], ["b", "a", None, "a", "b"], [None], ["c"]):
        assert weighted_majority(votes, [0.3] * len(votes)) == majority(votes)


def test_a_vote_is_most_in_doubt_where_it_could_go_either_way() -> None:
    assert doubt(["a"] * 8) < doubt(["a"] * 2) < doubt(["a", "b"])
    assert doubt(["a"] * 6 + ["b"] * 2) < doubt(["a"] * 4 + ["b"] * 4)
    assert doubt(["a", None]) == doubt(["a"]) == 0.25
    assert doubt(["a", "b", "c"]) == doubt(["a", "b"]) == doubt([None, None]) == doubt([]) == 0.5


@pytest.mark.parametrize(("first", "second"), [(1, 0), (2, 1), (5, 3), (12, 4)])
def test_doubt_is_what_drawing_shares_at_random_gives(first: int, second: int) -> None:
    rng = random.Random(0)
    shares = [rng.betavariate(second + 1, first + 1) for _ in range(20_000)]
    found = sum(share > 0.5 for share in shares) / len(shares)
    assert doubt(["a"] * first + ["b"] * second) == pytest.approx(found, abs=0.015)


def test_a_vote_pays_for_all_and_answers_with_the_first_of_the_winners() -> None:
    seen = [candidate("4", 7), candidate("5", 11, answer="005"), candidate(None, 100), candidate("5", 13)]
    result = majority_vote(seen)
    assert (result.answer, result.vote) == ("005", "5")
    assert (result.tokens, result.forced_tokens) == (131, 4)
    assert result.seen == tuple(seen)
    assert majority_vote([candidate(None, 3)]).vote is None
    assert majority_vote([candidate(None, 3)]).answer == ""
    assert majority_vote([]).tokens == 0


def test_confidence_is_a_probability() -> None:
    assert confidence(0.0) == 1.0
    assert confidence(-1e9) == 0.0


def test_samples_are_read_in_the_prompt_style(ask: Any, five: Problem) -> None:
    said = [
        "<think>2+2=4</think>\n<answer>05</answer><｜end▁of▁sentence｜>",
        "the answer is 5<｜end▁of▁sentence｜>",
        "<think>" + "2+2=4\n" * 99,
    ]
    respondent = ask(lambda prompt, request, number: said[number])
    (own,) = read(respondent, [five], respondent.samples([five], 3))
    assert [one.vote for one in own] == ["5", None, None]
    assert [one.truncated for one in own] == [False, False, True]
    assert own[0].thinking == "2+2=4"
    assert own[0].mean_logprob == pytest.approx(-0.5)
    assert own[2].tokens == 120
    assert majority_vote(own).answer == "05"


def test_streams_are_functions_of_the_seed_and_the_problem(ask: Any, make_problem: Any) -> None:
    respondent = ask(lambda *_: "x<｜end▁of▁sentence｜>")
    one, other = make_problem(), make_problem("What is 1+2?", "3")
    respondent.samples([one, other])
    respondent.samples([other, one])
    seeds = [request.sampling.seed for request in respondent.generator.requests]
    assert (seeds[0], seeds[1]) == (seeds[3], seeds[2])
    assert seeds[0] != seeds[1]
