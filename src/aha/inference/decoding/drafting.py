"""Drafts for speculative decoding: what the prediction modules guess comes next (V3 sections 2.2 and 5.4.3).

A row holds tokens 0 to m-1, and token m is known. Module k reads at position m-1 the state h^{k-1} and token m-1+k, and
its most likely token is the guess at token m+k, which module k+1 reads. The modules attend over their own past, in
layers of the cache behind the model's.

Every draft computes a row's latest D + 1 positions, with D modules. The last verification added 1 to D + 1; where a
wrong guess kept it from more, modules have read that guess at positions before, and those are among the rest. So all
rows have the same number of them, whatever was accepted.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aha.inference.decoding.cache import DraftCache
from aha.inference.decoding.step import StepInputs

Predict = Callable[[int, Tensor, Tensor, DraftCache, StepInputs], Tensor]
"""Module k (from 0): (k, token ids [N], hidden states [N, D], cache, places) to the module's hidden states [N, D]."""


def draft(token_ids_BW: Tensor, cache: DraftCache, predict: Predict, logits: Callable[[Tensor], Tensor]) -> Tensor:
    """Guesses the next tokens of the rows 0 to B-1, one with each of the cache's modules: [B, modules].

    Args:
        token_ids_BW: each row's tokens from one after the start of its window to the last known one, token m, which
            the cache does not hold yet. The window of a shorter row begins at 0, and any ids fill up its end.
        cache: holds tokens 0 to m-1 of each row, and their hidden states.
        predict: runs a module.
        logits: the model's head.
    """
    rows, window = token_ids_BW.shape
    device = cache.device
    lengths_B = cache.lengths[:rows].to(device)
    starts_B = (lengths_B - window).clamp_(min=0)
    positions_N = (starts_B[:, None] + torch.arange(window, device=device)).flatten()
    slots_N = cache.slots(torch.arange(rows, device=device).repeat_interleave(window), positions_N)
    # A row shorter than the window has padding behind its end: the mask must reach that far, and nothing reads it.
    longest = max(int(cache.lengths[:rows].max()), window)
    at = StepInputs(rows, slots_N, positions_N, longest, cache.causal_mask(positions_N, rows, longest))
    last_B1 = (lengths_B - starts_B - 1).unsqueeze(-1)
    last_of_N = (torch.arange(rows, device=device) * window) + last_B1.squeeze(-1)
    # Room behind the known tokens for each module's guess, which the next module reads as if it were known.
    ids_BX = torch.cat([token_ids_BW, token_ids_BW.new_zeros(rows, cache.modules)], dim=-1)
    hidden_ND = cache.hidden(slots_N)
    for k in range(cache.modules):
        hidden_ND = predict(k, ids_BX[:, k : k + window].flatten(), hidden_ND, cache, at)
        guess_B1 = logits(hidden_ND.index_select(0, last_of_N)).argmax(-1, keepdim=True)
        ids_BX.scatter_(1, last_B1 + (k + 1), guess_B1)
    return ids_BX.gather(1, last_B1 + torch.arange(1, cache.modules + 1, device=device))
