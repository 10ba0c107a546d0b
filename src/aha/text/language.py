"""English or Chinese: the two languages that are told apart, by their script."""

from __future__ import annotations

import re

from aha.types import Language

_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORDS = re.compile(r"[A-Za-z]+|[\u4e00-\u9fff]")


def words_of(text: str) -> list[str]:
    """Runs of Latin letters, and single Chinese characters; other scripts have no words here."""
    return _WORDS.findall(text)


def is_chinese(word: str) -> bool:
    """Whether one of `words_of` is a Chinese character."""
    return word >= "\u4e00"


def language_of(text: str) -> Language:
    """Chinese where at least half of the words are; a text without words counts as English.

    Commands of LaTeX and names of one or two letters are formulas rather than words.
    """
    words = words_of(_COMMAND.sub(" ", text))
    chinese = sum(map(is_chinese, words))
    english = sum(len(word) > 2 for word in words)
    return "zh" if chinese and chinese >= english else "en"
