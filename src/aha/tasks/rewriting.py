"""Reader-friendly form by rule: thinking in one language, and a summary that names the answer (R1 2.3.1).

The paper has DeepSeek-V3 and people do this. A model of laptop size cannot rewrite a proof without breaking it; the
connecting words of the laptop world are few, so a table does it exactly.
"""

from __future__ import annotations

import re

from aha.tasks.words import WORDS
from aha.types import Language

_TO_ENGLISH = {forms["zh"]: forms["en"] for forms in WORDS.values()}
_TO_CHINESE = {forms["en"].strip(): forms["zh"] for forms in WORDS.values()}


def _any_of(words: list[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_CHINESE = re.compile(_any_of(list(_TO_ENGLISH)))
_ENGLISH = re.compile(rf" ?(?<![A-Za-z])({_any_of(list(_TO_CHINESE))})(?![A-Za-z]) ?")


def one_language(thinking: str, language: Language) -> str:
    """Thinking with all connecting words in one language; numbers, formulas and programs stay as they are."""
    if language == "en":
        text = _CHINESE.sub(lambda match: _TO_ENGLISH[match[0]], thinking)
    else:
        text = _ENGLISH.sub(lambda match: _TO_CHINESE[match[1]], thinking)
    return "\n".join(line.strip() for line in text.splitlines())


def summary(answer: str, language: Language) -> str:
    """A sentence that names the answer, as `aha.text.thinking.final_answer` reads it."""
    return f"The answer is {answer}." if language == "en" else f"答案是{answer}。"
