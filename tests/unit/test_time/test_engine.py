"""Budget forcing through the real engine on random weights: forced tokens are continued as if they had been sampled."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from aha.inference.engine import Engine
from aha.models.config.presets import tiny
from aha.models.deepseek_v3 import DeepseekV3
from aha.test_time.budget_forcing import ANSWER_TOKENS, end_thinking_at, think_at_least
from aha.test_time.candidates import Respondent
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import END_THINK, Tokenizer
from aha.types import Completion, Problem, Request, SamplingParams


class Recording(Engine):
    """Keeps what went in and came out."""

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        results = super().generate(requests)
        self.record = [*getattr(self, "record", []), *zip(requests, results, strict=True)]
        return results


@pytest.fixture
def respondent(tokenizer: Tokenizer) -> Respondent:
    small = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "moe_intermediate_size": 24}
    model = DeepseekV3(tiny(tokenizer.vocab_size, n_routed_experts=4, **small))
    model.init_weights(torch.Generator().manual_seed(0))
    generator = Recording(model, max_rows=32, max_context=400)
    sampling = SamplingParams(max_completion_tokens=100)
    return Respondent(generator, tokenizer, PromptStyle.named("chat"), sampling, 160)


def check(respondent: Respondent) -> None:
    """Every continuation has the log-probabilities that the whole sequence has, and keeps to its stops and limits."""
    engine = respondent.generator
    assert isinstance(engine, Recording)
    pairs = [(request, completion) for request, completions in engine.record for completion in completions]
    scores = engine.score([(request.prompt_token_ids, completion.token_ids) for request, completion in pairs])
    for (request, completion), scored in zip(pairs, scores, strict=True):
        assert completion.logprobs == pytest.approx(scored, abs=1e-4)
        assert len(completion.token_ids) <= request.sampling.max_completion_tokens
        assert not set(completion.token_ids[:-1]) & set(request.sampling.stop_token_ids)


def test_the_end_is_forced(respondent: Respondent, five: Problem) -> None:
    (own,) = end_thinking_at(respondent, [five], respondent.samples([five], 6), 24)
    check(respondent)
    forced = [one for one in own if one.forced_tokens]
    assert forced
    closing = respondent.tokenizer.encode_markup("\n</think>\n\nThe answer is")
    for one in forced:
        assert one.forced_tokens == len(closing)
        assert "\n</think>\n\nThe answer is" in one.text
        assert 24 < one.tokens <= 24 + ANSWER_TOKENS
    assert [own] == end_thinking_at(respondent, [five], respondent.samples([five], 6), 24)


def test_the_end_is_suppressed(respondent: Respondent, five: Problem) -> None:
    own = think_at_least(respondent, [five], 60, samples=32)[0]
    check(respondent)
    prolonged = [one for one in own if "Wait" in one.text]
    assert prolonged, "by chance the random model ended some thinking early"
    for one in prolonged:
        assert len(respondent.tokenizer.encode(one.text.split(END_THINK)[0])) >= 50
        assert one.forced_tokens > 0
