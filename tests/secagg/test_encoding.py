"""Fixed point in the ring: exact sums, unbiased rounding, nothing clipped."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.errors import ConfigError, DataError
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg import Block, UpdateRangeError, VectorEncoding, make_training_encoding


def draw(seed=0):
    return SecureGenerator.from_seed(seed, "rounding")


def encode_one(values, *, bound=1.0, kind="real", cohort=3, ring_bits=32, seed=0):
    values = np.asarray(values)
    encoding = VectorEncoding(
        (Block("x", len(values), bound, kind),), cohort=cohort, ring_bits=ring_bits
    )
    return encoding, encoding.encode({"x": values}, generator=draw(seed))


@given(
    st.integers(3, 300),
    st.floats(1e-6, 1e6),
    st.integers(16, 32),
    st.integers(0, 2**32),
)
@settings(max_examples=100, deadline=None)
def test_a_whole_cohort_at_its_bound_does_not_wrap(cohort, bound, ring_bits, seed):
    encoding, high = encode_one([bound, -bound], bound=bound, cohort=cohort, ring_bits=ring_bits)
    total = (high.astype(object) * cohort) % 2**ring_bits
    decoded = encoding.decode_sum(total.astype(encoding.dtype), cohort)["x"]
    tolerance = cohort * encoding.compute_resolution("x")
    np.testing.assert_allclose(decoded, [cohort * bound, -cohort * bound], atol=tolerance, rtol=0)


@given(
    st.lists(st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4), min_size=1, max_size=9)
)
@settings(max_examples=60, deadline=None)
def test_sum_of_encodings_is_the_sum_within_one_step_a_site(rows):
    encoding = make_training_encoding(4, 1.0, cohort=9, max_weight=100)
    total = np.zeros(encoding.length, encoding.dtype)
    for i, row in enumerate(rows):
        part = {"update": np.float32(row), "weight": np.array([i])}
        total += encoding.encode(part, generator=draw(i))
    decoded = encoding.decode_sum(total, len(rows))
    error = np.abs(decoded["update"] - np.sum(np.float32(rows).astype(float), axis=0))
    assert error.max() <= len(rows) * encoding.compute_resolution("update")
    assert decoded["weight"] == [sum(range(len(rows)))]


def test_multiples_of_the_resolution_are_encoded_exactly():
    encoding, _ = encode_one([0.0])
    step = encoding.compute_resolution("x")
    values = np.float32([0, step, -step, 0.5, -1, 1])
    exact = VectorEncoding((Block("x", 6, 1.0),), cohort=3)
    words = exact.encode({"x": values}, generator=draw())
    assert np.array_equal(exact.decode_sum(words, 1)["x"], values)


def test_rounding_is_unbiased_and_the_test_would_see_a_bias():
    encoding, words = encode_one(np.full(200_000, 0.3), bound=100.0, cohort=100, ring_bits=16)
    steps = encoding.decode_sum(words, 1)["x"] / encoding.compute_resolution("x")
    expected = 0.3 / encoding.compute_resolution("x")
    assert abs(steps.mean() - expected) < 5 * steps.std() / np.sqrt(len(steps))
    nearest = np.rint(np.full(200_000, expected))
    assert abs(nearest.mean() - expected) > 5 * steps.std() / np.sqrt(len(steps))


def test_rounding_repeats_with_its_generator_and_differs_with_another():
    values = np.linspace(-1, 1, 1000, dtype=np.float32) / 3
    first, again, other = (
        encode_one(values, cohort=1000, ring_bits=20, seed=s)[1] for s in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("value", [1.0000001, -1.0000001, 1e30])
def test_value_beyond_its_bound_is_refused_with_a_private_count(value):
    with pytest.raises(UpdateRangeError, match=r"values beyond 1;") as caught:
        encode_one([0.5, value, value])
    assert caught.value.private_count == 2
    assert "2" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["real", "count"])
def test_value_that_is_not_finite_is_refused(value, kind):
    with pytest.raises(DataError, match="NaN or infinity"):
        encode_one([0.5, value], kind=kind)


@pytest.mark.parametrize("value", [-1, 11])
def test_count_out_of_range_is_refused(value):
    with pytest.raises(UpdateRangeError):
        encode_one([value], bound=10, kind="count")


def test_count_that_is_not_whole_is_refused():
    with pytest.raises(DataError, match="not a whole number"):
        encode_one([1.5], bound=10, kind="count")


def test_block_of_another_shape_is_refused():
    encoding = make_training_encoding(4, 1.0, cohort=3)
    part = {"update": np.zeros(5), "weight": np.array([1])}
    with pytest.raises(DataError, match=r"shape \(5,\), not \(4,\)"):
        encoding.encode(part, generator=draw())


@pytest.mark.parametrize(
    ("block", "cohort", "ring_bits", "match"),
    [
        (Block("x", 1, 2**20, "count"), 10_000, 32, "raise ring_bits"),
        (Block("x", 1, 1.0), 40_000, 16, "raise ring_bits"),
        (Block("x", 1, 0.0), 3, 32, "not a positive number"),
        (Block("x", 1, float("nan")), 3, 32, "not a positive number"),
        (Block("x", 1, float("inf"), "count"), 3, 32, "not a positive number"),
        (Block("x", -1, 1.0), 3, 32, "not a positive number"),
        (Block("x", 1, 1.0), 3, 15, "ring_bits = 15"),
        (Block("x", 1, 1.0), 3, 33, "ring_bits = 33"),
        (Block("x", 1, 1.0), 0, 32, "cohort = 0"),
    ],
)
def test_encoding_that_does_not_fit_its_ring_is_refused(block, cohort, ring_bits, match):
    with pytest.raises(ConfigError, match=match):
        VectorEncoding((block,), cohort=cohort, ring_bits=ring_bits)


def test_blocks_of_the_same_name_are_refused():
    with pytest.raises(ConfigError, match="distinct"):
        VectorEncoding((Block("x", 1, 1.0), Block("x", 1, 1.0)), cohort=3)


def test_sum_of_more_vectors_than_proven_is_refused():
    encoding, words = encode_one([0.5])
    with pytest.raises(ValueError, match="sum of 4 vectors"):
        encoding.decode_sum(words, 4)
    with pytest.raises(ValueError, match="expected at most"):
        encoding.decode_sum(words[:0], 3)


def test_metrics_ride_in_the_same_vector():
    metrics = (Block("loss", 1, 1000.0), Block("confusion", 4, 500, "count"))
    encoding = make_training_encoding(2, 1.0, cohort=10, max_weight=500, metrics=metrics)
    part = {
        "update": np.float32([0.5, -0.5]),
        "weight": np.array([321]),
        "loss": np.array([12.5]),
        "confusion": np.array([1, 2, 3, 500]),
    }
    decoded = encoding.decode_sum(encoding.encode(part, generator=draw()), 1)
    assert {name: list(values) for name, values in decoded.items()} == {
        name: list(values) for name, values in part.items()
    }


def test_encoding_takes_memory_of_its_result_only():
    encoding = make_training_encoding(2_000_000, 1.0, cohort=10)
    part = {"update": np.zeros(2_000_000, np.float32), "weight": np.array([1])}
    tracemalloc.start()
    encoding.encode(part, generator=draw())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_004 + 6 * 2**20
