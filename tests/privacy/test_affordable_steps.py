import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.errors import ConfigError
from fedtrain.privacy.accounting import compute_cost
from fedtrain.privacy.affordable_steps import compute_affordable_steps
from fedtrain.privacy.events import PoissonSampledGaussian

RUN = {"target_epsilon": 3.0, "target_delta": 1e-5, "noise_multiplier": 1.1, "sample_rate": 0.01}


@given(st.floats(0.5, 10), st.floats(0.7, 5), st.floats(0.01, 1), st.sampled_from([1e-7, 1e-5]))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_one_step_more_would_cost_more_than_the_target(target, noise, rate, delta):
    steps, cost = compute_affordable_steps(
        target_epsilon=target, target_delta=delta, noise_multiplier=noise, sample_rate=rate
    )
    more = compute_cost([PoissonSampledGaussian(noise, rate, steps + 1)], delta=delta)
    assert cost == compute_cost([PoissonSampledGaussian(noise, rate, steps)], delta=delta)
    assert cost.epsilon <= target < more.epsilon


def test_replace_one_affords_fewer_steps():
    steps, _ = compute_affordable_steps(**RUN)
    fewer, cost = compute_affordable_steps(**RUN, neighbouring_relation="replace_one")
    assert 1 < fewer < 0.6 * steps
    assert cost.neighbouring_relation == "replace_one"


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_too_little_noise_affords_no_step(noise):
    steps, cost = compute_affordable_steps(**{**RUN, "noise_multiplier": noise})
    assert (steps, cost.epsilon) == (0, 0.0)


def test_millions_of_steps_are_counted_by_rdp_and_it_says_so():
    steps, cost = compute_affordable_steps(**{**RUN, "noise_multiplier": 5, "sample_rate": 1e-3})
    assert steps > 10**7
    assert cost.accountant == "rdp"


@pytest.mark.parametrize("changes", [{"sample_rate": 0.0}, {"noise_multiplier": 1e6}])
def test_target_that_is_never_reached_is_refused_with_the_cure(changes):
    changes |= {"sample_rate": changes.get("sample_rate", 1e-12)}
    with pytest.raises(ConfigError, match=r"not reached by 9e\+15 steps.*raise sample_rate"):
        compute_affordable_steps(**{**RUN, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"target_epsilon": 0.0},
        {"target_epsilon": float("nan")},
        {"target_delta": 1.0},
        {"noise_multiplier": -1.0},
        {"sample_rate": 1.5},
    ],
)
def test_argument_outside_its_range_is_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes)).removeprefix("target_")):
        compute_affordable_steps(**{**RUN, **changes})
