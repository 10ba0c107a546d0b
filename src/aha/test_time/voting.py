"""Votes among answers: plain, weighted, and how much in doubt (R1 supplement E.4: majority over 64 samples).

Votes are answers in canonical form (`protocols.Family.canonical`), so that two ways to write one answer count together.
None, no answer, never wins and weighs nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeVar

from aha.test_time.candidates import Candidate, Outcome, outcome

V = TypeVar("V", bound=Hashable)


def majority(votes: Sequence[V | None]) -> V | None:
    """The most frequent vote; ties go to the one seen first."""
    counts = Counter(vote for vote in votes if vote is not None)
    return counts.most_common(1)[0][0] if counts else None


def weighted_majority(votes: Sequence[V | None], weights: Sequence[float]) -> V | None:
    """The vote with the largest sum of weights; ties go to the one seen first, weights that are no number count 0.

    Raises:
        ValueError: a weight is negative, or there is not one for each vote.
    """
    sums: dict[V, float] = {}
    for vote, weight in zip(votes, weights, strict=True):
        if weight < 0:
            raise ValueError(f"a vote has the weight {weight}; expected 0 or more")
        if vote is not None:
            sums[vote] = sums.get(vote, 0.0) + (weight if math.isfinite(weight) else 0.0)
    return max(sums, key=lambda vote: sums[vote]) if sums else None


def confidence(mean_logprob: float) -> float:
    """The weight of a sample by its own log-probability: the geometric mean of its tokens' probabilities, in [0, 1]."""
    return math.exp(min(0.0, mean_logprob))


def doubt(votes: Sequence[Hashable | None]) -> float:
    """The probability, in (0, 0.5], that the second answer is really the more likely one of the first two.

    Nothing is known of their shares before the votes, so that of the second has a Beta(b + 1, a + 1) distribution after
    a and b votes (the stopping rule of Adaptive-Consistency, Aggarwal et al. 2023). No vote is no evidence: without
    any, this is a half.
    """
    counts = sorted(Counter(vote for vote in votes if vote is not None).values(), reverse=True)
    first, second = (*counts, 0, 0)[:2]
    tosses = first + second + 1
    return sum(math.comb(tosses, heads) for heads in range(second + 1)) / 2**tosses


def majority_vote(candidates: Sequence[Candidate]) -> Outcome:
    """The answer of most candidates."""
    winner = majority([candidate.vote for candidate in candidates])
    return outcome(next((one for one in candidates if winner is not None and one.vote == winner), None), candidates)
