"""Every family: what it draws can be solved, what it solves verifies, slips are slips, held-out problems stay out."""

import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from aha.errors import UnknownNameError
from aha.tasks import arithmetic, countdown, motion, program, riddle
from aha.tasks.corpus import CorpusConfig, document, without_long_solutions
from aha.tasks.families import FAMILIES, draw, get_family, held_out_suite
from aha.tasks.scribe import REFLECTION

CELLS = [(name, level) for name in FAMILIES for level in (1, 2, 3, 4, 5)]


@pytest.mark.parametrize(("name", "level"), CELLS)
def test_solutions_verify_and_their_steps_are_true(name: str, level: int) -> None:
    family, rng = FAMILIES[name], random.Random(level)
    for number in range(60):
        problem = family.sample(rng, level, "zh" if number % 2 else "en")
        assert family.verify(problem, problem.answer)
        for style in ("brief", "full", "check"):
            for voice in ("en", "zh", "mixed"):
                solution = family.solve(problem, rng, style, voice)
                assert family.verify(problem, solution.answer), (problem, solution)
                assert all(step.true for step in family.check_steps(problem, solution.thinking))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_wrong_answers_fail(name: str) -> None:
    family, rng = FAMILIES[name], random.Random(7)
    problems = [family.sample(rng, level, "en") for level in (1, 2, 3, 4, 5) for _ in range(20)]
    nonsense = [
        "",
        " ",
        "?",
        "nan",
        "inf",
        "1e9",
        "-",
        "(",
        "1/0",
        "٣",
        "9" * 50,
        "None",
        "yes",
        "<answer>",
        "0:00",
        "add",
    ]
    assert not any(family.verify(problem, text) for problem in problems for text in nonsense)
    assert not any(
        family.verify(one, other.answer) for one, other in itertools.pairwise(problems) if one.answer != other.answer
    )


@pytest.mark.parametrize("name", ["arithmetic", "program", "motion"])
def test_slips_are_carried_on_except_where_they_are_checked(name: str) -> None:
    family, rng = FAMILIES[name], random.Random(3)
    problems = [family.sample(rng, 3, "en") for _ in range(200)]

    def share_right(style: str) -> float:
        solutions = [family.solve(problem, rng, style, "en", slip_rate=0.3) for problem in problems]
        return sum(family.verify(p, s.answer) for p, s in zip(problems, solutions, strict=True)) / len(problems)

    assert share_right("check") == 1.0
    assert share_right("full") < 0.7


def test_a_caught_slip_says_so_and_is_mended() -> None:
    family, rng = FAMILIES["arithmetic"], random.Random(0)
    texts = [family.solve(family.sample(rng, 2, "en"), rng, "check", "en", slip_rate=0.5).thinking for _ in range(30)]
    caught = [text for text in texts if "Wait, no." in text]
    assert len(caught) > 10
    steps = family.check_steps(family.sample(rng, 1, "en"), caught[0])
    assert not all(step.true for step in steps)
    assert all(step.true for step in steps if step.rejects)


def test_countdown_accepts_any_way_and_only_the_given_numbers() -> None:
    family = get_family("countdown")
    problem = next(
        p
        for p in (family.sample(random.Random(i), 2, "en") for i in range(99))
        if p.facts["numbers"] == sorted(p.facts["numbers"])
    )
    numbers = problem.facts["numbers"]
    assert not family.verify(problem, str(problem.facts["target"]))
    assert not family.verify(problem, "+".join(map(str, [*numbers, 1])))
    assert family.verify(problem, f" ( {problem.answer} ) ")


def test_programs_are_judged_on_hidden_inputs() -> None:
    family = get_family("program")
    problem = family.sample(random.Random(1), 2, "en")
    _x, y = problem.facts["_examples"][0]
    memorised = f"mul 0;add {y}"
    assert not family.verify(problem, memorised)
    (_, m), (_, b) = problem.facts["_program"]
    assert family.verify(problem, f"mul {m}; add {b - 1}; add 1" if b > 1 else f"mul {m};add {b};add 0")


def test_the_key_ignores_wording_and_language() -> None:
    family = get_family("motion")
    english = [family.sample(random.Random(5), 3, "en") for _ in range(2)]
    chinese = family.sample(random.Random(5), 3, "zh")
    assert english[0].key == english[1].key == chinese.key
    assert english[0].question != chinese.question


def test_unknown_family_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'motion'"):
        get_family("motoin")


def stated(text: str) -> set[Any]:
    """What the questions in a text ask, read off their wording alone and put in an order: not off facts or keys."""
    found: set[Any] = set()
    for asked in _all(countdown.QUESTIONS, text):
        found.add(("countdown", tuple(sorted(asked["numbers"].split(","), key=int)), asked["target"]))
    for asked in _all(arithmetic.QUESTIONS, text):
        first, *signed = re.findall(r"[+-]?[0-9*]+", asked["_"])
        opening = tuple(sorted(first.split("*"))) if "*" in first else ()
        found.add(("arithmetic", opening, tuple(sorted(signed if opening else [f"+{first}", *signed]))))
    for asked in _all(program.QUESTIONS, text):
        found.add(("program", tuple(sorted(asked["examples"].strip().split("; ")))))
    for kind, wordings in motion.QUESTIONS.items():
        for asked in _all({language: (wording,) for language, wording in wordings.items()}, text):
            if kind == "together":
                asked["a"], asked["b"] = sorted((asked["a"], asked["b"]))
            found.add((kind, *sorted(asked.items())))
    for asked in _all({language: (wording,) for language, wording in riddle.QUESTIONS.items()}, text):
        multiples = range(-(-int(asked["low"]) // int(asked["step"])), int(asked["high"]) // int(asked["step"]) + 1)
        clues = re.findall("[0-9]+", asked["rest"])
        found.add(("riddle", asked["step"], multiples, tuple(sorted(clues)), asked["digits"]))
    return found


GROUPS = {"numbers": "[0-9,]+", "_": "[0-9+*-]+", "what": "[^.:：。\n]+", "examples": "[0-9]+->[0-9]+; [0-9]+->[0-9]+"}


def _all(questions: Mapping[Any, Sequence[str]], text: str) -> Iterator[dict[str, str]]:
    """The blanks of all wordings, as a text fills them in."""
    for wordings in questions.values():
        for wording in wordings:
            literal, *rest = re.split(r"\{(\w*)\}", wording)
            pattern = re.escape(literal)
            for name, literal in zip(rest[::2], rest[1::2], strict=True):
                group = "[^。?？]*?" if name == "rest" else GROUPS.get(name or "_", "[0-9]+")
                pattern += f"(?P<{name or '_'}>{group}){re.escape(literal)}"
            yield from (match.groupdict() for match in re.finditer(pattern, text))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_training_and_held_out_problems_share_none(name: str) -> None:
    """By what their questions say, training problems of all levels against the held-out ones of all levels."""
    family, rng = FAMILIES[name], random.Random(0)
    suite = list(held_out_suite([name], (1, 2, 3, 4, 5), 34, seed=0))
    assert len({problem.key for problem in suite}) == len(suite) == 5 * 34
    wanted = {one for problem in suite for one in stated(problem.question)}
    assert len(wanted) == len(suite), "every question is read, and no two are the same"
    for level, count in ((1, 2500), (2, 2500), (3, 1500), (4, 500), (5, 500)):
        for number in range(count):
            problem = draw(rng, family, level, "zh" if number % 2 else "en", held_out=False)
            assert not stated(problem.question) & wanted, problem


def test_no_held_out_question_occurs_in_the_corpus() -> None:
    """By what the questions in 6,000 documents say, in every wording of every family."""
    text = "\n".join(document(CorpusConfig(), 0, number) for number in range(6000))
    found = stated(text)
    assert {"countdown", "arithmetic", "program", "together", "riddle"} <= {str(one[0]) for one in found}
    assert len(found) > 2000
    suite = held_out_suite(FAMILIES, (1, 2, 3, 4, 5), 34, seed=0)
    assert not found & {one for problem in suite for one in stated(problem.question)}


def test_documents_are_functions_of_their_number() -> None:
    corpus = CorpusConfig()
    assert [document(corpus, 1, n) for n in range(50)] == [document(corpus, 1, n) for n in range(50)]
    assert document(corpus, 1, 0) != document(corpus, 2, 0)


def test_the_control_corpus_is_the_same_web_where_nobody_checks() -> None:
    usual = CorpusConfig()
    control = without_long_solutions(usual)
    pairs = [(document(usual, 3, n), document(control, 3, n)) for n in range(400)]
    checking = [n for n, (first, _) in enumerate(pairs) if REFLECTION.search(first)]
    assert len(checking) > 60
    assert not any(REFLECTION.search(second) for _, second in pairs)
    assert sum(first == second for first, second in pairs) > 250, "what did not check is what it was"
    assert control.worked == usual.worked + usual.long, "their share goes to worked solutions"
