"""The decode step as CUDA graphs: one launch a step instead of one for every operation.

A graph replays the same operations on the same memory, so shapes are rounded up to a few sizes (rows to a power of two,
lengths to a multiple of `LENGTH_STEP`) and inputs are copied into buffers that the graph reads. Rows that round a batch
up are free cache rows: what is computed for them goes nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aha.models.decode_step import WeightDecoder
from aha.models.kv_cache import RowCache

LENGTH_STEP = 128
MOST_GRAPHS = 64
"""Graphs kept; beyond, the oldest is dropped."""

Replay = Callable[[], Tensor]
Capture = Callable[[Callable[[], Tensor]], Replay]
"""Runs a function once and returns what repeats it on the same memory, returning the same output tensor."""


@dataclass(frozen=True)
class _Graph:
    """One size: its inputs, and what replays it."""

    token_ids: Tensor
    slots: Tensor
    positions: Tensor
    mask: Tensor
    replay: Replay


class GraphedDecoder:
    """Replays a decoder's step by size of batch and cache.

    Args:
        decoder: reads the model's weights where they are, so that changing them in place needs no new graph.
        capture: how a step is recorded; `capture_cuda_graph`, or a function of the same shape in tests.
    """

    def __init__(self, decoder: WeightDecoder, capture: Capture) -> None:
        self._decoder, self._capture = decoder, capture
        self._graphs: dict[tuple[int, int, int], _Graph] = {}

    def is_stale(self) -> bool:
        """Never: graphs read the weights in place; replaced weights make the model ask for a new decoder."""
        return False

    def step(self, token_ids_B: Tensor, cache: RowCache) -> Tensor:
        """Logits [B, V] after one more token in each of the rows 0 to B-1."""
        batch = token_ids_B.shape[0]
        slots_B, positions_B, longest = cache.append(batch)
        rows = min(cache.rows, 1 << (batch - 1).bit_length())
        length = min(cache.max_length, -(-longest // LENGTH_STEP) * LENGTH_STEP)
        graph = self._graph(cache, rows, length)
        graph.token_ids[:batch].copy_(token_ids_B)
        graph.slots[:batch].copy_(slots_B)
        graph.positions[:batch].copy_(positions_B)
        graph.mask.copy_(cache.bars(rows, length))
        if batch < rows:
            graph.slots[batch:].copy_(cache.slots(torch.arange(batch, rows, device=cache.device), 0))
            graph.mask[batch:, ..., 0] = 0.0
        return graph.replay()[:batch].clone()

    def _graph(self, cache: RowCache, rows: int, length: int) -> _Graph:
        key = (cache.entries.data_ptr(), rows, length)
        graph = self._graphs.get(key)
        if graph is None:
            if len(self._graphs) >= MOST_GRAPHS:
                del self._graphs[next(iter(self._graphs))]
            graph = self._graphs[key] = self._record(cache, rows, length)
        return graph

    def _record(self, cache: RowCache, rows: int, length: int) -> _Graph:
        """Records one size. Runs the step on rows as they are, so it must come before the inputs are filled in."""
        ids, positions = (torch.zeros(rows, dtype=torch.long, device=cache.device) for _ in range(2))
        slots = cache.slots(torch.arange(rows, device=cache.device), 0).clone()
        mask = torch.zeros_like(cache.bars(rows, length))
        kept = [layer.index_select(0, slots) for layer in cache.by_slot]

        def compute() -> Tensor:
            return self._decoder.compute(ids, slots, positions, cache, length, mask, fixed_shapes=True)

        replay = self._capture(compute)
        for layer, entries in zip(cache.by_slot, kept, strict=True):
            layer.index_copy_(0, cache.slots(torch.arange(rows, device=cache.device), 0), entries)
        return _Graph(ids, slots, positions, mask, replay)


def capture_cuda_graph(compute: Callable[[], Tensor]) -> Replay:
    """Warms up on a side stream, as capturing asks for, and records a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            compute()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = compute()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay
