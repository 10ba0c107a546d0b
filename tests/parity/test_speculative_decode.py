"""Speculative decoding is plain decoding: the same tokens and log-probabilities, whatever is drafted and accepted.

The model has learned enough of a noisy sequence that its modules guess right often and wrong often.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from aha.errors import GenerationError
from aha.inference.decoding.cache import DraftCache
from aha.inference.decoding.graphed import GraphedDecoder
from aha.inference.decoding.latent import AbsorbedDecoder
from aha.inference.decoding.latent_packed import PackedLatentDecoder
from aha.inference.decoding.step import Decoder
from aha.inference.engine import Engine
from aha.inference.runner import Runner
from aha.inference.scheduler import Sample
from aha.models.config.presets import preset, tiny
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.layouts import Ragged, Rectangle
from aha.models.model_from_config import build
from aha.types import Completion, FinishReason, Request, SamplingParams

torch.set_num_threads(1)

VOCABULARY = 24
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "moe_intermediate_size": 24}


def noisy_sequences(rows: int, length: int, generator: torch.Generator) -> Tensor:
    """Each token is 5 times the one before plus 3 in four of five places, else any token."""
    ids = torch.randint(0, VOCABULARY, (rows, length), generator=generator)
    follow = torch.rand(rows, length, generator=generator) < 0.8
    for i in range(1, length):
        ids[:, i] = torch.where(follow[:, i], (5 * ids[:, i - 1] + 3) % VOCABULARY, ids[:, i])
    return ids.flatten()


@pytest.fixture(scope="module")
def model() -> DeepseekV3:
    generator = torch.Generator().manual_seed(0)
    model = DeepseekV3(tiny(VOCABULARY, n_routed_experts=4, num_nextn_predict_layers=2, **SIZES)).init_weights(
        generator
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    layout = Rectangle(16, 24)
    for _ in range(40):
        ids = noisy_sequences(16, 24, generator)
        main = model(ids, layout)
        loss = torch.zeros(())
        for ahead, states in enumerate([main, *model.mtp_hidden(main, ids, layout)], start=1):
            targets, there = layout.shift(ids, ahead)
            loss = loss + F.cross_entropy(model.logits(states.hidden_ND[there]), targets[there])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def requests(count: int, **sampling: object) -> list[Request]:
    """Prompts of 1 to 9 tokens."""
    rng = np.random.default_rng(0)
    settings = {"max_completion_tokens": 20, "n": 3, **sampling}
    prompts = [tuple(int(t) for t in rng.integers(0, VOCABULARY, 1 + i % 9)) for i in range(count)]
    return [Request(p, SamplingParams(seed=i, **settings), f"r{i}") for i, p in enumerate(prompts)]  # type: ignore[arg-type]


def assert_same(found: list[list[Completion]], expected: list[list[Completion]]) -> None:
    for one, two in zip(found, expected, strict=True):
        for a, b in zip(one, two, strict=True):
            assert a.token_ids == b.token_ids
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
            assert a.finish_reason is b.finish_reason


@pytest.mark.parametrize("drafted", [1, 2])
@pytest.mark.parametrize("max_rows", [4, 64])
@pytest.mark.parametrize(
    "sampling",
    [{"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 0.6, "top_p": 0.95}, {"stop_token_ids": (7, 11)}],
    ids=["greedy", "sampled", "nucleus", "stops"],
)
def test_it_gives_the_tokens_of_plain_decoding(
    model: DeepseekV3, sampling: dict[str, object], max_rows: int, drafted: int
) -> None:
    """With 30 samples in 64 rows or in 4, where rows are moved and filled again."""
    asked = requests(10, **sampling)
    plain = Engine(model, max_rows, max_context=32)
    speculative = Engine(model, max_rows, max_context=32, speculative_tokens=drafted)
    assert_same(speculative.generate(asked), plain.generate(asked))
    counts = speculative.drafts
    assert 0 < counts.accepted < counts.drafted == drafted * counts.steps
    assert 0.2 < counts.acceptance_rate < 0.98, "guesses are to be right often and wrong often"
    assert plain.drafts.steps == 0


def graphed(model: DeepseekV3) -> Decoder:
    """Captures by running again."""

    def capture(compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        compute()
        return compute

    return GraphedDecoder(AbsorbedDecoder(model), capture)


@pytest.mark.parametrize("make", [AbsorbedDecoder, graphed])
def test_every_decoder_verifies_and_drafts(model: DeepseekV3, make: Callable[[DeepseekV3], Decoder]) -> None:
    asked = requests(5)
    expected = Engine(model, max_rows=6, max_context=32).generate(asked)
    packed = Engine(model, max_rows=6, max_context=32, speculative_tokens=2)
    assert_same(packed.generate(asked), expected)
    engine = Engine(model, max_rows=6, max_context=32, speculative_tokens=2)
    engine.runner = Runner(model, lambda: make(model))
    assert_same(engine.generate(asked), expected)
    assert engine.drafts == packed.drafts


@pytest.fixture(scope="module")
def unlike() -> DeepseekV3:
    """Random weights so large that every guess hangs on all tokens before it."""
    torch.manual_seed(3)
    config = tiny(VOCABULARY, n_routed_experts=4, num_nextn_predict_layers=2, initializer_range=0.3, **SIZES)
    return DeepseekV3(config).init_weights().eval()


@pytest.mark.parametrize("make", [PackedLatentDecoder, AbsorbedDecoder])
def test_drafts_are_the_modules_guesses_in_a_full_pass(
    unlike: DeepseekV3, make: Callable[[DeepseekV3], Decoder]
) -> None:
    """After any history of accepted and rejected drafts, in rows of any length."""
    runner = Runner(unlike, lambda: make(unlike))
    lengths, accepted = [1, 2, 3, 9], [[0, 1, 2, 0], [2, 0, 1, 0], [0, 0, 2, 2], [1, 2, 0, 1], [0, 0, 0, 0]]
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(0, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    cache = runner.new_cache(6, 40, 2)
    assert isinstance(cache, DraftCache)
    runner.prefill(rows, cache, range(4))
    for row in rows:
        row.append(5)
    for taken in accepted:
        known = [row[1:][-cache.window :] for row in rows]
        window = torch.tensor([ids + [0] * (cache.window - len(ids)) for ids in known])
        drafts = runner.draft(window, cache).tolist()
        assert drafts == [guesses(unlike, row) for row in rows]
        runner.decode(torch.tensor([[row[-1], *draft] for row, draft in zip(rows, drafts, strict=True)]), cache)
        for number, (row, draft, count) in enumerate(zip(rows, drafts, taken, strict=True)):
            wrong = (draft[min(count, 1)] + 1) % VOCABULARY
            row += [*draft[:count], wrong]
            cache.truncate(number, len(row) - 1)


def test_drafts_follow_samples_from_row_to_row(unlike: DeepseekV3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts are copied to siblings, and rows are moved as samples end."""
    engine, drafts = Engine(unlike, 4, 32, speculative_tokens=2), 0
    draft = engine.runner.draft

    def checked(window_BW: Tensor, cache: DraftCache) -> Tensor:
        nonlocal drafts
        drafted = draft(window_BW, cache)
        running = engine._scheduler.running
        assert drafted.tolist() == [guesses(unlike, [*s.request.prompt_token_ids, *s.tokens]) for s in running]
        drafts += len(running)
        return drafted

    monkeypatch.setattr(engine.runner, "draft", checked)
    engine.generate(requests(4, max_completion_tokens=9, stop_token_ids=(7, 11)))
    assert drafts > 30


@torch.inference_mode()
def guesses(model: DeepseekV3, row: list[int]) -> list[int]:
    """What the modules make of a whole sequence, as in training."""
    ids = list(row)
    for k in range(2):
        tokens, layout = torch.tensor(ids), Ragged([len(ids)])
        states = model.mtp_hidden(model(tokens, layout), tokens, layout)[k]
        ids.append(int(model.logits(states.hidden_ND[len(row) - 2]).argmax()))
    return ids[len(row) :]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_ends_inside_a_draft_drop_what_follows(model: DeepseekV3, limit: int) -> None:
    asked = requests(6, temperature=0.0, max_completion_tokens=limit)
    sequences = tuple((a, (5 * a + 3) % VOCABULARY) for a in range(0, VOCABULARY, 5))
    asked += requests(6, stop_sequences=sequences)
    plain, engine = (Engine(model, 8, 32, speculative_tokens=drafted) for drafted in (0, 2))
    found = engine.generate(asked)
    assert_same(found, plain.generate(asked))
    assert {c.finish_reason for group in found for c in group} == {FinishReason.LENGTH, FinishReason.STOP}
    assert engine.drafts.accepted > 0


def steered(model: DeepseekV3, drafted: int, at: int) -> Sample:
    """A sample that is forced from its start, and again by its watcher after `at` tokens."""
    engine = Engine(model, 2, 32, speculative_tokens=drafted)
    (item,) = engine.add(requests(1, n=1, temperature=0.0, top_logprobs=3)[0])
    item.force([1, 2, 3])

    def watch() -> None:
        if len(item.tokens) == at:
            item.force([20, 21, 22, 23])

    item.watch(watch)
    while engine.step():
        pass
    return item


@pytest.mark.parametrize("at", range(3, 10))
def test_forced_tokens_and_likely_ones_are_the_same(model: DeepseekV3, at: int) -> None:
    """Wherever in a draft a token is forced."""
    plain, item = steered(model, 0, at), steered(model, 2, at)
    assert item.tokens == plain.tokens
    assert item.tokens[at : at + 4] == [20, 21, 22, 23]
    assert item.logprobs == pytest.approx(plain.logprobs, abs=1e-5)
    for found, expected in zip(item.top_logprobs, plain.top_logprobs, strict=True):
        assert [token for token, _ in found] == [token for token, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], abs=1e-5)


def test_a_watcher_ends_a_sample_inside_a_draft(model: DeepseekV3) -> None:
    whole = Engine(model, 4, 32).generate(requests(1))[0]
    engine = Engine(model, 4, 32, speculative_tokens=2)
    items = engine.add(requests(1)[0])

    def end(item: Sample) -> None:
        if len(item.tokens) == 6 + item.index:
            item.end(FinishReason.STOP)

    for item in items:
        item.watch(partial(end, item))
    while engine.step():
        pass
    assert [tuple(item.tokens) for item in items] == [c.token_ids[: 6 + i] for i, c in enumerate(whole)]


@pytest.mark.parametrize(("at", "count"), [(1, 1), (4, 2), (9, 9), (7, 1)])
def test_tokens_taken_back_inside_a_draft_leave_the_rest_the_same(model: DeepseekV3, at: int, count: int) -> None:
    completions = []
    for drafted in (0, 2):
        engine = Engine(model, 4, 32, speculative_tokens=drafted)
        items = engine.add(requests(4, temperature=1.0)[3])
        refused = []

        def refuse(item: Sample, refused: list[int]) -> None:
            if len(item.tokens) == at and not refused:
                refused += item.tokens[-count:]
                item.take_back(count)
                item.force([21, 22])

        items[1].watch(partial(refuse, items[1], refused))
        while engine.step():
            pass
        assert refused and items[1].tokens[at - count : at - count + 2] == [21, 22]
        completions.append([item.completion(0) for item in items])
    assert_same([completions[1]], [completions[0]])


def test_forced_tokens_cost_no_steps_and_count_nowhere(model: DeepseekV3) -> None:
    engine = Engine(model, 1, 32, speculative_tokens=2)
    (item,) = engine.add(requests(1, n=1, max_completion_tokens=7)[0])
    item.force([3, 1, 4, 1, 5, 9, 2])
    steps = 1
    while engine.step():
        steps += 1
    assert (item.tokens, steps) == ([3, 1, 4, 1, 5, 9, 2], 2)
    assert (engine.drafts.steps, engine.drafts.drafted, engine.drafts.accepted) == (2, 0, 0)


def test_cancelled_and_streamed_samples(model: DeepseekV3) -> None:
    asked = requests(3, n=1)
    whole = Engine(model, 4, 32).generate(asked)
    engine = Engine(model, 4, 32, speculative_tokens=2)
    assert [token for token, _ in engine.stream(asked[0])] == list(whole[0][0].token_ids)
    (first,), (second,) = engine.add(asked[1]), engine.add(asked[2])
    for _ in range(3):
        engine.step()
    engine.cancel("r1")
    while engine.step():
        pass
    assert first.finish_reason is FinishReason.CANCELLED
    assert tuple(first.tokens) == whole[1][0].token_ids[: len(first.tokens)]
    assert tuple(second.tokens) == whole[2][0].token_ids


def test_drafts_follow_the_weights(model: DeepseekV3) -> None:
    """New weights come under their version, and the modules draft with theirs."""
    engine = Engine(deepcopy(model), 8, 32, speculative_tokens=2)
    engine.generate(requests(3))
    other = {name: tensor.flip(0) if "embed" in name else tensor * 1.05 for name, tensor in model.state_dict().items()}
    engine.load_weights(other, 4)
    changed = deepcopy(model)
    changed.load_state_dict(other)
    fresh = Engine(changed, 8, 32, weights_version=4, speculative_tokens=2)
    engine.drafts = type(engine.drafts)()
    found = engine.generate(requests(3))
    assert found[0][0].weights_version == 4
    assert_same(found, Engine(changed, 8, 32).generate(requests(3)))
    fresh.generate(requests(3))
    assert engine.drafts == fresh.drafts


@pytest.mark.parametrize(
    ("name", "modules", "drafted"), [("tiny", 1, 2), ("tiny", 0, 1), ("qwen3-tiny", 0, 1), ("tiny", 1, -1)]
)
def test_models_that_cannot_draft_say_so(name: str, modules: int, drafted: int) -> None:
    changes = {"num_nextn_predict_layers": modules} if name == "tiny" else {}
    with pytest.raises(GenerationError, match=f"={drafted}, but this model can draft 0 to {modules} tokens a step"):
        Engine(build(preset(name, vocab_size=VOCABULARY, **changes)), speculative_tokens=drafted)
