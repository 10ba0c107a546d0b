"""Votes among answers: plain, weighted, and how much they disagree (R1 supplement E.4: majority over 64 samples).

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


def vote_entropy(votes: Sequence[Hashable | None]) -> float:
    """How much votes disagree, in nats, with one vote more for an answer that nobody gave yet.

    That one vote makes two that agree less certain than eight that do. Samples without an answer are no disagreement;
    where there is none with an answer, one sample would be as good as a coin, and this is log 2.
    """
    counts = Counter(vote for vote in votes if vote is not None)
    total = counts.total() + 1
    if total == 1:
        return math.log(2)
    return -sum(count / total * math.log(count / total) for count in (*counts.values(), 1))


def vote_closeness(votes: Sequence[Hashable | None]) -> float:
    """How close the vote is, in [0, 1]: 1 minus the lead of the first answer over the second as a share, as smoothed.

    The answer that nobody gave has one vote here too, so a lead is never complete. Without any answer it is a half.
    """
    counts = sorted(Counter(vote for vote in votes if vote is not None).values(), reverse=True)
    if not counts:
        return 0.5
    second = max(counts[1] if len(counts) > 1 else 0, 1)
    return 1.0 - (counts[0] - second) / (sum(counts) + 1)


def majority_vote(candidates: Sequence[Candidate]) -> Outcome:
    """The answer of most candidates."""
    return _elected(candidates, majority([candidate.vote for candidate in candidates]))


def weighted_vote(candidates: Sequence[Candidate], weights: Sequence[float] | None = None) -> Outcome:
    """The answer with the largest weight.

    Args:
        candidates: who votes.
        weights: one per candidate, such as rewards; by default each candidate's `confidence`.
    """
    if weights is None:
        weights = [confidence(candidate.mean_logprob) for candidate in candidates]
    return _elected(candidates, weighted_majority([candidate.vote for candidate in candidates], weights))


def _elected(candidates: Sequence[Candidate], winner: str | None) -> Outcome:
    chosen = next((c for c in candidates if winner is not None and c.vote == winner), None)
    return outcome(chosen, candidates)
