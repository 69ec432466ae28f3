"""A profile bounds every attack, is tight on the Gaussian, and is never below any of its points."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.errors import ConfigError
from fedtrain.privacy.attacker import bound_true_positive_rate
from fedtrain.privacy.events import PoissonSampledGaussian, Unprotected
from fedtrain.privacy.trade_off import (
    Profile,
    bound_posterior,
    compute_gaussian_delta,
    compute_profile,
    find_mu,
)

GAUSSIAN = PoissonSampledGaussian(noise_multiplier=5.0, sample_rate=1.0, steps=30)
MU = math.sqrt(30) / 5  # of the composition, exactly


def find_normal(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


@pytest.fixture(scope="module")
def profile() -> Profile:
    return compute_profile([GAUSSIAN])


@pytest.mark.parametrize("false_positive_rate", [0.001, 0.01, 0.05, 0.1, 0.3, 0.5, 0.9])
def test_curve_of_a_gaussian_is_its_own_and_never_below(profile, false_positive_rate):
    low, high = -10.0, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if find_normal(middle) < false_positive_rate else (low, middle)
    exact = find_normal(low + MU)
    assert exact <= profile.bound_true_positive_rate(false_positive_rate) <= 1.02 * exact + 0.002


def test_advantage_of_a_gaussian_is_its_total_variation(profile):
    exact = 2 * find_normal(MU / 2) - 1
    assert exact <= profile.bound_advantage() <= exact + 0.002


def test_mu_of_a_gaussian_is_its_own(profile):
    assert MU <= profile.fit_gaussian(1e-6) <= 1.003 * MU


def test_mu_of_a_sampled_gaussian_is_far_below_the_unsampled_one():
    sampled = PoissonSampledGaussian(noise_multiplier=2.0, sample_rate=0.1, steps=50)
    assert 0.3 < compute_profile([sampled]).fit_gaussian(1e-5) < math.sqrt(50) / 2 / 3


def test_whole_profile_is_tighter_than_its_points(profile):
    alone = [bound_true_positive_rate(e, d, false_positive_rate=0.05) for e, d in profile.points]
    assert profile.bound_true_positive_rate(0.05) == min(alone)
    assert min(alone) < 0.8 * alone[5]


@given(epsilon=st.floats(0, 20), mu=st.floats(0.01, 8))
def test_mu_is_found_back_from_a_point_of_its_profile(epsilon, mu):
    delta = compute_gaussian_delta(epsilon, mu)
    if 1e-12 < delta < 0.999:
        assert find_mu(epsilon, delta) == pytest.approx(mu, rel=1e-3)


@given(epsilon=st.floats(0, 50), prior=st.floats(1e-6, 1 - 1e-6))
def test_posterior_odds_are_the_priors_times_exp_epsilon(epsilon, prior):
    posterior = bound_posterior(epsilon, prior=prior)
    assert prior <= posterior * (1 + 1e-12)
    assert math.log(posterior / prior) <= epsilon + 1e-9
    if epsilon < 10:
        odds = posterior / (1 - posterior)
        assert odds == pytest.approx(prior / (1 - prior) * math.exp(epsilon), rel=1e-6)


def test_unprotected_release_promises_nothing():
    profile = compute_profile([Unprotected()])
    assert profile.bound_true_positive_rate(0.01) == 1.0
    assert profile.bound_advantage() == 1.0
    assert profile.fit_gaussian(1e-5) == math.inf
    assert bound_posterior(math.inf, prior=0.01) == 1.0


def test_no_release_gives_nothing_away():
    profile = compute_profile([])
    assert profile.bound_true_positive_rate(0.01) == pytest.approx(0.01)
    assert profile.fit_gaussian(1e-5) == pytest.approx(0, abs=1e-3)


def test_prior_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"prior = 2"):
        bound_posterior(1.0, prior=2.0)
