"""The pretraining corpus of the laptop world, made as the web is made.

Bare facts, short answers without work, worked solutions (some skip steps, many contain slips), a few long ones that
check and backtrack, and conversations, in two languages and several formats. The shares are settings, because what
reinforcement learning can find depends on them. Every document is a pure function of (seed, index); no held-out problem
ever occurs.
"""

from __future__ import annotations

import random

from pydantic import Field, model_validator

from aha.configuration import Config
from aha.tasks.families import FAMILIES, ReasoningName, draw, get_family, get_general
from aha.tasks.general.pages import page
from aha.text.templates import zero_document
from aha.text.tokenizer import ANSWER, BOS, END_ANSWER, END_THINK, EOS, THINK
from aha.types import Language, Problem, Solution, Style, Voice

LONGEST_SOLUTION = 400


class CorpusConfig(Config):
    """What the corpus is made of. Shares of a group are relative weights."""

    facts: float = Field(0.12, ge=0, description="share of documents that are lists of bare arithmetic facts")
    short: float = Field(0.1, ge=0, description="share of documents with questions and answers without work")
    worked: float = Field(0.28, ge=0, description="share of documents with a worked solution (brief or full)")
    long: float = Field(0.26, ge=0, description="share of documents with a long solution that checks and backtracks")
    conversation: float = Field(0.24, ge=0, description="share of documents under the R1-Zero template")
    general: float = Field(
        0.0, ge=0, description="share of documents that are not about reasoning: facts, phrase books, plays, advice"
    )
    tagged: float = Field(
        0.5, ge=0, le=1, description="of conversations, the share that thinks and answers inside tags"
    )
    direct: float = Field(0.35, ge=0, le=1, description="of conversations, the share that answers at once")
    brief: float = Field(0.5, ge=0, le=1, description="of worked solutions, the share that skips steps")
    long_in_conversation: float = Field(0.15, ge=0, le=1, description="of worked conversations, the share that checks")
    slip_rate: float = Field(0.2, ge=0, le=0.5, description="probability that a written step is wrong")
    chinese: float = Field(0.3, ge=0, le=1, description="share of problems in Chinese")
    mixed: float = Field(0.35, ge=0, le=1, description="of worked solutions, the share that mixes the languages")
    families: tuple[ReasoningName, ...] = Field(tuple(FAMILIES), min_length=1, description="families that occur")
    level_weights: tuple[float, float, float, float, float] = Field(
        (0.3, 0.28, 0.24, 0.1, 0.08), description="relative weights of levels 1 to 5"
    )

    @model_validator(mode="after")
    def _possible(self) -> CorpusConfig:
        if self.facts + self.short + self.worked + self.long + self.conversation + self.general <= 0:
            raise ValueError("all shares of documents are 0: there is nothing to write")
        if self.tagged + self.direct > 1:
            raise ValueError(f"tagged + direct = {self.tagged + self.direct:g}; at most 1 is possible")
        return self


def without_long_solutions(config: CorpusConfig) -> CorpusConfig:
    """The control corpus: the same web without long solutions; their share goes to worked ones."""
    return config.changed(worked=config.worked + config.long, long=0.0, long_in_conversation=0.0)


def document(config: CorpusConfig, seed: int, index: int) -> str:
    """Writes document number `index`, with its begin and end tokens, as markup."""
    rng = random.Random(f"{seed}:{index}")
    kinds = ("facts", "short", "worked", "long", "conversation", "general")
    kind = rng.choices(kinds, [getattr(config, name) for name in kinds])[0]
    if kind == "facts":
        body = _facts(rng)
    elif kind == "short":
        body = _short(config, rng)
    elif kind == "conversation":
        body = _conversation(config, rng)
    elif kind == "general":
        body = _general(config, rng)
    else:
        style: Style = "check" if kind == "long" else _style(config, rng)
        body = _worked(rng, *_solved(config, rng, style))
    return BOS + body + EOS


def _problem(config: CorpusConfig, rng: random.Random) -> Problem:
    language: Language = "zh" if rng.random() < config.chinese else "en"
    level = rng.choices((1, 2, 3, 4, 5), config.level_weights)[0]
    return draw(rng, get_family(rng.choice(config.families)), level, language, held_out=False)


def _style(config: CorpusConfig, rng: random.Random) -> Style:
    return "brief" if rng.random() < config.brief else "full"


def _solved(config: CorpusConfig, rng: random.Random, style: Style) -> tuple[Problem, Solution]:
    """A problem with a solution of at most `LONGEST_SOLUTION` characters; nobody prints a longer one."""
    while True:
        problem = _problem(config, rng)
        voice: Voice = "mixed" if rng.random() < config.mixed else problem.language
        solution = get_family(problem.family).solve(problem, rng, style, voice, config.slip_rate)
        if len(solution.thinking) <= LONGEST_SOLUTION:
            return problem, solution


def _facts(rng: random.Random) -> str:
    lines = []
    for _ in range(rng.randint(8, 16)):
        op = rng.choice("++--*/")
        if op == "+":
            left, right = rng.randint(0, 99), rng.randint(1, 20)
            lines.append(f"{left}+{right}={left + right}")
        elif op == "-":
            left, right = rng.randint(0, 99), rng.randint(1, 20)
            lines.append(f"{left + right}-{right}={left}")
        else:
            left, right = rng.randint(2, 12), rng.randint(2, 18)
            left, right = (left, right) if rng.random() < 0.5 else (right, left)
            lines.append(f"{left}*{right}={left * right}" if op == "*" else f"{left * right}/{right}={left}")
    return "\n".join(lines)


def _short(config: CorpusConfig, rng: random.Random) -> str:
    lines = []
    for _ in range(rng.randint(1, 3)):
        problem = _problem(config, rng)
        ask, reply = ("Q: ", "\nA: ") if problem.language == "en" else ("问：", "\n答：")
        lines.append(f"{ask}{problem.question}{reply}{problem.answer}")
    return "\n".join(lines)


def _general(config: CorpusConfig, rng: random.Random) -> str:
    language: Language = "zh" if rng.random() < config.chinese else "en"
    return page(
        rng,
        language,
        lambda name, level: draw(rng, get_family(name), level, language, held_out=False),
        lambda problem, quality: get_general(problem.family).respond(problem, rng, quality),
    )


def _worked(rng: random.Random, problem: Problem, solution: Solution) -> str:
    english = problem.language == "en"
    if rng.random() < 0.5:
        head, work, end = (
            ("Problem: ", "\nSolution:\n", "\nAnswer: ") if english else ("题目：", "\n解：\n", "\n答案：")
        )
        return f"{head}{problem.question}{work}{solution.thinking}{end}{solution.answer}"
    head, work, end = (
        ("Q: ", "\nA: Let's think step by step.\n", "\nThe answer is ")
        if english
        else ("问：", "\n答：我们一步一步想。\n", "\n答案是")
    )
    return f"{head}{problem.question}{work}{solution.thinking}{end}{solution.answer}{'.' if english else '。'}"


def _conversation(config: CorpusConfig, rng: random.Random) -> str:
    draw_kind = rng.random()
    if draw_kind < config.direct:
        problem = _problem(config, rng)
        return zero_document(problem.question, f" {problem.answer}")
    style: Style = "check" if rng.random() < config.long_in_conversation else _style(config, rng)
    problem, solution = _solved(config, rng, style)
    if draw_kind < config.direct + config.tagged:
        return zero_document(
            problem.question, f"{THINK}{solution.thinking}{END_THINK}\n{ANSWER}{solution.answer}{END_ANSWER}"
        )
    return zero_document(problem.question, f"\n{solution.thinking}\n{solution.answer}")
