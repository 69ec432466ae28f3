import math
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.errors import ConfigError
from fedtrain.privacy.accounting import Odometer, PrivacyCost, _build_pld, compute_cost
from fedtrain.privacy.events import (
    DistributedDiscreteGaussian,
    PoissonSampledGaussian,
    Unprotected,
)

EVENT = PoissonSampledGaussian(1.0, 0.1, 100)
NOISES = st.floats(0.5, 20)
RATES = st.floats(1e-4, 1)
STEPS = st.integers(1, 5000)
RELATIONS = st.sampled_from(["add_remove", "replace_one"])
QUICK = settings(max_examples=25, deadline=None, derandomize=True)


def compute_epsilon(*events, delta=1e-5, **options):
    return compute_cost(events, delta=delta, **options).epsilon


def test_cost_carries_what_it_rests_on():
    cost = compute_cost([EVENT], delta=1e-5, neighbouring_relation="replace_one")
    expected = PrivacyCost(cost.epsilon, 1e-5, "replace_one", "pld", 1e-3, "record")
    assert cost == expected
    assert compute_cost([EVENT], delta=1e-5, accountant="rdp").discretisation is None


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
@pytest.mark.parametrize(
    "events",
    [
        [],
        [PoissonSampledGaussian(1.0, 0.1, 0)],
        [PoissonSampledGaussian(1.0, 0.0, 100)],
        [PoissonSampledGaussian(0.0, 0.0, 100)],
    ],
)
def test_nothing_released_costs_nothing(events, accountant):
    assert compute_epsilon(*events, accountant=accountant) == 0


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
@pytest.mark.parametrize("event", [Unprotected(), PoissonSampledGaussian(0.0, 1e-9, 1)])
def test_unprotected_release_costs_infinity(event, accountant):
    assert compute_epsilon(EVENT, event, accountant=accountant) == math.inf


def test_unprotected_release_is_not_forgotten_beside_unsampled_steps():
    assert compute_epsilon(Unprotected(), PoissonSampledGaussian(1.0, 0.0, 5)) == math.inf


@pytest.mark.parametrize("event", ["gaussian", None, 1.0])
def test_unknown_event_is_an_error(event):
    with pytest.raises(TypeError, match="no known cost"):
        compute_cost([EVENT, event], delta=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"delta": 0.0},
        {"delta": 1.0},
        {"delta": math.nan},
        {"neighbouring_relation": "zero_out"},
        {"accountant": "gdp"},
        {"discretisation": 0.0},
        {"discretisation": math.nan},
    ],
)
def test_argument_outside_its_range_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        compute_cost([EVENT], **{"delta": 1e-5, **options})


@pytest.mark.parametrize("delta", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_large_delta_never_gives_a_negative_epsilon(delta, accountant):
    assert compute_epsilon(PoissonSampledGaussian(5.0, 0.01, 10), delta=delta) == 0


@pytest.mark.parametrize("sample_rate", [1e-4, 1.0])
def test_a_million_steps_lie_between_nothing_and_rdp(sample_rate):
    event = PoissonSampledGaussian(4000 * sample_rate, sample_rate, 10**6)
    cost = compute_cost([event], delta=1e-5)
    assert cost.accountant == "pld"
    assert 0.05 < cost.epsilon < compute_epsilon(event, accountant="rdp")


@pytest.mark.parametrize("relation", ["add_remove", "replace_one"])
def test_many_steps_cost_what_the_library_says(relation):
    event = PoissonSampledGaussian(5.0, 0.01, 20_001)  # composed by a shorter way of ours
    cost = compute_cost([event], delta=1e-5, neighbouring_relation=relation)
    part = _build_pld(5.0, 0.01, relation, cost.discretisation)
    assert cost.epsilon == part.self_compose(20_001).get_epsilon_for_delta(1e-5)


def test_a_million_unsampled_steps_equal_one_with_less_noise():
    one = compute_epsilon(PoissonSampledGaussian(4.0, 1.0, 1))
    many = compute_epsilon(PoissonSampledGaussian(4000.0, 1.0, 10**6))
    assert one <= many <= one * 1.002


@pytest.mark.parametrize(
    ("event", "delta"),
    [
        (PoissonSampledGaussian(1.0, 0.5, 10**6), 1e-5),
        (PoissonSampledGaussian(1e-3, 1.0, 1), 1e-5),
        (PoissonSampledGaussian(30.0, 1e-4, 2**53), 1e-5),
        (EVENT, 1e-13),
    ],
)
def test_cost_beyond_the_grid_is_the_rdp_bound_and_says_so(event, delta):
    cost = compute_cost([event], delta=delta)
    assert (cost.accountant, cost.discretisation) == ("rdp", None)
    assert cost == compute_cost([event], delta=delta, accountant="rdp")
    assert math.isfinite(cost.epsilon)


@pytest.mark.parametrize("relation", ["add_remove", "replace_one"])
def test_records_that_are_hardly_ever_sampled_cost_nothing(relation):
    event = PoissonSampledGaussian(0.01, 1e-9, 9_999)
    assert compute_epsilon(event, neighbouring_relation=relation) == 0
    more = PoissonSampledGaussian(0.01, 1e-9, 10_001)
    assert compute_epsilon(more, neighbouring_relation=relation) >= 0


def test_vanishing_noise_is_infinite_not_an_error():
    assert compute_epsilon(PoissonSampledGaussian(1e-300, 0.5, 10)) == math.inf


def test_coarser_grid_is_never_below_a_finer_one():
    epsilons = [compute_epsilon(EVENT, discretisation=10.0**-i) for i in range(2, 5)]
    assert epsilons == sorted(epsilons, reverse=True)


@given(st.lists(st.tuples(st.sampled_from([0.8, 1.0, 2.0]), st.integers(0, 9)), max_size=6))
@QUICK
def test_equal_totals_cost_the_very_same(parts):
    whole = [PoissonSampledGaussian(noise, 0.1, steps) for noise, steps in parts]
    ones = [
        PoissonSampledGaussian(e.noise_multiplier, 0.1, 1) for e in whole for _ in range(e.steps)
    ]
    random.Random(0).shuffle(ones)
    assert compute_epsilon(*whole) == compute_epsilon(*ones)


DIP = 1e-4  # what a change of the grid's width may do to an epsilon of a few 0.0001


@given(NOISES, RATES, STEPS, st.integers(0, 5000), RELATIONS)
@QUICK
def test_cost_does_not_fall_with_steps(noise, rate, steps, more, relation):
    few = compute_epsilon(
        PoissonSampledGaussian(noise, rate, steps), neighbouring_relation=relation
    )
    many = PoissonSampledGaussian(noise, rate, steps + more)
    assert compute_epsilon(many, neighbouring_relation=relation) >= few * 0.998 - DIP


@given(NOISES, RATES, STEPS, st.floats(1, 2), RELATIONS)
@QUICK
def test_cost_does_not_rise_with_noise(noise, rate, steps, factor, relation):
    base = compute_epsilon(
        PoissonSampledGaussian(noise, rate, steps), neighbouring_relation=relation
    )
    less = PoissonSampledGaussian(noise * factor, rate, steps)
    assert compute_epsilon(less, neighbouring_relation=relation) <= base * 1.002 + DIP


@given(NOISES, RATES, STEPS, st.floats(0, 1), RELATIONS)
@QUICK
def test_cost_does_not_rise_with_a_lower_sample_rate(noise, rate, steps, factor, relation):
    base = compute_epsilon(
        PoissonSampledGaussian(noise, rate, steps), neighbouring_relation=relation
    )
    rarer = PoissonSampledGaussian(noise, rate * factor, steps)
    assert compute_epsilon(rarer, neighbouring_relation=relation) <= base * 1.002 + DIP


@given(NOISES, RATES, STEPS, RELATIONS)
@QUICK
def test_pld_is_never_above_rdp(noise, rate, steps, relation):
    event = PoissonSampledGaussian(noise, rate, steps)
    pld = compute_epsilon(event, neighbouring_relation=relation)
    assert pld <= compute_epsilon(event, neighbouring_relation=relation, accountant="rdp") + 1e-9


def test_replace_one_costs_more():
    assert compute_epsilon(EVENT, neighbouring_relation="replace_one") > compute_epsilon(EVENT)


def test_segments_compose_beyond_each_alone():
    other = PoissonSampledGaussian(2.0, 0.05, 300)
    both = compute_epsilon(EVENT, other)
    assert max(compute_epsilon(EVENT), compute_epsilon(other)) < both
    assert both < compute_epsilon(EVENT, other, accountant="rdp")


def test_odometer_equals_the_cost_of_all_events_after_each():
    odometer, events = Odometer(delta=1e-5), []
    assert odometer.compute_cost() == compute_cost([], delta=1e-5)
    for steps in (4, 0, 4, 7):
        events.append(PoissonSampledGaussian(1.2, 0.25, steps))
        odometer.record(events[-1])
        assert odometer.compute_cost() == compute_cost(events, delta=1e-5)
    odometer.record(Unprotected())
    odometer.record(EVENT)
    assert odometer.compute_cost().epsilon == math.inf


def test_odometer_refuses_what_the_function_refuses():
    with pytest.raises(ConfigError, match="delta"):
        Odometer(delta=0.0)
    with pytest.raises(TypeError, match="no known cost"):
        Odometer(delta=1e-5).record("gaussian")


def test_import_leaves_the_slow_library_out():
    code = "import sys, fedtrain.privacy.accounting; sys.exit('dp_accounting' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def make_shares(noise_multiplier=1.0, sample_rate=1.0, steps=10, *, sensitivity=1e8):
    """Return noise in ten shares of which the sum has the given multiplier."""
    variance = round((noise_multiplier * sensitivity) ** 2 / 10)
    return DistributedDiscreteGaussian(sensitivity, variance, 10, 10_000, sample_rate, steps)


@pytest.mark.parametrize("relation", ["add_remove", "replace_one"])
@pytest.mark.parametrize(("sample_rate", "steps"), [(1.0, 1), (1.0, 50), (0.05, 1000)])
def test_fine_shares_cost_what_the_gaussian_does(sample_rate, steps, relation):
    options = {"delta": 1e-5, "neighbouring_relation": relation}
    cost = compute_cost([make_shares(2.0, sample_rate, steps)], **options)
    gaussian = compute_cost([PoissonSampledGaussian(2.0, sample_rate, steps)], **options)
    assert cost.epsilon == pytest.approx(gaussian.epsilon, rel=1e-6)
    assert (cost.accountant, cost.discretisation) == ("pld", gaussian.discretisation)


@pytest.mark.parametrize(("sample_rate", "steps"), [(1.0, 1), (1.0, 50), (0.05, 1000)])
def test_coarse_shares_cost_what_rdp_says_of_the_gaussian(sample_rate, steps):
    # Where sites are sampled, orders are interpolated between whole ones: up to 2 % more.
    cost = compute_cost([make_shares(2.0, sample_rate, steps, sensitivity=5.0)], delta=1e-5)
    gaussian = PoissonSampledGaussian(2.0, sample_rate, steps)
    exact = compute_epsilon(gaussian, accountant="rdp")
    assert exact * (1 - 1e-9) <= cost.epsilon <= exact * 1.02
    assert (cost.accountant, cost.discretisation) == ("rdp", None)


def test_noise_in_shares_at_its_edges():
    assert compute_epsilon(make_shares(steps=0)) == 0
    assert compute_epsilon(make_shares(sample_rate=0.0)) == 0
    assert compute_epsilon(make_shares(0.0, 0.0)) == 0
    assert compute_epsilon(make_shares(0.0)) == math.inf
    assert compute_epsilon(make_shares(steps=1)) < compute_epsilon(make_shares(steps=2))
    one = compute_epsilon(make_shares(1.0, steps=1))
    assert one <= compute_epsilon(make_shares(1e3, steps=10**6)) <= one * 1.002


def test_fine_shares_compose_with_records_by_pld_and_coarse_ones_by_rdp():
    gaussians = [EVENT, PoissonSampledGaussian(2.0, 1.0, 10)]
    for sensitivity, accountant in ((1e8, "pld"), (5.0, "rdp")):
        mixed = compute_cost([EVENT, make_shares(2.0, sensitivity=sensitivity)], delta=1e-5)
        expected = compute_epsilon(*gaussians, accountant=accountant)
        assert mixed.epsilon == pytest.approx(expected, rel=1e-6)
        assert mixed.accountant == accountant


def test_shares_of_equal_steps_and_any_order_cost_the_very_same():
    parts = [make_shares(steps=1), EVENT, make_shares(2.0), *[make_shares(steps=3)] * 3]
    whole = [make_shares(2.0), make_shares(steps=10), EVENT]
    assert compute_epsilon(*parts) == compute_epsilon(*whole)


def test_replaced_sites_of_coarse_shares_are_not_sampled():
    sampled = make_shares(sample_rate=0.5, sensitivity=5.0)
    with pytest.raises(ConfigError, match="no replace_one cost"):
        compute_epsilon(sampled, neighbouring_relation="replace_one")


@pytest.mark.parametrize("unit", ["record", "person", "site"])
def test_cost_carries_its_unit(unit):
    odometer = Odometer(delta=1e-5, unit=unit)
    odometer.record(make_shares())
    assert odometer.compute_cost() == compute_cost([make_shares()], delta=1e-5, unit=unit)
    assert odometer.compute_cost().unit == unit


def test_unknown_unit_is_refused():
    with pytest.raises(ConfigError, match="unit = 'client' is not known; set record, person"):
        compute_cost([], delta=1e-5, unit="client")
