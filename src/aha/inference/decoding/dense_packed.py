"""The decode step for small dense models on a CPU, with weights packed once per version: see `packed.py`.

Norm weights and the softmax scale are multiplied into the next matrix, queries and keys are normalised and rotated
together in the buffer of their projection, and the rest of that buffer is the new cache entry as it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aha.inference.decoding.cache import KeyValueCache, RowCache
from aha.inference.decoding.packed import Normalizer, PackedModel, PackedSwiGLU, Workspace, fold
from aha.inference.decoding.step import StepInputs
from aha.models.dense import Dense
from aha.models.gqa import GroupedQueryAttention
from aha.models.layers import RMSNorm
from aha.models.lora_linear import effective_weight


class GroupedWorkspace(Workspace):
    """With the buffers of grouped-query attention."""

    def __init__(self, batch: int, width: int, attention: GroupedQueryAttention) -> None:
        super().__init__(batch, width)
        heads, kv_heads, dim = attention.num_heads, attention.num_kv_heads, attention.head_dim
        self.qkv_BX = torch.empty(batch, (heads + 2 * kv_heads) * dim)
        self.rotary_BHK = self.qkv_BX.unflatten(-1, (-1, dim))[:, : heads + kv_heads]
        self.head_norm_BH1 = torch.empty(batch, heads + kv_heads, 1)
        self.q_BJGK = self.qkv_BX[:, : heads * dim].unflatten(-1, (kv_heads, -1, dim))
        self.entry_BC = self.qkv_BX[:, heads * dim :]


class PackedGroupedAttention:
    """One attention layer's weights, behind its norm."""

    def __init__(self, attention: GroupedQueryAttention, norm: RMSNorm) -> None:
        heads, kv_heads, dim = attention.num_heads, attention.num_kv_heads, attention.head_dim
        self.half = dim // 2
        self.normalize = Normalizer(norm.weight.numel(), norm.eps)
        self.qkv = fold(norm, effective_weight(attention.qkv_proj))
        self.bias = None if attention.qkv_proj.bias is None else attention.qkv_proj.bias.clone()
        self.normalize_heads: Normalizer | None = None
        self.head_weight_HK = torch.empty(0)
        if attention.q_norm is not None and attention.k_norm is not None:
            self.normalize_heads = Normalizer(dim, attention.q_norm.eps)
            q_HK = attention.q_norm.weight.expand(heads, dim) * attention.scale
            self.head_weight_HK = torch.cat([q_HK, attention.k_norm.weight.expand(kv_heads, dim)]) * dim**0.5
        else:
            self.qkv[:, : heads * dim] *= attention.scale
            if self.bias is not None:
                self.bias[: heads * dim] *= attention.scale
        # The flash kernel writes each query's heads together, here [B, G, J, K]: the rows of this matrix follow.
        out_JGKD = effective_weight(attention.o_proj).t().unflatten(0, (kv_heads, -1, dim))
        self.out = out_JGKD.transpose(0, 1).flatten(0, 2).contiguous()

    def step(
        self,
        x_BD: Tensor,
        work: GroupedWorkspace,
        layer: tuple[Tensor, Tensor, Tensor],
        at: StepInputs,
        rotations_B12K: Tensor,
    ) -> None:
        """Stores the new entries, then adds the attention output to x in place.

        Args:
            x_BD: the residual stream.
            work: buffers of this batch size.
            layer: of the cache, its entries by slot, its keys and its values.
            at: where the tokens are in it.
            rotations_B12K: of their positions.
        """
        by_slot, keys, values = layer
        self.normalize(x_BD, work.normed_BD, work.norm_B1)
        if self.bias is None:
            torch.mm(work.normed_BD, self.qkv, out=work.qkv_BX)
        else:
            torch.addmm(self.bias, work.normed_BD, self.qkv, out=work.qkv_BX)
        rotary_BHK = work.rotary_BHK
        if self.normalize_heads is not None:
            self.normalize_heads(rotary_BHK, rotary_BHK, work.head_norm_BH1)
            rotary_BHK.mul_(self.head_weight_HK)
        cos_B1K, sin_B1K = rotations_B12K.unbind(2)
        rolled_BHK = rotary_BHK.roll(self.half, -1)
        rotary_BHK.mul_(cos_B1K).addcmul_(rolled_BHK, sin_B1K)
        by_slot.index_copy_(0, at.slots, work.entry_BC)
        batch = x_BD.shape[0]
        k_BJTK, v_BJTK = keys[:batch, :, : at.longest], values[:batch, :, : at.longest]
        out_BJGK = F.scaled_dot_product_attention(work.q_BJGK, k_BJTK, v_BJTK, at.mask, scale=1.0)
        x_BD.addmm_(out_BJGK.transpose(1, 2).flatten(1), self.out)


class PackedDenseDecoder(PackedModel[GroupedWorkspace]):
    """The decode step of a small dense model, with weights packed at construction."""

    def __init__(self, model: Dense) -> None:
        super().__init__(model)
        self.model = model
        self.layers = [
            (
                PackedGroupedAttention(layer.self_attn, layer.input_layernorm),
                PackedSwiGLU(layer.mlp, layer.post_attention_layernorm),
            )
            for layer in model.typed_layers()
        ]

    def step(self, token_ids_B: Tensor, cache: RowCache) -> Tensor:
        """Logits [B, V] after one more token in each of the rows 0 to B-1."""
        assert isinstance(cache, KeyValueCache)
        at, work = StepInputs.appended(token_ids_B, cache), self.workspace(token_ids_B.shape[0])
        rotations_B12K = self.model.rope.at(at.positions, at.longest).unsqueeze(1)
        x_BD = self.model.embed_tokens.weight.index_select(0, token_ids_B)
        parts = zip(cache.by_slot, cache.keys, cache.values, strict=True)
        for (attention, feed_forward), layer in zip(self.layers, parts, strict=True):
            attention.step(x_BD, work, layer, at, rotations_B12K)
            feed_forward.step(x_BD, work)
        return self.logits(x_BD, work)

    def _new_workspace(self, batch: int) -> GroupedWorkspace:
        attention = next(self.model.typed_layers()).self_attn
        return GroupedWorkspace(batch, self.model.config.hidden_size, attention)
