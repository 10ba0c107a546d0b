"""One new token per row over the key-value cache: the form for any device and size, on the model's own weights.

The query heads that share a key-value head are taken as the queries of that head, so that nothing cached is repeated.
`dense_packed.py` has the form for small models on CPUs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aha.inference.decoding.cache import KeyValueCache, RowCache
from aha.inference.decoding.step import StepInputs, WeightDecoder
from aha.models.dense import Dense


class DenseDecoder(WeightDecoder):
    """The decode step on the model's weights."""

    def __init__(self, model: Dense) -> None:
        self.model = model

    def compute(self, token_ids_B: Tensor, cache: RowCache, at: StepInputs, fixed_shapes: bool = False) -> Tensor:
        """The step itself, on one token a row whose place in the cache is known. Its shapes are fixed in any case."""
        assert isinstance(cache, KeyValueCache)
        model, batch = self.model, at.rows
        rotations_B2K = model.rope.at(at.positions, at.longest)
        x_BD = model.embed_tokens(token_ids_B)
        for index, layer in enumerate(model.typed_layers()):
            attention = layer.self_attn
            q_BHK, k_BJK, v_BJK = attention.project(layer.input_layernorm(x_BD), rotations_B2K)
            entry_BC = torch.cat([k_BJK, v_BJK], 1).flatten(1)
            cache.by_slot[index].index_copy_(0, at.slots, entry_BC.to(cache.entries.dtype))
            k_BJTK, v_BJTK = (kept[index][:batch, :, : at.longest] for kept in (cache.keys, cache.values))
            q_BJGK = q_BHK.unflatten(1, (attention.num_kv_heads, -1)).to(k_BJTK.dtype)
            out_BJGK = F.scaled_dot_product_attention(q_BJGK, k_BJTK, v_BJTK, at.mask, scale=attention.scale)
            x_BD = x_BD + attention.o_proj(out_BJGK.flatten(1).to(x_BD.dtype))
            x_BD = x_BD + layer.mlp(layer.post_attention_layernorm(x_BD))
        return model.logits(model.norm(x_BD))
