"""Where the questions of reinforcement learning come from: the generated families, or the problems of a stage."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from aha.rl.config import GRPOConfig
from aha.tasks.families import draw, get_family, held_out_suite
from aha.tasks.stored import Cell, StoredProblems
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import Tokenizer
from aha.training.stage import StageContext
from aha.types import Language, Problem

SUITE_SEED = 1
"""Of the choice of held-out problems: not those of the final comparison."""


class Prompts(Protocol):
    """Training and held-out problems."""

    cells: Sequence[Cell]
    """What can be drawn from."""

    def draw(self, rng: random.Random, cell: Cell, number: int) -> Problem:
        """Training problem `number` of the cell, counted from 0."""
        ...

    def held_out(self) -> list[Problem]:
        """What is measured by during training."""
        ...


class GeneratedPrompts:
    """Problems of the laptop world's families, made as they are needed."""

    def __init__(self, config: GRPOConfig) -> None:
        self._config = config
        prompts = config.prompts
        self.cells: Sequence[Cell] = [(family, level) for family in prompts.families for level in prompts.levels]

    def draw(self, rng: random.Random, cell: Cell, number: int) -> Problem:
        """Any problem of the cell: there are so many that none need be counted."""
        language: Language = "zh" if rng.random() < self._config.prompts.chinese else "en"
        return draw(rng, get_family(cell[0]), cell[1], language, held_out=False)

    def held_out(self) -> list[Problem]:
        """The held-out suite of the same families, at all levels that are measured."""
        held_out = self._config.held_out
        families = self._config.prompts.families
        return list(held_out_suite(families, held_out.levels, held_out.problems_per_level, SUITE_SEED))


class StoredPrompts:
    """Problems that a stage has written, of the levels asked for, whose prompts are not too long."""

    def __init__(self, config: GRPOConfig, tokenizer: Tokenizer, context: StageContext) -> None:
        self._config, self._tokenizer = config, tokenizer
        folder = context.parent_folder(config.prompts.stage)
        self._stored = StoredProblems(folder, context.derive_seed("problems"), self._wanted(config.prompts.levels))
        self.cells: Sequence[Cell] = self._stored.cells
        if self._stored.passed_over:
            context.progress.notify(
                f"{context.name}: {self._stored.passed_over} training problems are not of levels "
                f"{', '.join(map(str, config.prompts.levels))} or have more than prompts.max_tokens = "
                f"{config.prompts.max_tokens}"
            )

    def draw(self, rng: random.Random, cell: Cell, number: int) -> Problem:
        """The cell's problems in a shuffled order, each once before any comes again."""
        return self._stored.draw(cell, number)

    def held_out(self) -> list[Problem]:
        """The first held-out problems of each cell, at the levels that are measured."""
        held_out = self._config.held_out
        return self._stored.held_out(held_out.problems_per_level, self._wanted(held_out.levels))

    def _wanted(self, levels: Sequence[int]) -> Callable[[Problem], bool]:
        style = PromptStyle.named(self._config.style)

        def wanted(problem: Problem) -> bool:
            length = len(style.prompt(self._tokenizer, problem))
            return problem.level in levels and length <= self._config.prompts.max_tokens

        return wanted


def make_prompts(config: GRPOConfig, tokenizer: Tokenizer, context: StageContext) -> Prompts:
    """The prompts that a configuration asks for."""
    return StoredPrompts(config, tokenizer, context) if config.prompts.stage else GeneratedPrompts(config)
