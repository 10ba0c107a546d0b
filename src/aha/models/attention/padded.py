"""Attention on padded rectangles with any backend of PyTorch's: for what the others do not serve, and their oracle."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from aha.models.layouts import Layout


def attend_padded(q_NHK: Tensor, k_NJK: Tensor, v_NJV: Tensor, layout: Layout, scale: float) -> Tensor:
    """See `attention.attend`. Prompts are copied beside each of their completions, behind a mask."""
    grid = layout.grid
    mask = None if grid.mask_STX is None else grid.mask_STX.unsqueeze(1)
    q, k, v = (
        x[index].transpose(1, 2) for x, index in ((q_NHK, grid.query_ST), (k_NJK, grid.key_SX), (v_NJV, grid.key_SX))
    )
    grouped = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scale, enable_gqa=grouped)
    return out.transpose(1, 2).flatten(0, 1).index_select(0, grid.place_N)
