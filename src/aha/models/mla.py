"""Multi-head latent attention, expanded form, as trained and prefilled (V3 section 2.1.1, Eqs. 1-11).

The down-projections of queries and of keys and values read the same tokens, so they are one matrix here
(`qkv_a_proj`, split by name in `checkpoint/names.py`). Unlike the printed equations, and like the released code, there
is an RMSNorm on each latent. The absorbed form, for one new token over the latent cache, is in
`inference/decoding/latent.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from aha.models.attention import attend
from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.layers import RMSNorm
from aha.models.layouts import Layout
from aha.models.lora_linear import effective_weight
from aha.models.rope import rotate_, softmax_scale

LATENT_NORM_EPS = 1e-6
"""Of the norms on the latents: DeepSeek's code and transformers fix it, whatever rms_norm_eps is."""


class LatentEntry(NamedTuple):
    """What a cache keeps of tokens."""

    latent_NC: Tensor  # noqa: N815
    """After its norm."""
    rope_NR: Tensor  # noqa: N815
    """The rotary key after its rotation."""


class MultiHeadLatentAttention(nn.Module):
    """V3 Eqs. 1-11: queries and keys-values through low-rank latents, one rotary key shared by all heads."""

    def __init__(self, config: DeepseekV3Config) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.nope_dim, self.rope_dim = config.qk_nope_head_dim, config.qk_rope_head_dim
        self.qk_dim, self.v_dim = config.qk_head_dim, config.v_head_dim
        self.latent_dim = config.kv_lora_rank
        self.query_dim = config.q_lora_rank or self.num_heads * self.qk_dim
        self.scale = softmax_scale(config)
        width = config.hidden_size
        rows = self.query_dim, self.latent_dim, self.rope_dim
        self.qkv_a_proj = nn.Linear(width, sum(rows), bias=False)
        self.fused_rows = {"qkv_a_proj.weight": rows}
        self.q_a_layernorm: RMSNorm | None = None
        self.q_b_proj: nn.Linear | None = None
        if config.q_lora_rank is not None:
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, LATENT_NORM_EPS)
            self.q_b_proj = nn.Linear(config.q_lora_rank, self.num_heads * self.qk_dim, bias=False)
        self.kv_a_layernorm = RMSNorm(self.latent_dim, LATENT_NORM_EPS)
        self.kv_b_proj = nn.Linear(self.latent_dim, self.num_heads * (self.nope_dim + self.v_dim), bias=False)
        self.o_proj = nn.Linear(self.num_heads * self.v_dim, width, bias=False)

    def forward(self, x_ND: Tensor, layout: Layout, rotations_NR: Tensor) -> tuple[Tensor, LatentEntry]:
        """Attention of every token over the tokens its layout lets it see, and what a cache keeps of each token.

        Args:
            x_ND: normalised hidden states.
            layout: which tokens make up which sequence.
            rotations_NR: rotation of each token's position, complex [N, R/2].
        """
        query_NQ, latent_NC, rope_NR = self.down(x_ND)
        latent_NC = self.kv_a_layernorm(latent_NC)
        kv_NHX = self.kv_b_proj(latent_NC).unflatten(-1, (self.num_heads, self.nope_dim + self.v_dim))
        k_nope_NHK, v_NHV = kv_NHX.split([self.nope_dim, self.v_dim], dim=-1)
        q_NHK, k_NHK = _RotateAndJoin.apply(self.up_query(query_NQ), k_nope_NHK, rope_NR, rotations_NR)
        out_NHV = attend(q_NHK, k_NHK, v_NHV, layout, self.scale)
        return self.o_proj(out_NHV.flatten(1)), LatentEntry(latent_NC, k_NHK[:, 0, self.nope_dim :])

    def down(self, x_ND: Tensor) -> tuple[Tensor, ...]:
        """Query latents (queries, where those are not compressed), key-value latents before their norm, rotary keys."""
        return self.qkv_a_proj(x_ND).split([self.query_dim, self.latent_dim, self.rope_dim], dim=-1)

    def up_query(self, query_NQ: Tensor) -> Tensor:
        """Queries of all heads before rotation, [N, H, K] (V3 Eqs. 6-8)."""
        if self.q_b_proj is not None and self.q_a_layernorm is not None:
            query_NQ = self.q_b_proj(self.q_a_layernorm(query_NQ))
        return query_NQ.unflatten(-1, (self.num_heads, self.qk_dim))

    @property
    def kv_up_HXC(self) -> Tensor:
        """[W^UK; W^UV] of V3 Eqs. 2 and 5 by head: rows of keys first, then of values."""
        return effective_weight(self.kv_b_proj).unflatten(0, (self.num_heads, self.nope_dim + self.v_dim))


def rotated(x: Tensor, cis: Tensor) -> Tensor:
    """The rotation as a differentiable product; computed in float32 at least."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2)).contiguous()
    return torch.view_as_real(torch.view_as_complex(wide) * cis).flatten(-2).to(x.dtype)


class _RotateAndJoin(torch.autograd.Function):
    """Queries with their rotary parts rotated, and keys of all heads: their own parts, and the shared rotary key.

    Queries are copied first. To rotate them where they are would spare that, but others may hold them: a forward hook,
    or an operation that saved its output for its gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, q_NHK: Tensor, k_nope_NHK: Tensor, rope_NR: Tensor, rotations_NR: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(rotations_NR)
        nope_dim = k_nope_NHK.shape[-1]
        ctx.nope_dim = nope_dim
        q_NHK = q_NHK.clone(memory_format=torch.contiguous_format)
        rotate_(q_NHK[..., nope_dim:], rotations_NR.unsqueeze(1))
        k_NHK = torch.empty_like(q_NHK)
        k_NHK[..., :nope_dim] = k_nope_NHK
        k_NHK[..., nope_dim:] = rotate_(rope_NR.clone(), rotations_NR).unsqueeze(1)
        return q_NHK, k_NHK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dq_NHK: Tensor, dk_NHK: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        back_NR = ctx.saved_tensors[0].conj_physical()
        dq_NHK = dq_NHK.clone()
        rotate_(dq_NHK[..., ctx.nope_dim :], back_NR.unsqueeze(1))
        grad_rope_NR = rotate_(dk_NHK[..., ctx.nope_dim :].sum(1), back_NR)
        return dq_NHK, dk_NHK[..., : ctx.nope_dim], grad_rope_NR, None
