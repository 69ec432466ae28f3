"""A coordinator in the open: strangers, second agents, members that were struck off."""

import os
import shutil
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from fedtrain.membership.federation import revoke
from fedtrain.secagg.codec import encode
from tests.deploy.deployed import SCENARIO, Deployed, wait_until

SITES = ("anna", "berta", "clara", "dora")
POLL_SECONDS = 4
RUN_SITES = SITES[:3]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory, nursery):
    """A coordinator and four sites at work."""
    path = tmp_path_factory.mktemp("open") / "demo"
    deployed = Deployed(path, nursery, sites=SITES, poll_seconds=POLL_SECONDS)
    try:
        deployed.running = {"coordinator": deployed.start_coordinator(), **deployed.start_agents()}
        deployed.wait_for_online()
        yield deployed
    finally:
        deployed.close()


def connect_to(deployed):
    host, _, port = deployed.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def count_descriptors(process):
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def scan(deployed):
    """Knock as a port scanner does: connect and go, or ask what it speaks."""
    for said in (b"", b"GET / HTTP/1.0\r\n\r\n", b"\x00" * 64, os.urandom(3000), b"SSH-2.0-x\r\n"):
        with suppress(OSError), connect_to(deployed) as probe:
            probe.sendall(said)
            probe.settimeout(0.2)
            assert b"fedtrain" not in probe.recv(1000)


@pytest.mark.slow
def test_run_goes_on_beside_idle_connections_and_a_port_scanner(deployed):
    coordinator = deployed.running["coordinator"]
    before = count_descriptors(coordinator)
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect_to(deployed))
        run = deployed.submit(SCENARIO, sites=RUN_SITES)
        for _ in range(20):
            scan(deployed)
        deployed.wait_for_run(run)
    assert [line["survivors"] for line in deployed.read_metrics(run)] == [3, 3]
    wait_until(lambda: count_descriptors(coordinator) < before + 20, 30, "letting go of them")


@pytest.mark.slow
def test_second_agent_of_an_identity_is_refused_and_the_first_goes_on(deployed, tmp_path):
    shutil.copytree(deployed.get("anna"), tmp_path / "twin")
    (tmp_path / "twin" / "agent" / "session").unlink()
    deployed.places["twin"] = tmp_path / "twin"
    twin = deployed.start("twin")
    assert twin.wait() in (5, 7)
    assert "another agent" in twin.read_log()
    run = deployed.submit(SCENARIO, sites=RUN_SITES)
    deployed.wait_for_run(run)
    assert deployed.read_metrics(run)[-1]["survivors"] == 3


@pytest.mark.slow
def test_site_of_another_root_says_so_and_sends_nothing(deployed, tmp_path, nursery):
    other = Deployed(tmp_path / "other", nursery, sites=("eve",))
    other.set_agent("eve", coordinator=deployed.address)
    other.start("eve")
    try:
        missing = wait_until(lambda: other.read_status("eve")["missing"], 30, "saying so")
    finally:
        other.close()
    assert "does not hold" in missing
    with deployed.operate() as calls:
        assert {one.name for one in calls.list_sites()} <= set(SITES)


# The last: the site is gone for good.
@pytest.mark.slow
def test_revoked_site_is_cut_within_one_heartbeat(deployed, tmp_path):
    dora = deployed.running["dora"]
    assert not dora.has_ended
    membership = bytes(encode(revoke(deployed.root, "dora")))
    with deployed.operate() as calls:
        begun = time.monotonic()
        calls.install(membership)
    assert dora.wait(POLL_SECONDS) in (5, 7)
    assert time.monotonic() - begun < POLL_SECONDS
    assert "revoked" in dora.read_log()
    run = deployed.submit(SCENARIO)  # all that are left
    deployed.wait_for_run(run)
    assert deployed.read_metrics(run)[-1]["survivors"] == 3
