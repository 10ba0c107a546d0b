"""Where the tokens of a step are in the cache, and what the engine needs of a decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

from torch import Tensor

from aha.inference.decoding.cache import RowCache


class StepInputs(NamedTuple):
    """Where the tokens of one step are: the same number in each of the rows 0 to `rows` - 1, row by row."""

    rows: int
    slots: Tensor
    """In the cache's `by_slot`, [N]."""
    positions: Tensor
    """[N]."""
    longest: int
    """One more than the largest position."""
    mask: Tensor | None
    """Added to the scores, [rows, N / rows, 1, longest]."""

    @classmethod
    def appended(cls, token_ids: Tensor, cache: RowCache) -> StepInputs:
        """New tokens [B], or [B, W] for several in each row, behind what the rows hold."""
        rows = token_ids.shape[0]
        width = token_ids.numel() // rows
        slots_N, positions_N, longest = cache.append(rows, width)
        mask = cache.mask(rows, longest) if width == 1 else cache.causal_mask(positions_N, rows, longest)
        return cls(rows, slots_N, positions_N, longest, mask)


class Decoder(Protocol):
    """A way to run one decode step."""

    def is_stale(self) -> bool:
        """Whether the model's weights have changed since the decoder was made from them."""
        ...

    def step(self, token_ids: Tensor, cache: RowCache, /) -> Tensor:
        """Logits [N, V] after each of some more tokens in the rows 0 to B-1, token ids [B] or [B, W]."""
        ...


class WeightDecoder(ABC):
    """A decode step that reads the model's weights where they are: never stale, no memory of its own."""

    def is_stale(self) -> bool:
        """Never: it reads the weights themselves."""
        return False

    def step(self, token_ids: Tensor, cache: RowCache) -> Tensor:
        """Logits [N, V] after each of some more tokens in the rows 0 to B-1, token ids [B] or [B, W]."""
        return self.compute(token_ids.flatten(), cache, StepInputs.appended(token_ids, cache))

    @abstractmethod
    def compute(self, token_ids_N: Tensor, cache: RowCache, at: StepInputs, fixed_shapes: bool = False) -> Tensor:
        """Logits [N, V] of tokens whose places in the cache are known.

        With `fixed_shapes` no tensor's shape depends on what tensors hold, as a CUDA graph needs it.
        """
