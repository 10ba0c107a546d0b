"""The policy's update on graded groups: forward passes with shared prompts, the loss, one optimizer step."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aha.models.language_model import LanguageModel
from aha.models.layouts import PromptGroup, SharedPrefix
from aha.models.lora import adapters_off
from aha.models.moe import max_violation, update_router_bias
from aha.models.sharded_tensors import local
from aha.rl.config import GRPOConfig
from aha.rl.loss import importance_weights, policy_loss, token_weights
from aha.training.distributed import Distributed
from aha.training.logprobs import chunked_logprobs
from aha.training.optimizer import Optimizer
from aha.training.parallel import ParallelConfig
from aha.training.sharding import dummy_pass, dummy_passes, shard
from aha.types import FinishReason, Rollout, RolloutGroup

DATA_PARALLEL = ParallelConfig()

SUMS = ("loss", "kl", "clip_low", "clip_high", "entropy", "gap", "importance", "tokens")
"""What is summed over micro-batches and processes: all but the loss and the tokens are weighted by tokens."""


def trainable(rollout: Rollout, config: GRPOConfig) -> bool:
    """Whether a rollout has a place in the loss at all."""
    if rollout.reward is None or not rollout.completion_token_ids:
        return False
    return not (config.mask_truncated and rollout.finish_reason is FinishReason.LENGTH)


def micro_batches(groups: Sequence[RolloutGroup], limit: int) -> Iterator[list[RolloutGroup]]:
    """Cuts groups into lists of at most `limit` tokens; a group stays whole where it fits.

    A completion that is longer than the limit with its prompt is alone.
    """
    batch: list[RolloutGroup] = []
    size = 0
    for part in (part for group in groups for part in _fitting(group, limit)):
        tokens = len(part.prompt_token_ids) + sum(len(rollout.completion_token_ids) for rollout in part.rollouts)
        if batch and size + tokens > limit:
            yield batch
            batch, size = [], 0
        batch.append(part)
        size += tokens
    if batch:
        yield batch


def _fitting(group: RolloutGroup, limit: int) -> Iterator[RolloutGroup]:
    """A group in as few parts as fit, each with the prompt: what a token weighs does not depend on its part."""
    part: list[Rollout] = []
    size = len(group.prompt_token_ids)
    for rollout in group.rollouts:
        tokens = len(rollout.completion_token_ids)
        if part and size + tokens > limit:
            yield replace(group, rollouts=part)
            part, size = [], len(group.prompt_token_ids)
        part.append(rollout)
        size += tokens
    yield replace(group, rollouts=part)


class PolicyUpdate:
    """Owns the optimizer and the reference of a policy. With adapters the reference is the model without them.

    Args:
        model: the policy, whole. Its multi-token prediction modules are left as they are.
        config: of the algorithm.
        distributed: the processes that share a batch.
        parallel: how policy and reference are spread over them.
    """

    def __init__(
        self,
        model: LanguageModel,
        config: GRPOConfig,
        distributed: Distributed,
        parallel: ParallelConfig = DATA_PARALLEL,
    ) -> None:
        self.model, self.config, self.distributed, self.parallel = model, config, distributed, parallel
        for parameter in model.mtp.parameters():
            parameter.requires_grad_(False)
        self.reference: LanguageModel | None = None
        if config.kl_beta and config.lora is None:
            self.reference = shard(copy.deepcopy(model).requires_grad_(False), parallel, distributed)
        shard(model, parallel, distributed)
        self.optimizer = Optimizer(model, config.optimizer, config.steps * config.minibatches, distributed)

    @torch.no_grad()
    def reset_reference(self) -> None:
        """Makes the current policy the reference (R1-Zero: every 400 steps)."""
        if self.reference is not None:
            current = self.model.state_dict()
            for name, tensor in self.reference.state_dict().items():
                local(tensor).copy_(local(current[name]))

    def step(self, groups: Sequence[RolloutGroup], on_policy: bool) -> dict[str, Any]:
        """One update on this process's groups (possibly none), together with all other processes.

        Args:
            groups: with rewards and advantages.
            on_policy: the policy has not changed since it sampled them: the ratio is 1 and the sampler's
                log-probabilities are only compared, not used.

        Returns:
            Metrics of the update, over all processes: `kl` with a reference only, and the distance from the sampler
            only where sampler and policy should agree (on-policy, at temperature 1).
        """
        kept = [self._kept(group) for group in groups]
        counted = [rollout for group in kept for rollout in group.rollouts]
        totals = torch.tensor([sum(len(r.completion_token_ids) for r in counted), len(counted)], dtype=torch.int64)
        self.distributed.all_reduce_sum([totals])
        self.optimizer.zero_grad()
        sums = torch.zeros(len(SUMS), dtype=torch.float64)
        config = self.model.config
        experts = torch.zeros(config.num_moe_layers, config.num_experts, dtype=torch.int64)
        largest_gap = 0.0
        active = [group for group in map(self._with_gradient, kept) if group.rollouts]
        batches = list(micro_batches(active, self.config.micro_tokens))
        idle = dummy_passes(len(batches), self.parallel, self.distributed)
        for batch in batches:
            micro_sums, micro_gap, counts = self._backward(batch, int(totals[0]), int(totals[1]), on_policy)
            sums += micro_sums
            largest_gap = max(largest_gap, micro_gap)
            experts += counts.cpu()
        for _ in range(idle):
            self._idle()
        comparable = on_policy and self.config.temperature == 1.0
        return self._apply(sums, experts, int(totals[0]), largest_gap if comparable else None)

    def _idle(self) -> None:
        """The passes of a micro-batch, beside other processes' micro-batches."""
        loss = dummy_pass(self.model)
        if self.config.kl_beta:
            with torch.no_grad(), self._as_reference() as reference:
                dummy_pass(reference)
        loss.backward()

    def _kept(self, group: RolloutGroup) -> RolloutGroup:
        rollouts = [rollout for rollout in group.rollouts if trainable(rollout, self.config)]
        return RolloutGroup(group.problem, group.prompt_token_ids, rollouts)

    def _with_gradient(self, group: RolloutGroup) -> RolloutGroup:
        """Drops what cannot move the weights; sorts by length, which makes attention batches long."""
        rollouts = [r for r in group.rollouts if r.advantage != 0.0 or self.config.kl_beta]
        rollouts.sort(key=lambda rollout: len(rollout.completion_token_ids))
        return RolloutGroup(group.problem, group.prompt_token_ids, rollouts)

    def _backward(
        self, batch: list[RolloutGroup], total_tokens: int, total_responses: int, on_policy: bool
    ) -> tuple[Tensor, float, Tensor]:
        """Adds a micro-batch's gradient; returns its sums, its largest distance from the sampler, expert counts."""
        device = self.distributed.device
        ids = [t for group in batch for t in _flat(group)]
        token_ids_N = torch.tensor(ids, device=device)
        lengths = [[len(r.completion_token_ids) for r in group.rollouts] for group in batch]
        layout = SharedPrefix(
            [PromptGroup(len(g.prompt_token_ids), own) for g, own in zip(batch, lengths, strict=True)], device
        )
        rollouts = [rollout for group in batch for rollout in group.rollouts]
        flat_lengths = layout.completion_lengths
        targets_M = token_ids_N[layout.completion_N]
        hidden = self.model(token_ids_N, layout)
        logprobs_M, entropy_M = chunked_logprobs(
            self._tempered(hidden.hidden_ND[layout.predicts_N]), self.model.head_weight, targets_M, entropy=True
        )
        sampled_M = torch.tensor([p for r in rollouts for p in r.old_logprobs], device=device)
        old_M = logprobs_M.detach() if on_policy else sampled_M
        advantages_M = torch.repeat_interleave(
            torch.tensor([r.advantage for r in rollouts], device=device), torch.tensor(flat_lengths, device=device)
        )
        weights_M = token_weights(
            flat_lengths,
            self.config.normalization,
            total_tokens,
            total_responses,
            self.config.lengths[-1].max_completion_tokens,
        ).to(device)
        importance_M = importance_weights(old_M, sampled_M, self.config.importance_cap)
        weights_M = weights_M * importance_M
        result = policy_loss(
            logprobs_M,
            old_M,
            advantages_M,
            weights_M,
            self.config.clip_low,
            self.config.clip_high,
            self._reference_logprobs(token_ids_N, layout, targets_M),
            self.config.kl_beta,
        )
        loss = result.loss
        if hidden.balance_loss is not None:
            loss = loss + hidden.balance_loss * (len(targets_M) / max(1, total_tokens))
        loss.backward()
        gaps_M = (logprobs_M.detach() - sampled_M).abs()
        means = [
            result.kl,
            result.clip_low,
            result.clip_high,
            entropy_M.mean(),
            gaps_M.mean(),
            importance_M.mean(),
        ]
        weighted = [float(mean) * len(targets_M) for mean in means]
        sums = torch.tensor([float(result.loss.detach()), *weighted, float(len(targets_M))], dtype=torch.float64)
        return sums, float(gaps_M.max()), hidden.router_counts

    @torch.no_grad()
    def _reference_logprobs(self, token_ids_N: Tensor, layout: SharedPrefix, targets_M: Tensor) -> Tensor | None:
        if not self.config.kl_beta:
            return None
        with self._as_reference() as reference:
            hidden = reference(token_ids_N, layout)
        predicting_MD = self._tempered(hidden.hidden_ND[layout.predicts_N])
        return chunked_logprobs(predicting_MD, reference.head_weight, targets_M, entropy=False)[0]

    def _as_reference(self) -> AbstractContextManager[LanguageModel]:
        """The model that the policy is held close to."""
        return adapters_off(self.model) if self.reference is None else nullcontext(self.reference)

    def _tempered(self, hidden_MD: Tensor) -> Tensor:
        """Hidden states whose logits are those of the temperature that samples: the policy is what generates."""
        return hidden_MD if self.config.temperature == 1.0 else hidden_MD / self.config.temperature

    def _apply(self, sums: Tensor, experts: Tensor, counted: int, largest_gap: float | None) -> dict[str, Any]:
        """Adds up over processes and moves the weights, if there is anything to move them.

        Args:
            sums: this process's, in the order of `SUMS`.
            experts: tokens that each expert got, [MoE layers, E].
            counted: tokens of all completions that have a place in the loss, in all processes. Those without advantage
                are not computed where there is no reference, and are certainly not clipped.
            largest_gap: between this process's log-probabilities and the sampler's; None where they need not agree.
        """
        self.optimizer.sum_gradients(self.distributed)
        self.distributed.all_reduce_sum([sums, experts])
        named = dict(zip(SUMS, sums.tolist(), strict=True))
        tokens = named["tokens"]
        low, high = (named[name] / max(1, counted) for name in ("clip_low", "clip_high"))
        norm, factor, updated = 0.0, 0.0, False
        if tokens:
            norm, factor, updated = self.optimizer.step()
            if updated and self.config.lora is None:
                routers = list(self.model.routers())[: len(experts)]
                update_router_bias(routers, experts, self.config.bias_update_rate)
        means = {name: named[name] / max(1.0, tokens) for name in ("kl", "entropy", "gap", "importance")}
        metrics = {
            "loss": named["loss"],
            "clip_ratio/low_mean": low,
            "clip_ratio/high_mean": high,
            "clip_ratio/region_mean": low + high,  # a token has one advantage, and so one bound
            "entropy/trained_tokens": means["entropy"],
            "sampling/importance_sampling_ratio/mean": means["importance"],
            "tokens_trained": tokens,
            "grad_norm": norm,
            "learning_rate": factor * self.config.optimizer.adam_lr,
            "max_vio": float(max_violation(experts).mean()) if tokens and experts.numel() else 0.0,
            "skipped": float(tokens > 0 and not updated),
        }
        if self.config.kl_beta:
            metrics["kl"] = means["kl"]
        if largest_gap is not None:
            metrics["sampling/sampling_logp_difference/mean"] = means["gap"]
            metrics["sampling/sampling_logp_difference/max"] = max(self.distributed.all_gather_object(largest_gap))
        if experts.numel():
            metrics["expert_load"] = experts.tolist()
        return metrics


def _flat(group: RolloutGroup) -> Iterator[int]:
    yield from group.prompt_token_ids
    for rollout in group.rollouts:
        yield from rollout.completion_token_ids
