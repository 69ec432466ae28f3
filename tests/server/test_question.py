"""A run that asks real sites for statistics: policy, ledger, answers given once, the attack."""

import json

import numpy as np
import pytest

from clients.custody import open_custody
from fedtrain.audit.checks import verify_evidence
from fedtrain.audit.evidence import Evidence
from fedtrain.cli import main
from fedtrain.config import parse_config
from fedtrain.errors import RunFailedError
from fedtrain.ledger.verify import read_entries, verify_ledger
from fedtrain.policy import Policy
from fedtrain.resolution import resolve
from fedtrain.runs import RunDirectory
from fedtrain.statistics.figures import SumsReader, unscale_moments
from server.draws import Draws
from server.question import ask_sites, run_question
from tests.server.real_sites import SITES, RealGrid, make_federation, write_ages

OLD = 99  # older than all others, who are below 90
CONFIG = """
[run]
name = "question"
[data]
source = "csv"
label = "ill"
classes = ["0", "1"]
bounds = {age = [0, 120]}
[partition]
scheme = "natural"
sites = 3
[model]
name = "logistic"
[statistics]
bins = 4
"""
NOISE = "statistics.target_epsilon=1.0"


class Federation:
    """Three real sites with one policy."""

    def __init__(self, path, grid, ages, roster):
        self.path, self.grid, self.ages, self.roster = path, grid, ages, roster
        self.runs = 0

    def ask(self, *overrides, run_id=None):
        """Ask in a run of its own; return the sum."""
        self.runs += 1
        config = resolve(parse_config(CONFIG, overrides))
        name = run_id or f"run-{self.runs}"
        options = {"draws": Draws.from_system(), "roster": self.roster, "run_id": name}
        return ask_sites(self.grid, config, **options)[2]

    def run(self, *overrides, folder="run"):
        """Ask by a run's directory; return its path."""
        run = RunDirectory.create(self.path / folder, resolve(parse_config(CONFIG, overrides)))
        run.mark_running()
        run_question(self.grid, run, draws=Draws.from_system(), roster=self.roster)
        run.close()
        return run.path

    def list_committed(self, site="anna"):
        folder = self.path / site / "ledger"
        assert not [check for check in verify_ledger(folder) if check.failed]
        return [entry.body for entry in read_entries(folder) if entry.body.kind == "committed"]


@pytest.fixture
def make(tmp_path):
    """Return a function that makes the federation of a policy, or of one a site."""
    grids = []

    def make(*policies, **allowed):
        policies = policies or [Policy(statistics=True, **allowed)] * 3
        ages, roster = make_federation(tmp_path, policies=policies)
        ages["anna"] = np.append(ages["anna"], OLD)
        write_ages(tmp_path, "anna", ages["anna"].tolist())
        grids.append(RealGrid(tmp_path).__enter__())
        return Federation(tmp_path, grids[0], ages, roster)

    yield make
    for grid in grids:
        grid.__exit__(None, None, None)


def read_total(summed):
    """Return the sum of all ages, each cut off at the upper bound."""
    reader = SumsReader(summed.plan, summed.sums)
    return unscale_moments(summed.plan.ranges[0], reader.ranges[0])[1]


def subtract(federation):
    """Ask twice, with another bound; return the age that the difference of the sums shows."""
    whole, cut = federation.ask(), federation.ask("data.bounds.age=[0,90]")
    return 90 + read_total(whole) - read_total(cut)


def test_two_exact_sums_would_show_the_record_in_which_they_differ(make):
    assert subtract(make(exact_statistics=2)) == pytest.approx(OLD, abs=0.01)


def test_second_exact_sum_is_refused(make):
    with pytest.raises(RunFailedError, match="policy: exact_statistics"):
        subtract(make(exact_statistics=1))


def test_statistics_are_refused_by_default(make):
    with pytest.raises(RunFailedError, match="policy: statistics"):
        make(*[Policy()] * 3).ask(NOISE)


def test_exact_statistics_are_refused_by_default(make):
    with pytest.raises(RunFailedError, match="policy: exact_statistics"):
        make().ask()


def test_site_of_few_records_gives_no_exact_sum(make):
    with pytest.raises(RunFailedError, match="void"):
        make(exact_statistics=1, min_statistics_records=51).ask()


def test_each_noised_sum_is_paid_for_in_every_ledger(make):
    federation = make()
    for _ in range(2):
        federation.ask(NOISE)
    paid = [federation.list_committed(site) for site in SITES]
    assert [[entry.run for entry in one] for one in paid] == [["run-1", "run-2"]] * 3


def test_budget_bounds_how_often_noised_sums_are_asked(make):
    federation = make(lifetime_epsilon=1.5, lifetime_delta=1e-5)
    federation.ask(NOISE)
    with pytest.raises(RunFailedError, match="budget: "):
        federation.ask(NOISE)


def test_sum_beyond_the_policys_epsilon_is_refused(make):
    with pytest.raises(RunFailedError, match="policy: max_statistics_epsilon"):
        make(max_statistics_epsilon=0.9).ask(NOISE)


def test_two_willing_sites_are_too_few(make):
    policies = [Policy(statistics=True), Policy(statistics=True), Policy()]
    with pytest.raises(RunFailedError, match="min_cohort"):
        make(*policies).ask(NOISE)


def test_noise_is_on_the_sum_and_the_cost_is_what_was_asked(make):
    federation = make()
    summed = federation.ask(NOISE)
    cost = summed.layout.compute_cost(resolve(parse_config(CONFIG, [NOISE])), delta=1e-5)
    stddev = summed.layout.compute_noise_stddev(3)
    assert 0.98 <= cost.epsilon <= 1.0
    assert 0 < abs(summed.sums[0] - 151) < 6 * stddev


def test_run_leaves_its_result_in_its_directory(make, capsys):
    path = make().run(NOISE)
    tree = json.loads((path / "statistics.json").read_text())
    assert (tree["sites"], tree["noise_stddev"] > 0) == (3, True)
    assert main(["stats", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == tree


def test_directory_of_a_run_is_printed_as_tables(make, capsys):
    assert main(["stats", str(make(exact_statistics=1).run())]) == 0
    out = capsys.readouterr().out
    assert "Numeric columns, 151 records" in out
    assert "Exact sums" in out


def test_every_file_of_a_run_is_verified(make, capsys):
    path = make().run(NOISE)
    assert main(["verify", str(path)]) == 0
    table = capsys.readouterr().out
    assert [table.count(name) for name in ("what the sites were asked", "DOES NOT")] == [1, 0]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("statistics.json", '"high": 120.0', '"high": 90.0'),
        ("statistics.json", '"sites": 3', '"sites": 4'),
        ("metrics.jsonl", '"epsilon": 0.9', '"epsilon": 0.8'),
        ("ledger.jsonl", '"shares":3', '"shares":2'),
    ],
)
def test_changed_answer_is_found_without_the_manifest(make, name, old, new):
    path = make().run(NOISE)
    text = (path / name).read_text()
    assert old in text
    (path / name).write_text(text.replace(old, new))
    failed = [check.name for check in verify_evidence(Evidence(path)) if check.failed]
    assert failed


def test_shown_run_says_what_it_cost_and_claims_no_training(make, capsys):
    assert main(["show", str(make().run(NOISE))]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "epsilon = 1.000 at delta = 1e-05 for the one sum of statistics" in out
    assert "learning rate" not in out


@pytest.mark.parametrize("command", ["report", "audit"])
def test_reports_and_audits_are_of_models(make, capsys, command):
    assert main([command, str(make().run(NOISE))]) == 2
    assert "trained nothing" in capsys.readouterr().err


def test_finished_run_asks_nobody_again(make):
    federation = make()
    path = federation.run(NOISE)
    run = RunDirectory.resume(path)
    run_question(None, run, draws=Draws.from_system(), roster=federation.roster)
    run.close()
    assert len(federation.list_committed()) == 1


def test_question_of_one_run_is_answered_once(make):
    federation = make()
    federation.ask(NOISE, run_id="one")
    with pytest.raises(RunFailedError, match="void"):
        federation.ask(NOISE, run_id="one")
    assert len(federation.list_committed()) == 1


def test_secret_of_the_run_stays_at_the_site(make):
    federation = make()
    path = federation.run(NOISE)
    secret = open_custody(federation.path / "anna").load_secret(
        json.loads((path / "state.json").read_text())["run_id"]
    )
    files = [each.read_bytes() for each in path.rglob("*") if each.is_file()]
    assert not any(secret in data or secret.hex().encode() in data for data in files)


def test_two_noised_answers_tell_whether_the_records_have_drifted(make, capsys):
    least = {"min_noise_multiplier": 0.05, "lifetime_epsilon": 1000.0}
    federation = make(max_statistics_epsilon=200.0, **least)
    wide = ("statistics.target_epsilon=100.0", "statistics.bins=8")
    before = federation.run(*wide)
    for name in SITES:
        write_ages(federation.path, name, (federation.ages[name] // 2).tolist())
    after = federation.run(*wide, folder="later")
    assert main(["drift", str(before), "--new", str(after), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["drifted"] == ["age"]


def test_exact_answer_keeps_its_figures_and_not_its_sums(make, capsys):
    path = make(exact_statistics=1).run()
    assert "sums" not in json.loads((path / "statistics.json").read_text())
    assert main(["drift", str(path), "--new", str(path)]) == 2
    assert "is not kept" in capsys.readouterr().err
