"""Integers, and workers that can be killed."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.errors import GradingError
from aha.tasks.integer_answers import integer
from aha.workers import KillableWorker


@given(st.text(max_size=200))
def test_only_digits_are_an_integer(text: str) -> None:
    assert integer(" 007 ") == 7
    assert integer(text) is None or text.strip().isdigit()


def test_a_worker_answers_in_order_and_survives_errors() -> None:
    with KillableWorker("aha.tasks.integer_answers:integer") as worker:
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
