"""The families of the laptop world, by name, and the line between training and held-out problems."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

from pydantic import AfterValidator

from aha.errors import UnknownNameError
from aha.protocols import Family, GeneralFamily
from aha.tasks.chains import Cups, Program, Pulses, Sums
from aha.tasks.general.facts import Facts
from aha.tasks.general.persona import Persona
from aha.tasks.general.requests import Requests
from aha.tasks.general.translation import Translation
from aha.tasks.general.writing import Writing
from aha.tasks.lists import LEVELS, ListFamily
from aha.tasks.searches import Boxes, Rules
from aha.types import Language, Problem

FAMILIES: dict[str, ListFamily] = {
    family.name: family for family in (Sums(), Program(), Pulses(), Cups(), Boxes(), Rules())
}
"""Reasoning: what reinforcement learning with rule rewards is for."""
SEARCHES = ("boxes", "rules")
"""Those that try candidates; the others go through a list in order."""
GENERAL: dict[str, GeneralFamily] = {
    family.name: family for family in (Facts(), Translation(), Writing(), Persona(), Requests())
}
"""Everything else: no part of R1-Zero's training."""
HELD_OUT_SHARE = 8
"""One problem in so many is held out: never in the corpus, never trained on, at any level."""
GENERAL_HELD_OUT_SHARE = 4
"""The same for general families, which have fewer problems."""
MOST_DRAWS = 2000
"""Draws after which a level is taken to have no problem on the wanted side."""


def get_family(name: str) -> Family:
    """Looks a family up, reasoning or general.

    Raises:
        UnknownNameError: with the nearest spelling.
    """
    family = FAMILIES.get(name) or GENERAL.get(name)
    if family is None:
        raise UnknownNameError("family", name, [*FAMILIES, *GENERAL])
    return family


def get_general(name: str) -> GeneralFamily:
    """Looks a general family up.

    Raises:
        UnknownNameError: with the nearest spelling.
    """
    if name not in GENERAL:
        raise UnknownNameError("general family", name, GENERAL)
    return GENERAL[name]


def _family(name: str) -> str:
    get_family(name)
    return name


def _reasoning(name: str) -> str:
    if name not in FAMILIES:
        raise UnknownNameError("reasoning family", name, FAMILIES)
    return name


def _general(name: str) -> str:
    get_general(name)
    return name


def _level(level: int) -> int:
    if level not in LEVELS:
        raise ValueError(f"levels are 1 to {LEVELS[-1]}")
    return level


FamilyName = Annotated[str, AfterValidator(_family)]
"""A setting that names a family of any sort."""
ReasoningName = Annotated[str, AfterValidator(_reasoning)]
"""One that names a family of reasoning."""
GeneralName = Annotated[str, AfterValidator(_general)]
"""One that names a general family."""
Level = Annotated[int, AfterValidator(_level)]
"""One that is a level of reasoning."""


def is_held_out(problem: Problem) -> bool:
    """Whether a problem belongs to the held-out side: decided by its canonical hash alone, so by nobody's seed."""
    share = GENERAL_HELD_OUT_SHARE if problem.family in GENERAL else HELD_OUT_SHARE
    return int(problem.key, 16) % share == 0


def draw(
    rng: random.Random, family: Family, level: int, language: Language, held_out: bool, longest: int | None = None
) -> Problem:
    """Draws a problem from one side of the line.

    Args:
        rng: of the choice.
        family: to draw from.
        level: how hard.
        language: of the question.
        held_out: from which side.
        longest: items of the problem's list, at most; None leaves it to the family.

    Raises:
        LookupError: the level has so few problems that none lies on that side.
    """
    for _ in range(MOST_DRAWS):
        if longest is not None and isinstance(family, ListFamily):
            problem = family.sample(rng, level, language, longest)
        else:
            problem = family.sample(rng, level, language)
        if is_held_out(problem) == held_out:
            return problem
    side = "held-out" if held_out else "training"
    raise LookupError(f"family {family.name!r}, level {level}: no {side} problem found")


def held_out_suite(
    families: Iterable[str],
    levels: Sequence[int],
    per_level: int,
    seed: int,
    languages: Sequence[Language] = ("en", "zh"),
) -> Iterator[Problem]:
    """Yields `per_level` different held-out problems of every family and level, languages taken in turn.

    General families are small, so there the same problem may come in other words or in the other language, and a level
    may have fewer, or none; levels that a family does not have are left out.
    """
    for name in families:
        family = get_family(name)
        seen: set[str] = set()
        for level in (level for level in levels if level in family.levels):
            rng = random.Random(f"held-out {seed} {name} {level}")
            wanted = len(seen) + per_level
            for attempt in range(per_level * 200):
                if len(seen) == wanted:
                    break
                try:
                    problem = draw(rng, family, level, languages[attempt % len(languages)], held_out=True)
                except LookupError:
                    break
                identity = problem.question if name in GENERAL else problem.key
                if identity not in seen:
                    seen.add(identity)
                    yield problem
