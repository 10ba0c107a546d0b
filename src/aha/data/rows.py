"""Files of rows, one format as good as another: every complaint names the file and the line."""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import re
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from aha.environment import install_command
from aha.errors import ConfigError

MAX_LINE_CHARACTERS = 10_000_000
FORMATS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet")

Place = str
"""Where a row stands: "file, line n"."""
Row = dict[str, Any]
NOT_UTF8 = "not UTF-8 text"
_NOT_TEXT = re.compile("[\ud800-\udfff]")
"""What `surrogateescape` makes of bytes that are not UTF-8, and what JSON's escapes make of half a character."""


def read_rows(path: Path) -> Iterator[tuple[Place, Row | str]]:
    """Yields (place, row) of every row of a file that is not empty, or (place, what is wrong with it).

    JSONL, CSV (whose first line names the columns) and parquet are streamed; a JSON file, a list of objects, is read
    whole. Text formats may be gzipped.

    A row whose bytes are not UTF-8, or which is not of the file's format, is bad and its neighbours are not.

    Raises:
        ConfigError: the file cannot be read, is of another format, or is as a whole not of the format that its name
            says.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = bool(suffixes) and suffixes[-1] == ".gz"
    kind = suffixes[-2 if zipped else -1] if len(suffixes) > zipped else ""
    if kind == ".parquet" and not zipped:
        yield from _parquet(path)
        return
    reader = {".jsonl": _json_lines, ".json": _json, ".csv": _csv}.get(kind)
    if reader is None:
        raise ConfigError(f"cannot tell the format of {str(path)!r}: its name must end with {', '.join(FORMATS)}")
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")
            if zipped
            else path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
        ) as file:
            yield from reader(file, path)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error


def good_rows(path: Path) -> Iterator[tuple[Place, Row]]:
    """`read_rows` where no row may be bad.

    Raises:
        ConfigError: as `read_rows`, and at the first bad row.
    """
    for place, row in read_rows(path):
        if isinstance(row, str):
            raise ConfigError(f"{place}: {row}")
        yield place, row


def _json_lines(file: TextIO, path: Path) -> Iterator[tuple[Place, Row | str]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield f"{path}, line {number}", _object(line)


def _object(line: str) -> Row | str:
    if _NOT_TEXT.search(line):
        return NOT_UTF8
    try:
        row = json.loads(line) if len(line) <= MAX_LINE_CHARACTERS else None
    except (ValueError, RecursionError) as error:
        return f"not JSON ({str(error)[:100]})"
    if not isinstance(row, dict):
        return f"must be a JSON object of at most {MAX_LINE_CHARACTERS:,} characters"
    return _whole(row) if "\\ud" in line.lower() else row


def _whole(row: Row) -> Row | str:
    """A row whose texts can be written as UTF-8."""
    return (
        "holds half a character (a lone \\ud800 to \\udfff)"
        if _NOT_TEXT.search(json.dumps(row, ensure_ascii=False))
        else row
    )


def _json(file: TextIO, path: Path) -> Iterator[tuple[Place, Row | str]]:
    text = file.read()
    if _NOT_TEXT.search(text):
        raise ConfigError(f"cannot read {str(path)!r}: {NOT_UTF8}")
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{str(path)!r} is not JSON ({str(error)[:100]}); is it JSON Lines (.jsonl)?") from error
    if not isinstance(rows, list):
        raise ConfigError(f"{str(path)!r} must hold a list of objects, one a row")
    escaped = "\\ud" in text.lower()
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            row = "must be a JSON object"
        elif escaped:
            row = _whole(row)
        yield f"{path}, row {number}", row


class _Lines:
    """The lines of a CSV file, for a reader that may have to begin again behind a row's first line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._returned: deque[str] = deque()
        self._row: list[str] = []
        self.number = 1
        """The line, from 1, on which the row that is being read begins."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._file)
        self._row.append(line)
        return line

    def go_on(self) -> None:
        """The row has been read."""
        self.number += len(self._row)
        self._row.clear()

    def begin_again(self) -> None:
        """The row cannot be read: its other lines, swallowed by a quote that was not closed, may be rows."""
        self._returned.extendleft(reversed(self._row[1:]))
        self.number += 1
        self._row.clear()


def _csv(file: TextIO, path: Path) -> Iterator[tuple[Place, Row | str]]:
    csv.field_size_limit(MAX_LINE_CHARACTERS)
    lines = _Lines(file)
    reader = csv.reader(lines, strict=True)
    names: list[str] = []
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            place, fault = f"{path}, line {lines.number}", f"not CSV ({error})"
            lines.begin_again()
        else:
            place, fault = f"{path}, line {lines.number}", _fault(fields, names)
            lines.go_on()
            if not fields:
                continue
        if fault and not names:
            raise ConfigError(f"{place}: {fault}; the first line must name the columns")
        if fault:
            yield place, fault
        elif not names:
            names = fields
        else:
            yield place, dict(zip(names, fields, strict=True))


def _fault(fields: list[str], names: list[str]) -> str:
    """What is wrong with a row of CSV: nothing, if it has a field for each name (before there are names: any)."""
    if any(map(_NOT_TEXT.search, fields)):
        return NOT_UTF8
    if names and len(fields) != len(names):
        return f"must have {len(names)} columns, as the first line has"
    return ""


def _parquet(path: Path) -> Iterator[tuple[Place, Row | str]]:
    parquet = _extra("pyarrow.parquet", "parquet files are read by pyarrow")
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for row in _values(batch):
                    number += 1
                    yield f"{path}, row {number}", row
    except (OSError, importlib.import_module("pyarrow").ArrowException) as error:
        raise ConfigError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error


def _values(batch: Any) -> Iterator[Row | str]:
    """The rows of a batch of pyarrow's. What Python has no value for, such as text that is not UTF-8, is bad."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        for number in range(batch.num_rows):
            try:
                yield from batch.slice(number, 1).to_pylist()
            except (ValueError, OverflowError) as error:
                yield f"not readable ({str(error)[:100]})"


def hub_rows(name: str, configuration: str | None, split: str) -> Iterator[tuple[Place, Row | str]]:
    """Streams a split of a dataset of the Hugging Face hub, or of a folder that `datasets` can load.

    Raises:
        ConfigError: there is no such dataset, configuration or split, or it cannot be reached.
    """
    datasets = _extra("datasets", "datasets of the hub are read by the package `datasets`")
    shown = f"hf:{name}" + (f":{configuration}" if configuration else "")
    try:
        for number, row in enumerate(datasets.load_dataset(name, configuration, split=split, streaming=True), start=1):
            yield f"{shown} {split}, row {number}", dict(row)
    except (OSError, ValueError, RuntimeError) as error:  # what the library raises is one of these
        said = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"cannot read {shown}, split {split!r}: {said}. Files of your own are named with --data or AHA_DATA"
        ) from error


def _extra(module: str, why: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{why}, an extra: {install_command('data')}") from error


def text_of(row: Mapping[str, Any], place: Place, *names: str) -> str:
    """The text of the first of these columns that a row has.

    Raises:
        ConfigError: it has none of them, or no text in it.
    """
    return _first_of(row, place, names, "a text that is not empty")


def text_or_number(row: Mapping[str, Any], place: Place, *names: str) -> str:
    """As `text_of`, where a number is as good as a text: 42, 3.5."""
    texts = {name: written(row[name]) for name in names if name in row}
    return _first_of({**row, **texts}, place, names, "a text that is not empty, or a number")


def written(value: Any) -> Any:
    """A finite number as it is written without an exponent; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return value
    exact = Decimal(str(value))
    if not exact.is_finite():
        return value
    return str(int(exact)) if exact == exact.to_integral_value() else format(exact, "f")


def json_value(value: Any) -> Any:
    """A value of a row in JSON's terms: dates and times are texts, tuples are lists.

    Raises:
        ValueError: JSON has no form for it, or for something in it; the message names its type.
    """
    if isinstance(value, str | int | float) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(name): json_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise ValueError(f"holds {type(value).__name__}, which JSON has no form for: leave it out, or store it as text")


def _first_of(row: Mapping[str, Any], place: Place, names: tuple[str, ...], expected: str) -> str:
    for name in names:
        if name in row:
            if not isinstance(row[name], str) or not row[name].strip():
                raise ConfigError(f"{place}: {name!r} must be {expected}")
            return row[name]
    raise ConfigError(
        f"{place}: no column {' or '.join(map(repr, names))}; it has {', '.join(map(repr, row)) or 'none'}"
    )
