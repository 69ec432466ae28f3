import math

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant
from scipy import integrate, stats

from fedtrain.privacy.renyi import ORDERS, compute_rdp, convert_to_epsilon


def integrate_replace_one(noise_multiplier, sample_rate, order):
    def log_density(z, mean):
        noise = stats.norm(0, noise_multiplier).logpdf
        stay, move = math.log1p(-sample_rate), math.log(sample_rate)
        return np.logaddexp(stay + noise(z), move + noise(z - mean))

    value, _ = integrate.quad(
        lambda z: math.exp(order * log_density(z, 1) + (1 - order) * log_density(z, -1)),
        -20,
        40,
        points=[0, order],
        limit=500,
    )
    return math.log(value) / (order - 1)


CASES = pytest.mark.parametrize(
    ("noise_multiplier", "sample_rate"), [(0.5, 0.01), (1, 0.1), (4, 0.001), (2, 0.5)]
)


@CASES
def test_rdp_at_whole_orders_matches_dp_accounting(noise_multiplier, sample_rate):
    # At fractional orders its series drops signs: a bound, up to 1 % above the divergence.
    orders = [2, 3, 8, 32, 63, 256]
    oracle = RdpAccountant(orders)
    oracle.compose(PoissonSampledDpEvent(sample_rate, GaussianDpEvent(noise_multiplier)))
    ours = compute_rdp(noise_multiplier, sample_rate, orders=orders)
    np.testing.assert_allclose(ours, oracle.rdp, rtol=1e-8, atol=1e-14)


@CASES
def test_rdp_at_fractional_orders_matches_opacus(noise_multiplier, sample_rate):
    from opacus.accountants.analysis.rdp import compute_rdp as compute_with_opacus

    orders = [1.1, 1.5, 3.7, 10.9]
    options = {"q": sample_rate, "noise_multiplier": noise_multiplier, "steps": 1}
    oracle = compute_with_opacus(**options, orders=orders)
    ours = compute_rdp(noise_multiplier, sample_rate, orders=orders)
    np.testing.assert_allclose(ours, oracle, rtol=1e-6, atol=1e-13)


@pytest.mark.parametrize(("noise_multiplier", "sample_rate"), [(0.7, 0.1), (1, 0.5), (2, 0.9)])
def test_rdp_of_replace_one_matches_adaptive_quadrature(noise_multiplier, sample_rate):
    orders = [1.3, 2.0, 5.5]
    ours = compute_rdp(
        noise_multiplier, sample_rate, orders=orders, neighbouring_relation="replace_one"
    )
    oracle = [integrate_replace_one(noise_multiplier, sample_rate, order) for order in orders]
    np.testing.assert_allclose(ours, oracle, rtol=1e-7)


@pytest.mark.parametrize(("relation", "sensitivity"), [("add_remove", 1), ("replace_one", 2)])
def test_rdp_at_sample_rate_one_is_the_gaussian_mechanism(relation, sensitivity):
    closed_form = np.array(ORDERS) * sensitivity**2 / (2 * 1.7**2)
    exact = compute_rdp(1.7, 1, neighbouring_relation=relation)
    nearly = compute_rdp(1.7, 1 - 1e-12, orders=ORDERS[:60], neighbouring_relation=relation)
    np.testing.assert_allclose(exact, closed_form, rtol=1e-12)
    np.testing.assert_allclose(nearly, closed_form[:60], rtol=1e-6)


@pytest.mark.parametrize("relation", ["add_remove", "replace_one"])
@pytest.mark.parametrize("noise_multiplier", [1e-200, 1e-3, 0.1, 1, 1e4])
@pytest.mark.parametrize("sample_rate", [1e-300, 1e-6, 0.5, 1])
def test_rdp_is_never_negative_nan_or_above_the_unsampled(noise_multiplier, sample_rate, relation):
    rdp = compute_rdp(noise_multiplier, sample_rate, neighbouring_relation=relation)
    unsampled = compute_rdp(noise_multiplier, 1, neighbouring_relation=relation)
    assert (rdp >= 0).all()
    assert (rdp <= unsampled).all()


def test_rdp_without_sampling_or_noise_is_zero_or_infinite():
    assert (compute_rdp(1, 0) == 0).all()
    assert (compute_rdp(0, 0) == 0).all()
    assert (compute_rdp(0, 0.5) == math.inf).all()


def test_conversion_never_gives_a_negative_epsilon():
    rdp = compute_rdp(50, 0.01)
    assert convert_to_epsilon(rdp, delta=0.9) == 0
    assert convert_to_epsilon(np.zeros(len(ORDERS)), delta=1e-15) == 0
    assert convert_to_epsilon(np.full(len(ORDERS), math.inf), delta=0.1) == math.inf
