"""One layer of DeepSeek-V3: attention, then a dense or a mixture-of-experts feed-forward, each around a residual."""

from __future__ import annotations

from torch import Tensor, nn

from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.layers import RMSNorm, SwiGLU
from aha.models.layouts import Layout
from aha.models.mla import LatentEntry, MultiHeadLatentAttention
from aha.models.moe import DeepseekMoE, RouterStats


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)), the latter dense or mixture of experts."""

    def __init__(self, config: DeepseekV3Config, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = MultiHeadLatentAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        dense = index < config.first_k_dense_replace
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size) if dense else DeepseekMoE(config)

    def forward(self, x_ND: Tensor, layout: Layout, rotations_NR: Tensor, stats: RouterStats) -> Tensor:
        """One layer over every token; a router reports to `stats`."""
        return self.with_entry(x_ND, layout, rotations_NR, stats)[0]

    def with_entry(
        self, x_ND: Tensor, layout: Layout, rotations_NR: Tensor, stats: RouterStats
    ) -> tuple[Tensor, LatentEntry]:
        """The same, and what a cache keeps of each token."""
        attended_ND, entry = self.self_attn(self.input_layernorm(x_ND), layout, rotations_NR)
        x_ND = x_ND + attended_ND
        normed_ND = self.post_attention_layernorm(x_ND)
        dense = isinstance(self.mlp, SwiGLU)
        return x_ND + (self.mlp(normed_ND) if dense else self.mlp(normed_ND, layout, stats)), entry
