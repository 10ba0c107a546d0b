"""Exact arithmetic, the bounded interpreter, and workers that can be killed."""

import contextlib
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.errors import GradingError
from aha.grading.expressions import evaluate, integer
from aha.grading.interpreter import format_program, parse_program, run_program
from aha.workers import KillableWorker


def test_expressions_against_python_on_random_trees() -> None:
    rng = random.Random(0)

    def tree(depth: int) -> str:
        if depth == 0 or rng.random() < 0.3:
            return str(rng.randint(0, 30))
        return f"({tree(depth - 1)}{rng.choice('+-*/')}{tree(depth - 1)})"

    for _ in range(300):
        text = tree(3)
        try:
            expected = eval(text)
        except ZeroDivisionError:
            with pytest.raises(ValueError):
                evaluate(text)
            continue
        assert float(evaluate(text)[0]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    ["", "1+", "()", "1 2", "2**3", "1e5", "-1", "1//2", "__import__('os')", "1" * 10, "(" * 200, "１+１", "1/0"],
)
def test_what_is_not_an_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        evaluate(text)


@given(st.text(max_size=200))
def test_any_text_is_answered_by_a_value_or_by_valueerror(text: str) -> None:
    with contextlib.suppress(ValueError):
        evaluate(text)
    assert integer(text) is None or text.strip().isdigit()


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "sub", "mul", "div", "mod", "max", "min"]), st.integers(1, 999)),
        min_size=1,
        max_size=16,
    )
)
def test_programs_round_trip(program: list[tuple[str, int]]) -> None:
    assert parse_program(format_program(program)) == program
    assert isinstance(run_program(program, 5), int)


@pytest.mark.parametrize(
    "text", ["", "add", "add x", "add -1", "div 0", "mod 0", "add 1;;", "while 1", "add 1\n;exec 2", "add 1;" * 17]
)
def test_what_is_not_a_program_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_program(text)


def test_a_worker_answers_in_order_and_survives_errors() -> None:
    with KillableWorker("aha.grading.expressions:integer") as worker:
        assert worker.grade([["1"], ["x"], [None], ["3"]]) == [1, None, None, 3]
        assert worker.kills == 0


def test_an_item_that_hangs_is_killed_and_the_rest_go_on() -> None:
    with KillableWorker("time:sleep", seconds_per_item=0.5) as worker:
        started = time.monotonic()
        assert worker.grade([[0.0], [60.0], [0.0]]) == [None, None, None]
        assert time.monotonic() - started < 30
        assert worker.kills == 1


def test_a_worker_that_dies_gives_no_verdict() -> None:
    with KillableWorker("os:_exit", seconds_per_item=5) as worker:
        assert worker.grade([[3], [3]]) == [None, None]


def test_a_target_that_cannot_be_imported_is_an_error() -> None:
    with pytest.raises(GradingError, match="did not start"):
        KillableWorker("aha.nowhere:nothing").grade([[1]])
