"""Rule rewards: pure functions of a problem and a parsed completion, each in [0, 1], None for "no verdict".

R1 2.2.2: accuracy and format, no neural reward for reasoning. Language consistency is R1 Eq. 7.
"""

from __future__ import annotations

import hashlib

from aha.errors import GradingError
from aha.tasks.answers import answer_for
from aha.tasks.datasets import judge_of
from aha.text.language import is_chinese, words_of
from aha.text.thinking import Parsed
from aha.types import Language, Problem


def accuracy(problem: Problem, parsed: Parsed) -> float | None:
    """1 for a right answer in a well-formed completion; None if it cannot be judged."""
    try:
        return float(parsed.well_formed and judge_of(problem.family).verify(problem, answer_for(problem, parsed)))
    except GradingError:
        return None


def format_reward(problem: Problem, parsed: Parsed) -> float:
    """1 for the strict form: one non-empty think block, one answer, nothing else."""
    return float(parsed.well_formed)


def language_consistency(text: str, language: Language) -> float:
    """Share of a text's words that belong to a language (R1 Eq. 7).

    A word is a run of Latin letters or one Chinese character. A text without words is consistent: formulas have no
    language, and neither have the single letters that name things in them.
    """
    words = [word for word in words_of(text) if len(word) > 1 or is_chinese(word)]
    if not words:
        return 1.0
    chinese = sum(map(is_chinese, words))
    return (chinese if language == "zh" else len(words) - chinese) / len(words)


def language_reward(problem: Problem, parsed: Parsed) -> float:
    """Consistency of the thinking with the question's language; 0 where there is no well-formed thinking."""
    return language_consistency(parsed.thinking, problem.language) if parsed.well_formed else 0.0


def step_reward(problem: Problem, parsed: Parsed) -> float:
    """A process reward: the share of written steps that are true; 0 without any.

    Off by default. The papers found process rewards hard to define, hard to label and easily hacked (R1 4.2, G.2): here
    labelling is exact, but writing many trivial true steps still pays, which is what hacking means.
    """
    if not parsed.well_formed:
        return 0.0
    steps = judge_of(problem.family).check_steps(problem, parsed.thinking)
    return sum(step.true for step in steps) / len(steps) if steps else 0.0


def random_reward(problem: Problem, completion: str, seed: int) -> float:
    """A fair coin that depends on the completion's text alone: the control arm that teaches nothing about the task."""
    digest = hashlib.sha256(f"{seed}\x00{problem.key}\x00{completion}".encode(errors="surrogatepass")).digest()
    return float(digest[0] & 1)
