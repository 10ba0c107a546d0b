"""Files of rows, one format as good as another: every complaint names the file and the line."""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from aha.errors import ConfigError

MAX_LINE_CHARACTERS = 10_000_000
FORMATS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet")

Place = str
"""Where a row stands: "file, line n"."""
Row = dict[str, Any]


def read_rows(path: Path) -> Iterator[tuple[Place, Row | str]]:
    """Yields (place, row) of every row of a file that is not empty, or (place, what is wrong with it).

    JSONL, CSV (whose first line names the columns) and parquet are streamed; a JSON file, a list of objects, is read
    whole. Text formats may be gzipped.

    Raises:
        ConfigError: the file cannot be read, is of another format, or is not of the format that its name says.
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
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if zipped
            else path.open(encoding="utf-8-sig", newline="")
        ) as file:
            yield from reader(file, path)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {str(path)!r}: not UTF-8 text") from error


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
    try:
        row = json.loads(line) if len(line) <= MAX_LINE_CHARACTERS else None
    except (ValueError, RecursionError) as error:
        return f"not JSON ({str(error)[:100]})"
    if not isinstance(row, dict):
        return f"must be a JSON object of at most {MAX_LINE_CHARACTERS:,} characters"
    return row


def _json(file: TextIO, path: Path) -> Iterator[tuple[Place, Row | str]]:
    try:
        rows = json.load(file)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{str(path)!r} is not JSON ({str(error)[:100]}); is it JSON Lines (.jsonl)?") from error
    if not isinstance(rows, list):
        raise ConfigError(f"{str(path)!r} must hold a list of objects, one a row")
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", row if isinstance(row, dict) else "must be a JSON object"


def _csv(file: TextIO, path: Path) -> Iterator[tuple[Place, Row | str]]:
    reader = csv.DictReader(file, strict=True)
    try:
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                yield place, f"must have {len(reader.fieldnames or ())} columns, as the first line has"
            else:
                yield place, dict(row)
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: not CSV ({error})") from error


def _parquet(path: Path) -> Iterator[tuple[Place, Row | str]]:
    parquet = _extra("pyarrow.parquet", "parquet files are read by pyarrow")
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (OSError, importlib.import_module("pyarrow").ArrowException) as error:
        raise ConfigError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error


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
        raise ConfigError(f"{why}, an extra: pip install 'aha[data]'") from error


def text_of(row: Mapping[str, Any], place: Place, *names: str) -> str:
    """The text of the first of these columns that a row has.

    Raises:
        ConfigError: it has none of them, or no text in it.
    """
    for name in names:
        if name in row:
            if not isinstance(row[name], str) or not row[name].strip():
                raise ConfigError(f"{place}: {name!r} must be a text that is not empty")
            return row[name]
    raise ConfigError(
        f"{place}: no column {' or '.join(map(repr, names))}; it has {', '.join(map(repr, row)) or 'none'}"
    )
