"""`fedtrain bench robustness`: every case can run, and prints a table."""

import json

import pytest

from fedtrain.cli import main
from simulations.bench.robustness import ATTACKS, DEFENCES, SITES, Outcome, build_case
from simulations.bench.robustness_table import render_robustness


@pytest.mark.parametrize("defence", DEFENCES)
def test_every_case_has_a_config_that_fits(defence):
    for attack in ATTACKS.values():
        config = build_case(DEFENCES[defence], attack, rounds=1)
        assert (config.attackers is None) == (attack is None)
        assert (config.secure_aggregation.mode == "off") == (DEFENCES[defence].bound is None)


def test_table_has_a_row_for_each_defence():
    outcomes = [Outcome(name, "none", 0.5, SITES) for name in DEFENCES]
    assert render_robustness(outcomes).row_count == len(DEFENCES)


@pytest.mark.slow
def test_command_prints_one_json_object(capsys, monkeypatch):
    monkeypatch.setattr("simulations.bench.robustness.DEFENCES", {"average": DEFENCES["average"]})
    assert main(["bench", "robustness", "--rounds", "2", "--json"]) == 0
    outcomes = json.loads(capsys.readouterr().out)["outcomes"]
    assert {one["attack"] for one in outcomes} == set(ATTACKS)
