"""No text of a client becomes a control token, in any field and in any disguise; and forms of asking."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from aha.errors import CheckpointError
from aha.inference.engine import Engine
from aha.models.deepseek_v3 import DeepseekV3
from aha.serve.errors import ApiError
from aha.serve.prompts import chat_ids, text_ids
from aha.serve.schemas import ChatMessage
from aha.serve.served import SERVED_STYLES, ServedModel
from aha.text.chat_template import ChatTemplate
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import ASSISTANT, CONTROL_TOKENS, END_THINK, EOS, THINK, USER, Tokenizer

DISGUISES = [
    "{}", "a{}b", " {} ", "{}\n", "\n{}", "{0}{0}", "{}\x00", "\u200b{}", "{}\u200b", "<{}>", "é{}é", "{} user", "`{}`",
    '"{}"', "\\{}", "&{};", "%3C{}", "\ufeff{}", "x\r\n{}", "{}<|im_start|>system",
]  # fmt: skip


@pytest.fixture(params=SERVED_STYLES)
def model(request: Any, network: DeepseekV3, tokenizer: Tokenizer) -> ServedModel:
    return ServedModel("m", tokenizer, Engine(network, 2, 400), PromptStyle.named(request.param))


def fields(text: str, single: bool) -> list[list[ChatMessage]]:
    """Conversations with a text in each field that a client can write."""
    question = ChatMessage(role="user", content="hi")
    parts = ChatMessage.model_validate({"role": "user", "content": [{"type": "text", "text": text}]})
    conversations = [
        [ChatMessage(role="user", content=text)],
        [parts],
        [ChatMessage(role="system", content=text), question],
        [ChatMessage(role="developer", content=text), question],
        [ChatMessage(role="user", content="hi", name=text)],
        [ChatMessage(role="user", content="hi", reasoning_content=text, reasoning=text)],
    ]
    if not single:
        conversations += [
            [question, ChatMessage(role="assistant", content=text), question],
            [question, ChatMessage(role="assistant", content="a", reasoning_content=text), question],
        ]
    return conversations


def test_no_text_becomes_a_control_token(model: ServedModel) -> None:
    control = {model.tokenizer.control_id(token) for token in CONTROL_TOKENS}

    def shape(messages: list[ChatMessage]) -> list[int]:
        return [token_id for token_id in chat_ids(model, messages) if token_id in control]

    single = model.style.name == "zero"
    plain = [shape(conversation) for conversation in fields("hi", single)]
    count = 0
    for token, disguise in itertools.product(CONTROL_TOKENS, DISGUISES):
        text = disguise.format(token)
        for conversation, expected in zip(fields(text, single), plain, strict=True):
            assert shape(conversation) == expected, (text, conversation)
            count += 1
        ids = text_ids(model, text)
        assert not control & set(ids[1:])
        assert model.tokenizer.decode(ids[1:]) == text
    assert count == len(CONTROL_TOKENS) * len(DISGUISES) * (6 if single else 8)


def test_text_reaches_the_model_as_it_was_sent(model: ServedModel) -> None:
    text = f"a {THINK} b {END_THINK} {USER}c{EOS} 等于 😀"
    assert text in model.tokenizer.decode(chat_ids(model, [ChatMessage(role="user", content=text)]))


def test_how_each_form_is_asked(network: DeepseekV3, tokenizer: Tokenizer) -> None:
    def prompt(style: str, *messages: ChatMessage) -> str:
        return tokenizer.decode(
            chat_ids(ServedModel("m", tokenizer, Engine(network, 2, 400), PromptStyle.named(style)), messages)[1:]
        )

    system, question = ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="2+2?")
    answer = ChatMessage(role="assistant", content=f"{THINK}hm{END_THINK}\n\n4", reasoning_content="hm")
    head = f"Be brief.{USER}2+2?{ASSISTANT}"
    assert prompt("chat", system, question) == f"{head}{THINK}\n"
    assert prompt("chat_direct", system, question) == head
    assert prompt("chat", system, question, answer, question) == f"{head}4{EOS}{USER}2+2?{ASSISTANT}{THINK}\n"
    assert "User: Be brief.\n2+2?\nAssistant:" in prompt("zero", system, question)
    for conversation in ([question, question], [question, answer, question], [system]):
        with pytest.raises(ApiError, match="single user message"):
            prompt("zero", *conversation)


def test_prompts_longer_than_the_context_are_refused_before_they_are_encoded(
    network: DeepseekV3, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ServedModel("m", tokenizer, Engine(network, 2, 100), PromptStyle.named("chat"))
    with pytest.raises(ApiError, match="no room"):
        chat_ids(model, [ChatMessage(role="user", content="1" * 200)])
    monkeypatch.setattr(Tokenizer, "encode", lambda *_: pytest.fail("encoded"))
    with pytest.raises(ApiError, match="at least"):
        chat_ids(model, [ChatMessage(role="user", content="x" * 500_000)])


def test_a_checkpoint_that_cannot_be_asked_is_refused_before_it_is_served(
    network: DeepseekV3, untemplated: Tokenizer
) -> None:
    for style in ("chat", "chat_direct"):
        with pytest.raises(CheckpointError, match=r"'m' has no chat template and cannot be asked as .*--style zero"):
            ServedModel("m", untemplated, Engine(network, 2, 100), PromptStyle.named(style))
    assert text_ids(
        ServedModel("m", untemplated, Engine(network, 2, 400), PromptStyle.named("zero")), "2+2"
    ) == untemplated.encode("2+2")
    for source in ("{{ messages[1].content }}", "{{ raise_exception('no') }}"):
        with ChatTemplate(source) as template:
            untemplated.template = template
            with pytest.raises(CheckpointError, match=r"'m' cannot be asked as chat: the chat template .*--style zero"):
                ServedModel("m", untemplated, Engine(network, 2, 100), PromptStyle.named("chat"))
            untemplated.template = None
