"""What an update reports: under TRL's names what TRL means by them, and nothing that was not measured."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import pytest
import torch

from aha.models.checkpoint.hf import load_pretrained
from aha.models.language_model import LanguageModel
from aha.models.layouts import Ragged
from aha.models.moe import max_violation
from aha.rl.config import LossConfig
from aha.rl.policy import PolicyUpdate, micro_batches
from aha.text.tokenizer import Tokenizer
from aha.training.distributed import Distributed
from aha.training.optimizer import OptimizerConfig
from aha.types import FinishReason, Problem, Rollout, RolloutGroup

from ..conftest import MakeContext

PROMPT = (10, 20, 30)
COMPLETIONS = ((11, 12, 13), (14, 15), (16, 17, 18, 19))
PROBLEM = Problem("rules", "math", 1, "en", "?", "1")


@pytest.fixture
def model(make_context: MakeContext, base: Tokenizer) -> LanguageModel:
    """The small base with random weights."""
    context = make_context("r1-zero", LossConfig(), ())
    return load_pretrained(context.run.path / "base" / "model")


LIMIT = 16
"""Of completions, in tokens."""


def update_of(model: LanguageModel, temperature: float = 1.0, **changes: object) -> PolicyUpdate:
    optimizer = OptimizerConfig(adam_lr=0.01, muon_lr=0.0, warmup_steps=0)
    return PolicyUpdate(model, LossConfig(**changes), optimizer, 4, Distributed(), temperature=temperature)


@torch.no_grad()
def scored(
    model: LanguageModel, completion: Sequence[int], temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each token of a completion, and the entropy there."""
    ids = torch.tensor([*PROMPT, *completion])
    logits = model.logits(model(ids, Ragged([len(ids)])).hidden_ND)[len(PROMPT) - 1 : -1]
    logprobs = (logits / temperature).log_softmax(-1)
    taken = logprobs.gather(1, torch.tensor(completion)[:, None])[:, 0]
    return taken, -(logprobs.exp() * logprobs).sum(-1)


def group(old_logprobs: Sequence[Sequence[float]], advantages: Sequence[float]) -> RolloutGroup:
    rollouts = [
        Rollout(ids, tuple(old), FinishReason.STOP, "", reward=advantage, advantage=advantage)
        for ids, old, advantage in zip(COMPLETIONS, old_logprobs, advantages, strict=True)
    ]
    return RolloutGroup(PROBLEM, PROMPT, rollouts)


def test_the_distance_from_the_sampler_and_the_entropy_are_of_the_tokens_with_an_advantage(
    model: LanguageModel,
) -> None:
    (first, first_entropy), _, (last, last_entropy) = (scored(model, ids) for ids in COMPLETIONS)
    sampled = [(first - 0.25).tolist(), [-3.0] * 2, (last + torch.tensor([0.0, 1.5, 0.0, 0.0])).tolist()]
    row = update_of(model).step([group(sampled, [1.0, 0.0, -1.0])], LIMIT, on_policy=True)
    assert row["tokens_trained"] == 7
    assert row["sampling/sampling_logp_difference/mean"] == pytest.approx((3 * 0.25 + 1.5) / 7, abs=1e-5)
    assert row["sampling/sampling_logp_difference/max"] == pytest.approx(1.5, abs=1e-5)
    expected = float(torch.cat([first_entropy, last_entropy]).mean())
    assert row["entropy/trained_tokens"] == pytest.approx(expected, abs=1e-5)
    assert "kl" not in row, "there is no reference"


def test_clipped_tokens_are_a_share_of_all_tokens(model: LanguageModel) -> None:
    """Off-policy: of nine tokens one is held above and two are held below."""
    first, middle, last = (scored(model, ids)[0] for ids in COMPLETIONS)
    above, below = torch.tensor([0.0, -1.0, 0.0]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    sampled = [(first + above).tolist(), middle.tolist(), (last + below).tolist()]
    row = update_of(model).step([group(sampled, [1.0, 0.0, -1.0])], LIMIT, on_policy=False)
    assert row["clip_ratio/high_mean"] == pytest.approx(1 / 9)
    assert row["clip_ratio/low_mean"] == pytest.approx(2 / 9)
    assert row["clip_ratio/region_mean"] == pytest.approx(3 / 9)
    assert not any("logp_difference" in name for name in row), "the policy has moved since it sampled"


def test_with_a_reference_every_token_is_measured(model: LanguageModel) -> None:
    scores = [scored(model, ids) for ids in COMPLETIONS]
    update = update_of(model, kl_beta=0.1)
    groups = [group([taken.tolist() for taken, _ in scores], [1.0, 0.0, -1.0])]
    row = update.step(groups, LIMIT, on_policy=True)
    assert row["tokens_trained"] == 9
    expected = float(torch.cat([entropy for _, entropy in scores]).mean())
    assert row["entropy/trained_tokens"] == pytest.approx(expected, abs=1e-5)
    assert row["kl"] == pytest.approx(0.0, abs=1e-6)
    assert update.step(groups, LIMIT, on_policy=True)["kl"] > 1e-5


def test_the_distance_is_that_at_the_temperature_of_sampling(model: LanguageModel) -> None:
    sampled = [(scored(model, ids, 0.7)[0] - 0.25).tolist() for ids in COMPLETIONS]
    row = update_of(model, temperature=0.7).step([group(sampled, [1.0, 0.0, -1.0])], LIMIT, on_policy=True)
    assert row["sampling/sampling_logp_difference/mean"] == pytest.approx(0.25, abs=1e-5)
    assert row["sampling/sampling_logp_difference/max"] == pytest.approx(0.25, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_token_weighs_what_trainer_and_sampler_disagree_about(model: LanguageModel, temperature: float) -> None:
    """Up to the cap. Where nothing is corrected the sampler's log-probabilities do not matter at all."""
    exact = [scored(model, ids, temperature)[0] for ids in COMPLETIONS]
    shifts = [math.log(1.5), 0.0, math.log(5.0)]  # of the trainer above the sampler

    def step(shifts: Sequence[float], cap: float) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        policy = copy.deepcopy(model)
        sampled = [(taken - shift).tolist() for taken, shift in zip(exact, shifts, strict=True)]
        update = update_of(policy, temperature, importance_cap=cap)
        row = update.step([group(sampled, [1.0, 0.0, -1.0])], LIMIT, on_policy=True)
        return row, policy.state_dict()

    (row, corrected), (agreed, same) = step(shifts, 2.0), step([0.0] * 3, 2.0)
    assert row["sampling/importance_sampling_ratio/mean"] == pytest.approx((3 * 1.5 + 4 * 2.0) / 7, rel=1e-4)
    assert row["loss"] == pytest.approx(-(3 * 1.5 - 4 * 2.0) / 9, rel=1e-4)
    assert agreed["loss"] == pytest.approx(-(3 - 4) / 9, rel=1e-4)
    assert not equal(corrected, same)
    assert equal(step(shifts, 0.0)[1], step([0.0] * 3, 0.0)[1])


def test_prediction_modules_learn_beside_the_policy(model: LanguageModel) -> None:
    """The policy, with its clipped gradient, does not feel it by one bit."""
    whole = [group([[-3.0] * len(ids) for ids in COMPLETIONS], [1.0, 0.5, -1.0])]
    frozen, trained = (weights_after(model, whole, mtp_share=share) for share in (0.0, 0.5))
    for name, tensor in model.state_dict().items():
        if name.startswith("mtp."):
            assert torch.equal(frozen[name], tensor)
            assert torch.equal(trained[name], tensor) == name.endswith("e_score_correction_bias"), name
        else:
            assert torch.equal(frozen[name], trained[name]), name
    update = update_of(model, mtp_share=1.0)
    losses = [update.step(whole, LIMIT, on_policy=True)["mtp_loss"] for _ in range(4)]
    assert losses[-1] < losses[0]
    assert "mtp_loss" not in update_of(model, mtp_share=0.0).step(whole, LIMIT, on_policy=True)


def test_the_load_of_every_expert(model: LanguageModel) -> None:
    config = model.config
    row = update_of(model).step(
        [group([[-3.0] * len(ids) for ids in COMPLETIONS], [1.0, 0.0, -1.0])], LIMIT, on_policy=True
    )
    load = torch.tensor(row["expert_load"])
    assert load.shape == (config.num_moe_layers, config.num_experts)
    assert load.sum(1).tolist() == [(len(PROMPT) + 7) * 2] * config.num_moe_layers, "two experts for every token"
    assert row["max_vio"] == pytest.approx(float(max_violation(load).mean()))


def weights_after(model: LanguageModel, groups: Sequence[RolloutGroup], **changes: object) -> dict[str, torch.Tensor]:
    policy = copy.deepcopy(model)
    update_of(policy, **changes).step(groups, LIMIT, on_policy=True)
    return policy.state_dict()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("normalization", ["token", "response", "constant"])
def test_truncated_completions_can_be_left_out_of_the_loss(model: LanguageModel, normalization: str) -> None:
    """As if they had never been sampled, in the normalisation too."""
    whole = group([[-3.0] * len(ids) for ids in COMPLETIONS], [1.0, 0.5, -1.0])
    without = RolloutGroup(PROBLEM, PROMPT, whole.rollouts[:2])
    whole.rollouts[2].finish_reason = FinishReason.LENGTH
    masked = weights_after(model, [whole], mask_truncated=True, normalization=normalization)
    assert equal(masked, weights_after(model, [without], normalization=normalization))
    assert not equal(masked, weights_after(model, [whole], normalization=normalization))


def test_a_group_that_is_too_large_goes_in_parts(model: LanguageModel) -> None:
    """Prompt of 3, completions of 3, 2 and 4: what fits stays together, and the update is the same."""
    whole = group([[-3.0] * len(ids) for ids in COMPLETIONS], [1.0, 0.5, -1.0])

    def sizes(limit: int) -> list[list[list[int]]]:
        batches = micro_batches([whole, whole], limit)
        return [[[len(r.completion_token_ids) for r in part.rollouts] for part in batch] for batch in batches]

    assert sizes(24) == [[[3, 2, 4], [3, 2, 4]]]
    assert sizes(12) == [[[3, 2, 4]], [[3, 2, 4]]]
    assert sizes(8) == [[[3, 2]], [[4]], [[3, 2]], [[4]]]
    assert sizes(1) == [[[3]], [[2]], [[4]], [[3]], [[2]], [[4]]]

    def gradients(limit: int) -> dict[str, torch.Tensor]:
        policy = copy.deepcopy(model)
        update = update_of(policy, micro_tokens=limit, kl_beta=0.1)
        update.step([whole], LIMIT, on_policy=True)
        return {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}

    expected, parts = gradients(64), gradients(8)
    assert expected.keys() == parts.keys()
    assert any(gradient.any() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(parts[name], gradient, msg=lambda text, name=name: f"{name}: {text}")
