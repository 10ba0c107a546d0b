"""Vocabularies without tokens for the tags: thinking is cut, prolonged and revised by its text."""

from pathlib import Path
from typing import Any

import pytest

from aha.test_time.budget_forcing import ANSWER_TOKENS, think_at_least
from aha.test_time.revision import revise
from aha.text.tags import ends_with_tag, find_tag
from aha.text.tokenizer import END_ANSWER, END_THINK, THINK, Tokenizer
from aha.types import Problem

from ...foreign import write_tokenizer

END = "<|im_end|>"
TEXTS = ["2+2=4.</think>\n<answer>5</answer>\n<think>\n\nWait, no.</think>\n"] * 30
CLOSING = "</think>\n<answer>"


@pytest.fixture(params=["no tags", "thinking tags alone"])
def tokenizer(tmp_path: Path, request: pytest.FixtureRequest) -> Tokenizer:
    write_tokenizer(tmp_path, TEXTS, think=request.param != "no tags")
    found = Tokenizer.load(tmp_path)
    assert END_ANSWER not in found.control_tokens
    return found


def test_a_tag_is_found_at_the_piece_that_ends_it(tokenizer: Tokenizer) -> None:
    text = "2+2=4.</think>\n<answer>5</answer>"
    ids = tokenizer.encode_markup(text)
    for tag in (END_THINK, END_ANSWER):
        place = find_tag(tokenizer, ids, tag)
        assert place is not None
        before = text[: text.index(tag)]
        assert tokenizer.decode(place.before) == before
        assert tokenizer.decode(ids[: place.through]).startswith(before + tag)
        assert tag not in tokenizer.decode(ids[: place.through - 1])
    assert find_tag(tokenizer, ids, THINK) is None
    assert find_tag(tokenizer, [], THINK) is None


def test_a_tag_shares_pieces_with_its_neighbours(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, TEXTS, think=False)
    tokenizer = Tokenizer.load(tmp_path)
    ids = tokenizer.encode("4.</think>\n5")
    assert ".</" in [tokenizer.decode([one]) for one in ids], "the case that this test is about"
    place = find_tag(tokenizer, ids, END_THINK)
    assert place is not None
    assert tokenizer.decode(place.before) == "4."
    _, sequences = ends_with_tag(tokenizer, END_THINK)
    assert any(tuple(ids[: place.through][-len(one) :]) == one for one in sequences)


def test_where_the_tag_is_a_token_its_text_is_none(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, TEXTS)
    tokenizer = Tokenizer.load(tmp_path)
    assert find_tag(tokenizer, tokenizer.encode("a user's </think>"), END_THINK) is None
    assert ends_with_tag(tokenizer, END_THINK) == ((tokenizer.control_id(END_THINK),), ())


def test_thinking_is_cut_and_the_answer_forced(ask: Any, cut_at: Any, five: Problem) -> None:
    respondent = ask(lambda prompt, *_: "5</answer>!?!?" if prompt.endswith(CLOSING) else "<think>" + "2+2=4\n" * 99)
    one = cut_at(respondent, five, 12)
    assert one.vote == "5"
    assert one.text.split(CLOSING)[1].startswith("5</answer>"), "what the last piece holds after the tag may stay"
    assert not one.truncated
    assert one.forced_tokens == len(respondent.tokenizer.encode_markup(CLOSING))
    assert 12 < one.tokens <= 12 + ANSWER_TOKENS


def test_thinking_that_ends_in_time_is_answered_as_it_ended(ask: Any, cut_at: Any, five: Problem) -> None:
    whole = f"<think>2+2=4.</think>\n<answer>5</answer>{END}"
    respondent = ask(lambda prompt, *_: whole.removeprefix(prompt.split("Assistant:")[-1].lstrip()))
    one = cut_at(respondent, five, 60)
    assert (one.text, one.vote, one.forced_tokens) == (whole.removesuffix(END), "5", 0)


def test_too_short_a_thinking_goes_on(ask: Any, five: Problem) -> None:
    pieces = iter(["<think>2+2=4.</think>", ", no.\n4+1=5.</think>", f"<answer>5</answer>{END}"])
    respondent = ask(lambda *_: next(pieces))
    least = len(respondent.tokenizer.encode_markup("<think>2+2=4.")) + 1
    ((one,),) = think_at_least(respondent, [five], least)
    assert one.text == "<think>2+2=4. Wait, no.\n4+1=5.</think><answer>5</answer>"
    assert one.vote == "5"


def test_revision_shows_the_thinking_before_the_tag(ask: Any, five: Problem) -> None:
    pieces = iter([f"<think>2+2=4.</think>\n<answer>4</answer>{END}", f" 4+1=5.</think>\n<answer>5</answer>{END}"])
    respondent = ask(lambda *_: next(pieces))
    (outcomes,) = revise(respondent, [five], 1)
    assert [one.vote for one in outcomes] == ["4", "5"]
    last = respondent.tokenizer.decode(respondent.generator.requests[1].prompt_token_ids)
    assert last.endswith("<think>2+2=4.\nThe answer is 4? Check")
