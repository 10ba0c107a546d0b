"""The latent cache: lengths, masks, copies and limits."""

import pytest
import torch

from aha.models.kv_cache import LatentCache
from aha.models.presets import tiny, v3

torch.set_num_threads(1)


def cache(rows: int = 4, length: int = 6) -> LatentCache:
    return LatentCache(tiny(), rows, length)


def test_append_gives_slots_positions_and_the_longest() -> None:
    c = cache()
    c.start([0, 1, 2], [3, 1, 0])
    slots, positions, longest = c.append(3)
    assert (slots.tolist(), positions.tolist(), longest) == ([3, 7, 12], [3, 1, 0], 4)
    assert c.lengths.tolist() == [4, 2, 1, 0]


def test_mask_hides_what_a_row_does_not_have() -> None:
    c = cache()
    c.start([0, 1], [2, 0])
    _, _, longest = c.append(2)
    mask = c.mask(2, longest)
    assert mask is not None
    assert mask[:, 0, 0].isfinite().tolist() == [[True] * 3, [True, False, False]]
    c.truncate(0, 1)
    assert c.mask(2, 1) is None
    c.clear()
    c.start([0, 1], [1, 3])
    mask = c.mask(2, 3)
    assert mask is not None
    assert mask[:, 0, 0].isfinite().tolist() == [[True, False, False], [True] * 3]


def test_fork_and_move_copy_only_what_is_held() -> None:
    c = cache()
    c.start([2], [3])
    c.entries[:, 2] = 5.0
    c.fork(2, [0, 2, 3])
    assert c.lengths.tolist() == [3, 0, 3, 3]
    assert c.entries[:, 0, :3].eq(5).all()
    assert c.entries[:, 0, 3:].eq(0).all()
    c.move(3, 1)
    assert c.lengths.tolist() == [3, 3, 3, 0]


def test_limits() -> None:
    c = cache(2, 3)
    c.start([0], [3])
    with pytest.raises(ValueError, match="row 0 is full at max_length = 3"):
        c.append(1)
    with pytest.raises(ValueError, match=r"must be in 0\.\.1, got 2"):
        c.start([2], [1])
    with pytest.raises(ValueError, match="holds 3 tokens, got 4"):
        c.start([1], [4])


def test_v3_bytes_per_token() -> None:
    held = LatentCache(v3(), 1, 1, device="meta", dtype=torch.bfloat16)
    assert held.bytes_per_token == 70_272
