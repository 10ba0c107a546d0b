"""The decode step of a small DeepSeek-V3 on a CPU: the mathematics of `latent.py`, packed as `packed.py` has it.

Queries are made against latents in one product, and router and shared experts read the token in one product. Drafts of
the prediction modules (`drafting.py`) run on packed weights as well.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from aha.inference.decoding.cache import DraftCache, RowCache
from aha.inference.decoding.packed import Normalizer, PackedModel, PackedSwiGLU, Workspace, fold
from aha.inference.decoding.step import StepInputs
from aha.models.decoder_layer import DecoderLayer
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.layers import RMSNorm, SwiGLU
from aha.models.lora_linear import effective_weight
from aha.models.mla import LATENT_NORM_EPS, MultiHeadLatentAttention
from aha.models.moe import DeepseekMoE
from aha.models.mtp import MultiTokenPredictor
from aha.models.rope import rotate_

FEW_TOKENS = 2
"""Up to so many tokens go through their experts one after another: sorting them by expert takes longer."""


class LatentWorkspace(Workspace):
    """With the buffers of latent attention."""

    def __init__(self, batch: int, width: int, attention: MultiHeadLatentAttention) -> None:
        super().__init__(batch, width)
        heads, latent, rope, query = attention.num_heads, attention.latent_dim, attention.rope_dim, attention.query_dim
        self.down_BX = torch.empty(batch, query + latent + rope)
        self.query_BQ, self.latent_BC, self.rope_BR = self.down_BX.split([query, latent, rope], dim=-1)
        self.normed_query_BQ = torch.empty(batch, query)
        # The queries of all heads and the new cache entry lie together, so that one product rotates them all.
        joined = torch.empty(batch, heads + 1, latent + rope)
        self.flat_q = joined.view(batch, -1)[:, : heads * (latent + rope)]
        self.q_B1HC = joined[:, :heads].unsqueeze(1)
        self.entry_BC = joined[:, heads]
        self.entry_latent_BC, self.entry_rope_BR = self.entry_BC.split([latent, rope], dim=-1)
        self.rotary = joined[..., latent:]
        even = latent % 2 == 0
        self.pairs = torch.view_as_complex(self.rotary.unflatten(-1, (-1, 2))) if even else None

    def rotate(self, rotations_B1R: Tensor) -> None:
        """Rotates all queries and the new key."""
        if self.pairs is not None:
            self.pairs.mul_(rotations_B1R)
        else:
            rotate_(self.rotary, rotations_B1R)


class LayerInputs(NamedTuple):
    """What a step reads and writes besides a layer's weights: its part of the cache, and where the tokens are."""

    by_slot: Tensor
    by_row: Tensor
    at: StepInputs
    rotations_N1R: Tensor  # noqa: N815


class PackedAttention:
    """One attention layer's weights: `query_in` makes scaled queries against cache entries, `latent_out` leads back."""

    def __init__(self, attention: MultiHeadLatentAttention, norm: RMSNorm) -> None:
        heads, latent, nope = attention.num_heads, attention.latent_dim, attention.nope_dim
        # The norm's weight is part of the matrix behind it, so that a step divides by the norm and no more.
        self.down = fold(norm, effective_weight(attention.qkv_a_proj))
        self.normalize = Normalizer(norm.weight.numel(), norm.eps)
        self.normalize_latent = Normalizer(latent, LATENT_NORM_EPS)
        self.latent_weight = attention.kv_a_layernorm.weight * math.sqrt(latent)
        self.normalize_query: Normalizer | None = None
        q_in = torch.eye(attention.query_dim)
        if attention.q_b_proj is not None and attention.q_a_layernorm is not None:
            q_in = fold(attention.q_a_layernorm, effective_weight(attention.q_b_proj))
            self.normalize_query = Normalizer(attention.query_dim, LATENT_NORM_EPS)
        q_QHK = q_in.unflatten(-1, (heads, -1)) * attention.scale
        up_HXC = attention.kv_up_HXC
        # q . (W_UK c) = (W_UK^T q) . c: with W_UK in the query's matrix, cached latents are never expanded to keys.
        absorbed_HQC = torch.bmm(q_QHK[..., :nope].transpose(0, 1), up_HXC[:, :nope])
        self.query_in = torch.cat([absorbed_HQC.transpose(0, 1), q_QHK[..., nope:]], dim=-1).flatten(1).contiguous()
        o_HVD = effective_weight(attention.o_proj).t().unflatten(0, (heads, -1))
        # Likewise W_UV goes into the output's matrix. SDPA mixes the rotary part too: zero rows drop it again.
        out_HCD = torch.bmm(up_HXC[:, nope:].transpose(1, 2), o_HVD)
        self.latent_out = F.pad(out_HCD, (0, 0, 0, attention.rope_dim)).flatten(0, 1)

    def step(self, x_BD: Tensor, work: LatentWorkspace, layer: LayerInputs) -> None:
        """Stores the new entries, then adds the attention output to x in place."""
        at = layer.at
        self.normalize(x_BD, work.normed_BD, work.norm_B1)
        torch.mm(work.normed_BD, self.down, out=work.down_BX)
        query_BQ = work.query_BQ
        if self.normalize_query is not None:
            self.normalize_query(query_BQ, work.normed_query_BQ, work.norm_B1)
            query_BQ = work.normed_query_BQ
        torch.mm(query_BQ, self.query_in, out=work.flat_q)
        self.normalize_latent(work.latent_BC, work.entry_latent_BC, work.norm_B1)
        work.entry_latent_BC.mul_(self.latent_weight)
        work.entry_rope_BR.copy_(work.rope_BR)
        work.rotate(layer.rotations_N1R)
        layer.by_slot.index_copy_(0, at.slots, work.entry_BC)
        # As in `latent.attend_latents`: the W tokens of a row stand as W heads over the same latents.
        batch = x_BD.shape[0]
        q_BWHC, kv_BWTC = work.q_B1HC, layer.by_row[: at.rows, None, : at.longest]
        if batch > at.rows:
            q_BWHC = q_BWHC.view(at.rows, -1, *q_BWHC.shape[2:])
            kv_BWTC = kv_BWTC.expand(-1, q_BWHC.shape[1], -1, -1)
        out = F.scaled_dot_product_attention(q_BWHC, kv_BWTC, kv_BWTC, at.mask, scale=1.0)
        x_BD.addmm_(out.reshape(batch, -1), self.latent_out)


class PackedMoE:
    """A mixture-of-experts layer behind its norm; router and shared experts are one matrix, experts one each."""

    def __init__(self, moe: DeepseekMoE, norm: RMSNorm) -> None:
        self.router = moe.gate
        self.normalize = Normalizer(norm.weight.numel(), norm.eps)
        shared = moe.shared_experts
        matrices: list[Tensor] = [moe.gate.weight]
        if shared is not None:
            matrices.append(effective_weight(shared.gate_up_proj))
        self.first = fold(norm, torch.cat(matrices))
        self.widths = [matrix.shape[0] for matrix in matrices]
        self.shared_down = None if shared is None else effective_weight(shared.down_proj).t().contiguous()
        self.gate_up = [fold(norm, weight) for weight in moe.experts.gate_up_proj]
        self.down = [weight.t().contiguous() for weight in moe.experts.down_proj]

    def step(self, x_BD: Tensor, work: Workspace) -> None:
        """Adds its output to x in place."""
        self.normalize(x_BD, work.normed_BD, work.norm_B1)
        logits_BE, *shared = torch.split_with_sizes(torch.mm(work.normed_BD, self.first), self.widths, -1)
        routing = self.router.route(logits_BE)
        if self.shared_down is not None:
            gate, up = shared[0].chunk(2, dim=-1)
            x_BD.addmm_(F.silu(gate).mul_(up), self.shared_down)
        if x_BD.shape[0] == 1:
            self._one(x_BD, work.normed_BD, routing.indices, routing.gates)
        elif x_BD.shape[0] <= FEW_TOKENS:
            parts = (part.split(1) for part in (x_BD, work.normed_BD, routing.indices, routing.gates))
            for token in zip(*parts, strict=True):
                self._one(*token)
        else:
            self._many(x_BD, work.normed_BD, routing.indices, routing.gates)

    def _one(self, x_1D: Tensor, normed_1D: Tensor, indices_1A: Tensor, gates_1A: Tensor) -> None:
        chosen: list[int] = indices_1A.tolist()[0]
        # Gates multiply the hidden activations, which are narrower than the outputs and lie in one matrix.
        gate, up = torch.cat([torch.mm(normed_1D, self.gate_up[e]) for e in chosen]).chunk(2, dim=-1)
        hidden_AF = F.silu(gate).mul_(up).mul_(gates_1A.t())
        for e, hidden_1F in zip(chosen, hidden_AF.split(1), strict=True):
            x_1D.addmm_(hidden_1F, self.down[e])

    def _many(self, x_BD: Tensor, normed_BD: Tensor, indices_BA: Tensor, gates_BA: Tensor) -> None:
        flat_S = indices_BA.view(-1)
        order_S = torch.argsort(flat_S, stable=True)
        # Sorted by expert, an expert's tokens are neighbours: one product each, without gathering them one by one.
        splits: list[int] = torch.bincount(flat_S, minlength=len(self.down)).tolist()
        token_S = order_S // indices_BA.shape[1]
        x_SD = normed_BD.index_select(0, token_S)
        gate_up_SX = x_SD.new_empty(x_SD.shape[0], self.gate_up[0].shape[1])
        _mm_per_expert(splits, x_SD, self.gate_up, gate_up_SX)
        gate, up = gate_up_SX.chunk(2, dim=-1)
        hidden_SF = F.silu(gate).mul_(up).mul_(gates_BA.view(-1).index_select(0, order_S).unsqueeze(-1))
        _mm_per_expert(splits, hidden_SF, self.down, x_SD)
        x_BD.index_add_(0, token_S, x_SD)


def _mm_per_expert(splits: list[int], inputs_S: Tensor, weights: list[Tensor], out_S: Tensor) -> None:
    # Not Tensor.split: its wrapper in Python costs more than the operation.
    inputs, outs = torch.split_with_sizes(inputs_S, splits), torch.split_with_sizes(out_S, splits)
    for rows, weight, x, out in zip(splits, weights, inputs, outs, strict=True):
        if rows:
            torch.mm(x, weight, out=out)


class PackedLayer:
    """One layer's weights."""

    def __init__(self, layer: DecoderLayer) -> None:
        norm, mlp = layer.post_attention_layernorm, layer.mlp
        self.attention = PackedAttention(layer.self_attn, layer.input_layernorm)
        self.feed_forward = PackedSwiGLU(mlp, norm) if isinstance(mlp, SwiGLU) else PackedMoE(mlp, norm)

    def step(self, x_BD: Tensor, work: LatentWorkspace, layer: LayerInputs) -> None:
        """Stores the new entries and adds the layer's outputs to x in place."""
        self.attention.step(x_BD, work, layer)
        self.feed_forward.step(x_BD, work)


class PackedPredictor:
    """A prediction module's weights (V3 Eqs. 21-22)."""

    def __init__(self, module: MultiTokenPredictor) -> None:
        of_embedding, of_hidden = effective_weight(module.eh_proj).chunk(2, dim=-1)
        self.normalize = Normalizer(module.norm.weight.numel(), module.norm.eps)
        self.embedding_in, self.hidden_in = fold(module.enorm, of_embedding), fold(module.hnorm, of_hidden)
        self.layer = PackedLayer(module.layer)
        self.out_weight = module.norm.weight * math.sqrt(module.norm.weight.numel())

    def step(self, embedding_ND: Tensor, hidden_ND: Tensor, work: LatentWorkspace, layer: LayerInputs) -> Tensor:
        """Hidden states [N, D] after the module's norm; its entries go to a layer of the cache."""
        self.normalize(embedding_ND, work.normed_BD, work.norm_B1)
        x_ND = torch.mm(work.normed_BD, self.embedding_in)
        self.normalize(hidden_ND, work.normed_BD, work.norm_B1)
        x_ND.addmm_(work.normed_BD, self.hidden_in)
        self.layer.step(x_ND, work, layer)
        self.normalize(x_ND, work.normed_BD, work.norm_B1)
        return work.normed_BD * self.out_weight


class PackedLatentDecoder(PackedModel[LatentWorkspace]):
    """The decode step of a small DeepSeek-V3, with weights packed at construction; modules when they first draft."""

    def __init__(self, model: DeepseekV3) -> None:
        super().__init__(model)
        self.model = model
        self.layers = [PackedLayer(layer) for layer in model.typed_layers()]
        self._hidden_weight = model.norm.weight * math.sqrt(model.norm.weight.numel())
        self._predictors: list[PackedPredictor] = []

    def step(self, token_ids: Tensor, cache: RowCache) -> Tensor:
        """Logits [N, V] after each of some more tokens in the rows 0 to B-1, token ids [B] or [B, W]."""
        token_ids_N, at = token_ids.flatten(), StepInputs.appended(token_ids, cache)
        rotations_N1R, work = self._rotations(at), self.workspace(token_ids_N.shape[0])
        x_ND = self.model.embed_tokens.weight.index_select(0, token_ids_N)
        # A cache for drafts has more layers than the model, those of the modules.
        for layer, by_slot, by_row in zip(self.layers, cache.by_slot, cache.by_row, strict=False):
            layer.step(x_ND, work, LayerInputs(by_slot, by_row, at, rotations_N1R))
        logits_NV = self.logits(x_ND, work)
        if isinstance(cache, DraftCache):
            cache.keep_hidden(work.normed_BD * self._hidden_weight, at.slots)
        return logits_NV

    def predict(self, k: int, token_ids_N: Tensor, hidden_ND: Tensor, cache: DraftCache, at: StepInputs) -> Tensor:
        """What prediction module k makes of hidden states and next tokens: see `drafting.py`."""
        if not self._predictors:
            self._predictors = [PackedPredictor(module) for module in self.model.predictors]
        embedding_ND = self.model.embed_tokens.weight.index_select(0, token_ids_N)
        work, index = self.workspace(token_ids_N.shape[0]), len(self.layers) + k
        layer = LayerInputs(cache.by_slot[index], cache.by_row[index], at, self._rotations(at))
        return self._predictors[k].step(embedding_ND, hidden_ND, work, layer)

    def _rotations(self, at: StepInputs) -> Tensor:
        return self.model.rope.at(at.positions, at.longest).unsqueeze(1)

    def _new_workspace(self, batch: int) -> LatentWorkspace:
        attention = next(self.model.typed_layers()).self_attn
        return LatentWorkspace(batch, self.model.config.hidden_size, attention)
