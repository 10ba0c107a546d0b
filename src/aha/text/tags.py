"""Where a tag stands in a completion: as the token that it is, or in the text where a vocabulary has no such token.

Many base models have no tokens for thinking and answer, or only some of them; there the tags are spelled out, in as
many pieces as the vocabulary pleases, and a piece may hold what stands before a tag or after it as well.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from aha.text.tokenizer import Tokenizer

BEFORE = ("", " ", "\n", "\n\n", ".", ".\n", "。", ")")
AFTER = ("", "\n", "\n\n")
"""What often stands around a tag, and may share a token with its beginning or end."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tag stands."""

    before: list[int]
    """All that stands before it, as tokens."""
    through: int
    """How many tokens there are up to its end."""


def find_tag(tokenizer: Tokenizer, token_ids: Sequence[int], tag: str) -> Place | None:
    """The first place of a tag in a completion; None where it does not occur.

    Where the vocabulary has the tag as a token, only that token is it, whatever the text says.
    """
    ids = list(token_ids)
    if (token_id := tokenizer.control_tokens.get(tag)) is not None:
        return Place(ids[: ids.index(token_id)], ids.index(token_id) + 1) if token_id in ids else None
    pieces = [tokenizer.token_bytes[one] if one < len(tokenizer.token_bytes) else b"" for one in ids]
    text, wanted = b"".join(pieces), tag.encode()
    start = text.find(wanted)
    if start < 0:
        return None
    ends = list(itertools.accumulate(map(len, pieces)))
    whole = bisect_right(ends, start)
    shared = text[ends[whole - 1] if whole else 0 : start].decode(errors="replace")
    return Place([*ids[:whole], *tokenizer.encode(shared)], bisect_left(ends, start + len(wanted)) + 1)


def ends_with_tag(tokenizer: Tokenizer, tag: str) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Stop tokens and stop sequences that end a completion at a tag.

    Spelled in a way that is not among the sequences, a tag does not stop the engine: look for it in what comes back
    (`find_tag`), which then has more behind it than was wanted.
    """
    if (token_id := tokenizer.control_tokens.get(tag)) is not None:
        return (token_id,), ()
    spelled = (tokenizer.encode(before + tag + after) for before, after in itertools.product(BEFORE, AFTER))
    return (), tuple(dict.fromkeys(map(tuple, spelled)))
