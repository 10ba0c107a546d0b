"""Multi-head latent attention, expanded form, as trained and prefilled (V3 section 2.1.1, Eqs. 1-11).

The down-projections of queries and of keys and values read the same tokens, so they are one matrix here
(`qkv_a_proj`, split by name in `hf_names.py`). Unlike the printed equations, and like the released code, there is an
RMSNorm on each latent. The absorbed form, for one new token over the latent cache, is in `decode.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from aha.models.attention import attention_backward, attention_forward, pad_heads
from aha.models.config import DeepseekV3Config
from aha.models.layers import RMSNorm
from aha.models.layouts import Layout
from aha.models.lora_linear import effective_weight
from aha.models.rope import rotate_, softmax_scale

LATENT_NORM_EPS = 1e-6
"""Of the norms on the latents: DeepSeek's code and transformers fix it, whatever rms_norm_eps is."""


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
        self.qkv_a_proj = nn.Linear(width, self.query_dim + self.latent_dim + self.rope_dim, bias=False)
        self.q_a_layernorm: RMSNorm | None = None
        self.q_b_proj: nn.Linear | None = None
        if config.q_lora_rank is not None:
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, LATENT_NORM_EPS)
            self.q_b_proj = nn.Linear(config.q_lora_rank, self.num_heads * self.qk_dim, bias=False)
        self.kv_a_layernorm = RMSNorm(self.latent_dim, LATENT_NORM_EPS)
        self.kv_b_proj = nn.Linear(self.latent_dim, self.num_heads * (self.nope_dim + self.v_dim), bias=False)
        self.o_proj = nn.Linear(self.num_heads * self.v_dim, width, bias=False)

    def forward(self, x_ND: Tensor, layout: Layout, cis_NR: Tensor, entries_NC: Tensor | None = None) -> Tensor:
        """Attention of every token over the tokens its layout lets it see.

        Args:
            x_ND: normalised hidden states.
            layout: which tokens make up which sequence.
            cis_NR: rotation of each token's position, complex [N, R/2].
            entries_NC: where to put what the latent cache stores per token: the latent after its norm, and the
                rotary key after its rotation, [N, C + R].
        """
        query_NQ, latent_NC, rope_NR = self.down(x_ND)
        q_NHK = self.up_query(query_NQ)
        latent_NC = self.kv_a_layernorm(latent_NC)
        kv_NHX = self.kv_b_proj(latent_NC).unflatten(-1, (self.num_heads, self.nope_dim + self.v_dim))
        if entries_NC is not None:
            entries_NC[:, : self.latent_dim] = latent_NC
            rotate_(entries_NC[:, self.latent_dim :].copy_(rope_NR), cis_NR)
        if x_ND.is_cpu:
            out_NHV = _RotateAndAttend.apply(q_NHK, kv_NHX, rope_NR, cis_NR, layout, self.scale)
        else:
            out_NHV = self._attend_plainly(q_NHK, kv_NHX, rope_NR, cis_NR, layout)
        return self.o_proj(out_NHV.flatten(1))

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

    def _attend_plainly(self, q_NHK: Tensor, kv_NHX: Tensor, rope_NR: Tensor, cis_NR: Tensor, layout: Layout) -> Tensor:
        """The same without the fused CPU pass: other devices, and the reference in tests."""
        q_nope, q_rope = q_NHK.split([self.nope_dim, self.rope_dim], dim=-1)
        q_NHK = torch.cat([q_nope, rotated(q_rope, cis_NR.unsqueeze(1))], dim=-1)
        k_nope, v_NHV = kv_NHX.split([self.nope_dim, self.v_dim], dim=-1)
        k_rope = rotated(rope_NR, cis_NR).unsqueeze(1).expand(-1, self.num_heads, -1)
        return layout.attend(q_NHK, torch.cat([k_nope, k_rope], dim=-1), v_NHV, self.scale)


def rotated(x: Tensor, cis: Tensor) -> Tensor:
    """The rotation as a differentiable product; computed in float32 at least."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2)).contiguous()
    return torch.view_as_real(torch.view_as_complex(wide) * cis).flatten(-2).to(x.dtype)


class _RotateAndAttend(torch.autograd.Function):
    """Rotary positions, the joined keys and the attention in one pass.

    Rotates the queries in the buffer it is given.
    """

    @staticmethod
    def forward(
        ctx: Any, q_NHK: Tensor, kv_NHX: Tensor, rope_NR: Tensor, cis_NR: Tensor, layout: Layout, scale: float
    ) -> Tensor:
        rope_dim = rope_NR.shape[-1]
        nope_dim = q_NHK.shape[-1] - rope_dim
        v_dim = kv_NHX.shape[-1] - nope_dim
        if not _owns_storage(q_NHK):
            q_NHK = q_NHK.clone(memory_format=torch.contiguous_format)
        rotate_(q_NHK[..., nope_dim:], cis_NR.unsqueeze(1))
        k_NHK = torch.empty_like(q_NHK)
        k_NHK[..., :nope_dim] = kv_NHX[..., :nope_dim]
        k_NHK[..., nope_dim:] = rotate_(rope_NR.clone(), cis_NR).unsqueeze(1)
        width = max(q_NHK.shape[-1], v_dim)
        q, k, v = (pad_heads(x, width) for x in (q_NHK, k_NHK, kv_NHX[..., nope_dim:]))
        out, kept, tiled = attention_forward(q, k, v, layout, scale, keep=any(ctx.needs_input_grad))
        ctx.save_for_backward(q, k, v, out, kept, cis_NR)
        ctx.rest = layout, scale, tiled, nope_dim, rope_dim, v_dim
        return out[..., :v_dim]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NHV: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        *saved, cis_NR = ctx.saved_tensors
        layout, scale, tiled, nope_dim, rope_dim, v_dim = ctx.rest
        qk_dim = nope_dim + rope_dim
        grad = pad_heads(grad_NHV, saved[0].shape[-1])
        dq, dk, dv = attention_backward(grad, tuple(saved), layout, scale, tiled)
        back_NR = cis_NR.conj_physical()
        rotate_(dq[..., nope_dim:qk_dim], back_NR.unsqueeze(1))
        grad_kv = dv.new_empty(*dv.shape[:2], nope_dim + v_dim)
        grad_kv[..., :nope_dim] = dk[..., :nope_dim]
        grad_kv[..., nope_dim:] = dv[..., :v_dim]
        grad_rope = rotate_(dk[..., nope_dim:qk_dim].sum(1), back_NR)
        return dq[..., :qk_dim], grad_kv, grad_rope, None, None, None


def _owns_storage(x: Tensor) -> bool:
    """Whether x covers its whole storage, so that nothing else that autograd saved lies in it."""
    return x.numel() * x.element_size() == x.untyped_storage().nbytes()
