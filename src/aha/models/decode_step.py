"""What every decoder on a model's own weights shares: where a step's tokens go in the cache, then the step itself."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from aha.models.kv_cache import RowCache


class WeightDecoder(ABC):
    """A decode step that reads the model's weights where they are: never stale, no memory of its own."""

    def is_stale(self) -> bool:
        """Never: it reads the weights themselves."""
        return False

    def step(self, token_ids_B: Tensor, cache: RowCache) -> Tensor:
        """Logits [B, V] after one more token in each of the rows 0 to B-1."""
        batch = token_ids_B.shape[0]
        slots_B, positions_B, longest = cache.append(batch)
        return self.compute(token_ids_B, slots_B, positions_B, cache, longest, cache.mask(batch, longest))

    @abstractmethod
    def compute(
        self,
        token_ids_B: Tensor,
        slots_B: Tensor,
        positions_B: Tensor,
        cache: RowCache,
        longest: int,
        mask: Tensor | None,
        fixed_shapes: bool = False,
    ) -> Tensor:
        """Logits [B, V] of tokens whose places in the cache are known.

        With `fixed_shapes` no tensor's shape depends on what tensors hold, as a CUDA graph needs it.
        """
