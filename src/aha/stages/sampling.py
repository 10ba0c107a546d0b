"""Sampling conversations from a model: what the cold start, the rejection sampling and the reward models share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aha.training.stage import StageContext
from aha.types import Problem

Row = dict[str, Any]
"""What a stage keeps of one completion, as JSON."""


def sample_in_batches(
    context: StageContext,
    problems: Sequence[Problem],
    rows_of: Callable[[Sequence[Problem], Sequence[int]], list[list[Row]]],
    at_once: int,
    note: Callable[[Sequence[Row]], dict[str, str]] = lambda rows: {},
) -> list[list[Row]]:
    """The rows of every problem, of all processes; batches done before an interruption are not done again.

    Args:
        context: of the stage, whose checkpoints hold the rows.
        problems: all, the same on every rank.
        rows_of: samples problems, each with its seed.
        at_once: problems between two checkpoints.
        note: what to say beside the progress, from all rows so far.
    """
    saved = context.checkpointer.load()
    groups: list[list[Row]] = saved.state.get("groups", []) if saved else []
    with context.progress.task(f"{context.name}: sampling", len(problems), len(groups)) as task:
        for first in range(len(groups), len(problems), at_once):
            batch = range(first, min(len(problems), first + at_once))
            own = [batch[i] for i in context.distributed.share(len(batch))]
            new = rows_of([problems[i] for i in own], [context.derive_seed("sample", i) for i in own])
            groups += context.distributed.gather_shares(new)
            task.update(len(groups), note([row for group in groups for row in group]))
            if context.checkpointer.due():
                context.checkpointer.save(len(groups), {}, {"groups": groups})
    return groups
