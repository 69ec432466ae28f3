import math

import pytest

from fedtrain.errors import ConfigError
from fedtrain.privacy.accounting import compute_cost
from fedtrain.privacy.events import (
    DistributedDiscreteGaussian,
    PoissonSampledGaussian,
    Unprotected,
)
from fedtrain.privacy.opacus_accounting import compute_opacus_rdp_epsilon, compute_prv_epsilon

EVENT = PoissonSampledGaussian(1.5, 0.04, 2249)
SHARES = DistributedDiscreteGaussian(10.0, 1000, 5, 3, 1.0, 2)
BOTH = pytest.mark.parametrize("ask", [compute_prv_epsilon, compute_opacus_rdp_epsilon])


def test_prv_is_what_opacus_own_test_says():
    answer = compute_prv_epsilon([EVENT], delta=1e-5)
    assert (answer.accountant, answer.reason) == ("prv", "")
    assert answer.epsilon == pytest.approx(6.777395712, abs=1e-6)


def test_rdp_is_what_opacus_own_test_says():
    event = PoissonSampledGaussian(1.5, 0.04, 2250)
    answer = compute_opacus_rdp_epsilon([event], delta=1e-5)
    assert (answer.accountant, answer.epsilon) == ("opacus_rdp", pytest.approx(7.32911117143))


def test_prv_of_different_events_does_not_depend_on_their_order():
    parts = [PoissonSampledGaussian(2.0, 0.05, 30), PoissonSampledGaussian(1.0, 0.1, 10)]
    forth = compute_prv_epsilon(parts, delta=1e-5)
    back = compute_prv_epsilon([*reversed(parts), PoissonSampledGaussian(0, 0, 9)], delta=1e-5)
    pld = compute_cost(parts, delta=1e-5).epsilon
    assert forth == back
    assert pld <= forth.epsilon <= pld + 0.02


@pytest.mark.parametrize(
    ("events", "options", "reason"),
    [
        ([EVENT], {"neighbouring_relation": "replace_one"}, "add_remove only"),
        ([SHARES], {}, "Poisson-sampled Gaussians only"),
        ([PoissonSampledGaussian(0.1, 0.01, 1000)], {}, "more than 4e.06 points"),
        ([PoissonSampledGaussian(1.0, 0.1, 100)], {"delta": 1e-15}, "Opacus failed: ValueError"),
    ],
)
def test_prv_that_cannot_answer_gives_way_and_says_why(events, options, reason):
    options = {"delta": 1e-5, **options}
    answer = compute_prv_epsilon(events, **options)
    ours = compute_cost(events, **options)
    assert (answer.epsilon, answer.accountant) == (ours.epsilon, ours.accountant)
    assert reason.replace("4e.06", "4e+06") in answer.reason


def test_opacus_rdp_that_cannot_answer_gives_way_and_says_why():
    answer = compute_opacus_rdp_epsilon([SHARES], delta=1e-5)
    assert answer.epsilon == compute_cost([SHARES], delta=1e-5, accountant="rdp").epsilon
    assert (answer.accountant, "Gaussians only" in answer.reason) == ("rdp", True)


@BOTH
@pytest.mark.parametrize("event", [Unprotected(), PoissonSampledGaussian(0.0, 0.1, 1)])
def test_unprotected_release_is_infinite_without_asking(ask, event):
    assert ask([EVENT, event], delta=1e-5).epsilon == math.inf


@BOTH
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_sample_rates_at_the_ends_are_answered(ask, rate):
    answer = ask([PoissonSampledGaussian(5.0, rate, 1)], delta=1e-5)
    assert (answer.reason, answer.epsilon > 0) == ("", rate == 1)


@BOTH
@pytest.mark.parametrize("delta", [0.5, 0.9])
def test_large_delta_is_never_negative(ask, delta):
    assert ask([PoissonSampledGaussian(5.0, 0.01, 10)], delta=delta).epsilon == 0


@BOTH
def test_wrong_questions_are_refused(ask):
    with pytest.raises(TypeError, match="no known cost"):
        ask(["gaussian"], delta=1e-5)
    with pytest.raises(ConfigError, match="delta"):
        ask([EVENT], delta=0.0)


def test_gdp_accountant_which_is_not_offered_reports_less_than_half():
    from opacus.accountants.analysis.gdp import compute_eps_poisson

    event = PoissonSampledGaussian(0.7, 0.01, 120)
    gdp = compute_eps_poisson(steps=120, noise_multiplier=0.7, sample_rate=0.01, delta=1e-5)
    assert gdp == pytest.approx(1.0634, abs=1e-3)
    assert compute_cost([event], delta=1e-5).epsilon > 2.4
