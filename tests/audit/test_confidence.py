"""Intervals against exact sums over all outcomes, and against draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from fedtrain.audit.confidence import (
    bound_proportion_above,
    bound_proportion_below,
    compute_proportion_interval,
    compute_stddev_interval,
)
from fedtrain.errors import ConfigError


@settings(deadline=None)
@given(trials=st.integers(1, 60), p=st.floats(0.001, 0.999), confidence=st.floats(0.5, 0.999))
def test_lower_bound_exceeds_the_probability_as_rarely_as_promised(trials, p, confidence):
    outcomes = np.arange(trials + 1)
    bounds = [bound_proportion_below(k, trials, confidence=confidence) for k in outcomes.tolist()]
    wrong = binom.pmf(outcomes, trials, p)[np.array(bounds) > p].sum()
    assert wrong <= 1 - confidence + 1e-9


@given(trials=st.integers(1, 60), successes=st.integers(0, 60))
def test_upper_bound_mirrors_the_lower(trials, successes):
    successes = min(successes, trials)
    low = bound_proportion_below(trials - successes, trials, confidence=0.9)
    assert bound_proportion_above(successes, trials, confidence=0.9) == pytest.approx(1 - low)


def test_interval_of_no_trials_says_nothing():
    assert compute_proportion_interval(0, 0, confidence=0.95) == (0.0, 1.0)


@pytest.mark.parametrize("ratio", [1.0, 2 / 3, 3 / 2])
def test_stddev_interval_covers_the_truth_and_no_other(ratio):
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        squares = float(np.square(generator.normal(size=200)).sum())
        low, high = compute_stddev_interval(squares, 200, confidence=0.9)
        covered += low <= ratio <= high
    wanted = (340, 380) if ratio == 1 else (0, 4)
    assert wanted[0] <= covered <= wanted[1]


@pytest.mark.parametrize("arguments", [(2, 1, 0.9), (-1, 1, 0.9), (1, 1, 1.0), (1, 1, 0.0)])
def test_bound_refuses_what_is_out_of_range(arguments):
    successes, trials, confidence = arguments
    with pytest.raises(ConfigError, match="successes of"):
        bound_proportion_below(successes, trials, confidence=confidence)
    with pytest.raises(ConfigError, match="sum_of_squares"):
        compute_stddev_interval(1.0, 0, confidence=0.9)
