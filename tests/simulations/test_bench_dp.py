"""`fedtrain bench dp`: every contender takes a step or says why not; no time is asserted."""

import json
import sys

import pytest
from torch import nn

from fedtrain.cli import main
from fedtrain.report.tables import make_console
from simulations.bench.dp import ALLOCATORS, DpMeasurement, measure_dp
from simulations.bench.dp_contenders import CONTENDERS
from simulations.bench.dp_models import CASES, make_batch
from simulations.bench.dp_table import render_dp, to_json_dp

COUNTS = {
    "logistic": 7_850,
    "mlp": 50_890,
    "cnn-64k": 63_882,
    "cnn-1.6m": 1_626_442,
    "lstm": 25_738,
    "transformer": 106_890,
}


@pytest.mark.parametrize("name", CASES)
def test_case_has_its_number_of_parameters_and_ten_logits(name):
    model = CASES[name].build(nn.LSTM, nn.MultiheadAttention)
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[name]
    assert model(make_batch(name, 2)[0]).shape == (2, 10)


@pytest.mark.slow
def test_bench_dp_prints_one_json_object_with_every_contender(capsys):
    command = ["bench", "dp", "--models", "mlp", "--batches", "2", "--seconds", "0", "--json"]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["contender"] for row in rows] == [*CONTENDERS] * len(ALLOCATORS)
    assert all(row["milliseconds"] > 0 and row["steps"] >= 3 for row in rows)
    assert all(row["ratio"] == 1 for row in rows if row["contender"] == "plain")


@pytest.mark.slow
def test_every_contender_but_the_known_ones_takes_a_step_of_every_model():
    found = measure_dp(list(CASES), [2], seconds=0)
    failed = {(m.model, m.contender) for m in found if m.reason}
    assert failed <= {("transformer", "ghost")}


def test_bench_dp_refuses_a_model_that_is_unknown(capsys):
    assert main(["bench", "dp", "--models", "resnet"]) == 2
    assert "'resnet' is unknown; choose logistic, mlp" in capsys.readouterr().err


def test_table_shows_ratios_and_what_did_not_run(capsys):
    found = [
        DpMeasurement("mlp", 2, "default", "plain", milliseconds=2.0, memory=2**20),
        DpMeasurement("mlp", 2, "default", "ours", milliseconds=3.0, memory=2**21),
        DpMeasurement("mlp", 2, "default", "ghost", reason="RuntimeError: no"),
    ]
    make_console(sys.stdout, 150).print(render_dp(found, "default"))
    text = capsys.readouterr().out
    assert "3 (1.50)" in text
    assert "2.0 MiB (2.00)" in text
    assert to_json_dp(found)["rows"][2]["ratio"] is None
