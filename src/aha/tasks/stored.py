"""Problems that a stage has written: training problems to draw from, held-out ones to measure by."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from aha.data.indexed import IndexedRows, write_rows
from aha.errors import ConfigError
from aha.files import derive_seed
from aha.types import Problem

TRAIN, HELD_OUT = "train.jsonl", "held_out.jsonl"
Cell = tuple[str, int]
"""A family or task, and a level."""


def write_problems(path: Path, problems: Iterable[Problem]) -> int:
    """Writes problems as JSON lines; returns how many."""
    return write_rows(path, map(asdict, problems))


def stored_problems(path: Path) -> Iterator[Problem]:
    """The problems of a file, one after the other."""
    return (Problem(**row) for row in IndexedRows(path))


def read_stored(path: Path) -> list[Problem]:
    """All problems of a file."""
    return list(stored_problems(path))


class StoredProblems:
    """The problems in a stage's folder. Each cell is gone through in a shuffled order, epoch after epoch.

    Training problems stay on disk.

    Args:
        folder: of a stage that wrote `train.jsonl` and `held_out.jsonl`.
        seed: of the order.
        wanted: which training problems are taken.

    Raises:
        ConfigError: there is no training problem that is wanted.
    """

    def __init__(self, folder: Path, seed: int, wanted: Callable[[Problem], bool] = lambda _: True) -> None:
        self._rows, self._seed = IndexedRows(folder / TRAIN), seed
        self._held_out = folder / HELD_OUT
        self._numbers: dict[Cell, list[int]] = {}
        for number, row in enumerate(self._rows):
            problem = Problem(**row)
            if wanted(problem):
                self._numbers.setdefault((problem.family, problem.level), []).append(number)
        self.cells = sorted(self._numbers)
        self.passed_over = len(self._rows) - len(self)
        if not self.cells:
            raise ConfigError(
                f"{folder}: none of its {len(self._rows)} training problems is of a trained level and short enough"
            )
        self._orders: dict[Cell, tuple[int, list[int]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._numbers.values()))

    def draw(self, cell: Cell, number: int) -> Problem:
        """The problem that is drawn from a cell as number `number` (from 0): a function of the seed alone."""
        epoch, place = divmod(number, len(self._numbers[cell]))
        known, order = self._orders.get(cell, (-1, []))
        if known != epoch:
            order = list(self._numbers[cell])
            random.Random(derive_seed(self._seed, *cell, epoch)).shuffle(order)
            self._orders[cell] = epoch, order
        return Problem(**self._rows[order[place]])

    def once(self) -> Iterator[Problem]:
        """Every problem once, in the shuffled order of its cell; cells that still have some take turns."""
        for number in range(max(map(len, self._numbers.values()))):
            for cell in self.cells:
                if number < len(self._numbers[cell]):
                    yield self.draw(cell, number)

    def held_out(self, per_cell: int, wanted: Callable[[Problem], bool]) -> list[Problem]:
        """The first held-out problems of each cell that are wanted, at most so many of each."""
        chosen: dict[Cell, list[Problem]] = {}
        for problem in stored_problems(self._held_out):
            own = chosen.setdefault((problem.family, problem.level), [])
            if len(own) < per_cell and wanted(problem):
                own.append(problem)
        return [problem for cell in sorted(chosen) for problem in chosen[cell]]
