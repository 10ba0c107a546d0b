"""Expanded attention over segments: blocks of the CPU flash kernel, merged exactly by their log-sum-exp.

A query that sees two blocks of keys (its prompt's, and its own completion's) has output o = (e^l1 o1 + e^l2 o2) /
(e^l1 + e^l2) with l the log-sum-exp of each block's scores. The flash backward pass of each block with the merged o
and l gives the exact gradients, because dS = P * (dP - sum(dO * O)) only needs those two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from aha.models.tiled_attention import tiled_backward, tiled_forward, worthwhile

if TYPE_CHECKING:
    from aha.models.layouts import Cross, Layout, Run

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _batch(x_NHK: Tensor, run: Run) -> Tensor:
    """The run's segments as a batch [segments, H, length, K], a view."""
    x = x_NHK[run.start : run.start + run.segments * run.length]
    return x.unflatten(0, (run.segments, run.length)).transpose(1, 2)


def _flat(x_BHTK: Tensor) -> Tensor:
    """Back from a batch to [tokens, H, K]; a view where the kernel wrote tokens outermost, as it does."""
    return x_BHTK.transpose(1, 2).flatten(0, 1)


def _span(x_NHK: Tensor, start: int, stop: int) -> Tensor:
    return x_NHK[start:stop].transpose(0, 1).unsqueeze(0)


def flash_forward(
    q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, runs: Sequence[Run], crosses: Sequence[Cross], scale: float
) -> tuple[Tensor, Tensor]:
    """Attention outputs [N, H, K] and log-sum-exp of the scores [N, H]. q, k and v heads are of one width."""
    outs, lses = [], []
    for run in runs:
        out, lse = _flash(_batch(q_NHK, run), _batch(k_NHK, run), _batch(v_NHK, run), 0.0, True, scale=scale)
        outs.append(_flat(out))
        lses.append(lse.transpose(1, 2).flatten(0, 1))
    out_NHK = outs[0] if len(outs) == 1 else torch.cat(outs)
    lse_NH = lses[0] if len(lses) == 1 else torch.cat(lses)
    for cross in crosses:
        q_start, q_stop, k_start, k_stop = cross
        q, k, v = _span(q_NHK, q_start, q_stop), _span(k_NHK, k_start, k_stop), _span(v_NHK, k_start, k_stop)
        out, lse = _flash(q, k, v, 0.0, False, scale=scale)
        own, own_lse, prefix_lse = out_NHK[q_start:q_stop], lse_NH[q_start:q_stop], lse[0].transpose(0, 1)
        own.lerp_(_flat(out), torch.sigmoid(prefix_lse - own_lse).unsqueeze(-1).to(own.dtype))
        own_lse.copy_(torch.logaddexp(own_lse, prefix_lse))
    return out_NHK, lse_NH


def flash_backward(
    grad_NHK: Tensor,
    saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    runs: Sequence[Run],
    crosses: Sequence[Cross],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, from those of the output and the saved (q, k, v, out, log-sum-exp)."""
    q_NHK, k_NHK, v_NHK, out_NHK, lse_NH = saved
    parts = []
    for run in runs:
        lse = lse_NH[run.start : run.start + run.segments * run.length].unflatten(0, (run.segments, run.length))
        tensors = [_batch(x, run) for x in (grad_NHK, q_NHK, k_NHK, v_NHK, out_NHK)]
        grads = _flash_backward(*tensors, lse.transpose(1, 2), 0.0, True, scale=scale)
        parts.append([_flat(grad) for grad in grads])
    dq, dk, dv = parts[0] if len(parts) == 1 else [torch.cat(column) for column in zip(*parts, strict=True)]
    for q_start, q_stop, k_start, k_stop in crosses:
        grad, q, out = (_span(x, q_start, q_stop) for x in (grad_NHK, q_NHK, out_NHK))
        k, v = _span(k_NHK, k_start, k_stop), _span(v_NHK, k_start, k_stop)
        lse = lse_NH[q_start:q_stop].transpose(0, 1).unsqueeze(0)
        grads = _flash_backward(grad, q, k, v, out, lse, 0.0, False, scale=scale)
        dq[q_start:q_stop] += _flat(grads[0])
        dk[k_start:k_stop] += _flat(grads[1])
        dv[k_start:k_stop] += _flat(grads[2])
    return dq, dk, dv


def attention_forward(
    q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, layout: Layout, scale: float, keep: bool
) -> tuple[Tensor, Tensor, bool]:
    """Outputs [N, H, K], what the backward pass needs besides them, and whether that is probabilities of tiles.

    `keep` says whether there will be a backward pass.
    """
    if keep and not layout.crosses and worthwhile(layout.runs, q_NHK.shape[1]):
        return *tiled_forward(q_NHK, k_NHK, v_NHK, layout.runs, scale), True
    return *flash_forward(q_NHK, k_NHK, v_NHK, layout.runs, layout.crosses, scale), False


def attention_backward(
    grad_NHK: Tensor, saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor], layout: Layout, scale: float, tiled: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, from the saved (q, k, v, outputs, what the forward pass kept)."""
    if tiled:
        return tiled_backward(grad_NHK, saved, layout.runs, scale)
    return flash_backward(grad_NHK, saved, layout.runs, layout.crosses, scale)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, layout: Layout, scale: float) -> Tensor:
        keep = any(ctx.needs_input_grad)
        out_NHK, kept, tiled = attention_forward(q_NHK, k_NHK, v_NHK, layout, scale, keep)
        ctx.save_for_backward(q_NHK, k_NHK, v_NHK, out_NHK, kept)
        ctx.rest = layout, scale, tiled
        return out_NHK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NHK: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        return *attention_backward(grad_NHK, ctx.saved_tensors, *ctx.rest), None, None


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


def pad_heads(x_NHK: Tensor, width: int) -> Tensor:
    """Appends zeros to the last dimension: exact for q.k, and for v the extra outputs are dropped."""
    missing = width - x_NHK.shape[-1]
    return F.pad(x_NHK, (0, missing)) if missing else x_NHK


def attend_padded(
    q_NHK: Tensor, k_NHK: Tensor, v_NHV: Tensor, lengths: Sequence[int], prefixes: Sequence[int], scale: float
) -> Tensor:
    """The same attention on padded rectangles with any SDPA backend: the path of other devices, and of tests."""
    device = q_NHK.device
    lengths_S = torch.tensor(lengths, device=device)
    starts_S = lengths_S.cumsum(0) - lengths_S
    column_T = torch.arange(int(max(lengths)), device=device)
    own_ST = (starts_S[:, None] + column_T).clamp_(max=q_NHK.shape[0] - 1)
    valid_ST = column_T < lengths_S[:, None]
    if max(prefixes) < 0:
        mask, key_ST = None, own_ST
    else:
        prefix_S = torch.tensor(prefixes, device=device)
        prefix_length_S = torch.where(prefix_S >= 0, lengths_S[prefix_S], 0)
        column_P = torch.arange(int(prefix_length_S.max()), device=device)
        prefix_SP = (starts_S[prefix_S][:, None] + column_P).clamp_(max=q_NHK.shape[0] - 1)
        key_ST = torch.cat([prefix_SP, own_ST], 1)
        causal_STT = (column_T[:, None] >= column_T).expand(len(lengths), -1, -1)
        seen_STP = (column_P < prefix_length_S[:, None])[:, None].expand(-1, len(column_T), -1)
        mask = torch.cat([seen_STP, causal_STT], 2).unsqueeze(1)
    q, k, v = (x[index].transpose(1, 2) for x, index in ((q_NHK, own_ST), (k_NHK, key_ST), (v_NHV, key_ST)))
    grouped = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scale, enable_gqa=grouped)
    return out.transpose(1, 2)[valid_ST]
