"""The side of reasoning-gym that imports it: for worker processes, which have time to start and can be killed."""

from __future__ import annotations

import functools
from typing import Any

import reasoning_gym
from reasoning_gym.factory import DATASETS

from aha.data.reasoning_gym import GRIDS, MOST_CHARACTERS, REFUSED


def names() -> list[str]:
    """All datasets that can be used."""
    return sorted(set(DATASETS) - REFUSED - {"composite"})


@functools.lru_cache(maxsize=4)
def _dataset(name: str, size: int, seed: int) -> Any:
    return reasoning_gym.create_dataset(name, size=size, seed=seed)


def make_row(name: str, size: int, seed: int, index: int) -> dict[str, Any]:
    """Puzzle `index` of a dataset, as JSON. A worker's hash seed is fixed, so that puzzles are repeatable."""
    entry = _dataset(name, size, seed)[index]
    return {"question": entry["question"], "answer": entry["answer"], "entry": _json(entry)}


def score(name: str, answer: str, entry: dict[str, Any]) -> bool:
    """Whether an answer is wholly right; part marks count as wrong."""
    if not answer.strip() or len(answer) > MOST_CHARACTERS:
        return False
    try:
        value = float(_dataset(name, 1, 0).score_answer(answer, _judged(name, entry)))
    except Exception:  # noqa: BLE001 - grading: what a judge cannot read is not the answer
        return False
    return value >= 1.0  # not for nan


def _judged(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry as the judge wants it, after JSON."""
    if name not in GRIDS:
        return entry
    metadata = entry["metadata"]
    return {**entry, "metadata": {**metadata, "output": tuple(map(tuple, metadata["output"]))}}


def _json(value: Any) -> Any:
    """An entry without what JSON has no form for: tuples become lists, other objects their text."""
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
