"""Step checking: which of the written arithmetic steps are true."""

from __future__ import annotations

import contextlib
import re

from aha.grading.expressions import evaluate

_STEP = re.compile(r"(?<![0-9+\-*/=.])([0-9]{1,6}(?:[+\-*/][0-9]{1,6})+)=([0-9]{1,9})(?![0-9])", re.ASCII)
MAX_STEPS = 400


def check_equations(thinking: str) -> tuple[int, int]:
    """Counts (true, all) equations of the form ``12+7-3=16`` in a text; at most the first 400 are read."""
    true = total = 0
    for match in _STEP.finditer(thinking):
        total += 1
        with contextlib.suppress(ValueError):
            true += evaluate(match[1])[0] == int(match[2])
        if total >= MAX_STEPS:
            break
    return true, total
