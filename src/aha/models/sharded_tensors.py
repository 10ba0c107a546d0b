"""Tensors of which each process holds only some rows: weights sharded over processes, experts split over them.

Both are DTensors sharded along dimension 0, so each says by itself which rows are here and who has the others. Every
function takes plain tensors as well, which are whole in every process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

REMEMBERED = 2
"""Gathered tensors that `FullCopy` keeps: an expert's three matrices lie in two stacked ones, asked for in turn."""


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process may hold only some of the tensor's rows."""
    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """The rows that are in this process; shares memory."""
    if not isinstance(tensor, DTensor):
        return tensor
    with torch.no_grad():
        here: Tensor = tensor.to_local()
    return here


def full(tensor: Tensor) -> Tensor:
    """All rows; a new tensor where they are gathered, which all processes that hold rows must do together."""
    if not isinstance(tensor, DTensor):
        return tensor
    with torch.no_grad():
        gathered: Tensor = tensor.full_tensor()
    return gathered


def local_rows(tensor: Tensor) -> slice:
    """Which rows of the whole are in this process."""
    if not isinstance(tensor, DTensor):
        return slice(0, tensor.shape[0] if tensor.dim() else 1)
    dim = _sharded_dim(tensor)
    count, parts = tensor.shape[0], tensor.device_mesh.size(dim)
    size = -(-count // parts)
    start = min(count, size * tensor.device_mesh.get_local_rank(dim))
    return slice(start, min(count, start + size))


def like(rows_here: Tensor, model: Tensor) -> Tensor:
    """This process's rows of a tensor that is spread over processes as `model` is; shares memory."""
    if not isinstance(model, DTensor):
        return rows_here
    return DTensor.from_local(
        rows_here, model.device_mesh, model.placements, run_check=False, shape=model.shape, stride=model.stride()
    )


def copy_into(target: Tensor, values: Tensor) -> None:
    """Copies the whole tensor `values` into `target`, of which this process takes its rows."""
    local(target).copy_(values[local_rows(target)] if is_sharded(target) else values)


def replica_group(tensor: Tensor) -> dist.ProcessGroup | None:
    """The processes that hold the same rows, where the tensor says that there are several; None of a plain tensor."""
    if isinstance(tensor, DTensor) and tensor.device_mesh.ndim > 1:
        return tensor.device_mesh.get_group(1 - _sharded_dim(tensor))
    return None


def is_written_here(tensor: Tensor) -> bool:
    """Whether this process is the one that writes its rows: the first of those that hold them."""
    group = replica_group(tensor)
    if is_sharded(tensor):
        return group is None or dist.get_rank(group) == 0
    return not dist.is_initialized() or dist.get_rank() == 0


def total_norm(norms: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """The norm of all of a list of tensors together, rows in other processes included.

    Args:
        norms: of the rows here of each.
        tensors: spread as they are.
    """
    by_group: dict[dist.ProcessGroup | None, list[Tensor]] = {}
    for norm, tensor in zip(norms, tensors, strict=True):
        group = tensor.device_mesh.get_group(_sharded_dim(tensor)) if isinstance(tensor, DTensor) else None
        by_group.setdefault(group, []).append(norm)
    totals = []
    for group, members in by_group.items():
        total = torch.stack(members).norm()
        if group is not None:
            square = total.square()
            dist.all_reduce(square, group=group)
            total = square.sqrt()
        totals.append(total)
    return totals[0] if len(totals) == 1 else torch.stack(totals).norm()


class FullCopy(Mapping[str, Tensor]):
    """Named tensors, each gathered when it is asked for and the last few kept: a model is never whole in memory.

    All processes must ask for the same names in the same order.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._gathered: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        if not is_sharded(tensor):
            return tensor
        if name not in self._gathered:
            while len(self._gathered) >= REMEMBERED:
                del self._gathered[next(iter(self._gathered))]
            self._gathered[name] = full(tensor)
        return self._gathered[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _sharded_dim(tensor: DTensor) -> int:
    """The dimension of the mesh over which the rows are spread."""
    return next(i for i, placement in enumerate(tensor.placements) if isinstance(placement, Shard))
