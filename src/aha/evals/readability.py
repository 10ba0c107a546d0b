"""How readable a text of thinking is (R1 2.2.4 and 2.3.1: R1-Zero's is not). No torch here."""

from __future__ import annotations

from collections import Counter


def repetition_rate(text: str) -> float:
    """Share of a text's lines that repeat an earlier line; 0 for a text without lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return sum(count - 1 for count in Counter(lines).values()) / len(lines) if lines else 0.0


def longest_paragraph(text: str) -> int:
    """Characters of the longest line."""
    return max((len(line) for line in text.splitlines()), default=0)
