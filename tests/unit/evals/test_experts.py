"""Which experts are used: shares by domain, and a transcript of the trained kind."""

from __future__ import annotations

import pytest
import torch

from aha.evals.experts import expert_report
from aha.evals.runner import grade_sample
from aha.models.config.presets import tiny
from aha.models.deepseek_v3 import DeepseekV3
from aha.tasks.chains import Sums
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import Tokenizer
from aha.types import Problem

FACTS = {"items": [[2], [2]], "start": 0, "first": 0, "last": 1}
SUM = Problem("sums", Sums.domain, 1, "en", "What is 2+2?", "4", FACTS)
PLAIN = "<think>2+2=4</think>\n<answer>4</answer>"
AHA = "<think>a2+0=2\nb2+2=5\nWait\na2+0=2\nb2+2=4\n4 differ\nWait\nb2+2=4\n4 same</think>\n<answer>4</answer>"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["a2+0=2\nb2+2=4\nWait\n4 differ\n4 same"] * 5, 300)


def model(tokenizer: Tokenizer, dense_layers: int) -> DeepseekV3:
    made = DeepseekV3(tiny(tokenizer.vocab_size, num_hidden_layers=3, first_k_dense_replace=dense_layers))
    return made.init_weights(torch.Generator().manual_seed(0))  # type: ignore[return-value]


def test_shares_of_every_expert_layer_and_the_transcript_that_rejects(tokenizer: Tokenizer) -> None:
    samples = [
        grade_sample(SUM, number, text, 9, False, PromptStyle.named("zero")) for number, text in enumerate((PLAIN, AHA))
    ]
    network = model(tokenizer, 1)
    before = torch.get_rng_state()
    found = expert_report(network, tokenizer, samples)
    assert torch.equal(before, torch.get_rng_state())
    assert set(found["by_domain"]) == {"1", "2"}
    for by_domain in found["by_domain"].values():
        (shares,) = by_domain.values()
        assert len(shares) == network.config.num_experts
        assert sum(shares) == pytest.approx(1.0)
        assert max(shares) > min(shares)
    transcript = found["transcript"]
    assert "".join(transcript["tokens"]) == AHA, "the one that rejects a wrong attempt, not the first"
    assert len(transcript["experts"]) == len(transcript["tokens"])
    assert all(0 <= expert < network.config.num_experts for expert in transcript["experts"])
    assert not any(layer.mlp.gate._forward_hooks for layer in network.layers if hasattr(layer.mlp, "gate"))


def test_shares_are_those_of_the_completion_alone(tokenizer: Tokenizer) -> None:
    """By hand: the router's choices on the last tokens of one sequence."""
    (sample,) = [grade_sample(SUM, 0, PLAIN, 9, False, PromptStyle.named("zero"))]
    network = model(tokenizer, 2)
    seen: list[torch.Tensor] = []
    handle = network.layers[2].mlp.gate.register_forward_hook(lambda _, __, output: seen.append(output.indices))
    found = expert_report(network, tokenizer, [sample])
    handle.remove()
    own = seen[0][-len(tokenizer.encode_markup(PLAIN)) :]
    counts = torch.bincount(own.flatten(), minlength=network.config.num_experts).double()
    assert found["by_domain"]["2"]["math"] == pytest.approx((counts / counts.sum()).tolist())
    assert found["transcript"]["experts"] == own[:, 0].tolist()


def test_a_model_without_experts_has_none_to_show(tokenizer: Tokenizer) -> None:
    (sample,) = [grade_sample(SUM, 0, PLAIN, 9, False, PromptStyle.named("zero"))]
    assert expert_report(model(tokenizer, 3), tokenizer, [sample]) == {"by_domain": {}, "transcript": None}
