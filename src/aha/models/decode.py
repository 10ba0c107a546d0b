"""One new token per row: latent attention with the up-projections absorbed (V3 section 2.1.1, Eqs. 1-11).

q_nope . (W_UK c) = (W_UK^T q_nope) . c, and sum_j p_j (W_UV c_j) = W_UV sum_j p_j c_j: attention runs on the cached
latents of width C + R as one key-value head shared by all query heads, and nothing per cached token is ever expanded.

This is the form for any device and size, on the model's own weights. `packed.py` has the one for small models on CPUs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from aha.models.decode_step import WeightDecoder
from aha.models.kv_cache import RowCache
from aha.models.mla import MultiHeadLatentAttention, rotated
from aha.models.moe import DeepseekMoE

if TYPE_CHECKING:
    from aha.models.deepseek_v3 import DeepseekV3


class AbsorbedDecoder(WeightDecoder):
    """The decode step on the model's weights."""

    def __init__(self, model: DeepseekV3) -> None:
        self.model = model

    def compute(
        self,
        token_ids_B: Tensor,
        slots_B: Tensor,
        positions_B: Tensor,
        cache: RowCache,
        longest: int,
        mask: Tensor | None,
        fixed_shapes: bool = False,
    ) -> Tensor:
        """The step itself, on tokens whose places in the cache are known.

        With `fixed_shapes` no tensor's shape depends on what tensors hold, as a CUDA graph needs it.
        """
        model, batch = self.model, token_ids_B.shape[0]
        cis_BR = model.rope.at(positions_B, longest)
        x_BD = model.embed_tokens(token_ids_B)
        for index, layer in enumerate(model.decoder_layers()):
            attention, normed_BD = layer.self_attn, layer.input_layernorm(x_BD)
            q_BHC, entry_BC = latent_query_and_entry(attention, normed_BD, cis_BR)
            cache.by_slot[index].index_copy_(0, slots_B, entry_BC.to(cache.entries.dtype))
            kv_B1TC = cache.by_row[index][:batch, None, :longest]
            x_BD = x_BD + attend_latents(attention, q_BHC.to(kv_B1TC.dtype), kv_B1TC, mask)
            normed_BD = layer.post_attention_layernorm(x_BD)
            mlp = layer.mlp
            if isinstance(mlp, DeepseekMoE):
                x_BD = x_BD + mlp.tokenwise(normed_BD, fixed_shapes)
            else:
                x_BD = x_BD + mlp(normed_BD)
        return model.logits(model.norm(x_BD))


def latent_query_and_entry(attention: MultiHeadLatentAttention, x_BD: Tensor, cis_BR: Tensor) -> tuple[Tensor, Tensor]:
    """Each head's query against cache entries [B, H, C + R], and the token's own entry [B, C + R]."""
    query_BQ, latent_BC, rope_BR = attention.down(x_BD)
    q_BHK = attention.up_query(query_BQ)
    q_nope, q_rope = q_BHK.split([attention.nope_dim, attention.rope_dim], dim=-1)
    key_up_HKC = attention.kv_up_HXC[:, : attention.nope_dim]
    q_latent_BHC = torch.bmm(q_nope.transpose(0, 1), key_up_HKC).transpose(0, 1)
    q_BHC = torch.cat([q_latent_BHC, rotated(q_rope, cis_BR.unsqueeze(1))], dim=-1)
    return q_BHC, torch.cat([attention.kv_a_layernorm(latent_BC), rotated(rope_BR, cis_BR)], dim=-1)


def attend_latents(attention: MultiHeadLatentAttention, q_BHC: Tensor, kv_B1TC: Tensor, mask: Tensor | None) -> Tensor:
    """Attention output [B, D]: the heads are the queries of one key-value head, whose values are the latents."""
    mixed_BHC = F.scaled_dot_product_attention(q_BHC.unsqueeze(1), kv_B1TC, kv_B1TC, mask, scale=attention.scale)
    mixed_HBC = mixed_BHC.to(attention.o_proj.weight.dtype).squeeze(1).transpose(0, 1)[..., : attention.latent_dim]
    value_up_HCV = attention.kv_up_HXC[:, attention.nope_dim :].transpose(1, 2)
    return attention.o_proj(torch.bmm(mixed_HBC, value_up_HCV).transpose(0, 1).flatten(1))
