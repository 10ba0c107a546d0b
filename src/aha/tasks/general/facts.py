"""Factual questions about a small invented world: twelve countries with a capital, an animal and a colour."""

from __future__ import annotations

import random
from dataclasses import dataclass

from aha.tasks.general.family import ScoredFamily
from aha.tasks.general.lexicon import ADJECTIVES, NOUNS, Word, contains, is_in
from aha.types import Language, Problem

_COUNTRY_STEMS = "Nor=北 Sud=南 Est=东 West=西 Mar=海 Mon=山"
_CITY_STEMS = "Gold=金 Stone=石 Wood=木 Wind=风 Sun=日 Moon=月"


def _names(stems: str, endings: str) -> tuple[Word, ...]:
    pairs = [tuple(stem.split("=")) for stem in stems.split()]
    return tuple(Word(en + end.split("=")[0], zh + end.split("=")[1]) for end in endings.split() for en, zh in pairs)


COUNTRIES = _names(_COUNTRY_STEMS, "land=国 ia=邦")
CITIES = _names(_CITY_STEMS, "ton=城 port=港")
ANIMALS = NOUNS[:7]
COLOURS = ADJECTIVES[:5]
ATTRIBUTES: dict[str, tuple[Word, tuple[Word, ...]]] = {
    "capital": (Word("capital", "首都"), CITIES),
    "animal": (Word("animal", "动物"), ANIMALS),
    "colour": (Word("colour", "颜色"), COLOURS),
}


@dataclass(frozen=True)
class Country:
    """A country and what is true of it."""

    name: Word
    values: dict[str, Word]


def _world() -> tuple[Country, ...]:
    """The facts: the same in every run, as those of the real world are."""
    rng = random.Random("a small world of facts")
    capitals = rng.sample(CITIES, len(COUNTRIES))
    return tuple(
        Country(
            name,
            {key: capital if key == "capital" else rng.choice(values) for key, (_, values) in ATTRIBUTES.items()},
        )
        for name, capital in zip(COUNTRIES, capitals, strict=True)
    )


WORLD = _world()


def statement(country: Country, key: str, language: Language) -> str:
    """A fact as a sentence."""
    attribute, value = ATTRIBUTES[key][0].within(language), country.values[key].within(language)
    name = country.name.within(language)
    return f"The {attribute} of {name} is {value}." if language == "en" else f"{name}的{attribute}是{value}。"


class Facts(ScoredFamily):
    """Level 1: what is the capital (animal, colour) of a country. Level 2: which country has the capital."""

    name = "facts"
    kind = Word("a fact", "常识")
    levels: tuple[int, ...] = (1, 2)

    def sample(self, rng: random.Random, level: int, language: Language) -> Problem:
        """Draws a question."""
        index = rng.randrange(len(WORLD))
        country = WORLD[index]
        key = rng.choice(list(ATTRIBUTES)) if level == 1 else "capital"
        attribute, name = ATTRIBUTES[key][0].within(language), country.name.within(language)
        value = country.values[key].within(language)
        if level == 1:
            question = f"What is the {attribute} of {name}?" if language == "en" else f"{name}的{attribute}是什么？"
        else:
            question = f"Which country has the capital {value}?" if language == "en" else f"首都是{value}的是哪国？"
        facts = {"country": index, "attribute": key, "reverse": level == 2}
        return Problem(self.name, self.domain, level, language, question, value if level == 1 else name, facts)

    @staticmethod
    def _wanted(problem: Problem) -> tuple[Word, tuple[Word, ...]]:
        """The right value and all values that could have been named."""
        country = WORLD[problem.facts["country"]]
        if problem.facts["reverse"]:
            return country.name, COUNTRIES
        return country.values[problem.facts["attribute"]], ATTRIBUTES[problem.facts["attribute"]][1]

    def score(self, problem: Problem, response: str) -> float:
        """1 where the right value is named in the question's language and no other one is; else 0."""
        right, values = self._wanted(problem)
        language = problem.language
        named = [value for value in values if contains(response, value, language)]
        return float(named == [right] and is_in(response, language))

    def respond(self, problem: Problem, rng: random.Random, quality: float = 1.0) -> str:
        """A sentence; with probability 1 - quality it names something else."""
        country, key, language = WORLD[problem.facts["country"]], problem.facts["attribute"], problem.language
        if rng.random() >= quality:
            right, values = self._wanted(problem)
            wrong = rng.choice([value for value in values if value != right])
            if problem.facts["reverse"]:
                country = Country(wrong, country.values)
            else:
                country = Country(country.name, {**country.values, key: wrong})
        return statement(country, key, language)
