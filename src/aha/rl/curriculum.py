"""Which problems a step asks: cells (family, level) at the edge of competence come up more often.

Where a window is set, each family begins with its lowest levels, and the next one opens when the highest open one is
mastered. Problems that are too hard teach nothing, and those that are mastered shorten the thinking: so the levels rise
with the model, and a share of easy problems stays (e3, 2506.09026).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aha.errors import ConfigError
from aha.rl.config import CurriculumConfig
from aha.tasks.stored import Cell
from aha.types import Problem

Draw = Callable[[random.Random, Cell, int], Problem]
"""Draws a training problem of a cell: the number-th of it, counted from 0."""
FEW_GROUPS = 4
"""Groups of a cell, at least, before its recent accuracy is taken at its word."""
EASY_LEVELS = 2
"""The lowest levels of each family, which `easy_share` is about."""
FORGOTTEN = 0.2
"""A recent accuracy that is further below its own best counts as forgotten."""


@dataclass(slots=True)
class Record:
    """What is known of a cell."""

    accuracy: float = 0.5
    """Recent accuracy: a mean in which older groups count less."""
    best: float = 0.0
    """The highest recent accuracy so far, since it could be taken at its word."""
    drawn: int = 0
    """Problems asked."""
    seen: int = 0
    """Groups graded."""
    open: bool = True
    """It is drawn from."""


class Curriculum:
    """Recent accuracy per cell, and draws by it. Its whole state is `state`.

    Args:
        rule: how cells are weighed, and which are open.
        cells: what there is to train on.
        draw: where problems come from.

    Raises:
        ConfigError: a family has fewer levels than are to be open at the start.
    """

    def __init__(self, rule: CurriculumConfig, cells: Sequence[Cell], draw: Draw) -> None:
        self._rule, self._draw = rule, draw
        self.cells: dict[Cell, Record] = {cell: Record() for cell in cells}
        self._levels: dict[str, list[int]] = {}
        for family, level in sorted(self.cells, key=lambda cell: cell[1]):
            self._levels.setdefault(family, []).append(level)
        # As many groups as the recent accuracy remembers: before, it still is mostly what it began with.
        self._settled = max(FEW_GROUPS, round(1.0 / (1.0 - rule.memory)))
        for family, levels in self._levels.items() if rule.start_levels else ():
            if len(levels) < rule.start_levels:
                raise ConfigError(
                    f"prompts.curriculum.start_levels = {rule.start_levels}: {family!r} has {len(levels)} trained "
                    f"levels ({', '.join(map(str, levels))}); lower it, or train more levels (prompts.levels)"
                )
            for level in levels[rule.start_levels :]:
                self.cells[family, level].open = False

    def weight(self, cell: Cell) -> float:
        """Relative frequency of an open cell."""
        if not self._rule.enabled:
            return 1.0
        p = self.cells[cell].accuracy
        return self._rule.floor / 4 if p >= self._rule.drop_above else p * (1.0 - p) + self._rule.floor

    def sample(self, rng: random.Random) -> Problem:
        """Draws a training problem."""
        cells = [cell for cell, record in self.cells.items() if record.open]
        if self._rule.easy_share:
            easy = [cell for cell in cells if cell[1] in self._levels[cell[0]][:EASY_LEVELS]]
            if rng.random() < self._rule.easy_share:
                return self._drawn(rng, rng.choice(easy))
            cells = [cell for cell in cells if cell not in easy or self._top(cell[0]) <= self._easiest(cell[0])]
        return self._drawn(rng, rng.choices(cells, [self.weight(cell) for cell in cells])[0])

    def _drawn(self, rng: random.Random, cell: Cell) -> Problem:
        self.cells[cell].drawn += 1
        return self._draw(rng, cell, self.cells[cell].drawn - 1)

    def _top(self, family: str) -> int:
        """The highest open level of a family."""
        return max(level for level in self._levels[family] if self.cells[family, level].open)

    def _easiest(self, family: str) -> int:
        """The highest of a family's easy levels."""
        return self._levels[family][:EASY_LEVELS][-1]

    def update(self, results: list[tuple[str, int, float]]) -> None:
        """Takes in (family, level, accuracy) of the groups of a step, in a fixed order; opens what is due."""
        for family, level, accuracy in results:
            cell = self.cells[family, level]
            cell.accuracy = self._rule.memory * cell.accuracy + (1.0 - self._rule.memory) * accuracy
            cell.seen += 1
            if cell.seen >= self._settled:
                cell.best = max(cell.best, cell.accuracy)
        for family, levels in self._levels.items():
            top = self._top(family)
            highest = self.cells[family, top]
            if top < levels[-1] and highest.seen >= self._settled and highest.accuracy > self._rule.open_at:
                self.cells[family, levels[levels.index(top) + 1]].open = True

    def metrics(self) -> dict[str, float]:
        """How many cells are forgotten, and where levels open one by one each family's highest open one."""
        forgotten = sum(record.best - record.accuracy > FORGOTTEN for record in self.cells.values())
        tops = {f"curriculum/top/{family}": float(self._top(family)) for family in self._levels}
        return {"curriculum/forgotten": float(forgotten)} | (tops if self._rule.start_levels else {})

    def state(self) -> list[dict[str, Any]]:
        """JSON-able."""
        return [{"family": cell[0], "level": cell[1], **asdict(record)} for cell, record in self.cells.items()]

    def load_state(self, state: Sequence[dict[str, Any]]) -> None:
        """Restores what `state` gave."""
        rows = [dict(row) for row in state]
        self.cells = {(row.pop("family"), row.pop("level")): Record(**row) for row in rows}
