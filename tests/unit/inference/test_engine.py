"""The engine against the trainer's forward pass.

Same log-probabilities whatever the batch, and every end of a request.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aha.errors import GenerationError
from aha.inference.decoding.graphed import GraphedDecoder
from aha.inference.decoding.latent import AbsorbedDecoder
from aha.inference.engine import Engine
from aha.inference.runner import Runner
from aha.inference.sampler import RowSettings, nucleus, sample, stream_key, uniforms
from aha.inference.scheduler import Scheduler
from aha.models.config.presets import tiny
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.layouts import Ragged
from aha.protocols import Generator
from aha.types import FinishReason, Request, SamplingParams


@pytest.fixture(scope="module")
def model() -> DeepseekV3:
    config = tiny(
        64, hidden_size=32, num_hidden_layers=2, intermediate_size=48, moe_intermediate_size=24, n_routed_experts=4
    )
    return DeepseekV3(config).init_weights(torch.Generator().manual_seed(0))


def requests(count: int, **sampling: object) -> list[Request]:
    rng = np.random.default_rng(0)
    settings = {"max_completion_tokens": 12, "n": 3, **sampling}
    return [
        Request(
            tuple(int(t) for t in rng.integers(3, 64, rng.integers(1, 9))), SamplingParams(seed=i, **settings), f"r{i}"
        )  # type: ignore[arg-type]
        for i in range(count)
    ]


def test_it_is_a_generator(model: DeepseekV3) -> None:
    assert isinstance(Engine(model), Generator)


@pytest.mark.parametrize("max_rows", [1, 4, 64])
def test_results_do_not_depend_on_the_batch(model: DeepseekV3, max_rows: int) -> None:
    asked = requests(6, stop_token_ids=(7, 11))
    together = Engine(model, max_rows=64, max_context=32).generate(asked)
    other = Engine(model, max_rows=max_rows, max_context=32).generate(list(reversed(asked)))
    for one, two in zip(together, reversed(other), strict=True):
        for a, b in zip(one, two, strict=True):
            assert a.token_ids == b.token_ids
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
            assert a.finish_reason is b.finish_reason


def test_log_probabilities_are_the_trainers(model: DeepseekV3) -> None:
    engine = Engine(model, max_rows=16, max_context=32)
    asked = requests(5, temperature=0.7, top_p=0.8)
    completions = engine.generate(asked)
    pairs = [(r.prompt_token_ids, c.token_ids) for r, group in zip(asked, completions, strict=True) for c in group]
    flat = [c for group in completions for c in group]
    for scored, completion in zip(engine.score(pairs), flat, strict=True):
        assert scored == pytest.approx(completion.logprobs, abs=1e-5)


def test_processed_log_probabilities_are_those_at_the_temperature_of_sampling(model: DeepseekV3) -> None:
    """Each row its own, in one batch, and the same tokens as without; forced tokens too."""
    engine = Engine(model, max_rows=16, max_context=32)
    asked = [
        replace(request, sampling=replace(request.sampling, temperature=temperature, processed_logprobs=processed))
        for request, (temperature, processed) in zip(
            requests(4), [(0.7, True), (0.7, False), (1.3, True), (0.0, True)], strict=True
        )
    ]
    groups = [engine.add(request) for request in asked]
    groups[0][0].force([5, 6])
    while engine.step():
        pass
    plain = engine.generate([replace(r, sampling=replace(r.sampling, processed_logprobs=False)) for r in asked])
    for request, samples, same, temperature in zip(asked, groups, plain, (0.7, 1.0, 1.3, 1.0), strict=True):
        scores = engine.score([(request.prompt_token_ids, one.tokens) for one in samples], temperature)
        for sample_, score, other in zip(samples, scores, same, strict=True):
            assert sample_.logprobs == pytest.approx(score, abs=1e-5)
            assert tuple(sample_.tokens) == other.token_ids or sample_ is groups[0][0]


@pytest.mark.parametrize("how", ["plain", "speculative", "graphs"])
def test_experts_are_reported_where_they_are_asked_for(model: DeepseekV3, how: str) -> None:
    """Of prompts and completions, in whatever batch: those of the trainer's forward pass; tokens stay the same."""
    engine = Engine(model, max_rows=5, max_context=40, speculative_tokens=int(how == "speculative"))
    if how == "graphs":
        engine.runner = Runner(model, lambda: GraphedDecoder(AbsorbedDecoder(model), lambda compute: compute))
    asked = requests(6, stop_token_ids=(7, 11))
    plain = engine.generate(asked)
    asked[::2] = [replace(r, sampling=replace(r.sampling, report_experts=True)) for r in asked[::2]]
    made = engine.generate(asked)
    assert [[one.token_ids for one in group] for group in made] == [[one.token_ids for one in group] for group in plain]
    assert all(router.record is None for router in model.routers())
    for number, (request, group) in enumerate(zip(asked, made, strict=True)):
        for one in group:
            if number % 2:
                assert one.experts is None
                continue
            ids = torch.tensor([*request.prompt_token_ids, *one.token_ids[:-1]])
            with engine.runner.watched_experts() as chosen:
                model(ids, Ragged([len(ids)]))
            assert one.experts is not None and one.experts.shape == (len(ids), model.config.num_moe_layers, 2)
            expected = torch.stack(chosen, 1).sort(-1).values
            assert np.array_equal(np.sort(one.experts, -1), expected.numpy())


def test_experts_of_tokens_taken_back_are_those_of_what_came_instead(model: DeepseekV3) -> None:
    engine = Engine(model, max_context=40)
    (request,) = requests(1, n=1, max_completion_tokens=20, report_experts=True)
    (sample_,) = engine.add(request)

    def watch() -> None:
        if len(sample_.tokens) == 6 and not sample_.forced and sample_.tokens[3] != 9:
            sample_.take_back(3)
            sample_.force([9, 8])

    sample_.watch(watch)
    while engine.step():
        pass
    done = sample_.completion(0)
    assert done.token_ids[3:5] == (9, 8) and done.experts is not None
    ids = torch.tensor([*request.prompt_token_ids, *done.token_ids[:-1]])
    with engine.runner.watched_experts() as chosen:
        model(ids, Ragged([len(ids)]))
    assert np.array_equal(np.sort(done.experts, -1), torch.stack(chosen, 1).sort(-1).values.numpy())


def test_greedy_takes_the_most_likely_token(model: DeepseekV3) -> None:
    (completion,) = Engine(model, max_context=32).generate(requests(1, temperature=0.0, n=1))[0]
    prompt = list(requests(1)[0].prompt_token_ids)
    for token in completion.token_ids:
        hidden = model(torch.tensor(prompt), Ragged([len(prompt)])).hidden_ND[-1:]
        assert int(model.logits(hidden).argmax()) == token
        prompt.append(token)


def test_the_ends_of_a_completion(model: DeepseekV3) -> None:
    free = Engine(model, max_context=32).generate(requests(1, n=1))[0][0]
    assert free.finish_reason is FinishReason.LENGTH
    assert len(free.token_ids) == len(free.logprobs) == 12
    stopped = Engine(model, max_context=32).generate(requests(1, n=1, stop_token_ids=(free.token_ids[4],)))[0][0]
    first = free.token_ids.index(free.token_ids[4])
    assert stopped.token_ids == free.token_ids[: first + 1]
    assert stopped.finish_reason is FinishReason.STOP
    pair = Engine(model, max_context=32).generate(requests(1, n=1, stop_sequences=(free.token_ids[2:4],)))[0][0]
    assert pair.token_ids == free.token_ids[: len(pair.token_ids)]
    assert pair.token_ids[-2:] == free.token_ids[2:4]


def test_streaming_gives_the_same_tokens_and_can_be_left(model: DeepseekV3) -> None:
    engine = Engine(model, max_rows=2, max_context=32)
    request = requests(1, n=1)[0]
    whole = engine.generate([request])[0][0]
    assert [token for token, _ in engine.stream(request)] == list(whole.token_ids)
    stream = engine.stream(request)
    assert next(stream)[0] == whole.token_ids[0]
    stream.close()
    assert engine.generate([request])[0][0] == whole
    with pytest.raises(GenerationError, match="a stream carries one sample"):
        next(engine.stream(requests(1)[0]))


def test_what_runs_goes_on_while_others_are_admitted(model: DeepseekV3) -> None:
    engine = Engine(model, max_rows=4, max_context=32)
    (running,) = engine.add(requests(1, n=1, max_completion_tokens=8)[0])
    for count in range(2, 6):
        engine.step()
        assert len(running.tokens) == count
        engine.add(requests(1, n=1, max_completion_tokens=1)[0])


def test_a_cancelled_request_keeps_what_it_has(model: DeepseekV3) -> None:
    engine = Engine(model, max_rows=4, max_context=32)
    first, second = (engine.add(request) for request in requests(2, n=2))
    for _ in range(3):
        engine.step()
    engine.cancel("r0")
    while engine.step():
        pass
    assert {item.finish_reason for item in first} == {FinishReason.CANCELLED}
    assert [len(item.tokens) for item in first] == [4, 4]
    assert {item.finish_reason for item in second} == {FinishReason.LENGTH}


@pytest.mark.parametrize(("at", "count"), [(1, 1), (3, 1), (5, 3), (12, 12)])
def test_what_follows_tokens_taken_back_follows_those_that_are_left(model: DeepseekV3, at: int, count: int) -> None:
    """The very first token too; and neighbours notice nothing."""
    asked = requests(3, n=2, max_completion_tokens=14)
    plain = Engine(model, max_context=32).generate(asked)
    engine = Engine(model, max_rows=4, max_context=32)
    samples = [item for request in asked for item in engine.add(request)]
    refusing = samples[2]
    refused: list[list[int]] = []

    def refuse() -> None:
        if len(refusing.tokens) == at and not refused:
            refused.append(refusing.tokens[-count:])
            refusing.take_back(count)
            refusing.force([9, 10])

    refusing.watch(refuse)
    while engine.step():
        pass
    assert len(refused) == 1 and len(refusing.tokens) == 14
    own = plain[1][0].token_ids
    assert refusing.tokens[: at - count] == list(own[: at - count]) and refused[0] == list(own[at - count : at])
    assert refusing.tokens[at - count : at - count + 2] == [9, 10]
    scored = engine.score([(asked[1].prompt_token_ids, refusing.tokens)])[0]
    assert refusing.logprobs == pytest.approx(scored, abs=1e-5)
    others = [completion for completions in plain for completion in completions]
    for item, completion in zip(samples, others, strict=True):
        assert item is refusing or tuple(item.tokens) == completion.token_ids


def test_a_sample_whose_last_token_is_taken_back_goes_on(model: DeepseekV3) -> None:
    engine = Engine(model, max_context=32)
    (item,) = engine.add(Request((3, 4), SamplingParams(max_completion_tokens=6, stop_token_ids=(7,), top_logprobs=2)))
    item.force([5, 7])
    item.watch(lambda: item.take_back(1) if item.tokens == [5, 7] else None)
    while engine.step():
        pass
    assert item.tokens[:2] != [5, 7] and len(item.tokens) == len(item.logprobs) == len(item.top_logprobs)


def test_forced_tokens_are_continued(model: DeepseekV3) -> None:
    """Continuing from the first tokens of a greedy completion gives the rest of it."""
    engine = Engine(model, max_context=32)
    request = requests(1, n=1, temperature=0.0)[0]
    whole = engine.generate([request])[0][0].token_ids
    forced = Request((*request.prompt_token_ids, *whole[:5]), SamplingParams(temperature=0.0, max_completion_tokens=7))
    assert engine.generate([forced])[0][0].token_ids == whole[5:]


def test_weights_change_under_a_version(model: DeepseekV3) -> None:
    other = DeepseekV3(model.config).init_weights(torch.Generator().manual_seed(1))
    engine = Engine(DeepseekV3(model.config).init_weights(torch.Generator().manual_seed(0)), max_context=32)
    before = engine.generate(requests(1))
    engine.load_weights(other.state_dict(), 5)
    after = engine.generate(requests(1))
    assert engine.weights_version == after[0][0].weights_version == 5
    assert before[0][0].token_ids != after[0][0].token_ids
    assert after[0][0].token_ids == Engine(other, max_context=32).generate(requests(1))[0][0].token_ids
    with pytest.raises(GenerationError, match="do not fit"):
        engine.load_weights({}, 6)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request((), SamplingParams()), "prompt is empty"),
        (Request((3,) * 30, SamplingParams(max_completion_tokens=30)), "exceed the context"),
        (Request((3,), SamplingParams(n=0)), "at least 1"),
    ],
)
def test_requests_that_cannot_be_served(model: DeepseekV3, request_: Request, words: str) -> None:
    with pytest.raises(GenerationError, match=words):
        Engine(model, max_context=32).generate([request_])


def test_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -50.0]]).repeat(20_000, 1)
    keys = np.array([stream_key(7, i) for i in range(20_000)], dtype=np.uint64)
    draws = uniforms(keys, np.zeros(20_000, dtype=np.int64))
    for params in (SamplingParams(), SamplingParams(temperature=0.5), SamplingParams(top_p=0.7)):
        tokens, logprobs = sample(logits, RowSettings.of([params] * 20_000, logits.device), draws)
        expected = torch.softmax(logits[:1] / params.temperature, -1)
        if params.top_p < 1:
            expected = nucleus(expected, torch.tensor([params.top_p]))
            expected = expected / expected.sum()
        counts = torch.bincount(tokens, minlength=4) / 20_000
        assert torch.allclose(counts, expected[0], atol=0.015)
        assert torch.allclose(logprobs, torch.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0])


@pytest.mark.parametrize("spread", [1.0, 4.0, 8.0])
def test_a_nucleus_of_a_large_vocabulary_is_that_of_float64(spread: float) -> None:
    """Not a token more or fewer at top-p 0.95, in a vocabulary of Qwen's size."""
    generator = torch.Generator().manual_seed(0)
    probs = (torch.randn(4, 152_064, generator=generator) * spread).softmax(-1)
    kept = nucleus(probs, torch.full((4,), 0.95)) > 0
    wide, order = probs.double().sort(dim=-1, descending=True, stable=True)
    inside = wide.cumsum(-1) - wide < 0.95
    assert torch.equal(kept, torch.zeros_like(kept).scatter(-1, order, inside))


@given(st.lists(st.sampled_from([None, FinishReason.STOP]), max_size=12))
def test_retiring_keeps_rows_dense_and_moves_follow(pattern: list[FinishReason | None]) -> None:
    scheduler = Scheduler(max_rows=16)
    scheduler.add(0, Request((3,), SamplingParams(n=max(1, len(pattern)))))
    scheduler.admit()
    for item, reason in zip(scheduler.running, pattern, strict=False):
        item.finish_reason = reason
    rows = {row: item.index for row, item in enumerate(scheduler.running)}
    for source, target in scheduler.retire():
        rows[target] = rows[source]
    assert all(item.finish_reason is None for item in scheduler.running)
    assert [rows[row] for row in range(len(scheduler.running))] == [item.index for item in scheduler.running]
    assert len(scheduler.running) == max(1, len(pattern)) - sum(reason is not None for reason in pattern)
