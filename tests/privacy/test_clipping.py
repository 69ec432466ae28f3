import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.errors import ConfigError
from fedtrain.privacy.clipping import (
    AdaptiveClip,
    compute_bit_magnitude,
    compute_joint_sensitivity,
    split_noise_multiplier,
)

QUICK = settings(max_examples=50, deadline=None, derandomize=True)
NOISES = st.floats(0.01, 100)
ROOMS = st.floats(1.001, 100)  # 2 x bit_noise_stddev / noise_multiplier


def make_clip(**changes):
    numbers = {
        "max_update_norm": 1.0,
        "target_quantile": 0.5,
        "learning_rate": 0.2,
        "cohort": 100,
        "min_update_norm": 1e-3,
        "largest_update_norm": 1e3,
    }
    return AdaptiveClip(**{**numbers, **changes})


def run_rounds(clip, rounds, *, rate=1.0, bit_noise_stddev=5.0):
    """Return the last 100 bounds of a run whose updates' norms are lognormal with median 7."""
    random = np.random.default_rng(1)
    bounds = []
    for _ in range(rounds):
        norms = 7 * np.exp(random.normal(size=random.binomial(round(clip.cohort / rate), rate)))
        bits = (norms <= clip.max_update_norm) - 0.5
        clip = clip.update(bits.sum() + random.normal() * bit_noise_stddev)
        bounds.append(clip.max_update_norm)
    return np.array(bounds[-100:])


@pytest.mark.parametrize("start", [0.01, 1.0, 500.0])
@pytest.mark.parametrize(("quantile", "deviations"), [(0.5, 0.0), (0.9, 1.2816), (0.1, -1.2816)])
def test_bound_converges_to_the_quantile(start, quantile, deviations):
    clip = make_clip(max_update_norm=start, target_quantile=quantile)
    bounds = run_rounds(clip, 400)
    assert np.exp(np.log(bounds).mean()) == pytest.approx(7 * math.exp(deviations), rel=0.1)


def test_bound_converges_where_sites_are_sampled():
    bounds = run_rounds(make_clip(), 400, rate=0.1)
    assert np.exp(np.log(bounds).mean()) == pytest.approx(7, rel=0.1)


def test_update_is_the_geometric_one():
    clip = make_clip(target_quantile=0.4).update(20.0)  # 70 of 100 within the bound
    assert clip.max_update_norm == pytest.approx(math.exp(-0.2 * (0.7 - 0.4)))


@pytest.mark.parametrize(("noisy_sum", "norm"), [(1e300, 1e-3), (-1e300, 1e3)])
def test_bound_stays_within_its_bounds(noisy_sum, norm):
    assert make_clip().update(noisy_sum).max_update_norm == norm


@pytest.mark.parametrize("noisy_sum", [math.nan, math.inf])
def test_sum_that_is_no_number_is_an_error(noisy_sum):
    with pytest.raises(ValueError, match="not finite"):
        make_clip().update(noisy_sum)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_update_norm": 1e4},
        {"max_update_norm": math.nan},
        {"min_update_norm": 0.0},
        {"largest_update_norm": math.inf},
        {"target_quantile": 1.5},
        {"learning_rate": 0.0},
        {"cohort": 0},
    ],
)
def test_state_outside_its_range_is_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes)).replace("min_", "max_")):
        make_clip(**changes)


@given(NOISES, ROOMS)
@QUICK
def test_split_release_is_as_private_as_the_whole(noise, room):
    bit_noise = room * noise / 2
    update_noise = split_noise_multiplier(noise, bit_noise_stddev=bit_noise)
    # The norm of one site's update and bit, each divided by its noise.
    assert math.hypot(1 / update_noise, 0.5 / bit_noise) == pytest.approx(1 / noise)


@given(st.floats(1e3, 1e9), NOISES, ROOMS)
@QUICK
def test_bit_magnitude_gives_the_wanted_noise_and_is_the_smallest(sensitivity, noise, room):
    bit_noise = room * noise / 2
    options = {"noise_multiplier": noise, "bit_noise_stddev": bit_noise}
    magnitude = compute_bit_magnitude(sensitivity, **options)
    smaller = max(magnitude - 1, 1e-9)
    spread = [noise * math.hypot(sensitivity, b) / (2 * b) for b in (magnitude, smaller)]
    assert spread[0] <= bit_noise * (1 + 1e-9)
    assert spread[1] >= bit_noise * (1 - 1e-9)


def test_joint_sensitivity_is_that_of_both_and_agrees_with_the_split():
    magnitude = compute_bit_magnitude(1e9, noise_multiplier=1.0, bit_noise_stddev=5.0)
    joint = compute_joint_sensitivity(1e9, magnitude)
    assert joint >= math.hypot(1e9, magnitude)
    update_noise = split_noise_multiplier(1.0, bit_noise_stddev=5.0)
    assert joint / 1e9 == pytest.approx(update_noise, rel=1e-8)


def test_no_noise_splits_into_none():
    assert split_noise_multiplier(0.0, bit_noise_stddev=1.0) == 0
    assert compute_bit_magnitude(1e6, noise_multiplier=0.0, bit_noise_stddev=1.0) == 1


@pytest.mark.parametrize(("noise", "bit_noise"), [(1.0, 0.5), (1.0, math.nan), (0.0, 0.0)])
def test_bits_that_cost_more_than_the_whole_are_refused(noise, bit_noise):
    with pytest.raises(ConfigError, match=r"bit_noise_stddev = .* raise it"):
        split_noise_multiplier(noise, bit_noise_stddev=bit_noise)


@pytest.mark.parametrize("noise", [-1.0, math.nan, math.inf])
def test_noise_outside_its_range_is_refused(noise):
    with pytest.raises(ConfigError, match="noise_multiplier = "):
        split_noise_multiplier(noise, bit_noise_stddev=1.0)


def test_sensitivity_outside_its_range_is_refused():
    with pytest.raises(ConfigError, match="update_sensitivity = 0"):
        compute_bit_magnitude(0.0, noise_multiplier=1.0, bit_noise_stddev=1.0)
