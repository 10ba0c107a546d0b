"""The best of n: by scores, by the truth, and with nothing to choose from."""

import math
from collections.abc import Sequence
from typing import Any

from aha.protocols import Scorer
from aha.test_time.best_of_n import best, best_of_n, scores_by_model, scores_by_verifier
from aha.test_time.candidates import read
from aha.types import Problem


class Longest:
    """Likes long sequences."""

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        return [float(len(sequence)) for sequence in sequences]


def said(answer: str) -> str:
    return f"<think>2+2=4</think>\n<answer>{answer}</answer><｜end▁of▁sentence｜>"


def test_the_best_score_with_an_answer_wins_and_ties_go_to_the_first() -> None:
    assert best(["4", "5", "5"], [0.1, 0.9, 0.9]) == 1
    assert best(["4", None], [0.1, 0.9]) == 0
    assert best(["4", "5"], [math.nan, -9.0]) == 1
    assert best(["4", "5"], [None, None]) is None
    assert best([None], [1.0]) is None
    assert best([], []) is None


def test_a_reward_model_reads_what_it_is_given(ask: Any, five: Problem, make_problem: Any) -> None:
    scorer: Scorer = Longest()
    respondent = ask(lambda prompt, request, number: said(["4", "05", "6"][number]))
    problems = [five, make_problem("What is 1+2?", "3")]
    candidates = read(respondent, problems, respondent.samples(problems, 3))
    judged_texts = []

    def judged(problem: Problem, one: Any) -> list[int]:
        judged_texts.append((problem.question, one.visible))
        return list(range(len(one.answer)))

    scores = scores_by_model(scorer.score, judged, problems, candidates)
    assert scores == [[1.0, 2.0, 1.0]] * 2
    assert judged_texts[:2] == [("What is 2+2+1?", "4"), ("What is 2+2+1?", "05")]
    chosen = best_of_n(candidates[0], scores[0])
    assert (chosen.answer, chosen.vote) == ("05", "5")
    assert chosen.tokens == sum(one.tokens for one in candidates[0])


def test_the_verifier_is_the_bound(ask: Any, five: Problem) -> None:
    respondent = ask(lambda prompt, request, number: said(["4", "?", "5"][number]))
    (own,) = read(respondent, [five], respondent.samples([five], 3))
    assert scores_by_verifier(five, own) == [0.0, 0.0, 1.0]
    assert best_of_n(own, scores_by_verifier(five, own)).answer == "5"
    assert best_of_n(own[1:2], [0.0]).vote is None
