"""Data of the user's own: where it lies, what its columns mean, and how much of it may be bad."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from aha.configuration import Config
from aha.data.rows import Place, Row, hub_rows, read_rows
from aha.environment import install_command
from aha.errors import ConfigError
from aha.files import derive_seed, file_sha256
from aha.workers import KillableWorker

HUB, GYM = "hf:", "gym:"
SKIPPING = " (to skip some bad rows instead: --set 'train={path: FILE, bad_share: 0.01}')"
GYM_ROWS = {"train": 10_000, "test": 500}
"""Puzzles that reasoning-gym is asked for where no limit is set."""
GYM_SECONDS, GYM_AT_ONCE = 30.0, 256
COMPLAINTS = 5
"""Bad rows that are reported one by one."""
HOPELESS = 100
"""Bad rows after which a source is given up once they are more than their share of the rows so far."""
T = TypeVar("T")


class Source(Config):
    """One table of rows."""

    path: str = Field(
        min_length=1,
        description="a .jsonl, .json, .csv (or .gz of them), .parquet file, hf:NAME[:CONFIG] or gym:NAME",
    )
    split: str = Field("train", min_length=1, description="of a dataset of the hub")
    columns: dict[str, str] = Field(
        default_factory=dict, description="our name of a column: the name that it has there"
    )
    limit: int = Field(0, ge=0, description="at most so many rows, from the front; 0 takes all")
    bad_share: float = Field(
        0.0, ge=0, lt=1, description="share of rows that may be bad: they are reported and skipped"
    )


@dataclass(slots=True)
class Reading:
    """What became of a source's rows."""

    rows: int = 0
    bad: int = 0
    complaints: list[str] = field(default_factory=list)
    """The first few bad rows: place and fault."""


def read_source(source: Source, convert: Callable[[Row, Place], T], reading: Reading) -> Iterator[T]:
    """Streams a source's rows, converted.

    Args:
        source: which.
        convert: makes something of a row, whose columns have our names; raises ConfigError if it is not as expected.
        reading: is filled in on the way.

    Raises:
        ConfigError: the source cannot be read, or more of its rows are bad than `bad_share` allows: at its end, or
            earlier, once `HOPELESS` rows are bad and more than that share of those read.
    """
    for place, row in _rows(source):
        if source.limit and reading.rows == source.limit:
            break
        reading.rows += 1
        try:
            if isinstance(row, str):
                raise ConfigError(f"{place}: {row}")
            converted = convert(_renamed(row, source.columns, place), place)
        except ConfigError as error:
            _count(reading, str(error), source)
            continue
        yield converted
    _check_share(reading, source, f"{reading.bad} of {reading.rows} rows")


def _rows(source: Source) -> Iterator[tuple[Place, Row | str]]:
    if source.path.startswith(GYM):
        return _gym_rows(source)
    if not source.path.startswith(HUB):
        return read_rows(Path(source.path))
    name, _, configuration = source.path.removeprefix(HUB).partition(":")
    return hub_rows(name, configuration or None, source.split)


def _gym_rows(source: Source) -> Iterator[tuple[Place, Row | str]]:
    """Puzzles of reasoning-gym; each split has its own seed. They are made in a worker whose hash seed is fixed."""
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ConfigError(f"puzzles are made by reasoning-gym, an extra: {install_command('gym')}")
    name, count = source.path.removeprefix(GYM), source.limit or GYM_ROWS.get(source.split, 1000)
    seed = derive_seed("reasoning-gym", source.split) % (1 << 31)
    with KillableWorker("aha.data.gym_worker:make_row", GYM_SECONDS) as worker:
        for start in range(0, count, GYM_AT_ONCE):
            numbers = range(start, min(count, start + GYM_AT_ONCE))
            for number, row in zip(numbers, worker.grade([[name, count, seed, i] for i in numbers]), strict=True):
                place = f"{source.path} {source.split}, puzzle {number + 1}"
                yield place, row if isinstance(row, dict) else "reasoning-gym did not make it; is there such a dataset?"


def _renamed(row: Row, columns: dict[str, str], place: Place) -> Row:
    """A row with the columns of the map under our names besides those it has."""
    missing = [theirs for theirs in columns.values() if theirs not in row]
    if missing:
        raise ConfigError(f"{place}: no column {missing[0]!r}; it has {', '.join(map(repr, row)) or 'none'}")
    return {**row, **{ours: row[theirs] for ours, theirs in columns.items()}}


def _count(reading: Reading, complaint: str, source: Source) -> None:
    if source.bad_share == 0.0:
        raise ConfigError(f"{complaint}{'' if source.path.startswith(GYM) else SKIPPING}")
    reading.bad += 1
    if len(reading.complaints) < COMPLAINTS:
        reading.complaints.append(complaint)
    if reading.bad >= HOPELESS:
        _check_share(reading, source, f"{reading.bad} of the first {reading.rows} rows, which is where reading ended,")


def _check_share(reading: Reading, source: Source, counted: str) -> None:
    if reading.bad > source.bad_share * reading.rows:
        raise ConfigError(
            f"{source.path}: {counted} are bad, more than bad_share = {source.bad_share:g} allows. "
            f"{'; '.join(reading.complaints)}"
        )


def source_identity(source: Source) -> str:
    """The hash of a source's content, so that a stage that reads it is redone when it changes.

    A dataset of the hub is taken by its name: pin a revision by downloading it.

    Raises:
        ConfigError: the file is not there.
    """
    if source.path.startswith((HUB, GYM)):
        return hashlib.sha256(f"{source.path} {source.split}".encode()).hexdigest()
    path = Path(source.path)
    if not path.is_file():
        raise ConfigError(f"there is no file {source.path!r}")
    return file_sha256(path)
