"""Overlap of texts by runs of words (GPT-3's appendix C: 8 to 13 words; punctuation and case do not count)."""

from __future__ import annotations

import re
from collections.abc import Iterator

SHORTEST = 8
"""Words of the shortest text that is looked for inside longer ones; a shorter one is compared as a whole."""
COMMON = 3
"""A run that so many of the texts share is their template's wording and tells nothing about any one of them."""
_WORD = re.compile(r"[\u4e00-\u9fff]|[^\W_]+")


def words_of(text: str) -> list[str]:
    """The words of a text, lower case; a Chinese character is one."""
    return _WORD.findall(text.lower())


class NGrams:
    """The runs of words of a set of texts. A text that is shorter than a run counts as one run.

    Args:
        length: words in a run; 0 compares whole texts alone.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._owners: dict[str, list[str]] = {}
        self._lengths: set[int] = set()
        self._wholes: dict[str, str] = {}

    def add(self, text: str, name: str, whole: bool = True) -> None:
        """Takes a text in under a name. Several texts may have one name.

        Args:
            text: what others are compared with.
            name: whose it is.
            whole: a text that is the same counts, however short it is; else runs alone do.
        """
        words = words_of(text)
        if not words:
            return
        if whole:
            self._wholes.setdefault(" ".join(words), name)
        length = min(self._length, len(words))
        if length < max(1, min(SHORTEST, self._length)):
            return
        self._lengths.add(length)
        for run in _runs(words, length):
            owners = self._owners.setdefault(run, [])
            if name not in owners and len(owners) < COMMON:
                owners.append(name)

    def find(self, text: str) -> tuple[str, str] | None:
        """The name of a text that this one equals or shares a run with, and what they share; None where there is none.

        A run that `COMMON` of the texts have is passed over: only a text that is the same as a whole is like them then.
        """
        words = words_of(text)
        whole = " ".join(words)
        if whole in self._wholes:
            return self._wholes[whole], whole
        for length in sorted(self._lengths, reverse=True):
            for run in _runs(words, length):
                owners = self._owners.get(run, ())
                if 0 < len(owners) < COMMON:
                    return owners[0], run
        return None


def _runs(words: list[str], length: int) -> Iterator[str]:
    """All runs of so many words."""
    return (" ".join(words[start : start + length]) for start in range(len(words) - length + 1))
