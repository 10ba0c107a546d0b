"""The words of the laptop world's solutions, in two languages, and which of them show reflection."""

from __future__ import annotations

import re

from aha.types import Voice

WORDS: dict[str, dict[str, str]] = {
    "wait": {"en": "Wait", "zh": "等等"},
    "yes": {"en": " yes", "zh": "对"},
    "no": {"en": " no", "zh": "不对"},
    "same": {"en": " same", "zh": "一样"},
    "differ": {"en": " differ", "zh": "不同"},
    "guess": {"en": "Guess ", "zh": "猜"},
    "so": {"en": "So ", "zh": "得"},
}
"""Connecting words by what they say."""
GUESS: dict[str, str] = {language: form.strip() for language, form in WORDS["guess"].items()}
"""The word that gives up: what follows it is not worked out."""

REFLECTION_WORDS: dict[str, tuple[str, ...]] = {
    "wait": ("wait", "等等"),
    "no": ("no", "不对"),
    "differ": ("differ", "不同"),
}
"""Words of reflection that are counted over training (after R1 C.2), by kind, in both languages."""
REFLECTION = re.compile(
    "|".join(
        f"(?P<{kind}>{'|'.join(rf'(?<![a-z]){word}(?![a-z])' if word.isascii() else word for word in words)})"
        for kind, words in REFLECTION_WORDS.items()
    ),
    re.IGNORECASE,
)
"""Finds them, English ones as whole words; the group that matched names the kind."""


def word(name: str, voice: Voice) -> str:
    """The connecting word for a voice; the mixed voice takes the Chinese one."""
    return WORDS[name]["en" if voice == "en" else "zh"]
