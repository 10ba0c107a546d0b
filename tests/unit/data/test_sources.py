"""Sources of the user's own: formats, column maps, bad rows, random access."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from aha.data.indexed import IndexedRows, write_rows
from aha.data.rows import Place, Row, json_value, read_rows, text_or_number
from aha.data.sources import HOPELESS, Reading, Source, read_source, source_identity
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
        ("a.jsonl", b"\xff\xfe\n", "line 1: not UTF-8"),
        ("a.json", b'[{"a": "\xff"}]', "not UTF-8"),
        ("a.csv", b"a,\xff\n1,2\n", "line 1: not UTF-8.*must name the columns"),
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


def read(path: Path, content: bytes) -> tuple[list[Row], list[str]]:
    """The good rows of a file, and what is said of the bad ones, without the file's name."""
    path.write_bytes(content)
    rows = list(read_rows(path))
    bad = [f"{place}: {row}".removeprefix(f"{path}, ") for place, row in rows if isinstance(row, str)]
    return [row for _, row in rows if not isinstance(row, str)], bad


@pytest.mark.parametrize("zipped", [False, True])
def test_a_byte_that_is_not_utf8_spoils_its_row_alone(tmp_path: Path, zipped: bool) -> None:
    name, content = "a.jsonl", b'\xef\xbb\xbf{"a": "\xe4\xb8\xad"}\n{"a": "\xff"}\r\n\n{"a": "3"}\n'
    if zipped:
        name, content = "a.jsonl.gz", gzip.compress(content)
    good, bad = read(tmp_path / name, content)
    assert (good, bad) == ([{"a": "中"}, {"a": "3"}], ["line 2: not UTF-8 text"])
    reading = Reading()
    source = Source(path=str(tmp_path / name), bad_share=0.5)
    assert len(list(read_source(source, plain, reading))) == 2 and "line 2" in reading.complaints[0]


def test_half_a_character_cannot_be_kept(tmp_path: Path) -> None:
    halves, whole = rb'{"a": ["\uD83D"]}', rb'{"a": "\uD83D\uDE00"}'
    good, bad = read(tmp_path / "a.jsonl", halves + b"\n" + whole)
    assert good == [{"a": "\U0001f600"}] and bad[0].startswith("line 1: holds half a character")
    good, bad = read(tmp_path / "a.json", b"[" + halves + b"," + whole + b"]")
    assert good == [{"a": "\U0001f600"}] and bad[0].startswith("row 1: holds half a character")


def test_a_bad_row_of_csv_costs_nothing_but_itself(tmp_path: Path) -> None:
    lines = ["a,b", "1,2", '3,"x"y', "4,\xff", "5,6", '7,"never closed', "8,9", "", '"two\nlines",10', "11", "12,13"]
    good, bad = read(tmp_path / "a.csv", "\n".join(lines).encode("latin-1"))
    assert [row["a"] for row in good] == ["1", "5", "8", "two\nlines", "12"]
    assert [line.split(" (")[0] for line in bad] == [
        "line 3: not CSV",
        "line 4: not UTF-8 text",
        "line 6: not CSV",
        "line 11: must have 2 columns, as the first line has",
    ]
    assert read(tmp_path / "b.csv", b'a,b\n1,"2\n3,4\n5,6\n')[0] == [{"a": "3", "b": "4"}, {"a": "5", "b": "6"}]


def test_long_fields_of_csv(tmp_path: Path) -> None:
    good, bad = read(tmp_path / "a.csv", b"a\n" + b"x" * 200_000 + b"\n" + b"y" * 10_000_001 + b"\nz\n")
    assert [len(row["a"]) for row in good] == [200_000, 1] and "line 3: not CSV (field larger" in bad[0]


def test_what_python_has_no_value_for_spoils_its_row_of_parquet_alone(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    texts = arrow.array([b"a", b"\xff", b"c"]).view(arrow.string())
    pytest.importorskip("pyarrow.parquet").write_table(arrow.table({"a": texts}), tmp_path / "a.parquet")
    rows = list(read_rows(tmp_path / "a.parquet"))
    assert [row for _, row in rows[::2]] == [{"a": "a"}, {"a": "c"}]
    assert rows[1][0].endswith("row 2") and str(rows[1][1]).startswith("not readable")


def test_reading_ends_where_the_share_is_hopeless(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{broken\n' * 10_000)
    reading = Reading()
    with pytest.raises(ConfigError, match=rf"{HOPELESS} of the first {2 * HOPELESS} rows, .* bad_share = 0\.4"):
        list(read_source(Source(path=str(path), bad_share=0.4), plain, reading))
    assert reading.rows == 2 * HOPELESS
    assert len(list(read_source(Source(path=str(path), bad_share=0.5), plain, Reading()))) == 10_000


@pytest.mark.parametrize(
    ("value", "text"),
    [(42, "42"), (3.5, "3.5"), (-2.0, "-2"), (1e-7, "0.0000001"), (1e22, "1" + "0" * 22), (Decimal("1.50"), "1.50")],
)
def test_numbers_are_answers(value: object, text: str) -> None:
    assert text_or_number({"answer": value}, "here", "answer") == text


@pytest.mark.parametrize("value", [True, None, [1], float("nan"), ""])
def test_what_is_neither_text_nor_number_is_no_answer(value: object) -> None:
    with pytest.raises(ConfigError, match="here: 'answer' must be a text that is not empty, or a number"):
        text_or_number({"answer": value}, "here", "answer")


def test_values_in_the_terms_of_json() -> None:
    value = {"when": [datetime(2025, 1, 2, 3)], "pair": (1, None), "cost": Decimal("1.5")}
    assert json_value(value) == {"when": ["2025-01-02T03:00:00"], "pair": [1, None], "cost": "1.5"}
    with pytest.raises(ValueError, match="holds bytes"):
        json_value({"images": [{"bytes": b"x"}]})


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
