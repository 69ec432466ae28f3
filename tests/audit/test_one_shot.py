"""The one-shot estimate, against the exact epsilon of Gaussians."""

import numpy as np
import pytest

from fedtrain.audit.one_run import compute_gaussian_epsilon
from fedtrain.audit.one_shot import (
    Fit,
    compute_cosines,
    compute_epsilon_between,
    draw_directions,
    fit_cosines,
)
from fedtrain.errors import ConfigError


@pytest.mark.parametrize("mu", [0.1, 0.5, 1.0, 3.0, 6.0])
def test_equal_spreads_give_the_gaussian_mechanisms_epsilon(mu):
    found = compute_epsilon_between(Fit(mu * 0.02, 0.02), Fit(0.0, 0.02), delta=1e-5)
    assert found == pytest.approx(compute_gaussian_epsilon(mu, 1e-5), abs=2e-3)


def test_unequal_spreads_are_told_apart_without_a_shift():
    assert compute_epsilon_between(Fit(0, 1), Fit(0, 2), delta=1e-5) > 5
    assert compute_epsilon_between(Fit(0, 1), Fit(0, 1), delta=1e-5) == 0


def test_both_orders_give_the_same():
    pair = Fit(0.3, 1.0), Fit(0.0, 1.5)
    both = [compute_epsilon_between(a, b, delta=1e-4) for a, b in (pair, pair[::-1])]
    assert both[0] == both[1]


@pytest.mark.parametrize("true", [3.0, 10.0])
def test_estimate_is_near_the_truth_from_three_on(true):
    """A canary in one Gaussian sum of 20,000 coordinates, 200 of them."""
    mu = {3.0: 0.7233, 10.0: 2.0}[true]
    noise = np.random.default_rng(0).normal(size=20_000) / mu
    present = draw_directions(200, 20_000, seed=1, label="present")
    cosines = [compute_cosines(one[None], noise + one)[0] for one in present]
    found = compute_epsilon_between(
        fit_cosines(np.array(cosines)), Fit(0, 20_000**-0.5), delta=1e-5
    )
    assert found == pytest.approx(true, rel=0.35)


def test_directions_that_nobody_sent_are_within_what_the_estimate_resolves():
    released = np.random.default_rng(0).normal(size=5000)
    absent = draw_directions(1000, 5000, seed=1, label="absent")
    found = compute_epsilon_between(
        fit_cosines(compute_cosines(absent, released)), Fit(0, 5000**-0.5), delta=1e-5
    )
    assert found < 1.2  # 2 % of a spread, at a delta of 1e-5


def test_directions_are_unit_vectors_of_their_own():
    directions = draw_directions(3, 1000, seed=0, label="a")
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    other = draw_directions(3, 1000, seed=0, label="b")
    assert np.abs(directions @ other.T).max() < 0.2


def test_few_canaries_are_refused():
    with pytest.raises(ConfigError, match="20 or more"):
        fit_cosines(np.zeros(5))
