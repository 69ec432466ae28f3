import pytest

from fedtrain.config import compute_digest, parse_config, to_toml
from fedtrain.errors import ConfigError
from fedtrain.plan import build_record_plan, compute_planned_cost
from fedtrain.resolution import resolve, verify_update_bound

PRIVATE = """
[training]
sampling = "poisson"
sample_rate = 0.1
expected_batch_size = 20
local_epochs = 2
[federation]
rounds = 5
[privacy]
unit = "record"
target_epsilon = 3.0
"""


def resolve_text(text, *overrides):
    return resolve(parse_config(text, overrides))


def test_defaults_are_filled_in_without_privacy():
    config = resolve_text("")
    assert config.training.local_epochs == 1
    assert config.federation.weighting == "examples"
    assert config.federation.select == "best"
    assert config.data.preparation == "bounds"


def test_defaults_under_privacy_release_nothing_of_a_shard():
    config = resolve_text(PRIVATE)
    assert config.training.local_steps == 20
    assert config.federation.weighting == "equal"
    assert config.federation.select == "last"
    assert config.data.preparation == "bounds"


def test_noise_is_calibrated_for_all_rounds_and_steps():
    config = resolve_text(PRIVATE)
    cost = compute_planned_cost(config)
    assert 2.9 < cost.epsilon <= 3.0
    assert build_record_plan(config).to_event(5).steps == 100


def test_planned_cost_of_fewer_rounds_is_smaller():
    config = resolve_text(PRIVATE)
    costs = [compute_planned_cost(config, n).epsilon for n in (0, 1, 3, 5)]
    assert costs[0] == 0
    assert costs == sorted(costs)


@pytest.mark.parametrize("text", ["", PRIVATE])
def test_resolved_config_resolves_to_itself_and_survives_its_file(text):
    config = resolve_text(text)
    assert resolve(config) == config
    assert compute_digest(resolve(parse_config(to_toml(config)))) == compute_digest(config)


def test_noise_that_costs_more_than_its_target_is_refused():
    with pytest.raises(ConfigError, match=r"noise_multiplier = 0\.5 costs epsilon"):
        resolve_text(PRIVATE, "privacy.noise_multiplier=0.5")


def test_no_plan_and_no_cost_without_privacy():
    config = resolve_text("")
    assert build_record_plan(config) is None
    assert compute_planned_cost(config) is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.sampling=shuffle", "cannot be accounted"),
        ("federation.weighting=examples", "record count"),
        ("data.preparation=standardise", "unprotected"),
        ("federation.select=best", "unprotected"),
    ],
)
def test_private_run_refuses_what_would_leak(override, message):
    with pytest.raises(ConfigError, match=message):
        resolve_text(PRIVATE, override)


def test_bound_that_the_noise_alone_exceeds_is_refused_with_one_that_does():
    text = PRIVATE.replace("target_epsilon = 3.0", "noise_multiplier = 500.0")
    with pytest.raises(ConfigError, match=r"noise of a round alone moves 100,000 .*; set it to"):
        verify_update_bound(resolve(parse_config(text)), size=100_000)


def test_bound_with_room_for_the_noise_is_accepted():
    verify_update_bound(resolve(parse_config(PRIVATE)), size=1000)
