"""The filter: its order, its total, what events cost, and that rounding never helps the spender."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.errors import ConfigError
from fedtrain.ledger.budget import (
    UNITS_PER_ONE,
    Budget,
    choose_order,
    compute_cost,
    compute_epsilon,
    compute_total,
    format_amount,
    is_cost,
    parse_amount,
)
from fedtrain.ledger.entries import describe_event, read_event
from fedtrain.privacy.events import (
    DistributedDiscreteGaussian,
    Event,
    PoissonSampledGaussian,
    Unprotected,
)
from fedtrain.privacy.renyi import convert_to_epsilon

LIFE = Budget(8.0, 1e-6)
SHARES = DistributedDiscreteGaussian(100.0, 10**4, 5, 1000, 1.0, 1)
BUDGETS = st.builds(Budget, st.floats(0.05, 50), st.floats(1e-12, 1e-2))


def cost_at(event, order=4.4, budget=LIFE, unit="record"):
    return compute_cost(event, budget, order=order, unit=unit)


def test_order_of_the_usual_budget_is_the_published_one():
    assert choose_order(LIFE) == 4.4


@pytest.mark.parametrize(
    ("noise_multiplier", "sample_rate", "steps", "runs"),
    [(2, 0.02, 250, 73), (1.5, 0.05, 100, 13), (4, 0.1, 200, 16), (1, 0.01, 200, 57)],
)
def test_filter_admits_as_many_runs_as_computed_elsewhere(
    noise_multiplier, sample_rate, steps, runs
):
    cost = cost_at(PoissonSampledGaussian(noise_multiplier, sample_rate, steps))
    assert compute_total(LIFE, 4.4) // cost == runs


@given(BUDGETS)
def test_total_converts_back_to_no_more_than_the_budget(budget):
    order = choose_order(budget)
    total = compute_total(budget, order) / UNITS_PER_ONE
    epsilon = convert_to_epsilon(total, delta=budget.delta, orders=[order])
    assert budget.epsilon * (1 - 1e-6) - 1e-9 <= epsilon <= budget.epsilon


@given(BUDGETS, st.floats(1.05, 5000))
def test_no_other_order_admits_notably_more(budget, order):
    best = choose_order(budget)
    assert compute_total(budget, order) / order <= 1.01 * compute_total(budget, best) / best


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_budget_that_is_no_finite_number_is_refused(epsilon):
    with pytest.raises(ConfigError, match="epsilon"):
        Budget(epsilon, 1e-6)


@pytest.mark.parametrize("delta", [0.0, 1.0, math.nan])
def test_delta_out_of_range_is_refused(delta):
    with pytest.raises(ConfigError, match="delta"):
        Budget(1.0, delta)


def compute_exactly(noise_multiplier, sample_rate, order):
    """The binomial expansion at a whole order (Mironov, Talwar, Zhang 2019), without cancellation.

    Every term of what exceeds 1 is positive; expm1 and log1p keep the digits of small ones.
    """
    rate = Fraction(sample_rate)
    excess = math.fsum(
        float(math.comb(order, k) * (1 - rate) ** (order - k) * rate**k)
        * math.expm1(k * (k - 1) / (2 * noise_multiplier**2))
        for k in range(2, order + 1)
    )
    return math.log1p(excess) / (order - 1)


@given(st.floats(0.4, 20), st.floats(1e-7, 0.9), st.integers(2, 12), st.integers(1, 10**6))
def test_cost_is_never_below_the_divergence_and_hardly_above(
    noise_multiplier, sample_rate, order, steps
):
    event = PoissonSampledGaussian(noise_multiplier, sample_rate, steps)
    exact = steps * compute_exactly(noise_multiplier, sample_rate, order)
    cost = cost_at(event, order=float(order)) / UNITS_PER_ONE
    assert exact <= cost <= exact * (1 + 1e-8) + 2e-13 * steps + 2 / UNITS_PER_ONE


@pytest.mark.parametrize(
    "event", [Unprotected(), PoissonSampledGaussian(0.0, 0.5, 1), replace(SHARES, share_variance=0)]
)
def test_no_noise_has_no_finite_cost(event):
    assert cost_at(event) is None


def test_unknown_event_is_a_type_error():
    with pytest.raises(TypeError, match="no known cost"):
        cost_at("release")


def test_no_steps_cost_nothing():
    assert cost_at(PoissonSampledGaussian(1.0, 0.1, 0)) == 0


def test_exchange_of_a_record_costs_more():
    event = PoissonSampledGaussian(2.0, 0.1, 10)
    exchanged = replace(LIFE, neighbouring_relation="replace_one")
    assert cost_at(event, budget=exchanged) > cost_at(event)


def test_coarser_unit_pays_for_an_exchange_of_what_it_contributes():
    event = PoissonSampledGaussian(2.0, 0.1, 10)
    exchanged = replace(LIFE, neighbouring_relation="replace_one")
    assert cost_at(event, unit="person") == cost_at(event, budget=exchanged)


@pytest.mark.parametrize(("own", "unit"), [("person", "record"), ("site", "person")])
def test_finer_unit_than_the_budget_s_has_no_finite_cost(own, unit):
    budget = replace(LIFE, unit=own)
    assert cost_at(PoissonSampledGaussian(2.0, 0.1, 10), budget=budget, unit=unit) is None


def test_sampling_of_sites_does_not_make_a_round_cheaper():
    budget = replace(LIFE, unit="site")
    whole = cost_at(SHARES, budget=budget, unit="site")
    assert cost_at(replace(SHARES, sample_rate=0.1), budget=budget, unit="site") == whole > 0


@given(st.integers(0, 10**20))
def test_amount_reads_back(amount):
    assert parse_amount(format_amount(amount)) == amount


@given(st.integers(1, 10**4))
def test_cost_a_little_too_small_is_not_accepted(steps):
    event = PoissonSampledGaussian(1.1, 0.03, steps)
    cost = cost_at(event)
    assert is_cost(cost, event, LIFE, order=4.4, unit="record")
    assert not is_cost(int(cost * 0.99999999), event, LIFE, order=4.4, unit="record")


def test_nothing_spent_is_epsilon_zero_and_all_is_the_budget():
    assert compute_epsilon(0, delta=1e-6, order=4.4) == 0
    total = compute_total(LIFE, 4.4)
    assert compute_epsilon(total, delta=1e-6, order=4.4) == pytest.approx(8.0, abs=1e-6)


@pytest.mark.parametrize("event", [PoissonSampledGaussian(1.5, 0.25, 4), SHARES, Unprotected()])
def test_event_reads_back_from_its_description(event):
    assert read_event(*describe_event(event)) == event


def test_every_kind_of_event_has_a_mechanism_of_its_own():
    assert len({describe_event(event)[0] for event in (Unprotected(), SHARES)}) == 2
    assert len(get_args(Event)) == 3
