"""Which problems a step asks: cells (family, level) at the edge of competence come up more often."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from aha.rl.config import CurriculumConfig
from aha.tasks.stored import Cell
from aha.types import Problem

Draw = Callable[[random.Random, Cell, int], Problem]
"""Draws a training problem of a cell: the number-th of it, counted from 0."""


class Curriculum:
    """Recent accuracy per cell, and draws by it. Its whole state is `state`.

    Args:
        rule: how cells are weighed.
        cells: what there is to train on.
        draw: where problems come from.
    """

    def __init__(self, rule: CurriculumConfig, cells: Sequence[Cell], draw: Draw) -> None:
        self._rule, self._draw = rule, draw
        self.accuracy: dict[Cell, float] = dict.fromkeys(cells, 0.5)
        self.drawn: dict[Cell, int] = dict.fromkeys(cells, 0)

    def weight(self, cell: Cell) -> float:
        """Relative frequency of a cell."""
        if not self._rule.enabled:
            return 1.0
        p = self.accuracy[cell]
        return self._rule.floor / 4 if p >= self._rule.drop_above else p * (1.0 - p) + self._rule.floor

    def sample(self, rng: random.Random) -> Problem:
        """Draws a training problem."""
        cells = list(self.accuracy)
        cell = rng.choices(cells, [self.weight(cell) for cell in cells])[0]
        self.drawn[cell] += 1
        return self._draw(rng, cell, self.drawn[cell] - 1)

    def update(self, results: list[tuple[str, int, float]]) -> None:
        """Takes in (family, level, accuracy) of the groups of a step, in a fixed order."""
        for family, level, accuracy in results:
            old = self.accuracy[family, level]
            self.accuracy[family, level] = self._rule.memory * old + (1.0 - self._rule.memory) * accuracy

    def state(self) -> list[list[str | int | float]]:
        """JSON-able."""
        return [[*cell, value, self.drawn[cell]] for cell, value in self.accuracy.items()]

    def load_state(self, state: list[list[str | int | float]]) -> None:
        """Restores what `state` gave."""
        self.accuracy = {(str(family), int(level)): float(value) for family, level, value, _ in state}
        self.drawn = {(str(family), int(level)): int(drawn) for family, level, _, drawn in state}
