"""Whole federations with site-level privacy: the same bytes however they are run."""

import json
import signal

import pytest

from fedtrain import cli
from fedtrain.config import parse_config
from fedtrain.plan import compute_planned_cost, compute_planned_site_cost
from fedtrain.report.verify import verify_run
from fedtrain.resolution import resolve
from simulations.progress import Silence
from simulations.simulate import open_config, reopen, simulate, start
from tests.simulations.test_simulate import read_model, read_state, start_command, wait_for_round

FIXED = """
[run]
name = "site"
[partition]
sites = 6
[model]
name = "logistic"
[training]
learning_rate = 0.2
[federation]
rounds = 3
[privacy]
unit = "site"
[privacy.site]
noise_multiplier = 1.0
target_delta = 1e-4
max_update_norm = 0.5
"""
ADAPTIVE = FIXED + 'clipping = "adaptive"\ninitial_update_norm = 0.1\nclip_learning_rate = 1.0\n'
# Cohorts of Poisson draws are below 3 once in 10^8 rounds.
SAMPLED = ADAPTIVE.replace("sites = 6", "sites = 14").replace(
    "rounds = 3", "rounds = 3\nsite_sample_rate = 0.9"
)
BOTH = FIXED.replace(
    'unit = "site"', 'unit = "record_and_site"\nnoise_multiplier = 2.0\nmetrics = "uncovered"'
).replace(
    "learning_rate = 0.2",
    'learning_rate = 0.2\nsampling = "poisson"\nsample_rate = 0.1\nlocal_steps = 3\n'
    "expected_batch_size = 20",
)
TEXTS = {"fixed": FIXED, "adaptive": ADAPTIVE, "sampled": SAMPLED, "both": BOTH}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a function that returns the finished run of a kind; not to be changed."""
    made = {}

    def run_once(kind):
        if kind not in made:
            made[kind] = run(tmp_path_factory.mktemp("site") / kind, TEXTS[kind])
        return made[kind]

    return run_once


def run(path, text, *overrides):
    directory = start(open_config(resolve(parse_config(text, overrides))), path)
    simulate(directory, Silence())
    return directory


@pytest.mark.parametrize("kind", TEXTS)
def test_protocol_and_arithmetic_give_the_same_bytes(runs, tmp_path, kind):
    run(tmp_path / "plain", TEXTS[kind], "secure_aggregation.mode=arithmetic")
    assert read_model(tmp_path / "plain") == read_model(runs(kind).path)


@pytest.mark.parametrize("kind", ["sampled", pytest.param("both", marks=pytest.mark.slow)])
def test_number_of_workers_does_not_change_the_bytes(runs, tmp_path, kind):
    run(tmp_path / "two", TEXTS[kind], "simulation.workers=2")
    assert read_model(tmp_path / "two") == read_model(runs(kind).path)


@pytest.mark.parametrize("kind", TEXTS)
def test_run_as_it_ended_is_verified(runs, kind):
    assert [check.result for check in verify_run(runs(kind).path) if check.failed] == []


@pytest.mark.parametrize("kind", TEXTS)
def test_run_of_mode_arithmetic_is_verified(tmp_path, kind):
    directory = run(tmp_path / "run", TEXTS[kind], "secure_aggregation.mode=arithmetic")
    assert [check.result for check in verify_run(directory.path) if check.failed] == []


def test_epsilon_is_that_of_the_site(runs):
    directory = runs("fixed")
    cost = compute_planned_site_cost(directory.config)
    last = directory.read_metrics()[-1]
    assert (last["epsilon"], last["delta"]) == (cost.epsilon, 1e-4)
    sites = json.loads((directory.path / "sites.json").read_text())
    assert {site["epsilon"] for site in sites} == {cost.epsilon}


def test_both_units_have_their_own_epsilon_and_delta(runs):
    directory = runs("both")
    record, site = (
        compute_planned_cost(directory.config),
        compute_planned_site_cost(directory.config),
    )
    last = directory.read_metrics()[-1]
    assert (last["epsilon"], last["delta"]) == (record.epsilon, 1e-5)
    assert (last["site_epsilon"], last["site_delta"]) == (site.epsilon, 1e-4)


def test_coordinators_epsilon_claims_nothing_from_sampling(runs):
    directory = runs("sampled")
    rounds = {}
    for entry in directory.read_ledger():
        rounds[entry.site] = rounds.get(entry.site, 0) + 1
    seen = compute_planned_site_cost(directory.config, max(rounds.values()), outside=False)
    last = directory.read_metrics()[-1]
    assert last["coordinator_epsilon"] == seen.epsilon
    assert last["epsilon"] < last["coordinator_epsilon"]


def test_adaptive_clip_moves_and_is_the_one_in_the_ledger(runs):
    directory = runs("adaptive")
    norms = [line["update_norm"] for line in directory.read_metrics()]
    assert norms[0] == 0.1
    assert len(set(norms)) == 3
    shares = [entry.noise_share for entry in directory.read_ledger()]
    assert [share.max_update_norm for share in shares[::6]] == norms


def test_suppressed_metrics_are_nowhere_in_the_coordinators_files(runs):
    lines = runs("adaptive").read_metrics()
    assert not [
        key for line in lines for key in line if key.startswith(("test_", "val_", "train_"))
    ]
    assert not list((runs("adaptive").path / "sites").iterdir())


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_bytes(tmp_path):
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(ADAPTIVE)
    options = ["federation.rounds=12"]
    killed = start_command(scenario, tmp_path / "killed", options)
    wait_for_round(tmp_path / "killed", 4)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert 4 <= read_state(tmp_path / "killed")["round"] < 12
    simulate(reopen(tmp_path / "killed", None), Silence())
    whole = run(tmp_path / "whole", ADAPTIVE, *options)
    assert whole.read_metrics()[4]["update_norm"] != 0.1  # the clip had moved
    assert read_model(tmp_path / "killed") == read_model(whole.path)
    for name in ("ledger.jsonl", "sites.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.parametrize("unit", ["fixed", "sampled"])
def test_show_and_check_run_on_it(runs, capsys, unit):
    assert cli.main(["show", str(runs(unit).path)]) == 0
    assert "Differential privacy for one whole site" in capsys.readouterr().out
