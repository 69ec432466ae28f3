import decimal
import math

import numpy as np
import pytest
from scipy import stats

from fedtrain.errors import ConfigError
from fedtrain.privacy.discrete_gaussian import (
    MAX_VARIANCE,
    _build_table,
    _decide,
    draw_discrete_gaussian,
)
from fedtrain.privacy.generator import SecureGenerator

KEY = bytes(range(16))
GOLDEN = {
    1: [-1, 1, 0, -2, 1, -1, 0, 2, 0, -1],
    2**60: [-1659625352, 1478659452, 695765212, -443736183, 1649532702],
}
VARIANCES = [1, 2, 3, 10, 35, 36, 63, 1000, 10**6 + 1, 2**60, MAX_VARIANCE]


class FixedStream(SecureGenerator):
    """A generator whose keystream is one word, over and over."""

    def __init__(self, word):
        super().__init__(KEY)
        self.word = word

    def draw_bytes(self, n):
        return np.full(n // 4, self.word, dtype="<u4").view(np.uint8)


def draw(size, *, variance, seed=1, **options):
    generator = SecureGenerator.from_seed(seed, "test")
    return draw_discrete_gaussian(generator, size, variance=variance, **options)


def compute_probabilities(variance):
    support = np.arange(-math.ceil(8 * math.sqrt(variance)), math.ceil(8 * math.sqrt(variance)) + 1)
    weights = np.exp(-(support**2) / (2 * variance))
    return support, weights / weights.sum()


def is_discrete_gaussian(sample, variance):
    """Say by chi-square whether integers are N_Z(0, variance)'s, at a level of 1e-6."""
    support, probabilities = compute_probabilities(variance)
    observed = np.array([np.count_nonzero(sample == x) for x in support])
    expected = probabilities * len(sample)
    common = expected > 10
    observed = np.append(observed[common], len(sample) - observed[common].sum())
    expected = np.append(expected[common], len(sample) - expected[common].sum())
    statistic = ((observed - expected) ** 2 / np.maximum(expected, 1)).sum()
    return stats.chi2(len(expected) - 1).sf(statistic) > 1e-6


def has_moments(sample, variance):
    """Say whether mean, variance and shape are those of a wide N_Z(0, variance)."""
    n, scaled = len(sample), sample / math.sqrt(variance)
    mean = abs(scaled.mean()) * math.sqrt(n)
    spread = abs(scaled.var() - 1) * math.sqrt(n / 2)
    return max(mean, spread) < 4.9 and stats.kstest(scaled, "norm").pvalue > 1e-6


@pytest.mark.parametrize("variance", [1, 2, 3, 10, 35, 36, 63])
def test_draws_have_the_exact_probabilities(variance):
    assert is_discrete_gaussian(draw(10**6, variance=variance), variance)


def test_rounded_continuous_noise_is_rejected():
    normals = SecureGenerator.from_seed(2).draw_normal(10**6, stddev=1.0).numpy()
    assert not is_discrete_gaussian(np.rint(normals), 1)


@pytest.mark.parametrize("factor", [2 / 3, 0.98, 1.02, 3 / 2])
@pytest.mark.parametrize("variance", [1, 10])
def test_another_deviation_is_rejected(variance, factor):
    support, probabilities = compute_probabilities(variance * factor**2)
    sample = np.random.default_rng(3).choice(support, size=10**6, p=probabilities)
    assert not is_discrete_gaussian(sample, variance)


@pytest.mark.parametrize("variance", [10**6 + 1, 2**40, 2**60, MAX_VARIANCE])
def test_wide_draws_have_the_moments_and_shape(variance):
    assert has_moments(draw(10**6, variance=variance), variance)


@pytest.mark.parametrize("factor", [2 / 3, 0.98, 1.02, 3 / 2])
def test_wide_draws_of_another_deviation_are_rejected(factor):
    assert not has_moments(draw(10**6, variance=2**40) * factor, 2**40)


@pytest.mark.parametrize("lag", [1, 2**13, 2**14, 10**5])
def test_draws_are_uncorrelated(lag):
    sample = draw(10**6, variance=2**40).astype(np.float64)
    for a in (sample, sample**2):
        assert abs(np.corrcoef(a[:-lag], a[lag:])[0, 1]) * math.sqrt(len(a)) < 4.9


def test_low_bits_of_wide_draws_are_uniform():
    low = draw(10**6, variance=2**40) & 255
    assert stats.chisquare(np.bincount(low, minlength=256)).pvalue > 1e-6


@pytest.mark.parametrize("variance", VARIANCES)
def test_exact_decisions_give_the_same_draws(variance):
    quick = draw(3000, variance=variance)
    assert (quick == draw(3000, variance=variance, float_bits=1)).all()


def test_exact_decisions_have_the_exact_probabilities():
    assert is_discrete_gaussian(draw(40_000, variance=2, float_bits=1), 2)


def test_draws_do_not_change():
    assert draw(10, variance=1).tolist() == GOLDEN[1]
    assert draw(5, variance=2**60).tolist() == GOLDEN[2**60]


@pytest.mark.parametrize("size", [0, 1, 2**14 - 1, 2**14 + 1, 50_000])
def test_size_is_the_one_asked_for(size):
    drawn = draw(size, variance=5)
    assert drawn.shape == (size,)
    assert drawn.dtype == np.int64


@pytest.mark.parametrize("options", [{"variance": 0}, {"variance": MAX_VARIANCE + 1}])
def test_variance_outside_its_range_is_refused(options):
    with pytest.raises(ConfigError, match=r"variance = .*2\^62"):
        draw(1, **options)


@pytest.mark.parametrize(("size", "float_bits"), [(-1, 40), (1, 0), (1, 41)])
def test_other_arguments_outside_their_range_are_refused(size, float_bits):
    with pytest.raises(ConfigError, match="float_bits"):
        draw(size, variance=1, float_bits=float_bits)


def compute_weight(magnitude, variance):
    """Return exp(-magnitude^2 / 2 variance) to 60 digits."""
    context = decimal.Context(prec=60)
    return context.exp(context.divide(decimal.Decimal(-(magnitude**2)), 2 * variance))


@pytest.mark.parametrize("variance", VARIANCES)
def test_no_acceptance_is_above_one(variance):
    table = _build_table(variance)
    tail, width = table.first_tail, table.width
    assert table.counts.sum() == 2**16 == len(table.blocks)
    for block in range(tail):
        needed = table.peak * compute_weight(block * width, variance)
        assert table.counts[block] >= needed
    for further in range(60):
        needed = table.peak * compute_weight((tail + further) * width, variance)
        assert table.counts[tail] >= needed * 2 ** (further + 1)


@pytest.mark.parametrize(("variance", "block", "offset"), [(1, 0, 0), (1, 3, 0), (10**6, 7, 55)])
def test_decision_compares_the_uniform_number_with_the_exact_bound(variance, block, offset):
    table = _build_table(variance)
    magnitude = block * table.width + offset
    context = decimal.Context(prec=60)
    share = context.divide(table.peak, int(table.counts[block]))
    edge = math.floor(context.multiply(share, compute_weight(magnitude, variance)) * 2**32)
    for word, further, accepted in [
        (edge - 1, 2**32 - 1, True),
        (edge, 0, True),
        (edge, 2**32 - 1, False),
        (edge + 1, 0, False),
    ]:
        decided = _decide(FixedStream(further), block, offset, word=word, table=table)
        assert decided == (magnitude, accepted)


def test_tail_blocks_are_taken_by_fair_coins():
    table = _build_table(10**6)
    generator = SecureGenerator.from_seed(4)
    decide = [_decide(generator, table.first_tail, 0, word=0, table=table) for _ in range(4000)]
    further = np.array([magnitude // table.width - table.first_tail for magnitude, _ in decide])
    observed = np.bincount(np.minimum(further, 6), minlength=7)
    expected = 4000 * np.array([2.0 ** -(i + 1) for i in range(6)] + [2.0**-6])
    assert stats.chisquare(observed, expected).pvalue > 1e-6
    assert all(accepted for _, accepted in decide)
