"""Dense decoders: Qwen2, Qwen3 and Llama, with grouped-query attention (arXiv 2305.13245) and SwiGLU layers.

Rotary positions pair a head's halves, as in the released weights. Queries, keys and values are one matrix here
(`qkv_proj`, split by name in `hf_names.py`), as are the gate and up projections.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from aha.models.block import RouterStats
from aha.models.dense_config import DenseConfig
from aha.models.dense_decode import DenseDecoder
from aha.models.dense_packed import PackedDenseDecoder
from aha.models.gqa import GroupedQueryAttention
from aha.models.graphed import GraphedDecoder, capture_cuda_graph
from aha.models.kv_cache import KeyValueCache
from aha.models.language_model import Decoder, HiddenStates, LanguageModel
from aha.models.layers import RMSNorm, SwiGLU
from aha.models.layouts import Layout
from aha.models.packed import can_pack
from aha.models.rope import HalvesRope


class DenseLayer(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = GroupedQueryAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(
        self, x_ND: Tensor, layout: Layout, turn_N2K: Tensor, _: RouterStats, entries_NC: Tensor | None = None
    ) -> Tensor:
        """One layer over every token; fills `entries_NC` for the cache where given. There is no router to report."""
        x_ND = x_ND + self.self_attn(self.input_layernorm(x_ND), layout, turn_N2K, entries_NC)
        return x_ND + self.mlp(self.post_attention_layernorm(x_ND))


class Dense(LanguageModel):
    """A dense language model of one of the three families."""

    config: DenseConfig

    def __init__(self, config: DenseConfig) -> None:
        layers = [DenseLayer(config) for _ in range(config.num_hidden_layers)]
        super().__init__(config, layers, rope=HalvesRope(config))
        self._tie()

    def dense_layers(self) -> Iterator[DenseLayer]:
        """The layers, typed."""
        return (layer for layer in self.layers if isinstance(layer, DenseLayer))

    def collect(self, hidden_ND: Tensor, stats: RouterStats) -> HiddenStates:
        """Hidden states without routers' reports."""
        return HiddenStates(hidden_ND, torch.zeros(0, 0, dtype=torch.int64, device=hidden_ND.device), None)

    def new_cache(self, rows: int, max_length: int, drafts: int = 0) -> KeyValueCache:
        """An empty key-value cache with the model's device and type. There are no modules that draft."""
        assert drafts == 0
        weight = self.embed_tokens.weight
        return KeyValueCache(self.config, rows, max_length, weight.device, weight.dtype)

    def weights_replaced(self) -> None:
        """Ties the head to the embedding again, where they are one tensor."""
        super().weights_replaced()
        self._tie()

    def _tie(self) -> None:
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight

    def _new_decoder(self) -> Decoder:
        """`dense_packed.py` for small models on a CPU, `dense_decode.py` for all others, as graphs on CUDA."""
        if can_pack(self):
            return PackedDenseDecoder(self)
        decoder = DenseDecoder(self)
        return GraphedDecoder(decoder, capture_cuda_graph) if self.lm_head.weight.is_cuda else decoder
