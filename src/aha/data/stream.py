"""The pretraining stream: rows of packed documents, each row a pure function of (seed, row number).

Documents fill a row one after the other; the last one is cut at the row's end. Whether they see each other is the
trainer's affair.
Nothing but the row counter needs to be saved, and any number of processes can share the rows of a step.
"""

from __future__ import annotations

from collections.abc import Callable

from aha.text.tokenizer import Tokenizer

DOCUMENTS_PER_ROW = 1_000_000
"""Room between the document numbers of neighbouring rows: rows never share a document."""


def packed_documents(document: Callable[[int], str], tokenizer: Tokenizer, row: int, length: int) -> list[list[int]]:
    """The documents of row number `row`, `length` tokens together.

    Args:
        document: writes document number i as markup.
        tokenizer: turns it into ids.
        row: which row.
        length: tokens in the row.
    """
    found: list[list[int]] = []
    number, left = row * DOCUMENTS_PER_ROW, length
    while left > 0:
        ids = tokenizer.encode_markup(document(number))[:left]
        if ids:
            found.append(ids)
        number, left = number + 1, left - len(ids)
    return found
