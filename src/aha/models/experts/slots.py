"""Slots, the pairs of a token and one of its experts, sorted by expert."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Slots(NamedTuple):
    """The N * A (token, expert) pairs in the order of experts."""

    token: Tensor
    """Token of each sorted slot, [S]."""
    place: Tensor
    """Where in the sorted order each token's slots are, [N, A]."""
    order: Tensor
    """Flat index n * A + a of each sorted slot, [S]."""
    counts: Tensor
    """Slots of each expert, int64 [E]."""


def sort_slots(indices_NA: Tensor, num_experts: int) -> Slots:
    """Sorts the slots by expert, tokens of one expert in their own order."""
    flat_S = indices_NA.flatten()
    order_S = torch.argsort(flat_S, stable=True)
    place_S = torch.empty_like(order_S)
    place_S[order_S] = torch.arange(order_S.numel(), device=order_S.device)
    token_S = torch.div(order_S, indices_NA.shape[1], rounding_mode="floor")
    # Not bincount: on CUDA it waits for the device to learn the size of its result.
    counts_E = torch.zeros(num_experts, dtype=torch.int64, device=flat_S.device)
    counts_E.scatter_add_(0, flat_S, torch.ones_like(flat_S))
    return Slots(token_S, place_S.view_as(indices_NA), order_S, counts_E)
