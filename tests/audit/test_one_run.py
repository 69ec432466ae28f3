"""The one-run bounds: exact laws where they are known, linear programs, and simulated nulls."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import expit
from scipy.stats import binom

from fedtrain.audit.one_run import (
    Guesses,
    GuessPlan,
    bound_epsilon,
    bound_gaussian_epsilon,
    bound_mu,
    choose_guesses,
    compute_claim_p_value,
    compute_gaussian_epsilon,
    compute_p_value,
    contradicts,
    make_least_wrong,
    simulate_gaussian,
)
from fedtrain.errors import ConfigError
from fedtrain.privacy.trade_off import Profile, compute_gaussian_delta, find_mu

EPSILONS = st.floats(0.01, 4)


def make_gaussian_profile(mu):
    epsilons = np.linspace(0, 12, 49)
    return Profile(tuple((float(e), compute_gaussian_delta(float(e), mu)) for e in epsilons))


def draw_guesses(generator, canaries, *, mu, made):
    included = generator.random(canaries) < 0.5
    scores = generator.normal(size=canaries) + mu * included
    plan = made if isinstance(made, GuessPlan) else GuessPlan(made - made // 2, made // 2)
    return plan.guess(scores, included)


def choose(canaries, mu):
    return choose_guesses(*simulate_gaussian(mu), canaries=canaries, confidence=0.95)


def solve_largest_tail(canaries, made, correct, points):
    """Return the largest P[v or more right] that the constraints of the trade-off allow: an LP."""
    counts = np.arange(made + 1)
    rows, limits = [], []
    for least in range(1, made + 1):
        right = np.where(counts >= least, counts, 0) / canaries
        wrong = np.where(counts >= least - 1, made - counts, 0) / canaries
        for epsilon, delta in points:
            rows += [right - np.exp(epsilon) * wrong, right - np.exp(-epsilon) * wrong]
            limits += [delta, 1 - np.exp(-epsilon) * (1 - delta)]
    found = linprog(
        -(counts >= correct).astype(float),
        A_ub=np.array(rows),
        b_ub=limits,
        A_eq=[np.ones(made + 1)],
        b_eq=[1.0],
        bounds=(0, 1),
        method="highs",
    )
    assert found.success
    return -found.fun


@settings(max_examples=40, deadline=None)
@given(made=st.integers(1, 80), epsilon=EPSILONS)
def test_p_value_is_the_exact_law_of_randomised_response(made, epsilon):
    for correct in range(made + 1):
        exact = binom.sf(correct - 1, made, expit(epsilon))
        assert compute_p_value(Guesses(made, made, correct), epsilon=epsilon, delta=0) == exact


@settings(max_examples=30, deadline=None)
@given(made=st.integers(1, 60), epsilon=EPSILONS, level=st.sampled_from([0.05, 0.2]))
def test_bounds_exceed_randomised_response_as_rarely_as_promised(made, epsilon, level):
    law = binom.pmf(np.arange(made + 1), made, expit(epsilon))
    alarms = np.zeros((2, made + 1), dtype=bool)
    for correct in range(made + 1):
        guesses = Guesses(made, made, correct)
        alarms[0, correct] = bound_epsilon(guesses, delta=0, confidence=1 - level) > epsilon
        least_wrong = make_least_wrong(Profile(((epsilon, 0.0),)))
        alarms[1, correct] = contradicts(guesses, least_wrong, significance=level)
    assert (law @ alarms.T <= level + 1e-9).all()


@settings(deadline=None)
@given(made=st.integers(2, 40), more=st.integers(0, 40), delta=st.floats(1e-4, 0.2))
def test_bounds_survive_a_mechanism_that_tells_all_with_probability_delta(made, more, delta):
    law = (1 - delta) * binom.pmf(np.arange(made + 1), made, 0.5)
    law[made] += delta
    least_wrong = make_least_wrong(Profile(((0.0, delta),)))
    alarms = np.zeros((2, made + 1), dtype=bool)
    for correct in range(made + 1):
        guesses = Guesses(made + more, made, correct)
        alarms[0, correct] = compute_p_value(guesses, epsilon=0, delta=delta) <= 0.05
        alarms[1, correct] = contradicts(guesses, least_wrong, significance=0.05)
    assert (law @ alarms.T <= 0.05 + 1e-9).all()


@settings(deadline=None)
@given(made=st.integers(1, 30), more=st.integers(0, 90), delta=st.floats(1e-4, 0.2))
def test_bounds_survive_a_mechanism_that_tells_each_with_probability_delta(made, more, delta):
    told = np.minimum(np.arange(made + more + 1), made)
    law = np.zeros(made + 1)
    for known, share in zip(told, binom.pmf(np.arange(len(told)), made + more, delta), strict=True):
        law[known:] += share * binom.pmf(np.arange(made - known + 1), made - known, 0.5)
    least_wrong = make_least_wrong(Profile(((0.0, delta),)))
    alarms = np.zeros((2, made + 1), dtype=bool)
    for correct in range(made + 1):
        guesses = Guesses(made + more, made, correct)
        alarms[0, correct] = compute_p_value(guesses, epsilon=0, delta=delta) <= 0.05
        alarms[1, correct] = contradicts(guesses, least_wrong, significance=0.05)
    assert (law @ alarms.T <= 0.05 + 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(made=st.integers(1, 12), more=st.integers(0, 30), mu=st.floats(0.1, 2.5), data=st.data())
def test_recursion_is_never_below_the_linear_program(made, more, mu, data):
    profile = make_gaussian_profile(mu)
    correct = data.draw(st.integers(0, made))
    exact = solve_largest_tail(made + more, made, correct, profile.points)
    found = compute_claim_p_value(Guesses(made + more, made, correct), profile)
    assert found >= exact - 1e-6


def test_recursion_attains_the_linear_program():
    profile = make_gaussian_profile(1.0)
    for correct in (14, 16, 18, 20):
        exact = solve_largest_tail(200, 20, correct, profile.points)
        found = compute_claim_p_value(Guesses(200, 20, correct), profile)
        assert exact - 1e-6 <= found <= 1.001 * exact + 1e-6


@pytest.mark.parametrize("mu", [0.25, 0.92, 1.67])
def test_bounds_of_a_gaussian_are_wrong_in_at_most_one_of_twenty_runs(mu):
    generator = np.random.default_rng(0)
    epsilon = compute_gaussian_epsilon(mu, 1e-5)
    wrong = np.zeros(2)
    for _ in range(200):
        guesses = draw_guesses(generator, 400, mu=mu, made=40)
        wrong += (
            bound_epsilon(guesses, delta=1e-5, confidence=0.95) > epsilon,
            bound_mu(guesses, confidence=0.95) > mu,
        )
    assert (wrong <= 18).all()  # 10 are expected at most; 19 or more have a chance of 1 %


@pytest.mark.parametrize(
    ("canaries", "epsilon", "steinke", "f_dp"),
    [
        (1000, 4, 1.35, 1.86),
        (10_000, 4, 1.85, 2.39),
        (1000, 8, 2.64, 3.87),
        (10_000, 8, 3.31, 4.67),
    ],
)
def test_mean_bound_of_a_gaussian_is_that_of_the_trials(canaries, epsilon, steinke, f_dp):
    mu = find_mu(epsilon, 1e-5)
    made = choose(canaries, mu)
    generator = np.random.default_rng(1)
    runs = [draw_guesses(generator, canaries, mu=mu, made=made) for _ in range(20)]
    first = np.mean([bound_epsilon(run, delta=1e-5, confidence=0.95) for run in runs])
    second = np.mean([bound_gaussian_epsilon(run, delta=1e-5, confidence=0.95) for run in runs])
    assert steinke <= first <= epsilon
    assert f_dp <= second <= epsilon


@pytest.mark.parametrize(("factor", "least"), [(4, 1.0), (2, 0.25)])
def test_noise_that_is_too_small_is_found_with_a_thousand_canaries(factor, least):
    claimed = find_mu(1.0, 1e-5)
    made = choose(1000, 2 * claimed)
    generator = np.random.default_rng(2)
    runs = [draw_guesses(generator, 1000, mu=factor * claimed, made=made) for _ in range(40)]
    found = np.mean([bound_mu(run, confidence=0.95) > claimed for run in runs])
    assert found >= least


def test_attack_that_is_always_right_contradicts_every_small_epsilon():
    guesses = Guesses(1000, 200, 200)
    assert bound_epsilon(guesses, delta=1e-5, confidence=0.95) > 4
    assert bound_gaussian_epsilon(guesses, delta=1e-5, confidence=0.95) > 7


def test_attack_that_is_half_right_contradicts_nothing():
    guesses = Guesses(1000, 200, 100)
    assert bound_epsilon(guesses, delta=1e-5, confidence=0.95) == 0
    assert bound_mu(guesses, confidence=0.95) == 0
    assert compute_claim_p_value(guesses, make_gaussian_profile(0.1)) > 0.5


@settings(deadline=None)
@given(correct=st.integers(51, 99))
def test_bounds_rise_with_the_right_guesses(correct):
    less, more = Guesses(400, 100, correct), Guesses(400, 100, correct + 1)
    for bound in (bound_epsilon, bound_gaussian_epsilon):
        assert bound(less, delta=1e-5, confidence=0.95) <= bound(more, delta=1e-5, confidence=0.95)


def test_infinite_claim_is_never_contradicted():
    profile = Profile(((float("inf"), 1e-5),))
    assert compute_claim_p_value(Guesses(100, 100, 100), profile) == 1.0


def test_guesses_are_the_highest_and_the_lowest_scores():
    scores, included = np.array([5.0, 1.0, 4.0, 0.0, 3.0]), np.array([1, 1, 1, 0, 0], dtype=bool)
    counts = ((1, 0), (2, 1), (2, 2), (0, 1))
    right = [GuessPlan(*both).guess(scores, included).correct for both in counts]
    assert right == [1, 3, 3, 1]


@pytest.mark.parametrize("numbers", [(10, 5, 6), (10, 11, 5), (10, 0, 0), (10, 5, -1)])
def test_impossible_guesses_are_refused(numbers):
    with pytest.raises(ConfigError, match="guesses right"):
        Guesses(*numbers)


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ConfigError, match="scores that are"):
        GuessPlan(1, 0).guess(np.array([0.0, np.nan]), np.array([True, False]))


@pytest.mark.parametrize("both", [(0, 0), (-1, 2)])
def test_impossible_plans_of_guesses_are_refused(both):
    with pytest.raises(ConfigError, match="at least one"):
        GuessPlan(*both)
