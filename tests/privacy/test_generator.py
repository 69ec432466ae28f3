import copy
import math
import os
import pickle

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from fedtrain.errors import ConfigError
from fedtrain.privacy.generator import SecureGenerator, _tabulate_binomial

KEY = bytes(range(16))


class FixedStream(SecureGenerator):
    """A generator whose keystream is one word, over and over."""

    def __init__(self, word):
        super().__init__(KEY)
        self.word = word

    def draw_bytes(self, n):
        return np.full(n // 4, self.word, dtype="<u4").view(np.uint8)


def encrypt_zeros(key, n):
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(n))


def is_normal(sample, stddev):
    """Say whether mean, variance and shape are those of N(0, stddev^2), at a level of 1e-6."""
    n, scaled = len(sample), sample / stddev
    mean = abs(scaled.mean()) * math.sqrt(n)
    variance = abs(scaled.var() - 1) * math.sqrt(n / 2)
    return max(mean, variance) < 4.9 and stats.kstest(scaled, "norm").pvalue > 1e-6


@pytest.fixture(scope="module")
def million():
    generator = SecureGenerator.from_seed(1, "test")
    return generator.draw_normal((10**6,), stddev=3.0).numpy().astype(np.float64)


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 2**20 - 1, 2**20 + 1, 3 * 2**20])
def test_keystream_is_aes_in_counter_mode(size, n):
    key = bytes(range(size))
    assert SecureGenerator(key).draw_bytes(n).tobytes() == encrypt_zeros(key, n)


def test_keystream_matches_the_published_cipher():
    # FIPS 197, appendix C.1: AES-128 of 00112233...; as CTR, the block that encrypts counter 0.
    zero_block = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor().update(bytes(16))
    assert SecureGenerator(KEY).draw_bytes(16).tobytes() == zero_block
    assert zero_block.hex() == "c6a13b37878f5b826f4f8162a1c8d879"


def test_draws_continue_one_stream():
    generator = SecureGenerator(KEY)
    parts = [generator.draw_bytes(n).tobytes() for n in (5, 0, 40, 2**20 + 3)]
    assert b"".join(parts) == encrypt_zeros(KEY, 48 + 2**20)


@pytest.mark.parametrize("size", [0, 15, 24, 33])
def test_key_of_another_size_is_refused(size):
    with pytest.raises(ConfigError, match=f"{size} bytes"):
        SecureGenerator(bytes(size))


def test_same_seed_and_labels_give_the_same_bytes():
    first, second = (SecureGenerator.from_seed(7, "noise", 3) for _ in range(2))
    assert first.draw_bytes(64).tobytes() == second.draw_bytes(64).tobytes()
    a, b = (SecureGenerator.from_seed(7).draw_normal((3, 5), stddev=1.0) for _ in range(2))
    assert torch.equal(a, b)


def test_different_seeds_and_labels_give_different_streams():
    labels = [(), ("a",), ("a", "b"), ("ab",), ("b", "a"), (1,), ("1",), ("",), ("", ""), ("a,b",)]
    makers = [(seed, *rest) for seed in (0, 1, 2**255) for rest in labels]
    streams = {SecureGenerator.from_seed(*maker).draw_bytes(16).tobytes() for maker in makers}
    assert len(streams) == len(makers)


@pytest.mark.parametrize("seed", [-1, 2**256])
def test_seed_outside_its_range_is_refused(seed):
    with pytest.raises(ConfigError, match="seed"):
        SecureGenerator.from_seed(seed)


def test_system_generators_differ():
    streams = {SecureGenerator.from_system().draw_bytes(16).tobytes() for _ in range(100)}
    assert len(streams) == 100


def test_key_is_not_given_away():
    generator = SecureGenerator(KEY)
    assert repr(generator) == "SecureGenerator(key hidden)"
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            duplicate(generator)


def test_forked_process_may_not_draw(monkeypatch):
    generator = SecureGenerator(KEY)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="fork"):
        generator.draw_uniform(1)


def test_uniforms_are_53_bits_in_the_unit_interval():
    words = np.frombuffer(encrypt_zeros(KEY, 8 * 10_000), "<u8")
    drawn = SecureGenerator(KEY).draw_uniform(10_000)
    assert drawn.tolist() == [(int(word) >> 11) / 2**53 for word in words]
    assert FixedStream(0).draw_uniform(2).tolist() == [0, 0]
    assert FixedStream(2**32 - 1).draw_uniform(1)[0] == 1 - 2**-53


def test_uniforms_are_uniform():
    counts, _ = np.histogram(SecureGenerator.from_seed(2).draw_uniform(10**6), 100, (0, 1))
    assert stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.parametrize("word", [0, 2**31 - 1, 2**31, 2**32 - 1])
def test_normals_are_finite_at_the_ends_of_the_keystream(word):
    drawn = FixedStream(word).draw_normal((4,), stddev=1.0)
    assert torch.isfinite(drawn).all()
    assert drawn.abs().max() < 13.4


def test_normals_reach_thirteen_standard_deviations():
    assert FixedStream(0).draw_normal((2,), stddev=1.0)[0] > 13


def test_normals_are_half_the_sum_of_four_box_muller_draws():
    words = np.frombuffer(encrypt_zeros(KEY, 4 * 80), "<i4").astype(np.float64).reshape(2, 4, 10)
    radius = np.sqrt(-2 * np.log(np.abs(words[0] + 0.5) / 2**31))
    angle = words[1] * np.pi / 2**31
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1).sum(0) / 2
    drawn = SecureGenerator(KEY).draw_normal((4, 5), stddev=2.0)
    np.testing.assert_allclose(drawn.numpy().ravel(), 2 * expected, rtol=1e-4, atol=1e-5)


def test_normals_have_the_claimed_distribution(million):
    assert is_normal(million, 3.0)


@pytest.mark.parametrize("factor", [2 / 3, 3 / 2, 0.98, 1.02])
def test_normals_of_another_deviation_are_rejected(million, factor):
    assert not is_normal(million * factor, 3.0)


def test_the_check_of_normals_rejects_another_shape():
    uniform = SecureGenerator.from_seed(3).draw_uniform(10**6)
    assert not is_normal((uniform - 0.5) * math.sqrt(12), 1.0)


@pytest.mark.parametrize("lag", [1, 2**14, 2**15, 10**5])
def test_normals_are_uncorrelated(million, lag):
    first, second = million[:-lag], million[lag:]
    for a, b in ((first, second), (first**2, second**2)):
        assert abs(np.corrcoef(a, b)[0, 1]) * math.sqrt(len(a)) < 4.9


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2**15 + 1,), (7, 11), 5])
def test_normals_have_the_shape_asked_for(shape):
    drawn = SecureGenerator(KEY).draw_normal(shape, stddev=1.0)
    assert drawn.shape == torch.empty(shape).shape
    assert drawn.dtype == torch.float32


def test_normals_do_not_depend_on_the_number_of_threads():
    before = torch.get_num_threads()
    drawn = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        drawn.append(SecureGenerator(KEY).draw_normal((300_001,), stddev=1.0))
    torch.set_num_threads(before)
    assert torch.equal(*drawn)


def test_no_noise_is_zero_and_advances_the_stream():
    silent, loud = SecureGenerator(KEY), SecureGenerator(KEY)
    assert (silent.draw_normal((100,), stddev=0.0) == 0).all()
    loud.draw_normal((100,), stddev=1.0)
    assert silent.draw_bytes(8).tobytes() == loud.draw_bytes(8).tobytes()


@pytest.mark.parametrize("stddev", [-1.0, math.nan, math.inf])
def test_stddev_outside_its_range_is_refused(stddev):
    with pytest.raises(ConfigError, match="stddev"):
        SecureGenerator(KEY).draw_normal((1,), stddev=stddev)


@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_poisson_counts_are_binomial(rate):
    generator = SecureGenerator.from_seed(4, "mask")
    counts = [int(generator.draw_poisson_mask(100, rate=rate).sum()) for _ in range(20_000)]
    observed = np.bincount(counts, minlength=101)
    expected = stats.binom(100, rate).pmf(range(101)) * len(counts)
    common = expected > 10
    statistic = ((observed - expected)[common] ** 2 / expected[common]).sum()
    assert stats.chi2(common.sum()).sf(statistic) > 1e-6


def test_poisson_records_join_independently():
    generator = SecureGenerator.from_seed(5, "mask")
    masks = np.array([generator.draw_poisson_mask(20, rate=0.3) for _ in range(20_000)])
    correlation = np.corrcoef(masks.T) - np.eye(20)
    assert np.abs(correlation).max() * math.sqrt(len(masks)) < 5.5
    assert np.abs(masks.mean(0) - 0.3).max() < 5 * math.sqrt(0.21 / len(masks))


@pytest.mark.parametrize("word", [0, 2**32 - 1])
def test_poisson_mask_is_exact_at_rates_zero_and_one(word):
    assert not FixedStream(word).draw_poisson_mask(9, rate=0.0).any()
    assert FixedStream(word).draw_poisson_mask(9, rate=1.0).all()


def test_poisson_mask_advances_the_stream_by_eight_bytes_a_record():
    generator = SecureGenerator(KEY)
    assert generator.draw_poisson_mask(0, rate=0.5).shape == (0,)
    generator.draw_poisson_mask(3, rate=0.5)
    assert generator.draw_bytes(8).tobytes() == encrypt_zeros(KEY, 32)[24:]


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
def test_rate_outside_its_range_is_refused(rate):
    with pytest.raises(ConfigError, match="sample_rate"):
        SecureGenerator(KEY).draw_poisson_mask(1, rate=rate)


@pytest.fixture
def no_mask(monkeypatch):
    """Have even few records drawn by a count and a subset."""
    monkeypatch.setattr("fedtrain.privacy.generator._MASK_LIMIT", 0)
    monkeypatch.setattr("fedtrain.privacy.generator._MASK_RATE", 0.99)


def test_poisson_subset_of_few_records_is_the_mask_s():
    mask = SecureGenerator(KEY).draw_poisson_mask(1000, rate=0.1)
    subset = SecureGenerator(KEY).draw_poisson_subset(1000, rate=0.1)
    assert (subset == np.flatnonzero(mask)).all()


@pytest.mark.parametrize(("n", "rate"), [(100, 0.01), (100, 0.3), (7, 0.9), (1, 0.5)])
def test_poisson_subset_counts_are_binomial(n, rate, no_mask):
    generator = SecureGenerator.from_seed(6, "subset")
    counts = [len(generator.draw_poisson_subset(n, rate=rate)) for _ in range(20_000)]
    observed = np.bincount(counts, minlength=n + 1)
    expected = stats.binom(n, rate).pmf(range(n + 1)) * len(counts)
    common = expected > 10
    statistic = ((observed - expected)[common] ** 2 / expected[common]).sum()
    assert stats.chi2(common.sum()).sf(statistic) > 1e-6


def test_poisson_subset_records_join_independently(no_mask):
    generator = SecureGenerator.from_seed(7, "subset")
    masks = np.zeros((20_000, 20))
    for mask in masks:
        mask[generator.draw_poisson_subset(20, rate=0.3)] = 1
    correlation = np.corrcoef(masks.T) - np.eye(20)
    assert np.abs(correlation).max() * math.sqrt(len(masks)) < 5.5
    assert np.abs(masks.mean(0) - 0.3).max() < 5 * math.sqrt(0.21 / len(masks))


def test_poisson_subset_of_every_size_is_uniform(no_mask):
    generator = SecureGenerator.from_seed(8, "subset")
    drawn = [tuple(generator.draw_poisson_subset(4, rate=0.5)) for _ in range(20_000)]
    observed = np.array([drawn.count(subset) for subset in set(drawn)])
    assert len(observed) == 16
    assert stats.chisquare(observed).pvalue > 1e-6


@pytest.mark.parametrize(("n", "rate"), [(60_000, 0.1), (20_001, 1e-5), (50_000, 2.0**-40)])
def test_binomial_table_equals_the_distribution_function(n, rate):
    first, cumulative = _tabulate_binomial(n, rate)
    counts = np.arange(first, first + len(cumulative))
    ours = np.array([value / 2**128 for value in cumulative])
    np.testing.assert_allclose(ours, stats.binom(n, rate).cdf(counts), rtol=1e-9, atol=1e-12)
    assert first == 0 or cumulative[0] < 2**20


def test_poisson_subset_of_many_records_is_ascending_and_can_be_repeated():
    first, second = (
        SecureGenerator.from_seed(9).draw_poisson_subset(10**6, rate=0.01) for _ in range(2)
    )
    assert (first == second).all()
    assert (np.diff(first) > 0).all()
    assert abs(len(first) - 10_000) < 500
    assert 0 <= first[0] < first[-1] < 10**6


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_poisson_subset_is_exact_at_rates_zero_and_one(rate, no_mask):
    assert len(SecureGenerator(KEY).draw_poisson_subset(9, rate=rate)) == 9 * rate


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
def test_poisson_subset_refuses_a_rate_outside_its_range(rate):
    with pytest.raises(ConfigError, match="sample_rate"):
        SecureGenerator(KEY).draw_poisson_subset(10**6, rate=rate)
