"""Problems from files: split, freed of what is held out, drawn in an order that a resumed run goes on with."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from aha.data.conversations import Conversation, read_conversations, write_conversations
from aha.data.decontamination import NGrams, words_of
from aha.data.sources import Source
from aha.errors import CheckpointError, ConfigError
from aha.stages.checkpoint import Checkpoint, CheckpointConfig, checkpoint_identity
from aha.stages.decontamination import Decontamination, DecontaminationConfig
from aha.stages.problems import Problems, ProblemsConfig
from aha.tasks.stored import HELD_OUT, TRAIN, StoredProblems, read_stored
from aha.text.tokenizer import Tokenizer

from ..conftest import MakeContext

LONG = "A train leaves the old station in the north at eight and goes sixty miles in every hour until noon"


def rows(path: Path, count: int = 40, **more: object) -> Source:
    lines = [{"question": f"What is {i} + {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i}"} for i in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *more.get("extra", [])]))
    return Source(path=str(path))


def test_a_share_is_held_out_by_hash(make_context: MakeContext, tmp_path: Path) -> None:
    config = ProblemsConfig(task="gsm8k", train=rows(tmp_path / "a.jsonl"), held_out_share=0.3, instruction="Think.")
    context = make_context("problems", config)
    result = Problems().run(context)
    train, held_out = (read_stored(context.folder / name) for name in (TRAIN, HELD_OUT))
    assert len(train) + len(held_out) == 40 and 4 <= len(held_out) <= 20
    assert not {one.key for one in train} & {one.key for one in held_out}
    assert all(one.question.endswith("?\n\nThink.") for one in train)
    assert (result.summary["train"], result.summary["held_out"]) == (len(train), len(held_out))
    example = next(read_conversations(context.folder / "examples.jsonl"))
    assert example.messages[0].content == train[0].question
    assert example.messages[1].content == f"The answer is {train[0].answer}."
    assert (
        example.messages[1].reasoning_content
        == f"{int(train[0].answer) // 2} + {int(train[0].answer) // 2} = {train[0].answer}"
    )


def test_what_is_held_out_is_not_trained_on(make_context: MakeContext, tmp_path: Path) -> None:
    train = rows(tmp_path / "a.jsonl", extra=[{"question": "What is 1 + 1?", "answer": "#### 2"}])
    context = make_context(
        "problems", ProblemsConfig(task="gsm8k", train=train, held_out=rows(tmp_path / "b.jsonl", 10))
    )
    summary = Problems().run(context).summary
    assert (summary["train"], summary["held_out"], summary["dropped_twice"]) == (30, 10, 11)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "no problem is held out"), ('{"question": "a", "answer": "#### 1"}\n' * 3, "no problem is left to train on")],
)
def test_too_little_is_said(make_context: MakeContext, tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    source = Source(path=str(path))
    with pytest.raises(ConfigError, match=message):
        Problems().run(make_context("problems", ProblemsConfig(task="gsm8k", train=source, held_out=source)))


def test_decontamination_drops_what_shares_a_run_of_words(make_context: MakeContext, tmp_path: Path) -> None:
    alike = {"question": f"{LONG}. How far is that, if it has one stop?", "answer": "#### 240"}
    other = {"question": "A train leaves the old station at nine. When is it there?", "answer": "#### 11"}
    train = rows(tmp_path / "a.jsonl", 5, extra=[alike, other])
    held_out = tmp_path / "b.jsonl"
    held_out.write_text(json.dumps({"question": f"{LONG.upper()}! And then?", "answer": "#### 1"}) + "\n")
    problems = ProblemsConfig(task="gsm8k", train=train, held_out=Source(path=str(held_out)))
    Problems().run(make_context("problems", problems))
    context = make_context("clean", DecontaminationConfig(source="problems"), ("problems",))
    summary = Decontamination().run(context).summary
    assert (summary["in"], summary["dropped"], summary["kept"]) == (7, 1, 6)
    assert summary["pairs"][0]["problem"] == "gsm8k/5" and summary["pairs"][0]["like"] == "gsm8k/0"
    assert len(summary["pairs"][0]["shared"].split()) == 13
    assert alike["question"] not in {one.facts["question"] for one in read_stored(context.folder / TRAIN)}
    assert len(list(read_conversations(context.folder / "examples.jsonl"))) == 5  # the other rows have no solution
    assert json.loads((context.folder / "audit.json").read_text()) == summary


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert words_of("It's 8:00, 火车 LEAVES.") == ["it", "s", "8", "00", "火", "车", "leaves"]
    grams = NGrams(3)
    grams.add("Two short", "a")
    assert grams.find("two, SHORT!") == ("a", "two short")
    assert grams.find("two short words") is None and grams.find("") is None


def test_a_short_question_is_found_inside_a_longer_text() -> None:
    grams = NGrams(13)
    grams.add("How many legs do seven dogs and a duck have?", "a")  # ten words
    grams.add("How many in all?", "b")
    found = grams.find("Think of this: how many legs do seven dogs and a duck have, and how many in all?")
    assert found is not None and found[0] == "a"
    assert grams.find("First think: how many in all?") is None, "four words say nothing"
    assert grams.find("how many in all") == ("b", "how many in all")


def test_wording_that_held_out_problems_share_counts_for_nothing() -> None:
    rules = "Solve this puzzle by the usual rules, and give the grid row by row with spaces between its digits"
    grams = NGrams(13)
    for number in range(4):
        grams.add(f"{rules}: {number} {number + 1} {number + 2}", f"held-out/{number}")
    assert grams.find(f"{rules}: 7 1 9") is None
    assert grams.find(f"{rules}: 2 3 4.") is not None, "the same problem is found all the same"


def test_without_a_length_whole_texts_are_compared() -> None:
    grams = NGrams(0)
    grams.add("What is 2 + 3?", "a")
    assert grams.find("what is 2 3") == ("a", "what is 2 3")
    assert grams.find("What is 2 + 3? And then?") is None


def test_short_solutions_are_alike_by_accident() -> None:
    grams = NGrams(13)
    grams.add("How many legs has a spider, and how many has a fly?", "a")
    grams.add("Add.", "a", whole=False)
    grams.add("Look at the last digit of both of the numbers that are named", "a", whole=False)
    assert grams.find("Add.") is None
    assert grams.find("First look at the last digit of both of the numbers that are named.") is not None


def test_when_nothing_is_left_that_is_said(make_context: MakeContext, tmp_path: Path) -> None:
    train = rows(tmp_path / "a.jsonl", 1, extra=[{"question": f"{LONG}. Why?", "answer": "#### 2"}])
    path = tmp_path / "a.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[-1])
    held_out = tmp_path / "b.jsonl"
    held_out.write_text(json.dumps({"question": f"{LONG}! And then?", "answer": "#### 1"}) + "\n")
    problems = ProblemsConfig(task="gsm8k", train=train, held_out=Source(path=str(held_out)))
    Problems().run(make_context("problems", problems))
    context = make_context("clean", DecontaminationConfig(source="problems"), ("problems",))
    with pytest.raises(ConfigError, match=r"all 1 training problems share 13 words.*decontamination_words"):
        Decontamination().run(context)


def test_conversations_are_held_against_a_test_set(make_context: MakeContext, tmp_path: Path) -> None:
    held_out = tmp_path / "b.jsonl"
    held_out.write_text(json.dumps({"question": f"{LONG}! And then?", "answer": "#### 1"}) + "\n")
    config = ProblemsConfig(task="gsm8k", held_out=Source(path=str(held_out)))
    Problems().run(make_context("test-gsm8k", config))
    context = make_context("conversations", ProblemsConfig(task="gsm8k", held_out=Source(path=str(held_out))))
    talks = [
        Conversation.of("Hello?", "Hello."),
        Conversation.of("Tell me a story", f"Once {LONG}.", "why not"),
        Conversation.of("Which story?", "None.", f"They said: {LONG}, did they not?"),
    ]
    write_conversations(context.folder / "examples.jsonl", talks)
    config = DecontaminationConfig(source="conversations", against=("test-gsm8k",))
    context = make_context("clean", config, ("conversations", "test-gsm8k"))
    summary = Decontamination().run(context).summary
    assert (summary["in"], summary["dropped"], summary["what"]) == (3, 2, "conversations")
    assert [pair["problem"] for pair in summary["pairs"]] == ["conversation 2", "conversation 3"]
    assert list(read_conversations(context.folder / "examples.jsonl")) == talks[:1]


def test_every_problem_comes_once_before_any_comes_again(make_context: MakeContext, tmp_path: Path) -> None:
    context = make_context("problems", ProblemsConfig(task="gsm8k", train=rows(tmp_path / "a.jsonl")))
    Problems().run(context)
    stored = StoredProblems(context.folder, seed=3)
    cell = ("gsm8k", 1)
    assert stored.cells == [cell]
    drawn = [stored.draw(cell, number).key for number in range(2 * len(stored))]
    assert set(Counter(drawn).values()) == {2} and len(set(drawn[: len(stored)])) == len(stored)
    assert drawn[: len(stored)] != drawn[len(stored) :]
    again = StoredProblems(context.folder, seed=3)
    assert [again.draw(cell, number).key for number in (7, 3)] == [drawn[7], drawn[3]]
    assert StoredProblems(context.folder, seed=4).draw(cell, 0).key != drawn[0]
    short = StoredProblems(context.folder, seed=3, wanted=lambda problem: len(problem.answer) == 1)
    assert short.passed_over == len(stored) - len(short) > 0
    with pytest.raises(ConfigError, match="none of its"):
        StoredProblems(context.folder, seed=3, wanted=lambda problem: False)


def test_a_checkpoint_is_linked_and_known_by_its_content(
    make_context: MakeContext, base: Tokenizer, tmp_path: Path
) -> None:
    folder = tmp_path / "run" / "base" / "model"
    context = make_context("mine", CheckpointConfig(path=str(folder)))
    assert Checkpoint().run(context).summary["tokens"] == base.vocab_size
    assert context.model_folder.resolve() == folder.resolve()
    before = checkpoint_identity(str(folder))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert checkpoint_identity(str(folder)) != before
    with pytest.raises(CheckpointError, match="it has no config"):
        checkpoint_identity(str(tmp_path))


def test_every_problem_is_given_once_whatever_the_sizes_of_the_levels(
    make_context: MakeContext, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    said = [{"question": f"What is {i} + 1?", "answer": str(i + 1), "level": 1 if i < 3 else 2} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in said))
    context = make_context("problems", ProblemsConfig(task="rows", train=Source(path=str(path))))
    Problems().run(context)
    stored = StoredProblems(context.folder, seed=3)
    assert len(stored.cells) == 2
    given = [problem.key for problem in stored.once()]
    assert len(given) == len(set(given)) == len(stored)
