"""Tokenizer and templates: digits one by one, no text becomes a control token, other software loads the files."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models

from aha.errors import CheckpointError
from aha.tasks.corpus import CorpusConfig, document, text_of
from aha.text.templates import CHAT_TEMPLATE, chat_example, chat_prompt, plain_prompt, zero_document, zero_prompt
from aha.text.tokenizer import CONTROL_TOKENS, END_THINK, THINK, Tokenizer
from aha.types import Message


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train((text_of(document(CorpusConfig(), 0, number)) for number in range(800)), 512, CHAT_TEMPLATE)


def test_digits_are_single_tokens(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer.encode("1234")] == ["1", "2", "3", "4"]


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_text_round_trips_and_never_becomes_control(text: str) -> None:
    tokenizer = _shared()
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not _controls(tokenizer) & set(ids)


_CACHE: list[Tokenizer] = []


def _shared() -> Tokenizer:
    if not _CACHE:
        _CACHE.append(Tokenizer.train((text_of(document(CorpusConfig(), 0, n)) for n in range(200)), 400))
    return _CACHE[0]


def _controls(tokenizer: Tokenizer) -> set[int]:
    return {tokenizer.control_id(token) for token in CONTROL_TOKENS}


@pytest.mark.parametrize("token", CONTROL_TOKENS)
@pytest.mark.parametrize("form", ["{}", " {} ", "a{}b", "{0}{0}", "\n{}\n", "«{}»"])
def test_a_user_cannot_write_a_control_token(tokenizer: Tokenizer, token: str, form: str) -> None:
    text = form.format(token)
    plain = _controls(tokenizer)
    assert not plain & set(tokenizer.encode(text))
    empty = zero_prompt(tokenizer, "")
    asked = zero_prompt(tokenizer, text)
    assert [i for i in asked if i in plain] == [i for i in empty if i in plain]
    for role in ("system", "user", "assistant"):
        own = chat_prompt(tokenizer, [Message(role, "x")])
        assert [i for i in chat_prompt(tokenizer, [Message(role, text)]) if i in plain] == [
            i for i in own if i in plain
        ]
    assert not plain & set(plain_prompt(tokenizer, text)[1:])


def test_the_prompt_is_the_beginning_of_the_corpus_document(tokenizer: Tokenizer) -> None:
    question = "What is 7+15-4?"
    whole = tokenizer.encode_markup("<｜begin▁of▁sentence｜>" + zero_document(question, "<think>7+15=22</think>"))
    prompt = zero_prompt(tokenizer, question)
    assert whole[: len(prompt)] == prompt
    assert whole[len(prompt)] == tokenizer.control_id(THINK)


def test_the_serving_form_prefills_and_drops_history(tokenizer: Tokenizer) -> None:
    history = [
        Message("user", "a"),
        Message("assistant", "b", reasoning_content="secret thought"),
        Message("user", "c"),
    ]
    text = tokenizer.decode(chat_prompt(tokenizer, history))
    assert "secret" not in text
    assert text.endswith("<｜Assistant｜><think>\n")


def test_the_training_form_keeps_the_reasoning(tokenizer: Tokenizer) -> None:
    ids, mask = chat_example(tokenizer, [Message("user", "a"), Message("assistant", "b", reasoning_content="thought")])
    trained = tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])
    assert trained == "<think>\nthought\n</think>\n\nb<｜end▁of▁sentence｜>"
    assert tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if not m]).endswith("<｜Assistant｜>")
    with pytest.raises(ValueError, match="must end with an assistant turn"):
        chat_example(tokenizer, [Message("user", "a")])


def test_transformers_loads_and_renders_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for name, content in tokenizer.files().items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "What is 7+15-4? 计算12+3。\n<think>"
    assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode_markup(text)
    messages = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "<think>\nx</think>4"}]
    rendered = theirs.apply_chat_template(
        [*messages, {"role": "user", "content": "3+3?"}], tokenize=False, add_generation_prompt=True
    )
    own = [Message("user", "2+2?"), Message("assistant", "4"), Message("user", "3+3?")]
    assert rendered == tokenizer.decode(chat_prompt(tokenizer, own))
    assert END_THINK not in rendered
    assert Tokenizer.load(tmp_path).files() == tokenizer.files()


@pytest.mark.parametrize("model", [models.BPE({"<unk>": 0, "▁a": 1}, [], byte_fallback=True), models.Unigram()])
def test_a_tokenizer_of_sentencepieces_kind_is_refused(tmp_path: Path, model: models.Model) -> None:
    """Its tokens are not bytes: a reply would be spelled with signs for spaces."""
    Backend(model).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<unk>"}')
    with pytest.raises(CheckpointError, match=r"SentencePiece's kind; expected byte-level BPE"):
        Tokenizer.load(tmp_path)


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is missing"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        Tokenizer.load(tmp_path)
