"""Text of one's own: what is read, how it is ordered, and what is refused."""

import json
from collections import Counter
from pathlib import Path

import pytest

from aha.data.text import TextConfig, TokenizedText, is_held_out
from aha.errors import ConfigError


def tokenized(folder: Path, count: int = 40) -> TokenizedText:
    """Document i has i + 1 tokens, all of them i; every fifth is held out."""
    TokenizedText.write(folder, (([i] * (i + 1), i % 5 == 0) for i in range(count)), vocab_size=640)
    return TokenizedText(folder, 640)


def test_an_epoch_has_every_document_once_and_none_that_is_held_out(tmp_path: Path) -> None:
    text = tokenized(tmp_path)
    expected = Counter({i: i + 1 for i in range(40) if i % 5})
    total, length = text.num_tokens(held_out=False), 7
    assert total == expected.total()
    stream = [token for row in range(2 * total) for part in text.row(row, length, seed=3) for token in part]
    first, second = stream[:total], stream[total : 2 * total]
    assert Counter(first) == Counter(second) == expected
    assert first != second, "each epoch has its own order"
    held_out = [token for part in text.row(0, text.num_tokens(True), seed=3, held_out=True) for token in part]
    assert Counter(held_out) == Counter({i: i + 1 for i in range(0, 40, 5)})


def test_rows_are_cut_from_one_stream_wherever_they_are_read_from(tmp_path: Path) -> None:
    text = tokenized(tmp_path)
    rows = [text.row(number, 11, seed=1) for number in range(50)]
    again = TokenizedText(tmp_path, 640)
    assert [again.row(number, 11, seed=1) for number in reversed(range(50))] == rows[::-1]
    assert all(sum(map(len, row)) == 11 for row in rows)
    assert [text.row(number, 11, seed=2) for number in range(50)] != rows


def test_every_kind_of_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a\n---\nb\n---\n \n")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "z.md").write_text("d")
    (tmp_path / "notes" / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in ("e", "f")))
    files = tuple(str(tmp_path / name) for name in ("one.txt", "notes", "rows.jsonl"))
    config = TextConfig(files=files, column="body", separator="\n---\n")
    assert list(config.documents()) == ["a", "b", "d", "e", "f"]
    before = config.data_identity()
    (tmp_path / "notes" / "z.md").write_text("D")
    assert config.data_identity() != before


def test_copies_of_a_document_are_on_one_side_and_the_share_is_about_right() -> None:
    sides = [is_held_out(f"document {i}", 0.2) for i in range(2000)]
    assert sides == [is_held_out(f"document {i}", 0.2) for i in range(2000)]
    assert 0.17 < sum(sides) / 2000 < 0.23


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.txt", None, "no file or folder"),
        ("latin.txt", "naïve".encode("latin-1"), "UTF-8"),
        ("rows.jsonl", b'{"txt": "a"}\n', "line 1"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        list(TextConfig(files=(str(path),)).documents())
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_text_and_a_single_document_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no file that ends in"):
        TextConfig(files=(str(tmp_path),)).data_identity()
    with pytest.raises(ConfigError, match="of 1 documents, 0 are held out"):
        TokenizedText.write(tmp_path, [([1, 2], False)], vocab_size=640)
    with pytest.raises(ValueError, match="gym: makes puzzles"):
        TextConfig(files=("gym:chain_sum",))
