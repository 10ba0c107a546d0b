"""Budget forcing, both ways, in every form: what is forced, what is paid for, and what cannot be forced."""

from typing import Any

import pytest

from aha.test_time.budget_forcing import ANSWER_TOKENS, end_thinking_at, think_at_least
from aha.text.tokenizer import END_THINK, EOS, THINK
from aha.types import Problem

ZERO = "<think>2+2=4\n4+1=5</think>\n<answer>5</answer><｜end▁of▁sentence｜>"
THOUGHT = "2+2=4\n4+1=5"


def test_thinking_that_ends_in_time_is_left_alone(ask: Any, cut_at: Any, five: Problem) -> None:
    respondent = ask(lambda *_: ZERO)
    in_time = len(respondent.tokenizer.encode_markup(ZERO.split(END_THINK)[0])) + 1
    one = cut_at(respondent, five, in_time)
    assert one.text == ZERO.removesuffix(EOS)
    assert (one.vote, one.forced_tokens, one.truncated) == ("5", 0, False)
    assert one.tokens == len(respondent.tokenizer.encode_markup(ZERO))
    assert len(respondent.generator.requests) == 1
    assert cut_at(respondent, five, in_time - 1).forced_tokens > 0


@pytest.mark.parametrize(
    ("style", "opening", "closing"),
    [
        ("zero", THINK, "</think>\n<answer>"),
        ("zero_think", "", "</think>\n<answer>"),
        ("chat", "", "\n</think>\n\nThe answer is"),
    ],
)
def test_thinking_is_cut_and_the_answer_forced(
    ask: Any, cut_at: Any, five: Problem, style: str, opening: str, closing: str
) -> None:
    def script(prompt: str, request: Any, number: int) -> str:
        if prompt.endswith(closing):
            return "5</answer>!" if "<answer>" in closing else f" 5.{EOS}"
        return opening + "2+2=4\n" * 99

    respondent = ask(script, style)
    budget = 9
    one = cut_at(respondent, five, budget)
    thought = respondent.tokenizer.decode(respondent.tokenizer.encode_markup(opening + "2+2=4\n" * 9)[:budget])
    assert one.text.startswith(thought + closing)
    assert one.vote == "5"
    assert not one.truncated
    forced = len(respondent.tokenizer.encode_markup(closing))
    assert one.forced_tokens == forced
    first, second = respondent.generator.requests
    assert first.sampling.max_completion_tokens == respondent.sampling.max_completion_tokens
    assert len(second.prompt_token_ids) == len(first.prompt_token_ids) + budget + forced
    answer = respondent.tokenizer.encode_markup("5</answer>" if "<answer>" in closing else f" 5.{EOS}")
    assert one.tokens == budget + len(answer)


def test_in_chinese_the_words_are_chinese(ask: Any, cut_at: Any, make_problem: Any) -> None:
    chinese = make_problem(language="zh")
    respondent = ask(lambda prompt, *_: f"5。{EOS}" if prompt.endswith("答案是") else "2+2=4\n" * 99, "chat")
    one = cut_at(respondent, chinese, 7)
    assert one.vote == "5"


def test_a_budget_of_one_asks_for_the_answer_at_once(ask: Any, cut_at: Any, five: Problem) -> None:
    respondent = ask(lambda prompt, *_: "5</answer>" if prompt.endswith("<answer>") else "<think>2+2=4\n" * 99)
    one = cut_at(respondent, five, 1)
    assert one.text == "<think></think>\n<answer>5</answer>"
    assert one.vote == "5", "nobody can blame it for thinking nothing"


def test_what_never_thinks_cannot_be_made_to_stop(ask: Any, cut_at: Any, five: Problem) -> None:
    babble = ask(lambda *_: "5 5 5 5 " * 99)
    one = cut_at(babble, five, 8)
    assert (one.vote, one.truncated, one.tokens, one.forced_tokens) == (None, True, 8, 0)
    at_once = ask(lambda *_: f"<answer>5</answer>{EOS}")
    one = cut_at(at_once, five, 30)
    assert (one.vote, one.truncated, one.forced_tokens) == (None, False, 0)
    assert len(at_once.generator.requests) == 1


def test_an_answer_without_an_end_does_not_count(ask: Any, cut_at: Any, five: Problem) -> None:
    respondent = ask(lambda prompt, *_: "5" * 99 if prompt.endswith("<answer>") else "<think>2+2=4\n" * 99)
    one = cut_at(respondent, five, 8)
    assert (one.vote, one.truncated, one.tokens) == (None, True, 8 + ANSWER_TOKENS)


def test_an_answer_after_a_thinking_of_its_own_stays_whole(ask: Any, cut_at: Any, five: Problem) -> None:
    """A worked answer may be long; only a forced one is held to its room, which can be said."""
    worked = f"\n<answer>{'2+2=4, ' * 12}5</answer>{EOS}"
    respondent = ask(lambda *_: f"<think>{THOUGHT}{END_THINK}{worked}")
    one = cut_at(respondent, five, 60)
    assert not one.truncated and one.text.endswith("5</answer>")
    assert one.tokens > 60 > ANSWER_TOKENS
    endless = ask(lambda prompt, *_: "5" * 99 if prompt.endswith("<answer>") else "<think>2+2=4\n" * 99)
    one = cut_at(endless, five, 8, answer_tokens=20)
    assert (one.truncated, one.tokens) == (True, 28)


def test_too_short_a_thinking_goes_on_with_wait(ask: Any, five: Problem) -> None:
    pieces = iter([f"<think>{THOUGHT}{END_THINK}", f", no.\n2+2=4{END_THINK}", f"\n<answer>5</answer>{EOS}"])
    respondent = ask(lambda *_: next(pieces))
    minimum = len(respondent.tokenizer.encode_markup(f"<think>{THOUGHT}")) + 1
    ((one,),) = think_at_least(respondent, [five], minimum)
    assert one.text == f"<think>{THOUGHT} Wait, no.\n2+2=4</think>\n<answer>5</answer>"
    assert one.vote == "5"
    wait = len(respondent.tokenizer.encode(" Wait"))
    assert one.forced_tokens == wait
    whole = len(respondent.tokenizer.encode_markup(one.text))
    assert one.tokens == whole - wait + 1 + 1, "the suppressed end and the end of the sentence were sampled"
    assert [request.sampling.seed for request in respondent.generator.requests[:2]] != [0, 0]
    assert len({request.sampling.seed for request in respondent.generator.requests}) == 3


@pytest.mark.parametrize(
    ("before", "language", "wait"),
    [("2+2=4", "en", " Wait"), ("2+2=4\n", "en", "Wait\n"), ("2+2=4", "zh", "等等")],
)
def test_wait_in_the_chat_form(ask: Any, make_problem: Any, before: str, language: str, wait: str) -> None:
    cue = "The answer is 5." if language == "en" else "答案是5。"
    pieces = iter([f"{before}{END_THINK}", f"\n{THOUGHT}\n{END_THINK}", f"\n\n{cue}{EOS}"])
    ((one,),) = think_at_least(ask(lambda *_: next(pieces), "chat"), [make_problem(language=language)], 12)
    assert one.text == f"{before}{wait}\n{THOUGHT}\n{END_THINK}\n\n{cue}"
    assert one.vote == "5"


def test_where_the_room_runs_out_thinking_ends(ask: Any, five: Problem) -> None:
    """A model that always wants to stop is kept going to the limit, and not beyond it."""

    def script(prompt: str, request: Any, number: int) -> str:
        if prompt.endswith("<answer>"):
            return "5</answer>"
        if prompt.endswith(END_THINK):
            return f"\n<answer>5</answer>{EOS}"
        return ("<think>" if THINK not in prompt.split("Assistant:")[-1] else "") + f"2+2=4{END_THINK}"

    respondent = ask(script, room=120)
    most = 120 - ANSWER_TOKENS - len(respondent.tokenizer.encode_markup("</think>\n<answer>"))
    ((one,),) = think_at_least(respondent, [five], most)
    assert one.vote == "5"
    assert one.text.count("Wait") > 2
    assert len(respondent.tokenizer.encode_markup(one.text)) <= 120
    for request in respondent.generator.requests:
        prompt = len(respondent.generator.requests[0].prompt_token_ids)
        assert len(request.prompt_token_ids) - prompt + request.sampling.max_completion_tokens <= 120


@pytest.mark.parametrize("style", ["zero", "chat"])
def test_a_sentence_that_ends_inside_the_thinking_ends_nothing(
    ask: Any, cut_at: Any, five: Problem, style: str
) -> None:
    """The end of the sentence without an end of the thinking: too early, it goes on; late enough, it has to answer."""
    opening = "<think>" if style == "zero" else ""
    cue, answer = ("\n<answer>", "5</answer>") if style == "zero" else ("\n\nThe answer is", f" 5.{EOS}")
    pieces = iter([f"{opening}{THOUGHT}{EOS}", f", no.\n2+2=4{EOS}", answer])
    respondent = ask(lambda *_: next(pieces), style)
    minimum = len(respondent.tokenizer.encode_markup(opening + THOUGHT)) + 1
    ((one,),) = think_at_least(respondent, [five], minimum)
    end = END_THINK if style == "zero" else f"\n{END_THINK}"
    assert one.text.startswith(f"{opening}{THOUGHT} Wait, no.\n2+2=4{end}{cue}")
    assert (one.vote, one.truncated) == ("5", False)
    assert EOS not in one.text
    assert one.thinking_tokens >= minimum
    sampled = [f"{opening}{THOUGHT}{EOS}", f", no.\n2+2=4{EOS}", answer]
    assert one.tokens == sum(len(respondent.tokenizer.encode_markup(piece)) for piece in sampled)

    cut = ask(lambda prompt, *_: answer if prompt.endswith(cue) else f"{opening}{THOUGHT}{EOS}", style)
    one = cut_at(cut, five, 100)
    assert one.text.startswith(f"{opening}{THOUGHT}{end}{cue}")
    assert one.vote == "5"


def test_many_problems_and_samples_keep_their_places(ask: Any, make_problem: Any) -> None:
    problems = [make_problem(f"What is {n}+1?", str(n + 1)) for n in range(3)]

    def script(prompt: str, request: Any, number: int) -> str:
        asked = int(prompt.split("What is ")[1].split("+")[0])
        if prompt.endswith("<answer>"):
            return f"{asked + 1}</answer>"
        return "<think>" + "2+2=4\n" * 99 if asked else f"<think>2+2=4</think>\n<answer>{asked + 1}</answer>{EOS}"

    respondent = ask(script)
    results = end_thinking_at(respondent, problems, respondent.samples(problems, 2), 12)
    assert [[one.vote for one in own] for own in results] == [["1", "1"], ["2", "2"], ["3", "3"]]
    assert [own[0].forced_tokens > 0 for own in results] == [False, True, True]


def test_all_budgets_cut_the_same_thinking(ask: Any, five: Problem) -> None:
    def script(prompt: str, request: Any, number: int) -> str:
        return "5</answer>" if prompt.endswith("<answer>") else "<think>" + f"{number}+2=4\n" * 99

    respondent = ask(script)
    drawn = respondent.samples([five], 2)
    asked = len(respondent.generator.requests)
    for budget in (4, 8):
        (own,) = end_thinking_at(respondent, [five], drawn, budget)
        for one, sample in zip(own, drawn[0], strict=True):
            kept = respondent.tokenizer.decode(sample.token_ids[:budget])
            assert one.text == f"{kept}</think>\n<answer>5</answer>"
            assert one.mean_logprob == pytest.approx(-0.5)
    answers = respondent.generator.requests[asked:]
    assert len({request.sampling.seed for request in answers}) == 2, "each sample's answer has its own numbers"


def test_a_sample_that_was_cut_off_at_its_limit_has_to_answer_there(ask: Any, cut_at: Any, five: Problem) -> None:
    respondent = ask(lambda prompt, *_: "5</answer>" if prompt.endswith("<answer>") else "<think>" + "2+2=4\n" * 99)
    one = cut_at(respondent, five, respondent.sampling.max_completion_tokens + 5)
    assert (one.vote, one.truncated) == ("5", False)
    assert one.thinking_tokens == respondent.sampling.max_completion_tokens


def test_what_cannot_be_is_refused(ask: Any, five: Problem) -> None:
    with pytest.raises(ValueError, match="needs a model that thinks"):
        end_thinking_at(ask(lambda *_: EOS, "direct"), [five], [[]], 8)
    with pytest.raises(ValueError, match="expected 1 to"):
        end_thinking_at(ask(lambda *_: EOS), [five], [[]], 0)
    with pytest.raises(ValueError, match="leaves room for an answer"):
        think_at_least(ask(lambda *_: EOS), [five], 230)
    assert end_thinking_at(ask(lambda *_: EOS), [], [], 8) == []
