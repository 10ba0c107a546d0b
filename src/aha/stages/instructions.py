"""Conversations that the world writes: general data, short answers, exercises that make V3 a refiner and judge.

The papers' non-reasoning data (V3 section 5.1; R1 2.3.3: writing, factual questions, self-cognition, translation).
People wrote those; here the world does, with as many lapses as the settings say.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import ClassVar, Self

from pydantic import Field, model_validator

from aha.configuration import Config
from aha.data.conversations import Conversation, write_conversations
from aha.stages.assistant import Exercise, exercise
from aha.stages.sft import EXAMPLES
from aha.tasks.families import FAMILIES, GENERAL, GeneralName, Level, ReasoningName, draw, get_family, get_general
from aha.tasks.rewriting import one_language, summary
from aha.training.stage import StageContext, StageResult
from aha.types import Language

EXERCISES: tuple[Exercise, ...] = ("sum_up", "judge", "compare")


class InstructionsConfig(Config):
    """How many conversations, and of what. Shares are relative weights."""

    count: int = Field(2000, gt=0, description="conversations")
    general: float = Field(1.0, ge=0, description="share of general tasks")
    short: float = Field(0.0, ge=0, description="share of reasoning problems that are answered at once")
    brief: float = Field(0.0, ge=0, description="share of reasoning problems with a little work shown, no thinking")
    exercises: float = Field(0.0, ge=0, description="share of exercises in summing up, judging and comparing")
    thinking: bool = Field(False, description="general responses come after a few words of thinking")
    quality: float = Field(0.8, ge=0, le=1, description="probability that a general response is as good as can be")
    refusals: float = Field(0.6, ge=0, le=1, description="probability that a harmful request is refused")
    general_families: tuple[GeneralName, ...] = Field(
        tuple(GENERAL), min_length=1, description="general families that occur"
    )
    families: tuple[ReasoningName, ...] = Field(
        tuple(FAMILIES), min_length=1, description="reasoning families that occur"
    )
    levels: tuple[Level, ...] = Field((1, 2, 3), min_length=1, description="levels of the reasoning problems")
    chinese: float = Field(0.3, ge=0, le=1, description="share of conversations in Chinese")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.general + self.short + self.brief + self.exercises <= 0:
            raise ValueError("all shares are 0: there is nothing to write")
        return self


class Instructions:
    """The stage: writes `examples.jsonl`. Needs no model."""

    kind: ClassVar[str] = "instructions"

    def run(self, context: StageContext[InstructionsConfig]) -> StageResult:
        """Writes the conversations."""
        config = context.config
        counts: dict[str, int] = {}
        if context.distributed.is_first:
            written = list(instructions(config, context.derive_seed("conversations")))
            for conversation in written:
                source = str(conversation.about["source"])
                counts[source] = counts.get(source, 0) + 1
            write_conversations(context.folder / EXAMPLES, written)
        context.distributed.barrier()
        return StageResult({"examples": config.count, "by_source": dict(sorted(counts.items()))})


def instructions(config: InstructionsConfig, seed: int) -> Iterator[Conversation]:
    """Yields the conversations, each a function of (seed, its number)."""
    kinds = ("general", "short", "brief", "exercises")
    weights = [getattr(config, kind) for kind in kinds]
    for number in range(config.count):
        rng = random.Random(f"{seed}:{number}")
        language: Language = "zh" if rng.random() < config.chinese else "en"
        kind = rng.choices(kinds, weights)[0]
        if kind == "general":
            yield _general(config, rng, language)
        elif kind == "exercises":
            drawn = rng.choice(EXERCISES)
            yield exercise(rng, drawn, language, config.levels, config.families, config.general_families)
        else:
            yield _short(config, rng, language, work=kind == "brief")


def _general(config: InstructionsConfig, rng: random.Random, language: Language) -> Conversation:
    family = get_general(rng.choice(config.general_families))
    level = rng.choice(family.levels)
    problem = draw(rng, family, level, language, held_out=False)
    quality = config.refusals if problem.facts.get("_harmful") else config.quality
    reasoning = family.think(problem) if config.thinking else None
    response = family.respond(problem, rng, quality)
    return Conversation.of(
        problem.question, response, reasoning, source="general", family=family.name, level=level, key=problem.key
    )


def _short(config: InstructionsConfig, rng: random.Random, language: Language, work: bool) -> Conversation:
    family = get_family(rng.choice(config.families))
    level = rng.choice(config.levels)
    problem = draw(rng, family, level, language, held_out=False)
    response = summary(problem.answer, language)
    if work:
        solution = family.solve(problem, rng, "long", language)
        response = f"{one_language(solution.thinking, language)}\n{summary(solution.answer, language)}"
    source = "brief" if work else "short"
    return Conversation.of(problem.question, response, source=source, family=family.name, level=level, key=problem.key)
