"""What a probe measures, on a model that is a script: every figure worked out by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from aha.evals.growth import Share
from aha.evals.probe import (
    MEASURES,
    ProbeSettings,
    answers,
    far,
    half_written,
    lines_of_work,
    single_steps,
    verdicts,
)
from aha.evals.probe_summary import continuation, evidence_of, forced_verdicts, own_verdicts, summarize
from aha.tasks.families import FAMILIES
from aha.test_time.candidates import Respondent
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import EOS, Tokenizer
from aha.types import Problem, Request, SamplingParams

from ..generators import Script, Scripted

QUESTION = "Cards 5a 3b. Start with 2, add a to b. Last digit?"
SUM = Problem("sums", "math", 2, "en", QUESTION, "0", {"items": [[5], [3]], "start": 2, "first": 0, "last": 1})
"""a5+2=7, b3+7=0."""
BOXES = Problem("boxes", "logic", 1, "en", "Boxes 111a 461b. Whose digits add to 1?", "b",
                {"items": [[1, 1, 1], [4, 6, 1]], "target": 1})  # fmt: skip
"""a is 3, b is 1."""
WORK = "a5+2=7\nb3+7=0\n"


def closed(answer: str) -> str:
    return f"</think>\n<answer>{answer}</answer>{EOS}"


class Scored(Scripted):
    """Prefers some words to others."""

    def __init__(self, tokenizer: Tokenizer, script: Script, prefers: Any = None) -> None:
        super().__init__(tokenizer, script)
        self.prefers = prefers

    def score(self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Log-probability 0 for what it prefers after a prompt, given as (prompt, token), -1 for the rest."""
        return [
            [0.0 if self.prefers(self.tokenizer.decode(prompt), self.tokenizer.decode(tokens)) else -1.0]
            for prompt, tokens in sequences
        ]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["a5+2=7 same differ yes no. Wait Guess 等等一样不同对不对猜"] * 5, 300)


def asked(tokenizer: Tokenizer, script: Script, prefers: Any = None, style: str = "zero") -> Respondent:
    generator = Scored(tokenizer, script, prefers)
    return Respondent(generator, tokenizer, PromptStyle.named(style), SamplingParams(max_completion_tokens=120), 240)


def settings(**changes: Any) -> ProbeSettings:
    return ProbeSettings(families=("sums",), levels=(2,), room=240, max_completion_tokens=120).changed(**changes)


def test_answers_are_sorted_and_go_on(tokenizer: Tokenizer) -> None:
    """The whole way; half of it, wrong; a guess that is right; given up; no form. "Wait" spoils the first."""

    def script(prompt: str, _: Request, number: int) -> str:
        if prompt.endswith(f"{WORK}Wait\n"):
            return f"{WORK}0 differ\n{closed('9')}"
        if prompt.endswith("Wait\n"):
            return WORK + closed("0")
        firsts = (
            WORK + closed("0"),
            "a5+2=7\n" + closed("7"),
            "Guess 0\n" + closed("0"),
            "a5+2=7\nGuess 4\n" + closed("4"),
        )
        return "<think>\n" + firsts[number] if number < 4 else f" 0{EOS}"

    rows = answers(asked(tokenizer, script), [SUM], settings(samples=5))
    assert [row["kind"] for row in rows] == ["long", "long", "short", "given_up", "malformed"]
    assert [row["correct"] for row in rows] == [True, False, True, False, False]
    assert [row["whole"] for row in rows] == [True, False, False, False, False]
    assert [row["continued"] for row in rows] == [True, True, True, True, False]
    assert [row["correct_again"] for row in rows] == [False, True, True, True, False]
    assert {row["chance"] for row in rows} == {0.1}
    both = continuation(rows)
    assert both["all"] == {
        "answers": 4, "before": 0.5, "after": 0.75, "right_to_wrong": 0.5, "wrong_to_right": 1.0,
    }  # fmt: skip
    assert both["long"] == {
        "answers": 2, "before": 0.5, "after": 0.5, "right_to_wrong": 1.0, "wrong_to_right": 1.0,
    }  # fmt: skip
    assert evidence_of({"answers": rows, "verdicts": [], "single_steps": []}).right_to_wrong == Share(1, 1)


def test_its_own_verdicts_are_counted_in_long_answers(tokenizer: Tokenizer) -> None:
    """A right pass that is rejected, and a wrong one that is accepted."""
    thoughts = f"{WORK}Wait\n{WORK}0 differ\n", "a5+2=8\nb3+8=1\nWait\na5+2=8\nb3+8=1\n1 same\n"

    def script(prompt: str, _: Request, number: int) -> str:
        return closed("0") if prompt.endswith("Wait\n") else f"<think>\n{thoughts[number]}{closed('0')}"

    rows = answers(asked(tokenizer, script), [SUM], settings(samples=2))
    assert own_verdicts(rows) == (Share(1, 1), Share(1, 1))
    assert [row["attempts"]["right_attempts"] for row in rows] == [1, 0]


def test_half_written_solutions(tokenizer: Tokenizer) -> None:
    """From nothing it guesses; after one line it goes on to the end."""

    def script(prompt: str, _: Request, __: int) -> str:
        if prompt.endswith("<think>\na5+2=7\n"):
            return "b3+7=0\n" + closed("0")
        assert prompt.endswith("Assistant:<think>\n")
        return "Guess 3\n" + closed("3")

    respondent = asked(tokenizer, script)
    rows = half_written(respondent, [SUM], settings())
    assert [(row["depth"], row["needed"], row["correct"], row["early"]) for row in rows] == [
        (0, 2, False, True),
        (1, 2, True, False),
    ]


@pytest.mark.parametrize("style", ["zero", "zero_think", "chat"])
def test_thinking_is_begun_as_each_style_has_it(tokenizer: Tokenizer, style: str) -> None:
    end = closed("0") if style != "chat" else f"</think>\nThe answer is 0{EOS}"

    def script(prompt: str, _: Request, __: int) -> str:
        assert prompt.count("<think>\n") == 1 and "\n\n" not in prompt.split("<think>")[-1]
        return (WORK if prompt.endswith("<think>\n") else "b3+7=0\n") + end

    rows = half_written(asked(tokenizer, script, style=style), [SUM], settings())
    assert [row["correct"] for row in rows] == [True, True]
    assert [row["early"] for row in rows] == [False, False]


def test_forced_verdicts_of_a_pass(tokenizer: Tokenizer) -> None:
    """A model that always rejects is wrong where two ends agree, and right behind a mistake."""

    def rejects(prompt: str, token: str) -> bool:
        assert re.search(r"Wait\na5\+2=7\nb3\+7=0\n0 ?$", prompt)
        return "differ".startswith(token.strip()) and token.strip() != ""

    rows = verdicts(asked(tokenizer, lambda *_: "", rejects), [SUM], settings())
    assert [(row["right"], row["accepts"]) for row in rows] == [(True, False), (False, False)]
    assert forced_verdicts(rows) == (Share(1, 1), Share(0, 1))


def test_forced_verdicts_of_a_search(tokenizer: Tokenizer) -> None:
    """A model that compares is right in both; b stands behind a, which does not fit."""
    asked_at = []

    def compares(prompt: str, token: str) -> bool:
        result, wanted = re.findall(r"=(\d)\?(\d) ?$", prompt)[0]
        asked_at.append(prompt.rstrip()[-12:])
        return token.strip() != "" and ("yes" if result == wanted else "no").startswith(token.strip())

    rows = verdicts(asked(tokenizer, lambda *_: "", compares), [BOXES], settings())
    assert {(row["right"], row["accepts"]) for row in rows} == {(True, True), (False, False)}
    assert set(asked_at) == {"a1+1=2+1=3?1", "b4+6=0+1=1?1"}
    assert forced_verdicts(rows) == (Share(0, 1), Share(0, 1))


def test_single_steps_after_a_list_alone(tokenizer: Tokenizer) -> None:
    """It adds rightly, and takes every item for a 9."""
    prompts = []

    def script(prompt: str, request: Request, _: int) -> str:
        assert request.sampling.temperature == 0.0
        prompts.append(prompt.split("\n", 1))
        terms = re.findall(r"(\d)\+(\d)=$", prompt)
        return f"{(int(terms[0][0]) + int(terms[0][1])) % 10}\n\n\n\n" if terms else "9\n\n\n\n"

    rows = single_steps(asked(tokenizer, script), [SUM], settings())
    assert [(row["what"], row["right"]) for row in rows] == [("look_up", False), ("step", True)]
    assert all(head.endswith("Cards 5a 3b") for head, _ in prompts)
    assert prompts[0][1] == "a5\nb"
    assert prompts[1][1] in ("a5+2=", "b3+7=")


def test_both_sums_of_a_box_are_steps(tokenizer: Tokenizer) -> None:
    rows = single_steps(asked(tokenizer, lambda *_: "0\n\n\n\n"), [BOXES], settings())
    assert [row["what"] for row in rows] == ["look_up", "step", "step"]


def test_far_from_the_list(tokenizer: Tokenizer) -> None:
    """The thinking is so long already; each time one more pass begins."""
    thoughts: list[str] = []

    def script(prompt: str, _: Request, __: int) -> str:
        thoughts.append(prompt.split("<think>\n")[-1])
        return f"{WORK}0 same\n" + closed("0" if len(thoughts) == 1 else "5")

    rows = far(asked(tokenizer, script), [SUM], settings(lengths=(0, 60)))
    assert [(row["length"], row["correct"], row["well_formed"]) for row in rows] == [(0, True, True), (60, False, True)]
    assert thoughts[0] == f"{WORK}Wait\n"
    further = f"Wait\n{WORK}0 same\n"
    count = thoughts[1].count("same")
    assert thoughts[1] == WORK + further * count + "Wait\n"
    assert len(tokenizer.encode(WORK + further * count)) >= 60 > len(tokenizer.encode(WORK + further * (count - 1)))
    assert far(asked(tokenizer, script), [SUM], settings(levels=(1, 4))) == [], "only the level next to 2 is asked"


def test_lines_of_work_are_those_of_the_first_pass() -> None:
    assert lines_of_work(SUM, f"{WORK}Wait\n{WORK}0 same") == 2
    assert lines_of_work(SUM, "so it goes\na5+2=7\nGuess 3") == 1
    assert lines_of_work(BOXES, "a1+1=2+1=3?1 no\nb4+6=0+1=1?1 yes") == 2


@pytest.mark.parametrize("spoils", [False, True])
def test_a_model_that_is_ready_and_one_that_wait_spoils(tokenizer: Tokenizer, spoils: bool) -> None:
    """It works out every second answer and guesses the others wrong; where "Wait" spoils, more passes will not pay."""
    problems = settings(levels=(1, 2), problems_per_level=6).problems("sums")
    family = FAMILIES["sums"]

    def of(prompt: str) -> Problem:
        return next(one for one in problems if one.question in prompt)

    def script(prompt: str, request: Request, number: int) -> str:
        if "?" not in prompt and "？" not in prompt:
            return _single_step(prompt)
        problem = of(prompt)
        lines = "".join(family.lines(problem, None, problem.language))  # type: ignore[arg-type]
        thought = prompt.split("<think>\n")[-1] if "<think>\n" in prompt else ""
        begun = thought.rsplit("Wait\n", 1)[-1].rsplit("等等\n", 1)[-1]
        if number % 2:
            return "<think>\nGuess x\n" + closed("x")
        wrong = spoils and thought.endswith(("Wait\n", "等等\n"))
        return ("" if thought else "<think>\n") + lines.removeprefix(begun) + closed("x" if wrong else problem.answer)

    def compares(prompt: str, token: str) -> bool:
        ends = [int(one) for one in re.findall(r"=(\d)\n(?:Wait|等等|\d)", prompt.split("<think>")[-1])]
        words = ("same", "一样") if ends[0] == ends[-1] else ("differ", "不同")
        first = [tokenizer.decode(tokenizer.encode(word)[:1]) for word in (f" {words[0]}", words[1])]
        return token in first or (token.strip() != "" and words[0].startswith(token.strip()))

    respondent = asked(tokenizer, script, compares)
    asks = settings(levels=(1, 2), samples=4, lengths=(0,))
    rows = {name: measure(respondent, problems, asks) for name, measure in MEASURES.items()}
    found = summarize(rows, asks)["families"]["sums"]
    assert (found["outcome"], found["more_passes_pay"]) == ("grows", not spoils), found
    level = found["levels"]["2"]
    assert (level["share"]["long"], level["share"]["short"], level["answers"]) == (0.5, 0.5, 24)
    assert (level["right_by_kind"]["long"], level["right_by_kind"]["short"], level["right"]) == (1.0, 0.0, 0.5)
    assert level["right_number_of_lines"] == 1.0 and level["chance"] == pytest.approx(0.1)
    assert found["half_written"]["2"]["1"] == {"cases": 6, "correct": 1.0, "early": 0.0}
    assert found["look_ups"] == {"right": 1.0, "cases": 12} and found["single_steps"] == {"right": 1.0, "cases": 12}
    assert found["continuation"]["long"]["right_to_wrong"] == float(spoils)
    assert found["far"]["0"]["correct"] == float(not spoils)


def _single_step(prompt: str) -> str:
    """What follows a list and the beginning of a line."""
    head, _, rest = prompt.partition("\n")
    if terms := re.findall(r"(\d)\+(\d)=$", rest):
        return f"{(int(terms[0][0]) + int(terms[0][1])) % 10}\n\n\n\n"
    return re.findall(rf"(\d){rest[-1]}", head)[0] + "\n\n\n\n"
