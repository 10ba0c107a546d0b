"""Rotary positions: pairs, relative positions, YaRN's two factors."""

import gc
import math
import weakref

import pytest
import torch

from aha.models.config.deepseek_v3 import DeepseekV3Config, RopeScaling
from aha.models.config.presets import tiny, v3
from aha.models.mla import rotated
from aha.models.rope import Rope, inverse_frequencies, rotate_, softmax_scale

torch.set_num_threads(1)


def yarn(**keys: float) -> DeepseekV3Config:
    scaling = RopeScaling(factor=40, original_max_position_embeddings=4096, **keys)
    return tiny(rope_scaling=scaling, qk_rope_head_dim=64, max_position_embeddings=163840)


def test_an_outgrown_table_stays_where_recorded_graphs_read_it() -> None:
    rope = Rope(tiny())
    first = weakref.ref(rope.table(100, torch.device("cpu")))
    assert rope.table(1000, torch.device("cpu")).shape[0] >= 1000
    gc.collect()
    assert first() is not None


def test_neighbouring_numbers_are_a_pair() -> None:
    config = tiny(qk_rope_head_dim=4)
    cis = Rope(config).at(torch.tensor([3]), 4)
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    expected = []
    for (a, b), frequency in zip([(1.0, 2.0), (3.0, 4.0)], [1.0, 10000.0**-0.5], strict=True):
        angle = 3 * frequency
        expected += [a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle)]
    torch.testing.assert_close(rotate_(x.clone(), cis), torch.tensor([expected]))


def test_scores_depend_on_the_distance_only() -> None:
    rope = Rope(tiny())
    q, k = torch.randn(1, 16), torch.randn(1, 16)

    def score(i: int, j: int) -> torch.Tensor:
        a, b = (rotate_(x.clone(), rope.at(torch.tensor([p]), 900)) for x, p in ((q, i), (k, j)))
        return (a * b).sum()

    torch.testing.assert_close(score(5, 2), score(805, 802), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("offset", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rotation_in_place_is_rotation_out_of_place(offset: int, dtype: torch.dtype) -> None:
    """Also where memory cannot be seen as complex numbers."""
    wide = torch.randn(5, 3, 9 + offset, dtype=dtype)
    part, cis = wide[..., offset : offset + 8], Rope(tiny(qk_rope_head_dim=8)).at(torch.arange(5), 5).unsqueeze(1)
    expected, before = rotated(part, cis), wide.clone()
    rotate_(part, cis)
    torch.testing.assert_close(wide[..., offset : offset + 8], expected)
    torch.testing.assert_close(wide[..., :offset], before[..., :offset], atol=0, rtol=0)
    torch.testing.assert_close(wide[..., offset + 8 :], before[..., offset + 8 :], atol=0, rtol=0)


def test_the_conjugate_rotates_back() -> None:
    cis, x = Rope(tiny()).at(torch.arange(7), 7), torch.randn(7, 16)
    torch.testing.assert_close(rotate_(rotate_(x.clone(), cis), cis.conj_physical()), x)


def test_yarn_keeps_fast_pairs_and_slows_slow_ones() -> None:
    plain, slowed = inverse_frequencies(tiny(qk_rope_head_dim=64)), inverse_frequencies(yarn())
    assert torch.equal(slowed[:8], plain[:8])
    torch.testing.assert_close(slowed[-6:], plain[-6:] / 40)
    assert bool((slowed <= plain).all())


def test_v3_softmax_scale() -> None:
    assert softmax_scale(v3()) == pytest.approx(192**-0.5 * 1.3689**2, rel=1e-4)
    assert softmax_scale(tiny()) == 32**-0.5


@pytest.mark.parametrize(
    ("keys", "factor"),
    [
        ({"mscale": 1.0, "mscale_all_dim": 1.0}, 1.0),
        ({}, 0.1 * math.log(40) + 1),
        ({"mscale": 0.5, "mscale_all_dim": 1.0}, (0.05 * math.log(40) + 1) / (0.1 * math.log(40) + 1)),
    ],
)
def test_cos_and_sin_factor(keys: dict[str, float], factor: float) -> None:
    table = Rope(yarn(**keys)).table(4, torch.device("cpu"))
    torch.testing.assert_close(table.abs(), torch.full_like(table.abs(), factor))


def test_the_table_grows() -> None:
    rope = Rope(tiny())
    short = rope.table(10, torch.device("cpu")).clone()
    long = rope.table(1000, torch.device("cpu"))
    assert long.shape[0] >= 1000
    assert torch.equal(long[:10], short[:10])
