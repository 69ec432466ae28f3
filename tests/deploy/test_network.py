"""The network itself fails: partitions, delay and loss, connections that are cut in the middle."""

import time

import pytest

from tests.deploy.deployed import DATA, SCENARIO, SITES, Deployed, Nursery, wait_until
from tests.deploy.network import COORDINATOR_IP, Cutter, enter, stretch_wire

MIB = 2**20
# Two hidden layers of 5000: 25 million parameters, 100 MB, in one local step.
LARGE = f"""
[run]
name = "large"
{DATA}[model]
name = "mlp"
hidden = [5000, 5000]
[training]
learning_rate = 0.01
local_steps = 1
batch_size = 8
[federation]
rounds = 1
round_timeout = 150
[privacy]
unit = "none"
[secure_aggregation]
mode = "off"
"""


@pytest.fixture(scope="module")
def wire():
    with stretch_wire() as wire:
        yield wire


@pytest.fixture(scope="module")
def ends(wire, tmp_path_factory):
    """What starts processes at either end of the wire."""
    nurseries = [
        Nursery(tmp_path_factory.mktemp(name.rpartition("-")[2]), *enter(name))
        for name in wire.names
    ]
    yield nurseries
    for nursery in nurseries:
        nursery.close()


@pytest.fixture
def far(wire, ends, tmp_path):
    """A federation whose coordinator is at one end and whose sites are at the other."""
    deployed = Deployed(tmp_path / "demo", ends[0], host=COORDINATOR_IP, poll_seconds=5)
    try:
        deployed.start_coordinator()
        deployed.start_agents(nursery=ends[1])
        yield deployed
    finally:
        deployed.close()
        wire.order("join")
        wire.order("delay 0")
        wire.order("loss 0")


def submit(deployed, wire, *overrides):
    return deployed.submit_from(enter(wire.names[0]), SCENARIO, *overrides)


def assert_whole(deployed, run, rounds):
    """All sites were in all rounds, and paid for each once."""
    assert [line["survivors"] for line in deployed.read_metrics(run)] == [len(SITES)] * rounds
    for site in SITES:
        assert [number for _, number in deployed.read_releases(site)] == [*range(1, rounds + 1)]


@pytest.mark.slow
def test_partition_of_60_s_costs_no_round(far, wire):
    run = submit(far, wire, "federation.rounds=3")
    wait_until(lambda: far.read_state(run)["round"] >= 1, what="the first round")
    wire.order("cut")
    cut = time.monotonic()
    wait_until(lambda: time.monotonic() - cut > 60, what="the partition's end")
    assert far.read_state(run)["status"] == "running"
    assert all(far.read_status(site)["missing"] for site in SITES)
    wire.order("join")
    far.wait_for_run(run, seconds=100)
    assert_whole(far, run, 3)


@pytest.mark.slow
def test_partition_longer_than_a_round_ends_the_run_and_it_is_resumed(far, wire):
    run = submit(far, wire, "federation.rounds=40", "federation.round_timeout=10")
    wait_until(lambda: far.read_state(run)["round"] >= 1, what="the first round")
    wire.order("cut")
    far.wait_for_run(run, "failed", seconds=120)
    assert "rounds in a row changed nothing" in far.read_state(run)["reason"]
    done = far.read_state(run)["round"]
    wire.order("join")
    far.command_from(enter(wire.names[0]), "resume", run)
    wait_until(lambda: far.read_state(run)["round"] > done, what="the next round")
    far.wait_for_run(run, seconds=100)
    assert far.read_metrics(run)[-1]["survivors"] == len(SITES)


@pytest.mark.slow
def test_delay_of_200_ms_and_loss_of_1_percent_cost_no_round(far, wire):
    wire.order("delay 0.2")
    wire.order("loss 0.01")
    run = submit(far, wire)
    far.wait_for_run(run, seconds=240)
    assert_whole(far, run, 2)


@pytest.fixture
def cut(nursery, tmp_path):
    """A federation in which one site's connections are cut twice each way, in 100 MB."""
    allowed = {"allowed_units": ("none",), "secure_aggregation_required": False}
    deployed = Deployed(tmp_path / "demo", nursery, **allowed)
    cutter = Cutter(deployed.address, cut_up=(30 * MIB, 70 * MIB), cut_down=(30 * MIB, 70 * MIB))
    deployed.set_agent(SITES[0], coordinator=cutter.address)
    try:
        yield deployed, cutter
    finally:
        deployed.close()
        cutter.close()


@pytest.mark.slow
def test_connection_cut_in_100_mb_goes_on_where_it_was(cut):
    deployed, cutter = cut
    deployed.start_coordinator()
    agent = deployed.start_agents()[SITES[0]]
    run = deployed.submit(LARGE)
    deployed.wait_for_run(run, seconds=150)
    assert cutter.cuts_left == 0, agent.read_log()
    size = len(deployed.read_model(run))
    assert size > 100_000_000
    for carried in (cutter.up, cutter.down):
        assert size < carried < 1.2 * size
