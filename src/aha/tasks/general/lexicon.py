"""Words of the laptop world in two languages, and the sentences they make."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from aha.types import Language


class Word(NamedTuple):
    """One word in both languages."""

    en: str
    zh: str

    def within(self, language: Language) -> str:
        """The word in a language."""
        return self.en if language == "en" else self.zh


def _words(table: str) -> tuple[Word, ...]:
    return tuple(Word(*pair.split("=")) for pair in table.split())


NOUNS = _words(
    "fox=狐狸 horse=马 bear=熊 bird=鸟 fish=鱼 dog=狗 cat=猫 boat=船 tree=树 house=房子 child=孩子 king=国王"
)
ADJECTIVES = _words("red=红 blue=蓝 green=绿 white=白 black=黑 old=老")
VERBS = _words("sees=看见 likes=喜欢 finds=找到 draws=画")
NAMES = _words("Tom=小明 Ann=小红 Max=小刚 Eva=小丽 Ben=小强 Mia=小美 Leo=小龙 Zoe=小云")

_ENGLISH = re.compile(r"[A-Za-z]+")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def sentence(words: Sequence[Word], language: Language) -> str:
    """A plain sentence of (adjective) noun verb (adjective) noun, with its end."""
    if language == "zh":
        return "".join(word.zh for word in words) + "。"
    nouns = {word.en for word in NOUNS}
    parts: list[str] = []
    start = True
    for word in words:
        if start and (word in ADJECTIVES or word.en in nouns):
            parts.append("the")
            start = False
        parts.append(word.en)
        start = start or word in VERBS
    text = " ".join(parts)
    return text[0].upper() + text[1:] + "."


def draw_sentence(rng: random.Random, adjectives: float = 0.5) -> list[Word]:
    """Words of a random sentence; each noun has an adjective with the given probability."""
    words: list[Word] = []
    for verb in (None, rng.choice(VERBS)):
        if verb is not None:
            words.append(verb)
        if rng.random() < adjectives:
            words.append(rng.choice(ADJECTIVES))
        words.append(rng.choice([noun for noun in NOUNS if noun not in words]))
    return words


def tokens(text: str, language: Language) -> list[str]:
    """The words of a text: runs of Latin letters in lower case, or single Chinese characters."""
    return [word.lower() for word in _ENGLISH.findall(text)] if language == "en" else _CHINESE.findall(text)


def contains(text: str, word: Word, language: Language) -> bool:
    """Whether a text has a word: as a whole word in English, as a part in Chinese."""
    if language == "zh":
        return word.zh in text
    wanted = tokens(word.en, "en")
    found = tokens(text, "en")
    return any(found[i : i + len(wanted)] == wanted for i in range(len(found) - len(wanted) + 1))


def is_in(text: str, language: Language) -> bool:
    """Whether all words of a text belong to a language; False for a text without words."""
    english, chinese = bool(_ENGLISH.search(text)), bool(_CHINESE.search(text))
    return (english, chinese) == (language == "en", language == "zh")


def share(checks: Sequence[bool]) -> float:
    """The share of checks that hold."""
    return sum(checks) / len(checks)
