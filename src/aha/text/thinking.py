"""The one parser for thinking and answer, shared by rewards, evaluation and serving.

Strict form: exactly one non-empty think block, one non-empty answer after it, nothing else. Whatever deviates has a
named `Flaw`. The lenient form extracts an answer from whatever there is; it serves to elicit the best of a base model
and is never used for rewards.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from aha.text.tokenizer import ANSWER, CONTROL_TOKENS, END_ANSWER, END_THINK, THINK

_ZERO_FORM = re.compile(
    rf"\s*{re.escape(THINK)}(?P<thinking>.*?){re.escape(END_THINK)}\s*"
    rf"{re.escape(ANSWER)}(?P<answer>.*?){re.escape(END_ANSWER)}\s*",
    re.DOTALL,
)
_TAGS = (THINK, END_THINK, ANSWER, END_ANSWER)
_OTHER_CONTROLS = tuple(token for token in CONTROL_TOKENS if token not in _TAGS)
_ANSWER_CUE = re.compile(r"(?:answer is|answer:|答案是|答案：|答案:)\s*(?P<answer>[^\n<。]*)", re.IGNORECASE)


class Flaw(enum.StrEnum):
    """Why a completion is not well formed."""

    TRUNCATED = "truncated"
    TAG_COUNT = "a tag is missing or repeated"
    OUTSIDE = "text outside the think block and the answer, or the wrong order"
    EMPTY_THINKING = "empty thinking"
    EMPTY_ANSWER = "empty answer"
    CONTROL_TOKEN = "a control token inside"


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a completion says. `flaw` is None exactly when it is well formed."""

    thinking: str
    answer: str
    flaw: Flaw | None

    @property
    def well_formed(self) -> bool:
        """Whether the completion has the strict form."""
        return self.flaw is None


def has_substance(text: str) -> bool:
    """Whether there is at least one letter or digit: dots, spaces and invisible characters are not thinking."""
    return any(character.isalnum() for character in text)


def parse(completion: str, think_prefilled: bool = False, truncated: bool = False) -> Parsed:
    """Parses the R1-Zero form strictly.

    Args:
        completion: decoded tokens after the prompt, without the end-of-sentence token.
        think_prefilled: the prompt ended with `<think>`, so the completion starts inside the thinking.
        truncated: the completion ran into its length limit; it is then never well formed.
    """
    text = THINK + completion if think_prefilled else completion
    match = _ZERO_FORM.fullmatch(text)
    thinking = match["thinking"].strip() if match else ""
    answer = match["answer"].strip() if match else ""
    return Parsed(thinking, answer, _flaw(text, match is not None, thinking, answer, truncated))


def _flaw(text: str, shaped: bool, thinking: str, answer: str, truncated: bool) -> Flaw | None:
    if truncated:
        return Flaw.TRUNCATED
    if any(token in text for token in _OTHER_CONTROLS):
        return Flaw.CONTROL_TOKEN
    if any(text.count(tag) != 1 for tag in _TAGS):
        return Flaw.TAG_COUNT
    if not shaped:
        return Flaw.OUTSIDE
    if not has_substance(thinking):
        return Flaw.EMPTY_THINKING
    return None if has_substance(answer) else Flaw.EMPTY_ANSWER


def extract_leniently(completion: str) -> str:
    """The most plausible answer in any text: the last answer tag, else after "the answer is", else the last line."""
    if ANSWER in completion:
        return completion.rsplit(ANSWER, 1)[1].split(END_ANSWER, 1)[0].strip()
    rest = completion.rsplit(END_THINK, 1)[-1]
    cues = list(_ANSWER_CUE.finditer(rest))
    if cues:
        return cues[-1]["answer"].strip().rstrip(".")
    lines = [line.strip() for line in rest.splitlines() if has_substance(line)]
    return lines[-1].rsplit("=", 1)[-1].strip().rstrip(".。") if lines else ""
