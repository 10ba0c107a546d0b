"""Overlap of texts by runs of words (GPT-3's appendix C: 13 words; punctuation and case do not count)."""

from __future__ import annotations

import re
from collections.abc import Iterator

_WORD = re.compile(r"[\u4e00-\u9fff]|[^\W_]+")


def words_of(text: str) -> list[str]:
    """The words of a text, lower case; a Chinese character is one."""
    return _WORD.findall(text.lower())


class NGrams:
    """The runs of words of a set of texts. A text shorter than a run counts as one run.

    Args:
        length: words in a run.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._owner: dict[str, str] = {}

    def add(self, text: str, name: str) -> None:
        """Takes a text in under a name."""
        for run in self._runs(text):
            self._owner.setdefault(run, name)

    def find(self, text: str) -> tuple[str, str] | None:
        """The name of a text that shares a run with this one, and the first run that they share."""
        return next(((self._owner[run], run) for run in self._runs(text) if run in self._owner), None)

    def _runs(self, text: str) -> Iterator[str]:
        words = words_of(text)
        for start in range(max(1, len(words) - self._length + 1)):
            run = " ".join(words[start : start + self._length])
            if run:
                yield run
