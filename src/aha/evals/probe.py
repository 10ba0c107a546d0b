"""What a base model's thinking is made of, before reinforcement learning: what the rules of `evals.growth` look at.

Every measurement asks the same held-out problems: as they are; with the end of thinking taken back; with a right
solution half-written; a line up to its verdict; a single step; with much thinking behind it. No torch here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from aha.configuration import Config
from aha.evals.growth import answer_of
from aha.rewards.reflection import reflection
from aha.tasks.answers import read_completion
from aha.tasks.datasets import is_right
from aha.tasks.families import FAMILIES, SEARCHES, Level, ReasoningName, held_out_suite
from aha.tasks.words import WORDS
from aha.test_time.budget_forcing import think_again
from aha.test_time.candidates import Respondent
from aha.text.templates import start
from aha.text.thinking import Parsed
from aha.text.tokenizer import END_THINK, THINK
from aha.types import Completion, FinishReason, Problem, Request, SamplingParams

Row = dict[str, Any]
DEPTHS = (0, 1, 2, 4, 8)
"""Lines of a right solution that are written before the model goes on."""
TOKENS_OF_A_STEP = 4
"""Sampled where a single step's result, or an item, is asked."""


class ProbeSettings(Config):
    """Which problems are asked, and how."""

    families: tuple[ReasoningName, ...] = Field(tuple(FAMILIES), min_length=1, description="families that are asked")
    levels: tuple[Level, ...] = Field((1, 2, 3, 4, 6, 8), min_length=1, description="levels that are asked")
    corpus_levels: tuple[Level, ...] = Field(
        (1, 2, 3, 4), min_length=1, description="levels at which the model has seen whole solutions"
    )
    problems_per_level: int = Field(8, gt=0, description="held-out problems per family and level")
    samples: int = Field(16, gt=0, le=1024, description="samples per problem")
    temperature: float = Field(1.0, gt=0, description="of sampling")
    max_completion_tokens: int = Field(256, gt=0, description="limit of one sample, in tokens")
    room: int = Field(448, gt=0, description="limit of a completion with all that is put into it, in tokens")
    lengths: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0, 64, 128, 256, 512),
        description="tokens that a thinking has already where it has to go on; what does not fit is left out",
    )
    suite_seed: int = Field(0, description="of the choice of problems")

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if not set(self.levels) & set(self.corpus_levels):
            raise ValueError(
                f"none of the levels asked ({_listed(self.levels)}) is one that the corpus has "
                f"({_listed(self.corpus_levels)}): ask one of these, or name the corpus's with --set corpus_levels=[..]"
            )
        if self.room < self.max_completion_tokens:
            raise ValueError(f"room {self.room} is less than max_completion_tokens {self.max_completion_tokens}")
        return self

    def problems(self, family: str) -> list[Problem]:
        """The held-out problems of a family."""
        return list(held_out_suite([family], sorted(set(self.levels)), self.problems_per_level, self.suite_seed))

    @property
    def far_level(self) -> int:
        """The level that is asked after long thinking: 2, or the one nearest to it."""
        return min(self.levels, key=lambda level: (abs(level - 2), level))


def _listed(levels: Iterable[int]) -> str:
    return ", ".join(map(str, levels))


def answers(respondent: Respondent, problems: Sequence[Problem], settings: ProbeSettings) -> list[Row]:
    """Whole samples, each read, and once more with the end of its thinking taken back."""
    drawn = respondent.samples(problems, settings.samples)
    again = think_again(respondent, problems, drawn)
    rows = []
    for problem, own, others in zip(problems, drawn, again, strict=True):
        needed = len(FAMILIES[problem.family].lines(problem, random.Random(0), problem.language))
        for index, (first, second) in enumerate(zip(own, others, strict=True)):
            text, parsed, correct = _read(respondent, problem, first)
            after, _, still = _read(respondent, problem, second)
            answer = answer_of(problem, parsed, correct)
            rows.append(
                {
                    **asdict(answer),
                    "key": problem.key,
                    "index": index,
                    "whole": answer.kind == "long" and lines_of_work(problem, parsed.thinking) == needed,
                    "attempts": reflection(problem, parsed) if answer.kind == "long" else {},
                    "continued": second != first,
                    "correct_again": still,
                    "completion": text,
                    "completion_again": after,
                }
            )
    return rows


def half_written(respondent: Respondent, problems: Sequence[Problem], settings: ProbeSettings) -> list[Row]:
    """A right solution of which some lines are there: does the model go on to the right answer, or stop too early?"""
    begun = [
        (problem, depth, lines[:depth], len(lines))
        for problem in problems
        for lines in [FAMILIES[problem.family].lines(problem, random.Random(0), problem.language)]
        for depth in DEPTHS
        if depth < len(lines)
    ]
    replies = _continued(respondent, settings, [(problem, "".join(written)) for problem, _, written, _ in begun])
    return [
        {
            "family": problem.family, "level": problem.level, "key": problem.key, "depth": depth, "needed": needed,
            "correct": correct, "well_formed": parsed.well_formed,
            "early": lines_of_work(problem, _thinking(text, parsed)) < needed, "completion": text,
        }
        for (problem, depth, _, needed), (text, parsed, correct) in zip(begun, replies, strict=True)
    ]  # fmt: skip


def far(respondent: Respondent, problems: Sequence[Problem], settings: ProbeSettings) -> list[Row]:
    """Easy problems whose thinking is so long already, all of it right, and has to go on with one more pass.

    Far is what lies between a line and the list that it looks things up in. Something else before the question would
    change nothing: rotary positions know distances only.
    """
    some, rows = [problem for problem in problems if problem.level == settings.far_level], []
    for length in settings.lengths:
        begun = [(problem, _long_thinking(respondent, problem, length)) for problem in some]
        replies = _continued(respondent, settings, begun, length)
        rows += [
            {
                "family": problem.family, "level": problem.level, "key": problem.key, "length": length,
                "correct": correct, "well_formed": parsed.well_formed, "completion": text,
            }
            for problem, (text, parsed, correct) in zip(some, replies, strict=True)
        ]  # fmt: skip
    return rows


def _long_thinking(respondent: Respondent, problem: Problem, length: int) -> str:
    """A right pass, right further ones up to at least so many tokens, and the word that begins one more."""
    family, tokenizer, language = FAMILIES[problem.family], respondent.tokenizer, problem.language
    once, twice = (
        family.passes(problem, random.Random(0), language, more, False, 0.0, True)[0] for more in (False, True)
    )
    text, further = once, twice.removeprefix(once)
    while len(tokenizer.encode(text)) < length:
        text += further
    return f"{text}{WORDS['wait'][language]}\n"


def verdicts(respondent: Respondent, problems: Sequence[Problem], settings: ProbeSettings) -> list[Row]:
    """Right work up to a verdict: which of the two words does the model choose?

    Of each problem the first verdict that has to accept, and the first that has to reject. Where a pass is gone through
    again, one that rejects stands behind a first pass with a mistake.
    """
    sites = [site for problem in problems for site in _sites(problem)]
    pairs = []
    for problem, before, accepting, rejecting, _ in sites:
        prompt = _prompt(respondent, problem, before)
        words = [respondent.tokenizer.encode(word) for word in (accepting, rejecting)]
        shared = 0
        while shared < min(map(len, words)) - 1 and words[0][shared] == words[1][shared]:
            shared += 1
        pairs += [((*prompt, *word[:shared]), (word[shared],)) for word in words]
    scores = [score[0] for score in respondent.generator.score(pairs)] if pairs else []
    return [
        {
            "family": problem.family, "level": problem.level, "key": problem.key, "right": accepts,
            "accepts": scores[2 * number] > scores[2 * number + 1],
        }
        for number, (problem, _, _, _, accepts) in enumerate(sites)
    ]  # fmt: skip


def _sites(problem: Problem) -> list[tuple[Problem, str, str, str, bool]]:
    """Places before a true verdict: the work up to there, the word that accepts, the one that rejects, which is due."""
    family, found = FAMILIES[problem.family], dict[bool, tuple[Problem, str, str, str, bool]]()
    names = ("yes", "no") if problem.family in SEARCHES else ("same", "differ")
    accepting, rejecting = (WORDS[name][problem.language] for name in names)
    for slip in (False, True):
        text, _ = family.passes(problem, random.Random(problem.key), problem.language, True, slip, 0.0, True)
        lines = text.splitlines(keepends=True)
        for step in family.check_steps(problem, text):
            if step.accepts is None or not step.true or step.accepts in found:
                continue
            line = lines[step.line].rstrip("\n")
            before = "".join(lines[: step.line]) + line.removesuffix(accepting if step.accepts else rejecting)
            found[step.accepts] = (problem, before, accepting, rejecting, step.accepts)
        if False in found:
            break
    return list(found.values())


def single_steps(respondent: Respondent, problems: Sequence[Problem], settings: ProbeSettings) -> list[Row]:
    """After a list alone: what stands at a label, and what one line of the solution comes to. Tokens are the likeliest.

    Another item is copied before the one that is asked, so that it is clear what is wanted.
    """
    cases: list[tuple[Problem, str, str, str]] = []
    for problem in problems:
        family, rng = FAMILIES[problem.family], random.Random(problem.key)
        items = problem.facts["items"]
        listed = family.listed(items, problem.language) + "\n"
        index = rng.randrange(1, len(items))
        before, copied = family.copied(items, index - 1, index)
        cases.append((problem, "look_up", listed + before + copied[0], copied[1:].rstrip("\n")))
        line = rng.choice(family.lines(problem, rng, problem.language))
        equals = [place for place, sign in enumerate(line) if sign == "="]
        cases += [(problem, "step", listed + line[: place + 1], line[place + 1]) for place in equals]
    tokenizer = respondent.tokenizer
    greedy = SamplingParams(0.0, max_completion_tokens=TOKENS_OF_A_STEP)
    requests = [Request((*start(tokenizer), *tokenizer.encode(before)), greedy) for _, _, before, _ in cases]
    found = [own[0] for own in respondent.generator.generate(requests)]
    return [
        {
            "family": problem.family, "level": problem.level, "key": problem.key, "what": what,
            "right": tokenizer.decode(one.token_ids).startswith(expected),
        }
        for (problem, what, _, expected), one in zip(cases, found, strict=True)
    ]  # fmt: skip


Measure = Callable[[Respondent, Sequence[Problem], ProbeSettings], list[Row]]
MEASURES: dict[str, Measure] = {
    "answers": answers,
    "half_written": half_written,
    "verdicts": verdicts,
    "single_steps": single_steps,
    "far": far,
}
"""What is measured of each family, by name."""


def lines_of_work(problem: Problem, thinking: str) -> int:
    """Lines of the first pass that can be checked."""
    lines = thinking.splitlines()
    end = next((number for number, line in enumerate(lines) if line in WORDS["wait"].values()), len(lines))
    steps = FAMILIES[problem.family].check_steps(problem, thinking)
    return len({step.line for step in steps if step.accepts is None and step.line < end})


def _prompt(respondent: Respondent, problem: Problem, written: str) -> tuple[int, ...]:
    """A question, and the thinking up to somewhere."""
    return (*respondent.style.prompt(respondent.tokenizer, problem), *_opened(respondent, written))


def _opened(respondent: Respondent, written: str) -> list[int]:
    """The beginning of a reply whose thinking begins so. The chat format's prompt ends in a new line itself."""
    style, tokenizer = respondent.style, respondent.tokenizer
    opening = [] if style.prefilled else tokenizer.encode_markup(THINK)
    return [*opening, *tokenizer.encode(written if style.template == "chat" else f"\n{written}")]


def _continued(
    respondent: Respondent, settings: ProbeSettings, begun: Sequence[tuple[Problem, str]], beyond: int = 0
) -> list[tuple[str, Parsed, bool]]:
    """Lets replies whose thinking begins so go on, and reads them: the text, its parts, whether it is right.

    A reply may have as many tokens as there is room, and `beyond` more.
    """
    starts, requests = [], []
    for problem, written in begun:
        after = _opened(respondent, written)
        seed = respondent.seed_for(f"after {len(written)} characters", problem)
        requests.append(respondent.continuation(problem, seed, max(1, settings.room + beyond - len(after)), after))
        starts.append(after)
    found = []
    completions = respondent.generator.generate(requests) if requests else []
    for (problem, _), after, (one,) in zip(begun, starts, completions, strict=True):
        whole = replace(one, token_ids=(*after, *one.token_ids))
        found.append(_read(respondent, problem, whole))
    return found


def _read(respondent: Respondent, problem: Problem, completion: Completion) -> tuple[str, Parsed, bool]:
    """A completion as text, its parts, and whether it is right."""
    reply = respondent.reply(completion)
    reading = read_completion(problem, reply.text, completion.finish_reason is not FinishReason.STOP, respondent.style)
    return reply.text, reading.parsed, reading.counts and is_right(problem, reading.answer)


def _thinking(text: str, parsed: Parsed) -> str:
    """What a reply thinks, whatever its form."""
    return parsed.thinking if parsed.well_formed else text.replace(THINK, "").split(END_THINK)[0].strip("\n")
