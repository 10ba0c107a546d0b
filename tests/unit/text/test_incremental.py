"""A reply read in pieces is the reply read whole, wherever it is cut; and only generated ids move the line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.text.incremental import (
    Decoder,
    Phase,
    RawText,
    Splitter,
    StopScanner,
    TagSplitter,
    Trimmer,
    splitter_for,
)
from aha.text.tokenizer import CONTROL_TOKENS, END_THINK, EOS, THINK, Tokenizer

from ...foreign import write_tokenizer

TOKENIZER = Tokenizer.train(["<think>2+2</think> 等于 é 😀 the answer is 4"] * 10, 320)
IDS = st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=40)
LETTERS = st.text("ab<>/thinké \n", max_size=24)


def cuts(text: str) -> st.SearchStrategy[list[str]]:
    places = st.lists(st.integers(0, len(text)), max_size=6).map(sorted)
    return places.map(lambda at: [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)])


def scan(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    scanner = StopScanner(stops)
    text = "".join(scanner.push(piece) for piece in pieces)
    return text + scanner.end(), scanner.stopped


@given(IDS)
def test_token_bytes_joined_are_what_the_tokenizer_decodes(ids: list[int]) -> None:
    assert b"".join(TOKENIZER.token_bytes[i] for i in ids).decode(errors="replace") == TOKENIZER.decode(ids)


@given(st.binary(max_size=24), st.integers(0, 24))
def test_bytes_decode_alike_wherever_they_are_cut(data: bytes, at: int) -> None:
    decoder = Decoder()
    assert decoder.push(data[:at]) + decoder.push(data[at:]) + decoder.end() == data.decode(errors="replace")


@pytest.mark.parametrize("text", ["  a b \n", "", " \n ", "x", "\u3000y\u3000 z "])
def test_trimming_at_every_split(text: str) -> None:
    for at in range(len(text) + 1):
        trimmer = Trimmer()
        assert trimmer.push(text[:at]) + trimmer.push(text[at:]) == text.strip()


@given(LETTERS.flatmap(cuts), st.lists(st.text("ab<>", min_size=1, max_size=4), max_size=3))
def test_stop_strings_end_alike_wherever_the_text_is_cut(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    assert scan(pieces, stops) == scan([text], stops) == scan(list(text), stops)
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    assert scan([text], stops)[1] == bool(ends)
    if ends:
        stop = max((stop for stop in stops if text[: ends[0]].endswith(stop)), key=len)
        assert scan([text], stops)[0] == text[: ends[0]].removesuffix(stop)


def test_a_scanner_holds_back_no_more_than_it_must() -> None:
    scanner = StopScanner(["END", "ENOUGH"])
    assert [scanner.push(piece) for piece in ("go E", "N", "T", " EN", "D more")] == ["go ", "", "ENT", " ", ""]
    assert scanner.stopped


def phases(ids: list[int], prefilled: bool) -> list[Phase]:
    splitter = Splitter(TOKENIZER, prefilled)
    return [splitter.push(token_id)[0] for token_id in ids]


@given(st.text(max_size=20))
def test_text_never_moves_the_line(text: str) -> None:
    said = TOKENIZER.encode(text + END_THINK + THINK + text)
    assert set(phases(said, prefilled=True)) == {Phase.THINKING}
    opened = [TOKENIZER.control_id(THINK), *said, TOKENIZER.control_id(END_THINK), *said]
    split = phases(opened, prefilled=False)
    assert split == [Phase.THINKING] * (len(said) + 2) + [Phase.ANSWERING] * len(said)


def test_thinking_opens_before_anything_is_said_and_never_again() -> None:
    think, end, word = TOKENIZER.control_id(THINK), TOKENIZER.control_id(END_THINK), TOKENIZER.encode("x")[0]
    newline = TOKENIZER.encode("\n")[0]
    assert phases([newline, think, word], False) == [Phase.START, Phase.THINKING, Phase.THINKING]
    assert phases([word, think, word], False) == [Phase.ANSWERING] * 3
    assert phases([end, think, word], False)[1:] == [Phase.ANSWERING] * 2
    assert phases([think, word, end, think, word], True)[-1] is Phase.ANSWERING


@given(IDS, st.booleans())
def test_control_tokens_are_no_text(ids: list[int], prefilled: bool) -> None:
    splitter = Splitter(TOKENIZER, prefilled)
    control = {TOKENIZER.control_id(token) for token in CONTROL_TOKENS}
    text = b"".join(TOKENIZER.token_bytes[token_id] for token_id in ids if token_id not in control)
    data = b"".join([*(splitter.push(token_id)[1] for token_id in ids), splitter.end()[1]])
    assert data == text if prefilled else text.endswith(data) and not text.removesuffix(data).decode().strip()


def test_raw_text_spells_tags_and_drops_the_end() -> None:
    raw = RawText(TOKENIZER)
    ids = [TOKENIZER.control_id(THINK), TOKENIZER.control_id(EOS), 10**6]
    assert [raw.push(token_id)[1] for token_id in ids] == [THINK.encode(), b"", b""]


@pytest.fixture(scope="module")
def untagged(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A vocabulary without thinking tags."""
    folder = tmp_path_factory.mktemp("untagged")
    write_tokenizer(folder, ["<think>2+2</think> is 4, é 😀"] * 10, vocab_size=300, think=False)
    return Tokenizer.load(folder)


def split_by_tags(tokenizer: Tokenizer, ids: list[int], prefilled: bool) -> dict[Phase, str]:
    splitter = splitter_for(tokenizer, prefilled)
    assert isinstance(splitter, TagSplitter)
    said = dict.fromkeys(Phase, b"")
    for phase, data in [*(splitter.push(token_id) for token_id in ids), splitter.end()]:
        said[phase] += data
    return {phase: data.decode(errors="replace") for phase, data in said.items()}


@given(data=st.data(), prefilled=st.booleans())
def test_tags_are_found_wherever_tokens_cut_them(untagged: Tokenizer, data: st.DataObject, prefilled: bool) -> None:
    letters = st.text("<>/think é\n", max_size=12)
    texts = st.lists(st.one_of(letters, st.sampled_from([THINK, END_THINK])), max_size=6)
    text = "".join(data.draw(texts))
    pieces = data.draw(cuts(text))
    said = split_by_tags(untagged, [i for piece in pieces for i in untagged.encode(piece)], prefilled)
    thinks = prefilled or text.lstrip(" \n").startswith(THINK)
    if not thinks:
        assert said[Phase.START] + said[Phase.ANSWERING] == text
        assert not said[Phase.THINKING]
        return
    inside = text if prefilled else text.lstrip(" \n").removeprefix(THINK)
    thinking, _, answer = inside.partition(END_THINK)
    assert (said[Phase.THINKING], said[Phase.ANSWERING]) == (thinking, answer)


def test_control_tokens_are_no_text_beside_tags_in_the_text(untagged: Tokenizer) -> None:
    ids = [*untagged.encode("2</th"), *untagged.eos_ids, *untagged.encode("ink>4"), *untagged.eos_ids]
    assert split_by_tags(untagged, ids, True) == {Phase.START: "", Phase.THINKING: "2", Phase.ANSWERING: "4"}


def test_a_vocabulary_with_both_tags_goes_by_their_ids() -> None:
    assert isinstance(splitter_for(TOKENIZER, True), Splitter)
