"""Several levels in one word of the ring: exact sums, whoever survives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.errors import ConfigError
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg import Block, VectorEncoding
from fedtrain.secagg.packing import Packing


@settings(max_examples=100, deadline=None)
@given(st.sampled_from((4, 8, 16)), st.integers(1, 40), st.integers(1, 9), st.data())
def test_packed_words_add_up_to_the_sums_of_their_levels(bits, cohort, size, data):
    packing = Packing.fit(bits, cohort=cohort, ring_bits=32)
    level = st.integers(-packing.half, packing.half)
    count = data.draw(st.integers(1, cohort))
    rows = data.draw(
        st.lists(st.lists(level, min_size=size, max_size=size), min_size=count, max_size=count)
    )
    words = [packing.pack(np.array(row), np.dtype("<u4")) for row in rows]
    total = np.sum(words, axis=0, dtype=np.uint32)
    assert (packing.unpack(total, size, count=count) == np.sum(rows, axis=0)).all()


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("bits", "ring_bits"), [(4, 16), (8, 16), (8, 32), (16, 32)])
def test_a_whole_cohort_at_its_last_level_does_not_carry(bits, ring_bits, sign):
    packing = Packing.fit(bits, cohort=100, ring_bits=ring_bits)
    levels = np.full(7, sign * packing.half)
    one = packing.pack(levels, np.dtype(f"<u{ring_bits // 8}"))
    total = (one * np.array(100, one.dtype)).astype(one.dtype)
    assert (packing.unpack(total, 7, count=100) == 100 * levels).all()


def test_one_site_more_than_the_lanes_are_for_carries_over():
    packing = Packing.fit(4, cohort=9, ring_bits=32)  # 9 x 14 < 2^7 < 10 x 14
    words = packing.pack(np.array([7, 0]), np.dtype("<u4")) * np.uint32(10)
    assert packing.unpack(words, 2, count=10).tolist() != [70, 0]


@pytest.mark.parametrize(("bits", "lanes"), [(16, 1), (8, 2), (4, 4)])
def test_ten_sites_share_words_as_the_config_says(bits, lanes):
    assert Packing.fit(bits, cohort=10, ring_bits=32).lanes == lanes


def test_too_many_sites_for_one_lane_are_refused():
    with pytest.raises(ConfigError, match="raise ring_bits"):
        Packing.fit(16, cohort=4, ring_bits=16)


def test_rounding_to_few_bits_is_unbiased():
    block = Block("x", 40_000, 1.0, bits=4)
    encoding = VectorEncoding((block,), cohort=10)
    generator = SecureGenerator.from_seed(0, "rounding")
    words = encoding.encode({"x": np.full(block.size, 0.31)}, generator=generator)
    mean = encoding.decode_sum(words, 1)["x"].mean()
    assert abs(mean - 0.31) < 6 / 14 / np.sqrt(block.size)  # six deviations, each below 1/14


def test_packed_bounds_are_encoded_as_the_last_levels():
    encoding = VectorEncoding((Block("x", 2, 0.3, bits=8),), cohort=3)
    words = encoding.encode(
        {"x": np.array([0.3, -0.3])}, generator=SecureGenerator.from_seed(0, "rounding")
    )
    np.testing.assert_allclose(encoding.decode_sum(words, 1)["x"], [0.3, -0.3], rtol=1e-12)
