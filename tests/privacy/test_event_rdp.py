import math

import numpy as np
import pytest

from fedtrain.errors import ConfigError
from fedtrain.privacy.event_rdp import compute_event_rdp, compute_mechanism_curve
from fedtrain.privacy.events import (
    DistributedDiscreteGaussian,
    PoissonSampledGaussian,
    Unprotected,
)
from fedtrain.privacy.renyi import ORDERS, compute_rdp

GAUSSIAN = PoissonSampledGaussian(1.0, 0.1, 10)
FINE = DistributedDiscreteGaussian(1e6, 10**12, 10, 1000, 0.1, 10)
COARSE = DistributedDiscreteGaussian(2.0, 4, 10, 1000, 0.1, 10)
EVENTS = pytest.mark.parametrize(
    "event", [GAUSSIAN, FINE, COARSE], ids=["gaussian", "fine", "coarse"]
)


def test_gaussian_costs_its_divergence_a_step():
    step = compute_rdp(1.0, 0.1, orders=[4.4], neighbouring_relation="replace_one")[0]
    cost = compute_event_rdp(GAUSSIAN, order=4.4, neighbouring_relation="replace_one")
    assert cost == 10 * step


@pytest.mark.parametrize("order", [1.5, 2, 4.4, 5])
@pytest.mark.parametrize("relation", ["add_remove", "replace_one"])
def test_fine_shares_cost_what_the_gaussian_does(order, relation):
    gaussian = PoissonSampledGaussian(math.sqrt(10), 0.1, 10)
    options = {"order": order, "neighbouring_relation": relation}
    exact = compute_event_rdp(gaussian, **options)
    assert compute_event_rdp(FINE, **options) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("order", [1.5, 2, 4.4, 5])
def test_coarse_shares_between_whole_orders_cost_no_less_than_the_gaussian(order):
    exact = compute_event_rdp(PoissonSampledGaussian(math.sqrt(10), 0.1, 10), order=order)
    assert exact * (1 - 1e-9) <= compute_event_rdp(COARSE, order=order) <= exact * 1.34


@pytest.mark.parametrize("event", [GAUSSIAN, COARSE], ids=["gaussian", "coarse"])
def test_one_order_is_a_point_of_the_curve(event):
    curve = compute_mechanism_curve(event, "add_remove")
    points = [compute_event_rdp(event, order=order) / 10 for order in ORDERS[::9]]
    np.testing.assert_allclose(points, curve[::9], rtol=1e-12)
    assert not curve.flags.writeable


def test_unprotected_release_costs_infinity():
    silent = DistributedDiscreteGaussian(1.0, 0, 10, 1, 0.1, 1)
    for event in (Unprotected(), silent, PoissonSampledGaussian(0.0, 0.1, 1)):
        assert compute_event_rdp(event, order=2) == math.inf


def test_no_steps_cost_nothing_even_without_noise():
    for event in (
        PoissonSampledGaussian(0.0, 0.1, 0),
        DistributedDiscreteGaussian(1.0, 0, 1, 1, 1, 0),
    ):
        assert compute_event_rdp(event, order=2) == 0


def test_unknown_event_is_an_error():
    with pytest.raises(TypeError, match="no known cost"):
        compute_event_rdp("gaussian", order=2)


@EVENTS
@pytest.mark.parametrize("order", [1.0, 0.5, math.nan, math.inf])
def test_order_outside_its_range_is_refused(event, order):
    with pytest.raises(ConfigError, match="order = "):
        compute_event_rdp(event, order=order)
