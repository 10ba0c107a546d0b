"""Log-probabilities of target tokens without ever holding [N, V] logits; softmax in float32 at least."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

CPU_TILE_BYTES = 1 << 20
"""Logits made at a time on a CPU, so that a tile stays in a core's own cache."""
CUDA_TILE_ROWS = 4096
"""Tokens in a tile on a GPU: products of fewer rows do not fill it, and each tile reads the whole head again."""


def _tile_rows(weight_VD: Tensor) -> int:
    return CUDA_TILE_ROWS if weight_VD.is_cuda else max(16, CPU_TILE_BYTES // (4 * weight_VD.shape[0]))


def _logits(hidden_TD: Tensor, weight_VD: Tensor, temperature: float) -> Tensor:
    """Logits in float32 at least, divided by the temperature as the sampler divides them."""
    if hidden_TD.is_cuda and hidden_TD.dtype in (torch.bfloat16, torch.float16):
        # The product adds up in float32 anyway; rounding its result would cost about 0.05 nats.
        logits_TV = torch.mm(hidden_TD, weight_VD.t(), out_dtype=torch.float32)
    else:
        logits_TV = torch.mm(hidden_TD, weight_VD.t())
        logits_TV = logits_TV.to(torch.promote_types(logits_TV.dtype, torch.float32))
    return logits_TV if temperature == 1.0 else logits_TV.div_(temperature)


class _ChunkedLogprobs(torch.autograd.Function):
    """Tiles of tokens forward; recomputes each tile's logits backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, entropy: bool, temperature: float
    ) -> tuple[Tensor, Tensor]:
        rows = _tile_rows(weight_VD)
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        logprobs_N = hidden_ND.new_empty(hidden_ND.shape[0], dtype=wide)
        entropy_N = hidden_ND.new_empty(hidden_ND.shape[0] if entropy else 0, dtype=wide)
        for start in range(0, hidden_ND.shape[0], rows):
            span = slice(start, start + rows)
            logprobs_TV = _logits(hidden_ND[span], weight_VD, temperature).log_softmax(-1)
            logprobs_N[span] = logprobs_TV.gather(1, targets_N[span].unsqueeze(-1)).squeeze(-1)
            if entropy:
                entropy_N[span] = -torch.linalg.vecdot(logprobs_TV.exp(), logprobs_TV)
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, _: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        hidden_ND, weight_VD, targets_N = ctx.saved_tensors
        rows, temperature = _tile_rows(weight_VD), ctx.temperature
        grad_hidden_ND = torch.empty_like(hidden_ND)
        wide_VD = None
        if ctx.needs_input_grad[1]:
            # Sums over tiles in float32: in bfloat16 the error would grow with the number of tiles.
            wide_VD = torch.zeros_like(weight_VD, dtype=grad_N.dtype)
        for start in range(0, hidden_ND.shape[0], rows):
            span = slice(start, start + rows)
            grad_T1 = grad_N[span].unsqueeze(-1)
            grad_TV = _logits(hidden_ND[span], weight_VD, temperature).softmax(-1).mul_(-grad_T1)
            grad_TV.scatter_add_(1, targets_N[span].unsqueeze(-1), grad_T1)
            if temperature != 1.0:
                grad_TV.div_(temperature)
            narrow_TV = grad_TV.to(hidden_ND.dtype)
            torch.mm(narrow_TV, weight_VD, out=grad_hidden_ND[span])
            if wide_VD is None:
                continue
            if wide_VD.dtype == hidden_ND.dtype:
                wide_VD.addmm_(narrow_TV.t(), hidden_ND[span])
            else:
                wide_VD += torch.mm(narrow_TV.t(), hidden_ND[span])
        return grad_hidden_ND, None if wide_VD is None else wide_VD.to(weight_VD.dtype), None, None, None


def chunked_logprobs(
    hidden_ND: Float[Tensor, "N D"],
    weight_VD: Float[Tensor, "V D"],
    targets_N: Int[Tensor, " N"],
    entropy: bool = True,
    temperature: float = 1.0,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " M"]]:
    """Log-probability of each target, in nats, and the entropy of its distribution.

    Args:
        hidden_ND: final hidden states of the positions that predict the targets.
        weight_VD: the head, `model.head_weight`.
        targets_N: token ids.
        entropy: whether to compute entropies; without, the second result is empty.
        temperature: what logits are divided by, as in the sampler.

    Returns:
        logprobs_N, differentiable, and entropy_N, which is not.
    """
    return _ChunkedLogprobs.apply(hidden_ND, weight_VD, targets_N, entropy, temperature)
