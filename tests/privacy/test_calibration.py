import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.errors import ConfigError
from fedtrain.privacy.accounting import _compute_epsilon, compute_cost
from fedtrain.privacy.calibration import calibrate_noise_multiplier, calibrate_site_noise
from fedtrain.privacy.events import DistributedDiscreteGaussian, PoissonSampledGaussian
from fedtrain.privacy.noise_shares import compute_share_variance


def calibrate(**changes):
    defaults = {"target_epsilon": 3.0, "target_delta": 1e-5, "sample_rate": 0.0625, "steps": 480}
    return calibrate_noise_multiplier(**{**defaults, **changes})


@given(
    st.floats(0.2, 20), st.floats(0.005, 1), st.integers(10, 1000), st.sampled_from([1e-7, 1e-5])
)
@settings(max_examples=6, deadline=None, derandomize=True)
def test_calibrated_noise_spends_the_target_and_no_more(target, rate, steps, delta):
    noise = calibrate(target_epsilon=target, target_delta=delta, sample_rate=rate, steps=steps)
    cost = compute_cost([PoissonSampledGaussian(noise, rate, steps)], delta=delta)
    assert 0.995 * target <= cost.epsilon <= target
    assert noise == round(noise, 4)


def test_calibrated_noise_matches_the_measured_value():
    assert calibrate() == pytest.approx(2.0917, rel=1e-3)


def test_calibration_takes_few_evaluations():
    misses = _compute_epsilon.cache_info().misses
    calibrate(target_epsilon=2.98765)
    assert _compute_epsilon.cache_info().misses - misses <= 6


@pytest.mark.parametrize("rate", [0.001, 1.0])
def test_a_million_steps_are_calibrated(rate):
    noise = calibrate(sample_rate=rate, steps=10**6)
    cost = compute_cost([PoissonSampledGaussian(noise, rate, 10**6)], delta=1e-5)
    assert (cost.accountant, 0.995 * 3 <= cost.epsilon <= 3) == ("pld", True)


def test_replace_one_needs_more_noise():
    assert calibrate(neighbouring_relation="replace_one") > 1.5 * calibrate()


@pytest.mark.parametrize("changes", [{"steps": 0}, {"sample_rate": 0.0}, {"sample_rate": 1e-9}])
def test_free_run_gets_the_smallest_noise(changes):
    assert calibrate(**changes) == 0.01


def test_unreachable_target_is_refused_with_the_cure():
    with pytest.raises(ConfigError, match=r"target_epsilon = 0\.001 is unreachable.*raise"):
        calibrate(target_epsilon=0.001, target_delta=1e-10, sample_rate=1.0, steps=100_000)


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan")])
def test_target_outside_its_range_is_refused(target):
    with pytest.raises(ConfigError, match="target_epsilon"):
        calibrate(target_epsilon=target)


@pytest.mark.parametrize("changes", [{"target_delta": 0.0}, {"sample_rate": 2.0}, {"steps": -1}])
def test_run_outside_its_range_is_refused(changes):
    with pytest.raises(ConfigError):
        calibrate(**changes)


def calibrate_sites(**changes):
    defaults = {
        "target_epsilon": 8.0,
        "target_delta": 1e-5,
        "site_sample_rate": 1.0,
        "rounds": 50,
        "shares": 7,
        "dimension": 10_000,
        "sensitivity": 1e5,
    }
    return calibrate_site_noise(**{**defaults, **changes})


def compute_site_epsilon(noise, *, rate=1.0, rounds=50, shares=7, sensitivity=1e5):
    variance = compute_share_variance(noise, sensitivity=sensitivity, shares=shares)
    event = DistributedDiscreteGaussian(sensitivity, variance, shares, 10_000, rate, rounds)
    return compute_cost([event], delta=1e-5).epsilon


@given(st.floats(0.2, 20), st.floats(0.005, 1), st.integers(1, 1000), st.integers(1, 100))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_calibrated_site_noise_spends_the_target_and_no_more(target, rate, rounds, shares):
    noise = calibrate_sites(
        target_epsilon=target, site_sample_rate=rate, rounds=rounds, shares=shares
    )
    epsilon = compute_site_epsilon(noise, rate=rate, rounds=rounds, shares=shares)
    assert epsilon <= target
    assert epsilon >= 0.995 * target or noise == 0.01
    assert noise == round(noise, 4)


def test_site_noise_matches_the_measured_value_and_coarse_shares_need_more():
    assert calibrate_sites() == pytest.approx(4.24, abs=0.01)
    assert calibrate_sites(sensitivity=20.0) == pytest.approx(4.51, abs=0.01)  # by RDP


@pytest.mark.parametrize("sensitivity", [1.0, 3.0, 30.0])
def test_coarse_shares_are_charged_for_not_being_gaussian(sensitivity):
    noise = calibrate_sites(sensitivity=sensitivity)
    assert compute_site_epsilon(noise, sensitivity=sensitivity) <= 8


@pytest.mark.parametrize("changes", [{"rounds": 0}, {"site_sample_rate": 0.0}])
def test_free_site_run_gets_the_smallest_noise(changes):
    assert calibrate_sites(**changes) == 0.01


def test_unreachable_site_target_is_refused_with_the_cure():
    with pytest.raises(ConfigError, match=r"target_epsilon = 0\.001 is unreachable.*raise"):
        calibrate_sites(target_epsilon=0.001, target_delta=1e-10, rounds=10**6)


@pytest.mark.parametrize(
    "changes", [{"shares": 0}, {"dimension": 0}, {"sensitivity": 0.0}, {"target_epsilon": 0.0}]
)
def test_site_run_outside_its_range_is_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        calibrate_sites(**changes)
