"""What a completion answers in each prompt style, and when that counts."""

import pytest

from aha.tasks.answers import read_completion
from aha.tasks.math_boxed import MathBoxed
from aha.text.prompt_style import PROMPT_STYLES, PromptStyle
from aha.text.tokenizer import THINK, Tokenizer
from aha.types import Problem

PROBLEM = Problem(
    "sums", "math", 1, "en", "What is 2+2+1?", "5", {"items": [[2], [2], [1]], "start": 0, "first": 0, "last": 2}
)


@pytest.mark.parametrize(
    ("text", "style", "vote", "counts"),
    [
        ("<think>2+2=4</think><answer>05</answer>", "zero", "5", True),
        ("<think>2+2=4</think><answer>five</answer>", "zero", None, True),
        ("<think></think><answer>5</answer>", "zero", None, False),
        ("2+2=4</think><answer>5</answer>", "zero_think", "5", True),
        ("2+2=4", "zero_think", "4", True),
        ("2+2=4\n</think>\n\nThe answer is 5.", "chat", "5", True),
        ("2+2=4\n</think>\n\n5", "chat", None, True),
        ("The answer is 5.", "chat", None, False),
        ("The answer is 5.", "chat_direct", "5", True),
        ("5", "direct", "5", True),
    ],
)
def test_strict_where_a_form_was_asked_for(text: str, style: str, vote: str | None, counts: bool) -> None:
    reading = read_completion(PROBLEM, text, False, PromptStyle.named(style))
    assert (reading.vote, reading.counts) == (vote, counts)


def test_a_forced_end_excuses_empty_thinking_and_nothing_else() -> None:
    for name, text in (("zero", "<think></think>\n<answer>5</answer>"), ("chat", "\n\n</think>\n\nThe answer is 5.")):
        style = PromptStyle.named(name)
        assert read_completion(PROBLEM, text, False, style, forced=True).vote == "5"
        assert read_completion(PROBLEM, text, True, style, forced=True).vote is None
    zero = PromptStyle.named("zero")
    assert read_completion(PROBLEM, "<think></think><answer> </answer>", False, zero, forced=True).vote is None


def test_what_the_prompt_has_begun() -> None:
    tokenizer = Tokenizer.train(["2+2=4"], 270)
    for style in PROMPT_STYLES:
        written = tokenizer.decode(style.prompt(tokenizer, PROBLEM))
        inside = written.rstrip("\n").endswith(THINK)
        assert inside == style.prefilled == (style.name in ("zero_think", "chat"))
        assert PROBLEM.question in written
    assert {style.name for style in PROMPT_STYLES if style.thinks} == {"zero", "zero_think", "chat"}


@pytest.mark.parametrize(
    ("answers", "votes"),
    [
        (
            [
                r"\boxed{0.5}",
                r"\boxed{1/2}",
                r"\boxed{\frac{1}{2}}",
                r"So it is \boxed{\dfrac{1}{2}}.",
                "answer is 0.50",
            ],
            1,
        ),
        ([r"\boxed{\left(1, 2\right)}", r"\boxed{(1,2)}"], 1),
        ([r"\boxed{\dfrac{x}{2}}", r"\boxed{\frac{x}{2}}", r"\boxed{ \tfrac{x}{2} }"], 1),
        ([r"\boxed{2\sqrt{3}}", r"\boxed{3\sqrt{2}}"], 2),
        ([r"\boxed{1/2}", r"\boxed{1/3}", r"\boxed{-1/2}"], 3),
    ],
)
def test_latex_answers_vote_by_their_value_where_they_are_numbers(answers: list[str], votes: int) -> None:
    task = MathBoxed()
    problem = Problem("math", "math", 1, "en", "?", r"\frac{1}{2}")
    found = [task.canonical(problem, answer) for answer in answers]
    assert None not in found
    assert len(set(found)) == votes, found
    assert task.canonical(problem, r"\boxed{}") is None
