"""Sources of the user's own: formats, column maps, bad rows, random access."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from aha.data.indexed import IndexedRows, write_rows
from aha.data.rows import Place, Row
from aha.data.sources import Reading, Source, read_source, source_identity
from aha.errors import ConfigError

ROWS = [{"q": f"What is {i} + 1?", "a": str(i + 1), "note": 'with "quotes",\nlines and 中文'} for i in range(5)]


def write(path: Path) -> None:
    if path.suffix == ".parquet":
        arrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(ROWS), path)
        return
    zipped = path.suffix == ".gz"
    with gzip.open(path, "wt", encoding="utf-8") if zipped else path.open("w", encoding="utf-8", newline="") as file:
        if ".csv" in path.suffixes:
            writer = csv.DictWriter(file, list(ROWS[0]))
            writer.writeheader()
            writer.writerows(ROWS)
        elif ".jsonl" in path.suffixes:
            file.writelines(json.dumps(row) + "\n" for row in ROWS)
        else:
            json.dump(ROWS, file)


def plain(row: Row, place: Place) -> dict[str, Any]:
    return dict(row)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.csv", "a.csv.gz", "a.parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    reading = Reading()
    rows = list(read_source(Source(path=str(tmp_path / name), columns={"question": "q"}), plain, reading))
    assert rows == [{**row, "question": row["q"]} for row in ROWS]
    assert (reading.rows, reading.bad) == (5, 0)
    assert len(list(read_source(Source(path=str(tmp_path / name), limit=2), plain, Reading()))) == 2


def test_bad_rows_are_skipped_up_to_the_stated_share(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([json.dumps(row) for row in ROWS] + ["{broken"]))
    with pytest.raises(ConfigError, match=r"a\.jsonl, line 6: not JSON.*bad_share"):
        list(read_source(Source(path=str(path)), plain, Reading()))
    reading = Reading()
    assert list(read_source(Source(path=str(path), bad_share=0.2), plain, reading)) == ROWS
    assert (reading.rows, reading.bad) == (6, 1) and "line 6" in reading.complaints[0]
    with pytest.raises(ConfigError, match=r"1 of 6 rows are bad, more than bad_share = 0\.1 allows.*line 6"):
        list(read_source(Source(path=str(path), bad_share=0.1), plain, Reading()))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "must end with .jsonl"),
        ("a", b"", "must end with .jsonl"),
        ("a.json", b"{", "is not JSON"),
        ("a.json", b'{"a": 1}', "list of objects"),
        ("a.jsonl", b"\xff\xfe\n", "not UTF-8"),
        ("a.jsonl.gz", b"no gzip", "cannot read"),
        ("a.csv", b'a,b\n1,"2', "not CSV"),
        ("a.csv", b"a,b\n1\n", "line 2: must have 2 columns"),
        ("a.csv", b"a,b\n1,2,3\n", "line 2: must have 2 columns"),
        ("a.jsonl", b'{"b": 1}', "no column 'a'; it has 'b'"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        list(read_source(Source(path=str(path), columns={"question": "a"}), plain, Reading()))
    assert name in str(error.value)


def test_missing_files(tmp_path: Path) -> None:
    source = Source(path=str(tmp_path / "no.jsonl"))
    with pytest.raises(ConfigError, match="cannot read"):
        list(read_source(source, plain, Reading()))
    with pytest.raises(ConfigError, match="no file"):
        source_identity(source)


def test_a_source_is_known_by_its_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text("{}\n")
    second.write_text("{}\n")
    assert source_identity(Source(path=str(first))) == source_identity(Source(path=str(second)))
    second.write_text("{ }\n")
    assert source_identity(Source(path=str(first))) != source_identity(Source(path=str(second)))


def test_rows_are_read_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert write_rows(path, iter(ROWS)) == 5
    rows = IndexedRows(path)
    assert len(rows) == 5 and [rows[i] for i in (3, 0, 4)] == [ROWS[3], ROWS[0], ROWS[4]] and list(rows) == ROWS
    with pytest.raises(RuntimeError):
        write_rows(path, (_fail(i) for i in range(2)))
    assert list(IndexedRows(path)) == ROWS


def _fail(number: int) -> dict[str, int]:
    if number:
        raise RuntimeError("stopped half way")
    return {"number": number}
