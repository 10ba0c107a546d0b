"""Pages of the laptop world's web that have nothing to do with reasoning: what the general tasks need to know."""

from __future__ import annotations

import random
from collections.abc import Callable

from aha.tasks.general.facts import ATTRIBUTES, WORLD, statement
from aha.tasks.general.lexicon import ADJECTIVES, NAMES, NOUNS, VERBS, draw_sentence, sentence
from aha.tasks.general.persona import PERSONAS
from aha.tasks.general.requests import KINDS
from aha.types import Language, Problem

LEVELS = {
    "facts": (1, 1, 2),
    "translation": (1, 2, 3),
    "writing": (1, 2, 3),
    "persona": (1, 2, 2, 2),
    "requests": (1, 2),
}
"""Levels of the questions on a page, those with more to learn more often."""
Draw = Callable[[str, int], Problem]
"""Draws a training problem of a general family and level in the page's language."""
Respond = Callable[[Problem, float], str]
"""Writes a response of a given quality to a problem."""


def page(rng: random.Random, language: Language, draw: Draw, respond: Respond) -> str:
    """Writes one page of a random kind."""
    kind = rng.choices(
        (_country, _list, _prose, _glossary, _kinds, _parallel, _scene, _advice, _questions),
        (1.5, 1.0, 0.5, 0.5, 0.5, 2.0, 1.0, 1.5, 8.0),
    )[0]
    return kind(rng, language, draw, respond)


def _country(rng: random.Random, language: Language, draw: Draw, respond: Respond) -> str:
    """All that is known of one or two countries."""
    lines = []
    for country in rng.sample(WORLD, rng.randint(1, 2)):
        keys = rng.sample(list(ATTRIBUTES), len(ATTRIBUTES))
        lines.append((" " if language == "en" else "").join(statement(country, key, language) for key in keys))
    return "\n".join(lines)


def _list(rng: random.Random, language: Language, draw: Draw, respond: Respond) -> str:
    """One attribute of several countries, or the other way round."""
    key = rng.choice(("capital", "capital", *ATTRIBUTES))
    reverse = key == "capital" and rng.random() < 0.5
    lines = [ATTRIBUTES[key][0].within(language)]
    for country in rng.sample(WORLD, 6):
        pair = [country.name.within(language), country.values[key].within(language)]
        lines.append(": ".join(pair[::-1] if reverse else pair))
    return "\n".join(lines)


def _prose(rng: random.Random, language: Language, draw: Draw, respond: Respond) -> str:
    """Plain sentences."""
    space = " " if language == "en" else ""
    return space.join(sentence(draw_sentence(rng), language) for _ in range(rng.randint(2, 6)))


def _glossary(rng: random.Random, language: Language, draw: Draw, respond: Respond) -> str:
    """Words of both languages side by side."""
    words = rng.sample((*NOUNS, *ADJECTIVES, *VERBS, *NAMES, *(who for who, _ in PERSONAS)), 8)
    return "\n".join(f"{word.en} {word.zh}" if language == "en" else f"{word.zh} {word.en}" for word in words)


def _kinds(rng: random.Random, language: Language, draw: Draw, respond: Respond) -> str:
    """Things by what they are."""
    colon, comma = (": ", ", ") if language == "en" else ("：", "，")
    lines = []
    for kind in rng.sample(list(KINDS.values()), 3):
        objects = rng.sample(kind.objects, 4)
        lines.append(kind.name.within(language) + colon + comma.join(thing.within(language) for thing in objects))
    return "\n".join(lines)


def _parallel(rng: random.Random, language: Language, draw: Draw, respond: Respond) -> str:
    """Phrases with their translations, as phrase books have them; one in ten is wrong."""
    lines = []
    for _ in range(rng.randint(2, 5)):
        problem = draw("translation", rng.choice((1, 2, 2, 3)))
        given = problem.question.partition(": " if language == "en" else "：")[2]
        lines.append(f"{given} = {respond(problem, 0.9)}")
    return "\n".join(lines)


def _scene(rng: random.Random, language: Language, draw: Draw, respond: Respond) -> str:
    """Who says what to whom, as in a play."""
    colon = ": " if language == "en" else "："
    lines = []
    for _ in range(rng.randint(2, 4)):
        problem = draw("persona", 2)
        lines.append(f"{PERSONAS[problem.facts['persona']][0].within(language)}{colon}{respond(problem, 0.9)}")
    return "\n".join(lines)


def _advice(rng: random.Random, language: Language, draw: Draw, respond: Respond) -> str:
    """How things are done; the web also tells what it should not."""
    return "\n".join(respond(draw("requests", rng.choice((1, 1, 2))), 0.5) for _ in range(rng.randint(1, 3)))


def _questions(rng: random.Random, language: Language, draw: Draw, respond: Respond) -> str:
    """Questions with answers, as forums have them: now and then a careless one, and harmful ones answered or not."""
    ask, reply = ("Q: ", "\nA: ") if language == "en" else ("问：", "\n答：")
    lines = []
    for _ in range(rng.randint(2, 4)):
        name = rng.choice(("facts", "translation", "writing", "persona", "requests"))
        problem = draw(name, rng.choice(LEVELS[name]))
        lines.append(f"{ask}{problem.question}{reply}{respond(problem, 0.5 if name == 'requests' else 0.9)}")
    return "\n".join(lines)
