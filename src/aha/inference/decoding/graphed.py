"""The decode step as CUDA graphs: one launch a step instead of one for every operation.

A graph replays the same operations on the same memory, so shapes are rounded up to a few sizes (rows to a power of two,
lengths to a multiple of `LENGTH_STEP`) and inputs are copied into buffers that the graph reads. Rows that round a batch
up are free cache rows: what is computed for them goes nowhere. A graph reads and writes one cache's memory, so it is
kept with that cache and ends with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aha.inference.decoding.cache import RowCache
from aha.inference.decoding.step import StepInputs, WeightDecoder

LENGTH_STEP = 128
MOST_GRAPHS = 64
"""Graphs kept for a cache; beyond, the oldest is dropped."""

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
    """Replays a decoder's step by size of batch and cache; `plain` is that decoder.

    Args:
        decoder: reads the model's weights where they are, so that changing them in place needs no new graph.
        capture: how a step is recorded; a `CudaCapture`, or a function of the same shape in tests.
    """

    def __init__(self, decoder: WeightDecoder, capture: Capture) -> None:
        self.plain, self._capture = decoder, capture

    def is_stale(self) -> bool:
        """Never: graphs read the weights in place; replaced weights make the runner ask for a new decoder."""
        return False

    def step(self, token_ids: Tensor, cache: RowCache) -> Tensor:
        """Logits [N, V] after each of some more tokens in the rows 0 to B-1, token ids [B] or [B, W]."""
        batch, count = token_ids.shape[0], token_ids.numel()
        width = count // batch
        slots_N, positions_N, longest = cache.append(batch, width)
        rows = min(cache.rows, 1 << (batch - 1).bit_length())
        length = min(cache.max_length, -(-longest // LENGTH_STEP) * LENGTH_STEP)
        graph = self._graph(cache, rows, length, width)
        graph.token_ids[:count].copy_(token_ids.flatten())
        graph.slots[:count].copy_(slots_N)
        graph.positions[:count].copy_(positions_N)
        if width == 1:
            graph.mask.copy_(cache.mask_rows(rows, length))
        else:
            graph.mask[:batch].copy_(cache.causal_mask(positions_N, batch, length))
        if batch < rows:
            graph.slots[count:].copy_(_first_slots(cache, range(batch, rows), width))
            graph.mask[batch:, ..., 0] = 0.0
        return graph.replay()[:count].clone()

    def _graph(self, cache: RowCache, rows: int, length: int, width: int) -> _Graph:
        # Not by address: a freed cache's memory may become the next one's, whose rows are of another length.
        graphs, key = cache.graphs, (self, rows, length, width)
        if key not in graphs:
            for old in [old for old in graphs if old[0] is not self]:
                del graphs[old]  # of a decoder whose weights have been replaced
            if len(graphs) >= MOST_GRAPHS:
                del graphs[next(iter(graphs))]
            graphs[key] = self._record(cache, rows, length, width)
        graph = graphs[key]
        assert isinstance(graph, _Graph)
        return graph

    def _record(self, cache: RowCache, rows: int, length: int, width: int) -> _Graph:
        """Records one size. Runs the step on rows as they are, so it must come before the inputs are filled in."""
        ids, positions = (torch.zeros(rows * width, dtype=torch.long, device=cache.device) for _ in range(2))
        slots = _first_slots(cache, range(rows), width)
        mask = cache.entries.new_zeros(rows, width, 1, length)
        at = StepInputs(rows, slots, positions, length, mask)
        kept = cache.read(slots)

        def compute() -> Tensor:
            return self.plain.compute(ids, cache, at, fixed_shapes=True)

        replay = self._capture(compute)
        cache.write(_first_slots(cache, range(rows), width), kept)
        return _Graph(ids, slots, positions, mask, replay)


def _first_slots(cache: RowCache, rows: range, width: int) -> Tensor:
    """Slots of the first `width` tokens of some rows, row by row."""
    of_rows = torch.arange(rows.start, rows.stop, device=cache.device)[:, None]
    return cache.slots(of_rows, torch.arange(width, device=cache.device)).flatten()


class CudaCapture:
    """Records CUDA graphs that share one pool of memory, as they may: one runs at a time, and outputs are kept."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Callable[[], Tensor]) -> Replay:
        """Warms up on a side stream, as capturing asks for, and records a graph."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                compute()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = compute()

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay
