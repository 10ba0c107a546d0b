"""Layouts: positions, borders and what is left out."""

import pytest
import torch

from aha.models.layouts import Layout, MaskedRows, PositionGap, PromptGroup, Ragged, Rectangle, SharedPrefix


def test_positions_start_again_in_each_sequence_and_go_on_after_a_prompt() -> None:
    assert Ragged([2, 3]).positions_N.tolist() == [0, 1, 0, 1, 2]
    assert Rectangle(2, 2).positions_N.tolist() == [0, 1, 0, 1]
    shared = SharedPrefix([PromptGroup(2, [1, 3]), PromptGroup(1, [2])])
    assert shared.positions_N.tolist() == [0, 1, 2, 2, 3, 4, 0, 1, 2]
    assert shared.longest == 5


def test_positions_jump_within_a_document_and_start_again_in_the_next() -> None:
    layout = MaskedRows([[4, 2], [6]], gaps=[PositionGap(2, 5), PositionGap(0, 0), PositionGap(5, 1)])
    assert layout.positions_N.tolist() == [0, 1, 7, 8, 0, 1, 0, 1, 2, 3, 4, 6]
    assert layout.longest > 8
    assert MaskedRows([[4, 2], [6]]).positions_N.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4, 5]


def test_shift_stops_at_the_end_of_a_segment() -> None:
    layout, ids = Ragged([3, 1, 2]), torch.tensor([10, 11, 12, 20, 30, 31])
    shifted, there = layout.shift(ids, 1)
    assert there.tolist() == [True, True, False, False, True, False]
    assert shifted[there].tolist() == [11, 12, 31]
    assert layout.shift(ids, 2)[1].tolist() == [True, False, False, False, False, False]
    weights, there = layout.shift(torch.tensor([0.5, 1.0, 0.25, 1.0, 1.0, 0.75]), 1)
    assert weights[there].tolist() == [1.0, 0.25, 0.75]


@pytest.mark.parametrize("layout", [Rectangle(2, 3), Ragged([1, 3, 2])])
def test_segment_mean(layout: Layout) -> None:
    x = torch.randn(6, 4)
    expected = torch.stack([part.mean(0) for part in x.split(layout.lengths)])
    torch.testing.assert_close(layout.segment_mean(x), expected)


def test_last_tokens() -> None:
    assert Ragged([3, 1, 2]).last_S.tolist() == [2, 3, 5]


def test_neighbours_of_one_length_are_one_batch() -> None:
    batches = Ragged([4, 4, 4, 2, 4]).batches
    assert [tuple(batch) for batch in batches] == [(0, 3, 4), (12, 1, 2), (14, 1, 4)]


@pytest.mark.parametrize("lengths", [[], [3, 0]])
def test_empty_segments_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="at least 1 token"):
        Ragged(lengths)
