"""The GRPO objective (R1 Eqs. 1-2) as pure functions of log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Normalization = Literal["token", "response", "constant"]
"""How token losses add up: over all tokens of the batch; mean per response, then over responses (R1 Eq. 1 as
DeepSeekMath prints it); or over a constant number of tokens per response (Dr. GRPO)."""


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """The loss and what is logged beside it (means over the tokens trained on)."""

    loss: Tensor
    kl: Tensor
    clip_low: Tensor
    """Share of tokens whose ratio was held at the lower bound."""
    clip_high: Tensor


def k3_divergence(logprobs: Float[Tensor, " N"], ref_logprobs: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """D_KL estimated per token as pi_ref/pi - log(pi_ref/pi) - 1 (R1 Eq. 2): unbiased and never negative."""
    log_ratio = ref_logprobs - logprobs
    return torch.exp(log_ratio) - log_ratio - 1.0


def clipped_surrogate(
    logprobs: Float[Tensor, " N"],
    old_logprobs: Float[Tensor, " N"],
    advantages: Float[Tensor, " N"],
    clip_low: float,
    clip_high: float,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """min(r A, clip(r, 1 - low, 1 + high) A) per token (R1 Eq. 1), and the ratio r."""
    ratio = torch.exp(logprobs - old_logprobs)
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return torch.minimum(ratio * advantages, clipped * advantages), ratio


def token_weights(
    lengths: list[int], normalization: Normalization, total_tokens: int, total_responses: int, constant: int
) -> Float[Tensor, " N"]:
    """The weight of each token's loss, so that the weighted sum over all processes is the mean that was asked for.

    Args:
        lengths: tokens per response in this process's batch, in order.
        normalization: which mean.
        total_tokens: tokens of the whole batch, all processes and accumulation steps together.
        total_responses: responses of the whole batch.
        constant: tokens per response for "constant", usually the completion limit.
    """
    if normalization == "token":
        weights = [1.0 / max(1, total_tokens)] * len(lengths)
    elif normalization == "response":
        weights = [1.0 / (max(1, length) * max(1, total_responses)) for length in lengths]
    else:
        weights = [1.0 / (constant * max(1, total_responses))] * len(lengths)
    return torch.repeat_interleave(torch.tensor(weights), torch.tensor(lengths, dtype=torch.long))


def policy_loss(
    logprobs: Float[Tensor, " N"],
    old_logprobs: Float[Tensor, " N"],
    advantages: Float[Tensor, " N"],
    weights: Float[Tensor, " N"],
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ref_logprobs: Float[Tensor, " N"] | None = None,
    kl_beta: float = 0.0,
) -> PolicyLoss:
    """The negative GRPO objective over completion tokens (R1 Eq. 1; the KL term is in the loss, not in the reward).

    Args:
        logprobs: under the policy, with gradient.
        old_logprobs: under the policy that sampled. On-policy, pass `logprobs.detach()`: the ratio is then 1.
        advantages: of the token's response.
        weights: from `token_weights`; 0 for tokens of masked samples.
        clip_low: lower clip range; the ratio stays above 1 - clip_low.
        clip_high: upper clip range.
        ref_logprobs: under the reference; needed when `kl_beta` is not 0.
        kl_beta: weight of the divergence from the reference.
    """
    surrogate, ratio = clipped_surrogate(logprobs, old_logprobs, advantages, clip_low, clip_high)
    loss = -(surrogate * weights).sum()
    kl = logprobs.new_zeros(())
    if ref_logprobs is not None:
        divergence = k3_divergence(logprobs, ref_logprobs)
        kl = divergence.detach().mean()
        if kl_beta:
            loss = loss + kl_beta * (divergence * weights).sum()
    low = ((ratio < 1.0 - clip_low) & (advantages < 0)).float().mean()
    high = ((ratio > 1.0 + clip_high) & (advantages > 0)).float().mean()
    return PolicyLoss(loss, kl, low.detach(), high.detach())


def importance_weights(trainer_M: Tensor, sampler_M: Tensor, cap: float) -> Tensor:
    """Truncated importance sampling: what each token's loss is multiplied by where another engine has sampled it.

    Args:
        trainer_M: log-probabilities under the trainer's weights at the time of sampling.
        sampler_M: those that the sampler reported.
        cap: largest weight; 0 corrects nothing.

    Returns:
        min(cap, p_trainer / p_sampler), without gradient; ones where cap is 0.
    """
    if not cap:
        return torch.ones_like(trainer_M)
    return (trainer_M.detach() - sampler_M).exp().clamp(max=cap)
