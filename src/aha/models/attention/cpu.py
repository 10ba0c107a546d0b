"""Expanded attention over segments: blocks of the CPU flash kernel, merged exactly by their log-sum-exp.

A query that sees two blocks of keys (its prompt's, and its own completion's) has output o = (e^l1 o1 + e^l2 o2) /
(e^l1 + e^l2) with l the log-sum-exp of each block's scores. The flash backward pass of each block with the merged o
and l gives the exact gradients, because dS = P * (dP - sum(dO * O)) only needs those two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from aha.models.attention.heads import pad_heads
from aha.models.attention.tiled import tiled_backward, tiled_forward, worthwhile
from aha.models.layouts import Layout, SegmentBatch

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _as_batch(x_NHK: Tensor, batch: SegmentBatch) -> Tensor:
    """The batch's segments as a batch [segments, H, length, K], a view."""
    x = x_NHK[batch.start : batch.start + batch.segments * batch.length]
    return x.unflatten(0, (batch.segments, batch.length)).transpose(1, 2)


def _flat(x_BHTK: Tensor) -> Tensor:
    """Back from a batch to [tokens, H, K]; a view where the kernel wrote tokens outermost, as it does."""
    return x_BHTK.transpose(1, 2).flatten(0, 1)


def _span(x_NHK: Tensor, start: int, stop: int) -> Tensor:
    return x_NHK[start:stop].transpose(0, 1).unsqueeze(0)


def flash_forward(q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, layout: Layout, scale: float) -> tuple[Tensor, Tensor]:
    """Attention outputs [N, H, K] and log-sum-exp of the scores [N, H]. q, k and v heads are of one width."""
    outs, lses = [], []
    for batch in layout.batches:
        out, lse = _flash(*(_as_batch(x, batch) for x in (q_NHK, k_NHK, v_NHK)), 0.0, True, scale=scale)
        outs.append(_flat(out))
        lses.append(lse.transpose(1, 2).flatten(0, 1))
    out_NHK = outs[0] if len(outs) == 1 else torch.cat(outs)
    lse_NH = lses[0] if len(lses) == 1 else torch.cat(lses)
    for q_start, q_stop, k_start, k_stop in layout.prefix_blocks:
        q, k, v = _span(q_NHK, q_start, q_stop), _span(k_NHK, k_start, k_stop), _span(v_NHK, k_start, k_stop)
        out, lse = _flash(q, k, v, 0.0, False, scale=scale)
        # e^l2 / (e^l1 + e^l2) = sigmoid(l2 - l1): no exponential of a score can overflow.
        own, own_lse, prefix_lse = out_NHK[q_start:q_stop], lse_NH[q_start:q_stop], lse[0].transpose(0, 1)
        own.lerp_(_flat(out), torch.sigmoid(prefix_lse - own_lse).unsqueeze(-1).to(own.dtype))
        own_lse.copy_(torch.logaddexp(own_lse, prefix_lse))
    return out_NHK, lse_NH


def flash_backward(
    grad_NHK: Tensor,
    saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    layout: Layout,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, from those of the output and the saved (q, k, v, out, log-sum-exp)."""
    q_NHK, k_NHK, v_NHK, out_NHK, lse_NH = saved
    parts = []
    for batch in layout.batches:
        lse = _as_batch(lse_NH.unsqueeze(-1), batch).squeeze(-1)
        tensors = [_as_batch(x, batch) for x in (grad_NHK, q_NHK, k_NHK, v_NHK, out_NHK)]
        grads = _flash_backward(*tensors, lse, 0.0, True, scale=scale)
        parts.append([_flat(grad) for grad in grads])
    dq, dk, dv = parts[0] if len(parts) == 1 else [torch.cat(column) for column in zip(*parts, strict=True)]
    for q_start, q_stop, k_start, k_stop in layout.prefix_blocks:
        grad, q, out = (_span(x, q_start, q_stop) for x in (grad_NHK, q_NHK, out_NHK))
        k, v = _span(k_NHK, k_start, k_stop), _span(v_NHK, k_start, k_stop)
        lse = lse_NH[q_start:q_stop].transpose(0, 1).unsqueeze(0)
        grads = _flash_backward(grad, q, k, v, out, lse, 0.0, False, scale=scale)
        dq[q_start:q_stop] += _flat(grads[0])
        dk[k_start:k_stop] += _flat(grads[1])
        dv[k_start:k_stop] += _flat(grads[2])
    return dq, dk, dv


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, layout: Layout, scale: float) -> Tensor:
        # Keeping probabilities pays only where there is a backward pass, and only within whole segments.
        keeps = any(ctx.needs_input_grad) and not layout.prefix_blocks
        tiled = keeps and worthwhile(layout.batches, q_NHK.shape[1])
        if tiled:
            out_NHK, kept = tiled_forward(q_NHK, k_NHK, v_NHK, layout.batches, scale)
        else:
            out_NHK, kept = flash_forward(q_NHK, k_NHK, v_NHK, layout, scale)
        ctx.save_for_backward(q_NHK, k_NHK, v_NHK, out_NHK, kept)
        ctx.layout, ctx.scale, ctx.tiled = layout, scale, tiled
        return out_NHK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NHK: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        if ctx.tiled:
            grads = tiled_backward(grad_NHK, ctx.saved_tensors, ctx.layout.batches, ctx.scale)
        else:
            grads = flash_backward(grad_NHK, ctx.saved_tensors, ctx.layout, ctx.scale)
        return *grads, None, None


def attend_fused(q_NHK: Tensor, k_NHK: Tensor, v_NHV: Tensor, layout: Layout, scale: float) -> Tensor:
    """Differentiable attention on the CPU. Narrower heads are padded with zeros: the flash kernel wants one width.

    Fewer key and value heads than query heads are repeated (grouped-query attention).
    """
    repeats = q_NHK.shape[1] // k_NHK.shape[1]
    if repeats > 1:
        k_NHK, v_NHV = k_NHK.repeat_interleave(repeats, 1), v_NHV.repeat_interleave(repeats, 1)
    qk_dim, v_dim = q_NHK.shape[-1], v_NHV.shape[-1]
    width = max(qk_dim, v_dim)
    q, k = pad_heads(q_NHK, width), pad_heads(k_NHK, width)
    return _Attend.apply(q, k, pad_heads(v_NHV, width), layout, scale)[..., :v_dim]
