"""Rows of the pretraining stream are functions of their number, never share a document, and say what is predictable."""

from functools import partial

from aha.data.stream import TokenizedDocument, packed_documents
from aha.tasks.corpus import CorpusConfig, document
from aha.text.tokenizer import EOS, Tokenizer
from aha.types import Piece


def test_rows_are_repeatable_and_full() -> None:
    corpus = CorpusConfig()
    write = partial(document, corpus, 3)
    tokenizer = Tokenizer.train(("".join(piece.text for piece in write(-1 - i)) for i in range(100)), 400)
    rows = [packed_documents(write, tokenizer, row, 100) for row in (0, 1, 10**12)]
    assert rows == [packed_documents(write, tokenizer, row, 100) for row in (0, 1, 10**12)]
    assert all(sum(len(one.ids) for one in row) == 100 for row in rows)
    assert all(len(one.ids) == len(one.predictable) for row in rows for one in row)
    assert all(one.ids[0] == tokenizer.bos_id and len(one.ids) > 1 for row in rows for one in row[:-1])
    assert rows[0] != rows[1]


def test_rows_share_no_document() -> None:
    asked: list[int] = []

    def write(number: int) -> list[Piece]:
        asked.append(number)
        return [Piece("x" * 10)]

    tokenizer = Tokenizer.train(["xxxxxxxxxx"], 300)
    for row in range(5):
        packed_documents(write, tokenizer, row, 50)
    assert len(asked) == len(set(asked))


def test_each_token_is_predictable_as_its_piece_is() -> None:
    """No token reaches over the end of a piece, though the tokenizer would join the two."""
    tokenizer = Tokenizer.train(["abab"] * 20, 300)
    assert len(tokenizer.encode_markup("abab")) == 1
    document = TokenizedDocument.of([Piece("ab", False), Piece("ab"), Piece(""), Piece(EOS, False)], tokenizer)
    (ab,) = tokenizer.encode_markup("ab")
    assert document == ([ab, ab, tokenizer.eos_id], [False, True, False])
    assert document.cut(2) == ([ab, ab], [False, True])
    rows = packed_documents(lambda number: [Piece("ab", False), Piece("ab")], tokenizer, 0, 3)
    assert rows == [([ab, ab], [False, True]), ([ab], [False])]
