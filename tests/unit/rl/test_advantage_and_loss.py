"""GRPO's mathematics against the equations written out slowly, and invariants."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aha.rl.advantage import advantages_of_each, group_advantages, rewards_agree
from aha.rl.loss import k3_divergence, policy_loss, token_weights

REWARDS = st.lists(st.sampled_from([0.0, 1.0, 2.0, 0.5]), min_size=1, max_size=16)


@given(REWARDS)
def test_advantages_are_equation_3(rewards: list[float]) -> None:
    advantages = group_advantages(rewards)
    if rewards_agree(rewards):
        assert advantages == [0.0] * len(rewards)
        return
    mean, std = statistics.fmean(rewards), statistics.pstdev(rewards)
    assert advantages == pytest.approx([(reward - mean) / std for reward in rewards], rel=1e-4)
    assert sum(group_advantages(rewards, divide_by_std=False)) == pytest.approx(0, abs=1e-9)


def test_without_division_easy_and_hard_groups_weigh_alike() -> None:
    assert group_advantages([1.0] + [0.0] * 15, divide_by_std=False)[0] == pytest.approx(15 / 16)
    assert group_advantages([1.0] + [0.0] * 15)[0] == pytest.approx(math.sqrt(15), rel=1e-4)


def test_rewards_that_are_normalised_one_by_one() -> None:
    """Accuracy 1 of 4: mean 1/4, deviation sqrt(3)/4. Form 2 of 4: mean 1/2, deviation 1/2. Steps do not count."""
    rewards = {"accuracy": [1.0, 0.0, 0.0, 0.0], "format": [1.0, 1.0, 0.0, 0.0], "steps": [0.0, 1.0, 0.0, 0.3]}
    weights = {"accuracy": 2.0, "format": 0.5, "steps": 0.0}
    root = math.sqrt(3.0)
    expected = [2 * root + 0.5, -2 / root + 0.5, -2 / root - 0.5, -2 / root - 0.5]
    assert advantages_of_each(rewards, weights) == pytest.approx(expected, rel=1e-4)
    centred = [2 * 0.75 + 0.25, -0.5 + 0.25, -0.5 - 0.25, -0.5 - 0.25]
    assert advantages_of_each(rewards, weights, divide_by_std=False) == pytest.approx(centred)
    silent = {"accuracy": [0.0] * 4, "format": rewards["format"]}
    only_form = advantages_of_each(silent, {"accuracy": 1.0, "format": 1.0})
    assert only_form == pytest.approx([1.0, 1.0, -1.0, -1.0], rel=1e-4), "a reward that agrees adds nothing"
    assert advantages_of_each(rewards, {"accuracy": 0.0, "format": 0.0}) == [0.0] * 4


@given(REWARDS, st.floats(0.1, 3.0))
def test_one_reward_by_itself_is_equation_3_times_its_weight(rewards: list[float], weight: float) -> None:
    expected = [weight * advantage for advantage in group_advantages(rewards)]
    assert advantages_of_each({"accuracy": rewards}, {"accuracy": weight}) == pytest.approx(expected)


def slow_objective(
    logprobs: list[list[float]],
    old: list[list[float]],
    ref: list[list[float]],
    advantages: list[float],
    low: float,
    high: float,
    beta: float,
    normalization: str,
    constant: int,
) -> float:
    """R1 Eq. 1 with loops, negated."""
    responses = []
    for ours, theirs, reference, advantage in zip(logprobs, old, ref, advantages, strict=True):
        tokens = []
        for p, q, r in zip(ours, theirs, reference, strict=True):
            ratio = math.exp(p - q)
            clipped = min(max(ratio, 1 - low), 1 + high)
            kl = math.exp(r - p) - (r - p) - 1
            tokens.append(min(ratio * advantage, clipped * advantage) - beta * kl)
        responses.append(tokens)
    if normalization == "token":
        flat = [value for tokens in responses for value in tokens]
        return -sum(flat) / len(flat)
    if normalization == "response":
        return -sum(sum(tokens) / len(tokens) for tokens in responses) / len(responses)
    return -sum(sum(tokens) / constant for tokens in responses) / len(responses)


@pytest.mark.parametrize("normalization", ["token", "response", "constant"])
@pytest.mark.parametrize(("low", "high", "beta"), [(0.2, 0.2, 0.0), (0.2, 0.28, 0.01), (10.0, 10.0, 0.001)])
def test_the_loss_is_equation_1(normalization: str, low: float, high: float, beta: float) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [3, 1, 7, 4]
    draws = [[torch.randn(n, generator=generator) * 0.5 - 1 for n in lengths] for _ in range(3)]
    advantages = [1.5, -0.5, -1.0, 0.25]
    ours, old, ref = (torch.cat(parts).double() for parts in draws)
    weights = token_weights(lengths, normalization, sum(lengths), len(lengths), 10)  # type: ignore[arg-type]
    per_token = torch.repeat_interleave(torch.tensor(advantages), torch.tensor(lengths)).double()
    result = policy_loss(ours, old, per_token, weights.double(), low, high, ref, beta)
    slow = slow_objective(
        *([t.tolist() for t in parts] for parts in draws), advantages, low, high, beta, normalization, 10
    )
    assert float(result.loss) == pytest.approx(slow, rel=1e-5)


def test_on_policy_the_gradient_is_the_advantage_and_nothing_clips() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    advantages = torch.tensor([2.0, -1.0, 0.0])
    result = policy_loss(logprobs, logprobs.detach(), advantages, torch.full((3,), 1 / 3))
    result.loss.backward()
    assert logprobs.grad is not None
    assert torch.allclose(logprobs.grad, -advantages / 3)
    assert float(result.clip_low) == float(result.clip_high) == 0.0


def test_clipping_stops_the_gradient_on_the_far_side_only() -> None:
    old = torch.zeros(4)
    logprobs = torch.tensor([1.0, 1.0, -1.0, -1.0], requires_grad=True)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    result = policy_loss(logprobs, old, advantages, torch.ones(4), 0.2, 0.2)
    result.loss.backward()
    assert logprobs.grad is not None
    assert [bool(g) for g in logprobs.grad] == [False, True, True, False]
    assert float(result.clip_high) == float(result.clip_low) == 0.25


@given(st.floats(-5, 0), st.floats(-5, 0))
def test_the_divergence_is_never_negative(ours: float, reference: float) -> None:
    value = float(k3_divergence(torch.tensor([ours]).double(), torch.tensor([reference]).double()))
    assert value >= -1e-12


def test_weights_add_up_over_processes() -> None:
    whole = token_weights([2, 5, 3], "response", 10, 3, 8)
    parts = torch.cat([token_weights([2], "response", 10, 3, 8), token_weights([5, 3], "response", 10, 3, 8)])
    assert torch.equal(whole, parts)
    assert float(whole.sum()) == pytest.approx(1.0)
