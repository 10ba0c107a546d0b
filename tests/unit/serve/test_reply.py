"""One sample's reply: joined deltas are the whole, counts add up, the budget closes the thinking."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from aha.serve.budget import ThinkingBudget, budget_of
from aha.serve.reply import Delta, ReplyReader
from aha.serve.schemas import ChatRequest
from aha.serve.voting import majority_vote
from aha.text.incremental import Phase, Splitter
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
    pieces = itertools.groupby(ids, CONTROL.__contains__)
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


def test_a_budget_forces_the_end_of_the_thinking_once() -> None:
    budget = ThinkingBudget(3, (END_ID,))
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


def test_a_budget_of_several_tokens_is_forced_once() -> None:
    budget = ThinkingBudget(2, (7, 8))
    assert [list(budget.forced(Phase.THINKING, count)) for count in range(5)] == [[], [], [7, 8], [], []]


def request(**settings: object) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": "x"}], **settings})


def test_efforts_and_budgets() -> None:
    assert budget_of(request(), 100) is None
    assert [budget_of(request(reasoning_effort=e), 100) for e in ("none", "low", "medium", "high")] == [0, 25, 50, None]
    assert budget_of(request(thinking={"type": "disabled"}, reasoning_effort="high"), 100) == 0
    assert budget_of(request(thinking={"type": "enabled", "budget_tokens": 7}), 100) == 7


def test_votes_go_to_the_answer_named_most_often() -> None:
    outcome = majority_vote(["The answer is 5.", "So: the answer is 4", "the answer is 4.", "", "answer: 6"])
    assert (outcome.winner, outcome.answer, outcome.count) == (1, "4", 2)
    assert outcome.counts == {"4": 2, "5": 1, "6": 1}
    assert majority_vote(["", "!?"]).answer is None
