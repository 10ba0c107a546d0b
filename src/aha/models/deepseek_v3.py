"""The DeepSeek-V3 model: embedding, layers of latent attention and mixture of experts, head, prediction modules."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from aha.models.block import DecoderLayer, RouterStats
from aha.models.config import DeepseekV3Config
from aha.models.decode import AbsorbedDecoder
from aha.models.drafting import draft
from aha.models.graphed import GraphedDecoder, capture_cuda_graph
from aha.models.kv_cache import DraftCache, LatentCache, RowCache
from aha.models.language_model import Decoder, HiddenStates, LanguageModel
from aha.models.latent_packed import PackedDecoder
from aha.models.layouts import Layout
from aha.models.mtp import MultiTokenPredictor
from aha.models.packed import can_pack


class DeepseekV3(LanguageModel):
    """A DeepSeek-V3 language model with its multi-token prediction modules."""

    config: DeepseekV3Config

    def __init__(self, config: DeepseekV3Config) -> None:
        layers = [DecoderLayer(config, i) for i in range(config.num_hidden_layers)]
        super().__init__(config, layers, [MultiTokenPredictor(config) for _ in range(config.num_nextn_predict_layers)])

    def decoder_layers(self) -> Iterator[DecoderLayer]:
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
        return HiddenStates(hidden_ND, counts, stats.total_loss(self.config.aux_loss_alpha))

    def mtp_hidden(self, hidden: HiddenStates, token_ids_N: Int[Tensor, " N"], layout: Layout) -> list[HiddenStates]:
        """What each prediction module makes of the main model's hidden states: see `mtp.MultiTokenPredictor`.

        Element k - 1 predicts token i + k + 1 from position i: pair it with `layout.shift(token_ids_N, k + 1)`,
        whose mask says which positions have a target.
        """
        results = []
        for depth, module in enumerate(self.mtp, start=1):
            stats = RouterStats([], [])
            next_ids_N, _ = layout.shift(token_ids_N, depth)
            cis_NR = self.rope.at(layout.positions_N, layout.longest)
            x_ND = module(hidden.hidden_ND, self.embed_tokens(next_ids_N), layout, cis_NR, stats)
            hidden = self.collect(x_ND, stats)
            results.append(hidden)
        return results

    def new_cache(self, rows: int, max_length: int, drafts: int = 0) -> LatentCache:
        """An empty latent cache with the model's device and type, for so many drafted tokens a step."""
        weight = self.embed_tokens.weight
        if drafts:
            return DraftCache(self.config, rows, max_length, drafts, weight.device, weight.dtype)
        return LatentCache(self.config, rows, max_length, weight.device, weight.dtype)

    @torch.inference_mode()
    def draft(self, token_ids_BW: Int[Tensor, "B W"], cache: RowCache) -> Int[Tensor, "B X"]:
        """Guesses at the next tokens of each row, one with each module: see `drafting.draft`."""
        assert isinstance(cache, DraftCache)
        decoder = self.decoder()
        predict = (decoder if isinstance(decoder, PackedDecoder) else AbsorbedDecoder(self)).predict
        return draft(token_ids_BW, cache, predict, self.logits)

    def _prefill_predictors(
        self,
        x_ND: Tensor,
        token_ids_N: Tensor,
        layout: Layout,
        turns: Tensor,
        cache: RowCache,
        slots_N: Tensor,
        entries_NC: Tensor,
    ) -> None:
        """Runs the prompts through the modules as `mtp_hidden` does, and keeps the hidden states of their ends."""
        if not isinstance(cache, DraftCache):
            return
        hidden_ND = self.norm(x_ND)
        lengths_S = torch.tensor(layout.lengths, device=layout.device)
        late_N = layout.positions_N >= lengths_S[layout.segment_of_N] - cache.window
        cache.keep_hidden(hidden_ND[late_N], slots_N[late_N])
        for depth, module in enumerate(self.predictors[: cache.modules], start=1):
            next_ids_N, _ = layout.shift(token_ids_N, depth)
            embedding_ND = self.embed_tokens(next_ids_N)
            hidden_ND = module(hidden_ND, embedding_ND, layout, turns, RouterStats([], []), entries_NC)
            cache.by_slot[len(self.layers) + depth - 1].index_copy_(0, slots_N, entries_NC)

    def _new_decoder(self) -> Decoder:
        """The absorbed form of the attention: `latent_packed.py` for small models on a CPU, `decode.py` for all others.

        On CUDA the latter runs as graphs.
        """
        if can_pack(self):
            return PackedDecoder(self)
        absorbed = AbsorbedDecoder(self)
        return GraphedDecoder(absorbed, capture_cuda_graph) if self.lm_head.weight.is_cuda else absorbed
