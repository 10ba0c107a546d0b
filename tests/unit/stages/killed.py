"""A stage that samples, run whole and run killed: both end with the same bytes, and nothing is asked twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from aha.files import file_sha256
from aha.training.interrupts import StopRequested
from aha.training.stage import Stage, StageContext

from ..generators import Replies


def whole_and_killed(
    make_stage: Callable[..., Stage], started: Callable[[], tuple[StageContext, Replies]], files: Sequence[str]
) -> tuple[Mapping[str, Any], list[str]]:
    """Runs a stage in one piece, and in three.

    Args:
        make_stage: the stage's class, which takes what makes a generator.
        started: a context for the next start, and the generator.
        files: of the stage's folder, which must not depend on the interruptions.

    Returns:
        The summary of the run in one piece, and all that it asked.
    """

    def bytes_of(context: StageContext) -> list[str]:
        return [file_sha256(context.folder / name) for name in files]

    whole, replies = started()
    summary = make_stage(lambda *_, **__: replies).run(whole).summary
    expected, everything = bytes_of(whole), replies.asked
    whole.folder.rename(whole.run.path / "first")
    asked: list[str] = []
    for killed in (True, True, False):
        context, again = started()
        stage = make_stage(lambda *_, again=again, **__: again)
        if killed:
            context.checkpointer._stop.signum = 15
            with pytest.raises(StopRequested):
                stage.run(context)
        else:
            stage.run(context)
        asked += again.asked
    assert bytes_of(context) == expected
    assert asked == everything
    return summary, everything
