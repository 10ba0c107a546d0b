"""Hostile programs: none reads, writes, calls, outlives its limit, hurts the next one, or is rewarded.

Run with: pytest tests/unit/grading/sandbox/test_hostile.py
"""

import dataclasses
import runpy
import time
from pathlib import Path
from typing import Any

import pytest

from aha.grading.sandbox import backends
from aha.grading.sandbox.checks import LocalRunner
from aha.grading.sandbox.local import GRACE_SECONDS, Sandbox
from aha.grading.sandbox.outcome import Ending, FunctionTest

TABLE = runpy.run_path(str(Path(__file__).with_name("hostile.py")))
HOSTILE: dict[str, str] = TABLE["HOSTILE"]
FORGED: dict[str, str] = TABLE["FORGED"]
ENDLESS: set[str] = TABLE["ENDLESS"]
LIMIT = 0.3
TEST = FunctionTest(
    "f",
    """
def check(candidate):
    assert candidate(1) == 777123
    assert candidate([3, 1]) == [1, 3]
    numbers = [2, 1]
    assert candidate(numbers) == sorted(numbers)
""",
)
RIGHT = "def f(x): return sorted(x) if isinstance(x, list) else 777123"
AFTER = """
import json, os, socket
try:
    os.kill(-1, 0)
    print("not alone")
except ProcessLookupError:
    print("alone", os.listdir("/tmp"), json.dumps(1), os.stat("/tmp").st_mode & 0o777 != 0)
"""


def test_there_are_enough() -> None:
    assert len(HOSTILE) + len(FORGED) >= 60


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_program_gets_nowhere(runner: LocalRunner, trap: Any, name: str) -> None:
    program = TABLE["PRELUDE"] + HOSTILE[name]
    started = time.monotonic()
    outcome = runner.programs.run(program, trap.told, LIMIT)
    seconds = time.monotonic() - started
    assert "REACHED" not in outcome.stdout + outcome.stderr
    assert trap.word not in outcome.stdout + outcome.stderr
    assert trap.is_untouched()
    assert (outcome.ending is Ending.TIME) >= (name in ENDLESS), outcome
    assert seconds < LIMIT + GRACE_SECONDS + 10
    assert runner.programs.run(AFTER).stdout == "alone [] 1 True\n"


def test_the_trap_is_one(runner: LocalRunner, trap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that shows the trap, read-only, and no self-test: what reads it is noticed, what writes still fails."""
    view = backends.host_view()
    changed = dataclasses.replace(view, shown=(*view.shown, (str(trap.folder), "/bait")))
    monkeypatch.setattr(backends, "host_view", lambda library: changed)
    monkeypatch.setattr(Sandbox, "_prove", lambda self: None)
    told = trap.told.replace(str(trap.folder), "/bait")
    assert runner.programs.backend is not None
    with Sandbox(backends=[runner.programs.backend]) as sandbox:
        for name in ("read a file", "read by a relative path", "read through a symbolic link", "find the tests"):
            outcome = sandbox.run(TABLE["PRELUDE"] + HOSTILE[name], told)
            assert "REACHED" in outcome.stdout, name
        assert "REACHED" not in sandbox.run(TABLE["PRELUDE"] + HOSTILE["write a file"], told).stdout
    assert trap.is_untouched()


@pytest.mark.parametrize("name", list(FORGED))
def test_no_forgery_is_rewarded(runner: LocalRunner, name: str) -> None:
    runner.programs.config = runner.tests.config = runner.programs.config.model_copy(update={"seconds": 0.5})
    verdict = runner.check(FORGED[name], TEST)
    assert not verdict.passed
    assert verdict.why


def test_what_is_right_passes_among_them(runner: LocalRunner) -> None:
    assert runner.check(RIGHT, TEST).passed


@pytest.mark.slow
def test_none_holds_the_trainer_longer_than_a_second(runner: LocalRunner, trap: Any) -> None:
    """The figure itself: the limit + 1 s, over all programs; on an idle machine."""
    worst = {}
    for name, source in HOSTILE.items():
        started = time.monotonic()
        runner.programs.run(TABLE["PRELUDE"] + source, trap.told, LIMIT)
        worst[name] = time.monotonic() - started - LIMIT
    assert max(worst.values()) < 1.0, sorted(worst.items(), key=lambda item: -item[1])[:5]
