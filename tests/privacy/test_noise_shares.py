import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedtrain.errors import ConfigError
from fedtrain.privacy.events import DistributedDiscreteGaussian
from fedtrain.privacy.noise_shares import (
    compute_rounded_norm,
    compute_share_variance,
    compute_shares_rdp,
    compute_small_cohort_delta,
)
from fedtrain.privacy.renyi import ORDERS, compute_rdp

QUICK = settings(max_examples=50, deadline=None, derandomize=True)
# The bound is proven for any positive variance; below 1, which no site draws, its correction for
# the sum of shares weighs most.
SMALL = [0.15, 0.3, 0.6, 1, 2, 5]


def make_event(sensitivity, variance, shares, rate=1.0, *, dimension=1, steps=1):
    return DistributedDiscreteGaussian(sensitivity, variance, shares, dimension, rate, steps)


@lru_cache
def convolve_shares(variance, shares):
    """Return the logarithm of the exact law of the sum of shares, about 0 in the middle."""
    reach = 30 + math.ceil(14 * math.sqrt(variance * shares))
    one = -(np.arange(-reach, reach + 1.0) ** 2) / (2 * variance)
    total = one = one - np.logaddexp.reduce(one)
    for _ in range(shares - 1):
        padded = np.pad(total, 2 * reach, constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(one))
        total = np.logaddexp.reduce(windows + one, axis=1)
    return total


def make_pair(variance, shares, shift):
    """Return the sum's log law moved by a site's vector, and itself, on one window."""
    law = convolve_shares(variance, shares)
    centre = len(law) // 2
    width = 25 + math.ceil(12 * math.sqrt(variance * shares))
    moved = law[centre - width - shift : centre + width + 1 - shift]
    return moved, law[centre - width : centre + width + 1]


def diverge(p, q, order):
    return np.logaddexp.reduce(order * p + (1 - order) * q) / (order - 1)


def mix(law, moved, rate):
    return np.logaddexp(math.log1p(-rate) + law, math.log(rate) + moved)


@pytest.mark.parametrize("variance", SMALL)
@pytest.mark.parametrize("shares", [1, 2, 3, 10])
def test_bound_holds_for_the_exact_law_of_the_sum(variance, shares):
    for shift in (1, 2, 3):
        moved, law = make_pair(variance, shares, shift)
        bound = compute_shares_rdp(
            make_event(shift, variance, shares), orders=(1.05, 1.5, 2, 3, 4.4)
        )
        exact = [diverge(moved, law, order) for order in (1.05, 1.5, 2, 3, 4.4)]
        assert (np.array(exact) <= bound * (1 + 1e-9)).all()


@pytest.mark.parametrize(("shares", "shift", "order"), [(2, 1, 3), (3, 2, 2.5), (10, 3, 4.5)])
def test_bound_of_one_gaussian_of_the_whole_variance_would_be_broken(shares, shift, order):
    exact = diverge(*reversed(make_pair(0.1, shares, shift)), order)
    gaussian = order * shift**2 / (2 * shares * 0.1)
    bound = compute_shares_rdp(make_event(shift, 0.1, shares), orders=[order])[0]
    assert 1.1 * gaussian < exact < bound < gaussian + 2 * (exact - gaussian)


@pytest.mark.parametrize("variance", SMALL)
@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("shares", [1, 3])
def test_sampled_bound_holds_in_both_directions(variance, shares, rate):
    orders = (1.3, 2, 2.5, 3, 4.4, 6)
    for shift in (1, 2):
        moved, law = make_pair(variance, shares, shift)
        mixed = mix(law, moved, rate)
        bound = compute_shares_rdp(make_event(shift, variance, shares, rate), orders=orders)
        added = np.array([diverge(mixed, law, order) for order in orders])
        removed = np.array([diverge(law, mixed, order) for order in orders])
        assert (added <= bound * (1 + 1e-7) + 1e-13).all()
        assert (removed <= added * (1 + 1e-7) + 1e-13).all()


def test_sampled_bound_is_tight_at_whole_orders():
    moved, law = make_pair(5, 3, 2)
    bound = compute_shares_rdp(make_event(2, 5, 3, 0.3), orders=[2, 6])
    mixed = mix(law, moved, 0.3)
    np.testing.assert_allclose(bound, [diverge(mixed, law, a) for a in (2, 6)], rtol=1e-6)


@pytest.mark.parametrize(("relation", "factor"), [("add_remove", 1), ("replace_one", 2)])
def test_large_shares_cost_what_one_gaussian_does(relation, factor):
    event = make_event(1e6, 10**14, 7, dimension=10**6)
    rdp = compute_shares_rdp(event, neighbouring_relation=relation)
    closed_form = np.array(ORDERS) * (factor * 1e6) ** 2 / (2 * 7e14)
    np.testing.assert_allclose(rdp, closed_form, rtol=1e-12)


@pytest.mark.parametrize("noise", [0.7, 1, 5])
@pytest.mark.parametrize("rate", [0.001, 0.1, 0.9])
def test_large_shares_at_whole_orders_cost_what_the_sampled_gaussian_does(noise, rate):
    variance = compute_share_variance(noise, sensitivity=1e8, shares=7)
    orders = [2, 3, 8, 32, 63, 256]
    rdp = compute_shares_rdp(make_event(1e8, variance, 7, rate), orders=orders)
    np.testing.assert_allclose(rdp, compute_rdp(noise, rate, orders=orders), rtol=1e-9, atol=1e-14)


def test_sampled_bound_between_whole_orders_is_below_the_next_and_no_amplification():
    event, plain = make_event(1e6, 10**12, 7, 0.05), make_event(1e6, 10**12, 7)
    orders = [1.5, 2, 4.4, 5, 7.9, 8]
    rdp = compute_shares_rdp(event, orders=orders)
    assert (np.diff(rdp) >= 0).all()
    assert (rdp < 0.1 * compute_shares_rdp(plain, orders=orders)).all()


@given(
    st.floats(0.1, 1e9),
    st.integers(1, 2**62),
    st.integers(1, 1000),
    st.floats(0, 1),
    st.integers(1, 10**7),
)
@QUICK
def test_rdp_is_never_negative_nan_or_above_the_unsampled(norm, variance, shares, rate, dimension):
    rdp = compute_shares_rdp(make_event(norm, variance, shares, rate, dimension=dimension))
    plain = compute_shares_rdp(make_event(norm, variance, shares, dimension=dimension))
    assert (rdp >= 0).all()
    assert (rdp <= plain).all()


def test_rdp_without_sampling_or_noise_is_zero_or_infinite():
    assert (compute_shares_rdp(make_event(1, 1, 1, 0.0)) == 0).all()
    assert (compute_shares_rdp(make_event(1, 0, 1, 0.0)) == 0).all()
    assert (compute_shares_rdp(make_event(1, 0, 9, 0.5)) == math.inf).all()


def test_vanishing_noise_is_enormous_or_infinite_not_an_error():
    assert (compute_shares_rdp(make_event(1e200, 1, 1, 0.5), orders=[2, 2.5]) > 1e300).all()


def test_replaced_and_sampled_sites_are_refused():
    with pytest.raises(ConfigError, match=r"sample_rate = 0\.5 .* replace_one .*add_remove"):
        compute_shares_rdp(make_event(1, 1, 1, 0.5), neighbouring_relation="replace_one")


@given(st.integers(1, 200), st.floats(1e-3, 1e3), st.floats(0.1, 1e6), st.integers(0, 2**32))
@QUICK
def test_no_rounding_exceeds_the_rounded_norm(dimension, norm, scale, seed):
    random = np.random.default_rng(seed)
    vector = random.normal(size=dimension).astype(np.float32)
    vector *= np.float32(norm / np.linalg.norm(vector.astype(np.float64)))
    scaled = vector.astype(np.float64) * scale
    away = np.copysign(np.ceil(np.abs(scaled)), scaled)
    bound = compute_rounded_norm(norm, scale=scale, dimension=dimension)
    assert np.linalg.norm(away) <= bound


def test_rounding_really_lengthens_a_vector():
    vector = np.full(10_000, 0.01 + 1e-9)
    assert np.linalg.norm(np.ceil(vector)) > 50 * np.linalg.norm(vector)
    assert 100 < compute_rounded_norm(1.0, scale=1.0, dimension=10_000) < 101.001


@pytest.mark.parametrize("change", [{"max_norm": 0.0}, {"scale": math.inf}, {"dimension": 0}])
def test_rounded_norm_of_an_argument_outside_its_range_is_refused(change):
    options = {"max_norm": 1.0, "scale": 1.0, "dimension": 1, **change}
    with pytest.raises(ConfigError, match=next(iter(change))):
        compute_rounded_norm(options.pop("max_norm"), **options)


@given(st.floats(0, 1e3), st.floats(1e-3, 1e6), st.integers(1, 1000))
@QUICK
def test_share_variance_is_the_smallest_that_suffices(noise, sensitivity, shares):
    variance = compute_share_variance(noise, sensitivity=sensitivity, shares=shares)
    wanted = (Fraction(noise) * Fraction(sensitivity)) ** 2
    assert shares * variance >= wanted > shares * (variance - 1) or variance == wanted == 0


@pytest.mark.parametrize("noise", [-1.0, math.nan, math.inf, 1e10])
def test_share_variance_of_noise_outside_its_range_is_refused(noise):
    with pytest.raises(ConfigError, match="noise_multiplier = "):
        compute_share_variance(noise, sensitivity=1.0, shares=2)


def compute_delta(**changes):
    options = {"sites": 1000, "site_sample_rate": 0.1, "minimum": 40, "rounds": 100, "epsilon": 3.0}
    return compute_small_cohort_delta(**{**options, **changes})


@pytest.mark.parametrize("minimum", [1, 20, 60])
def test_small_cohort_delta_is_just_above_the_binomial_tail(minimum):
    exact = 100 * (1 + math.exp(3)) * stats.binom(1000, 0.1).cdf(minimum - 1)
    assert exact <= compute_delta(minimum=minimum) <= exact * 1.00001


@pytest.mark.parametrize(
    ("changes", "delta"),
    [
        ({"rounds": 0}, 0.0),
        ({"minimum": 0}, 0.0),
        ({"site_sample_rate": 1.0}, 0.0),
        ({"site_sample_rate": 0.0}, 1.0),
        ({"minimum": 1001}, 1.0),
        ({"minimum": 1000}, 1.0),
        ({"epsilon": math.inf}, 1.0),
    ],
)
def test_small_cohort_delta_at_its_edges(changes, delta):
    assert compute_delta(**changes) == delta


@pytest.mark.parametrize(
    "changes", [{"sites": -1}, {"site_sample_rate": 1.1}, {"rounds": -1}, {"epsilon": math.nan}]
)
def test_small_cohort_delta_of_arguments_outside_their_range_is_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        compute_delta(**changes)
