"""Labels at curve ends do not overlap."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.report.labels import spread

HEIGHTS = st.lists(st.floats(0, 1), max_size=8)


@given(HEIGHTS)
def test_spread_keeps_a_gap_and_the_order(heights: list[float]) -> None:
    moved = spread(heights, 0.1)
    ranked = sorted(moved)
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(ranked))
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    assert [moved[index] for index in order] == ranked


def test_spread_leaves_alone_what_is_apart() -> None:
    assert spread([0.9, 0.1, 0.5], 0.1) == pytest.approx([0.9, 0.1, 0.5])


def test_spread_moves_a_pair_by_equal_amounts() -> None:
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
