"""A log of rollouts, found by what is in it: groups of completions of one prompt, in a file that may still grow.

Only where each group lies and a few facts about it are kept. New lines are read when somebody asks; a log that was cut
back, as a resumed stage does, is read anew.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aha.errors import RunFolderError
from aha.tasks.words import REFLECTION

Row = dict[str, Any]
FACTS = ("family", "level", "model", "outcome", "reflecting")
"""What a group can be found by beside its step and its text."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One group: where it lies, and what it can be found by."""

    start: int
    """Offset of its first line, in bytes; its name to those who ask for it."""
    end: int
    step: int | None
    model: str | None
    family: str
    level: int
    question: str
    right: int
    count: int
    reward: float
    """Mean of its completions."""
    reflecting: bool

    def passes(self, filters: Mapping[str, Any]) -> bool:
        """Whether its facts are those that are asked for: each equal, its step not before or after a given one."""
        step = -1 if self.step is None else self.step
        return filters.get("first_step", step) <= step <= filters.get("last_step", step) and all(
            getattr(self, name) == wanted for name, wanted in filters.items() if name in FACTS
        )

    @property
    def outcome(self) -> str:
        """Whether all of its completions are right, some, or none."""
        return "right" if self.right == self.count else "mixed" if self.right else "wrong"


class RolloutLog:
    """The groups of one `rollouts.jsonl`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reading = threading.Lock()
        self._entries: list[Entry] = []
        self._open: tuple[int, int, list[Row]] | None = None
        """Lines of an evaluation's last problem, which may get more."""
        self._last = b""
        """The last line that was read: while it still stands there, so does all before it."""
        self._read_to = 0

    def entries(self) -> list[Entry]:
        """All groups that the file has now.

        Raises:
            RunFolderError: a line is not a rollout.
        """
        with self._reading:
            if self._path.is_file():
                self._refresh()
            return self._entries + ([_entry(*self._open)] if self._open else [])

    def search(self, filters: Mapping[str, Any]) -> Iterator[Entry]:
        """The groups that pass, in the order of the file.

        Args:
            filters: any of `FACTS`, `first_step`, `last_step`, and a `text` that is in them.
        """
        needle = filters.get("text", "").casefold()
        for entry in self.entries():
            if entry.passes(filters) and (not needle or needle in self._text(entry)):
                yield entry

    def group(self, start: int) -> Row:
        """A group, whole, in one form for all logs: `question`, `gold`, and `completions` with `rewards` by part.

        Raises:
            LookupError: there is none at that place.
        """
        entry = next((entry for entry in self.entries() if entry.start == start), None)
        if entry is None:
            raise LookupError(f"no group of rollouts at {start}")
        return _group(self._rows(entry))

    def _text(self, entry: Entry) -> str:
        group = _group(self._rows(entry))
        return "\n".join([group["question"], *(one["text"] for one in group["completions"])]).casefold()

    def _rows(self, entry: Entry) -> list[Row]:
        with self._path.open("rb") as file:
            file.seek(entry.start)
            return [json.loads(line) for line in file.read(entry.end - entry.start).splitlines()]

    def _refresh(self) -> None:
        with self._path.open("rb") as file:
            file.seek(max(0, self._read_to - len(self._last)))
            if file.read(len(self._last)) != self._last:
                self._entries, self._open, self._last, self._read_to = [], None, b"", 0
                file.seek(0)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                try:
                    self._take(json.loads(line), self._read_to, self._read_to + len(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise RunFolderError(f"{str(self._path)!r}, byte {self._read_to}: damaged ({error!r})") from error
                self._last, self._read_to = line, self._read_to + len(line)

    def _take(self, row: Row, start: int, end: int) -> None:
        """A row of training is a group; an evaluation's rows of one problem, which follow each other, make one."""
        entry = _entry(start, end, [row])
        if self._open is not None and (_asked(self._open[2][0]) != _asked(row) or "completions" in row):
            self._entries.append(_entry(*self._open))
            self._open = None
        if "completions" in row:
            self._entries.append(entry)
        elif self._open is None:
            self._open = (start, end, [row])
        else:
            self._open = (self._open[0], end, [*self._open[2], row])


def _asked(row: Row) -> tuple[Any, ...]:
    """What the completions of one group have in common; `source` and `setting` are those of test-time scaling."""
    names = ("model", "style", "source", "setting", "key")
    return *(row.get(name) for name in names), row["question"]


def _entry(start: int, end: int, rows: list[Row]) -> Entry:
    group = _group(rows)
    completions = group["completions"]
    rewards = [one["reward"] for one in completions if one["reward"] is not None]
    return Entry(
        start=start,
        end=end,
        step=group["step"],
        model=group["model"],
        family=group["family"],
        level=group["level"],
        question=group["question"],
        right=sum(one["right"] for one in completions),
        count=len(completions),
        reward=sum(rewards) / max(1, len(rewards)),
        reflecting=any(REFLECTION.search(one["text"]) for one in completions),
    )


def _group(rows: list[Row]) -> Row:
    first = rows[0]
    completions = [_sampled(one) for one in first["completions"]] if "completions" in first else map(_evaluated, rows)
    return {
        "step": first.get("step"),
        "model": first.get("model"),
        "style": first.get("style"),
        "source": f"{first['source']} {first['setting']}" if "source" in first else None,
        "family": first["family"],
        "level": first["level"],
        "question": first["question"],
        "gold": first.get("gold"),
        "completions": list(completions),
    }


def _sampled(row: Row) -> Row:
    """A completion of training."""
    right = row["rewards"].get("accuracy", row["rewards"].get("true_score", 0.0)) == 1.0
    return {**row, "right": right}


def _evaluated(row: Row) -> Row:
    """A completion of an evaluation: what it counts for stands in the place of rewards, and nobody learns from it."""
    score = row.get("score", float(row["correct"]))
    return {
        "text": row["completion"],
        "tokens": row["tokens"],
        "finish_reason": "length" if row["truncated"] else "stop",
        "reward": score,
        "rewards": {"score": score, **({"format": float(row["well_formed"])} if "well_formed" in row else {})},
        "advantage": None,
        "right": row["correct"],
    }
