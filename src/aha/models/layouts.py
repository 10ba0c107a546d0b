"""How flattened tokens N make up sequences: everything that is not token-wise goes through a layout.

    Rectangle(B, T)     pretraining: B rows of T tokens, packed documents attend across their borders (V3 4.1)
    MaskedRows(rows)    the same rows, where documents see only themselves
    Ragged(lengths)     sequences one after another, each causal within itself, no padding
    SharedPrefix(...)   RL: each prompt once, followed by its G completions, which see the prompt and themselves

No token is ever padding. Index tensors say where things are in N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor


class SegmentBatch(NamedTuple):
    """`segments` neighbouring segments of one length, from token `start`: attended as one batch, without copies."""

    start: int
    segments: int
    length: int


class PrefixBlock(NamedTuple):
    """Queries [q_start, q_stop) see all keys [k_start, k_stop): completions and their prompt."""

    q_start: int
    q_stop: int
    k_start: int
    k_stop: int


class PositionGap(NamedTuple):
    """A jump of positions within a segment."""

    start: int
    """The segment's token from which on positions are larger."""
    size: int
    """By how much; 0 for no gap."""


class Grid(NamedTuple):
    """Segments as the rows of a rectangle: S of them, T the longest, X keys each. For attention with padding."""

    query_ST: Tensor  # noqa: N815
    """Token of each place; padding repeats some other."""
    key_SX: Tensor  # noqa: N815
    """Token of each key: the prefix's places, then the segment's own."""
    mask_STX: Tensor | None  # noqa: N815
    """Which keys a query sees; None without prefixes, where plain causality says it."""
    place_N: Tensor  # noqa: N815
    """Where in the flattened rectangle each token is."""


class SequenceEnds(NamedTuple):
    """Segments end to end, each with all keys that it sees: for kernels that take ends instead of padding."""

    queries: Tensor
    """Ends of the segments, with 0 in front, int32 [S + 1]."""
    keys: Tensor
    """The same of their keys, prefixes included."""
    key_X: Tensor | None  # noqa: N815
    """Token of each key; None without prefixes: the tokens as they are."""


class Layout:
    """Segments laid end to end; segment i may continue after another one (its prefix), whose keys it also sees.

    Attributes:
        lengths: tokens of each segment, in the order of N.
        prefixes: for each segment the index of the segment it continues, or -1.
        num_tokens: N.
        longest: more than the largest position; by one where positions have no gaps.
        positions_N: position of each token in its own sequence, prefix included.
    """

    def __init__(
        self, lengths: Sequence[int], prefixes: Sequence[int] | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.lengths = list(lengths)
        self.prefixes = list(prefixes) if prefixes is not None else [-1] * len(self.lengths)
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(f"a layout needs segments of at least 1 token, got lengths {self.lengths}")
        self.starts = [0, *accumulate(self.lengths)][:-1]
        self.num_tokens = sum(self.lengths)
        self.device = torch.device(device)
        offsets = [0 if p < 0 else self.lengths[p] for p in self.prefixes]
        self.longest = max(offset + length for offset, length in zip(offsets, self.lengths, strict=True))
        lengths_S = torch.tensor(self.lengths)
        shift_S = torch.tensor(offsets) - torch.tensor(self.starts)
        self.positions_N = (
            torch.arange(self.num_tokens) + torch.repeat_interleave(shift_S, lengths_S, output_size=self.num_tokens)
        ).to(self.device)
        self.batches = _segment_batches(self.lengths)
        self.prefix_blocks = self._find_prefix_blocks()

    @property
    def num_segments(self) -> int:
        """Segments (sequences, or prompts and completions)."""
        return len(self.lengths)

    def segment_mean(self, x_NE: Float[Tensor, "N E"]) -> Float[Tensor, "S E"]:
        """Mean over the tokens of each segment: [S, E]."""
        if len(self.batches) == 1:
            return x_NE.view(self.num_segments, -1, x_NE.shape[-1]).mean(1)
        lengths_S = torch.tensor(self.lengths, device=x_NE.device)
        sums = x_NE.new_zeros(self.num_segments, x_NE.shape[-1])
        return sums.index_add(0, self.segment_of_N, x_NE) / lengths_S.unsqueeze(-1)

    @cached_property
    def segment_of_N(self) -> Tensor:
        """The segment each token belongs to."""
        lengths_S = torch.tensor(self.lengths, device=self.device)
        segments = torch.arange(self.num_segments, device=self.device)
        return torch.repeat_interleave(segments, lengths_S, output_size=self.num_tokens)

    @cached_property
    def last_S(self) -> Tensor:
        """Index in N of each segment's last token."""
        return torch.tensor([s + n - 1 for s, n in zip(self.starts, self.lengths, strict=True)], device=self.device)

    def shift(self, values_N: Shaped[Tensor, " N"], by: int) -> tuple[Shaped[Tensor, " N"], Bool[Tensor, " N"]]:
        """What is `by` places later in the same segment (a token id, a weight), and where there is such a place.

        Returns:
            Values [N], with the place's own where there is none, and a bool mask [N] that is False there.
        """
        left = torch.tensor([s + n for s, n in zip(self.starts, self.lengths, strict=True)], device=self.device)
        there_N = torch.arange(by, self.num_tokens + by, device=self.device) < left[self.segment_of_N]
        source_N = torch.arange(self.num_tokens, device=self.device) + by * there_N
        return values_N.index_select(0, source_N), there_N

    @cached_property
    def grid(self) -> Grid:
        """The segments as rows, made once for all layers."""
        lengths_S, starts_S = (torch.tensor(values, device=self.device) for values in (self.lengths, self.starts))
        column_T = torch.arange(max(self.lengths), device=self.device)
        last = self.num_tokens - 1
        query_ST = (starts_S[:, None] + column_T).clamp_(max=last)
        token_N = torch.arange(self.num_tokens, device=self.device)
        place_N = token_N + self.segment_of_N * len(column_T) - starts_S[self.segment_of_N]
        if max(self.prefixes) < 0:
            return Grid(query_ST, query_ST, None, place_N)
        # Segments without a prefix look at segment 0, of which their mask lets them see nothing.
        prefix_S = torch.tensor(self.prefixes, device=self.device)
        prefix_length_S = torch.where(prefix_S >= 0, lengths_S[prefix_S], 0)
        longest = max(self.lengths[prefix] for prefix in self.prefixes if prefix >= 0)
        column_P = torch.arange(longest, device=self.device)
        prefix_SP = (starts_S[prefix_S][:, None] + column_P).clamp_(max=last)
        causal_STT = (column_T[:, None] >= column_T).expand(self.num_segments, -1, -1)
        seen_STP = (column_P < prefix_length_S[:, None])[:, None].expand(-1, len(column_T), -1)
        return Grid(query_ST, torch.cat([prefix_SP, query_ST], 1), torch.cat([seen_STP, causal_STT], 2), place_N)

    @cached_property
    def sequence_ends(self) -> SequenceEnds:
        """The segments end to end with their keys, made once for all layers."""
        spans = [
            [
                *([range(self.starts[p], self.starts[p] + self.lengths[p])] if p >= 0 else []),
                range(start, start + length),
            ]
            for p, start, length in zip(self.prefixes, self.starts, self.lengths, strict=True)
        ]
        ends, key_ends = (
            torch.tensor([0, *accumulate(counts)], dtype=torch.int32, device=self.device)
            for counts in (self.lengths, [sum(map(len, parts)) for parts in spans])
        )
        if max(self.prefixes) < 0:
            return SequenceEnds(ends, key_ends, None)
        keys = torch.cat([torch.arange(span.start, span.stop) for parts in spans for span in parts])
        return SequenceEnds(ends, key_ends, keys.to(self.device))

    def _find_prefix_blocks(self) -> list[PrefixBlock]:
        """One block per stretch of neighbouring segments that continue the same prefix."""
        found = []
        for prefix, members in groupby(range(self.num_segments), key=lambda i: self.prefixes[i]):
            if prefix >= 0:
                # Siblings lie side by side, so their queries and their prompt's keys are one block without a mask.
                span = list(members)
                first, last = span[0], span[-1]
                k_start = self.starts[prefix]
                stop = self.starts[last] + self.lengths[last]
                found.append(PrefixBlock(self.starts[first], stop, k_start, k_start + self.lengths[prefix]))
        return found


class Rectangle(Layout):
    """B rows of T tokens. Documents packed in a row see each other: V3 4.1 packs without a block-document mask."""

    def __init__(self, rows: int, length: int, device: torch.device | str = "cpu") -> None:
        super().__init__([length] * rows, device=device)
        self.shape = (rows, length)


class MaskedRows(Layout):
    """Rows of equal length, packed with documents that do not see each other.

    For the balance loss a row is still one sequence, as it is in a `Rectangle`.

    Args:
        rows: lengths of each row's documents, in tokens.
        device: of the index tensors.
        gaps: one for each document, row after row; None for positions without gaps.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[int]],
        device: torch.device | str = "cpu",
        gaps: Sequence[PositionGap] | None = None,
    ) -> None:
        super().__init__([length for row in rows for length in row], device=device)
        if len({sum(row) for row in rows}) != 1:
            raise ValueError(f"rows must be of one length, got {[sum(row) for row in rows]}")
        self.shape = (len(rows), sum(rows[0]))
        if gaps:
            jumps_N = torch.zeros(self.num_tokens, dtype=torch.int64)
            for start, length, gap in zip(self.starts, self.lengths, gaps, strict=True):
                jumps_N[start + gap.start : start + length] = gap.size
            self.positions_N = self.positions_N + jumps_N.to(self.device)
            self.longest += max(gap.size for gap in gaps)

    def segment_mean(self, x_NE: Float[Tensor, "N E"]) -> Float[Tensor, "S E"]:
        """Mean over the tokens of each row: [rows, E]."""
        return x_NE.view(*self.shape, x_NE.shape[-1]).mean(1)


class Ragged(Layout):
    """Sequences of any lengths, one after another.

    Also packing without attention between documents (V3 section 5.1).
    """

    def __init__(self, lengths: Sequence[int], device: torch.device | str = "cpu") -> None:
        super().__init__(lengths, device=device)


@dataclass(frozen=True)
class PromptGroup:
    """One prompt and the lengths of its completions, in tokens."""

    prompt_length: int
    completion_lengths: Sequence[int]


class SharedPrefix(Layout):
    """Prompts with their completions, each prompt once: group 0 prompt, its completions, group 1 prompt, ...

    Gives exactly the outputs and gradients of repeating the prompt before each completion, without its cost. Empty
    completions are not allowed: they have no token to train on.

    Attributes:
        completion_N: index in N of every completion token, completions in order.
        completion_lengths: tokens of each completion, in the same order.
        predicts_N: index in N of the token whose output predicts each token of `completion_N`: the one before it,
            or the last of the prompt.
    """

    def __init__(self, groups: Sequence[PromptGroup], device: torch.device | str = "cpu") -> None:
        lengths: list[int] = []
        prefixes: list[int] = []
        for group in groups:
            prompt = len(lengths)
            lengths += [group.prompt_length, *group.completion_lengths]
            prefixes += [-1] + [prompt] * len(group.completion_lengths)
        super().__init__(lengths, prefixes, device)
        is_completion = torch.tensor(prefixes, device=self.device)[self.segment_of_N] >= 0
        self.completion_N = is_completion.nonzero().squeeze(-1)
        members = [i for i, prefix in enumerate(prefixes) if prefix >= 0]
        self.completion_lengths = [lengths[i] for i in members]
        # A completion's first token is predicted by its prompt's last, which is not the token before it in N.
        self.predicts_N = self.completion_N - 1
        firsts = torch.tensor([0, *accumulate(self.completion_lengths)][:-1], device=self.device)
        ends = [self.starts[prefixes[i]] + lengths[prefixes[i]] - 1 for i in members]
        self.predicts_N[firsts] = torch.tensor(ends, device=self.device)


def _segment_batches(lengths: Sequence[int]) -> list[SegmentBatch]:
    batches, start = [], 0
    for length, same in groupby(lengths):
        count = len(list(same))
        batches.append(SegmentBatch(start, count, length))
        start += count * length
    return batches
