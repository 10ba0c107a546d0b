"""The best of n samples, by a reward model or by the verifier.

With the verifier this is no method but a bound: it looks at the truth, and no choice among these samples does better
(averaged over samples it is pass@n).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from aha.tasks.datasets import is_right
from aha.test_time.candidates import Candidate, Outcome, outcome
from aha.types import Problem

Judged = Callable[[Problem, Candidate], Sequence[int]]
"""What a reward model reads of a candidate, as token ids."""
Score = Callable[[Sequence[Sequence[int]]], Sequence[float | None]]
"""A reward model: `protocols.Scorer.score`, or the same calibrated, which may give None."""


def best(votes: Sequence[str | None], scores: Sequence[float | None]) -> int | None:
    """The index of the best score among those who have an answer; ties go to the first, scores that are no number lose.

    None where there is no answer, or no score for any.
    """
    found: int | None = None
    for index, (vote, score) in enumerate(zip(votes, scores, strict=True)):
        if vote is None or score is None or math.isnan(score):
            continue
        kept = None if found is None else scores[found]
        if kept is None or score > kept:
            found = index
    return found


def best_of_n(candidates: Sequence[Candidate], scores: Sequence[float | None]) -> Outcome:
    """The candidate with the best score; all are paid for."""
    index = best([candidate.vote for candidate in candidates], scores)
    return outcome(None if index is None else candidates[index], candidates)


def scores_by_model(
    score: Score, judged: Judged, problems: Sequence[Problem], candidates: Sequence[Sequence[Candidate]]
) -> list[list[float | None]]:
    """What a reward model gives the candidates of each problem, asked once for all."""
    sequences = [judged(problem, one) for problem, own in zip(problems, candidates, strict=True) for one in own]
    scores = iter(score(sequences))
    return [[next(scores) for _ in own] for own in candidates]


def scores_by_verifier(problem: Problem, candidates: Sequence[Candidate]) -> list[float]:
    """1 for a right answer, 0 for a wrong one: the oracle."""
    return [float(one.vote is not None and is_right(problem, one.answer)) for one in candidates]
