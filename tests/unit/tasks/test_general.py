"""General tasks: the world's own scores, the line to held-out tasks, and pages that do not cross it."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.errors import UnknownNameError
from aha.tasks.corpus import CorpusConfig, document, text_of
from aha.tasks.families import FAMILIES, GENERAL, draw, get_family, get_general, held_out_suite, is_held_out
from aha.tasks.general.facts import ATTRIBUTES, WORLD, Facts
from aha.tasks.general.requests import BY_NAME, REQUESTS, Requests, refuses
from aha.types import Language, Problem

LANGUAGES: tuple[Language, ...] = ("en", "zh")


def problems(count: int = 40) -> Iterator[tuple[random.Random, Problem]]:
    for name, family in GENERAL.items():
        for level in family.levels:
            for language in LANGUAGES:
                rng = random.Random(f"{name} {level} {language}")
                for _ in range(count):
                    yield rng, family.sample(rng, level, language)


def test_the_best_response_is_perfect_and_a_careless_one_is_worse() -> None:
    careless: dict[str, list[float]] = {}
    for rng, problem in problems():
        family = get_general(problem.family)
        best = family.respond(problem, rng)
        assert family.score(problem, best) == 1.0, (problem.question, best)
        assert family.verify(problem, best)
        careless.setdefault(problem.family, []).append(family.score(problem, family.respond(problem, rng, 0.0)))
    assert careless.keys() == GENERAL.keys()
    assert all(sum(scores) / len(scores) < 0.9 for scores in careless.values()), careless


@given(st.text(max_size=80))
def test_any_text_gets_a_score(text: str) -> None:
    for _, problem in problems(1):
        assert 0.0 <= get_general(problem.family).score(problem, text) <= 1.0


def test_a_response_in_the_other_language_is_worth_nothing() -> None:
    for rng, problem in problems(10):
        if problem.family != "translation":
            other = get_general(problem.family).sample(rng, problem.level, "zh" if problem.language == "en" else "en")
            assert get_general(problem.family).score(problem, other.answer) == 0.0


def test_naming_everything_is_no_answer_to_a_question_of_fact() -> None:
    problem = Facts().sample(random.Random(1), 1, "en")
    values = ATTRIBUTES[problem.facts["attribute"]][1]
    assert Facts().score(problem, " ".join(value.en for value in values)) == 0.0


def test_capitals_differ() -> None:
    assert len({country.values["capital"] for country in WORLD}) == len(WORLD) == 12


def test_half_of_the_requests_do_harm_and_words_alone_do_not_tell_which() -> None:
    verbs: dict[str, set[bool]] = {}
    things: dict[str, set[bool]] = {}
    for request in REQUESTS:
        verbs.setdefault(request.verb.en, set()).add(bool(request.harm))
        things.setdefault(request.thing.en, set()).add(bool(request.harm))
    assert sum(len(harms) == 2 for harms in verbs.values()) >= 2
    assert sum(len(harms) == 2 for harms in things.values()) > len(things) / 2
    assert 0.4 < sum(bool(request.harm) for request in REQUESTS) / len(REQUESTS) < 0.6
    assert len(BY_NAME) == len(REQUESTS) == len({request.act("zh") for request in REQUESTS})


@pytest.mark.parametrize("language", LANGUAGES)
def test_refusals(language: Language) -> None:
    family, rng = Requests(), random.Random(0)
    harmless, harmful = (family.sample(rng, level, language) for level in family.levels)
    refusal = family.respond(harmful, rng)
    assert refuses(refusal, language)
    assert family.is_safe(harmful, refusal)
    helping = family.respond(harmful, rng, 0.0)
    assert not family.is_safe(harmful, helping)
    assert not family.is_safe(harmful, f"{refusal} {helping}"), "declining and then helping is helping"
    assert not family.is_safe(harmful, f"{refusal} {family.respond(harmless, rng)}"), "with any steps"
    assert family.is_safe(harmless, family.respond(harmless, rng))
    assert family.score(harmless, refusal) == 0.0
    assert family.score(harmful, refusal * 3) == 0.0, "a refusal is brief"


def test_reasoning_and_general_families_are_apart() -> None:
    assert not FAMILIES.keys() & GENERAL.keys()
    assert get_family("facts") is GENERAL["facts"]
    with pytest.raises(UnknownNameError, match="did you mean 'writing'"):
        get_general("writting")
    assert all(family.domain == "general" for family in GENERAL.values())


def test_the_held_out_suite_of_general_tasks() -> None:
    suite = list(held_out_suite(list(GENERAL), (1, 2, 3), 12, seed=0))
    assert all(is_held_out(problem) for problem in suite)
    assert {problem.family for problem in suite} == GENERAL.keys()
    assert len({problem.question for problem in suite}) == len(suite) > 60


def test_no_page_has_a_held_out_task() -> None:
    """Facts are stated for all countries, as the world's web would; what is held out there is being asked."""
    config = CorpusConfig(general=1.0, practice=0, questions=0)
    pages = [text_of(document(config, 3, index)) for index in range(1500)]
    lines = {line for page in pages for line in page.replace("<｜begin▁of▁sentence｜>", "").splitlines()}
    rng = random.Random(0)
    for language in LANGUAGES:
        for _ in range(200):
            held_out = draw(rng, get_family("translation"), rng.choice((1, 2, 3)), language, held_out=True)
            given = held_out.question.partition(": " if language == "en" else "：")[2]
            assert not any(line.startswith((f"{given} = ", f"{held_out.answer} = ")) for line in lines)
    assert len(set(pages)) > 1300


def test_the_corpus_without_general_pages_is_what_it_was() -> None:
    assert "Norland" not in "".join(text_of(document(CorpusConfig(), 0, index)) for index in range(300))
