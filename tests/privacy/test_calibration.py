import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.errors import ConfigError
from fedtrain.privacy.accounting import compute_cost
from fedtrain.privacy.calibration import calibrate_noise_multiplier
from fedtrain.privacy.events import PoissonSampledGaussian


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
