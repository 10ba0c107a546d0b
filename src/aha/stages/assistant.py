"""V3 at work for the recipe: it sums up solutions, judges answers given the truth, and compares responses.

R1's data are made with DeepSeek-V3 as refiner and judge (R1 2.3.1, 2.3.3, supplement B.3). Here too, behind
`protocols.Generator`; but a model of laptop size does such work only as far as it was taught, so each use measures how
often V3 agrees with the world's rules, and the caller lets the rules decide where that is not often enough.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from aha.data.conversations import Conversation
from aha.protocols import Generator
from aha.tasks.families import FAMILIES, GENERAL, draw, get_family, get_general
from aha.tasks.rewriting import summary
from aha.text.asker import Asker
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import Tokenizer
from aha.types import Language, Problem, SamplingParams

Exercise = Literal["sum_up", "judge", "compare"]
YES, NO = "yes", "no"
_PREFERENCE = {("A", "B"): 1.0, ("B", "A"): 0.0}
"""For the first response, by what is said of the pair as it is and turned around."""


def sum_up_prompt(problem: Problem, answer: str) -> str:
    """Asks for the sentence that a reader sees after the thinking."""
    head, result = ("Sum up", "Result") if problem.language == "en" else ("总结", "结果")
    return f"{head}: {problem.question}\n{result}: {answer}"


def judge_prompt(problem: Problem, answer: str) -> str:
    """Asks whether an answer is right, given the ground truth."""
    return f"Judge: {problem.question}\nTruth: {problem.answer}\nAnswer: {answer}"


def compare_prompt(problem: Problem, first: str, second: str) -> str:
    """Asks which of two responses is better."""
    return f"Compare: {problem.question}\nA: {first}\nB: {second}"


def exercise(
    rng: random.Random,
    kind: Exercise,
    language: Language,
    levels: Sequence[int],
    families: Sequence[str] = tuple(FAMILIES),
    general_families: Sequence[str] = tuple(GENERAL),
) -> Conversation:
    """One conversation that teaches V3 such work.

    Args:
        rng: all that is random.
        kind: which work.
        language: of the question.
        levels: of the reasoning problems.
        families: reasoning families that occur.
        general_families: general families that occur.
    """
    if kind == "compare":
        family = get_general(rng.choice(general_families))
        problem = draw(rng, family, rng.choice(family.levels), language, held_out=False)
        while True:
            pair = [family.respond(problem, rng, quality) for quality in (1.0, 0.2)]
            scores = [family.score(problem, response) for response in pair]
            if scores[0] != scores[1]:
                break
        if rng.random() < 0.5:
            pair, scores = pair[::-1], scores[::-1]
        verdict = "A" if scores[0] > scores[1] else "B"
        return Conversation.of(compare_prompt(problem, pair[0], pair[1]), verdict, source=kind)
    reasoning = get_family(rng.choice(families))
    problem = draw(rng, reasoning, rng.choice(list(levels)), language, held_out=False)
    if kind == "sum_up":
        return Conversation.of(sum_up_prompt(problem, problem.answer), summary(problem.answer, language), source=kind)
    answer = reasoning.solve(problem, rng, "guess" if rng.random() < 0.5 else "long", language).answer
    verdict = YES if reasoning.verify(problem, answer) else NO
    return Conversation.of(judge_prompt(problem, answer), verdict, source=kind)


class Assistant:
    """A fine-tuned model that answers such prompts, greedily.

    Args:
        generator: of the model.
        tokenizer: of the model.
        longest: completion tokens of a summary.
    """

    def __init__(self, generator: Generator, tokenizer: Tokenizer, longest: int = 32) -> None:
        self._asker, self._longest = Asker(generator, tokenizer, PromptStyle.named("chat_direct")), longest

    def _answers(self, prompts: Sequence[str], longest: int | None = None) -> list[str]:
        """Replies in order; an empty text for one that does not end."""
        sampling = SamplingParams(temperature=0.0, max_completion_tokens=longest or self._longest)
        replies = self._asker.ask(prompts, sampling, [0] * len(prompts))
        return ["" if reply.truncated else reply.text.strip() for (reply,) in replies]

    def sum_up(self, items: Sequence[tuple[Problem, str]]) -> list[str]:
        """A sentence for each (problem, answer)."""
        return self._answers([sum_up_prompt(problem, answer) for problem, answer in items])

    def judge(self, items: Sequence[tuple[Problem, str]]) -> list[bool]:
        """Whether each answer is right, in V3's opinion, given the truth."""
        return [
            reply == YES for reply in self._answers([judge_prompt(problem, answer) for problem, answer in items], 4)
        ]

    def compare(self, items: Sequence[tuple[Problem, str, str]]) -> list[float]:
        """Preference for the first response over the second: 1 or 0 where both orders say so, else 0.5.

        A reply that is neither A nor B is no verdict, and leaves it at 0.5.
        """
        there = self._answers([compare_prompt(problem, a, b) for problem, a, b in items], 4)
        back = self._answers([compare_prompt(problem, b, a) for problem, a, b in items], 4)
        return [_PREFERENCE.get(replies, 0.5) for replies in zip(there, back, strict=True)]
