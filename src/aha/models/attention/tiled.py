"""Causal attention of middling lengths on the CPU: blocks of queries, their probabilities kept for the backward pass.

The flash kernel recomputes scores and exponentials backward. For some hundreds of tokens it is faster to keep the
probabilities of each block of 64 queries, and to do all the work on one block while it is in a core's own cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from aha.models.layouts import SegmentBatch

QUERIES = 64
"""Queries per block: smaller ones waste less on masked scores, larger ones make better matrix products."""
MIN_LENGTH = 192
"""Shorter segments are left to the flash kernel, which takes many of them in one call."""
MAX_KEPT_BYTES = 96 << 20
"""Probabilities kept per layer; beyond, the flash kernel's recomputation is the better deal."""


def worthwhile(batches: Sequence[SegmentBatch], heads: int) -> bool:
    """Whether the segments are long enough to gain and short enough to keep."""
    tokens = sum(batch.segments * batch.length for batch in batches)
    long_enough = sum(batch.segments * batch.length for batch in batches if batch.length >= MIN_LENGTH)
    return 2 * long_enough > tokens and 4 * heads * _pairs(batches) <= MAX_KEPT_BYTES


def tiled_forward(
    q_NHK: Tensor, k_NHK: Tensor, v_NHV: Tensor, batches: Sequence[SegmentBatch], scale: float
) -> tuple[Tensor, Tensor]:
    """Outputs [N, H, V], and the probabilities of all blocks one after another."""
    heads = q_NHK.shape[1]
    out_NHV = v_NHV.new_empty(v_NHV.shape)
    q, k_t, v, out = q_NHK.transpose(0, 1), k_NHK.permute(1, 2, 0), v_NHV.transpose(0, 1), out_NHV.transpose(0, 1)
    # One allocation for the probabilities of all blocks: as many small ones would cost more than they hold.
    kept = q_NHK.new_empty(heads * _pairs(batches))
    hidden = torch.full((QUERIES, QUERIES), float("-inf"), dtype=kept.dtype).triu_(1)
    for (first, start, stop), p in _with_probabilities(batches, kept, heads):
        # Only the diagonal block needs the mask: keys before it are all seen, keys behind it are never computed.
        torch.baddbmm(p, q[:, start:stop], k_t[:, :, first:stop], beta=0, alpha=scale, out=p)
        p[:, :, start - first :] += hidden[: stop - start, : stop - start]
        torch.softmax(p, -1, out=p)
        torch.bmm(p, v[:, first:stop], out=out[:, start:stop])
    return out_NHV, kept


def tiled_backward(
    grad_NHV: Tensor,
    saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    batches: Sequence[SegmentBatch],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, from the saved (q, k, v, out, probabilities): dS = P * (dP - sum(dO * O))."""
    q_NHK, k_NHK, v_NHV, out_NHV, kept = saved
    heads = q_NHK.shape[1]
    grads = torch.empty_like(q_NHK), torch.zeros_like(k_NHK), torch.zeros_like(v_NHV)
    dq, dk, dv = (grad.transpose(0, 1) for grad in grads)
    q, k, v_t, grad = q_NHK.transpose(0, 1), k_NHK.transpose(0, 1), v_NHV.permute(1, 2, 0), grad_NHV.transpose(0, 1)
    # sum_j P_ij dP_ij = dO_i . O_i: the softmax's correction, without a sum over keys.
    sums_HN1 = torch.linalg.vecdot(grad_NHV, out_NHV).t().unsqueeze(-1)
    # One buffer for all blocks, so that scores' gradients stay in a core's cache.
    scratch = q_NHK.new_empty(heads * max(q * k for q, k in map(_size, _blocks(batches))))
    for (first, start, stop), p in _with_probabilities(batches, kept, heads):
        upstream = grad[:, start:stop]
        ds = scratch[: p.numel()].view(p.shape)
        torch.bmm(upstream, v_t[:, :, first:stop], out=ds)
        ds.sub_(sums_HN1[:, start:stop]).mul_(p)
        dv[:, first:stop].baddbmm_(p.transpose(1, 2), upstream)
        block = dq[:, start:stop]
        torch.baddbmm(block, ds, k[:, first:stop], beta=0, alpha=scale, out=block)
        dk[:, first:stop].baddbmm_(ds.transpose(1, 2), q[:, start:stop], alpha=scale)
    return grads


def _blocks(batches: Sequence[SegmentBatch]) -> Iterator[tuple[int, int, int]]:
    """(first token of the segment, first query, one past the last query) of every block."""
    for batch in batches:
        for first in range(batch.start, batch.start + batch.segments * batch.length, batch.length):
            for start in range(first, first + batch.length, QUERIES):
                yield first, start, min(start + QUERIES, first + batch.length)


def _size(block: tuple[int, int, int]) -> tuple[int, int]:
    """Queries and keys of a block."""
    first, start, stop = block
    return stop - start, stop - first


def _pairs(batches: Sequence[SegmentBatch]) -> int:
    """Scores of one head, all blocks together."""
    return sum(queries * keys for queries, keys in map(_size, _blocks(batches)))


def _with_probabilities(
    batches: Sequence[SegmentBatch], kept: Tensor, heads: int
) -> Iterator[tuple[tuple[int, int, int], Tensor]]:
    """Every block with its part of `kept` as [H, queries, keys]."""
    at = 0
    for block in _blocks(batches):
        queries, keys = _size(block)
        yield block, kept[at : at + heads * queries * keys].view(heads, queries, keys)
        at += heads * queries * keys
