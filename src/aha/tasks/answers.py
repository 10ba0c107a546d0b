"""What a completion answers, under each prompt style: what is visible, what is checked, and what it says in a vote."""

from __future__ import annotations

from dataclasses import dataclass

from aha.tasks.datasets import is_dataset, judge_of
from aha.tasks.families import GENERAL
from aha.text.prompt_style import PromptStyle
from aha.text.thinking import Flaw, Parsed, extract_leniently
from aha.text.tokenizer import ANSWER, END_THINK
from aha.types import Problem


@dataclass(frozen=True, slots=True)
class Reading:
    """One completion, read. Whether it is right is not said here: that takes the truth."""

    parsed: Parsed
    visible: str
    """What a user would see as the answer."""
    answer: str
    """What is checked against the problem."""
    counts: bool
    """Whether an answer can count at all: where a strict form is asked for, it must be there."""
    vote: str | None
    """What the answer says in canonical form; None where there is no answer that counts."""


def answer_for(problem: Problem, parsed: Parsed) -> str:
    """What is checked: what the summary names as the answer, or all of it, where the task finds the answer itself."""
    return parsed.summary if is_dataset(problem.family) else parsed.answer


def read_completion(problem: Problem, text: str, truncated: bool, style: PromptStyle, forced: bool = False) -> Reading:
    """Reads one completion: strictly where the style is strict, leniently elsewhere.

    Args:
        problem: what was asked.
        text: decoded tokens after the prompt, without the end-of-sentence token.
        truncated: it ran into its length limit.
        style: in which it was asked.
        forced: its thinking was ended from outside, so that nobody can blame it for thinking nothing.
    """
    parsed = style.parse(text, truncated)
    formed = parsed.well_formed or (forced and parsed.flaw is Flaw.EMPTY_THINKING)
    general = problem.family in GENERAL
    visible = _visible(parsed.summary if formed else "", general, text, style)
    if general:
        answer = visible
    elif style.strict:
        answer = answer_for(problem, parsed)
    elif is_dataset(problem.family):
        answer = text.rsplit(END_THINK, 1)[-1] if ANSWER not in text else extract_leniently(text)
    else:
        answer = extract_leniently(text)
    counts = formed or not style.strict or general
    vote = judge_of(problem.family).canonical(problem, answer) if counts else None
    return Reading(parsed, visible, answer, counts, vote)


def _visible(summary: str, general: bool, text: str, style: PromptStyle) -> str:
    if style.name == "chat_direct":
        return text.strip()
    if not summary and style.name != "chat" and general:
        return extract_leniently(text)  # nobody taught R1-Zero the form for such questions
    return summary
