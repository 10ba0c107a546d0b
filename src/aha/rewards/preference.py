"""Preference rewards: what a reward model makes of a response, as a number in [0, 1] (R1 Eqs. 8-10). No torch here.

The reward models are reached through `protocols.Scorer`. A raw score is centred and scaled by the figures that its
training measured, then squashed: a reward must be finite and bounded, whatever a model says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aha.protocols import Scorer
from aha.text.templates import chat_example
from aha.text.tokenizer import Tokenizer
from aha.types import Message, Problem

Preference = Literal["helpful", "harmless"]


def preference_of(problem: Problem) -> Preference:
    """Which reward model judges a general prompt: each belongs to one of the two sets (R1 supplement, 3.1)."""
    return "harmless" if problem.facts.get("_harmful") else "helpful"


def judged_token_ids(
    tokenizer: Tokenizer, preference: Preference, question: str, reasoning: str, response: str
) -> list[int]:
    """What a reward model reads: helpfulness is judged on the final summary only, harmlessness on the reasoning too."""
    shown = None if preference == "helpful" else reasoning
    return chat_example(tokenizer, [Message("user", question), Message("assistant", response, shown)])[0]


@dataclass(frozen=True)
class CalibratedScorer:
    """A reward model with the mean and deviation of its scores on training problems that it did not train on."""

    scorer: Scorer
    mean: float
    std: float

    def rewards(self, sequences: Sequence[Sequence[int]]) -> list[float | None]:
        """sigmoid((score - mean) / std) of each sequence; None where the score is no finite number."""
        return [_squash((score - self.mean) / self.std) for score in self.scorer.score(sequences)]


def _squash(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return 1.0 / (1.0 + math.exp(-value)) if value > -700 else 0.0


class PreferenceReward:
    """Scores responses to general prompts, each by the reward model of its set.

    Args:
        tokenizer: of the reward models.
        scorers: by set.
    """

    def __init__(self, tokenizer: Tokenizer, scorers: dict[Preference, CalibratedScorer]) -> None:
        self._tokenizer = tokenizer
        self._scorers = scorers

    def rewards(self, items: Sequence[tuple[Problem, str, str]]) -> list[float | None]:
        """The rewards of (problem, reasoning, response) triples, in order; an empty response earns 0 unasked."""
        results: list[float | None] = [0.0] * len(items)
        for preference, scorer in self._scorers.items():
            chosen = [i for i, (p, _, response) in enumerate(items) if response and preference_of(p) == preference]
            sequences = [
                judged_token_ids(self._tokenizer, preference, items[i][0].question, items[i][1], items[i][2])
                for i in chosen
            ]
            for i, reward in zip(chosen, scorer.rewards(sequences) if sequences else [], strict=True):
                results[i] = reward
        return results
