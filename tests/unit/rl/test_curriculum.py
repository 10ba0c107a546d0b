"""Which cells the curriculum draws, and how its window of levels opens."""

import random
from collections import Counter
from typing import Any

import pytest

from aha.configuration import build_config
from aha.errors import ConfigError
from aha.rl.config import CurriculumConfig, GRPOConfig
from aha.rl.curriculum import Curriculum
from aha.rl.prompts import GeneratedPrompts
from aha.tasks.families import is_held_out
from aha.types import Problem

from ..conftest import nested


def make(levels: tuple[int, ...] = (1, 2, 3, 4, 5), **rule: Any) -> Curriculum:
    config = GRPOConfig(
        **nested(
            {
                "prompts.families": ("sums", "cups"),
                "prompts.levels": levels,
                "prompts.curriculum": CurriculumConfig(**rule),
            }
        )
    )
    prompts = GeneratedPrompts(config)
    return Curriculum(config.prompts.curriculum, prompts.cells, prompts.draw)


def counted(curriculum: Curriculum, draws: int, seed: int = 0) -> Counter[tuple[str, int]]:
    rng = random.Random(seed)
    return Counter((problem.family, problem.level) for problem in (curriculum.sample(rng) for _ in range(draws)))


def tops(curriculum: Curriculum) -> list[float]:
    metrics = curriculum.metrics()
    return [metrics["curriculum/top/sums"], metrics["curriculum/top/cups"]]


def test_the_curriculum_prefers_the_edge_and_never_draws_held_out_problems() -> None:
    curriculum = make((1, 2))
    curriculum.update([("sums", 1, 1.0)] * 60 + [("cups", 2, 0.0)] * 60)
    rng = random.Random(0)
    drawn = [curriculum.sample(rng) for _ in range(800)]
    cells = Counter((problem.family, problem.level) for problem in drawn)
    assert cells["sums", 2] > 2 * cells["cups", 2] > 2 * cells["sums", 1] > 0
    assert not any(is_held_out(problem) for problem in drawn)


def test_without_the_curriculum_all_cells_are_alike() -> None:
    curriculum = make(enabled=False)
    curriculum.update([("sums", 1, 1.0)] * 60)
    assert {curriculum.weight(cell) for cell in curriculum.cells} == {1.0}


def test_without_a_window_the_draws_are_those_of_the_weights_alone() -> None:
    """Seeded runs keep their problems: one choice among all cells, and nothing else is drawn."""
    curriculum, rng, other = make(), random.Random(7), random.Random(7)
    cells = [(family, level) for family in ("sums", "cups") for level in (1, 2, 3, 4, 5)]
    prompts = GeneratedPrompts(GRPOConfig(**nested({"prompts.families": ("sums", "cups")})))
    for _ in range(20):
        cell = other.choices(cells, [0.25 + 0.08] * 10)[0]
        assert curriculum.sample(rng) == prompts.draw(other, cell, 0)
    assert "curriculum/top/sums" not in curriculum.metrics()


def test_a_level_opens_above_the_one_that_is_mastered() -> None:
    curriculum = make(start_levels=2)
    assert set(counted(curriculum, 300)) == {("sums", 1), ("sums", 2), ("cups", 1), ("cups", 2)}
    curriculum.update([("sums", 1, 1.0)] * 60)
    assert tops(curriculum) == [2, 2], "a lower level opens nothing"
    curriculum.update([("sums", 2, 1.0)] * 9)
    assert curriculum.cells["sums", 2].accuracy == pytest.approx(1 - 0.5 * 0.9**9) and 1 - 0.5 * 0.9**9 > 0.8
    assert tops(curriculum) == [2, 2], "seen nine times; the memory spans ten groups"
    curriculum.update([("sums", 2, 1.0)])
    assert tops(curriculum) == [3, 2]
    assert ("sums", 3) in counted(curriculum, 300) and ("cups", 3) not in counted(curriculum, 300)
    for _ in range(5):
        curriculum.update([("sums", 2, 1.0)] * 10)
    assert tops(curriculum) == [3, 2], "what has just opened has to be mastered itself"


def test_a_level_that_just_opened_does_not_open_the_next() -> None:
    """Not even where its first accuracy is above the threshold, and nothing is remembered."""
    curriculum = make(start_levels=1, open_at=0.4, memory=0.0)
    found = []
    for _ in range(12):
        top = int(tops(curriculum)[0])
        curriculum.update([("sums", top, 1.0)])
        found.append(tops(curriculum)[0])
    assert found == [1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4], "four groups each"
    for _ in range(12):
        curriculum.update([("sums", 4, 1.0), ("sums", 5, 1.0)])
    assert tops(curriculum) == [5, 1], "there is nothing above the highest"


def test_easy_levels_keep_their_share() -> None:
    """In sums levels 3 and 4 are open beside the easy ones; in cups the easy ones are all there is."""
    curriculum = make((1, 2, 3, 4), start_levels=2, easy_share=0.25, enabled=False)
    for level in (2, 3):
        curriculum.update([("sums", level, 1.0)] * 20)
    assert tops(curriculum) == [4, 2]
    cells = counted(curriculum, 4000)
    # A quarter on four easy cells alike; the rest on sums 3 and 4 and on cups 1 and 2.
    easy, rest = 4000 * 0.25 / 4, 4000 * 0.75 / 4
    expected = {("sums", 1): easy, ("sums", 2): easy, ("sums", 3): rest, ("sums", 4): rest}
    expected |= {("cups", 1): easy + rest, ("cups", 2): easy + rest}
    assert cells.keys() == expected.keys()
    for cell, count in expected.items():
        assert cells[cell] == pytest.approx(count, abs=110), cell  # about four deviations


def test_inside_the_window_the_edge_comes_up_more_often() -> None:
    curriculum = make((1, 2, 3), start_levels=2)
    curriculum.update([("sums", 1, 1.0)] * 60)
    cells = counted(curriculum, 1000)
    assert cells["sums", 2] > 5 * cells["sums", 1] > 0 and cells["sums", 3] == 0


def test_forgotten_cells_are_counted() -> None:
    curriculum = make((1, 2))
    curriculum.update([("sums", 1, 0.0)] * 60)
    assert curriculum.metrics() == {"curriculum/forgotten": 0.0}, "never known is not forgotten"
    curriculum.update([("cups", 1, 1.0)] * 20)
    best = 1 - 0.5 * 0.9**20
    curriculum.update([("cups", 1, 0.0)] * 2)
    assert best * (1 - 0.9**2) < 0.2 and curriculum.metrics() == {"curriculum/forgotten": 0.0}
    curriculum.update([("cups", 1, 0.0)])
    assert best * (1 - 0.9**3) > 0.2 and curriculum.metrics() == {"curriculum/forgotten": 1.0}


def test_a_curriculum_goes_on_where_it_was() -> None:
    rule = {"start_levels": 2, "easy_share": 0.3, "open_at": 0.6}
    one = make(**rule)
    one.update([("sums", 2, 1.0)] * 12 + [("cups", 1, 0.25)] * 3)
    counted(one, 50)
    other = make(**rule)
    other.load_state(one.state())
    assert other.state() == one.state() and tops(other) == [3, 2]
    assert sum(record.drawn for record in other.cells.values()) == 50
    for curriculum in (one, other):
        curriculum.update([("sums", 3, 1.0)] * 12)
    assert counted(one, 100, seed=1) == counted(other, 100, seed=1)
    assert tops(other) == [4, 2] and other.state() == one.state()


def test_a_window_needs_as_many_levels() -> None:
    with pytest.raises(ConfigError, match=r"start_levels = 4 with 3 trained levels: expected 0 \(all are open\) to 3"):
        build_config(GRPOConfig, {"prompts": {"levels": [1, 2, 3, 3], "curriculum": {"start_levels": 4}}})


def test_stored_problems_open_level_by_level_too() -> None:
    """Their families need not have the same levels, nor levels in a row."""

    def draw(rng: random.Random, cell: tuple[str, int], number: int) -> Problem:
        return Problem(cell[0], "math", cell[1], "en", f"{number}?", "1")

    cells = [("rows", 2), ("rows", 5), ("rows", 9), ("other", 1), ("other", 3)]
    curriculum = Curriculum(CurriculumConfig(start_levels=2), cells, draw)
    assert set(counted(curriculum, 200)) == {("rows", 2), ("rows", 5), ("other", 1), ("other", 3)}
    curriculum.update([("rows", 5, 1.0)] * 20)
    assert ("rows", 9) in counted(curriculum, 200)
    with pytest.raises(ConfigError, match=r"start_levels = 3: 'other' has 2 trained levels \(1, 3\)"):
        Curriculum(CurriculumConfig(start_levels=3), cells, draw)
