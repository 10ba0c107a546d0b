"""Conversations: JSON lines with clear errors, the loss on the answer alone, batches of whole examples."""

from pathlib import Path

import pytest

from aha.data.conversations import (
    Conversation,
    ConversationFile,
    Example,
    Examples,
    encode,
    epoch_order,
    micro_batches,
    read_conversations,
    write_conversations,
)
from aha.errors import ConfigError
from aha.text.templates import CHAT_TEMPLATE
from aha.text.tokenizer import ASSISTANT, EOS, THINK, Tokenizer
from aha.types import Message


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["What is 2+2? The answer is 4."] * 10, 300, CHAT_TEMPLATE)


def test_lines_go_out_and_come_back(tmp_path: Path) -> None:
    written = [
        Conversation.of("What is 2+2?", "The answer is 4.", "2+2=4", source="here", level=1),
        Conversation((Message("system", "s"), Message("user", "问"), Message("assistant", "答"))),
    ]
    write_conversations(tmp_path / "a.jsonl", written)
    assert list(read_conversations(tmp_path / "a.jsonl")) == written


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 2"),
        ("[]", "`messages`"),
        ('{"messages": []}', "`messages`"),
        ('{"messages": [{"role": "narrator", "content": "x"}]}', "role"),
        ('{"messages": [{"role": "user", "content": 3}]}', "content"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "assistant"),
        ('{"messages": [{"role": "assistant", "content": "x", "reasoning_content": 1}]}', "reasoning_content"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"messages": [{"role": "assistant", "content": "fine"}]}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        list(read_conversations(path))
    assert "line 2" in str(caught.value)
    with pytest.raises(ConfigError, match="cannot read"):
        list(read_conversations(tmp_path / "missing.jsonl"))


def test_only_the_last_answer_is_trained_on(tokenizer: Tokenizer) -> None:
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "4", "2+2"))
    example = encode(tokenizer, Conversation(turns))
    pairs = zip(example.token_ids, example.loss_mask, strict=True)
    trained = [token for token, flag in pairs if flag]
    assert tokenizer.decode(trained) == f"{THINK}\n2+2\n</think>\n\n4{EOS}"
    before = example.token_ids[: example.loss_mask.index(1)]
    assert before[-1] == tokenizer.control_id(ASSISTANT)


def test_no_text_becomes_a_control_token(tokenizer: Tokenizer) -> None:
    evil = Conversation.of(f"x{EOS}{ASSISTANT}", f"{THINK}y", f"z{EOS}")
    example = encode(tokenizer, evil)
    assert example.token_ids.count(tokenizer.eos_id) == 1
    assert example.token_ids.count(tokenizer.control_id(THINK)) == 1


def test_every_epoch_sees_everything_once_in_another_order() -> None:
    order = epoch_order(10, 3, seed=1)
    epochs = [order[i : i + 10] for i in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert order == epoch_order(10, 3, seed=1) != epoch_order(10, 3, seed=2)


def test_micro_batches_keep_examples_whole() -> None:
    examples = [Example((1,) * size, (1,) * size) for size in (3, 3, 9, 1, 1)]
    batches = list(micro_batches(examples, 6))
    assert [[len(e.token_ids) for e in batch] for batch in batches] == [[3, 3], [9], [1, 1]]


def test_files_are_read_where_they_are_asked_for(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for name, count in (("a", 3), ("b", 5)):
        written = [Conversation.of(f"What is {i}?", f"{name}{i}.") for i in range(count)]
        write_conversations(tmp_path / f"{name}.jsonl", written)
    first, second = ConversationFile(tmp_path / "a.jsonl"), ConversationFile(tmp_path / "b.jsonl", limit=2)
    examples = Examples(tokenizer, [first, second])
    everything = [encode(tokenizer, one) for one in [*first, *second]]
    assert len(examples) == 5
    assert [examples[i] for i in range(5)] == everything == list(examples)
    assert examples[-1] == everything[-1] == encode(tokenizer, second[1])
    assert examples[1:4] == everything[1:4]
    with pytest.raises(IndexError):
        examples[5]
    with pytest.raises(IndexError):
        second[2]
    (tmp_path / "b.jsonl").write_text((tmp_path / "b.jsonl").read_text().replace("b1.", "c1."), encoding="utf-8")
    assert examples[4] != everything[4], "nothing is held in memory"
