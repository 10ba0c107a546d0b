"""What generation keeps of past tokens, per layer: a latent and a rotary key for all heads, or keys and values by head.

Rows are contiguous: generation works on rows 0 to B-1 without gathering, so whoever schedules keeps active rows in
front with `move`. A prompt is prefilled once and copied to its samples with `fork`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.config.dense import DenseConfig


class RowCache:
    """[layers, rows, max_length, width], with the number of tokens held by each row.

    Attributes:
        lengths: tokens in each row, int64 on the CPU. Change it through the methods only.
        entries: what is kept of each token.
        by_row: of each layer, [rows, max_length, width].
        by_slot: of each layer, [rows * max_length, width].
        graphs: decode steps recorded on this memory, by size (see `graphed.py`): they end with the cache.
    """

    def __init__(
        self,
        layers: int,
        rows: int,
        max_length: int,
        width: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.rows, self.max_length, self.width = rows, max_length, width
        self.graphs: dict[tuple[object, ...], object] = {}
        self.entries = torch.zeros((layers, rows, max_length, width), device=device, dtype=dtype)
        self.by_row = list(self.entries.unbind())
        self.by_slot = [layer.view(-1, self.width) for layer in self.by_row]
        self._lengths = np.zeros(rows, dtype=np.int64)
        self.lengths = torch.from_numpy(self._lengths)
        self._mask_rows = torch.full((rows, max_length), float("-inf"), device=device, dtype=dtype)
        self._row_starts = torch.arange(rows, device=device) * max_length

    @property
    def device(self) -> torch.device:
        """Where the entries are."""
        return self.entries.device

    @property
    def bytes_per_token(self) -> int:
        """Memory of one token over all layers."""
        return self.entries.shape[0] * self.width * self.entries.element_size()

    def start(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Declares that rows hold new sequences of these lengths, about to be written."""
        for row, length in zip(rows, lengths, strict=True):
            self._set_length(row, length)

    def append(self, count: int, width: int = 1) -> tuple[Tensor, Tensor, int]:
        """Counts `width` more tokens in each of the rows 0 to `count` - 1.

        Returns:
            Where in `by_slot` their entries go and their positions, both [count * width], row by row, and the length
            of the longest row.
        """
        lengths = self._lengths[:count]
        longest = int(lengths.max()) + width
        if longest > self.max_length:
            row = int(lengths.argmax())
            raise ValueError(f"cache row {row} is full at max_length = {self.max_length} tokens: end its sequence")
        positions = self.lengths[:count].to(self.entries.device, copy=True)
        lengths += width
        slots = self._row_starts[:count] + positions
        if width > 1:
            ahead = torch.arange(width, device=self.entries.device)
            positions, slots = ((first[:, None] + ahead).flatten() for first in (positions, slots))
        self._mask_rows.view(-1).index_fill_(0, slots, 0.0)
        return slots, positions, longest

    def mask(self, count: int, longest: int) -> Tensor | None:
        """What to add to the scores of rows 0 to `count` - 1, [count, 1, 1, longest]; None where all are `longest`.

        It is 0 for a row's own tokens and -inf beyond them.
        """
        if int(self._lengths[:count].min()) == longest:
            return None
        return self.mask_rows(count, longest)

    def causal_mask(self, positions_N: Tensor, count: int, longest: int) -> Tensor:
        """The same for several tokens in each row, [count, N / count, 1, longest]: 0 up to a token's own position."""
        hidden = torch.arange(longest, device=positions_N.device) > positions_N.view(count, -1, 1, 1)
        return torch.zeros(hidden.shape, device=hidden.device, dtype=self.entries.dtype).masked_fill_(
            hidden, float("-inf")
        )

    def mask_rows(self, rows: int, length: int) -> Tensor:
        """The same for the first rows and tokens, whatever they hold: [rows, 1, 1, length], a view."""
        return self._mask_rows[:rows, None, None, :length]

    def slots(self, rows_N: Tensor, positions_N: Tensor | int) -> Tensor:
        """Index into `by_slot` of the given positions of the given rows."""
        return rows_N * self.max_length + positions_N

    def store(self, layer: int, slots_N: Tensor, entry: Sequence[Tensor]) -> None:
        """Writes tokens' entries into a layer: the parts that its attention gives, [N, ...] each, side by side."""
        entry_NC = torch.cat([part.flatten(1) for part in entry], -1)
        self.by_slot[layer].index_copy_(0, slots_N, entry_NC.to(self.entries.dtype))

    def read(self, slots_N: Tensor) -> list[Tensor]:
        """All that is kept of some tokens."""
        return [layer.index_select(0, slots_N) for layer in self.by_slot]

    def write(self, slots_N: Tensor, kept: Sequence[Tensor]) -> None:
        """Puts back what `read` gave."""
        for layer, entries in zip(self.by_slot, kept, strict=True):
            layer.index_copy_(0, slots_N, entries)

    def fork(self, source: int, targets: Sequence[int]) -> None:
        """Copies a row to others: a prompt to its samples."""
        length = int(self._lengths[source])
        for target in targets:
            if target != source:
                self._set_length(target, length)
                self.entries[:, target, :length] = self.entries[:, source, :length]

    def move(self, source: int, target: int) -> None:
        """Copies a row over another and empties it."""
        if source != target:
            self.fork(source, [target])
            self._set_length(source, 0)

    def truncate(self, row: int, length: int) -> None:
        """Forgets a row's tokens from `length` on, as after a rejected draft."""
        if length < self._lengths[row]:
            self._mask_rows[row, length : int(self._lengths[row])] = float("-inf")
            self._lengths[row] = length

    def clear(self, rows: Sequence[int] | None = None) -> None:
        """Empties rows, or all of them. Memory is kept and not zeroed: lengths decide what is read."""
        for row in range(self.rows) if rows is None else rows:
            self._set_length(row, 0)

    def _set_length(self, row: int, length: int) -> None:
        if not 0 <= row < self.rows:
            raise ValueError(f"cache row must be in 0..{self.rows - 1}, got {row}")
        if length > self.max_length:
            raise ValueError(f"a cache row holds {self.max_length} tokens, got {length}")
        self._lengths[row] = length
        self._mask_rows[row, :length] = 0.0
        self._mask_rows[row, length:] = float("-inf")


class LatentCache(RowCache):
    """Entries of width C + R: a token's latent and rotary key, for all heads together.

    What is stored is the latent after its norm and the rotary key after its rotation, on interleaved pairs:
    transformers stores the key in half-split order, so the two are not interchangeable.
    """

    def __init__(
        self,
        config: DeepseekV3Config,
        rows: int,
        max_length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        modules: int = 0,
    ) -> None:
        width = config.kv_lora_rank + config.qk_rope_head_dim
        super().__init__(config.num_hidden_layers + modules, rows, max_length, width, device, dtype)


class DraftCache(LatentCache):
    """With what `modules` prediction modules need to draft as many tokens, see `drafting.py`.

    Behind the model's layers come those of the modules. The hidden states of each row's latest tokens lie in a ring:
    that of position p at p modulo its size, so that a rejected token's is written over by its successor's. Rows have
    room for `max_length` tokens and a draft behind them.

    Attributes:
        modules: prediction modules that draft, one token each.
        window: latest positions of a row that a draft computes.
    """

    def __init__(
        self,
        config: DeepseekV3Config,
        rows: int,
        max_length: int,
        modules: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.modules, self.window = modules, modules + 1
        super().__init__(config, rows, max_length + modules, device, dtype, modules)
        self._ring = self.window + modules
        self._hidden = torch.zeros((rows, self._ring, config.hidden_size), device=device, dtype=dtype)

    def keep_hidden(self, hidden_ND: Tensor, slots_N: Tensor) -> None:
        """Stores the hidden states of tokens, after the model's final norm; no more of a row than the ring holds."""
        self._hidden.flatten(0, 1).index_copy_(0, self._ring_slots(slots_N), hidden_ND)

    def hidden(self, slots_N: Tensor) -> Tensor:
        """What was stored of tokens that are among the latest, [N, D]."""
        return self._hidden.flatten(0, 1).index_select(0, self._ring_slots(slots_N))

    def read(self, slots_N: Tensor) -> list[Tensor]:
        """All that is kept of some tokens, the hidden states too."""
        return [*super().read(slots_N), self.hidden(slots_N)]

    def write(self, slots_N: Tensor, kept: Sequence[Tensor]) -> None:
        """Puts back what `read` gave."""
        super().write(slots_N, kept[:-1])
        self.keep_hidden(kept[-1], slots_N)

    def fork(self, source: int, targets: Sequence[int]) -> None:
        """Copies a row to others, its hidden states too."""
        super().fork(source, targets)
        for target in targets:
            self._hidden[target].copy_(self._hidden[source])

    def _ring_slots(self, slots_N: Tensor) -> Tensor:
        rows_N = slots_N.div(self.max_length, rounding_mode="floor")
        return rows_N * self._ring + (slots_N - rows_N * self.max_length) % self._ring


class KeyValueCache(RowCache):
    """Entries of width 2 J K: the keys of a token's J heads after their rotation, then their values.

    Attributes:
        keys: of each layer, a view of the entries as [rows, J, max_length, K].
        values: likewise.
    """

    def __init__(
        self,
        config: DenseConfig,
        rows: int,
        max_length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        heads, dim = config.num_key_value_heads, config.head_dim
        super().__init__(config.num_hidden_layers, rows, max_length, 2 * heads * dim, device, dtype)
        split = self.entries.unflatten(-1, (2, heads, dim)).transpose(2, 4)
        self.keys = list(split[:, :, :, 0].unbind())
        self.values = list(split[:, :, :, 1].unbind())
