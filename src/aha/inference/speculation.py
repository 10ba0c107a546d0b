"""Speculative decoding with the model's prediction modules: the bookkeeping (V3 section 5.4.3).

The modules draft D tokens, and one pass of the model over the last token and its draft gives the D + 1 distributions
that plain decoding would compute one after another, as long as the draft is what plain decoding draws. From each of
them the engine draws as ever, with the random number of that position, and goes on to the next only while the draft
foretold the token drawn. So what comes out is plain decoding's by construction, greedy or sampled; a draft decides how
many tokens a step makes and never which. No random number is spent on accepting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aha.errors import GenerationError
from aha.inference.scheduler import Sample
from aha.models.language_model import LanguageModel


@dataclass(slots=True)
class DraftCounts:
    """How drafts fared, summed over all samples since the engine was made."""

    steps: int = 0
    """Verifications: one for each sample that ran in a step."""
    drafted: int = 0
    """Tokens that modules guessed. Forced tokens are known and count nowhere here."""
    accepted: int = 0
    """Guesses that became tokens; those behind the end of a sample did not."""

    @property
    def acceptance_rate(self) -> float:
        """Accepted part of the drafted tokens; 0 before the first."""
        return self.accepted / self.drafted if self.drafted else 0.0

    def add(self, drafted: int, accepted: int) -> None:
        """Counts a verification."""
        self.steps += 1
        self.drafted += drafted
        self.accepted += accepted


def check_speculation(model: LanguageModel, speculative_tokens: int) -> None:
    """Refuses more tokens than a model can draft in a step.

    Raises:
        GenerationError: it has too few prediction modules, or none.
    """
    modules = len(model.mtp)
    if not 0 <= speculative_tokens <= modules:
        raise GenerationError(
            f"speculative_tokens={speculative_tokens}, but this model can draft 0 to {modules} tokens a step: one with "
            "each of its multi-token prediction modules; 0 decodes plainly"
        )


def window_ids(samples: Sequence[Sample], window: int) -> list[list[int]]:
    """Each sample's latest `window` tokens, without its very first; shorter ones filled up with 0 behind."""
    rows = (sample.latest(window) for sample in samples)
    return [row + [0] * (window - len(row)) for row in rows]


def with_forced(samples: Sequence[Sample], drafts: list[list[int]]) -> list[list[int]]:
    """Drafts that begin with the tokens that are forced to come next: those are certain to be accepted.

    Modules behind the first read its guess all the same. One that differs leaves an entry in their past that is not
    quite right, which later drafts can feel, and nothing else.
    """
    return [
        [*sample.forced, *draft][: len(draft)] if sample.forced else draft
        for sample, draft in zip(samples, drafts, strict=True)
    ]
