"""What a site's policy and the config's own rules say of a run that asks for statistics."""

import pytest

from clients.custody import create_custody, make_terms
from fedtrain.config import build_config, compute_digest, parse_config, to_toml
from fedtrain.errors import ConfigError
from fedtrain.ledger.faults import BudgetError
from fedtrain.plan import compute_statistics_cost
from fedtrain.policy import Policy, PolicyError, check_config
from fedtrain.resolution import resolve

TREE = {
    "data": {"source": "csv", "label": "ill", "bounds": {"age": [0, 120]}},
    "partition": {"sites": 3},
    "statistics": {"target_epsilon": 1.0},
}
EXACT = {"statistics": {"target_epsilon": None}}
ALLOWED = Policy(statistics=True)


def make_config(**tables):
    tree = {key: dict(table) for key, table in TREE.items()}
    for table, changes in tables.items():
        tree[table] = {k: v for k, v in (tree.get(table, {}) | changes).items() if v is not None}
    return resolve(build_config(tree))


def refuses(rule):
    return pytest.raises(PolicyError, check=lambda error: error.rule == rule)


def test_empty_policy_allows_no_statistics():
    with refuses("statistics"):
        check_config(Policy(), make_config())


def test_allowed_statistics_pass_with_noise_of_the_bound():
    check_config(ALLOWED, make_config())


@pytest.mark.parametrize(
    ("rule", "policy", "changes"),
    [
        ("exact_statistics", {}, EXACT),
        ("max_statistics_epsilon", {"max_statistics_epsilon": 0.9}, {}),
        ("max_statistics_epsilon", {"neighbouring_relation": "replace_one"}, {}),
        ("max_delta", {"max_delta": 1e-6}, {}),
        ("min_noise_multiplier", {"min_noise_multiplier": 4.0}, {}),
        ("allowed_units", {"allowed_units": ("person", "site")}, {}),
        ("columns", {"columns": ("age",)}, {}),
        ("columns", {"columns": ("age", "ill")}, {"statistics": {"columns": ["sex"]}}),
        ("min_cohort", {"min_cohort": 4}, {}),
        ("own_code", {}, {"data": {"source": "study:load"}}),
        (
            "secure_aggregation_required",
            {"secure_aggregation_required": False},
            {"secure_aggregation": {"mode": "arithmetic"}},
        ),
    ],
)
def test_policy_refuses_statistics_beyond_its_rule(rule, policy, changes):
    with refuses(rule):
        check_config(Policy(statistics=True, **policy), make_config(**changes))


def test_columns_of_the_question_are_what_a_policy_looks_at():
    policy = Policy(statistics=True, columns=("age", "ill"))
    check_config(policy, make_config(statistics={"columns": ["age"]}))


def test_rules_of_training_do_not_bind_a_run_that_trains_nothing():
    policy = Policy(statistics=True, max_rounds=1, models=())
    check_config(policy, make_config(federation={"rounds": 50}))


def test_target_epsilon_gives_the_smallest_noise():
    cost = compute_statistics_cost(make_config())
    assert (cost.unit, 0.99 <= cost.epsilon <= 1.0) == ("record", True)


def test_noise_that_costs_more_than_the_target_is_refused():
    with pytest.raises(ConfigError, match="noise_multiplier = 1 costs epsilon"):
        make_config(statistics={"noise_multiplier": 1.0})


def test_resolved_question_is_read_back_to_the_same_digest():
    config = make_config()
    assert compute_digest(resolve(parse_config(to_toml(config)))) == compute_digest(config)


def test_run_that_asks_is_one_round_whatever_its_training_is():
    assert make_config(federation={"rounds": 50}).rounds == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"secure_aggregation": {"mode": "off"}}, "set mode = 'protocol'"),
        ({"privacy": {"unit": "person", "noise_multiplier": 1.0}}, "does not cover"),
        ({"privacy": {"unit": "record", "noise_multiplier": 1.0}, **EXACT}, "leave unprotected"),
    ],
)
def test_config_refuses_a_question_that_it_does_not_protect(changes, reason):
    private = {"sampling": "poisson", "sample_rate": 0.1, "expected_batch_size": 8}
    tables = changes | ({"training": private} if "privacy" in changes else {})
    with pytest.raises(ConfigError, match=reason):
        make_config(**tables)


def test_question_is_reserved_at_the_price_of_its_noise(tmp_path):
    custody = create_custody(tmp_path / "anna", "anna", policy=ALLOWED)
    custody.admit(make_config(), "one")
    reserved = custody.ledger.find_reservation("one")
    assert (reserved.rounds, custody.ledger.compute_balance().reserved > 0) == (1, True)


def test_budget_for_persons_bears_no_noise_for_records(tmp_path):
    policy = Policy(statistics=True, lifetime_unit="person")
    custody = create_custody(tmp_path / "anna", "anna", policy=policy)
    with pytest.raises(BudgetError):
        custody.admit(make_config(), "one")


def test_terms_of_a_question_are_not_those_of_the_training_beside_it():
    private = {"sampling": "poisson", "sample_rate": 0.1, "expected_batch_size": 8}
    tables = {"training": private, "privacy": {"unit": "record", "noise_multiplier": 9.0}}
    terms = make_terms(make_config(**tables), "one")
    assert (terms.rounds, terms.unit) == (1, "record")
    assert terms.event == make_terms(make_config(), "one").event


def test_exact_answers_are_counted_by_run_for_good(tmp_path):
    policy = Policy(statistics=True, exact_statistics=2)
    custody = create_custody(tmp_path / "anna", "anna", policy=policy)
    for run in ("one", "one", "two"):
        custody.take_exact(run)
    custody.admit(make_config(**EXACT), "two")  # again, after a crash
    with refuses("exact_statistics"):
        custody.admit(make_config(**EXACT), "three")
