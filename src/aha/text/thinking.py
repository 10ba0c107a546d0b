"""The one parser for thinking and answer of whole completions, shared by rewards and evaluation.

Serving reads replies while they are made (`aha.text.incremental`) and has to show something of any reply. Of one that
is well formed here it shows this thinking and this answer, by test; only where the vocabulary has no tokens for answer
tags do they stay in the text that is shown.

Strict forms: exactly one non-empty think block, one non-empty answer after it, nothing else. Under R1-Zero's template
the answer stands inside answer tags; in DeepSeek-R1's chat format it is the summary that follows the thinking. Whatever
deviates has a named `Flaw`. The lenient form extracts an answer from whatever there is; it serves to elicit the best of
a base model and is never used for rewards.
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
_CHAT_FORM = re.compile(
    rf"\s*{re.escape(THINK)}(?P<thinking>.*?){re.escape(END_THINK)}\s*(?P<answer>.*?)\s*", re.DOTALL
)
_ANSWER_CUE = re.compile(r"(?:answer is|answer:|答案是|答案：|答案:)[\s:：*]*(?P<answer>[^\n<。]*)", re.IGNORECASE)


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
    """What is checked against the problem: in the chat format, what the summary names as the answer (or nothing)."""
    flaw: Flaw | None
    summary: str = ""
    """All that the user is shown after the thinking."""

    @property
    def well_formed(self) -> bool:
        """Whether the completion has the strict form."""
        return self.flaw is None


def has_substance(text: str) -> bool:
    """Whether there is at least one letter or digit: dots, spaces and invisible characters are not thinking."""
    return any(character.isalnum() for character in text)


def parse(completion: str, think_prefilled: bool = False, truncated: bool = False, answer_tags: bool = True) -> Parsed:
    """Parses a completion strictly.

    Args:
        completion: decoded tokens after the prompt, without the end-of-sentence token.
        think_prefilled: the prompt ended with `<think>`, so the completion starts inside the thinking.
        truncated: the completion ran into its length limit; it is then never well formed.
        answer_tags: the answer stands between tags, as R1-Zero's template wants it. False: R1's chat format, where a
            summary follows the thinking.
    """
    text = THINK + completion if think_prefilled else completion
    match = (_ZERO_FORM if answer_tags else _CHAT_FORM).fullmatch(text)
    thinking = match["thinking"].strip() if match else ""
    summary = match["answer"].strip() if match else ""
    answer = summary if answer_tags else final_answer(summary)
    return Parsed(thinking, answer, _flaw(text, answer_tags, match is not None, thinking, summary, truncated), summary)


def _flaw(text: str, answer_tags: bool, shaped: bool, thinking: str, summary: str, truncated: bool) -> Flaw | None:
    tags = (THINK, END_THINK, ANSWER, END_ANSWER) if answer_tags else (THINK, END_THINK)
    if truncated:
        return Flaw.TRUNCATED
    if any(token in text for token in CONTROL_TOKENS if token not in tags):
        return Flaw.CONTROL_TOKEN
    if any(text.count(tag) != 1 for tag in tags):
        return Flaw.TAG_COUNT
    if not shaped:
        return Flaw.OUTSIDE
    if not has_substance(thinking):
        return Flaw.EMPTY_THINKING
    return None if has_substance(summary) else Flaw.EMPTY_ANSWER


def final_answer(summary: str) -> str:
    """What a summary names as the answer, after its last "the answer is" or 答案是; empty where there is none.

    A colon after the cue and the stars of bold text are no part of it.
    """
    cues = list(_ANSWER_CUE.finditer(summary))
    named = cues[-1]["answer"].strip().strip(" *").rstrip(".").rstrip(" *") if cues else ""
    return named if has_substance(named) else ""


def extract_leniently(completion: str) -> str:
    """The most plausible answer in any text: the last answer tag, else after "the answer is", else the last line."""
    if ANSWER in completion:
        return completion.rsplit(ANSWER, 1)[1].split(END_ANSWER, 1)[0].strip()
    rest = completion.rsplit(END_THINK, 1)[-1]
    if named := final_answer(rest):
        return named
    lines = [line.strip() for line in rest.splitlines() if has_substance(line)]
    return lines[-1].rsplit("=", 1)[-1].strip().rstrip(".。") if lines else ""
