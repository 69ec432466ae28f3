"""A site's policy: each rule refuses what is beyond its bound, at the bound it allows."""

import tomllib
from contextlib import nullcontext
from dataclasses import replace

import pytest
from pydantic import ValidationError

from fedtrain.config import build_config
from fedtrain.errors import ConfigError, SiteError
from fedtrain.ledger.faults import BUDGET_REASONS, BudgetError, LedgerError
from fedtrain.policy import (
    Policy,
    PolicyError,
    check_config,
    describe_policy,
    load_policy,
    parse_policy,
)
from fedtrain.privacy.accounting import PrivacyCost
from fedtrain.protocol import describe_publicly

RUN = {
    "data": {"source": "csv", "path": "x.csv", "label": "num > 0", "columns": ["age", "sex"]},
    "partition": {"sites": 5},
    "training": {
        "sampling": "poisson",
        "sample_rate": 0.05,
        "local_steps": 4,
        "expected_batch_size": 32,
    },
    "federation": {"rounds": 20, "weighting": "equal", "select": "last"},
    "privacy": {"unit": "record", "noise_multiplier": 1.2, "metrics": "suppressed"},
}
SITE_RUN = {
    "partition": {"sites": 5},
    "privacy": {"unit": "site", "site": {"noise_multiplier": 4.0, "max_update_norm": 1.0}},
}
SITE_COST = PrivacyCost(5.0, 1e-6, "add_remove", "rdp", unit="site")


def make_config(base=RUN, **tables):
    tree = {key: dict(table) for key, table in base.items()}
    for table, changes in tables.items():
        tree.setdefault(table, {}).update(changes)
    return build_config(tree)


def make_policy(**keys):
    return Policy.model_validate(keys)


def refuses(rule):
    return pytest.raises(PolicyError, check=lambda error: error.rule == rule)


def test_usual_run_is_allowed_by_an_empty_policy():
    assert check_config(parse_policy(""), make_config()) is None


@pytest.mark.parametrize(
    ("rule", "bound", "changes"),
    [
        ("min_noise_multiplier", 1.2, {"privacy": {"noise_multiplier": 1.19}}),
        ("max_grad_norm", 1.0, {"privacy": {"max_grad_norm": 1.01}}),
        ("max_delta", 1e-5, {"privacy": {"target_delta": 1.1e-5}}),
        ("max_rounds", 20, {"federation": {"rounds": 21}}),
        ("max_local_steps", 4, {"training": {"local_steps": 5}}),
        ("max_update_norm", 16.0, {"secure_aggregation": {"max_update_norm": 16.1}}),
        ("min_cohort", 5, {"partition": {"sites": 4}}),
        ("min_cohort", 5, {"federation": {"sites_per_round": 4}}),
        ("models", ("mlp",), {"model": {"name": "logistic"}}),
        ("columns", ("age", "sex", "num"), {"data": {"columns": ["age", "chol"]}}),
        ("columns", ("age", "sex", "num"), {"data": {"label": "chol > 200"}}),
        ("columns", ("age", "sex", "num"), {"data": {"site_column": "ward"}}),
        ("allowed_units", ("record",), {"privacy": {"unit": "person"}}),
        ("uncovered_metrics", False, {"privacy": {"metrics": "uncovered"}}),
        ("secure_aggregation_required", True, {"secure_aggregation": {"mode": "off"}}),
        ("secure_aggregation_required", True, {"secure_aggregation": {"mode": "arithmetic"}}),
        ("own_code", False, {"model": {"name": "study:build"}}),
        ("own_code", False, {"data": {"source": "study:load"}}),
    ],
    ids=str,
)
def test_rule_allows_its_bound_and_refuses_beyond(rule, bound, changes):
    policy = make_policy(**{rule: bound})
    check_config(policy, make_config())
    with refuses(rule):
        check_config(policy, make_config(**changes))


def test_epsilon_is_of_all_rounds_in_the_site_s_own_relation():
    config = make_config(privacy={"neighbouring_relation": "add_remove"})
    check_config(make_policy(max_epsilon=2.5), config)
    with refuses("max_epsilon"):
        check_config(make_policy(max_epsilon=2.5, neighbouring_relation="replace_one"), config)
    with refuses("max_epsilon"):
        check_config(make_policy(max_epsilon=2.5), make_config(federation={"rounds": 400}))


def test_noise_of_zero_is_refused_whatever_the_bounds():
    policy = make_policy(min_noise_multiplier=0.0, max_epsilon=1e300)
    with refuses("max_epsilon"):
        check_config(policy, make_config(privacy={"noise_multiplier": 0.0}))


def test_run_without_privacy_is_refused_unless_named():
    config = build_config({"partition": {"sites": 5}})
    with refuses("allowed_units"):
        check_config(Policy(), config)
    check_config(make_policy(allowed_units=("none",)), config)


@pytest.mark.parametrize("target", ["hiv", "sex"])
def test_columns_that_a_run_predicts_are_among_those_allowed(target):
    data = {"source": "csv", "path": "x.csv", "columns": ["age"], "task": "multi_label"}
    tree = {**RUN, "data": {**data, "targets": [target, "sex"], "classes": None}}
    allowed = refuses("columns") if target == "hiv" else nullcontext()
    with allowed:
        check_config(make_policy(columns=("age", "sex")), build_config(tree))


@pytest.mark.parametrize("column", ["visit", "patient"])
def test_person_of_a_run_is_the_one_that_the_site_means(column):
    privacy = RUN["privacy"] | {"unit": "person"}
    config = build_config(
        {**RUN, "privacy": privacy, "data": {**RUN["data"], "person_column": column}}
    )
    check_config(make_policy(), config)
    with refuses("person_column") if column == "visit" else nullcontext():
        check_config(make_policy(person_column="patient"), config)


def test_columns_that_a_run_does_not_name_are_refused():
    tree = make_config().model_dump(mode="json", exclude_none=True)
    del tree["data"]["columns"]
    with refuses("columns"):
        check_config(make_policy(columns=("age", "sex", "num")), build_config(tree))


def test_model_of_its_own_code_is_allowed_where_it_is_named():
    config = make_config(model={"name": "study:build"})
    check_config(make_policy(models=("study:build",)), config)


def test_local_epochs_are_bounded_too():
    config = build_config({"partition": {"sites": 5}, "training": {"local_epochs": 6}})
    with refuses("max_local_epochs"):
        check_config(make_policy(max_local_epochs=5, allowed_units=("none",)), config)


def test_config_that_is_not_resolved_is_an_error():
    tree = {**RUN, "privacy": {"unit": "record", "target_epsilon": 3.0}}
    with pytest.raises(ConfigError, match="not resolved"):
        check_config(Policy(), build_config(tree))


def test_site_level_run_is_allowed_at_its_cost():
    check_config(Policy(), make_config(SITE_RUN), site_cost=SITE_COST)


@pytest.mark.parametrize(
    ("rule", "keys", "cost"),
    [
        ("max_epsilon", {}, None),
        ("max_epsilon", {"max_epsilon": 4.9}, SITE_COST),
        ("max_delta", {}, replace(SITE_COST, delta=1e-4)),
        ("max_delta", {"max_delta": 1e-7}, SITE_COST),
        ("neighbouring_relation", {"neighbouring_relation": "replace_one"}, SITE_COST),
        ("min_noise_multiplier", {"min_noise_multiplier": 4.1}, SITE_COST),
        ("allowed_units", {"allowed_units": ("record", "person")}, SITE_COST),
    ],
    ids=str,
)
def test_site_level_run_is_refused(rule, keys, cost):
    with refuses(rule):
        check_config(make_policy(**keys), make_config(SITE_RUN), site_cost=cost)


def test_run_of_two_units_counts_by_the_finer_one_that_is_named():
    both = {"unit": "record_and_site", "site": SITE_RUN["privacy"]["site"]}
    config = make_config(privacy=both)
    check_config(Policy(), config)
    with refuses("max_epsilon"):
        check_config(make_policy(allowed_units=("site",)), config)


def test_refusal_names_value_bound_and_cure():
    config = make_config(privacy={"noise_multiplier": 0.3})
    with pytest.raises(PolicyError) as caught:
        check_config(make_policy(min_noise_multiplier=0.8), config)
    assert str(caught.value) == (
        "privacy.noise_multiplier = 0.3; this site's policy.min_noise_multiplier is at least 0.8;"
        " ask the coordinator to change the run"
    )


def test_coordinator_is_told_the_rule_and_no_number():
    with pytest.raises(PolicyError) as caught:
        check_config(make_policy(max_rounds=7), make_config())
    assert describe_publicly(caught.value) == (107, "policy: max_rounds")


@pytest.mark.parametrize("reason", BUDGET_REASONS)
def test_coordinator_is_told_the_budget_s_reason_and_no_number(reason):
    code, text = describe_publicly(BudgetError(reason, "0.12 of 4.63 is left"))
    assert code == 108
    assert text == f"budget: {BUDGET_REASONS[reason]}"
    assert not any(character.isdigit() for character in text)


def test_other_refusals_of_a_site_keep_their_code():
    assert describe_publicly(LedgerError("disk"))[0] == describe_publicly(SiteError("x"))[0] == 103


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_epsilom = 3.0", "unknown key max_epsilom; did you mean max_epsilon?"),
        ("max_epsilon = 0.0", "max_epsilon = 0.0: input should be greater than 0"),
        ("max_epsilon = inf", "max_epsilon"),
        ("min_cohort = 2", "min_cohort = 2"),
        ('allowed_units = ["records"]', "allowed_units.0"),
        ("allowed_units = []", "allows no run"),
        ("own_code = 1", "own_code = 1"),
        ("max_rounds =", "not valid TOML"),
        ("[privacy]", "unknown key privacy"),
    ],
)
def test_policy_that_does_not_fit_is_one_line(text, words):
    with pytest.raises(ConfigError) as caught:
        parse_policy(text, name="policy.toml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_policy_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy(tmp_path / "policy.toml")


def test_policy_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Policy().own_code = True


def test_template_explains_every_key_and_reads_back():
    text = describe_policy()
    assert parse_policy(text) == Policy()
    for key in Policy.model_fields:
        assert f"\n# {key} = " in text
    policy = make_policy(max_epsilon=3.0, columns=("age",), partial_runs=False)
    assert parse_policy(describe_policy(policy)) == policy


def test_uncommented_template_is_the_default():
    lines = [line.removeprefix("# ") for line in describe_policy().splitlines() if " = " in line]
    text = "\n".join(line for line in lines if "(not set)" not in line)
    assert Policy.model_validate_json(Policy().model_dump_json()) == parse_policy(text)
    assert tomllib.loads(text)["min_cohort"] == 3


def test_budget_of_the_policy_is_what_a_new_ledger_gets():
    budget = parse_policy("lifetime_epsilon = 3.0\nlifetime_unit = 'person'").to_budget()
    assert (budget.epsilon, budget.delta, budget.unit) == (3.0, 1e-6, "person")
