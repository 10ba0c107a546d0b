"""Expert parallelism: the routed experts of a layer split over processes, tokens sent to them and back (V3 3.2.2).

Each process holds E / P neighbouring experts. Every token's slots travel to the processes of its experts (dispatch),
are computed there, and travel back (combine), both with one all-to-all of uneven sizes: no token is dropped.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _AllToAll(torch.autograd.Function):
    """Rows to other processes; the gradients travel the same way back."""

    @staticmethod
    def forward(ctx: Any, x_SD: Tensor, send: list[int], receive: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.send, ctx.receive, ctx.group = send, receive, group
        return exchange_rows(x_SD, send, receive, group)

    @staticmethod
    def backward(ctx: Any, grad_RD: Tensor) -> tuple[Tensor, None, None, None]:
        return exchange_rows(grad_RD, ctx.receive, ctx.send, ctx.group), None, None, None


def exchange_rows(x_SD: Tensor, send: list[int], receive: list[int], group: dist.ProcessGroup) -> Tensor:
    """Sends the first `send[0]` rows to process 0 of a group, the next `send[1]` to 1, ...; what the others sent here.

    Args:
        x_SD: rows in the order of their destinations.
        send: rows for each process.
        receive: rows that each process has for this one.
        group: the processes.
    """
    received_RD = x_SD.new_empty(sum(receive), *x_SD.shape[1:])
    dist.all_to_all_single(received_RD, x_SD.contiguous(), receive, send, group=group)
    return received_RD


class SlotExchange:
    """Where the slots of one pass go: made from their counts, once, for the way there and the way back.

    Args:
        counts_E: this process's slots of each expert, of all experts.
        group: the processes, each with as many experts.

    Attributes:
        expert_R: the local expert of each row that arrives here.
    """

    def __init__(self, counts_E: Tensor, group: dist.ProcessGroup) -> None:
        processes = dist.get_world_size(group)
        counts_PX = counts_E.view(processes, -1)
        arriving_PX = torch.empty_like(counts_PX)
        dist.all_to_all_single(arriving_PX, counts_PX.contiguous(), group=group)
        self._group = group
        self._send: list[int] = counts_PX.sum(1).tolist()
        self._receive: list[int] = arriving_PX.sum(1).tolist()
        local_X = torch.arange(counts_PX.shape[1], device=counts_E.device)
        self.expert_R = local_X.repeat(processes).repeat_interleave(arriving_PX.flatten())

    def dispatch(self, x_SD: Tensor) -> Tensor:
        """The rows of this process's slots, in the order of experts, for those that arrive here."""
        arrived: Tensor = _AllToAll.apply(x_SD, self._send, self._receive, self._group)
        return arrived

    def combine(self, y_RD: Tensor) -> Tensor:
        """Results for the rows that arrived here, for those of this process's slots."""
        returned: Tensor = _AllToAll.apply(y_RD, self._receive, self._send, self._group)
        return returned
