"""A reply that is read while it is made says what the parser finds in its text, wherever tokens cut it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aha.serve.reply import ReplyReader
from aha.text.incremental import splitter_for
from aha.text.thinking import parse
from aha.text.tokenizer import ANSWER, END_ANSWER, END_THINK, THINK, Tokenizer
from aha.types import FinishReason

from ..foreign import write_tokenizer

TEXTS = ["<think>2+2 is 4, é 😀 等于</think> The answer is 4.\n\n"] * 20
SPACE = st.text(" \n\t\x1c\u00a0\u2003\u3000", max_size=3)
ANY = st.one_of(st.text(max_size=12), st.text("<>/think answer 4é等😀\n\u3000", max_size=12))
SAID = st.tuples(ANY, st.sampled_from("x4等"), ANY).map("".join)
"""Texts that say something."""


@pytest.fixture(scope="module", params=["own", "foreign", "untagged"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """With tokens for all tags, for those of thinking, for none."""
    if request.param == "own":
        return Tokenizer.train(TEXTS, 320)
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, TEXTS, vocab_size=320, think=request.param == "foreign")
    return Tokenizer.load(folder)


@st.composite
def pieces(draw: st.DrawFn, text: str) -> list[str]:
    """A text cut at some places."""
    at = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]


def read(tokenizer: Tokenizer, ids: Sequence[int], think_prefilled: bool) -> tuple[str, str]:
    """Thinking and answer as serving shows them, all deltas joined."""
    reader = ReplyReader(0, tokenizer, splitter_for(tokenizer, think_prefilled))
    deltas = [*(reader.push(token_id, -1.0) for token_id in ids), reader.finish(FinishReason.STOP)]
    return "".join(delta.reasoning for delta in deltas), "".join(delta.content for delta in deltas)


@settings(deadline=None)
@given(data=st.data(), tags=st.booleans(), prefilled=st.booleans(), thinking=SAID, answer=SAID)
def test_both_readers_of_a_well_formed_reply_agree(
    tokenizer: Tokenizer, data: st.DataObject, tags: bool, prefilled: bool, thinking: str, answer: str
) -> None:
    before, between, after = (data.draw(SPACE) for _ in range(3))
    inside = [ANSWER, answer, END_ANSWER] if tags else [answer]
    written = [*([] if prefilled else [before, THINK]), thinking, END_THINK, between, *inside, after]
    parsed = parse("".join(written), prefilled, answer_tags=tags)
    assume(parsed.well_formed)
    ids = [token_id for part in written for token_id in tokens(tokenizer, part, data)]
    assert tokenizer.decode(ids) == "".join(written)
    shown = parsed.summary
    if tags and ANSWER not in tokenizer.control_tokens:
        shown = ANSWER + answer + END_ANSWER  # text like any other
    assert read(tokenizer, ids, prefilled) == (parsed.thinking, shown)


def tokens(tokenizer: Tokenizer, text: str, data: st.DataObject) -> list[int]:
    """A part of a reply as a model may write it: tags that are tokens as such, the rest in any pieces."""
    if text in tokenizer.control_tokens:
        return [tokenizer.control_tokens[text]]
    return [token_id for piece in data.draw(pieces(text)) for token_id in tokenizer.encode(piece)]
