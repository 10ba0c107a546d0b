"""The DeepSeek-V3 model: embedding, layers of latent attention and mixture of experts, head, prediction modules."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.decoder_layer import DecoderLayer
from aha.models.language_model import HiddenStates, LanguageModel
from aha.models.layouts import Layout
from aha.models.moe import RouterStats
from aha.models.mtp import MultiTokenPredictor


class DeepseekV3(LanguageModel):
    """A DeepSeek-V3 language model with its multi-token prediction modules."""

    config: DeepseekV3Config

    def __init__(self, config: DeepseekV3Config) -> None:
        layers = [DecoderLayer(config, i) for i in range(config.num_hidden_layers)]
        super().__init__(config, layers, [MultiTokenPredictor(config) for _ in range(config.num_nextn_predict_layers)])

    def typed_layers(self) -> Iterator[DecoderLayer]:
        """The layers of the main model, typed."""
        return (layer for layer in self.layers if isinstance(layer, DecoderLayer))

    @property
    def predictors(self) -> list[MultiTokenPredictor]:
        """The prediction modules, typed."""
        return [module for module in self.mtp if isinstance(module, MultiTokenPredictor)]

    def collect(self, hidden_ND: Tensor, stats: RouterStats) -> HiddenStates:
        """Puts a pass's results together."""
        empty = torch.zeros(0, self.config.n_routed_experts, dtype=torch.int64, device=hidden_ND.device)
        counts = torch.stack(stats.counts) if stats.counts else empty
        stats.complete = True
        differing = torch.stack(stats.differing) if stats.differing else None
        return HiddenStates(hidden_ND, counts, stats.total_loss(self.config.aux_loss_alpha), differing)

    def mtp_hidden(
        self, hidden: HiddenStates, token_ids_N: Int[Tensor, " N"], layout: Layout, trains_embedding: bool = True
    ) -> list[HiddenStates]:
        """What each prediction module makes of the main model's hidden states: see `mtp.MultiTokenPredictor`.

        Element k - 1 predicts token i + k + 1 from position i: pair it with `layout.shift(token_ids_N, k + 1)`,
        whose mask says which positions have a target. Without `trains_embedding` no gradient reaches the embedding.
        """
        results = []
        for depth, module in enumerate(self.mtp, start=1):
            stats = RouterStats()
            next_ids_N, _ = layout.shift(token_ids_N, depth)
            rotations_NR = self.rope.at(layout.positions_N, layout.longest)
            embedded_ND = self.embed_tokens(next_ids_N)
            if not trains_embedding:
                embedded_ND = embedded_ND.detach()
            x_ND = module(hidden.hidden_ND, embedded_ND, layout, rotations_NR, stats)
            hidden = self.collect(x_ND, stats)
            results.append(hidden)
        return results
