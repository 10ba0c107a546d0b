"""The processes of a run as one object: who am I, where do I compute, and the few collectives that training needs.

One process needs no process group and every operation is then the identity, so loops are written once. Objects travel
as JSON bytes: torch's own object collectives pickle, and nothing here does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from aha.errors import ConfigError

_TIMEOUT = timedelta(hours=6)
"""How long a rank waits for the others: one may evaluate or write for long while the rest wait."""


class Distributed:
    """This process's place among the processes of a run."""

    def __init__(self, rank: int = 0, world_size: int = 1, device: str | torch.device = "cpu") -> None:
        self.rank = rank
        self.world_size = world_size
        self.device = torch.device(device)
        self._buckets: dict[torch.dtype, Tensor] = {}

    @classmethod
    def join(cls, device: str = "auto") -> Distributed:
        """Joins the group that RANK, WORLD_SIZE, ... describe, or stands alone where they are not set.

        Args:
            device: "cpu", "cuda", or "auto" for CUDA where there is a GPU for every local process.

        Raises:
            ConfigError: CUDA was asked for and there is none for this process.
        """
        rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        local_rank = int(os.environ.get("LOCAL_RANK", str(rank)))
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", str(world_size)))
        gpus = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
        if device == "cuda" and gpus <= local_rank:
            raise ConfigError(
                f"compute.device = 'cuda': process {local_rank} has no GPU ({gpus} found); set compute.device=cpu"
            )
        use_cuda = device == "cuda" or (device == "auto" and gpus >= local_size)
        chosen = torch.device("cuda", local_rank) if use_cuda else torch.device("cpu")
        if use_cuda:
            torch.cuda.set_device(chosen)
        if world_size > 1:
            backend = "cpu:gloo,cuda:nccl" if use_cuda else "gloo"
            dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=_TIMEOUT)
        return cls(rank, world_size, chosen)

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes files and talks to the user."""
        return self.rank == 0

    def close(self) -> None:
        """Leaves the group. All ranks must call it."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def all_reduce_sum(self, tensors: Sequence[Tensor], group: dist.ProcessGroup | None = None) -> None:
        """Sums tensors over the ranks, or a group of them, in place, with one message per dtype.

        The buffer is kept between calls, so that a training loop which sums the same gradients every step allocates
        nothing.
        """
        if self.world_size == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_dtype.setdefault(tensor.dtype, []).append(tensor)
        for dtype, members in by_dtype.items():
            total = sum(tensor.numel() for tensor in members)
            bucket = self._buckets.get(dtype)
            if bucket is None or bucket.numel() < total or bucket.device != members[0].device:
                bucket = self._buckets[dtype] = torch.empty(total, dtype=dtype, device=members[0].device)
            parts = bucket[:total].split([tensor.numel() for tensor in members])
            with torch.no_grad():
                for part, tensor in zip(parts, members, strict=True):
                    part.copy_(tensor.reshape(-1))
                dist.all_reduce(bucket[:total], group=group)
                for part, tensor in zip(parts, members, strict=True):
                    tensor.copy_(part.view(tensor.shape))

    def broadcast(self, tensors: Sequence[Tensor], source: int = 0) -> None:
        """Copies tensors from one rank to all, in place."""
        if self.world_size == 1:
            return
        with torch.no_grad():
            for tensor in tensors:
                contiguous = tensor.detach().contiguous()
                dist.broadcast(contiguous, source)
                if contiguous.data_ptr() != tensor.data_ptr():
                    tensor.copy_(contiguous)

    def all_gather_object(self, value: Any) -> list[Any]:
        """The JSON-able values of all ranks, in order of rank. Tuples arrive as lists, as JSON has it."""
        if self.world_size == 1:
            return [json.loads(json.dumps(value))]
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([data.numel()]))
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: data.numel()] = data
        gathered = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.world_size)]
        dist.all_gather(gathered, padded)
        return [json.loads(bytes(part[: int(size)].numpy())) for part, size in zip(gathered, sizes, strict=True)]

    def share(self, count: int) -> range:
        """Which of `count` items this rank takes: every so many, so that neighbours are spread."""
        return range(self.rank, count, self.world_size)

    def gather_shares(self, own: Sequence[Any]) -> list[Any]:
        """The results that all ranks have for their shares, in the order of the items. JSON-able."""
        parts = self.all_gather_object(list(own))
        count = sum(map(len, parts))
        return [parts[i % self.world_size][i // self.world_size] for i in range(count)]

    def spread(self, items: Sequence[Any], work: Callable[[Sequence[Any]], Sequence[Any]]) -> list[Any]:
        """Does work on items, each rank on its share; all results, in the order of the items. JSON-able."""
        return self.gather_shares(work([items[i] for i in self.share(len(items))]))

    def broadcast_object(self, value: Any, source: int = 0) -> Any:
        """One rank's JSON-able value, on all ranks. What the others pass is ignored."""
        return self.all_gather_object(value if self.rank == source else None)[source]

    def barrier(self) -> None:
        """Waits until all ranks are here."""
        self.any(False)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; the same answer on all."""
        return self.max([int(flag)])[0] > 0

    def max(self, values: Sequence[int]) -> list[int]:
        """The largest of each integer over the ranks."""
        if self.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return [int(value) for value in tensor]
