"""`aha grade`: the completions of a file, graded."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from aha.files import write_atomic
from aha.rewards.completions import Graded, grade_file
from aha.tasks.datasets import open_dataset
from aha.tasks.families import FAMILIES


def grade_completions(file: Path, name: str, data: Path | None, out: Path | None, strict: bool) -> None:
    """Grades the completions of a file: a JSON line each to `out` or standard output, and a summary.

    Raises:
        UnknownNameError: no such task or family.
        ConfigError: a row of the file is not as expected; the message names file and line.
        GradingError: the task cannot be graded here.
    """
    with contextlib.ExitStack() as stack:
        task = None if name in FAMILIES else stack.enter_context(open_dataset(name))
        if task is not None:
            task.prepare()
        graded = []
        lines = []
        for result in grade_file(file, name, task, data, strict):
            graded.append(result)
            lines.append(json.dumps(asdict(result), ensure_ascii=False))
            if out is None:
                print(lines[-1], flush=True)
    if out is not None:
        write_atomic(out, "".join(f"{line}\n" for line in lines))
    print(_summary(graded), file=sys.stderr if out is None else sys.stdout)


def _summary(graded: Sequence[Graded]) -> str:
    judged = [result for result in graded if result.reward is not None]
    parts = [f"{len(graded)} rows", f"{len(graded) - len(judged)} without a verdict"]
    if judged:
        for part in judged[0].rewards:
            parts.append(f"{part} {sum(result.rewards[part] for result in judged) / len(judged):.1%}")
        parts.append(f"mean reward {sum(result.reward or 0.0 for result in judged) / len(judged):.4f}")
    return ", ".join(parts)
