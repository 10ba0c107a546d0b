"""The pretraining stream: rows of packed documents, each row a pure function of (seed, row number).

Documents fill a row one after the other without a mask between them (V3 4.1); the last one is cut at the row's end.
Nothing but the row counter needs to be saved, and any number of processes can share the rows of a step.
"""

from __future__ import annotations

from collections.abc import Callable

from aha.text.tokenizer import Tokenizer

DOCUMENTS_PER_ROW = 1_000_000
"""Room between the document numbers of neighbouring rows: rows never share a document."""


def packed_row(document: Callable[[int], str], tokenizer: Tokenizer, row: int, length: int) -> list[int]:
    """Builds row number `row`.

    Args:
        document: writes document number i as markup.
        tokenizer: turns it into ids.
        row: which row.
        length: tokens in the row.
    """
    ids: list[int] = []
    number = row * DOCUMENTS_PER_ROW
    while len(ids) < length:
        ids += tokenizer.encode_markup(document(number))
        number += 1
    return ids[:length]
