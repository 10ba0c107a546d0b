"""Attention with the flash kernels for sequences of different lengths: no padding, no mask, no score in memory.

A segment's keys are its prefix's followed by its own, gathered by index. The kernel aligns the causal mask to the last
query and the last key, so a query sees all of the prefix. Merging by log-sum-exp, as `cpu.py` does, would spare the
copies of the prefix, but `varlen_attn` drops the gradient of the log-sum-exp.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from aha.models.attention.heads import pad_heads
from aha.models.layouts import Layout

WIDEST, MULTIPLE = 256, 8
"""Of a head, in the flash kernels."""
OLDEST = (8, 0)
"""Compute capability that they need."""


def serves(q_NHK: Tensor, v_NJV: Tensor) -> bool:
    """Whether the kernel takes these heads: on CUDA from Ampere on, in 16 bits, at most 256 wide."""
    narrow = q_NHK.dtype in (torch.bfloat16, torch.float16)
    fits = narrow and max(q_NHK.shape[-1], v_NJV.shape[-1]) <= WIDEST
    return q_NHK.is_cuda and fits and torch.cuda.get_device_capability(q_NHK.device) >= OLDEST


def attend_varlen(q_NHK: Tensor, k_NJK: Tensor, v_NJV: Tensor, layout: Layout, scale: float) -> Tensor:
    """See `attention.attend`. Heads are padded with zeros to one width, as MLA's of 192 and 128 need it."""
    v_dim = v_NJV.shape[-1]
    width = -(-max(q_NHK.shape[-1], v_dim) // MULTIPLE) * MULTIPLE
    q, k, v = (pad_heads(x, width) for x in (q_NHK, k_NJK, v_NJV))
    ends = layout.sequence_ends
    if ends.key_X is not None:
        k, v = k.index_select(0, ends.key_X), v.index_select(0, ends.key_X)
    out = varlen_attn(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        ends.queries,
        ends.keys,
        max(layout.lengths),
        layout.longest,
        scale=scale,
        window_size=(-1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert isinstance(out, Tensor)
    return out[..., :v_dim]
