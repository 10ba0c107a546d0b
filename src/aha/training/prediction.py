"""Prediction modules that learn beside a model: in fine-tuning and RL, where they would fall behind what they predict.

They read the model's hidden states and share its embedding and its head (V3 section 2.2), but no gradient goes back
into any of these here: the model learns what it would learn without them, and they draft for the model as it is now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aha.models.language_model import HiddenStates, LanguageModel
from aha.models.layouts import Layout, Ragged
from aha.training.logprobs import chunked_logprobs


@dataclass(frozen=True)
class Predicted:
    """What of a batch the modules learn from.

    Attributes:
        members: this process's examples among it, as `id` has them: the batch holds them.
        tokens: that are predicted, in all processes.
    """

    members: frozenset[int]
    tokens: int

    def among(self, part: Sequence[object]) -> list[int]:
        """Which of a part of the batch, by number."""
        return [number for number, one in enumerate(part) if id(one) in self.members]


def prediction_loss(
    model: LanguageModel,
    hidden: HiddenStates,
    token_ids_N: Tensor,
    layout: Layout,
    trained_N: Tensor,
    chosen: Sequence[int],
) -> Tensor:
    """Cross-entropy of what the modules predict (V3 Eq. 24): summed over tokens, mean over modules.

    It moves them alone.

    The modules run in any case, as processes that share a model must: without sequences on one for nothing.

    Args:
        model: whose modules learn; it has at least one.
        hidden: of its forward pass.
        token_ids_N: that it read.
        layout: of these tokens.
        trained_N: which of them are to be predicted, bool.
        chosen: the sequences on which the modules learn, by number in `whole_sequences`.
    """
    sequences = whole_sequences(layout)
    places = [sequences[number] for number in chosen] or sequences[:1]
    place_M, inner = torch.cat(places), Ragged([len(place) for place in places], layout.device)
    ids_M, trained_M = token_ids_N[place_M], trained_N[place_M]
    states = HiddenStates(hidden.hidden_ND.detach()[place_M], hidden.router_counts, None)
    outputs = model.mtp_hidden(states, ids_M, inner, trains_embedding=False)
    total = hidden.hidden_ND.new_zeros((), dtype=torch.float32)
    for depth, output in enumerate(outputs, start=1):
        targets_M, there_M = inner.shift(ids_M, depth + 1)
        wanted = (there_M & inner.shift(trained_M, depth + 1)[0]).nonzero().squeeze(-1)
        states_WD, head_VD = output.hidden_ND.index_select(0, wanted), model.head_weight.detach()
        total = total - chunked_logprobs(states_WD, head_VD, targets_M[wanted], entropy=False)[0].sum()
    return total / len(outputs) if chosen else total * 0.0


def whole_sequences(layout: Layout) -> list[Tensor]:
    """Where the tokens of each sequence are in N, those of its prefix first. A prefix is no sequence by itself."""
    spans = [torch.arange(start, start + length) for start, length in zip(layout.starts, layout.lengths, strict=True)]
    continued = set(layout.prefixes)
    return [
        (span if prefix < 0 else torch.cat([spans[prefix], span])).to(layout.device)
        for number, (prefix, span) in enumerate(zip(layout.prefixes, spans, strict=True))
        if number not in continued
    ]


def evenly_spread(count: int, share: float) -> range:
    """Which of `count` sequences the modules learn from: that share of them, evenly spread, and at least one."""
    every = round(1 / share)
    return range(min(every // 2, max(0, count - 1)), count, every)
