"""What a site may be asked for in the name of statistics."""

from dataclasses import replace

import pytest
from flwr.app import ConfigRecord

from clients.custody import create_custody, open_custody
from clients.runtime import Runtime
from clients.site import Site
from clients.statistics import check_question, compute_statistics, read_plan, verify_purpose
from fedtrain.canonical import to_canonical
from fedtrain.config import load_config, parse_config, to_tree
from fedtrain.errors import SiteError
from fedtrain.ledger.faults import BudgetError
from fedtrain.policy import Policy
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.protocol import EVALUATION, PREPARATION_TEXT, SERVER_ROUND, STATISTICS, TRAINING
from fedtrain.resolution import resolve
from fedtrain.scenarios import find_scenario
from fedtrain.secagg.faults import RefusalError
from fedtrain.statistics.plan import build_asked_plan, build_plan
from fedtrain.statistics.preparing import build_preparation_plan

PRIVATE = (
    "training.sampling=poisson",
    "training.sample_rate=0.1",
    "training.local_steps=1",
    "training.expected_batch_size=10",
    "privacy.unit=record",
    "privacy.noise_multiplier=1.0",
)


def open_site(scenario, *overrides, simulated):
    config = resolve(load_config(find_scenario(scenario), overrides))
    return Site(Runtime(to_canonical(to_tree(config)), "", None), 0, simulated)


def ask(site, plan, round_=0):
    record = ConfigRecord({PREPARATION_TEXT: plan.to_text(), SERVER_ROUND: round_})
    return read_plan(site, record)


def test_real_site_answers_what_its_config_needs():
    site = open_site("breast_cancer_prepared", simulated=False)
    plan = build_preparation_plan(site.config, site.runtime.shards.public)
    assert ask(site, plan) == plan


def test_real_site_refuses_any_other_statistics():
    site = open_site("breast_cancer_prepared", simulated=False)
    plan = build_preparation_plan(site.config, site.runtime.shards.public)
    for other in (replace(plan, bins=10), replace(plan, part="all"), replace(plan, labels=())):
        with pytest.raises(RefusalError, match="not the statistics"):
            ask(site, other)


def test_real_site_answers_in_one_round_only():
    """Else each round would be another sum, over other sites."""
    site = open_site("breast_cancer_prepared", simulated=False)
    plan = build_preparation_plan(site.config, site.runtime.shards.public)
    with pytest.raises(RefusalError, match="not in this round"):
        ask(site, plan, round_=1)


def test_real_site_without_a_policy_answers_no_question():
    site = open_site("breast_cancer_prepared", "statistics.bins=10", simulated=False)
    plan = build_asked_plan(site.config, site.runtime.shards.public)
    with pytest.raises(SiteError, match="a policy must allow"):
        ask(site, plan, round_=1)


def test_run_that_asks_is_answered_what_it_asks_and_nothing_else():
    site = open_site("breast_cancer_prepared", "statistics.bins=10", simulated=True)
    plan = build_asked_plan(site.config, site.runtime.shards.public)
    assert ask(site, plan, round_=1) == plan
    for other in (replace(plan, bins=20), replace(plan, ranges=plan.ranges[1:])):
        with pytest.raises(RefusalError, match="config asks for"):
            ask(site, other, round_=1)


def test_run_that_asks_trains_and_evaluates_nothing():
    site = open_site("breast_cancer_prepared", "statistics.bins=10", simulated=False)
    verify_purpose(site, STATISTICS)
    for purpose in (TRAINING, EVALUATION):
        with pytest.raises(RefusalError, match="nothing else"):
            verify_purpose(site, purpose)


def test_site_releases_no_exact_statistics_of_protected_records():
    site = open_site("digits", *PRIVATE, simulated=True)
    plan = build_plan(site.config, site.runtime.shards.public)
    with pytest.raises(SiteError, match="without noise"):
        ask(site, plan)
    assert ask(site, replace(plan, noise_multiplier=1.0)).noise_multiplier == 1.0


NOISED = """
[data]
source = "csv"
label = "ill"
classes = ["0", "1"]
bounds = {age = [0, 120]}
[partition]
scheme = "natural"
sites = 3
[statistics]
target_epsilon = 1.0
"""


def open_real_site(path, records, *, run="one", odd=""):
    """Return a real site of these ages, and an odd row, as a process that just started has it."""
    rows = [f"{age},1" for age in records]
    (path / "data.csv").write_text("\n".join(["age,ill", *rows, odd]) + "\n")
    folder = path / "anna"
    if not folder.exists():
        create_custody(folder, "anna", policy=Policy(statistics=True))
    config = to_canonical(to_tree(resolve(parse_config(NOISED))))
    custody = open_custody(folder)
    runtime = Runtime(config, str(path / "data.csv"), "anna")
    custody.admit(runtime.config, run)
    return Site(runtime, 0, simulated=False, custody=custody, run=run)


def answer(site, cohort=3):
    """Return what a site answers, with another rounding each time."""
    plan = build_asked_plan(site.config, site.runtime.shards.public)
    record = ConfigRecord({PREPARATION_TEXT: plan.to_text(), SERVER_ROUND: 1})
    check_question(site, record, cohort)
    return compute_statistics(site, record, cohort, rounding=SecureGenerator.from_system())


def test_answer_is_the_same_after_a_crash_though_the_data_changed(tmp_path):
    """Else two answers with one noise, or two noises on one answer, could be had for one price."""
    first = answer(open_real_site(tmp_path, [40, 50, 60]))
    again = answer(open_real_site(tmp_path, [40, 50]))
    assert again.words.tobytes() == first.words.tobytes()
    assert (first.released.repeated, again.released.repeated) == (False, True)
    other = answer(open_real_site(tmp_path, [40, 50], run="two"))
    assert other.words.tobytes() != first.words.tobytes()


def test_paid_answer_is_not_given_to_another_cohort(tmp_path):
    site = open_real_site(tmp_path, [40, 50, 60])
    answer(site)
    with pytest.raises(BudgetError, match="was released for"):
        answer(site, cohort=4)


@pytest.mark.parametrize("odd", ["old,1", "1e400,1", "50,maybe", "50,", ",1"])
def test_no_record_makes_a_site_refuse_a_noised_question(tmp_path, odd):
    """Of what protects records a refusal, too, would tell: of one that is there."""
    site = open_real_site(tmp_path, [40, 50, 60], odd=odd)
    assert len(answer(site).words) == 3 + 1 + 20 + 2
