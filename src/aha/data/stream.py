"""The pretraining stream: rows of packed documents, each row a pure function of (seed, row number).

Documents fill a row one after the other; the last one is cut at the row's end. Whether they see each other is the
trainer's affair.
Nothing but the row counter needs to be saved, and any number of processes can share the rows of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from aha.text.tokenizer import Tokenizer
from aha.types import Piece

DOCUMENTS_PER_ROW = 1_000_000
"""Room between the document numbers of neighbouring rows: rows never share a document."""


class TokenizedDocument(NamedTuple):
    """A document, or the part of one that a row holds."""

    ids: list[int]
    predictable: list[bool]
    """For each token whether it can be foretold from what stands before it."""

    @classmethod
    def of(cls, pieces: Sequence[Piece], tokenizer: Tokenizer) -> TokenizedDocument:
        """Pieces are tokenized one by one, so that no token belongs to two."""
        parts = [(tokenizer.encode_markup(piece.text), piece.predictable) for piece in pieces]
        return cls([token for ids, _ in parts for token in ids], [flag for ids, flag in parts for _ in ids])

    def cut(self, length: int) -> TokenizedDocument:
        """The first tokens."""
        return TokenizedDocument(self.ids[:length], self.predictable[:length])


def packed_documents(
    document: Callable[[int], Sequence[Piece]], tokenizer: Tokenizer, row: int, length: int
) -> list[TokenizedDocument]:
    """The documents of row number `row`, `length` tokens together.

    Args:
        document: writes document number i.
        tokenizer: turns it into ids.
        row: which row.
        length: tokens in the row.
    """
    found: list[TokenizedDocument] = []
    number, left = row * DOCUMENTS_PER_ROW, length
    while left > 0:
        tokenized = TokenizedDocument.of(document(number), tokenizer).cut(left)
        if tokenized.ids:
            found.append(tokenized)
        number, left = number + 1, left - len(tokenized.ids)
    return found
