"""Revision: what the model is shown, which answer stands, and when there is nothing to revise."""

from typing import Any

import pytest

from aha.test_time.revision import revise
from aha.text.tokenizer import END_THINK, EOS, THINK
from aha.types import Problem


def answered(thinking: str, answer: str) -> str:
    return f"{thinking}</think>\n<answer>{answer}</answer>{EOS}"


def test_each_round_sees_the_thinking_and_the_answer_before_it(ask: Any, five: Problem) -> None:
    pieces = iter([answered("<think>2+2=4", "4"), answered(": 4+1=5", "5"), answered(" ok", "05")])
    respondent = ask(lambda *_: next(pieces))
    (outcomes,) = revise(respondent, [five], 2)
    assert [one.vote for one in outcomes] == ["4", "5", "5"]
    assert outcomes[2].answer == "05"
    shown = [respondent.tokenizer.decode(request.prompt_token_ids) for request in respondent.generator.requests]
    assert shown[1].endswith("<think>2+2=4\nThe answer is 4? Check")
    assert shown[2].endswith("<think>2+2=4\nThe answer is 4? Check: 4+1=5\nThe answer is 5? Check")
    assert outcomes[1].seen[1].text.startswith("<think>2+2=4\nThe answer is 4? Check: 4+1=5</think>")
    encode = respondent.tokenizer.encode_markup
    paid = [len(encode(answered(*piece))) for piece in (("<think>2+2=4", "4"), (": 4+1=5", "5"), (" ok", "05"))]
    assert [one.tokens for one in outcomes] == [paid[0], sum(paid[:2]), sum(paid)]
    assert outcomes[0].forced_tokens == 0
    doubts = len(encode("\nThe answer is 4? Check")) + len(encode("\nThe answer is 5? Check"))
    assert outcomes[2].forced_tokens == doubts
    assert len({request.sampling.seed for request in respondent.generator.requests}) == 3


def test_the_last_answer_stands_where_a_round_brings_none(ask: Any, five: Problem) -> None:
    pieces = iter([answered("<think>2+2=4", "5"), f" and{EOS}", answered(" so", "?")])
    respondent = ask(lambda *_: next(pieces))
    (outcomes,) = revise(respondent, [five], 2)
    assert [one.vote for one in outcomes] == ["5", "5", "5"]
    last = respondent.tokenizer.decode(respondent.generator.requests[2].prompt_token_ids)
    assert last.endswith("Check and\nWait"), "a round without an answer has none to doubt"


def test_cut_off_thinking_simply_goes_on(ask: Any, make_problem: Any) -> None:
    def script(prompt: str, request: Any, number: int) -> str:
        return "2+2=4\n" * 99 if prompt.endswith(THINK) else answered("", "5")

    respondent = ask(script, "zero_think", max_completion_tokens=13)
    (outcomes,) = revise(respondent, [make_problem(language="zh")], 1)
    first, second = respondent.generator.requests
    assert len(second.prompt_token_ids) == len(first.prompt_token_ids) + 13
    assert outcomes[1].forced_tokens == 0


def test_what_did_not_think_or_has_no_room_is_not_revised(ask: Any, five: Problem) -> None:
    respondent = ask(lambda *_: f"5{EOS}")
    (outcomes,) = revise(respondent, [five], 3)
    assert len(outcomes) == 4
    assert len(respondent.generator.requests) == 1
    assert {one.tokens for one in outcomes} == {2}
    full = ask(lambda *_: "<think>" + "2+2=4\n" * 99, room=120)
    (outcomes,) = revise(full, [five], 2)
    assert [one.tokens for one in outcomes] == [120] * 3
    assert outcomes[2].vote is None
    assert outcomes[2].answer == ""


def test_in_the_chat_form_in_chinese(ask: Any, make_problem: Any) -> None:
    pieces = iter([f"2+2=4\n{END_THINK}\n\n答案是4。{EOS}", f"4+1=5\n{END_THINK}\n\n答案是5。{EOS}"])
    respondent = ask(lambda *_: next(pieces), "chat")
    (outcomes,) = revise(respondent, [make_problem(language="zh")], 1)
    assert [one.vote for one in outcomes] == ["4", "5"]
    shown = respondent.tokenizer.decode(respondent.generator.requests[1].prompt_token_ids)
    assert shown.endswith(f"{THINK}\n2+2=4\n\n答案是4？检查")


def test_no_thinking_no_revision(ask: Any, five: Problem) -> None:
    with pytest.raises(ValueError, match="revision needs a model that thinks"):
        revise(ask(lambda *_: EOS, "chat_direct"), [five], 1)
    assert revise(ask(lambda *_: EOS), [], 1) == []
