"""The decode step for small models on a CPU: the mathematics of `decode.py` in as few operations as possible.

The dense families' own part is in `dense_packed.py`.

At one token per row a small model's time goes into starting operations, not into arithmetic. So weights are packed
once per version: norm weights and softmax scale multiplied into the next matrix, queries made against latents in
one product, router and shared experts reading the token in one product. One workspace per batch size is written
over and over.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from aha.models.kv_cache import RowCache
from aha.models.layers import RMSNorm, SwiGLU
from aha.models.lora_linear import effective_weight
from aha.models.mla import LATENT_NORM_EPS, MultiHeadLatentAttention
from aha.models.moe import DeepseekMoE
from aha.models.rope import rotate_

if TYPE_CHECKING:
    from aha.models.deepseek_v3 import DeepseekV3
    from aha.models.language_model import LanguageModel

MAX_PACKED_BYTES = 1 << 30
"""Larger models are bound by memory, not by starting operations, and should not be held twice."""


_VERSION = operator.attrgetter("_version")


class _OptimizerSteps:
    """Counts steps of PyTorch's optimizers: the fused ones change weights without changing their version."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *_: object) -> None:
        self.count += 1


_optimizer_steps = _OptimizerSteps()
register_optimizer_step_post_hook(_optimizer_steps)


def can_pack(model: nn.Module) -> bool:
    """Whether a model is small, on the CPU and in float32."""
    parameters = list(model.parameters())
    size = sum(p.numel() * p.element_size() for p in parameters)
    return size <= MAX_PACKED_BYTES and all(p.is_cpu and p.dtype == torch.float32 for p in parameters)


class Normalizer:
    """x / sqrt(sum(x^2) + D eps): an RMSNorm whose factor sqrt(D) * weight is in the next matrix (see `fold`)."""

    def __init__(self, width: int, eps: float) -> None:
        self.floor = torch.tensor(math.sqrt(width * eps))

    def __call__(self, x: Tensor, out: Tensor, norm: Tensor) -> None:
        """Writes x normalised to `out`; `norm` [B, 1] is overwritten."""
        torch.linalg.vector_norm(x, 2, -1, True, out=norm)
        torch.div(x, norm.hypot_(self.floor), out=out)


def fold(norm: RMSNorm, weight_XD: Tensor) -> Tensor:
    """The matrix [D, X] that makes of a `Normalizer`'s output what `weight` makes of the norm's."""
    return (weight_XD * (norm.weight * math.sqrt(norm.weight.numel()))).t().contiguous()


class CacheStep(NamedTuple):
    """Where one step reads and writes the cache, the same in all layers."""

    slots: Tensor
    turns: Tensor
    """The new tokens' rotations, [B, 1, ...]."""
    mask: Tensor | None
    longest: int


class Workspace:
    """Buffers of one batch size, with the views that the steps use."""

    def __init__(self, batch: int, width: int) -> None:
        self.norm_B1 = torch.empty(batch, 1)
        self.normed_BD = torch.empty(batch, width)


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

    def rotate(self, cis_B1R: Tensor) -> None:
        """Rotates all queries and the new key."""
        if self.pairs is not None:
            self.pairs.mul_(cis_B1R)
        else:
            rotate_(self.rotary, cis_B1R)


class PackedAttention:
    """One attention layer's weights: `query_in` makes scaled queries against cache entries, `latent_out` leads back."""

    def __init__(self, attention: MultiHeadLatentAttention, norm: RMSNorm) -> None:
        heads, latent, nope = attention.num_heads, attention.latent_dim, attention.nope_dim
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
        absorbed_HQC = torch.bmm(q_QHK[..., :nope].transpose(0, 1), up_HXC[:, :nope])
        self.query_in = torch.cat([absorbed_HQC.transpose(0, 1), q_QHK[..., nope:]], dim=-1).flatten(1).contiguous()
        o_HVD = effective_weight(attention.o_proj).t().unflatten(0, (heads, -1))
        out_HCD = torch.bmm(up_HXC[:, nope:].transpose(1, 2), o_HVD)
        self.latent_out = F.pad(out_HCD, (0, 0, 0, attention.rope_dim)).flatten(0, 1)

    def step(self, x_BD: Tensor, work: LatentWorkspace, by_slot: Tensor, by_row: Tensor, at: CacheStep) -> None:
        """Stores the new entries, then adds the attention output to x in place."""
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
        work.rotate(at.turns)
        by_slot.index_copy_(0, at.slots, work.entry_BC)
        batch = x_BD.shape[0]
        kv_B1TC = by_row[:batch, None, : at.longest]
        out = F.scaled_dot_product_attention(work.q_B1HC, kv_B1TC, kv_B1TC, at.mask, scale=1.0)
        x_BD.addmm_(out.view(batch, -1), self.latent_out)


class PackedSwiGLU:
    """A dense feed-forward layer behind its norm."""

    def __init__(self, mlp: SwiGLU, norm: RMSNorm) -> None:
        self.normalize = Normalizer(norm.weight.numel(), norm.eps)
        self.gate_up = fold(norm, effective_weight(mlp.gate_up_proj))
        self.down = effective_weight(mlp.down_proj).t().contiguous()

    def step(self, x_BD: Tensor, work: Workspace) -> None:
        """Adds its output to x in place."""
        self.normalize(x_BD, work.normed_BD, work.norm_B1)
        gate, up = torch.mm(work.normed_BD, self.gate_up).chunk(2, dim=-1)
        x_BD.addmm_(F.silu(gate).mul_(up), self.down)


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
        else:
            self._many(x_BD, work.normed_BD, routing.indices, routing.gates)

    def _one(self, x_1D: Tensor, normed_1D: Tensor, indices_1A: Tensor, gates_1A: Tensor) -> None:
        chosen: list[int] = indices_1A.tolist()[0]
        gate, up = torch.cat([torch.mm(normed_1D, self.gate_up[e]) for e in chosen]).chunk(2, dim=-1)
        hidden_AF = F.silu(gate).mul_(up).mul_(gates_1A.t())
        for e, hidden_1F in zip(chosen, hidden_AF.split(1), strict=True):
            x_1D.addmm_(hidden_1F, self.down[e])

    def _many(self, x_BD: Tensor, normed_BD: Tensor, indices_BA: Tensor, gates_BA: Tensor) -> None:
        flat_S = indices_BA.view(-1)
        order_S = torch.argsort(flat_S, stable=True)
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


W = TypeVar("W", bound=Workspace)


class PackedModel(ABC, Generic[W]):
    """What packed decoders share: knowing when they are stale, workspaces, the final norm and the head."""

    def __init__(self, model: LanguageModel) -> None:
        self._parameters = [p for p in model.parameters() if not p.is_inference()]
        self._version = self._current_version()
        self._normalize = Normalizer(model.config.hidden_size, model.norm.eps)
        self._head = fold(model.norm, model.head_weight)
        self._workspaces: dict[int, W] = {}

    @abstractmethod
    def _new_workspace(self, batch: int) -> W: ...

    def is_stale(self) -> bool:
        """Whether a parameter was changed in place since the weights were packed.

        Seen are operations that PyTorch records, and steps of its optimizers. After others, such as a collective that
        writes into parameters, call the model's `weights_changed`.
        """
        return self._version != self._current_version()

    def workspace(self, batch: int) -> W:
        """The buffers of a batch size."""
        if batch not in self._workspaces:
            if len(self._workspaces) >= 64:
                self._workspaces.clear()
            self._workspaces[batch] = self._new_workspace(batch)
        return self._workspaces[batch]

    def logits(self, x_BD: Tensor, work: W) -> Tensor:
        """Final norm and head, [B, V]."""
        self._normalize(x_BD, work.normed_BD, work.norm_B1)
        return torch.mm(work.normed_BD, self._head)

    def _current_version(self) -> int:
        return sum(map(_VERSION, self._parameters)) + _optimizer_steps.count


class PackedDecoder(PackedModel[LatentWorkspace]):
    """The decode step of a small DeepSeek-V3, with weights packed at construction."""

    def __init__(self, model: DeepseekV3) -> None:
        super().__init__(model)
        self.model = model
        self.layers: list[tuple[PackedAttention, PackedSwiGLU | PackedMoE]] = []
        for layer in model.decoder_layers():
            norm, mlp = layer.post_attention_layernorm, layer.mlp
            feed_forward = PackedSwiGLU(mlp, norm) if isinstance(mlp, SwiGLU) else PackedMoE(mlp, norm)
            self.layers.append((PackedAttention(layer.self_attn, layer.input_layernorm), feed_forward))

    def step(self, token_ids_B: Tensor, cache: RowCache) -> Tensor:
        """Logits [B, V] after one more token in each of the rows 0 to B-1."""
        model, batch = self.model, token_ids_B.shape[0]
        slots_B, positions_B, longest = cache.append(batch)
        cis_B1R = model.rope.at(positions_B, longest).unsqueeze(1)
        at = CacheStep(slots_B, cis_B1R, cache.mask(batch, longest), longest)
        work = self.workspace(batch)
        x_BD = model.embed_tokens.weight.index_select(0, token_ids_B)
        for (attention, feed_forward), by_slot, by_row in zip(self.layers, cache.by_slot, cache.by_row, strict=True):
            attention.step(x_BD, work, by_slot, by_row, at)
            feed_forward.step(x_BD, work)
        return self.logits(x_BD, work)

    def _new_workspace(self, batch: int) -> LatentWorkspace:
        attention = next(self.model.decoder_layers()).self_attn
        return LatentWorkspace(batch, self.model.config.hidden_size, attention)
