"""Writing to constraints: a sentence with given words, of a given length."""

from __future__ import annotations

import random

from aha.tasks.general.family import ScoredFamily
from aha.tasks.general.lexicon import (
    ADJECTIVES,
    NOUNS,
    VERBS,
    Word,
    contains,
    draw_sentence,
    is_in,
    sentence,
    share,
    tokens,
)
from aha.types import Language, Problem

KNOWN: dict[Language, frozenset[str]] = {
    "en": frozenset({"the", *(word.en for word in (*NOUNS, *ADJECTIVES, *VERBS))}),
    "zh": frozenset("".join(word.zh for word in (*NOUNS, *ADJECTIVES, *VERBS))),
}


class Writing(ScoredFamily):
    """Level 1: with one noun. Level 2: with a noun and an adjective. Level 3: with both and an exact length."""

    name = "writing"
    kind = Word("a sentence", "造句")
    levels: tuple[int, ...] = (1, 2, 3)

    def sample(self, rng: random.Random, level: int, language: Language) -> Problem:
        """Draws a sentence that exists, and asks for what it has."""
        words = draw_sentence(rng, adjectives=0.7)
        while level > 1 and not any(word in ADJECTIVES for word in words):
            words = draw_sentence(rng, adjectives=0.7)
        asked = [rng.choice([word for word in words if word in NOUNS])]
        if level > 1:
            asked.append(rng.choice([word for word in words if word in ADJECTIVES]))
        text = sentence(words, language)
        count = len(tokens(text, language)) if level == 3 else 0
        facts = {"words": [word.en for word in asked], "count": count, "language": language if count else ""}
        return Problem(self.name, self.domain, level, language, self._question(asked, count, language), text, facts)

    @staticmethod
    def _question(asked: list[Word], count: int, language: Language) -> str:
        if language == "en":
            length = f" of {count} words" if count else ""
            return f"Write a sentence{length} with {' and '.join(word.en for word in asked)}."
        length = f"{count}个字的" if count else ""
        return f"用{'和'.join(word.zh for word in asked)}写一句{length}话。"

    @staticmethod
    def _asked(problem: Problem) -> list[Word]:
        return [word for word in (*NOUNS, *ADJECTIVES) if word.en in problem.facts["words"]]

    def score(self, problem: Problem, response: str) -> float:
        """Share of the constraints that hold; 0 outside the question's language.

        The given words, the exact length (or a length that a sentence has), one sentence with its end, known words
        only, a verb, no word more than twice.
        """
        language = problem.language
        if not is_in(response, language):
            return 0.0
        text, end = response.strip(), "." if language == "en" else "。"
        words = tokens(text, language)
        count = problem.facts["count"]
        checks = [contains(text, word, language) for word in self._asked(problem)]
        checks += [
            len(words) == count if count else 3 <= len(words) <= 14,
            text.endswith(end) and text.count(end) == 1,
            all(word in KNOWN[language] for word in words),
            any(contains(text, verb, language) for verb in VERBS),
            all(words.count(word) <= 2 for word in words),
        ]
        return share(checks)

    def respond(self, problem: Problem, rng: random.Random, quality: float = 1.0) -> str:
        """A sentence that has what is asked for; with probability 1 - quality, any sentence."""
        careless = rng.random() >= quality
        while True:
            text = sentence(draw_sentence(rng, adjectives=0.7), problem.language)
            if careless or self.score(problem, text) == 1.0:
                return text
