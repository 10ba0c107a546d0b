"""DeepSeekMoE: the router, its balance without an auxiliary loss, and the layer (V3 section 2.1.2, Eqs. 12-20)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.experts.layer import RoutedExperts
from aha.models.experts.products import sort_slots
from aha.models.layers import SwiGLU
from aha.models.layouts import Layout


@dataclass(slots=True)
class Routing:
    """Where each token goes."""

    scores: Tensor
    """Affinities s, float32 [N, E]."""
    chosen: Tensor
    """The experts that the router chooses, [N, A]."""
    indices: Tensor
    """The experts that compute: the chosen ones, or those that a sampler chose before."""
    gates: Tensor
    """Their weights in the sum, float32 [N, A]."""


class Router(nn.Module):
    """V3 Eqs. 13-16: sigmoid affinities, biased top-k within the best groups, gates from the unbiased affinities.

    Differs from the printed equations as the released code does: gates are multiplied by `routed_scaling_factor`,
    and 1e-20 guards their sum. Experts of other groups are masked with -inf (older copies use 0, which is wrong
    once biases make scores negative). Everything is in float32. With `topk_method` greedy or group_limited_greedy
    it is DeepSeek-V2's gate.
    """

    def __init__(self, config: DeepseekV3Config) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        bias = torch.zeros(config.n_routed_experts, dtype=torch.float32)
        self.register_buffer("e_score_correction_bias", bias if config.topk_method == "noaux_tc" else None)
        self.e_score_correction_bias: Tensor | None
        self.record: list[Tensor] | None = None
        """Where the choices are put down while somebody watches, [N, A] of each pass."""

    def forward(self, x_ND: Tensor, kept_NA: Tensor | None = None) -> Routing:
        """Scores every expert for every token and chooses; `kept_NA` as in `route`."""
        return self.route(F.linear(x_ND.float(), self.weight.float()), kept_NA)

    def route(self, logits_NE: Tensor, kept_NA: Tensor | None = None) -> Routing:
        """Chooses experts and their gates from the logits u^T e (V3 Eqs. 13-16).

        Args:
            logits_NE: of every token and expert.
            kept_NA: experts that compute instead of the chosen ones; -1 for tokens whose own choice stands. Their gates
                are made of the logits all the same.
        """
        config = self.config
        scores_NE = logits_NE.sigmoid() if config.scoring_func == "sigmoid" else logits_NE.softmax(-1)
        chosen_NA = indices_NA = self.choose(scores_NE.detach())
        if self.record is not None:
            self.record.append(chosen_NA)
        if kept_NA is not None:
            indices_NA = torch.where(kept_NA >= 0, kept_NA, chosen_NA)
        gates_NA = scores_NE.gather(1, indices_NA)
        if config.norm_topk_prob:
            gates_NA = gates_NA / (gates_NA.sum(-1, keepdim=True) + 1e-20)
        if config.routed_scaling_factor != 1:
            gates_NA = gates_NA * config.routed_scaling_factor
        return Routing(scores_NE, chosen_NA, indices_NA, gates_NA)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves and casts the weights, but leaves the biases in float32: steps of 0.001 do not exist in bfloat16."""
        bias = self.e_score_correction_bias
        super()._apply(fn, recurse)
        if bias is not None and self.e_score_correction_bias is not None:
            moved = self.e_score_correction_bias
            self.e_score_correction_bias = bias.to(moved.device) if bias.device.type != "meta" else moved.float()
        return self

    def choose(self, scores_NE: Tensor) -> Tensor:
        """The A experts of each token.

        V3 Eq. 16, limited to `topk_group` groups (section 2.1.2, node-limited routing).
        """
        config = self.config
        choice_NE = scores_NE if self.e_score_correction_bias is None else scores_NE + self.e_score_correction_bias
        if config.n_group > 1 and config.topk_method != "greedy":
            choice_NE = self._mask_groups(choice_NE)
        return choice_NE.topk(config.num_experts_per_tok, dim=-1, sorted=False).indices

    def _mask_groups(self, choice_NE: Tensor) -> Tensor:
        """Leaves the best groups by the sum of their two best scores (V3: K_r / M = 2), or by the best (V2)."""
        config = self.config
        choice_NGX = choice_NE.unflatten(-1, (config.n_group, -1))
        best = 2 if config.topk_method == "noaux_tc" else 1
        group_scores_NG = choice_NGX.topk(best, dim=-1, sorted=False).values.sum(-1)
        groups = group_scores_NG.topk(config.topk_group, dim=-1, sorted=False).indices
        barred_NG = torch.ones_like(group_scores_NG, dtype=torch.bool).scatter_(1, groups, False)
        return choice_NGX.masked_fill(barred_NG.unsqueeze(-1), float("-inf")).flatten(-2)


def sequence_balance_loss(
    scores_NE: Tensor, layout: Layout, num_experts_per_tok: int, per_sequence: bool = True
) -> Tensor:
    """V3 Eqs. 17-20 without alpha: sum_i f_i P_i of each sequence, averaged over the sequences.

    f counts the top-k of the unbiased scores, as printed. A layout's segments are the sequences: under SharedPrefix
    each prompt and each completion counts as one. With `per_sequence` False the whole batch is one (V3 section
    4.5.3).
    """
    num_experts = scores_NE.shape[-1]
    top_NA = scores_NE.detach().topk(num_experts_per_tok, dim=-1, sorted=False).indices
    chosen_NE = torch.zeros_like(scores_NE).scatter_(1, top_NA, 1.0)
    share_NE = scores_NE / scores_NE.sum(-1, keepdim=True)
    if per_sequence:
        chosen_SE, share_SE = layout.segment_mean(chosen_NE), layout.segment_mean(share_NE)
    else:
        chosen_SE, share_SE = chosen_NE.mean(0, keepdim=True), share_NE.mean(0, keepdim=True)
    return (chosen_SE * share_SE).sum(-1).mean() * (num_experts / num_experts_per_tok)


class SampledExperts(NamedTuple):
    """The experts that a sampler chose for the tokens of a pass."""

    indices_LNA: Tensor  # noqa: N815
    """Of each mixture-of-experts layer and token; -1 for tokens of which nothing is known."""
    replays: bool
    """Whether they compute (routing replay, arXiv 2510.11370; V3.2's Keep Routing), or are only compared with."""


def differing_tokens(chosen_NA: Tensor, sampled_NA: Tensor) -> Tensor:
    """Tokens with another set of experts than was sampled with, among those of which that is known: a count."""
    differs_N = (chosen_NA.sort(-1).values != sampled_NA.sort(-1).values).any(-1)
    return (differs_N & (sampled_NA >= 0).all(-1)).sum()


@dataclass(slots=True)
class RouterStats:
    """What the mixture-of-experts layers of one pass report, in their order."""

    sampled: Mapping[Router, Tensor] = field(default_factory=dict)
    """A sampler's experts, [N, A] by router; of none where nothing is known."""
    replays: bool = False
    """Whether these compute."""
    differing: list[Tensor] = field(default_factory=list)
    """Tokens that each router would have sent elsewhere than the sampler's did."""
    counts: list[Tensor] = field(default_factory=list)
    """Tokens each expert got, int64 [E]."""
    losses: list[Tensor] = field(default_factory=list)
    """V3 Eqs. 17-20 without alpha; none outside training or where alpha is 0."""
    complete: bool = False
    """Whether the pass has ended: a layer that activation checkpointing computes again reports nothing more."""

    def kept(self, router: Router) -> Tensor | None:
        """The experts that are to compute behind a router, if they are not its own choice."""
        return self.sampled.get(router) if self.replays else None

    def add(self, router: Router, routing: Routing, counts_E: Tensor, loss: Tensor | None) -> None:
        """Takes a layer's report."""
        if self.complete:
            return
        self.counts.append(counts_E)
        if router in self.sampled:
            self.differing.append(differing_tokens(routing.chosen, self.sampled[router]))
        if loss is not None:
            self.losses.append(loss)

    def total_loss(self, alpha: float) -> Tensor | None:
        """Sum over layers of alpha times the balance loss, or None where there is none."""
        return torch.stack(self.losses).sum() * alpha if self.losses else None


class DeepseekMoE(nn.Module):
    """Shared experts for every token, plus the gated sum of the chosen routed ones (V3 Eq. 12).

    The residual is outside.
    """

    def __init__(self, config: DeepseekV3Config) -> None:
        super().__init__()
        self.config = config
        self.gate = Router(config)
        self.experts = RoutedExperts(config)
        width = config.moe_intermediate_size * config.n_shared_experts
        self.shared_experts = SwiGLU(config.hidden_size, width) if width else None

    def forward(self, x_ND: Tensor, layout: Layout, stats: RouterStats) -> Tensor:
        """Routes and computes every token, none is dropped; the router reports to `stats`."""
        config = self.config
        routing = self.gate(x_ND, stats.kept(self.gate))
        slots = sort_slots(routing.indices, config.n_routed_experts)
        y_ND = self.experts(x_ND, routing.gates, slots)
        if self.shared_experts is not None:
            y_ND = y_ND + self.shared_experts(x_ND)
        loss = None
        if self.training and config.aux_loss_alpha > 0 and torch.is_grad_enabled():
            loss = sequence_balance_loss(routing.scores, layout, config.num_experts_per_tok, config.seq_aux)
        stats.add(self.gate, routing, slots.counts, loss)
        return y_ND

    def tokenwise(self, x_ND: Tensor, fixed_shapes: bool = False) -> Tensor:
        """The tokens only, for inference: no sequences, no balance loss."""
        routing = self.gate(x_ND)
        if fixed_shapes:
            y_ND = self.experts.forward_fixed(x_ND, routing.gates, routing.indices)
        else:
            y_ND = self.experts(x_ND, routing.gates, sort_slots(routing.indices, self.config.n_routed_experts))
        return y_ND if self.shared_experts is None else y_ND + self.shared_experts(x_ND)


@torch.no_grad()
def update_router_bias(routers: Iterable[Router], counts_LE: Tensor, rate: float) -> None:
    """The auxiliary-loss-free balance rule, once after each optimizer step (V3 2.1.2; Alg. 1 of arXiv 2408.15664).

    b_i += rate * sign(mean load - load_i), from the loads of the whole batch: sum the counts over micro-batches and
    data-parallel ranks first. V3 uses 0.001, and 0 for the last 500B tokens.
    """
    for router, counts_E in zip(routers, counts_LE, strict=True):
        bias_E = router.e_score_correction_bias
        if bias_E is not None:
            load_E = counts_E.to(bias_E.device, torch.float64)
            bias_E += rate * (load_E.mean() - load_E).sign().to(bias_E.dtype)


def max_violation(counts_LE: Tensor) -> Tensor:
    """MaxVio of each layer: (max load - mean load) / mean load (arXiv 2408.15664). 0 is perfect balance."""
    load = counts_LE.double()
    mean = load.mean(-1)
    return ((load.amax(-1) - mean) / mean.clamp(min=1e-12)).float()
