r"""Equality of LaTeX answers by math-verify (extra `math`), for a killable worker: `aha.workers`.

math-verify parses with sympy, which some inputs keep busy for ever inside one call. Its own limit is an alarm that only
works in a main thread; the worker's main thread is where this runs, and behind the alarm stands the worker's kill.

Known and kept, since MATH's own rules want it: 5\% equals 5, and an expression counts as its value ("3*4" for 12),
so a question that asks to compute an expression should not be graded by it.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

MAX_CHARACTERS = 1000
ALARM_SECONDS = 2
_LIBRARY: Any = importlib.import_module("math_verify") if importlib.util.find_spec("math_verify") else None


def same_latex(gold: str, answer: str) -> bool:
    """Whether an answer, the content of a box, equals the gold one (in this order: gold first)."""
    if max(len(gold), len(answer)) > MAX_CHARACTERS or not answer.strip() or "boxed" in answer:
        return False
    if _is_unbalanced(answer):
        return False
    if "".join(gold.split()) == "".join(answer.split()):
        return True
    parsed = [_LIBRARY.parse(rf"\boxed{{{text}}}", parsing_timeout=ALARM_SECONDS) for text in (gold, answer)]
    return bool(all(parsed) and _LIBRARY.verify(*parsed, timeout_seconds=ALARM_SECONDS))


def _is_unbalanced(text: str) -> bool:
    """Whether a text would close the box it is put into: a second one could then follow."""
    depth = 0
    for character in text.replace("\\{", "").replace("\\}", ""):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return True
    return depth != 0
