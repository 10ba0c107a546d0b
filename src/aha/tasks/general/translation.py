"""Translation of short phrases between English and Chinese."""

from __future__ import annotations

import random

from aha.tasks.general.family import ScoredFamily
from aha.tasks.general.lexicon import ADJECTIVES, NOUNS, VERBS, Word, tokens
from aha.types import Language, Problem

VOCABULARY: dict[str, tuple[Word, ...]] = {"adjective": ADJECTIVES, "noun": NOUNS, "verb": VERBS}
SHAPES: dict[int, tuple[str, ...]] = {
    1: ("adjective", "noun"),
    2: ("noun", "verb", "noun"),
    3: ("adjective", "noun", "verb", "adjective", "noun"),
}


def phrase(words: list[Word], language: Language) -> str:
    """Words one after another, as the language writes them."""
    return (" " if language == "en" else "").join(word.within(language) for word in words)


class Translation(ScoredFamily):
    """Level 1: adjective and noun. Level 2: who does what to whom. Level 3: the same with adjectives."""

    name = "translation"
    kind = Word("a translation", "翻译")
    levels: tuple[int, ...] = (1, 2, 3)

    def sample(self, rng: random.Random, level: int, language: Language) -> Problem:
        """Draws a phrase in the question's language; the answer is in the other one.

        The direction is not part of a problem's identity: whoever has seen a phrase one way has seen it both ways.
        """
        indices = [rng.randrange(len(VOCABULARY[part])) for part in SHAPES[level]]
        words = self._words(indices, level)
        given = phrase(words, language)
        question = f"Translate into Chinese: {given}" if language == "en" else f"译成英文：{given}"
        answer = phrase(words, "zh" if language == "en" else "en")
        return Problem(self.name, self.domain, level, language, question, answer, {"words": indices})

    @staticmethod
    def _words(indices: list[int], level: int) -> list[Word]:
        return [VOCABULARY[part][index] for part, index in zip(SHAPES[level], indices, strict=True)]

    def score(self, problem: Problem, response: str) -> float:
        """Share of the words (Chinese: characters) that stand in their places, of the longer of the two texts."""
        target: Language = "zh" if problem.language == "en" else "en"
        wanted, found = tokens(problem.answer, target), tokens(response, target)
        same = sum(a == b for a, b in zip(wanted, found, strict=False))
        other = tokens(response, problem.language)
        return 0.0 if other else same / max(len(wanted), len(found))

    def respond(self, problem: Problem, rng: random.Random, quality: float = 1.0) -> str:
        """The translation; with probability 1 - quality one word of it is another."""
        words = self._words(list(problem.facts["words"]), problem.level)
        if rng.random() >= quality:
            place = rng.randrange(len(words))
            part = SHAPES[problem.level][place]
            words[place] = rng.choice([word for word in VOCABULARY[part] if word != words[place]])
        return phrase(words, "zh" if problem.language == "en" else "en")
