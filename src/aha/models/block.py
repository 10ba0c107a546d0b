"""One layer of the model: attention, then a dense or a mixture-of-experts feed-forward, each around a residual."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aha.models.config import DeepseekV3Config
from aha.models.layers import RMSNorm, SwiGLU
from aha.models.layouts import Layout
from aha.models.mla import MultiHeadLatentAttention
from aha.models.moe import DeepseekMoE


@dataclass(slots=True)
class RouterStats:
    """What the mixture-of-experts layers of one pass report."""

    counts: list[Tensor]
    losses: list[Tensor]

    def total_loss(self, alpha: float) -> Tensor | None:
        """Sum over layers of alpha times the balance loss, or None where there is none."""
        return torch.stack(self.losses).sum() * alpha if self.losses else None


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)), the latter dense or mixture of experts."""

    def __init__(self, config: DeepseekV3Config, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = MultiHeadLatentAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        dense = index < config.first_k_dense_replace
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size) if dense else DeepseekMoE(config)

    def forward(
        self, x_ND: Tensor, layout: Layout, cis_NR: Tensor, stats: RouterStats, entries_NC: Tensor | None = None
    ) -> Tensor:
        """One layer over every token. Appends to `stats`; fills `entries_NC` for the cache where given."""
        x_ND = x_ND + self.self_attn(self.input_layernorm(x_ND), layout, cis_NR, entries_NC)
        normed_ND = self.post_attention_layernorm(x_ND)
        if isinstance(self.mlp, SwiGLU):
            return x_ND + self.mlp(normed_ND)
        out = self.mlp(normed_ND, layout)
        stats.counts.append(out.counts)
        if out.balance_loss is not None:
            stats.losses.append(out.balance_loss)
        return x_ND + out.y
