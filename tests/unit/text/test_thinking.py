"""The think/answer parser: one strict form, and dozens of degenerate ones that earn nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.rewards.rubric import RubricConfig, grade
from aha.tasks.families import get_family
from aha.text.thinking import Flaw, extract_leniently, parse
from aha.types import Problem

PROBLEM = Problem(
    "sums", "math", 1, "en", "What is 2+2+0?", "4", {"items": [[2], [2], [0]], "start": 0, "first": 0, "last": 2}
)
GOOD = "<think>2+2=4\n4+0=4</think>\n<answer>4</answer>"

DEGENERATE = [
    "",
    " ",
    "4",
    "<think></think><answer>4</answer>",
    "<think> </think><answer>4</answer>",
    "<think>\n\t\n</think><answer>4</answer>",
    "<think>\u200b\u2060</think><answer>4</answer>",
    "<think>...</think><answer>4</answer>",
    "<think>——</think><answer>4</answer>",
    "<think>2+2=4</think><answer></answer>",
    "<think>2+2=4</think><answer> </answer>",
    "<think>2+2=4</think><answer>.</answer>",
    "<think>2+2=4</think>",
    "<think>2+2=4</think>4",
    "<think>2+2=4",
    "2+2=4</think><answer>4</answer>",
    "<answer>4</answer>",
    "<answer>4</answer><think>2+2=4</think>",
    "<think>2+2=4<answer>4</answer></think>",
    "<think>2+2=4<answer>4</answer>",
    "<think><answer>4</answer>2+2=4</think><answer>4</answer>",
    "<think>2+2=4</think><answer>4</answer><answer>4</answer>",
    "<think>2+2=4</think><answer>5</answer><answer>4</answer>",
    "<think>2+2=4</think><think>again</think><answer>4</answer>",
    "<think><think>2+2=4</think></think><answer>4</answer>",
    "<think>2+2=4</think></think><answer>4</answer>",
    "<think>2+2=4</think><answer>4</answer></answer>",
    "<think>2+2=4</think><answer><answer>4</answer>",
    "<think>2+2=4</think><answer>4</answer> done",
    "<think>2+2=4</think><answer>4</answer><think>",
    "Sure! <think>2+2=4</think><answer>4</answer>",
    "<think>2+2=4</think> so <answer>4</answer>",
    "<think>2+2=4</think><answer>4",
    "<think>2+2=4<think><answer>4<answer>",
    "<THINK>2+2=4</THINK><ANSWER>4</ANSWER>",
    "< think >2+2=4</ think ><answer>4</answer>",
    "<think>2+2=4</think><answer>4</answer><｜end▁of▁sentence｜>more",
    "<think>2+2=4<｜User｜></think><answer>4</answer>",
    "<｜begin▁of▁sentence｜><think>2+2=4</think><answer>4</answer>",
    "</think><think>2+2=4<answer>4</answer>",
    "<think>2+2=4</answer><answer>4</think>",
    "</think></answer><think><answer>4",
    "<think>2+2=4</think>\n<answer>4</answer>\n<answer></answer>",
    "[think]2+2=4[/think][answer]4[/answer]",
    "<think>2+2=4</think><|answer|>4</answer>",
]


def test_the_good_form_earns_both_rewards() -> None:
    result = grade(PROBLEM, GOOD, False, RubricConfig())
    assert result is not None
    assert result.reward == 2.0
    assert parse(GOOD).answer == "4"
    assert parse("\n" + GOOD + "\n").well_formed


@pytest.mark.parametrize("completion", DEGENERATE)
def test_degenerate_forms_earn_nothing(completion: str) -> None:
    assert len(DEGENERATE) >= 40
    result = grade(PROBLEM, completion, False, RubricConfig(steps=1.0, language=1.0))
    assert result is not None
    assert result.reward == 0.0
    assert not parse(completion).well_formed


def test_a_truncated_completion_is_never_well_formed() -> None:
    assert parse(GOOD, truncated=True).flaw is Flaw.TRUNCATED


def test_with_think_prefilled_the_completion_starts_inside() -> None:
    assert parse("2+2=4</think><answer>4</answer>", think_prefilled=True).well_formed
    assert parse(GOOD, think_prefilled=True).flaw is Flaw.TAG_COUNT


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "4", "2+2=4", " ", "\n", "x"]), max_size=9
    )
)
def test_only_one_order_of_pieces_is_well_formed(pieces: list[str]) -> None:
    text = "".join(pieces)
    tags = [piece for piece in pieces if piece.startswith("<")]
    if parse(text).well_formed:
        assert tags == ["<think>", "</think>", "<answer>", "</answer>"]
        assert text.strip().startswith("<think>")
        assert text.strip().endswith("</answer>")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think><answer>7</answer>", "7"),
        ("<think>a</think><answer>7", "7"),
        ("2+2=4\nThe answer is 4.", "4"),
        ("一步\n答案是4。", "4"),
        (" 4", "4"),
        ("2+2=4\n4+1=5", "5"),
        ("", ""),
    ],
)
def test_lenient_extraction_finds_what_a_reader_would(text: str, answer: str) -> None:
    assert extract_leniently(text) == answer


def test_families_share_the_verifier_of_the_reward() -> None:
    assert get_family("sums").verify(PROBLEM, parse(GOOD).answer)


CHAT_GOOD = "<think>\n2+2=4\n4+0=4\n</think>\n\nThe answer is 4."
CHAT_DEGENERATE = [
    "",
    "The answer is 4.",
    "<think></think>The answer is 4.",
    "<think>\n\n</think>The answer is 4.",
    "<think>...</think>The answer is 4.",
    "<think>2+2=4</think>",
    "<think>2+2=4</think> .",
    "<think>2+2=4",
    "2+2=4</think>The answer is 4.",
    "So: <think>2+2=4</think>The answer is 4.",
    "<think>2+2=4</think>The answer is 4.</think>",
    "<think>2+2=4</think><think>2+2=4</think>The answer is 4.",
    "<think>2+2=4</think>The answer is 4.<think>",
    "<think>2+2=4</think><answer>4</answer>",
    "<think>2+2=4</think>The answer is <answer>4</answer>",
    "<think>2+2=4</think>The answer is 4.<｜end▁of▁sentence｜>",
    "<think>2+2=4<｜User｜></think>The answer is 4.",
]


def test_the_chat_form_has_a_summary_that_names_the_answer() -> None:
    parsed = parse(CHAT_GOOD, answer_tags=False)
    assert parsed.well_formed
    assert (parsed.thinking, parsed.answer, parsed.summary) == ("2+2=4\n4+0=4", "4", "The answer is 4.")
    result = grade(PROBLEM, CHAT_GOOD, False, RubricConfig(language=1.0), False)
    assert result is not None
    assert result.reward == 3.0
    assert parse(CHAT_GOOD.removeprefix("<think>"), think_prefilled=True, answer_tags=False) == parsed
    assert parse(CHAT_GOOD, answer_tags=False, truncated=True).flaw is Flaw.TRUNCATED


@pytest.mark.parametrize("completion", CHAT_DEGENERATE)
def test_degenerate_chat_forms_earn_nothing(completion: str) -> None:
    result = grade(PROBLEM, completion, False, RubricConfig(steps=1.0, language=1.0), False)
    assert result is not None
    assert result.reward == 0.0


@pytest.mark.parametrize(
    "summary", ["4", "It is 4.", "The answer is 5.", "The answer is 4. No, the answer is 5.", "答案是5。"]
)
def test_a_summary_that_does_not_name_the_answer_is_not_right(summary: str) -> None:
    result = grade(PROBLEM, f"<think>2+2=4</think>{summary}", False, RubricConfig(), False)
    assert result is not None
    assert result.parts["accuracy"] == 0.0
    assert result.parts["format"] == 1.0


@given(st.text(alphabet="<think>/answer 4\n。", max_size=60))
def test_both_forms_never_fail_and_a_flaw_says_why(text: str) -> None:
    for answer_tags in (True, False):
        parsed = parse(text, answer_tags=answer_tags)
        assert parsed.well_formed == (parsed.flaw is None)
        if parsed.well_formed:
            assert text.count("<think>") == text.count("</think>") == 1
