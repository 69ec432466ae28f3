"""Many trials of one noisy output bound its epsilon tightly, and never above the truth."""

import numpy as np
import pytest

from fedtrain.audit.one_run import compute_gaussian_epsilon
from fedtrain.audit.single_step import bound_step
from fedtrain.audit.site_trials import run_site_trials
from fedtrain.config import parse_config
from fedtrain.errors import ConfigError
from fedtrain.resolution import resolve

SITE = """
[partition]
sites = 12
[privacy]
unit = "site"
[privacy.site]
noise_multiplier = 1.0
target_delta = 1e-5
max_update_norm = 0.5
"""


def draw(noise, *, trials=20_000, seed=0):
    generator = np.random.default_rng(seed)
    included = generator.random(trials) < 0.5
    return included + noise * generator.normal(size=trials), included


def bound(scores, included, *, claimed=1.0, confidence=0.95):
    return bound_step(scores, included, noise_multiplier=claimed, delta=1e-5, confidence=confidence)


@pytest.mark.parametrize(("noise", "least"), [(1.0, 4.2), (0.5, 9.7), (3.98, 0.79)])
def test_bounds_reach_the_trial_figures(noise, least):
    """True epsilons 4.38, 10.0 and 0.93, 100,000 draws of either kind."""
    found = bound(*draw(noise, trials=200_000), claimed=noise)
    assert least <= found.gaussian_epsilon <= compute_gaussian_epsilon(1 / noise, 1e-5)


def test_bounds_exceed_the_truth_no_more_often_than_they_may():
    found = [bound(*draw(1.0, trials=2000, seed=seed)) for seed in range(200)]
    assert sum(one.mu > 1 for one in found) <= 10  # two rates at 97.5 %: fewer than 5 % of 200
    assert sum(one.epsilon > compute_gaussian_epsilon(1, 1e-5) for one in found) == 0


def test_planted_noise_is_found_and_the_claimed_is_not():
    honest, halved = bound(*draw(1.0)), bound(*draw(0.5))
    assert honest.mu < 1 < halved.mu


def test_wrong_claim_makes_no_bound_invalid():
    found = bound(*draw(1.0), claimed=0.1)
    assert found.mu < 1
    assert found.epsilon < compute_gaussian_epsilon(1, 1e-5)


def test_canaries_all_present_are_refused():
    with pytest.raises(ConfigError, match="without absent"):
        bound(np.ones(10), np.ones(10, np.bool_))


@pytest.mark.parametrize(("divisor", "broken"), [(1, False), (2, True)])
def test_sum_of_the_fewest_survivors_is_as_noisy_as_claimed(divisor, broken):
    config = resolve(parse_config(SITE))
    site = config.privacy.site.model_copy(update={"noise_multiplier": 1 / divisor})
    running = config.model_copy(
        update={"privacy": config.privacy.model_copy(update={"site": site})}
    )
    included, scores = run_site_trials(config, 3000, seed=1, running=running)
    assert (bound(scores, included).mu > 1) == broken
    assert np.std(scores - included) == pytest.approx(1 / divisor, rel=0.05)
