"""The caches: lengths, masks, copies and limits of their rows, and what each keeps of a token."""

import pytest
import torch

from aha.inference.decoding.cache import DraftCache, KeyValueCache, LatentCache, RowCache
from aha.models.config.dense import DenseConfig
from aha.models.config.parameter_count import describe
from aha.models.config.presets import qwen3_tiny, tiny, v3

torch.set_num_threads(1)


def cache(rows: int = 4, length: int = 6) -> RowCache:
    return RowCache(3, rows, length, width=8)


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


def test_several_tokens_a_row_see_what_is_before_them() -> None:
    c = cache()
    c.start([0, 1], [3, 1])
    slots, positions, longest = c.append(2, 2)
    assert (slots.tolist(), positions.tolist(), longest) == ([3, 4, 7, 8], [3, 4, 1, 2], 5)
    mask = c.causal_mask(positions, 2, longest)
    assert mask.shape == (2, 2, 1, 5)
    assert mask.isfinite().sum(-1).tolist() == [[[4], [5]], [[2], [3]]]
    c.truncate(0, 4)
    assert c.lengths.tolist() == [4, 3, 0, 0]
    plain = c.mask(2, 4)
    assert plain is not None
    assert plain[:, 0, 0].isfinite().sum(-1).tolist() == [4, 3]
    c.truncate(1, 6)
    assert c.lengths.tolist() == [4, 3, 0, 0], "a row that holds less stays as it is"
    with pytest.raises(ValueError, match="row 0 is full"):
        c.append(2, 3)


def test_a_draft_cache_keeps_the_latest_hidden_states() -> None:
    c = DraftCache(tiny(hidden_size=6), 3, 10, 2)
    assert (c.entries.shape[0], c.window, c.max_length) == (4 + 2, 3, 12)
    c.start([1], [4])
    hidden = torch.arange(5 * 6.0).view(5, 6)
    of_row = [c.slots(torch.tensor([row] * 5), torch.arange(2, 7)) for row in range(3)]
    c.keep_hidden(hidden, of_row[1])
    c.fork(1, [0])
    kept = c.read(of_row[0])
    c.keep_hidden(hidden * 0, of_row[0])
    assert torch.equal(c.hidden(of_row[1]), hidden)
    assert torch.equal(c.hidden(of_row[0]), hidden * 0)
    c.write(of_row[0], kept)
    assert torch.equal(c.hidden(of_row[0]), hidden)


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


def test_latent_entries_are_a_latent_and_a_rotary_key() -> None:
    held = LatentCache(tiny(), 2, 5)
    assert held.entries.shape == (4, 2, 5, 48 + 16)


def test_keys_and_values_are_views_of_the_entries() -> None:
    held = KeyValueCache(qwen3_tiny(num_key_value_heads=2, head_dim=6), 3, 5)
    assert held.keys[0].shape == held.values[0].shape == (3, 2, 5, 6)
    held.start([1], [4])
    entry = torch.arange(24.0)
    held.by_slot[2].index_copy_(0, held.slots(torch.tensor([1]), torch.tensor([3])), entry[None])
    assert torch.equal(held.keys[2][1, :, 3].flatten(), entry[:12])
    assert torch.equal(held.values[2][1, :, 3].flatten(), entry[12:])
    held.fork(1, [0])
    assert torch.equal(held.values[2][0], held.values[2][1])
    assert held.bytes_per_token == 3 * 24 * 4


def test_bytes_of_a_token_are_those_of_the_arithmetic() -> None:
    for config in (tiny(), v3(num_hidden_layers=4), qwen3_tiny()):
        kind = KeyValueCache if isinstance(config, DenseConfig) else LatentCache
        held = kind(config, 1, 1, device="meta")
        assert held.bytes_per_token == describe(config, 4).cache_bytes_per_token
