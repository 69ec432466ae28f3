"""The bound is derived, so it is tested twice: nothing beats it, and something attains it."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from fedtrain.errors import ConfigError
from fedtrain.privacy.accounting import compute_cost
from fedtrain.privacy.attacker import bound_true_positive_rate, describe_attacker
from fedtrain.privacy.events import PoissonSampledGaussian

EPSILONS = st.floats(0, 20)
DELTAS = st.floats(0, 1)
RATES = st.floats(0, 1)


def attack_randomised_response(epsilon, delta, rate):
    """Return the best TPR at an FPR: outcomes are accused in the order of their likelihood ratio.

    With probability delta the mechanism tells all, else a bit that is right with exp(epsilon) : 1.
    """
    right = (1 - delta) / (1 + math.exp(-epsilon))
    steps = [(0.0, delta), (1 - delta - right, right), (right, 1 - delta - right), (delta, 0.0)]
    found = 0.0
    for false, true in steps:
        share = 1.0 if false <= rate else rate / false
        found, rate = found + share * true, max(0.0, rate - false)
        if share < 1:
            break
    return found


@given(EPSILONS, DELTAS, RATES)
def test_bound_is_attained_by_randomised_response(epsilon, delta, rate):
    bound = bound_true_positive_rate(epsilon, delta, false_positive_rate=rate)
    assert attack_randomised_response(epsilon, delta, rate) == pytest.approx(bound, abs=1e-9)


@pytest.mark.parametrize("noise", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 1e-2])
@pytest.mark.parametrize("rate", [1e-6, 0.01, 0.3, 0.9])
def test_no_attack_on_the_gaussian_beats_the_bound(noise, delta, rate):
    best = norm.cdf(norm.ppf(rate) + 1 / noise)  # Neyman and Pearson
    cost = compute_cost([PoissonSampledGaussian(noise, 1.0, 1)], delta=delta)
    assert best <= bound_true_positive_rate(cost.epsilon, delta, false_positive_rate=rate)


def test_an_epsilon_too_small_would_be_beaten():
    best = norm.cdf(norm.ppf(0.01) + 1.0)
    cost = compute_cost([PoissonSampledGaussian(1.0, 1.0, 1)], delta=1e-2)
    assert best > bound_true_positive_rate(cost.epsilon / 4, 1e-2, false_positive_rate=0.01)


@given(DELTAS, RATES)
def test_bound_grows_with_epsilon(delta, rate):
    epsilons = [0, 0.1, 1, 5, 50, 701, math.inf]
    bounds = [bound_true_positive_rate(e, delta, false_positive_rate=rate) for e in epsilons]
    assert all(first <= second + 1e-12 for first, second in pairwise(bounds))
    assert rate <= bounds[0] <= min(1, rate + delta) + 1e-12
    assert bounds[-1] == (1.0 if rate else delta)


@pytest.mark.parametrize(
    ("epsilon", "delta", "rate"),
    [(-1, 0, 0), (math.nan, 0, 0), (1, 2, 0), (1, math.nan, 0), (1, 0, -1), (1, 0, math.nan)],
)
def test_argument_outside_its_range_is_refused(epsilon, delta, rate):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        bound_true_positive_rate(epsilon, delta, false_positive_rate=rate)


@pytest.mark.parametrize(
    ("epsilon", "words"),
    [
        (0, "at most 1.1 % of members."),
        (3, "at most 20.1 % of members."),
        (8, "at most 99.97 % of members."),
        (math.inf, "perhaps all of members: nothing is promised."),
    ],
)
def test_sentence_names_the_bound_rounded_up(epsilon, words):
    text = describe_attacker(epsilon, 1e-5)
    assert text == f"An attacker who accuses 1 % of non-members wrongly finds {words}"


def test_sentence_for_replace_one_is_about_two_candidates():
    text = describe_attacker(3, 1e-5, neighbouring_relation="replace_one")
    assert "two candidates" in text
    assert "at most 20.1 %" in text
