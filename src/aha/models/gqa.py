"""Grouped-query attention, as trained and prefilled: H query heads share J key and value heads (arXiv 2305.13245)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from aha.models.attention import attend
from aha.models.config.dense import DenseConfig
from aha.models.layers import RMSNorm
from aha.models.layouts import Layout
from aha.models.rope import rotate_halves


class KeyValueEntry(NamedTuple):
    """What a cache keeps of tokens."""

    k_NJK: Tensor  # noqa: N815
    """Keys after their rotation."""
    v_NJK: Tensor  # noqa: N815


class GroupedQueryAttention(nn.Module):
    """Attention of the dense families; Qwen2's biases and Qwen3's norms of heads where the configuration has them."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        self.scale = config.head_dim**-0.5
        rows = tuple(heads * self.head_dim for heads in (self.num_heads, self.num_kv_heads, self.num_kv_heads))
        self.qkv_proj = nn.Linear(config.hidden_size, sum(rows), bias=config.qkv_bias)
        self.fused_rows = {"qkv_proj.weight": rows}
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.o_proj = nn.Linear(self.num_heads * self.head_dim, config.hidden_size, bias=False)

    def forward(self, x_ND: Tensor, layout: Layout, rotations_N2K: Tensor) -> tuple[Tensor, KeyValueEntry]:
        """Attention of every token over the tokens its layout lets it see, and what a cache keeps of each token.

        Args:
            x_ND: normalised hidden states.
            layout: which tokens make up which sequence.
            rotations_N2K: rotation of each token's position (`rope.HalvesRope`).
        """
        q_NHK, k_NJK, v_NJK = self.project(x_ND, rotations_N2K)
        out_NHK = attend(q_NHK, k_NJK, v_NJK, layout, self.scale)
        return self.o_proj(out_NHK.flatten(1)), KeyValueEntry(k_NJK, v_NJK)

    def project(self, x_ND: Tensor, rotations_N2K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [N, H, K] and keys [N, J, K] after norm and rotation, and values [N, J, K]."""
        qkv_NXK = self.qkv_proj(x_ND).unflatten(-1, (-1, self.head_dim))
        q_NHK, k_NJK, v_NJK = qkv_NXK.split([self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q_NHK, k_NJK = _normed(self.q_norm, q_NHK), _normed(self.k_norm, k_NJK)
        return rotate_halves(q_NHK, rotations_N2K), rotate_halves(k_NJK, rotations_N2K), v_NJK


def _normed(norm: RMSNorm, x_NHK: Tensor) -> Tensor:
    """Each head normalised on its own."""
    return norm(x_NHK.flatten(0, 1)).view(x_NHK.shape)
