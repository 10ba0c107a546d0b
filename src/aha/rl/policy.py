"""The policy's update on graded groups: forward passes with shared prompts, the loss, one optimizer step."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aha.models.language_model import HiddenStates, LanguageModel
from aha.models.layouts import PromptGroup, SharedPrefix
from aha.models.lora import adapters_off
from aha.models.lora_linear import adapted_layers
from aha.models.moe import SampledExperts
from aha.models.sharded_tensors import local
from aha.rl.config import LossConfig
from aha.rl.loss import importance_weights, policy_loss, token_weights
from aha.training.distributed import Distributed
from aha.training.logprobs import chunked_logprobs
from aha.training.optimizer import OptimizerConfig
from aha.training.parallel import ParallelConfig
from aha.training.prediction import Predicted, evenly_spread, prediction_loss
from aha.training.sharding import dummy_pass, shard
from aha.training.update import PassReport, Update
from aha.types import FinishReason, Rollout, RolloutGroup

DATA_PARALLEL = ParallelConfig()

MEANS = ("kl", "clip_low", "clip_high", "entropy", "gap", "importance")
SUMS = ("loss", "balance_loss", *MEANS, "tokens", "differing", "compared")
"""What is summed over micro-batches and processes: the means weighted by tokens."""


def trainable(rollout: Rollout, config: LossConfig) -> bool:
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
    """The GRPO step on a policy, and its reference. With adapters the reference is the model without them.

    Args:
        model: the policy, whole. Its prediction modules learn beside it; with adapters they are left as they are.
        config: the objective.
        optimizer: rates and schedule.
        total_steps: of the schedule.
        distributed: the processes that share a batch.
        parallel: how policy and reference are spread over them.
        temperature: of the rollouts and of their log-probabilities, and so of the policy that is trained.
        keep_routing: compute with the experts that the sampler reported, instead of comparing with them alone.
    """

    def __init__(
        self,
        model: LanguageModel,
        config: LossConfig,
        optimizer: OptimizerConfig,
        total_steps: int,
        distributed: Distributed,
        parallel: ParallelConfig = DATA_PARALLEL,
        temperature: float = 1.0,
        keep_routing: bool = False,
    ) -> None:
        self.model, self.config, self.distributed, self.parallel = model, config, distributed, parallel
        self.temperature, self.keep_routing = temperature, keep_routing
        has_adapters = any(adapted_layers(model))
        self.reference: LanguageModel | None = None
        if config.kl_beta and not has_adapters:
            self.reference = shard(copy.deepcopy(model).requires_grad_(False), parallel, distributed)
        trains_mtp = bool(model.mtp) and config.mtp_share > 0 and not has_adapters
        self.update = Update(
            model,
            optimizer,
            total_steps,
            distributed,
            parallel,
            sums=(*SUMS, "mtp_loss") if trains_mtp else SUMS,
            bias_update_rate=0.0 if has_adapters else config.bias_update_rate,
            prediction_modules="beside" if trains_mtp else "frozen",
        )

    @torch.no_grad()
    def reset_reference(self) -> None:
        """Makes the current policy the reference (R1-Zero: every 400 steps)."""
        if self.reference is not None:
            current = self.model.state_dict()
            for name, tensor in self.reference.state_dict().items():
                local(tensor).copy_(local(current[name]))

    def step(self, groups: Sequence[RolloutGroup], limit: int, on_policy: bool, last: bool = True) -> dict[str, Any]:
        """One update on this process's groups (possibly none), together with all other processes.

        Args:
            groups: with rewards and advantages.
            limit: of completions in this rollout, in tokens: the constant of "constant" normalization.
            on_policy: the policy has not changed since it sampled them: the ratio is 1, and the sampler's
                log-probabilities only weigh tokens, where there is an `importance_cap`. Later updates compare with the
                sampler itself, so that their ratio corrects what sampler and trainer disagree about.
            last: the next update is on a new rollout, so the routers may be balanced.

        Returns:
            Metrics of the update, over all processes: `kl` with a reference only, and the distance from the sampler
            only where sampler and policy should agree (on-policy).
        """
        kept = [self._kept(group) for group in groups]
        counted = [rollout for group in kept for rollout in group.rollouts]
        totals = torch.tensor([sum(r.sampled_tokens for r in counted), len(counted)], dtype=torch.int64)
        self.distributed.all_reduce_sum([totals])
        tokens, responses = totals.tolist()
        active = [group for group in map(self._with_gradient, kept) if group.rollouts]
        gaps, predicted = [0.0], self._predicted(active)
        stepped = self.update.step(
            list(micro_batches(active, self.config.micro_tokens)),
            lambda batch: self._backward(batch, tokens, responses, limit, on_policy, gaps, predicted),
            self._matching_backward,
            balance_routers=last,
        )
        metrics = self._metrics(stepped.sums, tokens) | stepped.metrics
        if on_policy:
            metrics["sampling/sampling_logp_difference/mean"] = stepped.sums["gap"] / max(1.0, stepped.sums["tokens"])
            metrics["sampling/sampling_logp_difference/max"] = max(self.distributed.all_gather_object(max(gaps)))
            if stepped.sums["compared"]:
                metrics["sampling/routing_difference"] = stepped.sums["differing"] / stepped.sums["compared"]
        return metrics

    def _matching_backward(self) -> None:
        """The passes of a micro-batch without data, beside other processes' micro-batches."""
        loss = dummy_pass(self.model, self.update.trains_mtp)
        if self.config.kl_beta:
            with torch.no_grad(), self._as_reference() as reference:
                dummy_pass(reference)
        loss.backward()

    def _kept(self, group: RolloutGroup) -> RolloutGroup:
        rollouts = [rollout for rollout in group.rollouts if trainable(rollout, self.config)]
        return replace(group, rollouts=rollouts)

    def _with_gradient(self, group: RolloutGroup) -> RolloutGroup:
        """Drops what cannot move the weights; sorts by length, which makes attention batches long."""
        rollouts = [r for r in group.rollouts if r.advantage != 0.0 or self.config.kl_beta]
        rollouts.sort(key=lambda rollout: len(rollout.completion_token_ids))
        return replace(group, rollouts=rollouts)

    def _backward(
        self,
        batch: list[RolloutGroup],
        total_tokens: int,
        total_responses: int,
        limit: int,
        on_policy: bool,
        gaps: list[float],
        predicted: Predicted,
    ) -> PassReport:
        """Adds a micro-batch's gradient, and its largest distance from the sampler to `gaps`."""
        device = self.distributed.device
        token_ids_N = torch.tensor([t for group in batch for t in _flat(group)], device=device)
        layout = SharedPrefix([_lengths(group) for group in batch], device)
        rollouts = [rollout for group in batch for rollout in group.rollouts]
        completion_N, predicts_N = _trained(layout, rollouts)
        targets_M = token_ids_N[completion_N]
        experts_LNA = sampled_experts(batch, device)
        hidden = self.model(
            token_ids_N, layout, None if experts_LNA is None else SampledExperts(experts_LNA, self.keep_routing)
        )
        # Before the reference's pass, as in `_matching_backward`: processes that share experts run the same passes.
        mtp_loss = self._mtp_loss(hidden, token_ids_N, layout, completion_N, rollouts, predicted)
        logprobs_M, entropy_M = chunked_logprobs(
            hidden.hidden_ND[predicts_N], self.model.head_weight, targets_M, temperature=self.temperature
        )
        sampled_M = torch.tensor([p for r in rollouts for p in _sampled(r)], device=device)
        old_M = logprobs_M.detach() if on_policy else sampled_M
        lengths = [r.sampled_tokens for r in rollouts]
        advantages_M = torch.repeat_interleave(
            torch.tensor([r.advantage for r in rollouts], device=device), torch.tensor(lengths, device=device)
        )
        weights_M = token_weights(lengths, self.config.normalization, total_tokens, total_responses, limit).to(device)
        importance_M = importance_weights(old_M, sampled_M, self.config.importance_cap or 0.0)
        result = policy_loss(
            logprobs_M,
            old_M,
            advantages_M,
            weights_M * importance_M,
            self.config.clip_low,
            self.config.clip_high,
            self._reference_logprobs(token_ids_N, layout, predicts_N, targets_M),
            self.config.kl_beta,
        )
        balance = result.loss.new_zeros(())
        if hidden.balance_loss is not None:
            balance = hidden.balance_loss * (len(targets_M) / max(1, total_tokens))
        (result.loss + balance + mtp_loss).backward()
        gaps_M = (logprobs_M.detach() - sampled_M).abs()
        gaps.append(float(gaps_M.max()))
        means = result.kl, result.clip_low, result.clip_high, entropy_M.mean(), gaps_M.mean(), importance_M.mean()
        sums: dict[str, Tensor | float] = {
            name: mean.double() * len(targets_M) for name, mean in zip(MEANS, means, strict=True)
        }
        sums |= {"loss": result.loss.detach(), "balance_loss": balance.detach(), "mtp_loss": mtp_loss.detach()}
        sums |= {"tokens": float(len(targets_M)), "differing": 0.0, "compared": 0.0}
        if experts_LNA is not None and hidden.differing is not None:
            sums |= {"differing": hidden.differing.sum(), "compared": (experts_LNA[..., 0] >= 0).sum()}
        return PassReport(sums, hidden.router_counts)

    def _mtp_loss(
        self,
        hidden: HiddenStates,
        token_ids_N: Tensor,
        layout: SharedPrefix,
        completion_N: Tensor,
        rollouts: Sequence[Rollout],
        predicted: Predicted,
    ) -> Tensor:
        """The prediction modules' share of their mean loss over the tokens that they learn from."""
        chosen = predicted.among(rollouts)
        if not self.update.trains_mtp or not (chosen or self.parallel.spreads):
            return hidden.hidden_ND.new_zeros((), dtype=torch.float32)
        trained_N = torch.zeros_like(token_ids_N, dtype=torch.bool).index_fill_(0, completion_N, True)
        return prediction_loss(self.model, hidden, token_ids_N, layout, trained_N, chosen) / max(1, predicted.tokens)

    def _predicted(self, groups: Sequence[RolloutGroup]) -> Predicted:
        """The completions that the prediction modules learn from: some of each group."""
        share = self.config.mtp_share
        learned = [
            group.rollouts[place]
            for group in groups
            for place in (evenly_spread(len(group.rollouts), share) if self.update.trains_mtp else ())
        ]
        tokens = torch.tensor([sum(rollout.sampled_tokens for rollout in learned)])
        self.distributed.all_reduce_sum([tokens])
        return Predicted(frozenset(map(id, learned)), int(tokens))

    @torch.no_grad()
    def _reference_logprobs(
        self, token_ids_N: Tensor, layout: SharedPrefix, predicts_N: Tensor, targets_M: Tensor
    ) -> Tensor | None:
        if not self.config.kl_beta:
            return None
        with self._as_reference() as reference:
            hidden = reference(token_ids_N, layout)
        predicting_MD, temperature = hidden.hidden_ND[predicts_N], self.temperature
        return chunked_logprobs(predicting_MD, reference.head_weight, targets_M, False, temperature)[0]

    def _as_reference(self) -> AbstractContextManager[LanguageModel]:
        """The model that the policy is held close to."""
        return adapters_off(self.model) if self.reference is None else nullcontext(self.reference)

    def _metrics(self, sums: dict[str, float], counted: int) -> dict[str, Any]:
        """Metrics under TRL's names.

        Args:
            sums: over all processes, by the names in `SUMS`.
            counted: tokens of all completions that have a place in the loss. Those without advantage are not computed
                where there is no reference, and are certainly not clipped.
        """
        tokens = sums["tokens"]
        low, high = (sums[name] / max(1, counted) for name in ("clip_low", "clip_high"))
        kl, entropy, importance = (sums[name] / max(1.0, tokens) for name in ("kl", "entropy", "importance"))
        metrics = {
            "loss": sums["loss"],
            "balance_loss": sums["balance_loss"],
            "clip_ratio/low_mean": low,
            "clip_ratio/high_mean": high,
            "clip_ratio/region_mean": low + high,  # a token has one advantage, and so one bound
            "entropy/trained_tokens": entropy,
            "sampling/importance_sampling_ratio/mean": importance,
            "tokens_trained": tokens,
        }
        if self.update.trains_mtp:
            metrics["mtp_loss"] = sums["mtp_loss"]
        return metrics | {"kl": kl} if self.config.kl_beta else metrics


def sampled_experts(batch: Sequence[RolloutGroup], device: torch.device) -> Tensor | None:
    """The experts that the sampler reported for the tokens of a layout of these groups, [L, N, A].

    -1 for the last token of each completion, which it has not seen. None where it reported nothing.
    """
    rows = []
    for group in batch:
        if group.prompt_experts is None:
            return None
        rows.append(group.prompt_experts)
        unseen = np.full_like(group.prompt_experts[:1], -1)
        for rollout in group.rollouts:
            assert rollout.experts is not None
            rows += [rollout.experts, unseen]
    return torch.from_numpy(np.concatenate(rows)).to(device, torch.int64).transpose(0, 1)


def _trained(layout: SharedPrefix, rollouts: Sequence[Rollout]) -> tuple[Tensor, Tensor]:
    """Where in N the tokens are that the policy sampled, and where each is predicted: forced tokens carry no loss."""
    if not any(rollout.forced for rollout in rollouts):
        return layout.completion_N, layout.predicts_N
    sampled_M = [place not in one.forced for one in rollouts for place in range(len(one.completion_token_ids))]
    kept_M = torch.tensor(sampled_M, device=layout.completion_N.device)
    return layout.completion_N[kept_M], layout.predicts_N[kept_M]


def _sampled(rollout: Rollout) -> tuple[float, ...]:
    """The sampler's log-probabilities, without the places of forced tokens."""
    return rollout.old_logprobs[: rollout.forced.start] + rollout.old_logprobs[rollout.forced.stop :]


def _lengths(group: RolloutGroup) -> PromptGroup:
    return PromptGroup(len(group.prompt_token_ids), [len(one.completion_token_ids) for one in group.rollouts])


def _flat(group: RolloutGroup) -> Iterator[int]:
    yield from group.prompt_token_ids
    for rollout in group.rollouts:
        yield from rollout.completion_token_ids
