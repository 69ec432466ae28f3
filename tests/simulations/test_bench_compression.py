"""`fedtrain bench compression`: every case can run, and prints a table."""

import json

import pytest

from fedtrain.cli import main
from simulations.bench.compression import CASES, Compressed, build_case
from simulations.bench.compression_table import render_compression


@pytest.mark.parametrize("case", CASES)
def test_every_case_has_a_config_that_fits(case):
    config = build_case(CASES[case], rounds=2)
    assert (config.compression is None) == (case == "nothing")


def test_table_has_a_row_for_each_case():
    found = [Compressed(case, 0.5, 1000, 1.0) for case in CASES]
    assert render_compression(found).row_count == len(CASES)


@pytest.mark.slow
def test_command_prints_fewer_bytes_for_fewer_bits(capsys):
    assert main(["bench", "compression", "--rounds", "2", "--json"]) == 0
    outcomes = json.loads(capsys.readouterr().out)["outcomes"]
    sent = {one["case"]: one["bytes_up"] for one in outcomes}
    assert sent["updates of 4 bits"] < sent["updates of 8 bits"] < sent["nothing"]
    assert sent["10 % of coordinates"] < sent["50 % of coordinates"] < sent["nothing"]
