"""Rows of the pretraining stream are functions of their number and never share a document."""

from functools import partial

from aha.data.stream import packed_documents
from aha.tasks.corpus import CorpusConfig, document
from aha.text.tokenizer import Tokenizer


def test_rows_are_repeatable_and_full() -> None:
    corpus = CorpusConfig()
    write = partial(document, corpus, 3)
    tokenizer = Tokenizer.train((write(-1 - i) for i in range(100)), 400)
    rows = [packed_documents(write, tokenizer, row, 100) for row in (0, 1, 10**12)]
    assert rows == [packed_documents(write, tokenizer, row, 100) for row in (0, 1, 10**12)]
    assert all(sum(map(len, row)) == 100 for row in rows)
    assert all(ids[0] == tokenizer.bos_id and len(ids) > 1 for row in rows for ids in row[:-1])
    assert rows[0] != rows[1]


def test_rows_share_no_document() -> None:
    asked: list[int] = []

    def write(number: int) -> str:
        asked.append(number)
        return "x" * 10

    tokenizer = Tokenizer.train(["xxxxxxxxxx"], 300)
    for row in range(5):
        packed_documents(write, tokenizer, row, 50)
    assert len(asked) == len(set(asked))
