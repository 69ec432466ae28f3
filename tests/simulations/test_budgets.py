"""Sites with policies and lifetime budgets of their own, in whole federations."""

import json
import shutil

import pytest

from clients.custody import create_custody, open_custody
from fedtrain.config import parse_config
from fedtrain.errors import RunFailedError
from fedtrain.ledger.budget import Budget, choose_order, compute_cost, compute_total
from fedtrain.ledger.verify import read_noted_heads, verify_ledger
from fedtrain.plan import build_record_plan
from fedtrain.policy import parse_policy
from fedtrain.privacy.accounting import compute_cost as compute_privacy_cost
from fedtrain.report.verify import verify_run
from fedtrain.resolution import resolve
from simulations.progress import Silence
from simulations.simulate import open_config, reopen, simulate, start

TEXT = """
[run]
name = "budgets"
[partition]
sites = 5
[model]
name = "logistic"
[training]
sampling = "poisson"
sample_rate = 0.1
local_steps = 2
expected_batch_size = 30
[federation]
rounds = 4
[privacy]
unit = "record"
target_epsilon = 4.0
"""


def prepare(tmp_path, *overrides):
    folder = f'simulation.sites_directory="{tmp_path / "sites"}"'
    return open_config(resolve(parse_config(TEXT, [folder, *overrides])))


def run(tmp_path, name="run", *overrides):
    directory = start(prepare(tmp_path, *overrides), tmp_path / name)
    simulate(directory, Silence())
    return tmp_path / name


def read_sites(path):
    return {site["site"]: site for site in json.loads((path / "sites.json").read_text())}


def find_budget_for(rounds):
    """Return the lifetime epsilon, to a hundredth, that bears so many rounds and no more."""
    event = build_record_plan(resolve(parse_config(TEXT))).to_event(1)
    for hundredths in range(100, 2000):
        budget = Budget(hundredths / 100, 1e-6)
        order = choose_order(budget)
        cost = compute_cost(event, budget, order=order, unit="record")
        if cost is not None and rounds * cost <= compute_total(budget, order) < (rounds + 1) * cost:
            return hundredths / 100
    raise AssertionError("no budget bears that many rounds")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run in which one site refuses, one leaves after two rounds, and three stay."""
    tmp_path = tmp_path_factory.mktemp("budgets")
    policies = {
        "site-00": "max_epsilon = 1.0",
        "site-01": f"lifetime_epsilon = {find_budget_for(2)}",
        "site-02": "lifetime_epsilon = 20.0",
    }
    for name, text in policies.items():
        create_custody(tmp_path / "sites" / name, name, policy=parse_policy(text))
    return run(tmp_path)


def test_one_site_refuses_one_leaves_when_spent_others_stay(finished):
    rounds = {name: site["rounds"] for name, site in read_sites(finished).items()}
    assert rounds == {"site-00": 0, "site-01": 2, "site-02": 4, "site-03": 4, "site-04": 4}
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["cohort"] for line in lines] == [4, 4, 4, 3]
    assert json.loads((finished / "state.json").read_text())["left"] == {"site-00": 1, "site-01": 3}


def test_epsilon_of_each_site_is_of_its_own_rounds(finished):
    plan = build_record_plan(resolve(parse_config(TEXT)))
    for site in read_sites(finished).values():
        cost = compute_privacy_cost([plan.to_event(site["rounds"])], delta=1e-5)
        assert site["epsilon"] == pytest.approx(cost.epsilon)


def test_ledgers_of_all_sites_hold_and_agree_with_the_heads_the_coordinator_noted(finished):
    for name in ("site-01", "site-02", "site-04"):
        heads = read_noted_heads(finished, name)
        checks = verify_ledger(finished.parent / "sites" / name / "ledger", heads=heads)
        assert heads
        assert not [check for check in checks if check.failed]


def test_run_that_sites_left_is_verified_whole(finished):
    assert not [check for check in verify_run(finished) if check.failed]


def test_reasons_are_public_words_without_numbers(finished):
    log = (finished / "log.txt").read_text()
    said = [line.split("reason=")[1] for line in log.splitlines() if "reason=" in line]
    assert set(said) == {"policy: max_epsilon", "budget: spent"}


def test_model_of_the_others_is_that_of_a_run_without_the_refused(finished, tmp_path):
    policy = parse_policy("max_rounds = 1")
    create_custody(tmp_path / "sites" / "site-00", "site-00", policy=policy)
    policy = parse_policy(f"lifetime_epsilon = {find_budget_for(2)}")
    create_custody(tmp_path / "sites" / "site-01", "site-01", policy=policy)
    other = run(tmp_path)
    assert (other / "model.safetensors").read_bytes() == (
        finished / "model.safetensors"
    ).read_bytes()


def test_budget_lasts_from_run_to_run(tmp_path):
    policy = parse_policy(f"lifetime_epsilon = {find_budget_for(6)}")
    create_custody(tmp_path / "sites" / "site-00", "site-00", policy=policy)
    for i in range(1, 5):
        policy = parse_policy("lifetime_epsilon = 30.0")
        create_custody(tmp_path / "sites" / f"site-0{i}", f"site-0{i}", policy=policy)
    rounds = [read_sites(run(tmp_path, f"run{i}"))["site-00"]["rounds"] for i in range(3)]
    assert rounds == [4, 2, 0]


def test_run_with_too_few_willing_sites_ends_in_one_line(tmp_path):
    for i in range(3):
        policy = parse_policy("max_rounds = 1")
        create_custody(tmp_path / "sites" / f"site-0{i}", f"site-0{i}", policy=policy)
    with pytest.raises(RunFailedError, match="2 of 5 sites take part, 3 are needed"):
        run(tmp_path)


class Copier(Silence):
    """Copies a run's directory as it is after its second round."""

    def __init__(self, path, copy):
        self._path, self._copy = path, copy

    def on_round(self, metrics):
        if metrics["round"] == 2:
            shutil.copytree(self._path, self._copy)


def test_rounds_asked_for_again_are_not_paid_for_again_and_give_the_same_model(tmp_path):
    """As after a crash of the coordinator that lost two rounds which the sites had released."""
    first, again = tmp_path / "first", tmp_path / "again"
    simulate(start(prepare(tmp_path), first), Copier(first, again))
    ledger = open_custody(tmp_path / "sites" / "site-02").ledger
    spent = ledger.compute_balance()
    simulate(reopen(again, None), Silence())
    assert ledger.compute_balance() == spent
    one, other = ((path / "model.safetensors").read_bytes() for path in (first, again))
    assert one == other
    assert not [check for check in verify_run(again) if check.failed]


def test_plain_updates_are_paid_for_too(tmp_path):
    for i in range(5):
        policy = parse_policy("secure_aggregation_required = false")
        create_custody(tmp_path / "sites" / f"site-0{i}", f"site-0{i}", policy=policy)
    path = run(tmp_path, "run", "secure_aggregation.mode=off", "federation.rounds=2")
    balance = open_custody(tmp_path / "sites" / "site-03").ledger.compute_balance()
    assert balance.spent > 0
    assert len(read_noted_heads(path, "site-03")) == 2


def test_site_level_runs_are_paid_for_as_the_exchange_of_an_update(tmp_path):
    text = TEXT[: TEXT.index("[privacy]")] + (
        '[privacy]\nunit = "site"\n[privacy.site]\nnoise_multiplier = 8.0\nmax_update_norm = 1.0\n'
    )
    folder = f'simulation.sites_directory="{tmp_path / "sites"}"'
    opened = open_config(resolve(parse_config(text, [folder])))
    simulate(start(opened, tmp_path / "run"), Silence())
    balance = open_custody(tmp_path / "sites" / "site-00").ledger.compute_balance()
    order = open_custody(tmp_path / "sites" / "site-00").ledger.created.order
    assert balance.spent / 1e12 == pytest.approx(4 * order * 2**2 / (2 * 8.0**2), rel=1e-3)
