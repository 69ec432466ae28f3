"""`fedtrain check --plan`: what one measured round says of a whole run."""

import json

import pytest

from fedtrain import cli
from fedtrain.config import build_config
from fedtrain.resolution import resolve
from simulations.cost import Cost, extrapolate, measure_round
from simulations.opening import open_scenario

SMALL = ("partition.scheme=iid", "data.validation_fraction=0", "model.hidden=[16]")
MEASURED = Cost(10, 1, cpu_seconds=2, seconds_here=3, bytes_up=1e6, bytes_down=5e5, joules=7.0)


def measure(sites):
    opened = open_scenario("digits", [*SMALL, f"partition.sites={sites}"])
    return opened.config, measure_round(opened)


@pytest.fixture(scope="module")
def measured():
    return measure(4)


@pytest.mark.parametrize("key", ["bytes_up", "bytes_down"])
def test_bytes_of_more_sites_are_those_that_are_sent(measured, key):
    config, few = measured
    _, many = measure(9)
    estimated = extrapolate(few, config, sites=9, rounds=1)
    assert getattr(estimated, key) == pytest.approx(getattr(many, key), rel=0.01)


def test_measured_round_itself_is_estimated_as_it_was(measured):
    config, few = measured
    again = extrapolate(few, config, sites=4, rounds=1)
    assert again.bytes_up == pytest.approx(few.bytes_up)
    assert again.cpu_seconds == pytest.approx(few.cpu_seconds)


def test_rounds_multiply_all_but_epsilon():
    config = resolve(build_config({"secure_aggregation": {"mode": "off"}}))
    planned = extrapolate(MEASURED, config, sites=20, rounds=50)
    assert (planned.cpu_seconds, planned.bytes_up, planned.joules) == (200, 1e8, 700)


def test_pairs_stop_growing_where_the_graph_is_sparse():
    config = resolve(build_config({"partition": {"sites": 10}}))
    costs = [extrapolate(MEASURED, config, sites=n, rounds=1).bytes_up / n for n in (200, 2000)]
    assert costs[1] < 2 * costs[0]


def test_plan_is_printed_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = [part for text in SMALL for part in ("--set", text)]
    arguments = ["check", "digits", *options, "--plan", "--sites", "50", "--rounds", "200"]
    assert cli.main([*arguments, "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert (tree["estimated"]["sites"], tree["estimated"]["rounds"]) == (50, 200)
    assert tree["estimated"]["epsilon"] > tree["measured"]["epsilon"]
    assert not list(tmp_path.iterdir())


def test_options_of_the_plan_are_not_silently_ignored(capsys):
    assert cli.main(["check", "digits", "--rounds", "9"]) == 2
    assert "--rounds is read with --plan" in capsys.readouterr().err
