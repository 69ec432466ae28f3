import math

import numpy as np
import pytest
from scipy import integrate, optimize

from fedtrain.privacy.accounting import compute_cost
from fedtrain.privacy.events import DistributedDiscreteGaussian
from fedtrain.privacy.smoothing import find_likeness


def compute_share_law(variance, shares, reach):
    one = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / (2 * variance))
    one /= one.sum()
    total = one
    for _ in range(shares - 1):
        total = np.convolve(total, one)
    return total


def round_gaussian(x, shift, variance, width):
    """Return the probability of x when N(shift, variance) is rounded with weights of a width."""
    centres = np.arange(x - 60, x + 61)

    def integrand(y):
        weights = np.exp(-((centres - y) ** 2) / (2 * width))
        density = math.exp(-((y - shift) ** 2) / (2 * variance))
        return density * math.exp(-((x - y) ** 2) / (2 * width)) / weights.sum()

    value, _ = integrate.quad(integrand, shift - 50, shift + 50, epsabs=0, limit=400)
    return value / math.sqrt(2 * math.pi * variance)


@pytest.mark.parametrize("x", [-9, 0, 1, 2, 14])
def test_rounded_gaussian_is_the_law_of_the_shares(x):
    law = compute_share_law(8, 2, 60)
    assert round_gaussian(x, 3, 2 * 8 - 4, 4) == pytest.approx(law[120 + x - 3], rel=1e-9)


def test_rounded_gaussian_of_another_variance_is_not():
    law = compute_share_law(8, 2, 60)
    assert round_gaussian(0, 3, 2 * 8 - 3, 4) != pytest.approx(law[120 - 3], rel=1e-3)


def compute_epsilon_of(p, q, delta):
    def exceed(epsilon):
        pairs = ((p, q), (q, p))
        return max(np.maximum(a - math.exp(epsilon) * b, 0).sum() for a, b in pairs) - delta

    return optimize.brentq(exceed, 0, 50)


def compute_exact_epsilon(variance, shares, *, shift, rate, relation, delta):
    """Return one step's epsilon in one dimension from the exact laws, the worse direction."""
    law = compute_share_law(variance, shares, round(20 * math.sqrt(variance)))
    law = np.pad(law, shift)
    p = (1 - rate) * law + rate * np.roll(law, shift)
    q = law if relation == "add_remove" else (1 - rate) * law + rate * np.roll(law, -shift)

    return compute_epsilon_of(p, q, delta)


@pytest.mark.parametrize("relation", ["add_remove", "replace_one"])
@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("shares", [1, 8])
def test_cost_is_just_above_that_of_the_exact_law(shares, rate, relation):
    variance, shift = 2**16 // shares, 200
    options = {"rate": rate, "relation": relation, "delta": 1e-5}
    exact = compute_exact_epsilon(variance, shares, shift=shift, **options)
    event = DistributedDiscreteGaussian(shift, variance, shares, 1, rate, 1)
    cost = compute_cost([event], delta=1e-5, neighbouring_relation=relation)
    assert exact <= cost.epsilon <= exact * 1.001 + 1e-3
    assert cost.accountant == "pld"


@pytest.mark.parametrize("rate", [0.05, 0.5])
@pytest.mark.parametrize("other", [-200, -100, 0, 200])
def test_cohort_of_seen_size_costs_at_most_twice_the_sensitivity(rate, other):
    """Without the site's place in the cohort another's vector is in the sum, up to opposite."""
    law = np.pad(compute_share_law(2**13, 8, 1800), 200)
    out, with_it, zeros = np.roll(law, other), np.roll(law, 200), law
    exact = compute_epsilon_of(
        (1 - rate) * out + rate * with_it, (1 - rate) * out + rate * zeros, 1e-5
    )
    doubled = DistributedDiscreteGaussian(400, 2**13, 8, 1, rate, 1)
    assert exact <= compute_cost([doubled], delta=1e-5).epsilon


def test_cohort_of_seen_size_costs_more_than_poisson_sampling():
    law = np.pad(compute_share_law(2**13, 8, 1800), 200)
    p = 0.95 * np.roll(law, -200) + 0.05 * np.roll(law, 200)
    q = 0.95 * np.roll(law, -200) + 0.05 * law
    poisson = DistributedDiscreteGaussian(200, 2**13, 8, 1, 0.05, 1)
    assert compute_epsilon_of(p, q, 1e-5) > 2 * compute_cost([poisson], delta=1e-5).epsilon


@pytest.mark.parametrize(("variance", "shares"), [(7, 2**20), (2**12, 15), (1, 1), (0, 5)])
def test_coarse_noise_is_like_no_gaussian(variance, shares):
    assert find_likeness(DistributedDiscreteGaussian(1.0, variance, shares, 1, 1.0, 1)) is None


def test_likeness_has_less_noise_and_hardly_any_slack():
    likeness = find_likeness(DistributedDiscreteGaussian(7.0, 8, 2**13, 10**9, 0.1, 5))
    assert likeness.gaussian.noise_multiplier <= math.sqrt(2**16 - 4) / 7
    assert likeness.gaussian.noise_multiplier >= 0.9999 * math.sqrt(2**16) / 7
    assert (likeness.gaussian.sample_rate, likeness.gaussian.steps) == (0.1, 1)
    assert 0 < likeness.slack < 1e-25
