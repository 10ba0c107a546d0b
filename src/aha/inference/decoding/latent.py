"""One new token per row, or a few: latent attention with the up-projections absorbed (V3 Eqs. 1-11, section 2.1.1).

q_nope . (W_UK c) = (W_UK^T q_nope) . c, and sum_j p_j (W_UV c_j) = W_UV sum_j p_j c_j: attention runs on the cached
latents of width C + R as one key-value head shared by all query heads, and nothing per cached token is ever expanded.

This is the form for any device and size, on the model's own weights. `latent_packed.py` has the one for small models
on CPUs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aha.inference.decoding.cache import DraftCache, RowCache
from aha.inference.decoding.step import StepInputs, WeightDecoder
from aha.models.decoder_layer import DecoderLayer
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.mla import MultiHeadLatentAttention, rotated
from aha.models.moe import DeepseekMoE


class AbsorbedDecoder(WeightDecoder):
    """The decode step on the model's weights."""

    def __init__(self, model: DeepseekV3) -> None:
        self.model = model

    def compute(self, token_ids_N: Tensor, cache: RowCache, at: StepInputs, fixed_shapes: bool = False) -> Tensor:
        """The step itself, on tokens whose places in the cache are known.

        With `fixed_shapes` no tensor's shape depends on what tensors hold, as a CUDA graph needs it.
        """
        model = self.model
        rotations_NR = model.rope.at(at.positions, at.longest)
        x_ND = model.embed_tokens(token_ids_N)
        for index, layer in enumerate(model.typed_layers()):
            x_ND = layer_step(layer, x_ND, rotations_NR, cache, index, at, fixed_shapes)
        hidden_ND = model.norm(x_ND)
        if isinstance(cache, DraftCache):
            cache.keep_hidden(hidden_ND, at.slots)
        return model.logits(hidden_ND)

    def predict(self, k: int, token_ids_N: Tensor, hidden_ND: Tensor, cache: DraftCache, at: StepInputs) -> Tensor:
        """What prediction module k makes of hidden states and next tokens: see `drafting.py`."""
        model, module = self.model, self.model.predictors[k]
        rotations_NR = model.rope.at(at.positions, at.longest)
        x_ND = module.join(hidden_ND, model.embed_tokens(token_ids_N))
        return module.norm(layer_step(module.layer, x_ND, rotations_NR, cache, len(model.layers) + k, at))


def layer_step(
    layer: DecoderLayer,
    x_ND: Tensor,
    rotations_NR: Tensor,
    cache: RowCache,
    index: int,
    at: StepInputs,
    fixed_shapes: bool = False,
) -> Tensor:
    """One layer, over layer `index` of the cache, which takes the tokens' entries first."""
    attention, normed_ND = layer.self_attn, layer.input_layernorm(x_ND)
    q_NHC, entry_NC = latent_query_and_entry(attention, normed_ND, rotations_NR)
    cache.by_slot[index].index_copy_(0, at.slots, entry_NC.to(cache.entries.dtype))
    kv_B1TC = cache.by_row[index][: at.rows, None, : at.longest]
    x_ND = x_ND + attend_latents(attention, q_NHC.to(kv_B1TC.dtype), kv_B1TC, at.mask)
    normed_ND = layer.post_attention_layernorm(x_ND)
    mlp = layer.mlp
    return x_ND + (mlp.tokenwise(normed_ND, fixed_shapes) if isinstance(mlp, DeepseekMoE) else mlp(normed_ND))


def latent_query_and_entry(
    attention: MultiHeadLatentAttention, x_ND: Tensor, rotations_NR: Tensor
) -> tuple[Tensor, Tensor]:
    """Each head's query against cache entries [N, H, C + R], and the token's own entry [N, C + R]."""
    query_NQ, latent_NC, rope_NR = attention.down(x_ND)
    q_NHK = attention.up_query(query_NQ)
    q_nope, q_rope = q_NHK.split([attention.nope_dim, attention.rope_dim], dim=-1)
    key_up_HKC = attention.kv_up_HXC[:, : attention.nope_dim]
    q_latent_NHC = torch.bmm(q_nope.transpose(0, 1), key_up_HKC).transpose(0, 1)
    q_NHC = torch.cat([q_latent_NHC, rotated(q_rope, rotations_NR.unsqueeze(1))], dim=-1)
    return q_NHC, torch.cat([attention.kv_a_layernorm(latent_NC), rotated(rope_NR, rotations_NR)], dim=-1)


def attend_latents(attention: MultiHeadLatentAttention, q_NHC: Tensor, kv_B1TC: Tensor, mask: Tensor | None) -> Tensor:
    """Attention output [N, D]: a token's heads are the queries of one key-value head, whose values are the latents.

    A row's W tokens stand as W such heads over the same latents, each with its own line of the mask.
    """
    q_BWHC = q_NHC.unflatten(0, (kv_B1TC.shape[0], -1))
    kv_BWTC = kv_B1TC.expand(-1, q_BWHC.shape[1], -1, -1)
    mixed_NHC = F.scaled_dot_product_attention(q_BWHC, kv_BWTC, kv_BWTC, mask, scale=attention.scale).flatten(0, 1)
    mixed_HNC = mixed_NHC.to(attention.o_proj.weight.dtype).transpose(0, 1)[..., : attention.latent_dim]
    value_up_HCV = attention.kv_up_HXC[:, attention.nope_dim :].transpose(1, 2)
    return attention.o_proj(torch.bmm(mixed_HNC, value_up_HCV).transpose(0, 1).flatten(1))
