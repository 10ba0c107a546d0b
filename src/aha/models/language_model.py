"""What pretraining, reinforcement learning, evaluation and the engine need of a model, whatever its family.

Token-wise work runs on flattened tokens N without padding; a layout says which tokens make up which sequence.

    hidden = model(token_ids_N, layout)         training and scoring
    logits = model.logits(hidden.hidden_ND)     [N, V]; or log-probabilities in chunks, from model.head_weight
    cache = model.new_cache(rows, max_length)
    logits = model.prefill(prompts, cache, rows)    fills rows of the cache; at each prompt's last token
    logits = model.decode(token_ids_B, cache)   one more token for rows 0 to B-1
    guesses = model.draft(token_ids_BW, cache)  at the next tokens, by the prediction modules
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aha.models.block import RouterStats
from aha.models.kv_cache import RowCache
from aha.models.layers import RMSNorm
from aha.models.layouts import Layout, Ragged
from aha.models.model_config import ModelConfig
from aha.models.moe import Router
from aha.models.rope import Rope


@dataclass(slots=True)
class HiddenStates:
    """The result of a forward pass."""

    hidden_ND: Float[Tensor, "N D"]  # noqa: N815
    """After the final norm: what the head and the prediction modules read."""
    router_counts: Int[Tensor, "L E"]
    """Tokens per expert, int64 [MoE layers, E], for the bias update and the load metrics; [0, E] without any."""
    balance_loss: Float[Tensor, ""] | None
    """V3 Eq. 17, summed over layers, alpha included: add it to the loss. None outside training."""


class Decoder(Protocol):
    """A way to run one decode step."""

    def is_stale(self) -> bool:
        """Whether the model's weights have changed since the decoder was made from them."""
        ...

    def step(self, token_ids: Tensor, cache: RowCache, /) -> Tensor:
        """Logits [B, V] after one more token in each of the rows 0 to B-1, or after each of several: see `decode`."""
        ...


class LanguageModel(nn.Module, ABC):
    """Embedding, layers, final norm, head and multi-token prediction modules.

    The vocabulary may be padded (Qwen's has more rows than its tokenizer has tokens). Logits then have the tokens
    alone, in the engine as in the trainer: a padded row is never sampled, has no part in the softmax's sum, and gets
    no gradient.

    Args:
        config: sizes.
        layers: called with (tokens, layout, rotations, router statistics, cache entries to fill or None).
        mtp: prediction modules.
        rope: rotations by position, in the form that the layers take.
    """

    config: ModelConfig

    def __init__(
        self, config: ModelConfig, layers: Iterable[nn.Module], mtp: Iterable[nn.Module] = (), rope: Rope | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.mtp = nn.ModuleList(mtp)
        self.rope = rope or Rope(config)
        self.activation_checkpointing = False
        """Whether training keeps only the input of each layer and computes the layer again for its gradient."""
        self.num_tokens = config.vocab_size
        """Rows of embedding and head that are tokens, from 0; those after are padding and stay as they are."""
        self.generation_config: Mapping[str, Any] | None = None
        """Of the checkpoint it was loaded from, for the next one."""
        self._decoder: Decoder | None = None
        self.register_load_state_dict_post_hook(_weights_replaced)

    @abstractmethod
    def new_cache(self, rows: int, max_length: int, drafts: int = 0) -> RowCache:
        """An empty cache for `prefill` and `decode`, with the model's device and type.

        With `drafts` (at most the prediction modules) it also serves `draft`, which guesses so many tokens.
        """

    @abstractmethod
    def _new_decoder(self) -> Decoder:
        """The best decoder for the weights as they are."""

    @abstractmethod
    def collect(self, hidden_ND: Tensor, stats: RouterStats) -> HiddenStates:
        """Puts a pass's results together."""

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> Self:
        """Draws matrices from normal(0, initializer_range); norms are 1, biases of layers and routers 0 (V3 4.2).

        Returns itself.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif name.endswith(".bias"):
                parameter.zero_()
            else:
                parameter.normal_(0.0, self.config.initializer_range, generator=generator)
        for router in self.routers():
            if router.e_score_correction_bias is not None:
                router.e_score_correction_bias.zero_()
        return self

    def routers(self) -> Iterator[Router]:
        """The routers in the order of `router_counts`: of the layers, then of the prediction modules."""
        return (module for module in self.modules() if isinstance(module, Router))

    def forward(self, token_ids_N: Int[Tensor, " N"], layout: Layout) -> HiddenStates:
        """Hidden states of every token, after the final norm."""
        stats = RouterStats([], [])
        x_ND = self.embed_tokens(token_ids_N)
        turns = self.rope.at(layout.positions_N, layout.longest)
        for layer in self.layers:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x_ND = checkpoint(layer, x_ND, layout, turns, stats, use_reentrant=False)
            else:
                x_ND = layer(x_ND, layout, turns, stats)
        return self.collect(self.norm(x_ND), stats)

    @property
    def head_weight(self) -> Float[Tensor, "V D"]:
        """The head's rows that are tokens, [num_tokens, D]: a view."""
        weight = self.lm_head.weight
        return weight if self.num_tokens == weight.shape[0] else weight[: self.num_tokens]

    def logits(self, hidden_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Scores of the next token, [N, num_tokens]."""
        return F.linear(hidden_ND, self.head_weight)

    def mtp_hidden(self, hidden: HiddenStates, token_ids_N: Int[Tensor, " N"], layout: Layout) -> list[HiddenStates]:
        """What each prediction module makes of the main model's hidden states; nothing where there is none."""
        return []

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
        device = self.embed_tokens.weight.device
        layout = Ragged([len(prompt) for prompt in prompts], device)
        cache.start(rows, layout.lengths)
        slots_N = cache.slots(torch.tensor(list(rows), device=device)[layout.segment_of_N], layout.positions_N)
        token_ids_N = torch.tensor([t for prompt in prompts for t in prompt], device=device)
        x_ND = self.embed_tokens(token_ids_N)
        turns = self.rope.at(layout.positions_N, layout.longest)
        stats = RouterStats([], [])
        entries_NC = cache.entries.new_empty(layout.num_tokens, cache.width)
        for index, layer in enumerate(self.layers):
            x_ND = layer(x_ND, layout, turns, stats, entries_NC)
            cache.by_slot[index].index_copy_(0, slots_N, entries_NC)
        self._prefill_predictors(x_ND, token_ids_N, layout, turns, cache, slots_N, entries_NC)
        return self.logits(self.norm(x_ND.index_select(0, layout.last_S)))

    @torch.inference_mode()
    def decode(self, token_ids: Int[Tensor, "B ..."], cache: RowCache) -> Float[Tensor, "N V"]:
        """Appends one token to each of the rows 0 to B-1 and returns the logits after it, [B, V].

        A model with prediction modules takes several in each row as well, [B, W], and returns the logits after each,
        row by row. Small models on a CPU are packed for it, again when weights have changed: see `packed.py`.
        """
        return self.decoder().step(token_ids, cache)

    def draft(self, token_ids_BW: Int[Tensor, "B W"], cache: RowCache) -> Int[Tensor, "B X"]:
        """What the prediction modules guess comes next; nothing, [B, 0], where there is none."""
        return token_ids_BW[:, :0]

    def decoder(self) -> Decoder:
        """The decoder for the weights as they are."""
        if self._decoder is None or self._decoder.is_stale():
            self._decoder = self._new_decoder()
        return self._decoder

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
        """Fills the prediction modules' layers of a cache, where it has any, from what comes out of the last layer."""

    def weights_changed(self) -> None:
        """Forgets what `decode` has packed, after weights were written in a way that PyTorch does not record."""
        self._decoder = None

    def weights_replaced(self) -> None:
        """Puts things right after parameters were exchanged for new ones."""
        self.weights_changed()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moving or casting replaces parameters."""
        super()._apply(fn, recurse)
        self.weights_replaced()
        return self


def _weights_replaced(model: LanguageModel, _: Any) -> None:
    """Loading with assign=True replaces parameters as well."""
    model.weights_replaced()
