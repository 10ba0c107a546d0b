"""One sample's reply: joined deltas are the whole, counts add up, the budget closes the thinking."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby, pairwise, takewhile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aha.serve.budget import ThinkingBudget, budget_of, steering_of
from aha.serve.judging import canonical, judge, named_answer
from aha.serve.reply import Delta, ReplyReader
from aha.serve.schemas import ChatRequest
from aha.test_time.budget_forcing import ANSWER_TOKENS, WAIT
from aha.text.incremental import Phase, Splitter, TagSplitter
from aha.text.tokenizer import CONTROL_TOKENS, END_THINK, EOS, THINK, Tokenizer
from aha.types import FinishReason

TOKENIZER = Tokenizer.train(["2+2 等于 é 😀 the answer is 4\n\n"] * 10, 300)
THINK_ID, END_ID, EOS_ID = (TOKENIZER.control_id(token) for token in (THINK, END_THINK, EOS))
CONTROL = {TOKENIZER.control_id(token) for token in CONTROL_TOKENS}
IDS = st.lists(st.one_of(st.sampled_from([THINK_ID, END_ID]), st.integers(0, TOKENIZER.vocab_size - 1)), max_size=40)


def read(ids: list[int], prefilled: bool, stops: tuple[str, ...] = ()) -> list[Delta]:
    reader = ReplyReader(0, TOKENIZER, Splitter(TOKENIZER, prefilled), stops, logprobs=True)
    deltas = []
    for token_id in ids:
        deltas.append(reader.push(token_id, -1.0))
        if reader.stopped:
            break
    return [*deltas, reader.finish(FinishReason.LENGTH)]


def expected(ids: list[int], prefilled: bool) -> tuple[str, str]:
    """Thinking and answer, by looking at all ids at once."""
    if not prefilled:
        opening = ids.index(THINK_ID) if THINK_ID in ids else len(ids)
        if opening == len(ids) or END_ID in ids[:opening] or not silent(ids[:opening]):
            return "", plain(ids).strip()
        ids = ids[opening + 1 :]
    end = ids.index(END_ID) if END_ID in ids else len(ids)
    return plain(ids[:end]).strip(), plain(ids[end:]).strip()


def plain(ids: list[int]) -> str:
    return TOKENIZER.decode([i for i in ids if i not in CONTROL])


def silent(ids: list[int]) -> bool:
    """Whether there is whitespace alone between the control tokens."""
    pieces = groupby(ids, CONTROL.__contains__)
    return not any(plain(list(piece)).strip() for control, piece in pieces if not control)


@given(IDS, st.booleans())
def test_joined_deltas_are_thinking_and_answer(ids: list[int], prefilled: bool) -> None:
    deltas = read(ids, prefilled)
    joined = "".join(d.reasoning for d in deltas), "".join(d.content for d in deltas)
    assert joined == expected(ids, prefilled)
    end = deltas[-1].end
    assert end is not None and end.completion_tokens == len(ids)
    scores = sum(len(d.content_scores) + len(d.reasoning_scores) for d in deltas)
    assert scores == sum(token_id != EOS_ID for token_id in ids)
    assert sum(len(d.reasoning_scores) for d in deltas) <= end.reasoning_tokens <= len(ids)


def test_no_piece_of_a_tag_is_sent_wherever_the_tags_stand() -> None:
    words = TOKENIZER.encode("the answer is 4")
    for at in range(len(words) + 1):
        deltas = read([*words[:at], END_ID, *words[at:], EOS_ID], prefilled=True)
        assert not any(set("<>/") & set(d.reasoning + d.content) for d in deltas)
        assert "".join(d.reasoning for d in deltas) == plain(words[:at]).strip()
        assert "".join(d.content for d in deltas) == plain(words[at:]).strip()


def test_a_stop_string_over_several_tokens_ends_the_answer_not_the_thinking() -> None:
    thinking, answer = TOKENIZER.encode("is 4 is 4"), TOKENIZER.encode("the answer is 4 or 5")
    deltas = read([*thinking, END_ID, *answer], prefilled=True, stops=("swer is",))
    assert "".join(d.reasoning for d in deltas) == "is 4 is 4"
    assert "".join(d.content for d in deltas) == "the an"
    assert deltas[-1].end is not None and deltas[-1].end.reason is FinishReason.STOP


@pytest.mark.parametrize(
    ("stops", "content"), [(("\n",), "the answer"), (("\n\n",), "the answer\nis 4"), ((" ",), "the")]
)
def test_a_newline_ends_the_answer_and_not_the_gap_before_it(stops: tuple[str, ...], content: str) -> None:
    """R1 puts an empty line between its thinking and its answer, and no client is shown that."""
    thinking, answer = TOKENIZER.encode("is 4"), TOKENIZER.encode("\n\nthe answer\nis 4\n\n4")
    deltas = read([*thinking, END_ID, *answer], prefilled=True, stops=stops)
    assert "".join(d.content for d in deltas) == content
    assert deltas[-1].end is not None and deltas[-1].end.reason is FinishReason.STOP


def test_a_budget_forces_the_end_of_the_thinking_once() -> None:
    budget = ThinkingBudget(TOKENIZER, 3)
    reader = ReplyReader(0, TOKENIZER, Splitter(TOKENIZER, True), steering=budget)
    words = iter(TOKENIZER.encode("the answer is 4 the answer is 4"))
    taken: list[int] = []
    pending: list[int] = list(reader.forced())
    for _ in range(8):
        taken.append(pending.pop() if pending else next(words))
        reader.push(taken[-1], 0.0)
        pending = list(reader.forced())
    assert [position for position, token in enumerate(taken) if token == END_ID] == [3]
    assert reader.reasoning_tokens == 4


class Pieces:
    """A tokenizer without tags whose tokens are given pieces of text; encoded text is split into single bytes."""

    control_tokens: Mapping[str, int] = {}

    def __init__(self, pieces: Sequence[str], eos: bool) -> None:
        self.token_bytes = [*(bytes([byte]) for byte in range(256)), *(piece.encode() for piece in pieces), b""]
        self.said = [*range(256, 256 + len(pieces)), *([self.eos_id] if eos else [])]

    @property
    def eos_id(self) -> int:
        return len(self.token_bytes) - 1

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return (self.eos_id,)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    encode_markup = encode


def drive(tokenizer: Any, reader: ReplyReader, said: list[int]) -> tuple[list[int], list[Delta]]:
    """What the engine and the worker do: the tokens that are left in the end, and what was sent."""
    tokens: list[int] = []
    forced = list(reader.forced())
    coming, deltas = list(said), []
    while forced or coming:
        tokens.append(forced.pop(0) if forced else coming.pop(0))
        stopped = tokens[-1] in tokenizer.eos_ids
        deltas.append(reader.push(tokens[-1], -1.0, stopped=stopped))
        if reader.taken_back:
            del tokens[-reader.taken_back :]
        elif stopped:
            break
        forced += reader.forced()
    return tokens, [*deltas, reader.finish(FinishReason.STOP)]


def cut(text: str, places: Sequence[int]) -> list[str]:
    """A text in pieces."""
    bounds = sorted({0, len(text), *(place % len(text) for place in places)})
    return [text[start:stop] for start, stop in pairwise(bounds)]


@given(st.lists(st.integers(0, 99), max_size=12), st.booleans(), st.integers(1, 60))
def test_a_spelled_end_that_is_refused_is_never_shown_however_it_is_cut(
    places: list[int], logprobs: bool, least: int
) -> None:
    first, second, rest = "< I say <b>4.", " No: 5", "\n\n5"
    pieces = cut(f"{first}</think>", places)
    tokenizer: Any = Pieces([*pieces, *cut(f"{second}</think>{rest}", places)], eos=True)
    budget = ThinkingBudget(tokenizer, None, min(least, len(first)))
    reader = ReplyReader(0, tokenizer, TagSplitter(tokenizer, True), logprobs=logprobs, steering=budget)
    thought = sum(1 for _ in takewhile(lambda end: end <= len(first), accumulate(map(len, pieces))))
    early = thought < budget.least
    tokens, deltas = drive(tokenizer, reader, tokenizer.said)
    shown = "".join(delta.reasoning for delta in deltas), "".join(delta.content for delta in deltas)
    kept = b"".join(tokenizer.token_bytes[token] for token in tokens).decode()
    end = deltas[-1].end
    assert end is not None and end.completion_tokens == len(tokens)
    if early:
        assert kept.startswith(f"{first} Wait{second}")
        assert shown[0].startswith(f"{first} Wait{second}")
    else:
        assert shown == (first, f"{second}</think>{rest}".strip())
    assert "</think" not in shown[0]
    scores = [score.data for delta in deltas for score in (*delta.reasoning_scores, *delta.content_scores)]
    assert b"".join(scores).decode() == (kept if logprobs else "")


def test_an_end_that_comes_too_early_is_replaced_until_enough_was_thought() -> None:
    so, four = TOKENIZER.encode("so"), TOKENIZER.encode(" 4")
    wait = TOKENIZER.encode(" Wait")
    least = len(so) + 2 * len(wait) + 1
    reader = ReplyReader(
        0, TOKENIZER, Splitter(TOKENIZER, True), logprobs=True, steering=ThinkingBudget(TOKENIZER, None, least)
    )
    tokens, deltas = drive(TOKENIZER, reader, [*so, END_ID, END_ID, EOS_ID, *four, END_ID, *four, EOS_ID])
    assert tokens == [*so, *wait, *wait, *wait, *four, END_ID, *four, EOS_ID]
    assert "".join(delta.reasoning for delta in deltas) == "so Wait Wait Wait 4"
    assert "".join(delta.content for delta in deltas) == "4"
    assert reader.reasoning_tokens == len(so) + 3 * len(wait) + len(four) + 1
    assert sum(len(delta.reasoning_scores) for delta in deltas) == reader.reasoning_tokens


def test_what_replaces_an_end_fits_its_place_and_the_budget() -> None:
    budget = ThinkingBudget(TOKENIZER, 9, 9)
    assert TOKENIZER.decode(budget.instead_of_end(0, "")) == "Wait"
    assert TOKENIZER.decode(budget.instead_of_end(1, "\n")) == "Wait\n"
    assert TOKENIZER.decode(budget.instead_of_end(1, ".")) == " Wait"
    assert not budget.instead_of_end(9 - len(TOKENIZER.encode("Wait")), "") and not budget.instead_of_end(9, "")
    assert budget.forced(Phase.THINKING, 9) == [END_ID] and not budget.forced(Phase.THINKING, 10)
    assert not budget.instead_of_end(1, "")  # it was closed from outside
    chinese = ThinkingBudget(TOKENIZER, None, 9, WAIT["zh"])
    assert TOKENIZER.decode(chinese.instead_of_end(1, "等")) == "等等"


def request(**settings: object) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": "x"}], **settings})


def test_efforts_and_budgets() -> None:
    assert budget_of(request(), 100) is None
    assert [budget_of(request(reasoning_effort=e), 100) for e in ("none", "low", "medium", "high")] == [0, 25, 50, None]
    assert budget_of(request(thinking={"type": "disabled"}, reasoning_effort="high"), 100) == 0
    assert budget_of(request(thinking={"type": "enabled", "budget_tokens": 7}), 100) == 7


def test_how_a_request_steers() -> None:
    def steered(limit: int, **thinking: int) -> tuple[int | None, int]:
        steering = steering_of(request(thinking=thinking), TOKENIZER, limit)
        assert steering is not None
        return steering.most, steering.least

    assert steering_of(request(), TOKENIZER, 100) is None
    assert steering_of(request(thinking={"min_tokens": 0}), TOKENIZER, 100) is None
    assert steered(1000, budget_tokens=9) == (9, 0)
    assert steered(200, budget_tokens=200) == (200 - ANSWER_TOKENS - 1, 0)  # more than there is room for
    assert steered(1000, min_tokens=500) == (1000 - ANSWER_TOKENS - 1, 500)
    assert steered(40, min_tokens=500) == (30, 500)  # a quarter is left for the answer
    assert steered(1000, min_tokens=5, budget_tokens=8) == (8, 5)
    with pytest.raises(ValidationError, match="thinking ends after 3 tokens"):
        request(thinking={"min_tokens": 4, "budget_tokens": 3})
    with pytest.raises(ValidationError, match="thinking ends after 0 tokens"):
        request(thinking={"min_tokens": 4, "type": "disabled"})


def test_votes_go_to_the_answer_named_most_often() -> None:
    outcome = judge(["The answer is 5.", "So: the answer is 4", "the answer is 4.", "", "answer: 6"])
    assert (outcome.winner, outcome.groups[0].answer, outcome.groups[0].count) == (1, "4", 2)
    assert {group.answer: group.count for group in outcome.groups} == {"4": 2, "5": 1, "6": 1}
    assert judge(["", "!?"]).groups == []


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (r"So $x=4$, thus \boxed{4} it is", "4"),
        (r"The answer is \boxed{4}.", "4"),
        ("First \\boxed{3}, no: \\boxed{\\frac{1}{2}}.\nI am sure.", r"\frac{1}{2}"),
        ("In a box: \\boxed{3}. But the answer is 5.", "5"),
        (r"\boxed{\fbox{7}}", "7"),
        ("Cut off: \\boxed{4", "Cut off: \\boxed{4"),
        (r"\boxed{}", r"\boxed{}"),
        ("The answer is x.\n", "x"),
        ("The answer is: 42", "42"),
        ("答案是：42。", "42"),
        ("The answer is **42**.", "42"),
        ("The answer is **42.**", "42"),
        ("**Answer:** 42", "42"),
        ("**Answer:**\n\\boxed{42}", "42"),
        ("It is \\boxed{7}. **Answer:**", "7"),
        (r"\boxed{" * 9999, None),
    ],
)
def test_an_answer_stands_after_its_cue_or_in_its_box_or_last(content: str, answer: str | None) -> None:
    assert (named_answer(content) or "")[:60] == (content[:60] if answer is None else answer)


def test_numbers_vote_by_their_value() -> None:
    halves = ["The answer is 0.5.", "The answer is 1/2.", r"so \boxed{\frac{1}{2}}", r"the answer is $\frac12$"]
    outcome = judge(["The answer is 7.", *halves, "The answer is 7.0", "The answer is 7"])
    assert (outcome.winner, outcome.groups[0].answer, outcome.groups[0].count) == (1, "0.5", 4)
    assert {group.answer: group.count for group in outcome.groups} == {"0.5": 4, "7": 3}
    apart = ["5 apples", "5 pears", "x = 5", "5", "room 5", "5/0", "5!", ">5", "(2, 3)", "2,3"]
    assert len({canonical(answer) for answer in apart}) == len(apart)
    assert canonical("1,080.50") == canonical("$1080.5$") == canonical(r"\frac{2161}{2}")
