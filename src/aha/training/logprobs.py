"""Log-probabilities of target tokens without ever holding [N, V] logits; softmax in float32 at least."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE_BYTES = 1 << 20
"""Logits made at a time, so that a tile stays in a core's own cache."""


def _tile_rows(weight_VD: Tensor) -> int:
    return max(16, TILE_BYTES // (4 * weight_VD.shape[0]))


class _ChunkedLogprobs(torch.autograd.Function):
    """Tiles of tokens forward; recomputes each tile's logits backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, entropy: bool
    ) -> tuple[Tensor, Tensor]:
        rows = _tile_rows(weight_VD)
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        logprobs_N = hidden_ND.new_empty(hidden_ND.shape[0], dtype=wide)
        entropy_N = hidden_ND.new_empty(hidden_ND.shape[0] if entropy else 0, dtype=wide)
        for start in range(0, hidden_ND.shape[0], rows):
            span = slice(start, start + rows)
            logprobs_TV = torch.mm(hidden_ND[span], weight_VD.t()).to(wide).log_softmax(-1)
            logprobs_N[span] = logprobs_TV.gather(1, targets_N[span].unsqueeze(-1)).squeeze(-1)
            if entropy:
                entropy_N[span] = -torch.linalg.vecdot(logprobs_TV.exp(), logprobs_TV)
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N)
        ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, _: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        hidden_ND, weight_VD, targets_N = ctx.saved_tensors
        rows = _tile_rows(weight_VD)
        grad_hidden_ND = torch.empty_like(hidden_ND)
        grad_weight_VD = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
        for start in range(0, hidden_ND.shape[0], rows):
            span = slice(start, start + rows)
            grad_T1 = grad_N[span].unsqueeze(-1)
            grad_TV = torch.mm(hidden_ND[span], weight_VD.t()).to(grad_N.dtype).softmax(-1).mul_(-grad_T1)
            grad_TV.scatter_add_(1, targets_N[span].unsqueeze(-1), grad_T1)
            grad_TV = grad_TV.to(hidden_ND.dtype)
            torch.mm(grad_TV, weight_VD, out=grad_hidden_ND[span])
            if grad_weight_VD is not None:
                grad_weight_VD.addmm_(grad_TV.t(), hidden_ND[span])
        return grad_hidden_ND, grad_weight_VD, None, None


def chunked_logprobs(
    hidden_ND: Float[Tensor, "N D"],
    weight_VD: Float[Tensor, "V D"],
    targets_N: Int[Tensor, " N"],
    entropy: bool = True,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " M"]]:
    """Log-probability of each target, in nats at temperature 1, and the entropy of its distribution.

    Args:
        hidden_ND: final hidden states of the positions that predict the targets.
        weight_VD: the head, `model.head_weight`.
        targets_N: token ids.
        entropy: whether to compute entropies; without, the second result is empty.

    Returns:
        logprobs_N, differentiable, and entropy_N, which is not.
    """
    return _ChunkedLogprobs.apply(hidden_ND, weight_VD, targets_N, entropy)
