"""English or Chinese: the two languages that are told apart, by their script."""

from __future__ import annotations

import re

from aha.types import Language

_WORDS = re.compile(r"[A-Za-z]+|[\u4e00-\u9fff]")


def words_of(text: str) -> list[str]:
    """Runs of Latin letters, and single Chinese characters; other scripts have no words here."""
    return _WORDS.findall(text)


def is_chinese(word: str) -> bool:
    """Whether one of `words_of` is a Chinese character."""
    return word >= "\u4e00"


def language_of(text: str) -> Language:
    """Chinese where at least half of the words are; a text without words counts as English."""
    words = words_of(text)
    return "zh" if words and 2 * sum(map(is_chinese, words)) >= len(words) else "en"
