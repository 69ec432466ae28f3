"""What a simulation's rounds cost, by site, beside the run."""

import json

import pytest

from fedtrain import cli
from fedtrain.config import parse_config
from fedtrain.costs import COSTS, load_costs
from fedtrain.report.verify import verify_run
from fedtrain.resolution import resolve
from simulations.progress import Silence
from simulations.simulate import open_config, reopen, simulate, start

PRIVATE = """
[partition]
scheme = "iid"
sites = 4
[model]
hidden = [16]
[data]
validation_fraction = 0.0
[training]
sampling = "poisson"
sample_rate = 0.2
local_steps = 2
expected_batch_size = 50
[federation]
rounds = 3
[privacy]
unit = "record"
noise_multiplier = 1.0
[secure_aggregation]
mode = "protocol"
"""
PLAIN = """
[partition]
sites = 4
[model]
hidden = [16]
[federation]
rounds = 2
sites_per_round = 3
[secure_aggregation]
mode = "off"
"""


def run(path, text, *overrides):
    directory = start(open_config(resolve(parse_config(text, overrides))), path)
    simulate(directory, Silence())
    return directory


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def private(request, tmp_path_factory):
    return run(tmp_path_factory.mktemp("run") / "a", PRIVATE, f"simulation.workers={request.param}")


def test_every_site_and_round_is_timed(private):
    costs = load_costs(private.path)
    assert [cost.round for cost in costs] == [0, 1, 2, 3]
    assert all(list(cost.sites) == [f"site-0{i}" for i in range(4)] for cost in costs)
    assert all(one.cpu_seconds > 0 for cost in costs for one in cost.sites.values())
    assert all(cost.coordinator_seconds > 0 for cost in costs)


def test_bytes_of_sites_add_up_to_the_rounds(private):
    totals = [cost.total for cost in load_costs(private.path)[1:]]
    for total, line in zip(totals, private.read_metrics(), strict=True):
        assert (total.bytes_up, total.bytes_down) == (line["bytes_up"], line["bytes_down"])


def test_costs_are_in_no_other_file_and_may_be_removed(private):
    others = [path for path in private.path.rglob("*.json*") if path.name != COSTS]
    assert others
    assert not any("cpu_seconds" in path.read_text(encoding="utf-8") for path in others)
    (private.path / COSTS).unlink()
    assert not any(check.failed for check in verify_run(private.path))


def test_bytes_without_secure_aggregation_are_those_of_the_sites_that_were_asked(tmp_path):
    directory = run(tmp_path / "a", PLAIN, "federation.evaluate_every=0")
    first, line = load_costs(directory.path)[1], directory.read_metrics()[0]
    assert len(first.sites) == 3
    assert first.total.bytes_down == line["bytes_down"]
    assert first.total.bytes_up == line["bytes_up"]


def test_resumed_run_goes_on_with_its_costs(tmp_path):
    class Interrupt(Silence):
        def on_round(self, metrics):
            raise KeyboardInterrupt

    directory = start(open_config(resolve(parse_config(PLAIN))), tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        simulate(directory, Interrupt())
    simulate(reopen(tmp_path / "a", None), Silence())
    assert [cost.round for cost in load_costs(tmp_path / "a")] == [0, 1, 2]


def test_show_prints_a_simulations_costs_by_round_and_site(tmp_path, capsys):
    run(tmp_path / "a", PLAIN)
    arguments = ["show", str(tmp_path / "a"), "--cost", "--watts", "10", "--json"]
    assert cli.main(arguments) == 0
    tree = json.loads(capsys.readouterr().out)
    joules = sum(one["joules"] for one in tree["sites"])
    assert joules == pytest.approx(10 * sum(one["cpu_seconds"] for one in tree["sites"]))
    assert tree["energy_source"] == "assumed"
    assert tree["rounds"][0]["sites"]["site-00"]["joules"] > 0
