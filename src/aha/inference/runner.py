"""A model at work: prompts into a cache, the decode step that suits its family and device, and drafts.

runner = Runner(model)
cache = runner.new_cache(rows, max_length)
logits = runner.prefill(prompts, cache, rows)    fills rows of the cache; at each prompt's last token
logits = runner.decode(token_ids_B, cache)       one more token for rows 0 to B-1
guesses = runner.draft(token_ids_BW, cache)      at the next tokens, by the prediction modules
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from aha.inference.decoding.cache import DraftCache, KeyValueCache, LatentCache, RowCache
from aha.inference.decoding.dense import DenseDecoder
from aha.inference.decoding.dense_packed import PackedDenseDecoder
from aha.inference.decoding.drafting import draft
from aha.inference.decoding.graphed import CudaCapture, GraphedDecoder
from aha.inference.decoding.latent import AbsorbedDecoder
from aha.inference.decoding.latent_packed import PackedLatentDecoder
from aha.inference.decoding.packed import can_pack
from aha.inference.decoding.step import Decoder
from aha.models.decoder_layer import DecoderLayer
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.dense import Dense, DenseLayer
from aha.models.language_model import LanguageModel
from aha.models.layouts import Ragged
from aha.models.moe import RouterStats


class Runner:
    """Runs a model for generation.

    Args:
        model: may change between calls, in place or by new parameters.
        new_decoder: makes the decode step for the weights as they are; None: the best one for family and device, packed
            for small models on a CPU (see `decoding.packed`), as graphs on CUDA.
    """

    def __init__(self, model: LanguageModel, new_decoder: Callable[[], Decoder] | None = None) -> None:
        assert isinstance(model, DeepseekV3 | Dense)
        self.model: DeepseekV3 | Dense = model
        self._new_decoder = new_decoder or self._best_decoder
        self._decoder: Decoder | None = None
        self._replacements = model.replacements
        self._capture: CudaCapture | None = None
        self._watched = False

    def new_cache(self, rows: int, max_length: int, drafts: int = 0) -> RowCache:
        """An empty cache with the model's device and type.

        With `drafts` (at most the prediction modules) it also serves `draft`, which guesses so many tokens.
        """
        model, weight = self.model, self.model.embed_tokens.weight
        if isinstance(model, Dense):
            assert drafts == 0
            return KeyValueCache(model.config, rows, max_length, weight.device, weight.dtype)
        if drafts:
            return DraftCache(model.config, rows, max_length, drafts, weight.device, weight.dtype)
        return LatentCache(model.config, rows, max_length, weight.device, weight.dtype)

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]], cache: RowCache, rows: Sequence[int]) -> Float[Tensor, "B V"]:
        """Runs whole prompts through the layers, as in training, and fills the cache.

        Args:
            prompts: token ids, at least one each.
            cache: of `new_cache`.
            rows: the cache row of each prompt; what was in it is overwritten.

        Returns:
            Logits at each prompt's last token, [len(prompts), V].
        """
        model, device = self.model, cache.device
        layout = Ragged([len(prompt) for prompt in prompts], device)
        cache.start(rows, layout.lengths)
        slots_N = cache.slots(torch.tensor(list(rows), device=device)[layout.segment_of_N], layout.positions_N)
        token_ids_N = torch.tensor([t for prompt in prompts for t in prompt], device=device)
        x_ND, stats = model.embed_tokens(token_ids_N), RouterStats()
        rotations = model.rope.at(layout.positions_N, layout.longest)
        layers: Iterator[DecoderLayer | DenseLayer] = model.typed_layers()
        for index, layer in enumerate(layers):
            x_ND, entry = layer.with_entry(x_ND, layout, rotations, stats)
            cache.store(index, slots_N, entry)
        if isinstance(cache, DraftCache):
            self._prefill_predictors(x_ND, token_ids_N, layout, cache, slots_N)
        return model.logits(model.norm(x_ND.index_select(0, layout.last_S)))

    def _prefill_predictors(
        self, x_ND: Tensor, token_ids_N: Tensor, layout: Ragged, cache: DraftCache, slots_N: Tensor
    ) -> None:
        """Runs the prompts through the modules as `mtp_hidden` does, and keeps the hidden states of their ends."""
        model = self.model
        assert isinstance(model, DeepseekV3)
        rotations = model.rope.at(layout.positions_N, layout.longest)
        hidden_ND = model.norm(x_ND)
        lengths_S = torch.tensor(layout.lengths, device=layout.device)
        late_N = layout.positions_N >= lengths_S[layout.segment_of_N] - cache.window
        cache.keep_hidden(hidden_ND[late_N], slots_N[late_N])
        for k, module in enumerate(model.predictors[: cache.modules]):
            next_ids_N, _ = layout.shift(token_ids_N, k + 1)
            joined_ND = module.join(hidden_ND, model.embed_tokens(next_ids_N))
            x_ND, entry = module.layer.with_entry(joined_ND, layout, rotations, RouterStats())
            hidden_ND = module.norm(x_ND)
            cache.store(len(model.layers) + k, slots_N, entry)

    @torch.inference_mode()
    def decode(self, token_ids: Int[Tensor, "B ..."], cache: RowCache) -> Float[Tensor, "N V"]:
        """Appends one token to each of the rows 0 to B-1 and returns the logits after it, [B, V].

        A model with prediction modules takes several in each row as well, [B, W], and returns the logits after each,
        row by row.
        """
        decoder = self.decoder()
        if self._watched and isinstance(decoder, GraphedDecoder):
            decoder = decoder.plain  # in a graph no router is asked
        return decoder.step(token_ids, cache)

    @contextmanager
    def watched_experts(self) -> Iterator[list[Tensor]]:
        """Collects what the routers choose in a `prefill` or `decode` inside: [N, A] of each layer that has one."""
        routers = list(self.model.routers())[: self.model.config.num_moe_layers]
        chosen: list[Tensor] = []
        self._watched = True
        for router in routers:
            router.record = chosen
        try:
            yield chosen
        finally:
            self._watched = False
            for router in routers:
                router.record = None

    @torch.inference_mode()
    def draft(self, token_ids_BW: Int[Tensor, "B W"], cache: DraftCache) -> Int[Tensor, "B X"]:
        """Guesses at the next tokens of each row, one with each prediction module: see `drafting.draft`."""
        model, decoder = self.model, self.decoder()
        assert isinstance(model, DeepseekV3)
        drafter = decoder if isinstance(decoder, PackedLatentDecoder) else AbsorbedDecoder(model)
        return draft(token_ids_BW, cache, drafter.predict, model.logits)

    def decoder(self) -> Decoder:
        """The decoder for the weights as they are: made again after they have changed where it holds its own copy."""
        replaced = self._replacements != self.model.replacements
        if self._decoder is None or replaced or self._decoder.is_stale():
            self._replacements = self.model.replacements
            self._decoder = self._new_decoder()
        return self._decoder

    def _best_decoder(self) -> Decoder:
        model = self.model
        if isinstance(model, Dense):
            if can_pack(model):
                return PackedDenseDecoder(model)
            decoder: AbsorbedDecoder | DenseDecoder = DenseDecoder(model)
        else:
            if can_pack(model):
                return PackedLatentDecoder(model)
            decoder = AbsorbedDecoder(model)
        if not model.lm_head.weight.is_cuda:
            return decoder
        self._capture = self._capture or CudaCapture()
        return GraphedDecoder(decoder, self._capture)
