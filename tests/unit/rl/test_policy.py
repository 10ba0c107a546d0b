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
from aha.training.prediction import prediction_loss
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


FORCED = (range(0), range(1), range(1, 3))
"""Of the second completion the first token, of the third the two in the middle: 3, 1 and 2 tokens were sampled."""


def forced_group(old_logprobs: Sequence[Sequence[float]], advantages: Sequence[float]) -> RolloutGroup:
    made = group(old_logprobs, advantages)
    for rollout, forced in zip(made.rollouts, FORCED, strict=True):
        rollout.forced = forced
    return made


def sampled_places(values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.stack([v for place, v in enumerate(one) if place not in forced])
            for one, forced in zip(values, FORCED, strict=True)]  # fmt: skip


def test_what_is_measured_leaves_forced_tokens_out(model: LanguageModel) -> None:
    scores = [scored(model, ids) for ids in COMPLETIONS]
    taken, entropy = ([one[part] for one in scores] for part in (0, 1))
    # The sampler is 0.5 below, above in one token; at forced places its placeholder 0 is far off.
    sampled = [(taken[0] - 0.5).tolist(), [0.0, float(taken[1][1]) - 0.5], (taken[2] + 0.25).tolist()]
    sampled[2][1:3] = [0.0, 0.0]
    row = update_of(model, kl_beta=0.1, importance_cap=2.0).step(
        [forced_group(sampled, [1.0, 0.5, -1.0])], LIMIT, on_policy=True
    )
    assert row["tokens_trained"] == 6
    assert row["sampling/sampling_logp_difference/max"] == pytest.approx(0.5, abs=1e-5)
    assert row["sampling/sampling_logp_difference/mean"] == pytest.approx((4 * 0.5 + 2 * 0.25) / 6, abs=1e-5)
    importance = (4 * math.exp(0.5) + 2 * math.exp(-0.25)) / 6
    assert row["sampling/importance_sampling_ratio/mean"] == pytest.approx(importance, abs=1e-5)
    expected = float(torch.cat(sampled_places(entropy)).mean())
    assert row["entropy/trained_tokens"] == pytest.approx(expected, abs=1e-5)
    low, high = math.exp(0.5), math.exp(-0.25)
    assert row["loss"] == pytest.approx(-(3 * low + 0.5 * low - 2 * high) / 6, abs=1e-5)


def test_forced_tokens_are_not_clipped(model: LanguageModel) -> None:
    """The placeholder 0 makes the ratio there tiny, which a negative advantage would clip."""
    taken = [scored(model, ids)[0] for ids in COMPLETIONS]
    sampled = [taken[0].tolist(), taken[1].tolist(), [float(taken[2][0]) + 1.0, 0.0, 0.0, float(taken[2][3])]]
    row = update_of(model).step([forced_group(sampled, [1.0, 1.0, -1.0])], LIMIT, on_policy=False)
    assert row["clip_ratio/low_mean"] == pytest.approx(1 / 6)
    assert row["clip_ratio/high_mean"] == 0.0


@pytest.mark.parametrize("micro_tokens", [64, 8])
@pytest.mark.parametrize("normalization", ["token", "response", "constant"])
def test_forced_tokens_carry_no_loss(model: LanguageModel, normalization: str, micro_tokens: int) -> None:
    """The gradient is that of the sampled tokens alone, each behind all that stands before it."""
    advantages = (1.0, 0.5, -1.0)
    policy = copy.deepcopy(model)
    optimizer = OptimizerConfig(adam_lr=0.01, muon_lr=0.0, warmup_steps=0, clip_norm=1e9)
    loss = LossConfig(normalization=normalization, micro_tokens=micro_tokens, mtp_share=0.0)
    update = PolicyUpdate(policy, loss, optimizer, 4, Distributed())
    update.step([forced_group([[0.0] * len(ids) for ids in COMPLETIONS], advantages)], LIMIT, on_policy=True)

    total = torch.zeros(())
    for ids, advantage, forced in zip(COMPLETIONS, advantages, FORCED, strict=True):
        whole = torch.tensor([*PROMPT, *ids])
        hidden = model(whole, Ragged([len(whole)])).hidden_ND[len(PROMPT) - 1 : -1]
        taken = model.logits(hidden).log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
        own = torch.stack([logprob for place, logprob in enumerate(taken) if place not in forced])
        weight = {"token": 1 / 6, "response": 1 / (3 * len(own)), "constant": 1 / (3 * LIMIT)}[normalization]
        total = total - advantage * weight * own.sum()
    total.backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None and "embed" not in name}
    # The balance loss, whose weight is 1e-4, moves routers by a little; everything else is the policy's.
    found = {name: p.grad for name, p in policy.named_parameters() if name in expected and p.grad is not None}
    assert found.keys() == expected.keys() and any(gradient.abs().max() > 1e-3 for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4, rtol=1e-3, msg=lambda t, n=name: f"{n}: {t}")


def test_prediction_modules_learn_nothing_from_forced_tokens(model: LanguageModel) -> None:
    """Token i + 2 is predicted from i: 3, 1 and 2 of the completions' tokens, and their mean is what is reported."""
    made = forced_group([[0.0] * len(ids) for ids in COMPLETIONS], [1.0, 0.5, -1.0])
    row = update_of(copy.deepcopy(model), mtp_share=1.0).step([made], LIMIT, on_policy=True)
    total = 0.0
    for ids, forced in zip(COMPLETIONS, FORCED, strict=True):
        whole, layout = torch.tensor([*PROMPT, *ids]), Ragged([len(PROMPT) + len(ids)])
        trained = torch.tensor([False] * 3 + [place not in forced for place in range(len(ids))])
        with torch.no_grad():
            total += float(prediction_loss(model, model(whole, layout), whole, layout, trained, [0]))
    assert row["mtp_loss"] == pytest.approx(total / 6, rel=1e-4)


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
