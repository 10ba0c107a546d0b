"""What the verdicts within a thinking say about it."""

from __future__ import annotations

from collections.abc import Sequence

from aha.types import Step


def abandoned(steps: Sequence[Step]) -> tuple[int, int]:
    """Attempts that a thinking rejects and goes on from: (those that were wrong, all)."""
    last = max((step.line for step in steps), default=0)
    rejections = [step for step in steps if step.accepts is False and step.line < last]
    return sum(step.true for step in rejections), len(rejections)
