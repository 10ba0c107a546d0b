"""Which problems a step asks: cells (family, level) at the edge of competence come up more often."""

from __future__ import annotations

import random

from aha.rl.config import CurriculumConfig, GRPOConfig
from aha.tasks.families import draw, get_family
from aha.types import Language, Problem, RolloutGroup

Cell = tuple[str, int]


class Curriculum:
    """Recent accuracy per cell, and draws by it. Its whole state is `state`.

    Args:
        config: families, levels and the rule.
    """

    def __init__(self, config: GRPOConfig) -> None:
        self._config = config
        self._rule: CurriculumConfig = config.curriculum
        self.accuracy: dict[Cell, float] = {
            (family, level): 0.5 for family in config.families for level in config.levels
        }

    def weight(self, cell: Cell) -> float:
        """Relative frequency of a cell."""
        if not self._rule.enabled:
            return 1.0
        p = self.accuracy[cell]
        return self._rule.floor / 4 if p >= self._rule.drop_above else p * (1.0 - p) + self._rule.floor

    def sample(self, rng: random.Random) -> Problem:
        """Draws a training problem."""
        cells = list(self.accuracy)
        family, level = rng.choices(cells, [self.weight(cell) for cell in cells])[0]
        language: Language = "zh" if rng.random() < self._config.chinese else "en"
        return draw(rng, get_family(family), level, language, held_out=False)

    def update(self, results: list[tuple[str, int, float]]) -> None:
        """Takes in (family, level, accuracy) of the groups of a step, in a fixed order."""
        for family, level, accuracy in results:
            old = self.accuracy[family, level]
            self.accuracy[family, level] = self._rule.memory * old + (1.0 - self._rule.memory) * accuracy

    def state(self) -> list[list[str | int | float]]:
        """JSON-able."""
        return [[family, level, value] for (family, level), value in self.accuracy.items()]

    def load_state(self, state: list[list[str | int | float]]) -> None:
        """Restores what `state` gave."""
        self.accuracy = {(str(family), int(level)): float(value) for family, level, value in state}


def group_accuracy(group: RolloutGroup) -> float:
    """Mean accuracy of a group's graded rollouts."""
    graded = [rollout.rewards["accuracy"] for rollout in group.rollouts if rollout.reward is not None]
    return sum(graded) / len(graded) if graded else 0.0
