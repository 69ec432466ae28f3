"""`fedtrain bench simulate`: it runs and prints a table; no time is asserted."""

import json
import sys

import pytest

from fedtrain.cli import main
from fedtrain.report.tables import make_console
from simulations.bench.simulate import ENTRIES, Measurement, measure
from simulations.bench.stopwatch import Stopwatch, read_peak_memory
from simulations.bench.table import render_measurements, to_json
from simulations.bench.workloads import WORKLOADS, build, load_clients


@pytest.mark.parametrize(("name", "count"), [("a", 7_850), ("b", 1_626_442)])
def test_workload_has_the_published_number_of_parameters(name, count):
    assert sum(parameter.numel() for parameter in build(name).parameters()) == count


def test_workload_gives_each_client_its_records():
    pixels, labels = load_clients("smoke")
    workload = WORKLOADS["smoke"]
    assert pixels.shape == (workload.clients, workload.records, *workload.shape)
    assert labels.shape == pixels.shape[:2]


def test_bench_measures_every_contender_or_says_why_not(monkeypatch):
    monkeypatch.setattr("simulations.bench.simulate.ENTRIES", {"bare": ENTRIES["bare"]})
    (bare,) = measure("smoke", rounds=2, repeats=2)
    assert bare.reason is None
    assert len(bare.seconds) == 4
    assert bare.memory is None or bare.memory > 2**20


@pytest.mark.slow
def test_bench_command_prints_one_json_object_with_both_worker_counts(capsys):
    assert main(["bench", "simulate", "--workload", "smoke", "--repeats", "1", "--json"]) == 0
    rows = {row["contender"]: row for row in json.loads(capsys.readouterr().out)["smoke"]}
    assert set(rows) == set(ENTRIES)
    assert rows["bare"]["ratio"] == 1
    assert rows["ours-1"]["rounds"] == rows["ours-2"]["rounds"] == WORKLOADS["smoke"].rounds


def test_table_shows_ratios_and_reasons(capsys):
    found = [Measurement("bare", (1.0, 3.0), 2**20), Measurement("pfl", reason="not installed")]
    make_console(sys.stdout).print(render_measurements("a title", found))
    text = capsys.readouterr().out
    assert "bare PyTorch loop" in text
    assert "2.0000" in text
    assert "not installed" in text
    assert to_json(found)[1]["ratio"] is None


def test_stopwatch_leaves_the_first_round_out():
    stopwatch = Stopwatch(2)
    for _ in range(stopwatch.total):
        stopwatch.tick()
    assert len(stopwatch.seconds) == 2
    assert stopwatch.memory == pytest.approx(read_peak_memory(), rel=0.2)
