"""What pretraining, reinforcement learning, evaluation and the engine need of a model, whatever its family.

Token-wise work runs on flattened tokens N without padding; a layout says which tokens make up which sequence.

    hidden = model(token_ids_N, layout)         training and scoring
    logits = model.logits(hidden.hidden_ND)     [N, V]; or log-probabilities in chunks, from model.head_weight

A model is weights and a forward pass; `inference.runner` generates with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aha.models.config.base import ModelConfig
from aha.models.layers import RMSNorm
from aha.models.layouts import Layout
from aha.models.moe import Router, RouterStats, SampledExperts
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
    differing: Int[Tensor, " L"] | None = None
    """Tokens that each router would have sent elsewhere than the sampler's did, where its choice was given."""


class LanguageModel(nn.Module, ABC):
    """Embedding, layers, final norm, head and multi-token prediction modules.

    The vocabulary may be padded (Qwen's has more rows than its tokenizer has tokens). Logits then have the tokens
    alone, in the engine as in the trainer: a padded row is never sampled, has no part in the softmax's sum, and gets
    no gradient.

    Args:
        config: sizes.
        layers: called with (tokens, layout, rotations, router statistics).
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
        self.replacements = 0
        """How often parameters were replaced: who keeps copies of weights makes them again when it has grown."""
        self.register_load_state_dict_post_hook(_weights_replaced)

    @abstractmethod
    def collect(self, hidden_ND: Tensor, stats: RouterStats) -> HiddenStates:
        """Puts a pass's results together."""

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> Self:
        """Draws matrices from normal(0, initializer_range); norms are 1, biases of layers and routers 0 (V3 4.2).

        Rerotations itself.
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

    def forward(
        self, token_ids_N: Int[Tensor, " N"], layout: Layout, sampled: SampledExperts | None = None
    ) -> HiddenStates:
        """Hidden states of every token, after the final norm; with the experts of a sampler to be kept or compared."""
        stats = RouterStats()
        if sampled is not None:
            by_router = dict(zip(self.routers(), sampled.indices_LNA, strict=False))  # prediction modules have none
            stats = RouterStats(by_router, sampled.replays)
        x_ND = self.embed_tokens(token_ids_N)
        rotations = self.rope.at(layout.positions_N, layout.longest)
        for layer in self.layers:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x_ND = checkpoint(layer, x_ND, layout, rotations, stats, use_reentrant=False)
            else:
                x_ND = layer(x_ND, layout, rotations, stats)
        return self.collect(self.norm(x_ND), stats)

    @property
    def head_weight(self) -> Float[Tensor, "V D"]:
        """The head's rows that are tokens, [num_tokens, D]: a view."""
        weight = self.lm_head.weight
        return weight if self.num_tokens == weight.shape[0] else weight[: self.num_tokens]

    def logits(self, hidden_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Scores of the next token, [N, num_tokens]."""
        return F.linear(hidden_ND, self.head_weight)

    def mtp_hidden(
        self, hidden: HiddenStates, token_ids_N: Int[Tensor, " N"], layout: Layout, trains_embedding: bool = True
    ) -> list[HiddenStates]:
        """What each prediction module makes of the main model's hidden states; nothing where there is none."""
        return []

    def weights_replaced(self) -> None:
        """Says that parameters were exchanged for new ones, or written in a way that PyTorch does not record."""
        self.replacements += 1

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moving or casting replaces parameters."""
        super()._apply(fn, recurse)
        self.weights_replaced()
        return self


def _weights_replaced(model: LanguageModel, _: Any) -> None:
    """Loading with assign=True replaces parameters as well."""
    model.weights_replaced()
