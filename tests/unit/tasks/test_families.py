"""Every family: what it draws can be solved, mistakes are mended, held-out problems stay out."""

import itertools
import json
import random
import re
from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from aha.errors import UnknownNameError
from aha.tasks.corpus import AnswerShares, CorpusConfig, document, text_of, without_long_solutions
from aha.tasks.families import FAMILIES, SEARCHES, draw, get_family, held_out_suite
from aha.tasks.lists import LABELS, LEVELS, LONGEST_LIST
from aha.text.templates import zero_prompt
from aha.text.tokenizer import Tokenizer
from aha.types import Problem, Style

CELLS = [(name, level) for name in FAMILIES for level in (1, 2, 3, 4, 8, 14)]
STYLES: tuple[Style, ...] = ("guess", "given_up", "long")


@pytest.mark.parametrize(("name", "level"), CELLS)
def test_whole_ways_verify_and_their_steps_are_true(name: str, level: int) -> None:
    family, rng = FAMILIES[name], random.Random(level)
    for number in range(40):
        problem = family.sample(rng, level, "zh" if number % 2 else "en")
        assert family.verify(problem, problem.answer)
        for voice in ("en", "zh", "mixed"):
            solution = family.solve(problem, rng, "long", voice, second_pass=0.5, restate=number % 3 > 0)
            assert family.verify(problem, solution.answer), (problem, solution)
            steps = family.check_steps(problem, solution.thinking)
            assert steps
            assert all(step.true for step in steps)
            read = {step.line for step in steps}
            others = [line for n, line in enumerate(solution.thinking.splitlines()) if n not in read]
            assert set(others) <= {"Wait", "等等"}, "every line but the openings of passes is a step"


@pytest.mark.parametrize("name", list(FAMILIES))
def test_what_must_be_written_grows_with_the_level(name: str) -> None:
    family, rng = FAMILIES[name], random.Random(0)
    means = []
    for level in LEVELS:
        problems = [family.sample(rng, level, "en") for _ in range(60)]
        means.append(sum(len(family.lines(problem, rng, "en")) for problem in problems) / 60)
    if name in SEARCHES:
        assert means[-1] > 2.5 * means[1], "half of the candidates are tested on average"
    else:
        assert means == list(LEVELS)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_guess_is_at_chance(name: str) -> None:
    family, rng = FAMILIES[name], random.Random(1)
    right = {}
    for level in (1, 4, 8):
        problems = [family.sample(rng, level, "en") for _ in range(600)]
        right[level] = sum(family.verify(p, family.solve(p, rng, "guess", "en").answer) for p in problems) / 600
    assert right[4] < 0.3
    assert right[8] < 0.26


@pytest.mark.parametrize("name", list(FAMILIES))
def test_wrong_answers_fail(name: str) -> None:
    family, rng = FAMILIES[name], random.Random(7)
    problems = [family.sample(rng, level, "en") for level in (1, 2, 3, 4, 5) for _ in range(20)]
    nonsense = ["", " ", "?", "nan", "inf", "1e9", "-", "(", "1/0", "٣", "9" * 50, "None", "yes", "<answer>", "A", "ab"]
    assert not any(family.verify(problem, text) for problem in problems for text in nonsense)
    assert not any(
        family.verify(one, other.answer) for one, other in itertools.pairwise(problems) if one.answer != other.answer
    )


@pytest.mark.parametrize("name", list(FAMILIES))
def test_mistakes_of_a_first_pass_are_noticed_and_mended(name: str) -> None:
    family, rng = FAMILIES[name], random.Random(0)
    mended = 0
    for number in range(60):
        problem = family.sample(rng, 1 + number % 4, "en")
        solution = family.solve(problem, rng, "long", "en", second_pass=1.0, slip=1.0)
        assert family.verify(problem, solution.answer), solution
        steps = family.check_steps(problem, solution.thinking)
        wrong = [step for step in steps if not step.true]
        assert wrong or name in SEARCHES, "a search may never come to the candidate that it would be wrong about"
        assert "Wait" in solution.thinking
        verdicts = [step for step in steps if step.accepts is not None]
        assert verdicts[-1].true
        assert verdicts[-1].accepts
        mended += any(step.accepts is False and step.true for step in steps)
    assert mended > 30


@pytest.mark.parametrize("name", list(FAMILIES))
def test_work_that_is_given_up_ends_in_a_guess(name: str) -> None:
    family, rng = FAMILIES[name], random.Random(4)
    for _ in range(60):
        problem = family.sample(rng, 4, "en")
        whole = family.lines(problem, rng, "en")
        solution = family.solve(problem, rng, "given_up", "en")
        *begun, last = solution.thinking.splitlines()
        if last == f"Guess {solution.answer}":
            assert [line + "\n" for line in begun] == whole[: len(begun)]
            assert 0 < len(begun) < len(whole)
        else:
            assert len(whole) == 1, "a search whose first candidate fits has nothing to give up"
            assert solution.answer == problem.answer


def test_lists_are_as_long_as_the_level_needs_and_no_longer_than_asked() -> None:
    rng = random.Random(0)
    for name, family in FAMILIES.items():
        for level in (1, 4, 14):
            sizes = {len(family.sample(rng, level, "en", 5).facts["items"]) for _ in range(80)}
            needed = level + 1 if name in SEARCHES else max(level, 2)
            assert min(sizes) >= needed
            assert max(sizes) <= max(5, needed)
    sizes = {len(FAMILIES["sums"].sample(rng, 2, "en").facts["items"]) for _ in range(400)}
    assert sizes == set(range(2, LONGEST_LIST + 1))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_problem_survives_json(name: str) -> None:
    problem = FAMILIES[name].sample(random.Random(3), 3, "en")
    again = Problem(**json.loads(json.dumps({slot: getattr(problem, slot) for slot in Problem.__dataclass_fields__})))
    assert again.key == problem.key
    rng = random.Random(0)
    assert FAMILIES[name].lines(again, rng, "en") == FAMILIES[name].lines(problem, rng, "en")


def test_the_key_ignores_wording_and_language() -> None:
    family = get_family("cups")
    english = [family.sample(random.Random(5), 3, "en") for _ in range(2)]
    chinese = family.sample(random.Random(5), 3, "zh")
    assert english[0].key == english[1].key == chinese.key
    assert english[0].question != chinese.question


def test_unknown_family_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'pulses'"):
        get_family("pluses")


def stated(text: str) -> list[tuple[str, Any, Any]]:
    """What the questions in a text ask, read off their wording alone: (family, list, what is asked of it)."""
    found = []
    for family in FAMILIES.values():
        for language in ("en", "zh"):
            asked = re.escape(family.wording[language])
            asked = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\w)", asked)
            pattern = rf"(?:{family.heading[language]}(?P<list>(?: [0-9+*]+[a-z])+))|{asked}"
            listed = None
            for match in re.finditer(pattern, text):
                if match["list"] is not None:
                    listed = match["list"]
                else:
                    rest = {k: v for k, v in match.groupdict().items() if k != "list"}
                    found.append((family.name, listed, tuple(sorted(rest.items()))))
    return found


@pytest.mark.parametrize("name", list(FAMILIES))
def test_training_and_held_out_problems_share_none(name: str) -> None:
    """By what their questions say, training problems of all levels against the held-out ones of all levels."""
    family, rng = FAMILIES[name], random.Random(0)
    levels = (1, 2, 3, 4, 9, 14)
    suite = list(held_out_suite([name], levels, 34, seed=0))
    assert len({problem.key for problem in suite}) == len(suite) == len(levels) * 34
    wanted = {one for problem in suite for one in stated(problem.question)}
    assert len(wanted) == len(suite), "every question is read, and no two are the same"
    for level, count in ((1, 2500), (2, 2500), (3, 1500), (4, 500), (9, 500)):
        for number in range(count):
            problem = draw(rng, family, level, "zh" if number % 2 else "en", held_out=False)
            assert not wanted.intersection(stated(problem.question)), problem


def test_no_held_out_question_and_no_other_level_occurs_in_the_corpus() -> None:
    """By what the questions in 6,000 documents say, in every wording of every family."""
    corpus = CorpusConfig()
    texts = [text_of(document(corpus, 0, number)) for number in range(6000)]
    found = {one for text in texts for one in stated(text)}
    assert {one[0] for one in found} == set(FAMILIES)
    assert len(found) > 3000
    suite = held_out_suite(FAMILIES, (1, 2, 3, 4), 60, seed=0)
    assert not found & {one for problem in suite for one in stated(problem.question)}
    levels: Counter[int] = Counter()
    for name, listed, asked in found:
        if name in SEARCHES:
            levels[len(listed.split()) - 1] += 1
        else:
            span = dict(asked)
            levels[LABELS.index(span["last"]) - LABELS.index(span["first"]) + 1] += 1
    assert set(levels) == {1, 2, 3, 4}
    assert min(levels.values()) > 0.15 * len(found)


def test_short_lists_come_first_where_they_are_asked_for() -> None:
    corpus = CorpusConfig(practice=0.8, questions=0.2, longest_list=5)
    lists = re.compile(rf"(?:{'|'.join(f.heading['en'] for f in FAMILIES.values())})((?: [0-9+*]+[a-z])+)")
    sizes = [len(match[1].split()) for n in range(800) for match in lists.finditer(text_of(document(corpus, 0, n)))]
    assert len(sizes) > 300
    assert max(sizes) <= 6, "a search of level 5 has six candidates"


def test_documents_are_functions_of_their_number() -> None:
    corpus = CorpusConfig()
    assert [document(corpus, 1, n) for n in range(50)] == [document(corpus, 1, n) for n in range(50)]
    assert document(corpus, 1, 0) != document(corpus, 2, 0)


def test_what_nobody_can_foretell_is_marked() -> None:
    """Questions, lists and guesses are; work, whole ways' answers and the template are not."""
    corpus, guesses = CorpusConfig(practice=0.0, questions=1.0), 0
    for number in range(400):
        pieces = document(corpus, 0, number)
        known = "".join(piece.text for piece in pieces if piece.predictable)
        unknown = "|".join(piece.text for piece in pieces if not piece.predictable)
        assert not stated(known)
        for wording in (". Which level?", "Where is it?"):
            assert wording not in known
        guesses += bool(re.search(r"\|[0-9a-e](\||$)", unknown))
        assert not re.search(r"[a-z][0-9+* ]+=", unknown), "work can be foretold"
    assert guesses > 150


def test_the_control_corpus_is_the_same_web_where_nobody_works() -> None:
    usual = CorpusConfig(practice=0.0)
    control = without_long_solutions(usual)
    texts = [text_of(document(control, 3, n)) for n in range(400)]
    waits = re.compile("Wait|等等")
    assert not any(waits.search(text) for text in texts)
    assert sum(bool(waits.search(text_of(document(usual, 3, n)))) for n in range(400)) > 60
    assert control.answers.guess == pytest.approx(0.38 + 0.12 + 0.25), "their share goes to guesses"
    assert (control.answers.given_up, control.answers.long) == (usual.answers.given_up, 0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"practice": 0, "questions": 0}, "there is nothing to write"),
        ({"answers": dict.fromkeys(AnswerShares.model_fields, 0)}, "no question could be answered"),
        ({"levels": [15]}, "levels are 1 to 14"),
        ({"levels": []}, "at least 1 item"),
    ],
)
def test_impossible_corpora_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CorpusConfig(**settings)


def test_the_template_is_cut_where_prompts_are_cut() -> None:
    """What the model reads in the corpus is, token for token, what it is asked with."""
    corpus = CorpusConfig(practice=0.0, questions=1.0, template=1.0)
    documents = [document(corpus, 0, number) for number in range(300)]
    tokenizer = Tokenizer.train(map(text_of, documents), 420)
    for pieces in documents:
        question = pieces[2].text.removeprefix(" ")
        written = [token for piece in pieces[:4] for token in tokenizer.encode_markup(piece.text)]
        assert written == zero_prompt(tokenizer, question)
