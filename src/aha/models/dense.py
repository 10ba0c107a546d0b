"""Dense decoders: Qwen2, Qwen3 and Llama, with grouped-query attention (arXiv 2305.13245) and SwiGLU layers.

Rotary positions pair a head's halves, as in the released weights. Queries, keys and values are one matrix here
(`qkv_proj`, split by name in `checkpoint/names.py`), as are the gate and up projections.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from aha.models.config.dense import DenseConfig
from aha.models.gqa import GroupedQueryAttention, KeyValueEntry
from aha.models.language_model import HiddenStates, LanguageModel
from aha.models.layers import RMSNorm, SwiGLU
from aha.models.layouts import Layout
from aha.models.moe import RouterStats
from aha.models.rope import HalvesRope


class DenseLayer(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = GroupedQueryAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(self, x_ND: Tensor, layout: Layout, rotations_N2K: Tensor, stats: RouterStats) -> Tensor:
        """One layer over every token."""
        return self.with_entry(x_ND, layout, rotations_N2K, stats)[0]

    def with_entry(
        self, x_ND: Tensor, layout: Layout, rotations_N2K: Tensor, _: RouterStats
    ) -> tuple[Tensor, KeyValueEntry]:
        """The same, and what a cache keeps of each token. There is no router to report."""
        attended_ND, entry = self.self_attn(self.input_layernorm(x_ND), layout, rotations_N2K)
        x_ND = x_ND + attended_ND
        return x_ND + self.mlp(self.post_attention_layernorm(x_ND)), entry


class Dense(LanguageModel):
    """A dense language model of one of the three families."""

    config: DenseConfig

    def __init__(self, config: DenseConfig) -> None:
        layers = [DenseLayer(config) for _ in range(config.num_hidden_layers)]
        super().__init__(config, layers, rope=HalvesRope(config))
        self._tie()

    def typed_layers(self) -> Iterator[DenseLayer]:
        """The layers, typed."""
        return (layer for layer in self.layers if isinstance(layer, DenseLayer))

    def collect(self, hidden_ND: Tensor, stats: RouterStats) -> HiddenStates:
        """Hidden states without routers' reports."""
        return HiddenStates(hidden_ND, torch.zeros(0, 0, dtype=torch.int64, device=hidden_ND.device), None)

    def weights_replaced(self) -> None:
        """Ties the head to the embedding again, where they are one tensor."""
        super().weights_replaced()
        self._tie()

    def _tie(self) -> None:
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
