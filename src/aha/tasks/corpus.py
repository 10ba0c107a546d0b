"""The pretraining corpus of the laptop world, made as the web is made.

Single facts, lists that are copied out, and questions with answers: mostly guesses, some work that is given up, a few
whole ways, of which half go on with "Wait" and a second pass that confirms or repairs. The shares are settings, because
what reinforcement learning can find depends on them. Every document is a pure function of (seed, index); no held-out
problem ever occurs, and no problem of a level that `levels` does not name.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from pydantic import Field, model_validator

from aha.configuration import Config
from aha.tasks.families import FAMILIES, Level, ReasoningName, draw, get_family, get_general, is_held_out
from aha.tasks.general.pages import page
from aha.tasks.lists import LONGEST_LIST, ListFamily
from aha.tasks.words import word
from aha.text.templates import ZERO_HEAD, ZERO_TAIL
from aha.text.tokenizer import ANSWER, BOS, END_ANSWER, END_THINK, EOS, THINK
from aha.types import Language, Piece, Problem, Style, Voice

PRACTICE_LEVELS = (3, 12)
"""Of lists to practise on: so that they have many lengths."""
QUESTIONS_ON_A_PAGE = (1, 2, 3, 4, 5, 6), (3, 2, 2, 1, 1, 1)
"""How many, and how often."""


class AnswerShares(Config):
    """How questions are answered: relative weights."""

    direct: float = Field(0.13, ge=0, description="an answer in its tags, without thinking")
    bare: float = Field(0.05, ge=0, description="an answer without tags")
    guess: float = Field(0.38, ge=0, description="a guess in the thinking")
    given_up: float = Field(0.07, ge=0, description="work that is given up half-way for a guess")
    long: float = Field(0.12, ge=0, description="the whole way, in tags")
    long_untagged: float = Field(0.25, ge=0, description="the whole way, without tags")

    @model_validator(mode="after")
    def _possible(self) -> AnswerShares:
        if not any(self.weights()):
            raise ValueError("all shares of answers are 0: no question could be answered")
        return self

    def weights(self) -> list[float]:
        """In the order of the fields."""
        return [getattr(self, name) for name in type(self).model_fields]


class CorpusConfig(Config):
    """What the corpus is made of."""

    practice: float = Field(0.2, ge=0, description="share of documents that are facts, or lists with single steps")
    questions: float = Field(0.8, ge=0, description="share of documents with questions and answers")
    general: float = Field(
        0.0, ge=0, description="share of documents that are not about reasoning: facts, phrase books, plays, advice"
    )
    answers: AnswerShares = Field(default_factory=AnswerShares, description="how questions are answered")
    template: float = Field(
        0.5, ge=0, le=1, description="of questions, the share under the R1-Zero template; the rest are on pages"
    )
    second_pass: float = Field(0.5, ge=0, le=1, description='of whole ways, the share that goes on with "Wait"')
    slip: float = Field(0.5, ge=0, le=1, description="of these, the share whose first pass holds a mistake")
    further_pass: float = Field(0.15, ge=0, le=1, description="probability of one more pass after two that agree")
    restate: bool = Field(True, description="each line of work carries the state that the next one needs")
    chinese: float = Field(0.3, ge=0, le=1, description="share of documents in Chinese")
    mixed: float = Field(0.2, ge=0, le=1, description="of whole ways, the share that mixes the languages")
    families: tuple[ReasoningName, ...] = Field(tuple(FAMILIES), min_length=1, description="families that occur")
    levels: tuple[Level, ...] = Field((1, 2, 3, 4), min_length=1, description="levels that occur")
    longest_list: int = Field(LONGEST_LIST, ge=2, description="items of a list, at most; levels may need more")

    @model_validator(mode="after")
    def _possible(self) -> CorpusConfig:
        if self.practice + self.questions + self.general <= 0:
            raise ValueError("all shares of documents are 0: there is nothing to write")
        return self


def without_long_solutions(config: CorpusConfig) -> CorpusConfig:
    """The control corpus: the same web without whole ways; their share goes to guesses."""
    shares = config.answers
    guesses = shares.guess + shares.long + shares.long_untagged
    return config.changed(answers={"guess": guesses, "long": 0.0, "long_untagged": 0.0})


def document(config: CorpusConfig, seed: int, index: int) -> list[Piece]:
    """Writes document number `index`, with its begin and end tokens."""
    rng = random.Random(f"{seed}:{index}")
    language: Language = "zh" if rng.random() < config.chinese else "en"
    kind = rng.choices(("practice", "questions", "general"), (config.practice, config.questions, config.general))[0]
    if kind == "general":
        body = [Piece(_general(rng, language))]
    elif kind == "practice":
        body = _practice(config, rng, language)
    elif rng.random() < config.template:
        problem = _problem(config, rng, language)
        question = [Piece(f"{ZERO_HEAD} "), Piece(problem.question, False), Piece(ZERO_TAIL)]
        body = [*question, *_answered(config, rng, problem)]
    else:
        body = _page(config, rng, language)
    return [Piece(BOS, False), *body, Piece(EOS)]


def text_of(document: Sequence[Piece]) -> str:
    """A document in one string."""
    return "".join(piece.text for piece in document)


def _problem(config: CorpusConfig, rng: random.Random, language: Language) -> Problem:
    family = FAMILIES[rng.choice(config.families)]
    return draw(rng, family, rng.choice(config.levels), language, held_out=False, longest=config.longest_list)


def _practice(config: CorpusConfig, rng: random.Random, language: Language) -> list[Piece]:
    """Facts of one family, or a list that is gone through a few times."""
    family = FAMILIES[rng.choice(config.families)]
    if rng.random() < 0.3:
        facts = (family.fact(rng, language) for _ in range(rng.randint(10, 25)))
        return [piece for asked, found in facts for piece in (Piece(asked, False), Piece(found + "\n"))]
    level = rng.randint(PRACTICE_LEVELS[0], max(PRACTICE_LEVELS[0], min(PRACTICE_LEVELS[1], config.longest_list)))
    problem = family.sample(rng, level, language, config.longest_list)
    pieces = [Piece(family.listed(problem.facts["items"], language), False)]
    for _ in range(rng.randint(1, 3)):
        pieces += family.practice(problem, rng)
    return pieces


def _page(config: CorpusConfig, rng: random.Random, language: Language) -> list[Piece]:
    """A list, and one or several questions about it."""
    problem = _problem(config, rng, language)
    family = FAMILIES[problem.family]
    listed = family.listed(problem.facts["items"], language)
    pieces = [Piece(listed, False)]
    for number in range(rng.choices(*QUESTIONS_ON_A_PAGE)[0]):
        if number:
            other = _another(config, rng, family, problem)
            if other is None:
                break
            problem = other
        asked = problem.question.removeprefix(listed)
        pieces += [Piece(asked + "\n", False), *_answered(config, rng, problem), Piece("\n")]
    return pieces


def _another(config: CorpusConfig, rng: random.Random, family: ListFamily, problem: Problem) -> Problem | None:
    """Another question about the same list that is not held out."""
    while (other := family.ask_again(problem, rng, rng.choice(config.levels))) is not None and is_held_out(other):
        pass
    return other


def _answered(config: CorpusConfig, rng: random.Random, problem: Problem) -> list[Piece]:
    """A reply in one of the ways in which the web answers."""
    how = rng.choices(tuple(AnswerShares.model_fields), config.answers.weights())[0]
    if how == "direct":
        return [Piece(ANSWER), Piece(problem.answer, False), Piece(END_ANSWER)]
    if how == "bare":
        return [Piece(" "), Piece(problem.answer, False)]
    style: Style = {"guess": "guess", "given_up": "given_up"}.get(how, "long")  # type: ignore[assignment]
    voice: Voice = "mixed" if rng.random() < config.mixed else problem.language
    solution = get_family(problem.family).solve(
        problem, rng, style, voice, config.second_pass, config.slip, config.further_pass, config.restate
    )
    if how == "long_untagged":
        return [Piece(f"\n{solution.thinking}\n{word('so', voice)}{solution.answer}")]
    reply = f"{THINK}\n{solution.thinking}\n{END_THINK}\n{ANSWER}{solution.answer}{END_ANSWER}"
    guess = word("guess", voice)
    before, found, after = reply.partition(guess)
    if not found:
        return [Piece(reply)]
    return [Piece(before + guess), Piece(solution.answer, False), Piece(after.removeprefix(solution.answer))]


def _general(rng: random.Random, language: Language) -> str:
    return page(
        rng,
        language,
        lambda name, level: draw(rng, get_family(name), level, language, held_out=False),
        lambda problem, quality: get_general(problem.family).respond(problem, rng, quality),
    )
