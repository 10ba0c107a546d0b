"""The DeepSeek-V3 model: embedding, layers of latent attention and mixture of experts, head, prediction modules.

Token-wise work runs on flattened tokens N without padding; a layout says which tokens make up which sequence.

    hidden = model(token_ids_N, layout)         training and scoring
    logits = model.logits(hidden.hidden_ND)     [N, V]; or log-probabilities in chunks, from model.lm_head.weight
    logits = model.prefill(prompts, cache, rows)    fills the latent cache; at each prompt's last token
    logits = model.decode(token_ids_B, cache)   one more token for rows 0 to B-1
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from aha.models.block import DecoderLayer, RouterStats
from aha.models.config import DeepseekV3Config
from aha.models.decode import AbsorbedDecoder
from aha.models.kv_cache import LatentCache
from aha.models.layers import RMSNorm
from aha.models.layouts import Layout, Ragged
from aha.models.moe import Router
from aha.models.mtp import MultiTokenPredictor
from aha.models.packed import PackedDecoder, can_pack
from aha.models.rope import Rope


@dataclass(slots=True)
class HiddenStates:
    """The result of a forward pass."""

    hidden_ND: Float[Tensor, "N D"]  # noqa: N815
    """After the final norm: what the head and the prediction modules read."""
    router_counts: Int[Tensor, "L E"]
    """Tokens per expert, int64 [MoE layers, E], for the bias update and the load metrics."""
    balance_loss: Float[Tensor, ""] | None
    """V3 Eq. 17, summed over layers, alpha included: add it to the loss. None outside training."""


class DeepseekV3(nn.Module):
    """A DeepSeek-V3 language model with its multi-token prediction modules."""

    def __init__(self, config: DeepseekV3Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.mtp = nn.ModuleList(MultiTokenPredictor(config) for _ in range(config.num_nextn_predict_layers))
        self.rope = Rope(config)
        self._decoder: PackedDecoder | AbsorbedDecoder | None = None
        self.register_load_state_dict_post_hook(_forget_decoder)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> DeepseekV3:
        """Draws all weights from normal(0, initializer_range), norms 1 and routing biases 0 (V3 4.2).

        Returns itself.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, self.config.initializer_range, generator=generator)
        for router in self.routers():
            if router.e_score_correction_bias is not None:
                router.e_score_correction_bias.zero_()
        return self

    def decoder_layers(self) -> Iterator[DecoderLayer]:
        """The layers of the main model, typed."""
        return (layer for layer in self.layers if isinstance(layer, DecoderLayer))

    def routers(self) -> Iterator[Router]:
        """The routers in the order of `router_counts`: of the layers, then of the prediction modules."""
        return (module for module in self.modules() if isinstance(module, Router))

    def forward(self, token_ids_N: Int[Tensor, " N"], layout: Layout) -> HiddenStates:
        """Hidden states of every token, after the final norm."""
        stats = RouterStats([], [])
        x_ND = self.embed_tokens(token_ids_N)
        cis_NR = self.rope.at(layout.positions_N, layout.longest)
        for layer in self.layers:
            x_ND = layer(x_ND, layout, cis_NR, stats)
        return self.collect(self.norm(x_ND), stats)

    def collect(self, hidden_ND: Tensor, stats: RouterStats) -> HiddenStates:
        """Puts a pass's results together."""
        empty = torch.zeros(0, self.config.n_routed_experts, dtype=torch.int64, device=hidden_ND.device)
        counts = torch.stack(stats.counts) if stats.counts else empty
        return HiddenStates(hidden_ND, counts, stats.total_loss(self.config.aux_loss_alpha))

    def logits(self, hidden_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Scores of the next token, [N, V]."""
        return self.lm_head(hidden_ND)

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

    @torch.inference_mode()
    def prefill(
        self, prompts: Sequence[Sequence[int]], cache: LatentCache, rows: Sequence[int]
    ) -> Float[Tensor, "B V"]:
        """Runs whole prompts through the expanded attention and stores their latents.

        Args:
            prompts: token ids, at least one each.
            cache: where the latents go.
            rows: the cache row of each prompt; what was in it is overwritten.

        Returns:
            Logits at each prompt's last token, [len(prompts), V].
        """
        device = self.embed_tokens.weight.device
        layout = Ragged([len(prompt) for prompt in prompts], device)
        cache.start(rows, layout.lengths)
        slots_N = cache.slots(torch.tensor(list(rows), device=device)[layout.segment_of_N], layout.positions_N)
        x_ND = self.embed_tokens(torch.tensor([t for prompt in prompts for t in prompt], device=device))
        cis_NR = self.rope.at(layout.positions_N, layout.longest)
        stats = RouterStats([], [])
        entries_NC = cache.entries.new_empty(layout.num_tokens, cache.width)
        for index, layer in enumerate(self.layers):
            x_ND = layer(x_ND, layout, cis_NR, stats, entries_NC)
            cache.by_slot[index].index_copy_(0, slots_N, entries_NC)
        return self.logits(self.norm(x_ND.index_select(0, layout.last_S)))

    @torch.inference_mode()
    def decode(self, token_ids_B: Int[Tensor, " B"], cache: LatentCache) -> Float[Tensor, "B V"]:
        """Appends one token to each of the rows 0 to B-1 and returns the logits after it, [B, V].

        Uses the absorbed form of the attention: `packed.py` for small models on a CPU, repacked when weights have
        changed, and `decode.py` for all others.
        """
        if self._decoder is None or self._decoder.is_stale():
            self._decoder = PackedDecoder(self) if can_pack(self) else AbsorbedDecoder(self)
        return self._decoder.step(token_ids_B, cache)

    def weights_changed(self) -> None:
        """Forgets what `decode` has packed, after weights were written in a way that PyTorch does not record."""
        self._decoder = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moving or casting parameters replaces them, so what was packed from them is forgotten."""
        self.weights_changed()
        return super()._apply(fn, recurse)


def _forget_decoder(model: DeepseekV3, _: Any) -> None:
    """Loading with assign=True replaces parameters as well."""
    model.weights_changed()
